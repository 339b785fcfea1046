//! Spans and events for `tracing`. Without the feature `tracing`, this module emits none.
//!
//! Each connection has a span, and events at its start and its end. Other events report errors of
//! `accept`, and a listener that has reached `max_connections`. The field `reason` is a fixed word.
//! Events contain no byte from a peer, except in the errors of handlers, which are escaped.

use std::io;

use tokio::time::{Duration, Instant};

use super::counters::Outcome;
use crate::net::{AnyIo, Duplex, Peer};

/// The span of a connection.
pub(super) struct Span {
    /// `None` if no subscriber is interested.
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

/// Reports a connection whose handshake has succeeded.
pub(super) fn connection_began(peer: Peer) {
    #[cfg(feature = "tracing")]
    tracing::info!(%peer, "connection began");
    #[cfg(not(feature = "tracing"))]
    let _ = peer;
}

/// The contents of the event at the end of a connection.
pub(super) struct Summary {
    #[cfg(feature = "tracing")]
    counters: crate::net::ConnectionCounters,
    /// Number of bytes that were read and not returned to the handler.
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

    /// Returns whether no byte was read or sent.
    #[cfg(feature = "tracing")]
    fn is_empty(&self) -> bool {
        self.counters.read.bytes() + self.pending as u64 + self.counters.bytes_sent == 0
    }
}

/// Reports the end of a connection. `summary` is `None` if the handler took the connection apart,
/// or if there was no handler.
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
        // Such as a health check.
        _ if is_unused && (reason.is_none() || outcome.is_reset()) => emit!(debug),
        Outcome::Done => emit!(info),
        _ => emit!(warn),
    }
}

#[cfg(not(feature = "tracing"))]
pub(super) fn connection_ended(_: Peer, _: &Outcome, _: Option<Summary>) {}

/// Reports that a listener waits until one of `max_connections` connections ends.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables))]
pub(super) fn connection_limit_reached(max_connections: usize) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        max_connections,
        reason = "max_connections",
        "connection limit reached, new connections wait"
    );
}

/// Reports errors of `accept`, at most one per second. An error within that second is held until
/// the next report, which has the last error and the number of suppressed ones.
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
