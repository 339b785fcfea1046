use core::mem::take;
use std::boxed::Box;

use bytes::{Buf, BytesMut};

use super::batch::Batch;
use super::counters::CodecCounters;
use super::item::Item;
use crate::error::BlockError;
#[cfg(feature = "text")]
use crate::error::LineError;
use crate::scan::{Kind, Lines, Scanner, Verdict};

mod items;
pub(crate) use items::Items;

/// The default of `max_block_length`.
pub(super) const MAX_BLOCK_LENGTH: usize = 1024 * 1024;

/// The largest number of lines in a batch. Further lines form the next batch, without another read.
const MAX_BATCH_LINES: usize = 4096;

/// Decodes lines, blocks and skipped bytes in order. All codecs and connections read with it.
///
/// Every byte is counted once: when its item is returned, or when it is skipped.
#[derive(Clone, Debug)]
pub(crate) struct LineDecoder {
    scanner: Scanner,
    tally: Tally,
}

/// The result of decoding the front of the bytes.
enum Step {
    /// More bytes are needed, or the stream has ended.
    Nothing,
    /// The number of bytes to drop; they belong to no item.
    Skip(usize),
    Item(Item),
}

impl LineDecoder {
    pub(super) fn new(scanner: Scanner, max_block_length: usize) -> Self {
        Self { scanner, tally: Tally::new(max_block_length) }
    }

    /// Iterates over the items at the front of `bytes`, and passes over skipped bytes.
    ///
    /// With `eof`, `bytes` are all remaining bytes of the stream. Then call this again with no
    /// bytes until it yields nothing: it may yield one more item, and it returns the decoder to the
    /// start of a new stream.
    #[cfg(feature = "net")]
    #[inline]
    pub(crate) fn items<'a>(&'a mut self, bytes: &'a [u8], eof: bool) -> Items<'a> {
        Items::new(self, bytes, 0, eof)
    }

