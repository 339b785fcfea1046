//! What depends on the poll of a task that is running: a clock that is read once for several lines,
//! when to let other tasks run, and reads and writes that ask the system.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

/// Reading the clock costs as much as handling a short line (about 35 ns). As long as lines take
/// less than this, a reading is used for several lines: at first 7, then 15, then 31.
const QUICK: Duration = Duration::from_micros(100);
const FIRST_REUSE: u8 = 7;
const MAX_REUSE: u8 = 31;

/// Replies to lines wait for each other no longer than this after the lines were read.
pub(crate) const MAX_REPLY_DELAY: Duration = Duration::from_millis(1);

/// A poll that has read or answered lines for this time lets other tasks run.
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

/// State of the poll that runs on this thread. A thread-local, since the handler and the streams it
/// wraps, TLS included, stand between the two ends that share it.
struct PollState {
    /// `None` outside [`within_poll`].
    clock: Cell<Option<PollClock>>,
    /// When this poll, or its current turn, first read or answered something.
    began: Cell<Option<Instant>>,
    system_io: Cell<SystemIo>,
    /// How many bytes the sockets of this thread have taken.
    taken: Cell<u64>,
}

/// A clock that is read once for several quick lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PollClock {
    now: Option<Instant>,
    /// How many more calls of [`now`](Self::now) return the same reading. Always at most `reuse`.
    left: u8,
    reuse: u8,
}

impl PollClock {
    /// The current time, or a reading that is at most 31 quick lines old. Call it once per line.
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

    /// Reads the clock, or takes over `now`, before a line that may be slow.
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

/// The current time for a caller that asks once per line. Within [`within_poll`] a reading may
/// serve up to 31 quick lines; a line that was waited for always gets a new one.
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

/// Runs one poll of a task, within which nothing is waited for.
pub(crate) fn within_poll<T>(polled: impl FnOnce() -> T) -> T {
    /// Resets the clock also if the poll panics.
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

/// Something was read, or is about to be answered, at this time: the turn begins, unless it has.
pub(crate) fn begin_turn(at: Instant) {
    POLL.with(|poll| {
        if poll.clock.get().is_some() && poll.began.get().is_none() {
            poll.began.set(Some(at));
        }
    });
}

/// Whether this poll, or its current turn, has gone on for [`MAX_TURN`] at this time.
pub(super) fn is_turn_over(at: Instant) -> bool {
    POLL.with(|poll| poll.began.get().is_some_and(|began| at.duration_since(began) >= MAX_TURN))
}

/// Pending, so that other tasks run, if the turn [is over](is_turn_over).
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
    /// The system has confirmed that nothing has arrived.
    FoundNothing,
}

/// Runs `step`, within which a socket that is not ready by what Tokio knows asks the system, however
/// many streams wrap it. Also returns whether the system has confirmed that nothing has arrived.
///
/// Tokio learns of arrived data and of space only when it polls the system for all sockets. That may
/// be too late to judge a deadline, or to tell what arrived before this moment from what arrives
/// after it. Linux reports space only once a third of a TCP socket's send buffer is free, but takes
/// bytes before.
pub(crate) fn with_system_io<T>(step: impl FnOnce() -> T) -> (T, bool) {
    /// Restores the state also if the stream panics.
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

/// Whether a socket is to [ask the system](with_system_io).
#[inline]
pub(super) fn asks_system() -> bool {
    POLL.with(|poll| poll.system_io.get() != SystemIo::Off)
}

/// The system has nothing to read.
pub(super) fn system_found_nothing() {
    POLL.with(|poll| poll.system_io.set(SystemIo::FoundNothing));
}

/// A socket has taken `count` bytes.
#[inline]
pub(super) fn has_taken(count: usize) {
    POLL.with(|poll| poll.taken.set(poll.taken.get().wrapping_add(count as u64)));
}

/// How many bytes the sockets of this thread have taken. If it changes during a write, the write
/// has made progress, even if a stream in between, such as a TLS session, has taken nothing new.
#[inline]
pub(super) fn taken() -> u64 {
    POLL.with(|poll| poll.taken.get())
}

/// Pending if this task has used up [what Tokio lets it do in one poll](tokio::task::coop). Its
/// task is polled again.
pub(super) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(cx)
}

/// Always pending: lets other tasks run. This task is polled again after them.
pub(super) fn poll_yield<T>(cx: &mut Context<'_>) -> Poll<T> {
    _ = pin!(tokio::task::yield_now()).poll(cx);
    Poll::Pending
}

/// As [`poll_fn`](std::future::poll_fn), but compiled into the future that awaits it: its large
/// result is not copied through a call.
pub(super) struct Inlined<F>(pub(super) F);

// Nothing in it is pinned.
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

    /// How often the clock was read for `lines` lines that take `micros` each.
    fn readings(lines: usize, micros: u64) -> usize {
        let is_exact = |_: &usize| {
            pass(micros);
            line_time() == Instant::now()
        };
        (0..lines).filter(is_exact).count()
    }

    #[tokio::test(start_paused = true)]
    async fn quick_lines_share_a_reading_of_the_clock() {
        assert_eq!(readings(100, 1), 100, "outside of a poll");
        for _ in 0..2 {
            // The first two, one of the next 8 and of 16, and then one of 32.
            within_poll(|| assert_eq!(readings(2 + 8 + 16 + 320, 1), 2 + 1 + 1 + 10));
            within_poll(|| assert_eq!(readings(100, 101), 100, "slow lines"));
        }
        let panicked = std::panic::catch_unwind(|| within_poll(|| panic!("within a poll")));
        assert!(panicked.is_err());
        assert_eq!(readings(100, 1), 100, "outside of a poll");
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_that_reads_for_a_millisecond_yields() {
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
    async fn a_restarted_clock_sees_the_first_slow_line() {
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
