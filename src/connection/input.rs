use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::any_io;
use super::deadline::Deadline;
use super::drain::Draining;
use super::error::{Error, Timeout};
use super::guard::Guard;
use crate::codec::{Batch, LineCodec};
use crate::error::{LineError, TooManyBytes};

/// The room for one read.
const READ: usize = 64 * 1024;

std::thread_local! {
    /// Every connection of a thread reads into this one, and keeps what it has to keep.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The reading side of a connection: what has been read and not been handed over, and how long may be waited for more. All
/// that a dropped future must not lose is here.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) codec: LineCodec,
    /// Read and not handed over. While waiting, no larger than it has to be.
    buffer: BytesMut,
    /// The buffer's allocation has at least so many bytes.
    allocated: usize,
    is_at_eof: bool,
    /// When the last bytes came.
    read_at: Option<Instant>,
    /// When the first bytes came of the line that is under way.
    begun_at: Option<Instant>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) line_timeout: Option<Duration>,
    /// What `deadline` is about; `None`: it has not begun.
    waiting_for: Option<WaitingFor>,
    deadline: Deadline,
    pub(super) draining: Option<Draining>,
    /// Where in the stream what has come before the drain ends at the latest, once that has been seen.
    drain_end: Option<u64>,
    /// How much this round of reads has brought since.
    drain_round: usize,
    /// And that the last one found nothing.
    has_looked: bool,
    /// What had come before the drain was read.
    is_drained: bool,
    /// Shared with the last batch as long as that is there and its lines may be being answered.
    lent: Option<Arc<()>>,
    pub(super) timed_out: Option<Timeout>,
    pub(super) guard: Guard,
    /// So many bad lines are handed over; then the connection is at its end.
    pub(super) max_bad_lines: Option<u64>,
}

/// So much is read at most once a drain has been seen: far more than what a system buffers, so that what had come is read, and
/// a peer that never stops sending does not put off the end.
const MAX_DRAINED: u64 = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingFor {
    /// The first byte of a line, or, of bytes of any number, the next one.
    Anything,
    /// The rest of what has begun.
    Rest,
}

