//! Spans and events for `tracing`: a span for each connection, events when it begins and ends, when
//! accepting fails, and when a listener waits for a place. The field `reason` is a fixed word.
//! Without the feature nothing is emitted. Events contain no byte that a peer sent, except in the
//! errors of handlers, which are escaped.

use std::io;

use tokio::time::{Duration, Instant};

use super::counters::Outcome;
use crate::net::{AnyIo, Duplex, Peer};

/// The span of a connection.
pub(super) struct Span {
    /// `None`: no subscriber is interested.
    #[cfg(feature = "tracing")]
    span: Option<std::boxed::Box<tracing::Span>>,
}

impl Span {
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables))]
    pub(super) fn new(peer: Peer) -> Self {
        #[cfg(feature = "tracing")]
        let span = tracing::info_span!("connection", %peer);
        Self {
            #[cfg(feature = "tracing")]
            span: (!span.is_disabled()).then(|| span.into()),
        }
    }

    pub(super) fn in_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.as_ref().map(|span| span.enter());
        run()
    }
}

/// A connection was accepted, and its handshake has succeeded.
pub(super) fn connection_began(peer: Peer) {
    #[cfg(feature = "tracing")]
    tracing::info!(%peer, "connection began");
    #[cfg(not(feature = "tracing"))]
    let _ = peer;
}

/// What the event at the end of a connection says of it.
pub(super) struct Summary {
    #[cfg(feature = "tracing")]
    counters: crate::net::ConnectionCounters,
    /// Bytes that were read and not handed out.
    #[cfg(feature = "tracing")]
    pending: usize,
    #[cfg(feature = "tracing")]
    has_newlines: bool,
}

impl Summary {
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables))]
    pub(super) fn of(connection: &Duplex<AnyIo>) -> Self {
        Self {
            #[cfg(feature = "tracing")]
            counters: connection.counters(),
            #[cfg(feature = "tracing")]
            pending: connection.pending(),
            #[cfg(feature = "tracing")]
            has_newlines: matches!(connection.delimiter(), crate::Delimiter::Newline | crate::Delimiter::Lf),
        }
    }

    /// Whether no byte went either way.
    #[cfg(feature = "tracing")]
    fn is_empty(&self) -> bool {
        self.counters.read.bytes() + self.pending as u64 + self.counters.bytes_sent == 0
    }
}

/// A connection has ended. `summary` is `None` if its handler took it apart, or it never had one.
#[cfg(feature = "tracing")]
pub(super) fn connection_ended(peer: Peer, outcome: &Outcome, summary: Option<Summary>) {
    use std::format;

    use crate::net::TimeoutKind;

    let is_unused = summary.as_ref().is_some_and(Summary::is_empty);
    let counters = summary.as_ref().map(|summary| summary.counters).unwrap_or_default();
    let (lines, bad_lines) = (counters.read.lines, counters.read.bad_items());
    let (lines_written, bytes_sent) = (counters.lines_written, counters.bytes_sent);
    let reason = outcome.reason();
    let detail = match (outcome, &summary) {
        (Outcome::Failed(error), _) => Some(format!("{}", crate::error::Escaped(error))),
        (
            Outcome::TimedOut(TimeoutKind::Line),
            Some(Summary { pending: pending @ 1.., has_newlines, .. }),
        ) => {
            let bytes = if *pending == 1 { "byte" } else { "bytes" };
            let terminator = if *has_newlines { "newline" } else { "terminator" };
            Some(format!("{pending} {bytes} without a {terminator}"))
        }
        _ => None,
    };
    let detail = detail.as_deref();
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(
                %peer, lines, bad_lines, lines_written, bytes_sent, reason, detail, "connection ended"
            )
        };
    }
    match outcome {
        // A health check, for example.
        _ if is_unused && (reason.is_none() || outcome.is_reset()) => emit!(debug),
        Outcome::Done => emit!(info),
        _ => emit!(warn),
    }
}

#[cfg(not(feature = "tracing"))]
pub(super) fn connection_ended(_: Peer, _: &Outcome, _: Option<Summary>) {}

/// A listener waits until one of `max_connections` connections ends.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables))]
pub(super) fn all_places_are_taken(max_connections: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(max_connections, reason = "max_connections", "new connections wait");
}

/// Reports errors of `accept`, at most once a second. The others are held: the last of them is
/// reported later, with how many there were before it.
#[derive(Default)]
pub(super) struct AcceptErrors {
    reported_at: Option<Instant>,
    held: Option<Held>,
}

struct Held {
    error: std::string::String,
    suppressed: u64,
}

impl AcceptErrors {
    pub(super) fn report(&mut self, error: &io::Error) {
        let suppressed = self.held.take().map_or(0, |held| held.suppressed + 1);
        self.held = Some(Held { error: std::format!("{}", crate::error::Escaped(error)), suppressed });
        if self.reported_at.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.reported_at = Some(Instant::now());
            self.emit();
        }
    }

    fn emit(&mut self) {
        let Some(Held { error, suppressed }) = self.held.take() else { return };
        #[cfg(feature = "tracing")]
        tracing::warn!(reason = "accept", detail = error, suppressed, "cannot accept");
        #[cfg(not(feature = "tracing"))]
        let _ = (error, suppressed);
    }
}

impl Drop for AcceptErrors {
    fn drop(&mut self) {
        self.emit();
    }
}
