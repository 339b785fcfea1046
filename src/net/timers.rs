//! Deadlines. Each deadline is checked in one function:
//!
//! | deadline | checked in | starts |
//! |---|---|---|
//! | `idle_timeout` | `Reader::poll_fill` | when a read first waits; at each read of a body |
//! | `line_timeout` | `Reader::poll_fill` | at the first byte of a line or block, or at the call |
//! | `write_timeout` | `Writer::poll_in_time` | when output first waits; at each accepted byte |
//! | `connect_timeout` | `client::in_time` | at each round of attempts |
//! | `handshake_timeout` | `session::shake_hands` | when the handshake starts |
//! | `drain_timeout` | `server::drain` | at the shutdown signal |
//! | `linger_timeout` | `Duplex::linger` | after the writing side was closed |
//!
//! The read deadlines do not apply to reads during a drain or during lingering.

use std::boxed::Box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::error::TimeoutKind;
use super::limits::Limits;

/// A deadline relative to a start time. The timer is created on the first wait and then reused.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets the start time. `None` means the next [`poll`](Self::poll).
    pub(super) fn start(&mut self, since: Option<Instant>) {
        self.since = since;
    }

    /// Returns `Ready` when `after` has passed since the start. Never returns `Ready` if `after` is
    /// `None`.
    ///
    /// Call it only after the stream has returned `Pending`. When it returns `Ready`, ask the
    /// system ([`with_system_io`](super::poll::with_system_io)) before you report a timeout: data
    /// that arrived before the check is accepted.
    pub(super) fn poll(&mut self, after: Option<Duration>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(after) = after else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        let Some(at) = since.checked_add(after) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}

/// The data that a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// The first byte of a line, or the next byte of a body: `idle_timeout`.
    Next,
    /// The rest of a line: `line_timeout`.
    Rest,
    /// A counted block: `line_timeout`.
    Block,
}

/// The deadlines of the reading side. The deadline of a line starts at its first byte, no matter
/// when the line is requested.
#[derive(Debug, Default)]
pub(super) struct ReadTimer {
    /// `None` if no read has waited since the last item. The deadline then starts when the first
    /// byte of the next line arrives.
    waiting_for: Option<WaitFor>,
    deadline: Deadline,
    read_at: Option<Instant>,
    /// Number of bytes read after the deadline of a line that is still incomplete.
    late: u32,
}

/// Maximum number of bytes that may have arrived before the deadline of a line and are read after
/// it.
const MAX_LATE: u32 = 8 * 1024 * 1024;

impl ReadTimer {
    /// Returns the time when the last bytes arrived.
    #[inline]
    pub(super) fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// Records that `count` bytes have arrived. `within_line` means that the bytes continue a line
    /// that began earlier.
    pub(super) fn bytes_arrived(&mut self, now: Instant, count: usize, within_line: bool) {
        self.read_at = Some(now);
        self.late = self.late.saturating_add(count.try_into().unwrap_or(u32::MAX));
        if !within_line && self.waiting_for != Some(WaitFor::Block) {
            self.deadline.start(self.read_at);
        }
    }

    /// Starts a read for `wait`. Returns whether more than [`MAX_LATE`] bytes were read after the
    /// deadline. The deadline then applies without a wait: a peer that sends a line faster than it
    /// is read never makes a read wait. `has_begun` has the same meaning as in
    /// [`poll`](Self::poll).
    pub(super) fn is_overdue(&mut self, wait: WaitFor, has_begun: bool, limits: &Limits) -> bool {
        if self.waiting_for == Some(WaitFor::Block) && wait != WaitFor::Block {
            // The caller has dropped the wait for a block. The next bytes are a line.
            self.line_begins();
        }
        if wait == WaitFor::Block && self.waiting_for != Some(wait) {
            self.begin_wait(wait, has_begun);
        }
        let deadline = self.deadline.since.zip(limits.line_timeout);
        let deadline = deadline.and_then(|(since, after)| since.checked_add(after));
        let is_late =
            has_begun && deadline.is_some_and(|at| self.read_at.is_some_and(|read_at| read_at > at));
        if !is_late {
            self.late = 0;
        }
        is_late && wait != WaitFor::Next && self.late > MAX_LATE
    }

    /// Ends a read for `wait`. The wait for the rest of a line continues until the line is
    /// returned.
    pub(super) fn read_has_ended(&mut self, wait: WaitFor) {
        if wait == WaitFor::Next {
            self.waiting_for = None;
        }
    }

    /// Starts the deadline of the next line at the arrival of the last read bytes.
    #[inline]
    pub(super) fn line_begins(&mut self) {
        self.waiting_for = None;
        self.deadline.start(self.read_at);
    }

    /// Returns `Ready` when the deadline for `wait` has passed. `has_begun` means that some bytes
    /// of the awaited data have arrived.
    pub(super) fn poll(
        &mut self,
        wait: WaitFor,
        has_begun: bool,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<TimeoutKind> {
        if self.waiting_for != Some(wait) {
            self.begin_wait(wait, has_begun);
        }
        let (after, kind) = match wait {
            WaitFor::Next => (limits.idle_timeout, TimeoutKind::Idle),
            WaitFor::Rest | WaitFor::Block => (limits.line_timeout, TimeoutKind::Line),
        };
        self.deadline.poll(after, cx).map(|()| kind)
    }

    fn begin_wait(&mut self, wait: WaitFor, has_begun: bool) {
        self.waiting_for = Some(wait);
        if wait == WaitFor::Next || !has_begun {
            self.deadline.start(Some(Instant::now()));
        }
    }
}
