use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep, sleep_until};

/// Extra time, used twice, for Tokio to report data that arrived before the timeout.
const GRACE: Duration = Duration::from_millis(50);

/// Time of the last transfer of a line or a reply.
pub(super) struct Activity {
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
    sending: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0), sending: AtomicBool::new(false) }
    }

    pub(super) fn mark(&self) {
        self.last.store(self.elapsed(), Relaxed);
    }

    /// Marks that output waits for the client, until the guard is dropped. Meanwhile only
    /// `write_timeout` applies.
    pub(super) fn sending(&self) -> Sending<'_> {
        self.sending.store(true, Relaxed);
        Sending(self)
    }

    /// Returns after `idle_timeout` without activity.
    pub(super) async fn over(&self, idle_timeout: Option<Duration>) {
        while let Some(end) = self.end(idle_timeout) {
            if end > Instant::now() {
                sleep_until(end).await;
                continue;
            }
            // If this process was suspended, Tokio may see the timer before bytes that arrived
            // earlier. A new timer fires only after Tokio has polled the system again. A second
            // suspension may interrupt this poll, hence two timers.
            sleep(GRACE).await;
            sleep(GRACE).await;
            if self.end(idle_timeout) == Some(end) {
                return;
            }
        }
        std::future::pending().await
    }

    fn end(&self, idle_timeout: Option<Duration>) -> Option<Instant> {
        let last = if self.sending.load(Relaxed) { self.elapsed() } else { self.last.load(Relaxed) };
        let after = idle_timeout?.checked_add(Duration::from_millis(last))?;
        self.start.checked_add(after)
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

pub(super) struct Sending<'a>(&'a Activity);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.0.sending.store(false, Relaxed);
        self.0.mark();
    }
}

/// Marks activity whenever the stream takes bytes.
pub(super) struct Marked<'a, W> {
    io: W,
    activity: &'a Activity,
}

impl<'a, W> Marked<'a, W> {
    pub(super) fn new(io: W, activity: &'a Activity) -> Self {
        Self { io, activity }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Marked<'_, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        self.activity.mark();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
