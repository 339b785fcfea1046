use alloc::sync::Arc;
use core::ops::Range;

#[cfg(feature = "codec")]
use memchr::memchr;

use super::delimiter::{Delimiter, Search, Terminator};
#[cfg(feature = "codec")]
use super::{delimiter::LastByte, search::Positions};

/// A search for lines in a caller-owned buffer; resumable and length-limited.
///
/// Pass all bytes after the last verdict's `consumed` to each call: bytes that were scanned before,
/// followed by bytes that have arrived since. If the scanner returns `None`, call it again with
/// more bytes.
///
/// ```
/// use lineframe::scan::{Delimiter, Scanner, Unterminated};
///
/// let mut scanner = Scanner::new(Delimiter::Newline, 65_536, Unterminated::Report);
/// assert!(scanner.scan(b"hel").is_none());
/// assert!(scanner.scan(b"hello\r").is_none()); // searches only the last three bytes
/// let verdict = scanner.scan(b"hello\r\nwor").unwrap();
/// assert_eq!((verdict.content, verdict.consumed), (0..5, 7));
/// assert!(scanner.scan(b"wor").is_none()); // the same buffer without the first 7 bytes
/// assert_eq!(scanner.offset(), 7);
/// ```
#[derive(Clone, Debug)]
pub struct Scanner {
    config: Arc<Config>,
    state: State,
    /// Bytes already scanned without a verdict. If the next slice is longer, the search continues
    /// there. If it is shorter, it is a different buffer, and the search restarts.
    scanned: usize,
    /// How many of the last scanned bytes may be part of a terminator, and must be searched again.
    /// Less than the longest terminator.
    unsettled: u8,
    /// The stream offset of the next byte.
    offset: u64,
    /// The range of each search, recorded for tests.
    #[cfg(test)]
    pub(super) searches: alloc::vec::Vec<Range<usize>>,
}

/// Shared by clones of a scanner until one of them changes it.
#[derive(Clone, Debug)]
struct Config {
    delimiter: Delimiter,
    /// `usize::MAX` means no limit.
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
    /// At the start of a line or within it. `bare` means that a lone CR or LF is among the bytes
    /// searched (`CrLf` only).
    Line { bare: bool },
    /// Within a line that was already reported as `TooLong`.
    Skipping,
}

/// The policy for bytes after the last terminator when the stream ends.
///
/// The default is [`Report`](Self::Report).
///
/// ```
/// use lineframe::scan::{Delimiter, Kind, Scanner, Unterminated};
///
/// let mut strict = Scanner::new(Delimiter::Newline, None, Unterminated::Report);
/// assert_eq!(strict.scan_eof(b"cut").unwrap().kind, Kind::Unterminated);
/// let mut file = Scanner::new(Delimiter::Newline, None, Unterminated::Deliver);
/// assert_eq!(file.scan_eof(b"cut").unwrap().kind, Kind::Line);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unterminated {
    /// Reports the bytes as unterminated. This is the default, because a command whose terminator
    /// never arrived must not run.
    #[default]
    Report,
    /// Returns the bytes as a line. Use it for files and pipes that may lack a final line end.
    Deliver,
}

/// The result of a scan: what is at the front of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The kind of item.
    pub kind: Kind,
    /// The range of the content, without the terminator. It starts at 0. For `TooLong` it covers
    /// the first `max_length` bytes.
    pub content: Range<usize>,
    /// The terminator, or `None` if it has not arrived.
    pub terminator: Option<Terminator>,
    /// The number of bytes to remove from the front before the next call: the content, the
    /// terminator and, for `TooLong`, the bytes skipped so far. Always at least 1.
    pub consumed: usize,
    /// The stream offset of the content: the number of bytes before it.
    pub offset: u64,
}