    /// Returns the next item at the front of `buffer`, and removes only skipped bytes from
    /// `buffer`.
    ///
    /// Returns `None` if more bytes are needed. With `eof`, `None` means that the stream has ended
    /// and that the decoder is at the start of a new stream.
    #[inline]
    pub(crate) fn next_item(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Item> {
        match self.whole_line(buffer) {
            None => self.next_item_of_any_kind(buffer, eof, false),
            item => item,
        }
    }

    /// Returns the next piece of a line, of at most `max_length` bytes, or a block.
    pub(super) fn next_piece(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Item> {
        self.next_item_of_any_kind(buffer, eof, true)
    }

    #[inline(never)]
    fn next_item_of_any_kind(&mut self, buffer: &mut BytesMut, eof: bool, in_pieces: bool) -> Option<Item> {
        loop {
            match self.step(buffer, eof, in_pieces) {
                Step::Item(item) => return Some(item),
                Step::Skip(count) => buffer.advance(count),
                Step::Nothing => return None,
            }
        }
    }

    /// Fast path for a good, terminated line at the front of `bytes`. If it returns `None`, call
    /// [`next_item`](Self::next_item), which continues the search.
    #[inline]
    pub(crate) fn whole_line(&mut self, bytes: &[u8]) -> Option<Item> {
        if self.has_pending_skip() {
            return None;
        }
        let (content_end, end) = self.scanner.scan_line(bytes)?;
        self.tally.add_lines(1, content_end, end);
        Some(Item { kind: Kind::Line, start: 0, content_end, end, expected: 0 })
    }

    /// Removes all whole lines from the front of `buffer`. `first` is the first item. Stops after
    /// more than `max_bad_items` bad items.
    pub(crate) fn batch_from(
        &mut self,
        first: Item,
        buffer: &mut BytesMut,
        eof: bool,
        max_bad_items: u64,
    ) -> Batch {
        // Enough if the other lines are as long as the first one.
        let others = (buffer.len() - first.end) / first.end.max(16);
        let mut batch = Batch::new(first, MAX_BATCH_LINES.min(1 + others));
        let mut end = first.end;
        if !first.is_bad() || self.bad_items() <= max_bad_items {
            let mut items = Items::new(self, buffer, end, eof);
            while let Some(item) = items.next() {
                let is_full = batch.push(item) == MAX_BATCH_LINES;
                if is_full || item.is_bad() && items.bad_items() > max_bad_items {
                    break;
                }
            }
            end = items.consumed();
        }
        batch.with_bytes(buffer.split_to(end).freeze())
    }

    /// Undoes the decoding of the remaining lines of `batch`. They must be the last lines decoded.
    /// The caller must put the returned bytes back in front of the buffer.
    #[cfg(feature = "net")]
    pub(crate) fn put_back(&mut self, batch: Batch) -> bytes::Bytes {
        for (kind, content, bytes) in batch.untaken() {
            self.tally.remove(kind, content, bytes);
        }
        let rest = batch.into_rest();
        if !rest.is_empty() {
            self.scanner.rewind(rest.len());
        }
        rest
    }

    /// Removes an item from the front of `buffer`. Checks and copies its text.
    #[cfg(all(feature = "net", feature = "text"))]
    pub(crate) fn cut_text(
        &mut self,
        item: Item,
        buffer: &mut BytesMut,
    ) -> Result<bytestring::ByteString, LineError> {
        if item.is_bad() {
            return item.cut(buffer).map(|_| bytestring::ByteString::new());
        }
        match simdutf8::compat::from_utf8(&buffer[..item.content_end]) {
            Ok(text) => {
                let text = bytestring::ByteString::from(text);
                buffer.advance(item.end);
                Ok(text)
            }
            Err(error) => Err(self.cut_not_utf8(item, buffer, error.valid_up_to())),
        }
    }

    /// Removes a good item that is not UTF-8 from the front of `buffer`.
    #[cfg(feature = "text")]
    pub(super) fn cut_not_utf8(
        &mut self,
        item: Item,
        buffer: &mut BytesMut,
        valid_up_to: usize,
    ) -> LineError {
        *self.tally.count_of(item.kind) -= 1;
        self.tally.others().not_utf8 += 1;
        LineError::NotUtf8 { line: item.cut_bytes(buffer), valid_up_to }
    }

    /// Counts the end of the stream within a line whose pieces were returned.
    pub(super) fn add_cut_line(&mut self) {
        self.tally.others().unterminated += 1;
    }

    pub(crate) fn expect_bytes(&mut self, count: usize) -> Result<(), BlockError> {
        let extra = self.tally.extra_mut();
        let max = extra.max_block_length;
        if extra.block.is_some() {
            return Err(BlockError::Pending { asked: count });
        }
        if count > max {
            return Err(BlockError::TooLong { asked: count, max });
        }
        extra.block = Some(count);
        Ok(())
    }

    pub(crate) fn skip_bytes(&mut self, count: u64) {
        let extra = self.tally.extra_mut();
        let skip = if extra.block.is_some() { &mut extra.then_skip } else { &mut extra.skip };
        *skip = skip.saturating_add(count);
    }

    /// Skips bytes at the front of `bytes` that come before the next item. Returns how many, or
    /// `None` if none are skipped.
    #[cfg(feature = "net")]
    pub(crate) fn skip_ahead(&mut self, bytes: &[u8], eof: bool) -> Option<usize> {
        if bytes.is_empty() || !self.is_skipping() {
            return None;
        }
        match self.next_pending(bytes, eof) {
            Some(Step::Skip(count)) => Some(count),
            _ => None,
        }
    }

    /// Counts `count` bytes that the caller has returned without the decoder. The next byte starts
    /// a line.
    #[cfg(feature = "net")]
    pub(crate) fn advance(&mut self, count: usize) {
        self.scanner.take(count);
        self.tally.add_lines(0, count, count);
    }

    /// Returns to the start of a stream, sets all counters to 0 and keeps the configuration.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        self.tally = Tally::new(self.max_block_length());
    }

    pub(crate) fn set_max_length(&mut self, max_length: usize) {
        self.scanner.set_max_length(max_length);
    }

    /// Returns the limit for the content of a line, in bytes. `usize::MAX` means no limit.
    pub(crate) fn max_length(&self) -> usize {
        self.scanner.max_length().unwrap_or(usize::MAX)
    }

    pub(crate) fn max_block_length(&self) -> usize {
        self.tally.extra.as_ref().map_or(MAX_BLOCK_LENGTH, |extra| extra.max_block_length)
    }

    pub(crate) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    pub(crate) fn counters(&self) -> CodecCounters {
        self.tally.counters()
    }

    #[inline]
    pub(crate) fn bad_items(&self) -> u64 {
        self.tally.extra.as_ref().map_or(0, |extra| extra.counters.bad_items())
    }

    /// Returns whether skipped bytes come before the next item.
    #[cfg(feature = "net")]
    pub(crate) fn is_skipping(&self) -> bool {
        self.scanner.is_skipping() || self.tally.extra.as_ref().is_some_and(|extra| extra.skip > 0)
    }

    /// Returns the number of bytes that `skip_bytes` has yet to skip.
    #[cfg(feature = "net")]
    pub(crate) fn pending_skip(&self) -> u64 {
        self.tally.extra.as_ref().map_or(0, |extra| extra.skip)
    }

    /// Returns whether the next bytes are the rest of a `TooLong` line.
    #[cfg(feature = "net")]
    pub(crate) fn is_within_long_line(&self) -> bool {
        self.scanner.is_skipping()
    }

    /// Returns whether skipped bytes or a block come before the next line.
    #[inline]
    pub(crate) fn has_pending_skip(&self) -> bool {
        let extra = self.tally.extra.as_ref();
        self.scanner.is_skipping() || extra.is_some_and(|extra| extra.skip > 0 || extra.block.is_some())
    }

    /// Decodes one item, or bytes to skip, at the front of `bytes`. With `in_pieces`, returns lines
    /// in pieces.
    #[inline]
    fn step(&mut self, bytes: &[u8], eof: bool, in_pieces: bool) -> Step {
        if self.has_pending_skip() {
            if let Some(step) = self.next_pending(bytes, eof) {
                return step;
            }
        }
        let max_length = self.max_length();
        let verdict = match (in_pieces, eof) {
            (false, _) => self.scan(bytes, eof),
            (true, false) => self.scanner.scan_piece(bytes, max_length),
            (true, true) => self.scanner.scan_piece_eof(bytes, max_length),
        };
        match verdict {
            Some(Verdict { kind, content, consumed, .. }) => self.item(kind, content.end, consumed, 0),
            None => Step::Nothing,
        }
    }

    /// Decodes what comes before the next line: the rest of a `TooLong` line, bytes to skip, or a
    /// block. Returns `None` if a line comes next.
    #[cold]
    fn next_pending(&mut self, bytes: &[u8], eof: bool) -> Option<Step> {
        // An empty block is available immediately.
        if self.tally.extra_mut().block != Some(0) {
            if self.scanner.is_skipping() {
                match self.scan(bytes, eof) {
                    Some(rest) => return Some(self.skip(rest.consumed)),
                    None if eof => {}
                    None => return Some(Step::Nothing),
                }
            }
            let extra = self.tally.extra_mut();
            if extra.skip > 0 && !bytes.is_empty() {
                let count = usize::try_from(extra.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                extra.skip -= count as u64;
                self.scanner.take(count);
                return Some(self.skip(count));
            }
            if extra.skip > 0 && !eof {
                return Some(Step::Nothing);
            }
            extra.skip = 0;
        }
        let extra = self.tally.extra_mut();
        let expected = extra.block?;
        if bytes.len() < expected && !eof {
            return Some(Step::Nothing);
        }
        extra.block = None;
        extra.skip = extra.skip.saturating_add(take(&mut extra.then_skip));
        let length = expected.min(bytes.len());
        if length > 0 {
            self.scanner.take(length);
        }
        let kind = if length < expected { Kind::Incomplete } else { Kind::Block };
        Some(self.item(kind, length, length, expected))
    }

    fn skip(&mut self, count: usize) -> Step {
        self.tally.add_lines(0, 0, count);
        self.tally.others().skipped_bytes += count as u64;
        Step::Skip(count)
    }

    #[inline]
    fn item(&mut self, kind: Kind, content_end: usize, end: usize, expected: usize) -> Step {
        self.tally.add(kind, content_end, end);
        Step::Item(Item { kind, start: 0, content_end, end, expected })
    }

    #[inline]
    fn scan(&mut self, bytes: &[u8], eof: bool) -> Option<Verdict> {
        if eof { self.scanner.scan_eof(bytes) } else { self.scanner.scan(bytes) }
    }

    /// Returns the terminated lines in `bytes` from `start` on, if they can be found in one pass.
    #[inline]
    fn lines<'a>(&self, bytes: &'a [u8], start: usize) -> Option<Lines<'a>> {
        if self.has_pending_skip() { None } else { self.scanner.lines(bytes, start) }
    }
}

