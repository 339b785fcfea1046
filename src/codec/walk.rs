use std::boxed::Box;

use bytes::{Buf, BytesMut};

use super::CodecCounters;
use super::builder::MAX_BLOCK_LENGTH;
use super::item::{Item, ItemKind, Items};
use crate::error::TooManyBytes;
use crate::scan::{Delimiter, Kind, Scanner, Unterminated, Verdict};

/// The one walk over a stream that all codecs take: lines, counted blocks and skipped bytes in their order, each byte
/// counted once.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    scanner: Scanner,
    lines: u64,
    content_bytes: u64,
    terminator_bytes: u64,
    rare: Option<Box<Rare>>,
}

/// What most streams never need is not there until it is needed: a connection that waits is to be small.
#[derive(Clone, Debug)]
struct Rare {
    /// Behind the last item's line, so many bytes to be dropped, then a block, then `then_skip` more to be dropped, then lines
    /// again.
    skip: u64,
    block: Option<usize>,
    /// Always 0 while no block is outstanding.
    then_skip: u64,
    max_block_length: usize,
    /// [`Walk::step_piece`] is within a line.
    within_line: bool,
    /// What is not counted in [`Walk`].
    counters: CodecCounters,
}

impl Default for Rare {
    fn default() -> Self {
        Self {
            skip: 0,
            block: None,
            then_skip: 0,
            max_block_length: MAX_BLOCK_LENGTH,
            within_line: false,
            counters: CodecCounters::default(),
        }
    }
}

/// Bytes of which many items are taken at a time.
#[derive(Clone, Copy)]
pub(crate) struct Window<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) eof: bool,
    /// The item with which there have been more bad ones than this is the last.
    pub(crate) most_bad: u64,
}

/// What the bytes shown begin with.
pub(super) enum Step {
    /// So many bytes that belong to no item. Take them off, ask again.
    Drop(usize),
    Item(Item),
}

impl Walk {
    pub(super) fn new(
        delimiter: Delimiter,
        max_length: usize,
        unterminated: Unterminated,
        max_block_length: usize,
    ) -> Self {
        let rare = (max_block_length != MAX_BLOCK_LENGTH)
            .then(|| Box::new(Rare { max_block_length, ..Rare::default() }));
        Self {
            scanner: Scanner::new(delimiter, max_length, unterminated),
            lines: 0,
            content_bytes: 0,
            terminator_bytes: 0,
            rare,
        }
    }

    #[cold]
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Those that [`Walk`] itself does not count.
    #[cold]
    fn others(&mut self) -> &mut CodecCounters {
        &mut self.rare().counters
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
        match self.whole_line(buffer) {
            None => self.next_item_of_any_kind(buffer, eof),
            item => item,
        }
    }

