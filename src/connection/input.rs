use std::boxed::Box;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::buffer::Buffer;
use super::clock;
use super::deadline::Deadline;
use super::drained::Drained;
use super::draining::Draining;
use super::error::{Error, Timeout};
use super::guard::Guard;
use super::limits::Limits;
use super::reading::NOT_IN_PLACE;
#[cfg(feature = "server")]
use super::take::{InPlace, Shown};
use super::take::{Take, Unsent};
use super::traffic::Reported;
use crate::codec::{Batch, ItemKind, Walk, Window};
use crate::error::{LineError, TooManyBytes};

/// The reading side of a connection: what has been read and not been handed over, and how long may be waited for more. All
/// that a dropped future must not lose is here.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) walk: Walk,
    /// Read and not handed over. While waiting, no larger than it has to be.
    pub(super) buffer: Buffer,
    pub(super) is_at_eof: bool,
    /// An error of the stream or a deadline: nothing more is read, nor written by the other side of a whole connection.
    pub(super) is_gone: bool,
    /// When the last bytes came.
    pub(super) read_at: Option<Instant>,
    pub(super) limits: Arc<Limits>,
    /// Always what `limits` says, without a look there for each line. `u64::MAX`: as many as come.
    pub(super) max_bad_lines: u64,
    reported: [Reported; 3],
    /// What `deadline` is about; `None`: a line, which began when that says, and which nobody waits for yet.
    pub(super) waiting_for: Option<WaitingFor>,
    pub(super) deadline: Deadline,
    pub(super) draining: Draining,
    /// What had come before the drain, once that has been seen.
    pub(super) drained: Option<Box<Drained>>,
    /// Shared with the last batch as long as that is there and its lines may be being answered.
    lent: Option<Arc<()>>,
    pub(super) timed_out: Option<Timeout>,
    pub(super) guard: Guard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// The first byte of a line, or, of bytes of any number, the next one.
    Anything,
    /// The rest of what has begun.
    Rest,
}

