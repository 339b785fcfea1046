//! State of the current poll of a task: a clock that is read once for several lines, the length of
//! a turn, and reads and writes that ask the system.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

/// Reading the clock costs as much as handling a short line (about 35 ns). While each line takes
/// less than this time, one clock reading serves several lines: at first 7, then 15, then 31.
const QUICK: Duration = Duration::from_micros(100);
const FIRST_REUSE: u8 = 7;
const MAX_REUSE: u8 = 31;

/// Maximum time that a reply waits for other replies, from the read of its line.
pub(crate) const MAX_REPLY_DELAY: Duration = Duration::from_millis(1);

/// Maximum time that one poll reads or answers lines before it lets other tasks run.
const MAX_TURN: Duration = Duration::from_millis(1);

std::thread_local! {
    static POLL: PollState = const {
        PollState {
            clock: Cell::new(None),
            began: Cell::new(None),
            system_io: Cell::new(SystemIo::Off),
            taken: Cell::new(0),
        }
    };
}

/// State of the poll that runs on this thread. It is a thread-local because the code that sets it
/// and the code that reads it are separated by the handler and by streams such as TLS.
struct PollState {
    /// `None` outside [`within_poll`].
    clock: Cell<Option<PollClock>>,
    /// Time when this poll, or its current turn, first read or answered a line.
    began: Cell<Option<Instant>>,
    system_io: Cell<SystemIo>,
    /// Number of bytes that the sockets of this thread have accepted.
    taken: Cell<u64>,
}

/// A clock that is read once for several quick lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PollClock {
    now: Option<Instant>,
    /// Number of further calls of [`now`](Self::now) that return the same reading. Always at most
    /// `reuse`.
    left: u8,
    reuse: u8,
}

impl PollClock {
    /// Returns the current time, or a reading that is at most 31 quick lines old. Call it once per
    /// line.
    #[inline]
    pub(crate) fn now(&mut self) -> Instant {
        match (self.left.checked_sub(1), self.now) {
            (Some(left), Some(now)) => {
                self.left = left;
                now
            }
            _ => self.read(),
        }
    }

    /// Resets the clock to `now`, or to a new reading. Call it before a line that may be slow.
    pub(crate) fn restart(&mut self, now: Option<Instant>) -> Instant {
        let now = now.unwrap_or_else(Instant::now);
        *self = Self { now: Some(now), ..Self::default() };
        now
    }

    #[cold]
    fn read(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(last) = self.now.replace(now) {
            let is_quick = now.duration_since(last) < QUICK;
            self.reuse = if is_quick { (2 * self.reuse + 1).clamp(FIRST_REUSE, MAX_REUSE) } else { 0 };
            self.left = self.reuse;
        }
        now
    }
}

/// Returns the current time for a caller that asks once per line. Within [`within_poll`], one
/// reading may serve up to 31 quick lines. A line that was waited for always gets a new reading.
#[inline]
pub(super) fn line_time() -> Instant {
    POLL.with(|poll| match poll.clock.get() {
        Some(mut clock) => {
            let now = clock.now();
            poll.clock.set(Some(clock));
            if poll.began.get().is_none() {
                poll.began.set(Some(now));
            }
            now
        }
        None => Instant::now(),
    })
}

/// Runs one poll of a task. The closure never blocks or waits.
pub(crate) fn within_poll<T>(polled: impl FnOnce() -> T) -> T {
    /// Resets the clock even if the poll panics.
    struct Reset;

    impl Drop for Reset {
        fn drop(&mut self) {
            POLL.with(|poll| {
                poll.clock.set(None);
                poll.began.set(None);
            });
        }
    }

    let is_nested = POLL.with(|poll| poll.clock.get().is_some());
    if is_nested {
        return polled();
    }
    POLL.with(|poll| poll.clock.set(Some(PollClock::default())));
    let _reset = Reset;
    polled()
}

/// Starts a turn at this time, unless one has started. Call it after a read or before an answer.
pub(crate) fn begin_turn(at: Instant) {
    POLL.with(|poll| {
        if poll.clock.get().is_some() && poll.began.get().is_none() {
            poll.began.set(Some(at));
        }
    });
}

/// Returns whether this poll, or its current turn, has lasted for [`MAX_TURN`] at this time.
pub(super) fn is_turn_over(at: Instant) -> bool {
    POLL.with(|poll| poll.began.get().is_some_and(|began| at.duration_since(began) >= MAX_TURN))
}

/// Returns `Pending`, so that other tasks run, if the turn [is over](is_turn_over).
pub(crate) fn poll_turn(at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
    if at.is_some_and(is_turn_over) {
        POLL.with(|poll| poll.began.set(None));
        return poll_yield(cx);
    }
    Poll::Ready(())
}

#[derive(Clone, Copy, PartialEq)]
enum SystemIo {
    Off,
    On,
    /// The system has confirmed that no bytes are available.
    FoundNothing,
}