    #[inline(never)]
    fn next_item_of_any_kind(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Item> {
        loop {
            match self.step(buffer, eof) {
                Some(Step::Item(item)) => return Some(item),
                Some(Step::Drop(count)) => buffer.advance(count),
                None => return None,
            }
        }
    }

    /// What [`step`](Self::step) makes of a good line at the front of `bytes` that has its terminator, for less. None: that has to be
    /// asked, which searches again only what is a byte too long.
    #[inline]
    pub(crate) fn whole_line(&mut self, bytes: &[u8]) -> Option<Item> {
        if self.is_ahead() {
            return None;
        }
        let (content, consumed) = self.scanner.scan_line(bytes)?;
        self.lines += 1;
        self.content_bytes += content as u64;
        self.terminator_bytes += (consumed - content) as u64;
        Some(Item { kind: ItemKind::Line, content, consumed })
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
        // Of a terminator's bytes those before its last.
        let (mut lines, mut before_last, mut too_long, mut skipped) = (0, 0, 0, 0);
        let taken = self.scanner.scan_lines(bytes, |start, end, next| {
            if end - start > max_length {
                too_long += 1;
                skipped += next - start - max_length;
                return each(start, start + max_length, true);
            }
            lines += 1;
            if next - end > 1 {
                before_last += next - end - 1;
            }
            each(start, end, false)
        });
        let terminators = lines + before_last;
        self.lines += lines as u64;
        self.terminator_bytes += terminators as u64;
        self.content_bytes += (taken - terminators - skipped) as u64;
        if too_long > 0 {
            let others = self.others();
            others.too_long += too_long;
            others.skipped_bytes += skipped as u64;
        }
        taken
    }

    /// Takes good lines that [show at once](Scanner::scan_together): how many, and how many bytes.
    #[inline]
    fn take_together(&mut self, bytes: &[u8], longest: usize) -> (usize, usize) {
        if longest == 0 || self.is_ahead() {
            return (0, 0);
        }
        let (lines, taken) = self.scanner.scan_together(bytes, longest);
        self.lines += lines as u64;
        self.terminator_bytes += lines as u64;
        self.content_bytes += (taken - lines) as u64;
        (lines, taken)
    }

    /// Tells of each item at the front of the window; gives how many bytes they take.
    #[inline]
    pub(crate) fn take_items(
        &mut self,
        Window { bytes, eof, most_bad }: Window<'_>,
        mut items: impl Items,
    ) -> usize {
        let max_length = self.max_length();
        let mut bad = self.bad_items();
        let (mut end, mut goes_on) = (0, true);
        // Behind the last byte there may still be an item, but not behind one that was taken here.
        let is_over = |end| end == bytes.len() && !bytes.is_empty();
        while goes_on && !is_over(end) {
            let (count, taken) = self.take_together(&bytes[end..], items.most_together());
            if count > 0 {
                items.lines(end, end + taken, count);
                end += taken;
                continue;
            }
            end += self.take_lines(&bytes[end..], |start, stop, is_too_long| {
                goes_on = match is_too_long {
                    false => items.line(end + start, end + stop),
                    true => {
                        bad += 1;
                        items.item(end + start, end + stop, ItemKind::TooLong { max_length })
                            && bad <= most_bad
                    }
                };
                goes_on
            });
            if !goes_on || is_over(end) {
                break;
            }
            match self.step(&bytes[end..], eof) {
                Some(Step::Item(item)) => {
                    bad = self.bad_items();
                    goes_on = items.item(end, end + item.content, item.kind)
                        && !(item.kind.is_bad() && bad > most_bad);
                    end += item.consumed;
                }
                Some(Step::Drop(count)) => end += count,
                None => break,
            }
        }
        end
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
            if eof && self.rare.as_mut().is_some_and(|rare| core::mem::take(&mut rare.within_line)) {
                self.others().unterminated += 1;
            }
            return None;
        };
        let is_last = verdict.terminator.is_some();
        match &mut self.rare {
            Some(rare) => rare.within_line = !is_last,
            None if is_last => {}
            None => self.rare().within_line = true,
        }
        self.lines += u64::from(is_last);
        Some(Step::Item(self.taken(ItemKind::Piece { is_last }, verdict.content.end, verdict.consumed)))
    }

    pub(crate) fn expect_bytes(&mut self, count: usize) -> Result<(), TooManyBytes> {
        let max = self.max_block_length();
        if self.rare.as_ref().is_some_and(|rare| rare.block.is_some()) {
            return Err(TooManyBytes { asked: count, max: 0 });
        }
        if count > max {
            return Err(TooManyBytes { asked: count, max });
        }
        self.rare().block = Some(count);
        Ok(())
    }

    pub(crate) fn skip_bytes(&mut self, count: u64) {
        let Rare { skip, block, then_skip, .. } = self.rare();
        let skip = if block.is_some() { then_skip } else { skip };
        *skip = skip.saturating_add(count);
    }

    /// A good line or block turned out not to be UTF-8.
    #[cfg(feature = "text")]
    pub(super) fn count_not_utf8(&mut self, kind: ItemKind) {
        match kind {
            ItemKind::Block => self.others().blocks -= 1,
            _ => self.lines -= 1,
        }
        self.others().not_utf8 += 1;
    }

    /// Whether bytes that belong to no item come before the next one.
    #[cfg(feature = "net")]
    pub(crate) fn is_skipping(&self) -> bool {
        self.scanner.is_skipping() || self.rare.as_ref().is_some_and(|rare| rare.skip > 0)
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
        self.content_bytes += count as u64;
    }

    /// As if this item, of `content` bytes with `behind` behind them, had not been taken; `read_again` ends it.
    #[cfg(feature = "net")]
    pub(super) fn untake(&mut self, kind: ItemKind, content: usize, behind: usize) {
        self.content_bytes -= content as u64;
        match kind {
            ItemKind::TooLong { .. } => self.others().skipped_bytes -= behind as u64,
            _ => self.terminator_bytes -= behind as u64,
        }
        *self.count_of(kind) -= 1;
    }

    /// `count` bytes, from a line's start on, are there to be read again.
    #[cfg(feature = "net")]
    pub(super) fn read_again(&mut self, count: usize) {
        self.scanner.put_back(count);
    }

    pub(crate) fn max_block_length(&self) -> usize {
        self.rare.as_ref().map_or(MAX_BLOCK_LENGTH, |rare| rare.max_block_length)
    }