/// The state from which [`CodecCounters`] are computed, and rarely used state of the decoder.
#[derive(Clone, Debug, Default)]
struct Tally {
    lines: u64,
    /// All bytes returned or skipped: content, terminators and skipped bytes.
    content_bytes: u64,
    /// All bytes taken in: content, terminators and skipped bytes.
    bytes: u64,
    extra: Option<Box<ExtraState>>,
}

/// Rarely used state of a decoder, boxed to keep idle connections small.
#[derive(Clone, Debug)]
struct ExtraState {
    /// Bytes to drop before the block, or before the next line if there is no block.
    skip: u64,
    /// The length of the requested block, until the block is returned.
    block: Option<usize>,
    /// Bytes to drop after the block. Always 0 without a block.
    then_skip: u64,
    max_block_length: usize,
    /// `lines`, `content_bytes` and `terminator_bytes` are always 0.
    counters: CodecCounters,
}

impl Default for ExtraState {
    fn default() -> Self {
        let counters = CodecCounters::default();
        Self { skip: 0, block: None, then_skip: 0, max_block_length: MAX_BLOCK_LENGTH, counters }
    }
}

impl Tally {
    fn new(max_block_length: usize) -> Self {
        let mut tally = Self::default();
        if max_block_length != MAX_BLOCK_LENGTH {
            tally.extra_mut().max_block_length = max_block_length;
        }
        tally
    }