/// Runs `step`. Meanwhile, a socket that Tokio considers not ready asks the system, even if other
/// streams wrap the socket. Also returns whether the system has confirmed that no bytes are
/// available.
///
/// Tokio learns about received data and about space only when it polls the system for all sockets.
/// That can be too late to check a deadline, or to separate data that arrived before this moment
/// from later data. In addition, Linux reports space only when a third of a TCP socket's send
/// buffer is free, but accepts bytes earlier.
pub(crate) fn with_system_io<T>(step: impl FnOnce() -> T) -> (T, bool) {
    /// Restores the state even if the stream panics.
    struct Restore(SystemIo);

    impl Drop for Restore {
        fn drop(&mut self) {
            POLL.with(|poll| poll.system_io.set(self.0));
        }
    }

    POLL.with(|poll| {
        let _restore = Restore(poll.system_io.replace(SystemIo::On));
        let done = step();
        (done, poll.system_io.get() == SystemIo::FoundNothing)
    })
}

/// Returns whether a socket must [ask the system](with_system_io).
#[inline]
pub(super) fn asks_system() -> bool {
    POLL.with(|poll| poll.system_io.get() != SystemIo::Off)
}

/// Records that the system has no bytes to read.
pub(super) fn system_found_nothing() {
    POLL.with(|poll| poll.system_io.set(SystemIo::FoundNothing));
}

/// Records that a socket has accepted `count` bytes.
#[inline]
pub(super) fn has_taken(count: usize) {
    POLL.with(|poll| poll.taken.set(poll.taken.get().wrapping_add(count as u64)));
}

/// Returns the number of bytes that the sockets of this thread have accepted. If the number changes
/// during a write, the write has made progress, even if a TLS session in between has accepted no
/// new bytes.
#[inline]
pub(super) fn taken() -> u64 {
    POLL.with(|poll| poll.taken.get())
}

/// Returns `Pending` if this task has used up its [budget](tokio::task::coop) for one poll. The
/// task is woken again.
pub(super) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(cx)
}

/// Always returns `Pending`, so that other tasks run. The task is woken again after them.
pub(super) fn poll_yield<T>(cx: &mut Context<'_>) -> Poll<T> {
    _ = pin!(tokio::task::yield_now()).poll(cx);
    Poll::Pending
}

/// Like [`poll_fn`](std::future::poll_fn), but inlined into the future that awaits it, so that a
/// large result is not copied through a call.
pub(super) struct Inlined<F>(pub(super) F);

// No field is pinned.
impl<F> Unpin for Inlined<F> {}

impl<T, F: FnMut(&mut Context<'_>) -> Poll<T>> Future for Inlined<F> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        (self.0)(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn pass(micros: u64) {
        assert!(tokio::time::advance(Duration::from_micros(micros)).now_or_never().is_none());
    }

    /// Returns how often the clock was read for `lines` lines that take `micros` each.
    fn readings(lines: usize, micros: u64) -> usize {
        let is_exact = |_: &usize| {
            pass(micros);
            line_time() == Instant::now()
        };
        (0..lines).filter(is_exact).count()
    }

    #[tokio::test(start_paused = true)]
    async fn quick_lines_share_a_clock_reading() {
        assert_eq!(readings(100, 1), 100, "outside of a poll");
        for _ in 0..2 {
            // Reads for the first two lines, then one each for 8, 16 and ten times 32 lines.
            within_poll(|| assert_eq!(readings(2 + 8 + 16 + 320, 1), 2 + 1 + 1 + 10));
            within_poll(|| assert_eq!(readings(100, 101), 100, "slow lines"));
        }
        let panicked = std::panic::catch_unwind(|| within_poll(|| panic!("within a poll")));
        assert!(panicked.is_err());
        assert_eq!(readings(100, 1), 100, "outside of a poll");
    }

    #[tokio::test(start_paused = true)]
    async fn polls_yield_after_one_millisecond() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut read = || {
            let now = Instant::now();
            begin_turn(now);
            poll_turn(Some(now), &mut cx)
        };
        for _ in 0..3 {
            within_poll(|| {
                assert!(read().is_ready());
                pass(999);
                assert!(read().is_ready());
            });
            pass(1);
            assert!(read().is_ready(), "outside of a poll");
        }
        within_poll(|| {
            for _ in 0..3 {
                assert!(read().is_ready());
                pass(1000);
                assert!(read().is_pending());
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn restarted_clock_is_exact_after_slow_line() {
        let mut clock = PollClock { left: MAX_REUSE, reuse: MAX_REUSE, now: Some(Instant::now()) };
        let stale = clock.now();
        pass(5);
        assert_eq!(clock.now(), stale);
        let begun = clock.restart(None);
        pass(1000);
        assert_eq!(clock.now(), begun + Duration::from_millis(1));
        pass(1);
        assert_eq!(clock.now(), Instant::now(), "the line before was slow");
    }
}
