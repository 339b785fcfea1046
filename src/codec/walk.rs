use bytes::{Buf, Bytes, BytesMut};

use super::CodecCounters;
use crate::error::{LineError, TooManyBytes};
use crate::scan::{Delimiter, Kind, Scanner, Unterminated, Verdict};

/// The one walk over a stream that all codecs take: lines, counted blocks and skipped bytes in their order, each byte
/// counted once.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    scanner: Scanner,
    counted: Counted,
    max_block_length: usize,
    counters: CodecCounters,
    /// [`Walk::step_piece`] is within a line.
    within_line: bool,
}

/// What the caller has asked for behind the last item's line: `skip` bytes to be dropped, then a block, then
/// `then_skip` more to be dropped, then lines again.
#[derive(Clone, Debug, Default)]
struct Counted {
    skip: u64,
    block: Option<usize>,
    /// Always 0 while no block is outstanding.
    then_skip: u64,
}

/// What the bytes shown begin with.
pub(super) enum Step {
    /// So many bytes that belong to no item. Take them off, ask again.
    Drop(usize),
    Item(Item),
}

/// An item and where it lies at the front of the bytes shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(super) kind: ItemKind,
    pub(super) content: usize,
    /// Content, terminator and, in `TooLong`, what was skipped so far.
    pub(super) consumed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Line,
    /// Counted bytes, all of them.
    Block,
    TooLong {
        max_length: usize,
    },
    Unterminated,
    BareTerminator,
    Incomplete {
        expected: usize,
    },
    Piece {
        is_last: bool,
    },
}

impl Walk {
    pub(super) fn new(
        delimiter: Delimiter,
        max_length: usize,
        unterminated: Unterminated,
        max_block_length: usize,
    ) -> Self {
        Self {
            scanner: Scanner::new(delimiter, max_length, unterminated),
            counted: Counted::default(),
            max_block_length,
            counters: CodecCounters::default(),
            within_line: false,
        }
    }

    /// The next step over whole lines. `None`: more bytes are needed, or, where `eof` says that none will come, the
    /// stream is at its end and the walk at the start of another.
    #[inline]
    pub(super) fn step(&mut self, bytes: &[u8], eof: bool) -> Option<Step> {
        if self.is_ahead() {
            if let Some(step) = self.step_ahead(bytes, eof) {
                return step;
            }
        }
        let verdict = self.scan(bytes, eof)?;
        Some(Step::Item(self.line(verdict)))
    }