    #[cold]
    fn extra_mut(&mut self) -> &mut ExtraState {
        self.extra.get_or_insert_default()
    }

    /// Counts `lines` good lines. They take `bytes` bytes, of which `content` are content.
    #[inline]
    fn add_lines(&mut self, lines: usize, content: usize, bytes: usize) {
        self.lines += lines as u64;
        self.content_bytes += content as u64;
        self.bytes += bytes as u64;
    }

    /// Counts an item. A piece counts as a line if it is the last piece of its line.
    #[inline]
    fn add(&mut self, kind: Kind, content: usize, bytes: usize) {
        self.add_lines(0, content, bytes);
        if kind != Kind::Piece || bytes > content {
            *self.count_of(kind) += 1;
        }
        if kind == Kind::TooLong {
            self.others().skipped_bytes += (bytes - content) as u64;
        }
    }

    /// Undoes [`add`](Self::add) of an item. `bytes` includes bytes skipped after the item.
    #[cfg(feature = "net")]
    fn remove(&mut self, kind: Kind, content: usize, bytes: usize) {
        self.content_bytes -= content as u64;
        self.bytes -= bytes as u64;
        *self.count_of(kind) -= 1;
        if matches!(kind, Kind::TooLong | Kind::Block) {
            self.others().skipped_bytes -= (bytes - content) as u64;
        }
    }

    fn counters(&self) -> CodecCounters {
        let Self { lines, content_bytes, bytes, .. } = *self;
        let others = self.extra.as_ref().map(|extra| extra.counters).unwrap_or_default();
        let terminator_bytes = bytes - content_bytes - others.skipped_bytes;
        CodecCounters { lines, content_bytes, terminator_bytes, ..others }
    }

    /// Returns the counter of items of this kind.
    #[inline]
    fn count_of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Line | Kind::Piece => &mut self.lines,
            Kind::Block => &mut self.others().blocks,
            Kind::TooLong => &mut self.others().too_long,
            Kind::Unterminated => &mut self.others().unterminated,
            Kind::BareTerminator => &mut self.others().bare_terminator,
            Kind::Incomplete => &mut self.others().incomplete,
        }
    }

    /// Returns the counters that most streams never change.
    fn others(&mut self) -> &mut CodecCounters {
        &mut self.extra_mut().counters
    }
}
