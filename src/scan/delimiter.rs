use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use memchr::{memchr, memchr2, memchr3, memmem};

#[cfg(feature = "codec")]
use super::search::contains;

/// The byte or bytes that end a line. The default is [`Newline`](Self::Newline).
///
/// All other bytes are content, including U+2028, U+0085, vertical tab, form feed, NUL, a
/// byte-order mark and a lone CR. Only [`CrLf`](Self::CrLf) reports a lone CR.
///
/// | delimiter | ends a line | written |
/// |---|---|---|
/// | `Newline` | `\n`; removes one `\r` before it | `\n`, or `\r\n` with `write_crlf` |
/// | `Lf` | `\n`; `\r` is content | `\n` |
/// | `CrLf` | only `\r\n`; a line with a lone `\r` or `\n` is reported as bad | `\r\n` |
/// | `Byte` | that byte | that byte |
/// | `AnyOf` | each byte of the set | the first byte of the set |
/// | `Sequence` | the first occurrence of the bytes after the start of the line | the bytes |
///
/// ```
/// use lineframe::{Delimiter, LineCodec};
///
/// let nul = LineCodec::builder().delimiter(Delimiter::Byte(0)).build();
/// assert_eq!(nul.delimiter(), &Delimiter::Byte(0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delimiter {
    /// `\n`, and the `\r` before it if there is one. This is the default. It accepts input from
    /// `telnet` and from `nc`. Only one `\r` is removed: `a\r\r\n` is the line `a\r`.
    #[default]
    Newline,
    /// Only `\n`. A `\r` before it is content.
    Lf,
    /// Only `\r\n`, as SMTP (RFC 5321, section 2.3.8) and HTTP (RFC 9112, section 2.2) define a
    /// line.
    ///
    /// A lone CR or LF does not end the line and makes it a bad line. SMTP smuggling
    /// (CVE-2023-51764) relies on two readers that treat a lone CR or LF differently.
    CrLf,
    /// One byte, such as NUL.
    Byte(u8),
    /// Any byte of a set, created by [`Delimiter::any_of`].
    AnyOf(ByteSet),
    /// A sequence of 1 to 64 bytes, created by [`Delimiter::sequence`].
    Sequence(Needle),
}

impl Delimiter {
    /// Returns a delimiter with which each byte of `set` ends a line. The encoder writes the first
    /// byte of the set.
    ///
    /// With `b"\r\n"`, a CRLF ends a line and then an empty line.
    ///
    /// ```
    /// use lineframe::Delimiter;
    ///
    /// let delimiter = Delimiter::any_of(b";\n")?;
    /// assert_eq!(delimiter.written(), b";");
    /// # Ok::<(), lineframe::InvalidDelimiter>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidDelimiter::Empty`] if the set is empty.
    pub fn any_of(set: &[u8]) -> Result<Self, InvalidDelimiter> {
        if set.is_empty() {
            return Err(InvalidDelimiter::Empty);
        }
        let mut bytes = Vec::new();
        let mut table = [false; 256];
        for &byte in set {
            if !core::mem::replace(&mut table[usize::from(byte)], true) {
                bytes.push(byte);
            }
        }
        Ok(Self::AnyOf(ByteSet(Arc::new(Set { bytes, table }))))
    }

    /// Returns a delimiter with which the sequence `bytes` ends a line. The first occurrence after
    /// the start of the line counts.
    ///
    /// ```
    /// use lineframe::Delimiter;
    ///
    /// let delimiter = Delimiter::sequence(b"--end--")?;
    /// assert_eq!(delimiter.written(), b"--end--");
    /// # Ok::<(), lineframe::InvalidDelimiter>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidDelimiter::Empty`] if `bytes` is empty, and [`InvalidDelimiter::TooLong`]
    /// if it has more than 64 bytes.
    pub fn sequence(bytes: &[u8]) -> Result<Self, InvalidDelimiter> {
        match bytes.len() {
            0 => Err(InvalidDelimiter::Empty),
            1..=Needle::MAX_LENGTH => {
                Ok(Self::Sequence(Needle(Arc::new(memmem::Finder::new(bytes).into_owned()))))
            }
            length => Err(InvalidDelimiter::TooLong { length }),
        }
    }