    /// The next item at the front of `buffer`, which is left as it is but for bytes that belong to no item.
    #[inline]
    pub(crate) fn next_item(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Item> {
        loop {
            match self.step(buffer, eof) {
                Some(Step::Item(item)) => return Some(item),
                Some(Step::Drop(count)) => buffer.advance(count),
                None => return None,
            }
        }
    }

    /// Tells `each` line at the front of `bytes` that has its terminator, and whether it is too long, until that gives false; gives
    /// how many bytes they take. What is behind them is for [`step`](Self::step). None where they are not found in this way.
    #[inline]
    pub(super) fn take_lines(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(usize, usize, bool) -> bool,
    ) -> usize {
        if self.is_ahead() {
            return 0;
        }
        let max_length = self.scanner.max_length();
        let (mut lines, mut content, mut too_long, mut skipped) = (0, 0, 0, 0);
        let taken = self.scanner.scan_lines(bytes, |start, end, next| {
            if end - start > max_length {
                too_long += 1;
                content += max_length;
                skipped += next - start - max_length;
                return each(start, start + max_length, true);
            }
            lines += 1;
            content += end - start;
            each(start, end, false)
        });
        self.counters.lines += lines;
        self.counters.too_long += too_long;
        self.counters.content_bytes += content as u64;
        self.counters.skipped_bytes += skipped as u64;
        self.counters.terminator_bytes += (taken - content - skipped) as u64;
        taken
    }

    /// Tells `each` item at the front of `bytes`, where its content begins and ends, until that gives false; gives how many bytes
    /// they take. The item with which there have been more than `most_bad` bad ones is the last.
    #[inline]
    pub(super) fn take_items(
        &mut self,
        bytes: &[u8],
        eof: bool,
        most_bad: u64,
        mut each: impl FnMut(usize, usize, ItemKind) -> bool,
    ) -> usize {
        let max_length = self.max_length();
        let mut bad = self.counters.bad_items();
        let (mut end, mut goes_on) = (0, true);
        // Behind the last byte there may still be an item, but not behind one that was taken here.
        let is_over = |end| end == bytes.len() && !bytes.is_empty();
        while goes_on && !is_over(end) {
            end += self.take_lines(&bytes[end..], |start, stop, is_too_long| {
                let kind = if is_too_long { ItemKind::TooLong { max_length } } else { ItemKind::Line };
                bad += u64::from(is_too_long);
                goes_on = each(end + start, end + stop, kind) && !(is_too_long && bad > most_bad);
                goes_on
            });
            if !goes_on || is_over(end) {
                break;
            }
            match self.step(&bytes[end..], eof) {
                Some(Step::Item(item)) => {
                    bad = self.counters.bad_items();
                    goes_on =
                        each(end, end + item.content, item.kind) && !(item.kind.is_bad() && bad > most_bad);
                    end += item.consumed;
                }
                Some(Step::Drop(count)) => end += count,
                None => break,
            }
        }
        end
    }

    /// Shows `each` item at the front of `bytes`, until that gives false; gives how many there were, and how many bytes they take.
    #[cfg(feature = "server")]
    pub(crate) fn show_items(
        &mut self,
        bytes: &[u8],
        eof: bool,
        most_bad: u64,
        mut each: impl FnMut(Result<&[u8], LineError>) -> bool,
    ) -> (usize, usize) {
        let mut shown = 0;
        let taken = self.take_items(bytes, eof, most_bad, |start, end, kind| {
            shown += 1;
            let content = &bytes[start..end];
            each(match kind.is_bad() {
                false => Ok(content),
                true => kind.with(Bytes::copy_from_slice(content)).map(|_| content),
            })
        });
        (shown, taken)
    }

    /// The same over pieces of at most `limit` bytes of lines of any length.
    pub(super) fn step_piece(&mut self, bytes: &[u8], eof: bool, limit: usize) -> Option<Step> {
        if self.is_ahead() {
            if let Some(step) = self.step_ahead(bytes, eof) {
                return step;
            }
        }
        let verdict = match eof {
            false => self.scanner.scan_piece(bytes, limit),
            true => self.scanner.scan_piece_eof(bytes, limit),
        };
        let Some(verdict) = verdict else {
            if eof && core::mem::take(&mut self.within_line) {
                self.counters.unterminated += 1;
            }
            return None;
        };
        let is_last = verdict.terminator.is_some();
        self.within_line = !is_last;
        self.counters.lines += u64::from(is_last);
        Some(Step::Item(self.taken(ItemKind::Piece { is_last }, verdict.content.end, verdict.consumed)))
    }

    pub(crate) fn expect_bytes(&mut self, count: usize) -> Result<(), TooManyBytes> {
        if self.counted.block.is_some() {
            return Err(TooManyBytes { asked: count, max: 0 });
        }
        if count > self.max_block_length {
            return Err(TooManyBytes { asked: count, max: self.max_block_length });
        }
        self.counted.block = Some(count);
        Ok(())
    }

    pub(crate) fn skip_bytes(&mut self, count: u64) {
        let Counted { skip, block, then_skip } = &mut self.counted;
        let skip = if block.is_some() { then_skip } else { skip };
        *skip = skip.saturating_add(count);
    }

    /// A good line or block turned out not to be UTF-8.
    #[cfg(feature = "text")]
    pub(super) fn count_not_utf8(&mut self, kind: ItemKind) {
        match kind {
            ItemKind::Block => self.counters.blocks -= 1,
            _ => self.counters.lines -= 1,
        }
        self.counters.not_utf8 += 1;
    }

    /// Whether bytes that belong to no item come before the next one.
    #[cfg(feature = "net")]
    pub(crate) fn is_skipping(&self) -> bool {
        self.scanner.is_skipping() | (self.counted.skip > 0)
    }

    /// Whether those are the rest of a line.
    #[cfg(feature = "net")]
    pub(crate) fn is_within_long_line(&self) -> bool {
        self.scanner.is_skipping()
    }

    /// How many of `bytes` are of those. `None`: none, or none that is there.
    #[cfg(feature = "net")]
    pub(crate) fn skip_ahead(&mut self, bytes: &[u8], eof: bool) -> Option<usize> {
        if bytes.is_empty() || !self.is_skipping() {
            return None;
        }
        match self.step_ahead(bytes, eof) {
            Some(Some(Step::Drop(count))) => Some(count),
            _ => None,
        }
    }

    /// The caller hands over `count` bytes that are no lines.
    #[cfg(feature = "net")]
    pub(crate) fn take_raw(&mut self, count: usize) {
        self.scanner.take(count);
        self.counters.content_bytes += count as u64;
    }

    /// As if this item, of `content` bytes with `behind` behind them, had not been taken; `read_again` ends it.
    #[cfg(feature = "net")]
    pub(super) fn untake(&mut self, kind: ItemKind, content: usize, behind: usize) {
        let counters = &mut self.counters;
        let (counter, behind_counter) = match kind {
            ItemKind::TooLong { .. } => (&mut counters.too_long, &mut counters.skipped_bytes),
            ItemKind::Unterminated => (&mut counters.unterminated, &mut counters.terminator_bytes),
            ItemKind::BareTerminator => (&mut counters.bare_terminator, &mut counters.terminator_bytes),
            ItemKind::Incomplete { .. } => (&mut counters.incomplete, &mut counters.terminator_bytes),
            ItemKind::Block => (&mut counters.blocks, &mut counters.terminator_bytes),
            ItemKind::Line | ItemKind::Piece { .. } => (&mut counters.lines, &mut counters.terminator_bytes),
        };
        *counter -= 1;
        *behind_counter -= behind as u64;
        counters.content_bytes -= content as u64;
    }

    /// `count` bytes, from a line's start on, are there to be read again.
    #[cfg(feature = "net")]
    pub(super) fn read_again(&mut self, count: usize) {
        self.scanner.put_back(count);
    }

    #[cfg(feature = "net")]
    pub(crate) fn max_block_length(&self) -> usize {
        self.max_block_length
    }

    /// To the start of a stream, with the same configuration and nothing counted.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        self.counted = Counted::default();
        self.counters = CodecCounters::default();
        self.within_line = false;
    }