/// The kind of a [`Verdict`] or of an item of a codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A whole line within the limit.
    Line,
    /// A part of a line: the rest of a `TooLong` line, or a result of [`Scanner::scan_piece`]. The
    /// last piece of a line is the one with a terminator.
    Piece,
    /// A counted block. Only codecs return it, after `LineCodec::expect_bytes`.
    Block,
    /// A line longer than the limit, reported once. It is reported with its terminator, or as soon
    /// as `max_length` bytes plus the length of the longest terminator have arrived without one.
    /// The rest of the line follows as [`Piece`](Self::Piece)s, which the caller discards.
    TooLong,
    /// A line that contains a lone CR or LF. Only [`Delimiter::CrLf`] reports this.
    BareTerminator,
    /// The bytes after the last terminator at the end of the stream, with [`Unterminated::Report`].
    Unterminated,
    /// A counted block that the end of the stream cut short. Only codecs return it.
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
    /// `max_length` limits the content of a line in bytes and does not count the terminator. `None`
    /// means no limit; the caller's buffer then grows until a terminator arrives.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let scanner = Scanner::new(Delimiter::CrLf, 998, Unterminated::Report);
    /// assert_eq!(scanner.max_length(), Some(998));
    /// ```
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

    /// Returns the line at the front of `bytes`, or `None` if more bytes are needed.
    ///
    /// A terminated line is returned as soon as its last byte has arrived. A buffer can hold
    /// several lines: remove `consumed` bytes and call this again until it returns `None`.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// assert_eq!(scanner.scan(b"ab\ncd").unwrap().content, 0..2);
    /// assert!(scanner.scan(b"cd").is_none());
    /// ```
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
        // The line is over the limit, whatever follows. Bytes that may be part of its terminator
        // stay in the buffer.
        self.state = State::Skipping;
        Some(self.verdict(Kind::TooLong, search.settled, None, search.settled))
    }

    /// Returns the line at the front of `bytes`, which are all remaining bytes of the stream.
    ///
    /// Returns `None` if `bytes` is empty. The scanner is then at the start of a new stream.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Kind, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// assert_eq!(scanner.scan_eof(b"cut").unwrap().kind, Kind::Unterminated);
    /// assert!(scanner.scan_eof(b"").is_none());
    /// ```
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

    /// Returns the next part of a line of any length, without waiting for the terminator.
    ///
    /// A piece holds bytes that are known to be content, at most `limit` of them; a `limit` of 0
    /// counts as 1. The last piece of a line has a terminator and may be empty. `None` means that
    /// more bytes are needed. `max_length` does not apply.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// let piece = scanner.scan_piece(b"abc", 2).unwrap();
    /// assert_eq!((piece.content, piece.terminator), (0..2, None));
    /// let last = scanner.scan_piece(b"c\n", 2).unwrap();
    /// assert_eq!((last.content, last.consumed), (0..1, 2));
    /// ```
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

    /// Returns the next part of a line, like [`scan_piece`](Self::scan_piece), at the end of the
    /// stream.
    ///
    /// `bytes` are all remaining bytes. A line that the end of the stream cuts has no piece with a
    /// terminator. Returns `None` if `bytes` is empty; the scanner is then at the start of a new
    /// stream.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// assert_eq!(scanner.scan_piece_eof(b"cut\r", 100).unwrap().content, 0..3);
    /// assert_eq!(scanner.scan_piece_eof(b"\r", 100).unwrap().content, 0..1);
    /// assert!(scanner.scan_piece_eof(b"", 100).is_none());
    /// ```
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

    /// Fast path of [`scan`](Self::scan) for a good line at the front of `bytes`. Returns the
    /// length of its content and the number of bytes it takes, or `None` to make the caller call
    /// `scan`.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn scan_line(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        let Config { delimiter, max_length, .. } = &*self.config;
        let last_byte = delimiter.last_byte()?;
        if self.is_skipping() || self.scanned > 0 {
            return None;
        }
        // A good line ends within this window.
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

    /// Searches `bytes` from `start` on for all terminated lines in one pass, which is faster than
    /// calling [`scan`](Self::scan) for each. Call [`end_lines`](Self::end_lines) afterwards.
    ///
    /// Returns `None` if the delimiter does not support this, or if the search for the current line
    /// has already begun. Call `scan` then.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn lines<'a>(&self, bytes: &'a [u8], start: usize) -> Option<Lines<'a>> {
        let last_byte = self.config.delimiter.last_byte()?;
        let positions = Positions::new(last_byte.byte, bytes, start);
        let is_at_start = !self.is_skipping() && self.scanned == 0;
        is_at_start.then_some(Lines { positions, last_byte, start, end: start, is_exhausted: false })
    }

    /// Continues after the lines that `lines` has returned. If `lines` is exhausted, the bytes
    /// after the last line are not searched again.
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

    /// Notes that the caller has removed `count` bytes from the front that are not part of a line,
    /// such as a counted block. The next byte starts a line.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// let buffer = b"4 bytes of data: a\nb\nnext\n";
    /// scanner.take(21);
    /// assert_eq!(scanner.scan(&buffer[21..]).unwrap().offset, 21);
    /// ```
    #[inline]
    pub fn take(&mut self, count: usize) {
        self.state = State::Line { bare: false };
        self.keep(0, 0);
        self.offset = self.offset.saturating_add(count as u64);
    }

    /// Moves back by `count` bytes, to the start of a line.
    #[cfg(feature = "net")]
    pub(crate) fn rewind(&mut self, count: usize) {
        self.take(0);
        self.offset = self.offset.saturating_sub(count as u64);
    }

    /// Returns to the start of a stream and keeps the configuration.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// scanner.scan(b"ab\n");
    /// scanner.reset();
    /// assert_eq!(scanner.offset(), 0);
    /// ```
    pub fn reset(&mut self) {
        self.take(0);
        self.offset = 0;
    }

    /// Sets the limit for the content of a line, in bytes. `None` means no limit.
    ///
    /// The limit also applies to the current line, unless its verdict has been returned.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Kind, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
    /// scanner.set_max_length(2);
    /// assert_eq!(scanner.scan(b"abc\n").unwrap().kind, Kind::TooLong);
    /// ```
    pub fn set_max_length(&mut self, max_length: impl Into<Option<usize>>) {
        Arc::make_mut(&mut self.config).max_length = max_length.into().unwrap_or(usize::MAX);
    }

    /// Returns the limit for the content of a line, in bytes. `None` means no limit.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let scanner = Scanner::new(Delimiter::Newline, None, Unterminated::Report);
    /// assert_eq!(scanner.max_length(), None);
    /// ```
    pub fn max_length(&self) -> Option<usize> {
        Some(self.config.max_length).filter(|max_length| *max_length < usize::MAX)
    }

    /// Returns the delimiter.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let scanner = Scanner::new(Delimiter::Lf, 100, Unterminated::Report);
    /// assert_eq!(scanner.delimiter(), &Delimiter::Lf);
    /// ```
    pub fn delimiter(&self) -> &Delimiter {
        &self.config.delimiter
    }

    /// Returns the stream offset of the next byte: the number of bytes consumed so far.
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Lf, 100, Unterminated::Report);
    /// scanner.scan(b"ab\ncd");
    /// assert_eq!(scanner.offset(), 3);
    /// ```
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns whether the next bytes are the rest of a line that was reported as
    /// [`Kind::TooLong`].
    ///
    /// ```
    /// use lineframe::scan::{Delimiter, Kind, Scanner, Unterminated};
    ///
    /// let mut scanner = Scanner::new(Delimiter::Newline, 2, Unterminated::Report);
    /// assert_eq!(scanner.scan(b"abcd").unwrap().kind, Kind::TooLong);
    /// assert!(scanner.is_skipping());
    /// ```
    pub fn is_skipping(&self) -> bool {
        self.state == State::Skipping
    }

    /// Finds the first terminator in `bytes`. Continues where the last search stopped.
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

    /// Stores the result of a search of `scanned` bytes that found nothing. The first `settled` of
    /// them are content, whatever follows.
    #[inline]
    fn keep(&mut self, scanned: usize, settled: usize) {
        self.scanned = scanned;
        // Fits: a terminator has at most 64 bytes.
        self.unsettled = (scanned - settled) as u8;
    }

    #[inline]
    fn terminated(&mut self, kind: Kind, bytes: &[u8], content: usize, length: usize) -> Verdict {
        let consumed = content + length;
        let terminator = self.config.delimiter.terminator(&bytes[content..consumed]);
        self.verdict(kind, content, Some(terminator), consumed)
    }

    /// Returns a verdict about a line with `content` bytes at the front. The content of a `TooLong`
    /// verdict ends at the limit.
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

/// The terminated lines in a slice, found in one pass by [`Scanner::lines`]. Does not check the
/// limit.
#[cfg(feature = "codec")]
#[derive(Clone, Copy)]
pub(crate) struct Lines<'a> {
    positions: Positions<'a>,
    last_byte: LastByte,
    /// The start of the first line.
    start: usize,
    /// The end of the last line returned. At least `start`.
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

    /// Returns the end of the last line, including its terminator.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Returns the total length of all lines returned, including their terminators.
    #[inline]
    pub(crate) fn taken(&self) -> usize {
        self.end - self.start
    }
}