    /// Returns the length of the longest terminator in bytes: 2 for `Newline` and `CrLf`, the
    /// length of a `Sequence`, otherwise 1.
    ///
    /// ```
    /// use lineframe::Delimiter;
    ///
    /// assert_eq!(Delimiter::Newline.max_terminator_length(), 2);
    /// ```
    pub fn max_terminator_length(&self) -> usize {
        match self {
            Self::Newline | Self::CrLf => 2,
            Self::Lf | Self::Byte(_) | Self::AnyOf(_) => 1,
            Self::Sequence(needle) => needle.as_bytes().len(),
        }
    }

    /// Returns the terminator that the encoder writes after a line, unless `write_crlf` is set.
    ///
    /// ```
    /// use lineframe::Delimiter;
    ///
    /// assert_eq!(Delimiter::CrLf.written(), b"\r\n");
    /// ```
    #[inline]
    pub fn written(&self) -> &[u8] {
        match self {
            Self::Newline | Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
            Self::Byte(byte) => core::slice::from_ref(byte),
            Self::AnyOf(set) => &set.as_bytes()[..1],
            Self::Sequence(needle) => needle.as_bytes(),
        }
    }

    /// Finds the first terminator in `bytes`, which begin at the start of a line. The first `from`
    /// bytes contain no complete terminator.
    ///
    /// Only this function and [`LastByte`] define what a terminator is.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8], from: usize) -> Search {
        match self {
            Self::Newline => LastByte::NEWLINE.find(bytes, from),
            Self::Lf => LastByte::of(b'\n').find(bytes, from),
            Self::Byte(byte) => LastByte::of(*byte).find(bytes, from),
            Self::CrLf => find_crlf(bytes, from),
            Self::AnyOf(set) => Search::new(set.find(&bytes[from..]).map(|at| (from + at, 1)), bytes.len()),
            Self::Sequence(needle) => {
                let length = needle.as_bytes().len();
                // The last bytes may be the beginning of the sequence.
                let settled = from.max((bytes.len() + 1).saturating_sub(length));
                Search::new(needle.0.find(&bytes[from..]).map(|at| (from + at, length)), settled)
            }
        }
    }

    /// Returns the single byte that decides where lines end, or `None` if the delimiter has no such
    /// byte. A search for this byte is faster than [`find`](Self::find).
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn last_byte(&self) -> Option<LastByte> {
        match self {
            Self::Newline => Some(LastByte::NEWLINE),
            Self::Lf => Some(LastByte::of(b'\n')),
            Self::Byte(byte) => Some(LastByte::of(*byte)),
            Self::CrLf | Self::AnyOf(_) | Self::Sequence(_) => None,
        }
    }

    /// Returns the kind of the terminator that consists of `bytes`.
    pub(super) fn terminator(&self, bytes: &[u8]) -> Terminator {
        match self {
            Self::Newline | Self::Lf | Self::CrLf if bytes.len() == 2 => Terminator::CrLf,
            Self::Newline | Self::Lf | Self::CrLf => Terminator::Lf,
            Self::Byte(_) | Self::AnyOf(_) => Terminator::Byte(bytes[0]),
            Self::Sequence(_) => Terminator::Sequence { length: bytes.len() },
        }
    }

    /// Returns whether the last line of a stream ends in a lone CR, which was not followed by an
    /// LF. Always false except for `CrLf`.
    pub(super) fn ends_bare(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::CrLf) && bytes.ends_with(b"\r")
    }

    /// Returns the offset in `line` from which a decoder would read it differently, or `None` if
    /// the decoder would return `line`. `written` is the line with its terminator.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn conflict(&self, line: &[u8], written: &[u8]) -> Option<usize> {
        if let Some(last_byte) = self.last_byte() {
            return last_byte.conflict(line);
        }
        let read = self.find(written, 0);
        match read.found {
            _ if read.bare => memchr2(b'\r', b'\n', line),
            Some((at, _)) if at == line.len() => None,
            found => Some(found.map_or(line.len(), |(at, _)| at)),
        }
    }

    /// Returns whether a decoder would remove a CR at the end of `line`. See
    /// [`LastByte::ends_in_cr`].
    #[cfg(feature = "codec")]
    pub(crate) fn ends_in_cr(&self, line: &[u8]) -> bool {
        self.last_byte().is_some_and(|last_byte| last_byte.ends_in_cr(line))
    }

    /// Finds the first terminator in the concatenation of `before` and `bytes`. `before` contains
    /// no complete terminator.
    #[cfg(feature = "codec")]
    pub(crate) fn find_across(&self, before: &[u8], bytes: &[u8]) -> Option<usize> {
        if !before.is_empty() {
            let border = [before, &bytes[..bytes.len().min(self.max_terminator_length())]].concat();
            if let Some((at, _)) = self.find(&border, 0).found {
                return Some(at);
            }
        }
        self.find(bytes, 0).found.map(|(at, _)| before.len() + at)
    }
}

