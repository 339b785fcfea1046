use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::buffer::{Buffer, READ_SIZE, ReadBuffer};
use super::error::{Error, TimeoutKind};
use super::limits::{Limits, Total};
use super::poll;
use super::read_state::{End, ReadState};
use super::shutdown::Draining;
use super::sniff::Sniff;
use super::timers::ReadTimer;
use crate::codec::{Batch, Items, LineDecoder};
use crate::error::LineError;
use crate::scan::Kind;

mod fill;

/// The minimum read size in bytes, for connections whose lines are answered slowly.
const MIN_READ: u32 = 4 * 1024;

/// The reading side of a connection. Decodes lines from the buffer, and reads more bytes within the
/// deadlines. All state is in this struct and none in a future, so dropping a future loses nothing.
#[derive(Debug)]
pub(crate) struct Reader {
    decoder: LineDecoder,
    /// Bytes that were read and not returned. Always empty while a [`ReadBuffer`] holds such bytes.
    buffer: Buffer,
    state: ReadState,
    timer: ReadTimer,
    limits: Arc<Limits>,
    /// The shutdown signal of the server.
    draining: Draining,
    sniff: Sniff,
    /// `true` if the decoder was skipping bytes at the last `items_returned` or `skip_bytes`.
    was_skipping: bool,
    /// Size limit of the next read in bytes: about the number that can be answered in one turn.
    /// Always within `MIN_READ..=READ_SIZE`.
    read_size: u32,
    /// Token shared with the last batch while its lines may still be unanswered.
    batch: Option<Arc<()>>,
    /// Numbers of lines, bad lines and skipped bytes at the last report.
    reported: [u32; 3],
}

impl Reader {
    pub(super) fn new(decoder: LineDecoder) -> Self {
        Self {
            decoder,
            buffer: Buffer::default(),
            state: ReadState::Open,
            timer: ReadTimer::default(),
            limits: Limits::none(),
            draining: Draining::default(),
            sniff: Sniff::Off,
            was_skipping: false,
            read_size: READ_SIZE as u32,
            batch: None,
            reported: Default::default(),
        }
    }

    /// Applies the limits and the shutdown signal of a server.
    pub(super) fn serve(&mut self, limits: Arc<Limits>, draining: Draining) {
        if limits.refuse_http_and_tls {
            self.sniff = Sniff::START;
        }
        (self.limits, self.draining) = (limits, draining);
    }

    /// Marks the connection, or this half of a split connection, as failed.
    pub(super) fn fail(&mut self, timeout: Option<TimeoutKind>) {
        self.state = ReadState::Ended(End::Failed(timeout));
    }

    /// Reopens the reader after an upgrade, which had marked it as [failed](Self::fail).
    pub(super) fn reopen(&mut self) {
        // Lines sent in clear text must not be put back into the upgraded stream (CVE-2011-0411).
        self.batch = None;
        self.state = ReadState::Open;
    }

    /// Returns the next item in the buffer.
    pub(super) fn next_line(&mut self) -> Option<Result<Bytes, LineError>> {
        self.next_with(|decoder, buffer, eof| Some(decoder.next_item(buffer, eof)?.cut(buffer)))
    }

    /// Returns the next item in the buffer as text.
    #[cfg(feature = "text")]
    pub(super) fn next_text(&mut self) -> Option<Result<bytestring::ByteString, LineError>> {
        self.next_with(|decoder, buffer, eof| {
            let item = decoder.next_item(buffer, eof)?;
            Some(decoder.cut_text(item, buffer))
        })
    }

    fn next_with<T>(
        &mut self,
        next: impl FnOnce(&mut LineDecoder, &mut BytesMut, bool) -> Option<T>,
    ) -> Option<T> {
        let eof = self.state.is_eof();
        if self.buffer.is_empty() && !eof && !self.decoder.has_pending_skip() {
            return None;
        }
        let item = next(&mut self.decoder, self.buffer.bytes_mut(), eof);
        self.items_returned(usize::from(item.is_some()));
        item
    }

