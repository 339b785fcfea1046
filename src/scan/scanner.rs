use alloc::sync::Arc;
use core::ops::Range;

#[cfg(feature = "codec")]
use memchr::{memchr, memchr_iter, memrchr};

#[cfg(test)]
use super::delimiter::looks;
use super::delimiter::{Delimiter, Search, Terminator};
#[cfg(feature = "codec")]
use super::positions::Positions;

/// Lines that are told together stand in so many bytes, which a core's first cache holds while they are looked at again.
#[cfg(feature = "codec")]
const TOGETHER: usize = 16 * 1024;

/// And begin with one that is shorter than this: longer ones are found one by one for no more.
#[cfg(feature = "codec")]
const SHORT: usize = 320;

/// Finds the lines in bytes that someone else holds, resumed where it stopped, and limited.
///
/// It is shown, at each call, all bytes from the one after the last verdict's `consumed` on: those it has seen already
/// and those that have come since. While it answers `None`, bring more.
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
    rules: Arc<Rules>,
    state: State,
    /// So many bytes were shown in vain. More: the search goes on. Fewer: it is another buffer, and starts anew.
    shown: usize,
    /// So many of the last of them need a second look: fewer than the longest terminator has.
    unsearched: u8,
    /// So many of the last of them may be part of a terminator, depending on what follows. At least `unsearched`.
    unsettled: u8,
    /// Where in the stream the next byte shown stands.
    offset: u64,
}

/// What it is told once. Clones share it, until one is told otherwise.
#[derive(Clone, Debug)]
struct Rules {
    delimiter: Delimiter,
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
    /// At a line's start or within it; `bare`: a lone CR or LF was among the bytes searched (`CrLf` only).
    Line { bare: bool },
    /// Behind the reported part of a line that is over the limit.
    Skipping,
}

/// What becomes of bytes that stand behind the last terminator when the stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unterminated {
    /// They are reported as cut, not as a line. The default: a command whose terminator never came must not run.
    #[default]
    Report,
    /// They are a line like any other, as in files and pipes whose last line end was left off.
    Deliver,
}

/// What the bytes shown begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// The content among the bytes shown: without terminator, in `TooLong` the first `max_length` bytes. Starts at 0.
    pub content: Range<usize>,
    /// What ended it, where that has been seen.
    pub terminator: Option<Terminator>,
    /// Take so many bytes off the front before the next call: content, terminator, and in `TooLong` what was skipped
    /// so far. At least 1.
    pub consumed: usize,
    /// Where in the stream the content begins: the number of bytes before it.
    pub offset: u64,
}

/// What a [`Verdict`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A whole line within the limit.
    Line,
    /// A line whose content is over the limit. Given once for a line, with its terminator or, before that has come, as
    /// soon as `max_length` and the terminator's length are exceeded by one byte; then its rest comes as
    /// [`Piece`](Self::Piece)s.
    TooLong,
    /// A line with a lone CR or LF in it, under [`Delimiter::CrLf`].
    BareTerminator,
    /// What stood behind the last terminator when the stream ended, under [`Unterminated::Report`].
    Unterminated,
    /// Part of a line that is not held whole: the rest of a `TooLong` line, to be skipped, or whatever
    /// [`Scanner::scan_piece`] gives. The last one of a line is the one with a terminator.
    Piece,
}

impl Scanner {
    /// A scanner at the start of a stream. `max_length` counts content, never the terminator; `usize::MAX` is no limit,
    /// and then the caller's memory is the limit.
    pub fn new(delimiter: Delimiter, max_length: usize, unterminated: Unterminated) -> Self {
        Self {
            rules: Arc::new(Rules { delimiter, max_length, unterminated }),
            state: State::Line { bare: false },
            shown: 0,
            unsearched: 0,
            unsettled: 0,
            offset: 0,
        }
    }