/// Finds `\r\n` and reports whether a lone `\r` or `\n` precedes it. Searches each byte once,
/// except that the byte after a `\r` is read twice.
fn find_crlf(bytes: &[u8], from: usize) -> Search {
    let mut bare = false;
    let mut at = from;
    while let Some(found) = memchr2(b'\r', b'\n', &bytes[at..]) {
        at += found;
        match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Search { bare, ..Search::new(Some((at, 2)), at) },
            (b'\r', None) => return Search { bare, ..Search::new(None, at) },
            _ => bare = true,
        }
        at += 1;
    }
    Search { bare, ..Search::new(None, bytes.len()) }
}

/// The last byte of every terminator of a delimiter. A line ends wherever this byte occurs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastByte {
    pub(crate) byte: u8,
    /// Whether a CR before the byte is part of the terminator.
    removes_cr: bool,
}

impl LastByte {
    const NEWLINE: Self = Self { byte: b'\n', removes_cr: true };

    fn of(byte: u8) -> Self {
        Self { byte, removes_cr: false }
    }

    /// Returns the end of the content of a line in `bytes`. The line starts at `start`, and this
    /// byte ends it at `at`.
    #[inline]
    pub(super) fn content_end(self, bytes: &[u8], start: usize, at: usize) -> usize {
        match bytes.get(at.wrapping_sub(1)) {
            Some(b'\r') if self.removes_cr && at > start => at - 1,
            _ => at,
        }
    }

    /// Returns whether `line` ends in a CR that a decoder would remove together with the
    /// terminator.
    #[cfg(feature = "codec")]
    #[inline]
    fn ends_in_cr(self, line: &[u8]) -> bool {
        self.content_end(line, 0, line.len()) < line.len()
    }

    #[inline]
    fn find(self, bytes: &[u8], from: usize) -> Search {
        let end = memchr(self.byte, &bytes[from..]).map(|gap| from + gap);
        let content_end = self.content_end(bytes, 0, end.unwrap_or(bytes.len()));
        let found = end.map(|end| (content_end, end + 1 - content_end));
        Search::new(found, content_end)
    }

    /// Implements [`Delimiter::conflict`] for delimiters that have a [`LastByte`].
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn conflict(self, line: &[u8]) -> Option<usize> {
        match contains(self.byte, line).then(|| memchr(self.byte, line)).flatten() {
            Some(at) => Some(self.content_end(line, 0, at)),
            None => self.ends_in_cr(line).then(|| line.len() - 1),
        }
    }
}

/// The result of [`Delimiter::find`].
#[derive(Debug)]
pub(crate) struct Search {
    /// The start of the terminator, which equals the length of the content, and the length of the
    /// terminator.
    pub(crate) found: Option<(usize, usize)>,
    /// If no terminator was found: the number of bytes that are content, whatever follows. They
    /// need not be searched again.
    pub(crate) settled: usize,
    /// Whether a lone CR or LF is among the bytes searched (`CrLf` only).
    pub(crate) bare: bool,
}

