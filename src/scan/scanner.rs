use alloc::sync::Arc;
use core::ops::Range;

#[cfg(feature = "codec")]
use memchr::memchr;

use super::delimiter::{Delimiter, Search, Terminator};
#[cfg(feature = "codec")]
use super::{delimiter::LastByte, search::Positions};

/// Finds lines in a caller-owned buffer; resumable and length-limited.
///
/// Each call shows all bytes after the last verdict's `consumed`: those already scanned and those that
/// have arrived since. While the answer is `None`, bring more.
///
/// ```
/// use lineframe::scan::{Delimiter, Scanner, Unterminated};
///
/// let mut scanner = Scanner::new(Delimiter::Newline, 65_536, Unterminated::Report);
/// assert!(scanner.scan(b"hel").is_none());
/// assert!(scanner.scan(b"hello\r").is_none()); // searches the last three bytes only
/// let verdict = scanner.scan(b"hello\r\nwor").unwrap();
/// assert_eq!((verdict.content, verdict.consumed), (0..5, 7));
/// assert!(scanner.scan(b"wor").is_none()); // the same buffer, 7 bytes taken off its front
/// assert_eq!(scanner.offset(), 7);
/// ```
#[derive(Clone, Debug)]
pub struct Scanner {
    config: Arc<Config>,
    state: State,
    /// Bytes already scanned without a verdict. If the next call shows more, the search continues; if it
    /// shows fewer, it is another buffer, and the search starts again.
    scanned: usize,
    /// How many of the last scanned bytes may be part of a terminator, and are searched again. Less than
    /// the longest terminator.
    unsettled: u8,
    /// The stream offset of the next byte.
    offset: u64,
    /// What each search looked at.
    #[cfg(test)]
    pub(super) searches: alloc::vec::Vec<Range<usize>>,
}

/// Shared by clones of a scanner until one of them changes it.
#[derive(Clone, Debug)]
struct Config {
    delimiter: Delimiter,
    /// `usize::MAX`: no limit.
    max_length: usize,
    unterminated: Unterminated,
}

/// ```text
///             terminator: Line, BareTerminator,
///             TooLong; EOF: Unterminated, ..
///              ┌────┐
///              │    ▼
///            ┌─┴─────┐  over the limit, no terminator yet: TooLong  ┌──────────┐
///   start ──▶│ Line  ├─────────────────────────────────────────────▶│ Skipping ├──┐ Piece, no
///            └───────┘◀─────────────────────────────────────────────┴──────────┘◀─┘ terminator yet
///                          terminator: Piece; EOF: Piece, or nothing
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At a line's start or within it; `bare`: a lone CR or LF is among the bytes searched (`CrLf` only).
    Line { bare: bool },
    /// After the reported part of a line over the limit.
    Skipping,
}

/// What becomes of bytes after the last terminator when the stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unterminated {
    /// They are reported as cut, not as a line. The default: a command whose terminator never came must
    /// not run.
    #[default]
    Report,
    /// They are a line like any other, as in files and pipes without a final line end.
    Deliver,
}

/// What the bytes shown to a [`Scanner`] begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// The content among the bytes shown: without terminator, in `TooLong` the first `max_length` bytes.
    /// Starts at 0.
    pub content: Range<usize>,
    /// The terminator, if it has arrived.
    pub terminator: Option<Terminator>,
    /// The number of bytes to remove from the front before the next call: content, terminator, and in
    /// `TooLong` what was skipped so far. At least 1.
    pub consumed: usize,
    /// The stream offset of the content: the number of bytes before it.
    pub offset: u64,
}

