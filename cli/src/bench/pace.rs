//! Due times of the lines of a connection at a fixed rate.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::clock::Clock;

/// Due times at even intervals. The lines of different connections are interleaved evenly.
pub(super) struct Pace {
    /// Nanoseconds from the start of the run to the first line.
    first: f64,
    /// Nanoseconds between two lines of this connection.
    interval: f64,
    timer: Timer,
    /// Time at which the timer fires, in nanoseconds of the clock.
    set_to: u64,
}

impl Pace {
    /// Creates the pace of connection `number`, counted from 0. All `connections` together send
    /// `rate` lines per second.
    pub(super) fn new(rate: f64, number: usize, connections: usize) -> io::Result<Self> {
        let between_lines = 1e9 / rate;
        Ok(Self {
            first: between_lines * number as f64,
            interval: between_lines * connections as f64,
            timer: Timer::new()?,
            set_to: u64::MAX,
        })
    }

    /// Returns the due time of the `nth` line, counted from 0.
    pub(super) fn due(&self, nth: u64) -> u64 {
        (self.first + self.interval * nth as f64) as u64
    }

    /// Returns the number of lines due before `at`.
    pub(super) fn due_by(&self, at: u64) -> u64 {
        ((at as f64 - self.first) / self.interval).ceil().max(0.0) as u64
    }

    /// Waits until the clock has reached `at`.
    pub(super) fn poll_until(&mut self, at: u64, clock: Clock, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let now = clock.now();
            if now >= at {
                return Poll::Ready(Ok(()));
            }
            if self.set_to != at {
                self.timer.set(Duration::from_nanos(at - now))?;
                self.set_to = at;
            }
            // Loop, because the timer may have fired for its previous setting.
            ready!(self.timer.poll(cx))?;
        }
    }
}

/// A timerfd. The resolution of Tokio's timers, one millisecond, would distort each latency.
#[cfg(target_os = "linux")]
struct Timer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Timer {
    fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // The replacement is unsafe: it requires that others do not close the descriptor.
        #[allow(deprecated)]
        tokio::io::unix::AsyncFd::with_interest(timer, tokio::io::Interest::READABLE).map(Self)
    }

    fn set(&mut self, after: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would disarm the timer.
        let after = after.max(Duration::from_nanos(1));
        let after = Timespec { tv_sec: after.as_secs() as _, tv_nsec: after.subsec_nanos().into() };
        let once = Itimerspec { it_interval: zero, it_value: after };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // No need to read the expiration count, because setting the timer resets it.
        ready!(self.0.poll_read_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

#[cfg(not(target_os = "linux"))]
struct Timer(std::pin::Pin<Box<tokio::time::Sleep>>);

#[cfg(not(target_os = "linux"))]
impl Timer {
    fn new() -> io::Result<Self> {
        Ok(Self(Box::pin(tokio::time::sleep(Duration::ZERO))))
    }

    fn set(&mut self, after: Duration) -> io::Result<()> {
        self.0.as_mut().reset(tokio::time::Instant::now() + after);
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Future::poll(self.0.as_mut(), cx).map(Ok)
    }
}