impl Search {
    fn new(found: Option<(usize, usize)>, settled: usize) -> Self {
        Self { found, settled, bare: false }
    }
}

/// The terminator that ended a line.
///
/// ```
/// use lineframe::scan::{Delimiter, Scanner, Terminator, Unterminated};
///
/// let mut scanner = Scanner::new(Delimiter::Newline, 100, Unterminated::Report);
/// assert_eq!(scanner.scan(b"a\r\n").unwrap().terminator, Some(Terminator::CrLf));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Terminator {
    /// `\n`, with `Newline` and `Lf`.
    Lf,
    /// `\r\n`, with `Newline` and `CrLf`.
    CrLf,
    /// The byte itself, with `Byte` and `AnyOf`.
    Byte(u8),
    /// The sequence of the delimiter.
    #[non_exhaustive]
    Sequence {
        /// The length in bytes.
        length: usize,
    },
}

impl Terminator {
    /// Returns the length in bytes.
    ///
    /// ```
    /// use lineframe::scan::Terminator;
    ///
    /// assert_eq!(Terminator::CrLf.length(), 2);
    /// ```
    pub fn length(self) -> usize {
        match self {
            Self::Lf | Self::Byte(_) => 1,
            Self::CrLf => 2,
            Self::Sequence { length } => length,
        }
    }
}

/// The bytes of [`Delimiter::AnyOf`], created by [`Delimiter::any_of`]. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct ByteSet(Arc<Set>);

#[derive(PartialEq, Eq)]
struct Set {
    /// Each byte once, in the given order. Never empty.
    bytes: Vec<u8>,
    /// True at the index of each byte of `bytes`.
    table: [bool; 256],
}

impl ByteSet {
    /// Returns each byte of the set once, in the given order.
    ///
    /// ```
    /// use lineframe::Delimiter;
    ///
    /// let Delimiter::AnyOf(set) = Delimiter::any_of(b"\n;\n")? else { unreachable!() };
    /// assert_eq!(set.as_bytes(), b"\n;");
    /// # Ok::<(), lineframe::InvalidDelimiter>(())
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    fn find(&self, haystack: &[u8]) -> Option<usize> {
        match *self.as_bytes() {
            [a] => memchr(a, haystack),
            [a, b] => memchr2(a, b, haystack),
            [a, b, c] => memchr3(a, b, c, haystack),
            _ => haystack.iter().position(|&byte| self.0.table[usize::from(byte)]),
        }
    }
}

impl fmt::Debug for ByteSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// The bytes of [`Delimiter::Sequence`], created by [`Delimiter::sequence`]. Always 1 to 64 bytes.
#[derive(Clone)]
pub struct Needle(Arc<memmem::Finder<'static>>);

impl Needle {
    const MAX_LENGTH: usize = 64;

    /// Returns the bytes of the sequence.
    ///
    /// ```
    /// use lineframe::Delimiter;
    ///
    /// let Delimiter::Sequence(needle) = Delimiter::sequence(b"end")? else { unreachable!() };
    /// assert_eq!(needle.as_bytes(), b"end");
    /// # Ok::<(), lineframe::InvalidDelimiter>(())
    /// ```
    pub fn as_bytes(&self) -> &[u8] {
        self.0.needle()
    }
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl PartialEq for Needle {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Needle {}

/// The reason why [`Delimiter::any_of`] or [`Delimiter::sequence`] refused its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidDelimiter {
    /// No bytes were given.
    Empty,
    /// The sequence has more than 64 bytes.
    #[non_exhaustive]
    TooLong {
        /// The number of bytes given.
        length: usize,
    },
}

impl fmt::Display for InvalidDelimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty delimiter; use at least 1 byte"),
            Self::TooLong { length } => {
                let max = Needle::MAX_LENGTH;
                write!(f, "delimiter of {length} bytes exceeds the limit of {max} bytes")
            }
        }
    }
}

impl core::error::Error for InvalidDelimiter {}