    /// Returns all complete lines in the buffer.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        let max_bad_lines = self.max_bad_lines();
        let batch = self.next_with(|decoder, buffer, eof| {
            let first = decoder.next_item(buffer, eof)?;
            Some(decoder.batch_from(first, buffer, eof, max_bad_lines))
        })?;
        if batch.len() > 1 {
            // `items_returned` would treat a long last line as the line that was awaited.
            self.timer.line_begins();
        }
        Some(batch.with_token(self.batch.get_or_insert_default()))
    }

    /// Returns a good line from the buffer if no other check is needed: the fast path of
    /// `next_line`.
    #[inline]
    pub(super) fn next_good_line(&mut self) -> Option<Bytes> {
        if !self.has_only_lines() || self.is_over_bad_lines() || self.has_batch() {
            return None;
        }
        let buffer = self.buffer.allocated_mut()?;
        let line = self.decoder.whole_line(buffer)?.cut_bytes(buffer);
        self.timer.line_begins();
        Some(line)
    }

    /// Returns the items of `unread`, or of the buffer if `unread` is empty. Call
    /// [`advance`](Self::advance) afterwards.
    pub(crate) fn items<'a>(&'a mut self, unread: &'a ReadBuffer) -> Items<'a> {
        let eof = self.state.is_eof();
        let bytes = if unread.is_empty() { &self.buffer[..] } else { unread.unread() };
        self.decoder.items(bytes, eof)
    }

    /// Consumes `items` items of `bytes` bytes in total, after the caller has handled them.
    pub(crate) fn advance(&mut self, unread: &mut ReadBuffer, items: usize, bytes: usize) {
        match unread.is_empty() {
            true => self.buffer.advance(bytes),
            false => unread.advance(bytes),
        }
        self.items_returned(items);
    }

    /// Moves the unread bytes of a poll into the connection's own buffer.
    pub(crate) fn keep(&mut self, unread: &mut ReadBuffer) {
        if !unread.is_empty() {
            self.buffer.append(unread.unread());
            unread.clear();
        }
    }

    /// Moves the unread bytes of a turn into the connection's own buffer. Halves the size of the
    /// next read, so that fewer bytes have to be moved.
    pub(crate) fn pause(&mut self, unread: &mut ReadBuffer) {
        if !unread.is_empty() {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        self.keep(unread);
    }

    /// Returns whether the available bytes may contain an item.
    pub(crate) fn may_have_item(&self, unread: &ReadBuffer) -> bool {
        !unread.is_empty()
            || !self.buffer.is_empty()
            || self.state.is_eof()
            || self.decoder.has_pending_skip()
    }

    /// Puts the unread lines of the last batch back at the front of the buffer. Returns any other
    /// batch as an error.
    pub(super) fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        if !self.batch.as_ref().is_some_and(|token| batch.has_token(token)) {
            return Err(batch);
        }
        // Prevents a clone of the batch from being put back as well.
        self.batch = None;
        let rest = self.decoder.put_back(batch);
        if !rest.is_empty() {
            let mut buffer = Buffer::from(&rest[..]);
            buffer.append(&self.buffer);
            self.buffer = buffer;
        }
        Ok(())
    }

    /// Starts the deadline of the next line. Call it after `items` items were returned, or with 0
    /// after bytes were skipped.
    fn items_returned(&mut self, items: usize) {
        let is_skipping = self.decoder.is_skipping();
        let was_skipping = core::mem::replace(&mut self.was_skipping, is_skipping);
        let another_begins = items > 0 || (was_skipping && !is_skipping);
        // A line over the limit is returned before its end, so its deadline continues.
        let is_same_line = items == 1 && is_skipping && !was_skipping;
        if another_begins && !is_same_line {
            self.timer.line_begins();
        }
        if items > 0 {
            self.sniff.pass(self.buffer.len());
            // Drops the token unless the batch still exists: only the last batch can be put back.
            self.batch.take_if(|token| Arc::strong_count(token) > 1);
        }
    }

    /// Returns exactly `count` bytes if the buffer holds all of them.
    pub(super) fn next_block(&mut self, count: usize) -> Result<Option<Bytes>, Error> {
        self.skip_buffered();
        if self.decoder.is_skipping() || self.buffer.len() < count {
            return Ok(None);
        }
        self.decoder.expect_bytes(count)?;
        let eof = self.state.is_eof();
        let buffer = self.buffer.bytes_mut();
        let block = self.decoder.next_item(buffer, eof).map(|item| item.cut(buffer));
        self.items_returned(usize::from(block.is_some()));
        Ok(block.transpose()?)
    }

    /// Copies up to `count` buffered bytes into `into`. Returns their number, or `None` if no byte
    /// is buffered.
    pub(super) fn next_part(&mut self, count: u64, into: &mut ReadBuf<'_>) -> Option<usize> {
        self.skip_buffered();
        if self.decoder.is_skipping() || self.buffer.is_empty() {
            return None;
        }
        let most = into.remaining().min(self.buffer.len());
        let count = usize::try_from(count).map_or(most, |count| most.min(count));
        into.put_slice(&self.buffer[..count]);
        self.buffer.advance(count);
        self.decoder.advance(count);
        self.items_returned(1);
        Some(count)
    }

    pub(super) fn skip_bytes(&mut self, count: u64) {
        self.decoder.skip_bytes(count);
        if count > 0 {
            // Lines that are put back would end up before the bytes to be skipped.
            self.batch = None;
        }
        self.was_skipping = self.decoder.is_skipping();
        self.sniff.restart();
    }

    /// Returns whether no bytes are left to skip.
    pub(super) fn is_skipped(&mut self) -> bool {
        self.skip_buffered();
        let is_skipped = !self.decoder.is_skipping();
        if is_skipped {
            self.timer.line_begins();
        }
        is_skipped
    }

    fn skip_buffered(&mut self) {
        let eof = self.state.is_eof();
        while let Some(count) = self.decoder.skip_ahead(&self.buffer, eof) {
            self.buffer.advance(count);
        }
        self.items_returned(0);
    }

    /// Returns whether the peer has sent more bad lines than allowed.
    #[inline]
    pub(super) fn is_over_bad_lines(&self) -> bool {
        let bad_items = self.decoder.bad_items();
        bad_items > 0 && bad_items > self.max_bad_lines()
    }

    pub(crate) fn max_bad_lines(&self) -> u64 {
        self.limits.max_bad_lines.unwrap_or(u64::MAX)
    }

    /// Checks the first bytes of a connection for HTTP and TLS. Returns the error line for the peer
    /// if the connection is refused.
    pub(super) fn sniff(&mut self) -> Option<&'static str> {
        if self.sniff == Sniff::Off {
            return None;
        }
        self.skip_buffered();
        let Self { decoder, buffer, state, .. } = self;
        self.sniff.judge(buffer, |blank| {
            // A buffer within the limit cannot hold a line that is too long.
            buffer.len() > decoder.max_length() && {
                let mut decoder = decoder.clone();
                let mut items = decoder.items(buffer, state.is_eof());
                core::iter::from_fn(|| items.next())
                    .find(|item| item.end() > blank)
                    .is_some_and(|item| item.kind() == Kind::TooLong)
            }
        })
    }

    /// Returns whether the peer was refused because it speaks HTTP or TLS.
    pub(super) fn is_refused(&self) -> bool {
        self.sniff == Sniff::Refused
    }

    /// Returns whether no drain, no HTTP check and no failure is pending, so that only lines
    /// matter.
    #[inline]
    pub(crate) fn has_only_lines(&self) -> bool {
        matches!(self.state, ReadState::Open | ReadState::Ended(End::Eof)) && self.sniff == Sniff::Off
    }

    /// Returns the state of the stream.
    pub(super) fn state(&self) -> &ReadState {
        &self.state
    }

    /// Returns the reason for the end of the stream. Call it after all buffered bytes were
    /// returned. Returns an error only once.
    pub(super) fn take_end(&mut self) -> Result<(), Error> {
        self.state.take_end()
    }

    /// Returns whether buffered lines are older than [`MAX_REPLY_DELAY`](poll::MAX_REPLY_DELAY), so
    /// that their replies must be sent.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        (self.has_batch() || !self.buffer.is_empty())
            && self.timer.read_at().is_some_and(|read_at| poll::line_time() - read_at > poll::MAX_REPLY_DELAY)
    }

    /// Returns whether the last batch still exists.
    fn has_batch(&self) -> bool {
        self.batch.as_ref().is_some_and(|token| Arc::strong_count(token) > 1)
    }

    /// Returns the time when the last bytes arrived.
    pub(crate) fn read_at(&self) -> Option<Instant> {
        self.timer.read_at()
    }

    /// Returns the number of bytes that were read and not returned.
    #[cfg(feature = "tracing")]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Number of bytes read from the stream, without those in a [`ReadBuffer`].
    fn bytes_read(&self) -> u64 {
        self.decoder.counters().bytes() + self.buffer.len() as u64
    }

    /// Returns the number of bytes that are unread or still to be skipped. The rest of a long line
    /// counts as at least one.
    pub(super) fn left_over(&self) -> usize {
        let to_skip = usize::try_from(self.decoder.pending_skip()).unwrap_or(usize::MAX);
        let least = usize::from(self.decoder.is_within_long_line());
        self.buffer.len().max(to_skip).max(least)
    }

    pub(super) fn decoder(&self) -> &LineDecoder {
        &self.decoder
    }

    pub(super) fn decoder_mut(&mut self) -> &mut LineDecoder {
        &mut self.decoder
    }

    pub(crate) fn draining(&self) -> &Draining {
        &self.draining
    }

    pub(super) fn limits_mut(&mut self) -> &mut Limits {
        Arc::make_mut(&mut self.limits)
    }

    /// Adds the counts since the last report to the server's totals.
    pub(super) fn report(&mut self) {
        let Some(totals) = &self.limits.totals else { return };
        let counters = self.decoder.counters();
        let [lines, bad_lines, skipped_bytes] = &mut self.reported;
        totals.report(Total::Lines, lines, counters.lines);
        totals.report(Total::BadLines, bad_lines, counters.bad_items());
        totals.report(Total::SkippedBytes, skipped_bytes, counters.skipped_bytes);
    }

    pub(super) fn into_parts(self) -> (LineDecoder, BytesMut) {
        (self.decoder, self.buffer.into_bytes())
    }
}
