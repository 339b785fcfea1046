//! Deadlines. Where each one is checked:
//!
//! | deadline | where | counts from |
//! |---|---|---|
//! | `idle_timeout` | `Reader::poll_fill` | when the wait for the next line began; each read of a body |
//! | `line_timeout` | `Reader::poll_fill` | the first byte of a line; for a block, that or the call |
//! | `write_timeout` | `Writer::poll_in_time` | when output first waits; each byte that is taken |
//! | `connect_timeout` | `client::in_time` | each round of attempts |
//! | `handshake_timeout` | `session::shake_hands` | when it begins |
//! | `drain_timeout` | `server::drain` | the shutdown signal |
//! | `linger_timeout` | `Duplex::linger` | the end of the stream was sent |
//!
//! The read deadlines do not apply to the reads of a drain and of lingering.

use std::boxed::Box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::error::TimeoutKind;
use super::limits::Limits;

/// A deadline that counts from when something began. The timer is created on the first wait and
/// kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Starts counting at `since`; with `None`, at the next [`poll`](Self::poll).
    pub(super) fn start(&mut self, since: Option<Instant>) {
        self.since = since;
    }

    /// Ready `after` the start; never, if `after` is `None`.
    ///
    /// Poll it only after the stream has returned `Pending`, and ask the system
    /// ([`with_system_io`](super::poll::with_system_io)) before you act on it: data that arrived
    /// before the check is accepted.
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

/// What a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// The first byte of a line, or the next byte of a body: `idle_timeout`.
    Next,
    /// The rest of a line: `line_timeout`.
    Rest,
    /// A counted block: `line_timeout`.
    Block,
}

/// The deadlines of the reading side. A line's deadline counts from its first byte, whenever
/// somebody asks for the line.
#[derive(Debug, Default)]
pub(super) struct ReadTimer {
    /// `None`: no wait since the last item. `deadline` then counts from the arrival of the next
    /// line's first byte.
    waiting_for: Option<WaitFor>,
    deadline: Deadline,
    read_at: Option<Instant>,
    /// How many bytes were read after the deadline of a line that is still incomplete.
    late: u32,
}

/// So much may have arrived before the deadline of a line and be read after it.
const MAX_LATE: u32 = 8 * 1024 * 1024;

impl ReadTimer {
    /// When the last bytes arrived.
    #[inline]
    pub(super) fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// `count` bytes have arrived. `within_line`: they continue a line that began earlier.
    pub(super) fn bytes_arrived(&mut self, now: Instant, count: usize, within_line: bool) {
        self.read_at = Some(now);
        self.late = self.late.saturating_add(count.try_into().unwrap_or(u32::MAX));
        if !within_line && self.waiting_for != Some(WaitFor::Block) {
            self.deadline.start(self.read_at);
        }
    }

    /// A read for `wait` begins. Whether so many bytes were read after the deadline that it does not
    /// matter whether more have arrived: a peer that sends a line faster than it is read never makes
    /// a read wait. `has_begun`: as in [`poll`](Self::poll).
    pub(super) fn is_overdue(&mut self, wait: WaitFor, has_begun: bool, limits: &Limits) -> bool {
        if self.waiting_for == Some(WaitFor::Block) && wait != WaitFor::Block {
            // The wait for a block was given up. What follows is a line.
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

    /// A read for `wait` has ended. The wait for a line goes on until the line is handed out.
    pub(super) fn read_has_ended(&mut self, wait: WaitFor) {
        if wait == WaitFor::Next {
            self.waiting_for = None;
        }
    }

    /// The next line begins with bytes of the last read.
    #[inline]
    pub(super) fn line_begins(&mut self) {
        self.waiting_for = None;
        self.deadline.start(self.read_at);
    }

    /// Ready when the deadline for `wait` has passed. `has_begun`: bytes of what is waited for have
    /// arrived.
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