/// What a [`Verdict`], or an item of a codec, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A whole line within the limit.
    Line,
    /// Part of a line that is not held whole: the rest of a `TooLong` line, to be skipped, or whatever
    /// [`Scanner::scan_piece`] returns. The last one of a line is the one with a terminator.
    Piece,
    /// A counted block. Only codecs return it: `LineCodec::expect_bytes`.
    Block,
    /// A line whose content is over the limit. Reported once per line: with its terminator or, if that has
    /// not arrived, as soon as `max_length` and the terminator's length are exceeded by one byte. Its rest
    /// follows as [`Piece`](Self::Piece)s.
    TooLong,
    /// A line with a lone CR or LF in it, in [`Delimiter::CrLf`].
    BareTerminator,
    /// The bytes after the last terminator at the end of the stream, under [`Unterminated::Report`].
    Unterminated,
    /// A counted block cut by the end of the stream. Only codecs return it.
    Incomplete,
}

#[cfg(feature = "codec")]
impl Kind {
    #[inline]
    pub(crate) fn is_bad(self) -> bool {
        !matches!(self, Self::Line | Self::Piece | Self::Block)
    }
}

impl Scanner {
    /// Returns a scanner at the start of a stream.
    ///
    /// `max_length` counts content, never the terminator. `None`: no limit, except the caller's memory.
    pub fn new(
        delimiter: Delimiter,
        max_length: impl Into<Option<usize>>,
        unterminated: Unterminated,
    ) -> Self {
        let max_length = max_length.into().unwrap_or(usize::MAX);
        Self {
            config: Arc::new(Config { delimiter, max_length, unterminated }),
            state: State::Line { bare: false },
            scanned: 0,
            unsettled: 0,
            offset: 0,
            #[cfg(test)]
            searches: alloc::vec::Vec::new(),
        }
    }