    /// Judges the line that `bytes` begin with. `None`: more bytes are needed.
    ///
    /// A terminated line is found with its last byte. Repeat until `None`: a buffer can hold many lines.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Option<Verdict> {
        let State::Line { bare } = self.state else { return self.scan_piece(bytes, usize::MAX) };
        let is_same = self.shown <= bytes.len();
        let search = self.find(bytes);
        let bare = (bare & is_same) | search.bare;
        if let Some((content, terminator)) = search.found {
            let kind = match bare {
                _ if content > self.rules.max_length => Kind::TooLong,
                true => Kind::BareTerminator,
                false => Kind::Line,
            };
            return Some(self.verdict(kind, content, Some(terminator), content + terminator.length()));
        }
        if bytes.len() < self.rules.max_length.saturating_add(self.rules.delimiter.max_terminator_length()) {
            self.state = State::Line { bare };
            return None;
        }
        // Whatever comes, the line is over the limit. The bytes that may belong to its terminator stay.
        self.state = State::Skipping;
        Some(self.verdict(Kind::TooLong, search.settled, None, search.settled))
    }

    /// Tells `each` line at the front of `bytes` that has its terminator, where its content begins and ends and where the next one
    /// begins, until that gives false, and gives how many bytes they take: what [`scan`](Self::scan) would tell of them one by one,
    /// for less. A content over the limit is a `TooLong`. None, where their terminators are not found in this way or a line is under
    /// way.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn scan_lines(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(usize, usize, usize) -> bool,
    ) -> usize {
        let Some(last_byte) = self.rules.delimiter.last_byte() else { return 0 };
        if self.is_skipping() || self.shown > 0 {
            return 0;
        }
        let mut start = 0;
        let mut positions = Positions::new(last_byte, bytes);
        let goes_on = positions.all(|at| {
            let length = self.rules.delimiter.content_end(&bytes[start..at]);
            let next = at + 1;
            let goes_on = each(start, start + length, next);
            start = next;
            goes_on
        });
        #[cfg(test)]
        looks::record(0..if goes_on { bytes.len() } else { start });
        self.start_line(start);
        if goes_on {
            // What is behind the last line need not be searched again.
            let rest = &bytes[start..];
            let settled = self.rules.delimiter.content_end(rest);
            self.keep(rest.len(), rest.len(), settled);
        }
        start
    }

    /// How many lines stand at the front of `bytes`, in the first `longest` of them, and how many bytes they take, where each is good
    /// and has a terminator of one byte: for less than [one by one](Self::scan_lines). None, where that does not show at once. Not
    /// while it [is skipping](Self::is_skipping).
    #[cfg(feature = "codec")]
    pub(crate) fn scan_together(&mut self, bytes: &[u8], longest: usize) -> (usize, usize) {
        let Rules { delimiter, max_length, .. } = &*self.rules;
        let first = |count: usize| bytes.get(..count).unwrap_or(bytes);
        // No line in it is over the limit.
        let window = first(longest.min(*max_length).min(TOGETHER));
        match delimiter.last_byte() {
            Some(last_byte) if self.shown == 0 && memchr(last_byte, first(SHORT)).is_some() => {
                let together = &window[..memrchr(last_byte, window).map_or(0, |last| last + 1)];
                if *delimiter == Delimiter::Newline && memchr(b'\r', together).is_some() {
                    return (0, 0);
                }
                self.start_line(together.len());
                (memchr_iter(last_byte, together).count(), together.len())
            }
            _ => (0, 0),
        }
    }

    /// What [`scan`](Self::scan) says of a good line at the front of `bytes`, its content's length and what it takes, for less. None: that
    /// has to be asked.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn scan_line(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        let Rules { delimiter, max_length, .. } = &*self.rules;
        let last_byte = delimiter.last_byte()?;
        if self.is_skipping() || self.shown > 0 {
            return None;
        }
        // A line that is longer than this is not good.
        let window =
            bytes.get(..max_length.saturating_add(delimiter.max_terminator_length())).unwrap_or(bytes);
        let found = memchr(last_byte, window);
        #[cfg(test)]
        looks::record(0..found.map_or(window.len(), |at| at + 1));
        let Some(at) = found else {
            self.keep(window.len(), window.len(), delimiter.content_end(window));
            return None;
        };
        let length = delimiter.content_end(&bytes[..at]);
        if length > *max_length {
            return None;
        }
        self.offset = self.offset.saturating_add(at as u64 + 1);
        Some((length, at + 1))
    }

    /// The same at the end of the stream: `bytes` are all that is left and no more will come. `None` where none is left;
    /// the scanner is then at the start of a new stream, so that asking again gives `None` again.
    pub fn scan_eof(&mut self, bytes: &[u8]) -> Option<Verdict> {
        if let Some(verdict) = self.scan(bytes) {
            return Some(verdict);
        }
        let kind = match (self.state, self.rules.unterminated) {
            _ if bytes.is_empty() => {
                self.reset();
                return None;
            }
            (State::Skipping, _) => Kind::Piece,
            _ if bytes.len() > self.rules.max_length => Kind::TooLong,
            (_, Unterminated::Report) => Kind::Unterminated,
            // A CR that waited for its LF is now known to be alone.
            (State::Line { bare }, _)
                if bare | (self.searched() < bytes.len() && self.rules.delimiter == Delimiter::CrLf) =>
            {
                Kind::BareTerminator
            }
            _ => Kind::Line,
        };
        Some(self.verdict(kind, bytes.len(), None, bytes.len()))
    }

    /// The next part of a line of any length: what of `bytes` is known to be content, at most `limit` bytes of it (0
    /// counts as 1), at once and without waiting for the terminator. The one with a terminator is a line's last, and may
    /// be empty. `None`: more bytes are needed. `max_length` does not apply.
    pub fn scan_piece(&mut self, bytes: &[u8], limit: usize) -> Option<Verdict> {
        let limit = limit.max(1);
        let longest = limit.saturating_add(self.rules.delimiter.max_terminator_length() - 1);
        let window = &bytes[..bytes.len().min(longest)];
        let search = self.find(window);
        if let Some((content, terminator)) = search.found {
            return Some(self.verdict(Kind::Piece, content, Some(terminator), content + terminator.length()));
        }
        let settled = search.settled.min(limit);
        (settled > 0).then(|| self.verdict(Kind::Piece, settled, None, settled))
    }

    /// [`scan_piece`](Self::scan_piece) at the end of the stream. A line that was cut ends in pieces without a
    /// terminator. `None` where no byte is left; the scanner is then at the start of a new stream.
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

    /// Tells that the caller has taken `count` bytes off the front that are not lines, such as a counted block; the next
    /// byte begins a line.
    pub fn take(&mut self, count: usize) {
        self.start_line(count);
    }

    /// `count` bytes that were taken are shown again, from a line's start on.
    #[cfg(feature = "net")]
    pub(crate) fn put_back(&mut self, count: usize) {
        self.start_line(0);
        self.offset = self.offset.saturating_sub(count as u64);
    }

    /// Back to the start of a stream, with the same configuration.
    pub fn reset(&mut self) {
        self.start_line(0);
        self.offset = 0;
    }

    /// Applies to the line under way too, where its verdict has not been given.
    pub fn set_max_length(&mut self, max_length: usize) {
        Arc::make_mut(&mut self.rules).max_length = max_length;
    }

    /// The limit for a line's content, in bytes.
    pub fn max_length(&self) -> usize {
        self.rules.max_length
    }

    /// What ends a line.
    pub fn delimiter(&self) -> &Delimiter {
        &self.rules.delimiter
    }

    /// Where in the stream the next byte shown stands: the number of bytes taken before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the next bytes are the rest of a line that was reported as [`Kind::TooLong`].
    pub fn is_skipping(&self) -> bool {
        self.state == State::Skipping
    }

    /// The first terminator in `bytes`. Goes on where the last search stopped.
    #[inline]
    fn find(&mut self, bytes: &[u8]) -> Search {
        if self.shown == bytes.len() {
            let settled = self.shown.saturating_sub(self.unsettled.into());
            return Search { found: None, searched: self.searched(), settled, bare: false };
        }
        let from = if self.shown < bytes.len() { self.searched() } else { 0 };
        let search = self.rules.delimiter.find(bytes, from);
        if search.found.is_none() {
            self.keep(bytes.len(), search.searched, search.settled);
        }
        search
    }

    /// So many of the bytes shown need no second look.
    #[inline]
    fn searched(&self) -> usize {
        self.shown.saturating_sub(self.unsearched.into())
    }

    /// What a search without result has learnt of `shown` bytes: `searched` of them need no second look, and `settled` are
    /// content, whatever follows.
    #[inline]
    fn keep(&mut self, shown: usize, searched: usize, settled: usize) {
        self.shown = shown;
        // A terminator has at most 64 bytes.
        (self.unsearched, self.unsettled) = ((shown - searched) as u8, (shown - settled) as u8);
    }

    /// A verdict about `content` bytes at the front, of which as many are shown as its kind allows; `consumed` bytes go.
    #[inline]
    fn verdict(
        &mut self,
        kind: Kind,
        content: usize,
        terminator: Option<Terminator>,
        consumed: usize,
    ) -> Verdict {
        let content = if kind == Kind::TooLong { self.rules.max_length } else { content };
        let verdict = Verdict { kind, content: 0..content, terminator, consumed, offset: self.offset };
        let is_within_line = terminator.is_none() && (kind == Kind::Piece || self.is_skipping());
        if is_within_line {
            self.shown = self.shown.saturating_sub(consumed);
            self.offset = self.offset.saturating_add(consumed as u64);
        } else {
            self.start_line(consumed);
        }
        verdict
    }

    #[inline]
    fn start_line(&mut self, taken: usize) {
        self.state = State::Line { bare: false };
        self.keep(0, 0, 0);
        self.offset = self.offset.saturating_add(taken as u64);
    }
}