/// What the other side of a connection does when this one reads: it sees that nothing stays unsent.
pub(super) trait Unsent<Io> {
    /// Writes an error line, if it can.
    fn say(&mut self, error: &str);
    /// A read is about to wait. Pending: it must not read.
    fn poll_before_wait(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// The end is about to be reported.
    fn poll_before_end(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
}

/// A reading half has no unsent output.
impl<Io> Unsent<Io> for () {
    fn say(&mut self, _: &str) {}

    fn poll_before_wait(&mut self, _: &mut Io, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_before_end(&mut self, _: &mut Io, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

impl Input {
    pub(super) fn new(codec: LineCodec) -> Self {
        Self {
            codec,
            buffer: BytesMut::new(),
            allocated: 0,
            is_at_eof: false,
            read_at: None,
            begun_at: None,
            idle_timeout: None,
            line_timeout: None,
            waiting_for: None,
            deadline: Deadline::default(),
            draining: None,
            drain_end: None,
            drain_round: 0,
            has_looked: false,
            is_drained: false,
            lent: None,
            timed_out: None,
            guard: Guard::Off,
            max_bad_lines: None,
        }
    }

    /// The next line, good or bad; `None` at the end.
    pub(super) fn poll_line<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<Bytes, LineError>>, Error>> {
        self.poll_items(io, unsent, cx, |input| {
            let item = input.codec.next_item(&mut input.buffer, input.is_at_eof)?;
            Some(item.cut(&mut input.buffer))
        })
    }

    /// The same as text.
    #[cfg(feature = "text")]
    pub(super) fn poll_text<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<bytestring::ByteString, LineError>>, Error>> {
        self.poll_items(io, unsent, cx, |input| {
            let item = input.codec.next_item(&mut input.buffer, input.is_at_eof)?;
            Some(input.codec.cut_text(item, &mut input.buffer))
        })
    }

    /// All whole lines that have been read, at least one.
    pub(super) fn poll_batch<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Batch>, Error>> {
        self.poll_items(io, unsent, cx, |input| {
            let first = input.codec.next_item(&mut input.buffer, input.is_at_eof)?;
            let most = input.max_bad_lines.unwrap_or(u64::MAX);
            let batch = input.codec.batch_from(first, &mut input.buffer, input.is_at_eof, most);
            if batch.len() > 1 {
                // The last of them may be a long line, and another than the one that was waited for.
                input.line_begins();
            }
            Some(batch)
        })
        .map_ok(|batch| batch.map(|batch| batch.lent_by(self.lent.get_or_insert_default())))
    }

    fn poll_items<Io: AsyncRead + Unpin, T>(
        &mut self,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Self) -> Option<T>,
    ) -> Poll<Result<Option<T>, Error>> {
        if self.max_bad_lines.is_some_and(|most| self.codec.counters().bad_items() > most) {
            ready!(unsent.poll_before_end(io, cx))?;
            return Poll::Ready(Err(Error::TooManyBadLines));
        }
        self.lent.take_if(|lent| Arc::strong_count(lent) > 1);
        loop {
            if self.has_looked && !self.is_drained {
                // Before a line of this round is answered: what comes while that takes its time has come too late.
                self.is_drained = ready!(self.poll_drain_round(io, cx))?;
            }
            if let Some(said) = self.guard.judge(&self.buffer) {
                unsent.say(said);
            }
            if self.guard == Guard::Refused {
                ready!(unsent.poll_before_end(io, cx))?;
                return Poll::Ready(Err(Error::NotLines));
            }
            let is_long_request =
                self.buffer.len() > self.codec.max_length() && self.guard.fears(&self.buffer);
            let was_skipping = self.codec.is_skipping();
            let item = take(self);
            if was_skipping && item.is_some() {
                // Behind what was skipped comes another line, even if it is one to be skipped as well.
                self.line_begins();
            }
            self.skipped(was_skipping);
            if let Some(item) = item {
                if is_long_request && self.codec.counters().too_long > 0 {
                    unsent.say(self.guard.refuse());
                    continue;
                }
                self.guard.pass();
                self.taken();
                return Poll::Ready(Ok(Some(item)));
            }
            if self.is_at_eof || self.is_drained {
                ready!(unsent.poll_before_end(io, cx))?;
                return Poll::Ready(Ok(None));
            }
            // A peer that does not take its replies is not read: nobody has looked what has come.
            ready!(unsent.poll_before_wait(io, cx))?;
            if self.draining.as_mut().is_some_and(|draining| Pin::new(draining).poll(cx).is_ready()) {
                self.is_drained = ready!(self.poll_drain_round(io, cx))?;
                continue;
            }
            let next = if self.buffer.is_empty() { WaitingFor::Anything } else { WaitingFor::Rest };
            ready!(self.poll_input(io, cx, next))?;
        }
    }

    /// What came before the drain is still read and answered. Reads as much as one read can bring, in however many pieces the
    /// stream has it, and tells whether that was all.
    fn poll_drain_round<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, Error>> {
        let read = self.bytes_read();
        let end = *self.drain_end.get_or_insert(read + MAX_DRAINED);
        while !self.is_at_eof && self.bytes_read() < end {
            if self.drain_round >= READ {
                self.drain_round = 0;
                return Poll::Ready(Ok(false));
            }
            let before = self.buffer.len();
            match any_io::asking_the_system(|| self.poll_read(io, cx)) {
                Poll::Ready(read) => {
                    read?;
                    self.drain_round += self.buffer.len() - before;
                    self.has_looked = false;
                }
                Poll::Pending if self.has_looked => break,
                Poll::Pending => {
                    // It may only not have been this task's turn.
                    self.has_looked = true;
                    poll_later(cx);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Exactly `count` bytes. Until they are all there nothing is taken.
    pub(super) fn poll_bytes<Io: AsyncRead + Unpin>(
        &mut self,
        count: usize,
        io: &mut Io,
        unsent: &mut impl Unsent<Io>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Error>> {
        let max = self.codec.max_block_length();
        if count > max {
            return Poll::Ready(Err(TooManyBytes { asked: count, max }.into()));
        }
        loop {
            self.skip_ahead();
            if !self.codec.is_skipping() && self.buffer.len() >= count {
                self.codec.expect_bytes(count)?;
                if let Some(item) = self.codec.next_item(&mut self.buffer, self.is_at_eof) {
                    self.taken();
                    return Poll::Ready(item.cut(&mut self.buffer).map_err(Error::from));
                }
            }
            if self.is_at_eof {
                ready!(unsent.poll_before_end(io, cx))?;
                return Poll::Ready(Err(Error::Eof));
            }
            ready!(self.poll_more(io, unsent, cx, WaitingFor::Rest))?;
        }
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
            if !self.codec.is_skipping() {
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
            if !self.codec.is_skipping() && !self.buffer.is_empty() {
                let most = into.remaining().min(self.buffer.len());
                let count = usize::try_from(count).map_or(most, |count| most.min(count));
                into.put_slice(&self.buffer[..count]);
                self.buffer.advance(count);
                self.codec.take_raw(count);
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
        self.poll_input(io, cx, next)
    }

    /// Reads once more. Pending where nothing has come and no deadline has passed. It is waited for `next`, or for what is
    /// to be skipped before that.
    fn poll_input<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
        next: WaitingFor,
    ) -> Poll<Result<(), Error>> {
        let waiting_for = match self.codec.is_skipping() {
            true if self.codec.is_within_long_line() => WaitingFor::Rest,
            true => WaitingFor::Anything,
            false => next,
        };
        if let Poll::Ready(read) = self.poll_read(io, cx) {
            if waiting_for == WaitingFor::Anything {
                self.waiting_for = None;
            }
            return Poll::Ready(read.map_err(Error::from));
        }
        self.give_back();
        if self.waiting_for != Some(waiting_for) {
            self.waiting_for = Some(waiting_for);
            // What has begun came with the last read; counted bytes of which none has come begin now.
            let has_begun = !self.buffer.is_empty() || self.codec.is_within_long_line();
            self.deadline.start(match (waiting_for, self.begun_at) {
                (WaitingFor::Rest, Some(begun)) if has_begun => begun,
                _ => Instant::now(),
            });
        }
        let (after, timeout) = match waiting_for {
            WaitingFor::Anything => (self.idle_timeout, Timeout::Idle),
            WaitingFor::Rest => (self.line_timeout, Timeout::Line),
        };
        ready!(self.deadline.poll(after, cx));
        self.timed_out = Some(timeout);
        Poll::Ready(Err(Error::Timeout(timeout)))
    }

    fn poll_read<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ROOM.with(|room| match room.try_borrow_mut() {
            Ok(mut room) => {
                room.resize(READ, 0);
                self.poll_read_through(&mut room, io, cx)
            }
            // This very read goes through another connection.
            Err(_) => self.poll_read_through(&mut [0; 4096], io, cx),
        })
    }

    fn poll_read_through<Io: AsyncRead + Unpin>(
        &mut self,
        room: &mut [u8],
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut read = ReadBuf::new(room);
        loop {
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut read)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) => break,
            }
        }
        let read = read.filled();
        if read.is_empty() {
            self.is_at_eof = true;
        } else {
            let now = Some(Instant::now());
            if self.buffer.is_empty() && !self.codec.is_within_long_line() {
                self.begun_at = now;
            }
            self.append(read);
            self.read_at = now;
        }
        Poll::Ready(Ok(()))
    }

    fn append(&mut self, bytes: &[u8]) {
        let has_room = self.buffer.capacity() - self.buffer.len() >= bytes.len();
        if !has_room && !self.buffer.try_reclaim(bytes.len()) {
            if self.buffer.is_empty() {
                self.buffer = BytesMut::with_capacity(bytes.len());
                self.allocated = 0;
            } else {
                self.buffer.reserve(bytes.len());
            }
        }
        self.buffer.extend_from_slice(bytes);
        self.allocated = self.allocated.max(self.buffer.capacity());
    }

    /// While waiting, only the beginning of a line is kept, in little more memory than it needs.
    fn give_back(&mut self) {
        if self.buffer.is_empty() {
            if self.allocated > 0 {
                self.buffer = BytesMut::new();
                self.allocated = 0;
            }
        } else if self.allocated > 2 * self.buffer.len() + 64 {
            let mut fresh = BytesMut::with_capacity(self.buffer.len());
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
            self.allocated = self.buffer.capacity();
        }
    }

    /// Drops what is buffered of the rest of a long line, and of bytes to be skipped.
    fn skip_ahead(&mut self) {
        let was_skipping = self.codec.is_skipping();
        while let Some(count) = self.codec.skip_ahead(&self.buffer, self.is_at_eof) {
            self.buffer.advance(count);
        }
        self.skipped(was_skipping);
    }

    /// What comes behind the skipped bytes has a deadline of its own.
    fn skipped(&mut self, was_skipping: bool) {
        if was_skipping && !self.codec.is_skipping() {
            self.line_begins();
        }
    }

    /// Something was handed over. The deadline for what comes next begins when it is waited for; that of a long line under
    /// way goes on while it is skipped.
    fn taken(&mut self) {
        if !self.codec.is_skipping() {
            self.line_begins();
        }
    }

    /// What is there of a line came with the last bytes.
    fn line_begins(&mut self) {
        self.waiting_for = None;
        self.begun_at = self.read_at;
    }

    pub(super) fn put_back(&mut self, batch: Batch) {
        let rest = self.codec.put_back(batch);
        if !rest.is_empty() {
            let mut buffer = BytesMut::with_capacity(rest.len() + self.buffer.len());
            buffer.extend_from_slice(&rest);
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
            self.allocated = self.buffer.capacity();
        }
    }

    /// Whether lines are still being answered that were read a while ago: their replies had better not wait for each other.
    pub(super) fn is_behind(&self) -> bool {
        let is_lent = self.lent.as_ref().is_some_and(|lent| Arc::strong_count(lent) > 1);
        (is_lent || !self.buffer.is_empty())
            && self.read_at.is_some_and(|read_at| read_at.elapsed() > Duration::from_millis(1))
    }

    fn bytes_read(&self) -> u64 {
        let counters = self.codec.counters();
        let taken = counters.content_bytes + counters.terminator_bytes + counters.skipped_bytes;
        taken + self.buffer.len() as u64
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
    ) -> Poll<io::Result<()>> {
        while !self.is_at_eof {
            self.buffer = BytesMut::new();
            ready!(self.poll_read(io, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn into_parts(self) -> (LineCodec, BytesMut) {
        (self.codec, self.buffer)
    }
}

/// The task is polled again, once it is its turn.
fn poll_later(cx: &mut Context<'_>) {
    #[cfg(feature = "server")]
    let _pending = std::pin::pin!(tokio::task::yield_now()).poll(cx);
    // Without a server nothing drains.
    #[cfg(not(feature = "server"))]
    cx.waker().wake_by_ref();
}
