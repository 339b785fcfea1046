use std::boxed::Box;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Done when the server that the connection belongs to is asked to stop; never, where it belongs to none:
/// [`Connection::draining`](crate::Connection::draining).
///
/// It is independent of the connection, which stays free for other things.
#[must_use = "futures do nothing unless polled"]
pub struct Draining {
    token: Option<CancellationToken>,
    /// Made when it is first waited for.
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Draining {
    pub(crate) fn new(token: Option<CancellationToken>) -> Self {
        Self { token, waiting: None }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.token.as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

impl Clone for Draining {
    fn clone(&self) -> Self {
        Self::new(self.token.clone())
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("is_draining", &self.is_draining()).finish_non_exhaustive()
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { token, waiting } = &mut *self;
        match token {
            None => Poll::Pending,
            Some(token) if token.is_cancelled() => Poll::Ready(()),
            Some(token) => {
                waiting.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned())).as_mut().poll(cx)
            }
        }
    }
}