    /// To the start of a stream, with the same configuration and nothing counted.
    pub(super) fn reset(&mut self) {
        self.scanner.reset();
        (self.lines, self.content_bytes, self.terminator_bytes) = (0, 0, 0);
        if let Some(rare) = &mut self.rare {
            **rare = Rare { max_block_length: rare.max_block_length, ..Rare::default() };
        }
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
        let Self { lines, content_bytes, terminator_bytes, .. } = *self;
        let others = self.rare.as_ref().map(|rare| rare.counters).unwrap_or_default();
        CodecCounters { lines, content_bytes, terminator_bytes, ..others }
    }

    #[inline]
    pub(crate) fn bad_items(&self) -> u64 {
        self.rare.as_ref().map_or(0, |rare| rare.counters.bad_items())
    }

    #[inline]
    fn scan(&mut self, bytes: &[u8], eof: bool) -> Option<Verdict> {
        if eof { self.scanner.scan_eof(bytes) } else { self.scanner.scan(bytes) }
    }

    /// Whether something stands between here and the next line.
    #[inline]
    pub(crate) fn is_ahead(&self) -> bool {
        let is_ahead = |rare: &Rare| (rare.skip > 0) | rare.block.is_some();
        self.scanner.is_skipping() || self.rare.as_deref().is_some_and(is_ahead)
    }

    /// What stands there, in its order: the rest of a `TooLong` line, bytes to be dropped, a block. `None`: nothing any
    /// more. `Some(None)`: more bytes are needed.
    #[cold]
    fn step_ahead(&mut self, bytes: &[u8], eof: bool) -> Option<Option<Step>> {
        if self.rare().block == Some(0) {
            return Some(Some(self.block(0)));
        }
        if self.scanner.is_skipping() {
            match self.scan(bytes, eof) {
                Some(rest) => return Some(Some(self.dropped(rest.consumed))),
                None if eof => {}
                None => return Some(None),
            }
        }
        let rare = self.rare();
        if rare.skip > 0 {
            if !bytes.is_empty() {
                let count = usize::try_from(rare.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                rare.skip -= count as u64;
                self.scanner.take(count);
                return Some(Some(self.dropped(count)));
            }
            if !eof {
                return Some(None);
            }
            rare.skip = 0;
        }
        let expected = rare.block?;
        if bytes.len() >= expected {
            return Some(Some(self.block(expected)));
        }
        if !eof {
            return Some(None);
        }
        self.end_block(bytes.len());
        self.others().incomplete += 1;
        Some(Some(Step::Item(self.taken(ItemKind::Incomplete { expected }, bytes.len(), bytes.len()))))
    }

    fn dropped(&mut self, count: usize) -> Step {
        self.others().skipped_bytes += count as u64;
        Step::Drop(count)
    }

    fn block(&mut self, length: usize) -> Step {
        self.end_block(length);
        self.others().blocks += 1;
        Step::Item(self.taken(ItemKind::Block, length, length))
    }

    fn end_block(&mut self, taken: usize) {
        // A block of 0 bytes may come while a line is still being skipped.
        if taken > 0 {
            self.scanner.take(taken);
        }
        let Rare { skip, block, then_skip, .. } = self.rare();
        *block = None;
        *skip = skip.saturating_add(core::mem::take(then_skip));
    }

    #[inline]
    fn line(&mut self, verdict: Verdict) -> Item {
        let kind = match verdict.kind {
            Kind::TooLong => ItemKind::TooLong { max_length: self.scanner.max_length() },
            Kind::BareTerminator => ItemKind::BareTerminator,
            Kind::Unterminated => ItemKind::Unterminated,
            Kind::Line | Kind::Piece => ItemKind::Line,
        };
        *self.count_of(kind) += 1;
        self.taken(kind, verdict.content.end, verdict.consumed)
    }

    #[inline]
    fn taken(&mut self, kind: ItemKind, content: usize, consumed: usize) -> Item {
        self.content_bytes += content as u64;
        let behind = (consumed - content) as u64;
        match kind {
            ItemKind::TooLong { .. } => self.others().skipped_bytes += behind,
            _ => self.terminator_bytes += behind,
        }
        Item { kind, content, consumed }
    }

    /// How many items there were of that kind.
    #[inline]
    fn count_of(&mut self, kind: ItemKind) -> &mut u64 {
        match kind {
            ItemKind::Line | ItemKind::Piece { .. } => &mut self.lines,
            ItemKind::Block => &mut self.others().blocks,
            ItemKind::TooLong { .. } => &mut self.others().too_long,
            ItemKind::Unterminated => &mut self.others().unterminated,
            ItemKind::BareTerminator => &mut self.others().bare_terminator,
            ItemKind::Incomplete { .. } => &mut self.others().incomplete,
        }
    }
}