impl Input {
    pub(super) fn new(walk: Walk) -> Self {
        let limits = Limits::none();
        Self {
            walk,
            max_bad_lines: limits.max_bad_lines(),
            limits,
            buffer: Buffer::default(),
            is_at_eof: false,
            is_gone: false,
            read_at: None,
            reported: Default::default(),
            waiting_for: None,
            deadline: Deadline::default(),
            draining: Draining::default(),
            drained: None,
            lent: None,
            timed_out: None,
            guard: Guard::Off,
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn limit(&mut self, limits: Arc<Limits>) {
        self.max_bad_lines = limits.max_bad_lines();
        self.limits = limits;
    }

    /// The next line, good or bad; `None` at the end.
    pub(super) fn poll_line<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<Bytes, LineError>>, Error>> {
        self.poll_items(io, unsent, cx, |input: &mut Self, _: &mut _| {
            let buffer = input.buffer.bytes();
            Some(input.walk.next_item(buffer, input.is_at_eof)?.cut(buffer))
        })
    }

    /// Whether more bad lines have come than may.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.walk.bad_items() > self.max_bad_lines
    }

    /// The same as text.
    #[cfg(feature = "text")]
    pub(super) fn poll_text<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<bytestring::ByteString, LineError>>, Error>> {
        self.poll_items(io, unsent, cx, |input: &mut Self, _: &mut _| {
            let buffer = input.buffer.bytes();
            let item = input.walk.next_item(buffer, input.is_at_eof)?;
            Some(input.walk.cut_text(item, buffer))
        })
    }

    /// All whole lines that have been read, at least one.
    pub(super) fn poll_batch<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Batch>, Error>> {
        self.poll_items(io, unsent, cx, |input: &mut Self, _: &mut _| {
            let buffer = input.buffer.bytes();
            let first = input.walk.next_item(buffer, input.is_at_eof)?;
            let batch = input.walk.batch_from(first, buffer, input.is_at_eof, input.max_bad_lines);
            if batch.len() > 1 {
                // The last of them may be a long line, and another than the one that was waited for.
                input.line_begins();
            }
            Some(batch)
        })
        .map_ok(|batch| batch.map(|batch| batch.lent_by(self.lent.get_or_insert_default())))
    }

    /// Shows what has been read, where it was read: `show` takes lines, at least one where there is one, and gives how many of them
    /// and of their bytes it has taken.
    #[cfg(feature = "server")]
    pub(super) fn poll_shown<Io: AsyncRead + Unpin, U: Unsent<Io>>(
        &mut self,
        io: &mut Io,
        unsent: &mut U,
        cx: &mut Context<'_>,
        show: impl FnMut(&mut U, Shown<'_>) -> (usize, usize),
    ) -> Poll<Result<Option<()>, Error>> {
        self.poll_items(io, unsent, cx, InPlace(show))
    }

    fn poll_items<Io: AsyncRead + Unpin, U: Unsent<Io>, T, Taken: Take<U, T>>(
        &mut self,
        io: &mut Io,
        unsent: &mut U,
        cx: &mut Context<'_>,
        mut take: Taken,
    ) -> Poll<Result<Option<T>, Error>> {
        ready!(unsent.poll_before_take(io, cx))?;
        if self.is_over() && self.guard != Guard::Refused {
            ready!(unsent.poll_before_end(io, cx))?;
            return Poll::Ready(Err(Error::TooManyBadLines));
        }
        self.lent.take_if(|lent| Arc::strong_count(lent) > 1);
        loop {
            if self.drained.as_ref().is_some_and(|drained| drained.has_looked && !drained.is_all) {
                // Before a line of this round is answered: what comes while that takes its time has come too late.
                ready!(self.poll_drain_round(io, cx))?;
            }
            if self.guard == Guard::Refused {
                ready!(unsent.poll_before_end(io, cx))?;
                return Poll::Ready(Err(Error::NotLines));
            }
            if self.guard != Guard::Off {
                // That is no line. Where there is more of it, nothing is left.
                self.skip_ahead();
                if let Some(said) = self.guard.judge(&self.buffer) {
                    unsent.say(said);
                    continue;
                }
                let may_be_too_long = self.buffer.len() > self.walk.max_length();
                if may_be_too_long && self.guard.fears(&self.buffer) && self.drop_too_long() {
                    unsent.say(self.guard.refuse());
                    continue;
                }
            }
            let was_skipping = self.walk.is_skipping();
            let item = take.buffered(self, unsent);
            if was_skipping && item.is_some() {
                // Behind what was skipped comes another line, even if it is one to be skipped as well.
                self.line_begins();
            }
            self.skipped(was_skipping);
            if let Some(item) = item {
                self.guard.pass();
                self.taken();
                return Poll::Ready(Ok(Some(item)));
            }
            if self.is_at_eof || self.drained.as_ref().is_some_and(|drained| drained.is_all) {
                ready!(unsent.poll_before_end(io, cx))?;
                let failed = self.drained.as_mut().and_then(|drained| drained.failed.take());
                return Poll::Ready(failed.map_or(Ok(None), |error| Err(error.into())));
            }
            // A peer that does not take its replies is not read: nobody has looked what has come.
            ready!(unsent.poll_before_wait(io, cx))?;
            ready!(clock::poll_turn(self.read_at, cx));
            if Pin::new(&mut self.draining).poll(cx).is_ready() {
                ready!(self.poll_drain_round(io, cx))?;
                continue;
            }
            let next = if self.buffer.is_empty() { WaitingFor::Anything } else { WaitingFor::Rest };
            let is_plain = self.guard == Guard::Off && self.drained.is_none() && !self.walk.is_skipping();
            let mut item = None;
            let in_place = (is_plain && Taken::IN_PLACE).then_some(|input: &mut Self, bytes: &[u8]| {
                let (taken, shown) = take.in_place(input, unsent, bytes);
                item = shown;
                taken
            });
            ready!(self.poll_input(io, cx, next, in_place))?;
            if item.is_some() {
                self.taken();
                return Poll::Ready(Ok(item));
            }
        }
    }

    /// Exactly `count` bytes. Until they are all there nothing is taken.
    pub(super) fn poll_bytes<Io: AsyncRead + Unpin>(
        &mut self,
        count: usize,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Error>> {
        let max = self.walk.max_block_length();
        if count > max {
            return Poll::Ready(Err(TooManyBytes { asked: count, max }.into()));
        }
        loop {
            self.skip_ahead();
            if !self.walk.is_skipping() && self.buffer.len() >= count {
                self.walk.expect_bytes(count)?;
                if let Some(item) = self.walk.next_item(self.buffer.bytes(), self.is_at_eof) {
                    self.guard.pass();
                    self.taken();
                    return Poll::Ready(item.cut(self.buffer.bytes()).map_err(Error::from));
                }
            }
            if self.is_at_eof {
                ready!(unsent.poll_before_end(io, cx))?;
                return Poll::Ready(Err(Error::Eof));
            }
            ready!(self.poll_more(io, unsent, cx, WaitingFor::Rest))?;
        }
    }

    pub(super) fn skip_bytes(&mut self, count: u64) {
        self.walk.skip_bytes(count);
        self.guard.begin_anew();
    }

    /// Drops what is to be skipped as it comes.
    pub(super) fn poll_skipped<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            self.skip_ahead();
            if !self.walk.is_skipping() {
                self.taken();
                return Poll::Ready(Ok(()));
            }
            if self.is_at_eof {
                ready!(unsent.poll_before_end(io, cx))?;
                return Poll::Ready(Err(Error::Eof));
            }
            ready!(self.poll_more(io, unsent, cx, WaitingFor::Anything))?;
        }
    }

    /// Some of `count` bytes of a body, at least one, into `into`; none at the end of the stream.
    pub(super) fn poll_body<Io: AsyncRead + Unpin>(
        &mut self,
        count: u64,
        into: &mut ReadBuf<'_>,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Error>> {
        loop {
            self.skip_ahead();
            if !self.walk.is_skipping() && !self.buffer.is_empty() {
                let most = into.remaining().min(self.buffer.len());
                let count = usize::try_from(count).map_or(most, |count| most.min(count));
                into.put_slice(&self.buffer[..count]);
                self.buffer.advance(count);
                self.walk.take_raw(count);
                self.guard.pass();
                self.taken();
                return Poll::Ready(Ok(count));
            }
            if self.is_at_eof {
                return Poll::Ready(Ok(0));
            }
            ready!(self.poll_more(io, unsent, cx, WaitingFor::Anything))?;
        }
    }

    /// Reads once more, after the other side has sent what it has.
    fn poll_more<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
        next: WaitingFor,
    ) -> Poll<Result<(), Error>> {
        ready!(unsent.poll_before_wait(io, cx))?;
        ready!(clock::poll_turn(self.read_at, cx));
        self.poll_input(io, cx, next, NOT_IN_PLACE)
    }

