use core::mem::take;
use core::ops::Range;

use super::{LineDecoder, Step};
use crate::codec::item::Item;
use crate::scan::{Kind, Lines};

/// The items at the front of a slice, returned by [`LineDecoder::items`].
///
/// The caller may stop after any item. When this iterator is dropped, the decoder continues after
/// the last item returned.
pub(crate) struct Items<'a> {
    decoder: &'a mut LineDecoder,
    bytes: &'a [u8],
    eof: bool,
    max_length: usize,
    /// The end of the last item, unless `lines` returned that item.
    end: usize,
    /// The current search for lines. Its lines are counted together when it ends.
    lines: Option<Lines<'a>>,
    /// The number of good lines that `lines` has returned.
    good: usize,
    /// The number of content bytes that `lines` has returned.
    content: usize,
}

impl<'a> Items<'a> {
    /// Returns an iterator over the items in `bytes` from `start` on.
    #[inline]
    pub(super) fn new(decoder: &'a mut LineDecoder, bytes: &'a [u8], start: usize, eof: bool) -> Self {
        let (lines, max_length) = (decoder.lines(bytes, start), decoder.max_length());
        Self { decoder, bytes, eof, max_length, end: start, lines, good: 0, content: 0 }
    }

    /// Returns the slice that was passed to [`LineDecoder::items`].
    #[cfg(feature = "net")]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the next item, or `None` if more bytes are needed or the stream has ended.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(line) = self.next_line() {
                return Some(line);
            }
            match self.step()? {
                None => {}
                item => return item,
            }
        }
    }

    /// Returns the number of bytes before the end of the last item returned.
    #[inline]
    pub(crate) fn consumed(&self) -> usize {
        self.lines.as_ref().map_or(self.end, Lines::end)
    }

    /// Returns the number of bad items that the decoder has returned so far, over all its streams.
    #[inline]
    pub(crate) fn bad_items(&self) -> u64 {
        self.decoder.bad_items()
    }

    /// Returns the next line from `lines`.
    #[inline(always)]
    fn next_line(&mut self) -> Option<Item> {
        let lines = self.lines.as_mut()?;
        let Range { start, end: content_end } = lines.next()?;
        let end = lines.end();
        if content_end - start > self.max_length {
            let content_end = start + self.max_length;
            self.content += self.max_length;
            let others = self.decoder.tally.others();
            others.too_long += 1;
            others.skipped_bytes += (end - content_end) as u64;
            return Some(Item { kind: Kind::TooLong, start, content_end, end, expected: 0 });
        }
        self.good += 1;
        self.content += content_end - start;
        Some(Item { kind: Kind::Line, start, content_end, end, expected: 0 })
    }

    /// Decodes one item without `lines`, then starts a new search for lines. Returns `Some(None)`
    /// if bytes were skipped and there may be an item after them.
    #[inline(never)]
    fn step(&mut self) -> Option<Option<Item>> {
        self.end_pass();
        if self.end == self.bytes.len() && self.end > 0 {
            return None;
        }
        let start = self.end;
        let item = match self.decoder.step(&self.bytes[start..], self.eof, false) {
            Step::Nothing => return None,
            Step::Skip(count) => {
                self.end += count;
                None
            }
            Step::Item(item) => {
                self.end += item.end;
                Some(Item { start, content_end: start + item.content_end, end: self.end, ..item })
            }
        };
        self.lines = self.decoder.lines(self.bytes, self.end);
        Some(item)
    }

    #[inline]
    fn end_pass(&mut self) {
        if let Some(lines) = self.lines.take() {
            self.end = lines.end();
            let (good, content) = (take(&mut self.good), take(&mut self.content));
            self.decoder.tally.add_lines(good, content, lines.taken());
            self.decoder.scanner.end_lines(&lines);
        }
    }
}

impl Drop for Items<'_> {
    #[inline]
    fn drop(&mut self) {
        self.end_pass();
    }
}
