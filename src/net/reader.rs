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

/// A read takes this many bytes even if they are answered slowly.
const MIN_READ: u32 = 4 * 1024;

/// The reading side of a connection: finds lines in what it has read, and reads more within the
/// deadlines. All state is here and none in a future, so dropping a future loses nothing.
#[derive(Debug)]
pub(crate) struct Reader {
    decoder: LineDecoder,
    /// Read and not handed out. Empty while a [`ReadBuffer`] holds such bytes.
    buffer: Buffer,
    state: ReadState,
    timer: ReadTimer,
    limits: Arc<Limits>,
    /// The server's signal.
    draining: Draining,
    sniff: Sniff,
    /// Whether the decoder was skipping bytes at the last `handed_out` or `skip_bytes`.
    was_skipping: bool,
    /// The most bytes that the next read takes: about as many as are answered in one turn. Always
    /// within `MIN_READ..=READ_SIZE`.
    read_size: u32,
    /// Shared with the last batch while its lines may still be answered.
    batch: Option<Arc<()>>,
    /// Lines, bad lines and skipped bytes of the last report.
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

    /// Puts it under the limits and the shutdown signal of a server.
    pub(super) fn serve(&mut self, limits: Arc<Limits>, draining: Draining) {
        if limits.refuse_http_and_tls {
            self.sniff = Sniff::START;
        }
        (self.limits, self.draining) = (limits, draining);
    }

    /// The connection has failed; of a split one, this half.
    pub(super) fn fail(&mut self, timeout: Option<TimeoutKind>) {
        self.state = ReadState::Ended(End::Failed(timeout));
    }

    /// Reads on after an upgrade, during which it had [failed](Self::fail).
    pub(super) fn reopen(&mut self) {
        // Lines that were sent in clear do not go back into the upgraded stream (CVE-2011-0411).
        self.batch = None;
        self.state = ReadState::Open;
    }

    /// The next item in the buffer.
    pub(super) fn next_line(&mut self) -> Option<Result<Bytes, LineError>> {
        self.next_with(|decoder, buffer, eof| Some(decoder.next_item(buffer, eof)?.cut(buffer)))
    }