    /// Judges the line at the front of `bytes`. Returns `None` if more bytes are needed.
    ///
    /// Finds a terminated line with its last byte. A buffer can hold many lines: repeat until `None`.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Option<Verdict> {
        let State::Line { bare } = self.state else { return self.scan_piece(bytes, usize::MAX) };
        let is_same = self.scanned <= bytes.len();
        let search = self.find(bytes);
        let bare = (bare & is_same) | search.bare;
        if let Some((content, length)) = search.found {
            let kind = match bare {
                _ if content > self.config.max_length => Kind::TooLong,
                true => Kind::BareTerminator,
                false => Kind::Line,
            };
            return Some(self.terminated(kind, bytes, content, length));
        }
        if bytes.len() < self.config.max_length.saturating_add(self.config.delimiter.max_terminator_length())
        {
            self.state = State::Line { bare };
            return None;
        }
        // The line is over the limit, whatever follows. Bytes that may belong to its terminator stay.
        self.state = State::Skipping;
        Some(self.verdict(Kind::TooLong, search.settled, None, search.settled))
    }

    /// Judges the line at the front of `bytes`, which are all that is left of the stream.
    ///
    /// Returns `None` if there are none. The scanner is then at the start of a new stream, so the next
    /// call returns `None` too.
    pub fn scan_eof(&mut self, bytes: &[u8]) -> Option<Verdict> {
        if let Some(verdict) = self.scan(bytes) {
            return Some(verdict);
        }
        let kind = match (self.state, self.config.unterminated) {
            _ if bytes.is_empty() => {
                self.reset();
                return None;
            }
            (State::Skipping, _) => Kind::Piece,
            _ if bytes.len() > self.config.max_length => Kind::TooLong,
            (_, Unterminated::Report) => Kind::Unterminated,
            (State::Line { bare }, _) if bare | self.config.delimiter.ends_bare(bytes) => {
                Kind::BareTerminator
            }
            _ => Kind::Line,
        };
        Some(self.verdict(kind, bytes.len(), None, bytes.len()))
    }

    /// Returns the next part of a line of any length, without waiting for the terminator: the bytes that
    /// are known to be content, at most `limit` of them (0 counts as 1).
    ///
    /// The piece with a terminator is the last one of its line, and may be empty. `None`: more bytes are
    /// needed. `max_length` does not apply.
    pub fn scan_piece(&mut self, bytes: &[u8], limit: usize) -> Option<Verdict> {
        let limit = limit.max(1);
        let longest = limit.saturating_add(self.config.delimiter.max_terminator_length() - 1);
        let window = &bytes[..bytes.len().min(longest)];
        let search = self.find(window);
        if let Some((content, length)) = search.found {
            return Some(self.terminated(Kind::Piece, bytes, content, length));
        }
        let settled = search.settled.min(limit);
        (settled > 0).then(|| self.verdict(Kind::Piece, settled, None, settled))
    }

    /// [`scan_piece`](Self::scan_piece) at the end of the stream. A cut line ends in pieces without a
    /// terminator.
    ///
    /// Returns `None` if no byte is left; the scanner is then at the start of a new stream.
    pub fn scan_piece_eof(&mut self, bytes: &[u8], limit: usize) -> Option<Verdict> {
        if let Some(verdict) = self.scan_piece(bytes, limit) {
            return Some(verdict);
        }
        if bytes.is_empty() {
            self.reset();
            return None;
        }
        let rest = bytes.len().min(limit.max(1));
        Some(self.verdict(Kind::Piece, rest, None, rest))
    }

    /// Judges a good line at the front of `bytes`, faster than [`scan`](Self::scan): returns the length of
    /// its content and the number of bytes it takes. `None`: call `scan`.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn scan_line(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        let Config { delimiter, max_length, .. } = &*self.config;
        let last_byte = delimiter.last_byte()?;
        if self.is_skipping() || self.scanned > 0 {
            return None;
        }
        // The terminator of a good line is not beyond this.
        let window =
            bytes.get(..max_length.saturating_add(delimiter.max_terminator_length())).unwrap_or(bytes);
        let found = memchr(last_byte.byte, window);
        #[cfg(test)]
        self.searches.push(0..found.map_or(window.len(), |at| at + 1));
        let Some(at) = found else {
            self.keep(window.len(), last_byte.content_end(window, 0, window.len()));
            return None;
        };
        let length = last_byte.content_end(bytes, 0, at);
        if length > *max_length {
            return None;
        }
        self.offset = self.offset.saturating_add(at as u64 + 1);
        Some((length, at + 1))
    }

    /// Finds all terminated lines in `bytes` from `start` on in one pass, faster than one
    /// [`scan`](Self::scan) each. Call [`end_lines`](Self::end_lines) afterwards.
    ///
    /// `None`: this delimiter has no such pass, or a line is under way. Call `scan`.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn lines<'a>(&self, bytes: &'a [u8], start: usize) -> Option<Lines<'a>> {
        let last_byte = self.config.delimiter.last_byte()?;
        let positions = Positions::new(last_byte.byte, bytes, start);
        let is_at_start = !self.is_skipping() && self.scanned == 0;
        is_at_start.then_some(Lines { positions, last_byte, start, end: start, is_exhausted: false })
    }

    /// Continues after the lines that `lines` has returned. If that was all of them, what follows is not
    /// searched again.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn end_lines(&mut self, lines: &Lines<'_>) {
        let unterminated = if lines.is_exhausted { &lines.positions.bytes[lines.end..] } else { &[] };
        #[cfg(test)]
        self.searches.push(0..lines.taken() + unterminated.len());
        self.take(lines.taken());
        let length = unterminated.len();
        self.keep(length, lines.last_byte.content_end(unterminated, 0, length));
    }

    /// Notes that the caller has removed `count` bytes from the front that are not lines, such as a
    /// counted block. The next byte begins a line.
    #[inline]
    pub fn take(&mut self, count: usize) {
        self.state = State::Line { bare: false };
        self.keep(0, 0);
        self.offset = self.offset.saturating_add(count as u64);
    }

    /// Returns to a line's start `count` bytes before.
    #[cfg(feature = "net")]
    pub(crate) fn rewind(&mut self, count: usize) {
        self.take(0);
        self.offset = self.offset.saturating_sub(count as u64);
    }

    /// Returns to the start of a stream, with the same configuration.
    pub fn reset(&mut self) {
        self.take(0);
        self.offset = 0;
    }

    /// Sets the limit for a line's content, in bytes. `None`: no limit. Applies to the line under way too,
    /// unless its verdict has been returned.
    pub fn set_max_length(&mut self, max_length: impl Into<Option<usize>>) {
        Arc::make_mut(&mut self.config).max_length = max_length.into().unwrap_or(usize::MAX);
    }

    /// Returns the limit for a line's content, in bytes. `None`: no limit.
    pub fn max_length(&self) -> Option<usize> {
        Some(self.config.max_length).filter(|max_length| *max_length < usize::MAX)
    }

    /// Returns the delimiter.
    pub fn delimiter(&self) -> &Delimiter {
        &self.config.delimiter
    }

    /// Returns the stream offset of the next byte: the number of bytes taken before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns whether the next bytes are the rest of a line that was reported as [`Kind::TooLong`].
    pub fn is_skipping(&self) -> bool {
        self.state == State::Skipping
    }

    /// Finds the first terminator in `bytes`, from where the last search stopped.
    #[inline]
    fn find(&mut self, bytes: &[u8]) -> Search {
        let settled = self.scanned.saturating_sub(self.unsettled.into());
        if self.scanned == bytes.len() {
            return Search { found: None, settled, bare: false };
        }
        let from = if self.scanned < bytes.len() { settled } else { 0 };
        let search = self.config.delimiter.find(bytes, from);
        #[cfg(test)]
        self.searches.push(from..search.found.map_or(bytes.len(), |(at, length)| at + length));
        if search.found.is_none() {
            self.keep(bytes.len(), search.settled);
        }
        search
    }

    /// Keeps the result of a search that found nothing in `scanned` bytes, of which `settled` are content,
    /// whatever follows.
    #[inline]
    fn keep(&mut self, scanned: usize, settled: usize) {
        self.scanned = scanned;
        // A terminator has at most 64 bytes.
        self.unsettled = (scanned - settled) as u8;
    }

    #[inline]
    fn terminated(&mut self, kind: Kind, bytes: &[u8], content: usize, length: usize) -> Verdict {
        let consumed = content + length;
        let terminator = self.config.delimiter.terminator(&bytes[content..consumed]);
        self.verdict(kind, content, Some(terminator), consumed)
    }

    /// Returns a verdict about `content` bytes at the front, of which a `TooLong` shows fewer.
    #[inline]
    fn verdict(
        &mut self,
        kind: Kind,
        content: usize,
        terminator: Option<Terminator>,
        consumed: usize,
    ) -> Verdict {
        let content = if kind == Kind::TooLong { self.config.max_length } else { content };
        let verdict = Verdict { kind, content: 0..content, terminator, consumed, offset: self.offset };
        let is_within_line = terminator.is_none() && (kind == Kind::Piece || self.is_skipping());
        if is_within_line {
            self.scanned = self.scanned.saturating_sub(consumed);
            self.offset = self.offset.saturating_add(consumed as u64);
        } else {
            self.take(consumed);
        }
        verdict
    }
}

/// The terminated lines in a slice, found in one pass: [`Scanner::lines`]. Does not look at the limit.
#[cfg(feature = "codec")]
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    positions: Positions<'a>,
    last_byte: LastByte,
    /// The first line's start.
    start: usize,
    /// The last line's end. At least `start`.
    end: usize,
    is_exhausted: bool,
}

#[cfg(feature = "codec")]
impl<'a> Lines<'a> {
    /// Returns the content of the next line.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        let Some(at) = self.positions.next() else {
            self.is_exhausted = true;
            return None;
        };
        let start = self.end;
        self.end = at + 1;
        Some(start..self.last_byte.content_end(self.positions.bytes, start, at))
    }

    /// Returns where the last line ends, after its terminator.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Returns the number of bytes in all lines returned, with their terminators.
    #[inline]
    pub(crate) fn taken(&self) -> usize {
        self.end - self.start
    }
}
