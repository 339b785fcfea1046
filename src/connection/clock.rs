use std::cell::Cell;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::turn;

/// To look at the clock costs as much as a short line. Where the last look was no longer ago than this, the time that it showed
/// is taken for some lines more: first for 7, and for twice as many each time, up to 31.
const QUICK: Duration = Duration::from_micros(100);
const FIRST: u8 = 7;
const MOST: u8 = 31;

std::thread_local! {
    /// `None`: nobody says where a poll begins, and before it anything may have been waited for.
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };

    /// What so many more lines are told who ask when it was [a millisecond ago](millisecond_ago).
    static TOLD: Cell<(u8, Option<Instant>)> = const { Cell::new((0, None)) };

    /// When something was read first in this poll.
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A poll that has read and handed over for so long lets others have their turns, whatever there is still to be read.
const LONG: Duration = Duration::from_millis(10);

/// What the clock has shown in this poll.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    at: Option<Instant>,
    /// For so many lines more.
    unlooked: u8,
    /// It was for so many.
    of: u8,
}

impl Seen {
    /// When it is, before a line that may take long; it is `now`, where somebody has just looked.
    #[cfg(feature = "server")]
    pub(crate) fn begin(&mut self, now: Option<Instant>) -> Instant {
        let now = now.unwrap_or_else(Instant::now);
        *self = Self { at: Some(now), ..Self::default() };
        now
    }

    /// When it is, after a line; `None` where that was seen not long ago.
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn look(&mut self) -> Option<Instant> {
        match self.unlooked.checked_sub(1) {
            Some(unlooked) => {
                self.unlooked = unlooked;
                None
            }
            None => Some(self.look_again()),
        }
    }

    #[cold]
    fn look_again(&mut self) -> Instant {
        let now = Instant::now();
        if let Some(last) = self.at.replace(now) {
            let is_quick = now.duration_since(last) < QUICK;
            self.of = if is_quick { (2 * self.of + 1).clamp(FIRST, MOST) } else { 0 };
            self.unlooked = self.of;
        }
        now
    }
}

/// When it was a millisecond ago, for who asks at each line. Within [a poll](within_poll), a line that takes long may go unseen for 31
/// more; one that was waited for does not.
#[inline]
pub(crate) fn millisecond_ago() -> Option<Instant> {
    match TOLD.get() {
        (more @ 1.., ago) => {
            TOLD.set((more - 1, ago));
            ago
        }
        _ => look(),
    }
}

#[cold]
fn look() -> Option<Instant> {
    let mut seen = SEEN.get();
    let now = seen.as_mut().map_or_else(Instant::now, Seen::look_again);
    let ago = now.checked_sub(Duration::from_millis(1));
    TOLD.set((seen.map_or(0, |seen| seen.unlooked), ago));
    SEEN.set(seen);
    ago
}

/// Something was read.
pub(crate) fn has_read(at: Instant) {
    if SEEN.get().is_some() && BEGUN.get().is_none() {
        BEGUN.set(Some(at));
    }
}

/// Pending where something was read last a [long](LONG) time after this [poll](within_poll) had read first, or since this was
/// pending last: a poll may be all that there is, of who waits within it.
pub(crate) fn poll_turn(read_at: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
    match BEGUN.get().zip(read_at) {
        Some((begun, at)) if at.duration_since(begun) >= LONG => {
            BEGUN.set(None);
            turn::poll_later(cx)
        }
        _ => Poll::Ready(()),
    }
}

/// What is done in one poll of a task: nothing is waited for in it.
#[cfg(feature = "server")]
pub(crate) fn within_poll<T>(polled: impl FnOnce() -> T) -> T {
    /// A poll may end in a panic.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            SEEN.set(None);
            TOLD.set((0, None));
            BEGUN.set(None);
        }
    }

    if SEEN.get().is_some() {
        return polled();
    }
    SEEN.set(Some(Seen::default()));
    TOLD.set((0, None));
    let _end = End;
    polled()
}

#[cfg(all(test, feature = "server"))]
mod tests;
