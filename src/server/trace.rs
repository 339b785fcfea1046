//! Spans and events for `tracing`: a span for each connection, an event when it ends, and one when
//! accepting fails. Without the feature nothing is emitted. Events contain no byte that a peer
//! sent, except in the errors of handlers, which are escaped.

use std::io;

use tokio::time::{Duration, Instant};

use super::counters::Outcome;
use crate::net::{ConnectionCounters, Peer};

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

/// A connection has ended. `counters` is `None` if its handler took it apart, or it never had one.
pub(super) fn connection_ended(peer: Peer, outcome: &Outcome, counters: Option<&ConnectionCounters>) {
    #[cfg(feature = "tracing")]
    {
        let counters = counters.copied().unwrap_or_default();
        let (lines, bad_lines) = (counters.read.lines, counters.read.bad_items());
        let (lines_written, bytes_sent) = (counters.lines_written, counters.bytes_sent);
        match outcome {
            Outcome::Done => {
                tracing::info!(%peer, lines, bad_lines, lines_written, bytes_sent, "connection ended");
            }
            why => {
                tracing::warn!(%peer, lines, bad_lines, lines_written, bytes_sent, %why, "connection ended");
            }
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (peer, outcome, counters);
}

/// Reports errors of `accept`, at most once a second.
#[derive(Default)]
pub(super) struct AcceptErrors {
    reported_at: Option<Instant>,
    unreported: u64,
}

impl AcceptErrors {
    pub(super) fn report(&mut self, error: &io::Error) {
        if self.reported_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            self.unreported += 1;
            return;
        }
        #[cfg(feature = "tracing")]
        tracing::warn!(error = %crate::error::Escaped(error), unreported = self.unreported, "cannot accept");
        #[cfg(not(feature = "tracing"))]
        let _ = error;
        *self = Self { reported_at: Some(Instant::now()), unreported: 0 };
    }
}