    pub(crate) fn set_max_length(&mut self, max_length: usize) {
        self.scanner.set_max_length(max_length);
    }

    pub(crate) fn max_length(&self) -> usize {
        self.scanner.max_length()
    }

    pub(super) fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    pub(crate) fn counters(&self) -> CodecCounters {
        self.counters
    }

    #[inline]
    fn scan(&mut self, bytes: &[u8], eof: bool) -> Option<Verdict> {
        if eof { self.scanner.scan_eof(bytes) } else { self.scanner.scan(bytes) }
    }

    /// Whether something stands between here and the next line.
    #[inline]
    fn is_ahead(&self) -> bool {
        self.scanner.is_skipping() | (self.counted.skip > 0) | self.counted.block.is_some()
    }

    /// What stands there, in its order: the rest of a `TooLong` line, bytes to be dropped, a block. `None`: nothing any
    /// more. `Some(None)`: more bytes are needed.
    #[cold]
    fn step_ahead(&mut self, bytes: &[u8], eof: bool) -> Option<Option<Step>> {
        if self.counted.block == Some(0) {
            return Some(Some(self.block(0)));
        }
        if self.scanner.is_skipping() {
            match self.scan(bytes, eof) {
                Some(rest) => return Some(Some(self.dropped(rest.consumed))),
                None if eof => {}
                None => return Some(None),
            }
        }
        if self.counted.skip > 0 {
            if !bytes.is_empty() {
                let count =
                    usize::try_from(self.counted.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.counted.skip -= count as u64;
                self.scanner.take(count);
                return Some(Some(self.dropped(count)));
            }
            if !eof {
                return Some(None);
            }
            self.counted.skip = 0;
        }
        let expected = self.counted.block?;
        if bytes.len() >= expected {
            return Some(Some(self.block(expected)));
        }
        if !eof {
            return Some(None);
        }
        self.end_block(bytes.len());
        self.counters.incomplete += 1;
        Some(Some(Step::Item(self.taken(ItemKind::Incomplete { expected }, bytes.len(), bytes.len()))))
    }

    fn dropped(&mut self, count: usize) -> Step {
        self.counters.skipped_bytes += count as u64;
        Step::Drop(count)
    }

    fn block(&mut self, length: usize) -> Step {
        self.end_block(length);
        self.counters.blocks += 1;
        Step::Item(self.taken(ItemKind::Block, length, length))
    }

    fn end_block(&mut self, taken: usize) {
        // A block of 0 bytes may come while a line is still being skipped.
        if taken > 0 {
            self.scanner.take(taken);
        }
        let Counted { skip, block, then_skip } = &mut self.counted;
        *block = None;
        *skip = skip.saturating_add(core::mem::take(then_skip));
    }

    #[inline]
    fn line(&mut self, verdict: Verdict) -> Item {
        let (kind, counter) = match verdict.kind {
            Kind::TooLong => {
                (ItemKind::TooLong { max_length: self.scanner.max_length() }, &mut self.counters.too_long)
            }
            Kind::BareTerminator => (ItemKind::BareTerminator, &mut self.counters.bare_terminator),
            Kind::Unterminated => (ItemKind::Unterminated, &mut self.counters.unterminated),
            Kind::Line | Kind::Piece => (ItemKind::Line, &mut self.counters.lines),
        };
        *counter += 1;
        self.taken(kind, verdict.content.end, verdict.consumed)
    }

    #[inline]
    fn taken(&mut self, kind: ItemKind, content: usize, consumed: usize) -> Item {
        self.counters.content_bytes += content as u64;
        let behind = match kind {
            ItemKind::TooLong { .. } => &mut self.counters.skipped_bytes,
            _ => &mut self.counters.terminator_bytes,
        };
        *behind += (consumed - content) as u64;
        Item { kind, content, consumed }
    }
}

impl Item {
    /// Takes the item off the front of `buffer`, without a copy.
    #[inline(always)]
    pub(crate) fn cut(self, buffer: &mut BytesMut) -> Result<Bytes, LineError> {
        match self.kind {
            ItemKind::Line => Ok(self.cut_bytes(buffer)),
            bad => bad.with(self.cut_bytes(buffer)),
        }
    }

    #[inline(always)]
    pub(super) fn cut_bytes(self, buffer: &mut BytesMut) -> Bytes {
        if self.content == 0 {
            // An empty slice would keep the whole buffer alive.
            buffer.advance(self.consumed);
            return Bytes::new();
        }
        let mut bytes = buffer.split_to(self.consumed);
        bytes.truncate(self.content);
        bytes.freeze()
    }
}

impl ItemKind {
    #[inline]
    pub(super) fn is_bad(self) -> bool {
        !matches!(self, Self::Line | Self::Block | Self::Piece { .. })
    }

    /// The item with its content in it.
    #[inline]
    pub(super) fn with(self, bytes: Bytes) -> Result<Bytes, LineError> {
        Err(match self {
            Self::Line | Self::Block | Self::Piece { .. } => return Ok(bytes),
            Self::TooLong { max_length } => LineError::TooLong { prefix: bytes, max_length },
            Self::Unterminated => LineError::Unterminated { line: bytes },
            Self::BareTerminator => LineError::BareTerminator { line: bytes },
            Self::Incomplete { expected } => LineError::Incomplete { bytes, expected },
        })
    }
}