    /// Reads once more. Pending where nothing has come and no deadline has passed. It is waited for `next`, or for what is
    /// to be skipped before that. `in_place` is [shown](Self::poll_read_in_place) what has come.
    fn poll_input<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
        next: WaitingFor,
        in_place: Option<impl FnOnce(&mut Self, &[u8]) -> usize>,
    ) -> Poll<Result<(), Error>> {
        let waiting_for = match self.walk.is_skipping() {
            true if self.walk.is_within_long_line() => WaitingFor::Rest,
            true => WaitingFor::Anything,
            false => next,
        };
        if let Poll::Ready(read) = self.poll_read_in_place(io, cx, in_place) {
            if waiting_for == WaitingFor::Anything {
                self.waiting_for = None;
            }
            return Poll::Ready(read.map_err(Error::from));
        }
        // Only the beginning of a line is kept.
        self.buffer.shrink(2);
        if self.waiting_for != Some(waiting_for) {
            self.waiting_for = Some(waiting_for);
            // Counted bytes of which none has come begin now.
            let has_begun = !self.buffer.is_empty() || self.walk.is_within_long_line();
            if waiting_for == WaitingFor::Anything || !has_begun {
                self.deadline.start(Some(Instant::now()));
            }
        }
        let (after, timeout) = match waiting_for {
            WaitingFor::Anything => (self.limits.idle_timeout, Timeout::Idle),
            WaitingFor::Rest => (self.limits.line_timeout, Timeout::Line),
        };
        ready!(self.deadline.poll(after, cx));
        self.timed_out = Some(timeout);
        Poll::Ready(Err(Error::Timeout(timeout)))
    }

    /// Adds what has been taken since the last time to what all of the server's connections have.
    pub(super) fn report(&mut self) {
        let Some(traffic) = &self.limits.traffic else { return };
        let counters = self.walk.counters();
        let [lines, bad_lines, skipped_bytes] = &mut self.reported;
        traffic.lines.report(lines, counters.lines);
        traffic.bad_lines.report(bad_lines, counters.bad_items());
        traffic.skipped_bytes.report(skipped_bytes, counters.skipped_bytes);
    }

    /// Drops what is buffered of the rest of a long line, and of bytes to be skipped.
    fn skip_ahead(&mut self) {
        let was_skipping = self.walk.is_skipping();
        while let Some(count) = self.walk.skip_ahead(&self.buffer, self.is_at_eof) {
            self.buffer.advance(count);
        }
        self.skipped(was_skipping);
    }

    /// Whether the first line in the buffer was too long. It is counted and dropped.
    fn drop_too_long(&mut self) -> bool {
        let mut walk = self.walk.clone();
        let mut is_too_long = false;
        let window = Window { bytes: &self.buffer, eof: self.is_at_eof, most_bad: u64::MAX };
        let taken = walk.take_items(window, |_, _, kind| {
            is_too_long = matches!(kind, ItemKind::TooLong { .. });
            false
        });
        if is_too_long {
            self.buffer.advance(taken);
            self.walk = walk;
        }
        is_too_long
    }

    /// What comes behind the skipped bytes has a deadline of its own.
    fn skipped(&mut self, was_skipping: bool) {
        if was_skipping && !self.walk.is_skipping() {
            self.line_begins();
        }
    }

    /// Something was handed over. The deadline for what comes next begins when it is waited for; that of a long line under
    /// way goes on while it is skipped.
    fn taken(&mut self) {
        if !self.walk.is_skipping() {
            self.line_begins();
        }
    }

    /// What is there of a line came with the last bytes.
    pub(super) fn line_begins(&mut self) {
        self.waiting_for = None;
        self.deadline.start(self.read_at);
    }

    pub(super) fn put_back(&mut self, batch: Batch) {
        let rest = self.walk.put_back(batch);
        if !rest.is_empty() {
            let mut buffer = Buffer::from(&rest[..]);
            buffer.append(&self.buffer);
            self.buffer = buffer;
        }
    }

    /// Whether lines are still being answered that were read a while ago: their replies had better not wait for each other.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        let is_lent = self.lent.as_ref().is_some_and(|lent| Arc::strong_count(lent) > 1);
        (is_lent || !self.buffer.is_empty())
            && self.read_at.zip(clock::millisecond_ago()).is_some_and(|(read_at, ago)| read_at < ago)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.walk.counters().bytes() + self.buffer.len() as u64
    }

    /// What has been read and not been handed over.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    #[cfg(feature = "server")]
    pub(super) fn is_at_eof(&self) -> bool {
        self.is_at_eof
    }

    /// Reads and drops what comes, up to the end of the stream.
    #[cfg(feature = "server")]
    pub(super) fn poll_drop_all<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while !self.is_at_eof {
            self.buffer = Buffer::default();
            ready!(clock::poll_turn(self.read_at, cx));
            ready!(self.poll_read_in_place(io, cx, Some(|_: &mut Self, bytes: &[u8]| bytes.len())))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn into_parts(self) -> (Walk, BytesMut) {
        (self.walk, self.buffer.into_bytes())
    }
}