    /// The next item in the buffer as text.
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
        self.handed_out(usize::from(item.is_some()));
        item
    }

    /// All whole lines in the buffer.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        let max_bad_lines = self.max_bad_lines();
        let batch = self.next_with(|decoder, buffer, eof| {
            let first = decoder.next_item(buffer, eof)?;
            Some(decoder.batch_from(first, buffer, eof, max_bad_lines))
        })?;
        if batch.len() > 1 {
            // `handed_out` may take a long last line for the one that was waited for. It is another.
            self.timer.line_begins();
        }
        Some(batch.with_token(self.batch.get_or_insert_default()))
    }

    /// A good line in the buffer, if nothing else has to be considered: the fast path of
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

    /// The items of `unread`, or of the buffer if that is empty. Then [`advance`](Self::advance).
    pub(crate) fn items<'a>(&'a mut self, unread: &'a ReadBuffer) -> Items<'a> {
        let eof = self.state.is_eof();
        let bytes = if unread.is_empty() { &self.buffer[..] } else { unread.unread() };
        self.decoder.items(bytes, eof)
    }

    /// `items` items, which take `bytes` bytes, were handed out.
    pub(crate) fn advance(&mut self, unread: &mut ReadBuffer, items: usize, bytes: usize) {
        match unread.is_empty() {
            true => self.buffer.advance(bytes),
            false => unread.advance(bytes),
        }
        self.handed_out(items);
    }

    /// Puts what a poll leaves unread into the connection's own buffer.
    pub(crate) fn keep(&mut self, unread: &mut ReadBuffer) {
        if !unread.is_empty() {
            self.buffer.append(unread.unread());
            unread.clear();
        }
    }

    /// Puts what a turn leaves unread into the connection's own buffer. Less is read the next time,
    /// so that little has to be kept.
    pub(crate) fn pause(&mut self, unread: &mut ReadBuffer) {
        if !unread.is_empty() {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        self.keep(unread);
    }

    /// Whether there can be an item without more bytes.
    pub(crate) fn may_have_item(&self, unread: &ReadBuffer) -> bool {
        !unread.is_empty()
            || !self.buffer.is_empty()
            || self.state.is_eof()
            || self.decoder.has_pending_skip()
    }

    /// Returns unread lines of the last batch to the front of the buffer. A batch that is not the
    /// last one comes back.
    pub(super) fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        if !self.batch.as_ref().is_some_and(|token| batch.has_token(token)) {
            return Err(batch);
        }
        // A clone of it would come back a second time.
        self.batch = None;
        let rest = self.decoder.put_back(batch);
        if !rest.is_empty() {
            let mut buffer = Buffer::from(&rest[..]);
            buffer.append(&self.buffer);
            self.buffer = buffer;
        }
        Ok(())
    }

    /// Call after `items` items were handed out, or, with 0, after bytes were skipped: the deadline of
    /// the next line starts.
    fn handed_out(&mut self, items: usize) {
        let is_skipping = self.decoder.is_skipping();
        let was_skipping = core::mem::replace(&mut self.was_skipping, is_skipping);
        let another_begins = items > 0 || (was_skipping && !is_skipping);
        // A line over the limit is handed out before its end. Its deadline goes on.
        let is_same_line = items == 1 && is_skipping && !was_skipping;
        if another_begins && !is_same_line {
            self.timer.line_begins();
        }
        if items > 0 {
            self.sniff.pass(self.buffer.len());
            // Only the last batch can be put back.
            self.batch.take_if(|token| Arc::strong_count(token) > 1);
        }
    }

    /// Exactly `count` bytes, if they are all in the buffer.
    pub(super) fn next_block(&mut self, count: usize) -> Result<Option<Bytes>, Error> {
        self.skip_buffered();
        if self.decoder.is_skipping() || self.buffer.len() < count {
            return Ok(None);
        }
        self.decoder.expect_bytes(count)?;
        let eof = self.state.is_eof();
        let buffer = self.buffer.bytes_mut();
        let block = self.decoder.next_item(buffer, eof).map(|item| item.cut(buffer));
        self.handed_out(usize::from(block.is_some()));
        Ok(block.transpose()?)
    }

    /// Some of the next `count` bytes, if any are in the buffer.
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
        self.handed_out(1);
        Some(count)
    }

    pub(super) fn skip_bytes(&mut self, count: u64) {
        self.decoder.skip_bytes(count);
        if count > 0 {
            // Lines of a batch would come before the bytes to be skipped.
            self.batch = None;
        }
        self.was_skipping = self.decoder.is_skipping();
        self.sniff.restart();
    }

    /// Whether everything to be skipped has been skipped.
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
        self.handed_out(0);
    }

    /// Whether there were more bad lines than allowed.
    #[inline]
    pub(super) fn is_over_bad_lines(&self) -> bool {
        let bad_items = self.decoder.bad_items();
        bad_items > 0 && bad_items > self.max_bad_lines()
    }

    pub(crate) fn max_bad_lines(&self) -> u64 {
        self.limits.max_bad_lines.unwrap_or(u64::MAX)
    }

    /// Judges the first bytes of a connection. Returns what the peer is told if they are not lines.
    pub(super) fn sniff(&mut self) -> Option<&'static str> {
        if self.sniff == Sniff::Off {
            return None;
        }
        self.skip_buffered();
        let Self { decoder, buffer, state, .. } = self;
        self.sniff.judge(buffer, |blank| {
            // An unfinished line is not over the limit yet.
            buffer.len() > decoder.max_length() && {
                let mut decoder = decoder.clone();
                let mut items = decoder.items(buffer, state.is_eof());
                core::iter::from_fn(|| items.next())
                    .find(|item| item.end() > blank)
                    .is_some_and(|item| item.kind() == Kind::TooLong)
            }
        })
    }

    /// Whether the peer was refused because it speaks HTTP or TLS.
    pub(super) fn is_refused(&self) -> bool {
        self.sniff == Sniff::Refused
    }

    /// Whether lines are all that has to be considered: no drain, no check for HTTP, no failure.
    #[inline]
    pub(crate) fn has_only_lines(&self) -> bool {
        matches!(self.state, ReadState::Open | ReadState::Ended(End::Eof)) && self.sniff == Sniff::Off
    }

    /// How far the stream has got.
    pub(super) fn state(&self) -> &ReadState {
        &self.state
    }

    /// What ended the stream, once everything in the buffer has been handed out. An error is
    /// returned once.
    pub(super) fn take_end(&mut self) -> Result<(), Error> {
        self.state.take_end()
    }

    /// Whether lines that were read a while ago are still being answered, so that their replies
    /// should not wait for each other.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        (self.has_batch() || !self.buffer.is_empty())
            && self.timer.read_at().is_some_and(|read_at| poll::line_time() - read_at > poll::MAX_REPLY_DELAY)
    }

    /// Whether the last batch still exists.
    fn has_batch(&self) -> bool {
        self.batch.as_ref().is_some_and(|token| Arc::strong_count(token) > 1)
    }

    /// When the last bytes arrived.
    pub(crate) fn read_at(&self) -> Option<Instant> {
        self.timer.read_at()
    }

    /// How many bytes were read and not handed out.
    #[cfg(feature = "tracing")]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes handed out and in `buffer`, without those in a [`ReadBuffer`].
    fn bytes_read(&self) -> u64 {
        self.decoder.counters().bytes() + self.buffer.len() as u64
    }

    /// How many bytes were read and not handed out, or are still to be skipped.
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

    /// Adds what was handed out since the last report to the server's totals.
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
