//! What the server tells `tracing`: a span for each connection, an event when it ends, and when accepting fails. Without the
//! feature it tells nothing. No event holds a byte that a peer sent, but in the errors of handlers, which are escaped.

use std::future::Future;
use std::io;

use tokio::time::{Duration, Instant};

use super::ended::Ended;
use crate::connection::{ConnectionCounters, Peer};

/// What happens in `future` happens on the connection from `peer`.
pub(super) fn on_connection<F: Future>(peer: Peer, future: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let future = tracing::Instrument::instrument(future, tracing::info_span!("connection", %peer));
    #[cfg(not(feature = "tracing"))]
    let _ = peer;
    future
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
