//! What the server tells `tracing`: a span for each connection, an event when it ends, and when accepting fails. Without the
//! feature it tells nothing. No event holds a byte that a peer sent, but in the errors of handlers, which are escaped.

use std::io;

use tokio::time::{Duration, Instant};

use super::ended::Ended;
use crate::connection::{ConnectionCounters, Peer};

/// What happens on one connection.
pub(super) struct Span {
    /// `None` where nobody wants to know.
    #[cfg(feature = "tracing")]
    span: Option<std::boxed::Box<tracing::Span>>,
}

impl Span {
    #[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
    pub(super) fn of(peer: Peer) -> Self {
        #[cfg(feature = "tracing")]
        let span = tracing::info_span!("connection", %peer);
        Self {
            #[cfg(feature = "tracing")]
            span: (!span.is_disabled()).then(|| span.into()),
        }
    }

    /// Of all that happens in `does`.
    pub(super) fn of_all<T>(&self, does: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.as_ref().map(|span| span.enter());
        does()
    }
}

/// A connection has ended. The counters are `None` where its handler took it apart or it had none.
pub(super) fn ended(peer: Peer, ended: &Ended, counters: Option<&ConnectionCounters>) {
    #[cfg(feature = "tracing")]
    {
        let counters = counters.copied().unwrap_or_default();
        let (lines, bad_lines) = (counters.read.lines, counters.read.bad_items());
        let (lines_written, bytes_sent) = (counters.lines_written, counters.bytes_sent);
        match ended {
            Ended::Done => {
                tracing::info!(%peer, lines, bad_lines, lines_written, bytes_sent, "connection ended");
            }
            why => {
                tracing::warn!(%peer, lines, bad_lines, lines_written, bytes_sent, %why, "connection ended");
            }
        }
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (peer, ended, counters);
}

/// Tells of errors of `accept`, once a second at the most.
#[derive(Default)]
pub(super) struct AcceptErrors {
    told: Option<Instant>,
    untold: u64,
}

impl AcceptErrors {
    pub(super) fn tell(&mut self, error: &io::Error) {
        if self.told.is_some_and(|told| told.elapsed() < Duration::from_secs(1)) {
            self.untold += 1;
            return;
        }
        #[cfg(feature = "tracing")]
        tracing::warn!(error = %crate::connection::Escaped(error), untold = self.untold, "cannot accept");
        #[cfg(not(feature = "tracing"))]
        let _ = error;
        *self = Self { told: Some(Instant::now()), untold: 0 };
    }
}
