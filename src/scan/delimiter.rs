use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use memchr::{memchr, memchr2, memchr3, memmem};

#[cfg(feature = "codec")]
use super::search::contains;

/// What ends a line.
///
/// Everything else is content: U+2028, U+0085, vertical tab, form feed, NUL, a byte-order mark, and a
/// lone CR (which [`CrLf`](Self::CrLf) reports).
///
/// | delimiter | ends a line | written |
/// |---|---|---|
/// | `Newline` | `\n`; at most one `\r` before it is removed: `a\r\r\n` is `a\r` | `\n`, or `\r\n` with `write_crlf` |
/// | `Lf` | `\n`; `\r` is content | `\n` |
/// | `CrLf` | `\r\n` and nothing else; a line with a lone `\r` or `\n` in it is reported, never repaired | `\r\n` |
/// | `Byte` | that byte | that byte |
/// | `AnyOf` | each byte of the set, so CRLF in `any_of(b"\r\n")` is the end of a line and an empty line | the first byte of the set |
/// | `Sequence` | the first occurrence of the bytes, counted from the line's start | the bytes |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delimiter {
    /// `\n`, with at most one `\r` before it removed. The default, and what a person with `telnet` or
    /// `nc` sends.
    #[default]
    Newline,
    /// `\n` alone. A `\r` before it is content.
    Lf,
    /// `\r\n` alone, as SMTP (RFC 5321, section 2.3.8) and HTTP (RFC 9112, section 2.2) define a line.
    /// A lone CR or LF does not end the line, and makes it a bad line: SMTP smuggling (CVE-2023-51764)
    /// needs two readers that disagree about it.
    CrLf,
    /// One byte, such as NUL.
    Byte(u8),
    /// Any byte of a set: [`Delimiter::any_of`].
    AnyOf(ByteSet),
    /// A sequence of bytes: [`Delimiter::sequence`].
    Sequence(Needle),
}

impl Delimiter {
    /// Returns a delimiter of which each byte of `set` ends a line. The encoder writes the first one.
    ///
    /// # Errors
    ///
    /// [`InvalidDelimiter::Empty`] if the set is empty.
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

    /// Returns a delimiter that is a sequence of bytes. Its first occurrence after the line's start ends
    /// the line.
    ///
    /// # Errors
    ///
    /// [`InvalidDelimiter::Empty`] if `bytes` is empty, [`InvalidDelimiter::TooLong`] if it has more than
    /// 64 bytes.
    pub fn sequence(bytes: &[u8]) -> Result<Self, InvalidDelimiter> {
        match bytes.len() {
            0 => Err(InvalidDelimiter::Empty),
            1..=Needle::MAX_LENGTH => {
                Ok(Self::Sequence(Needle(Arc::new(memmem::Finder::new(bytes).into_owned()))))
            }
            length => Err(InvalidDelimiter::TooLong { length }),
        }
    }

    /// Returns the length of the longest terminator in bytes: 2 for `Newline` and `CrLf`, the length of a
    /// `Sequence`, otherwise 1.
    pub fn max_terminator_length(&self) -> usize {
        match self {
            Self::Newline | Self::CrLf => 2,
            Self::Lf | Self::Byte(_) | Self::AnyOf(_) => 1,
            Self::Sequence(needle) => needle.as_bytes().len(),
        }
    }

    /// Returns the bytes that are written after a line.
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

    /// Finds the first terminator in `bytes`, which begin at a line's start. The first `from` bytes are
    /// known to hold no complete terminator.
    ///
    /// This and [`LastByte`] are the only places that know what a terminator is.
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

    /// Returns the single byte that decides where lines end, if this delimiter has one. Faster than
    /// [`find`](Self::find).
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

    /// Names the terminator that consists of `bytes`.
    pub(super) fn terminator(&self, bytes: &[u8]) -> Terminator {
        match self {
            Self::Newline | Self::Lf | Self::CrLf if bytes.len() == 2 => Terminator::CrLf,
            Self::Newline | Self::Lf | Self::CrLf => Terminator::Lf,
            Self::Byte(_) | Self::AnyOf(_) => Terminator::Byte(bytes[0]),
            Self::Sequence(_) => Terminator::Sequence { length: bytes.len() },
        }
    }

    /// Returns whether the stream ends in a CR that waited for its LF, in `CrLf`.
    pub(super) fn ends_bare(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::CrLf) && bytes.ends_with(b"\r")
    }

    /// Returns the offset in `line` at which it would be read differently. `written` is the line with
    /// its terminator.
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

    /// [`LastByte::ends_in_cr`].
    #[cfg(feature = "codec")]
    pub(crate) fn ends_in_cr(&self, line: &[u8]) -> bool {
        self.last_byte().is_some_and(|last_byte| last_byte.ends_in_cr(line))
    }

    /// Finds the first terminator in `before` and `bytes` joined, of which `before` holds no complete one.
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

/// Finds `\r\n`, and notes a lone `\r` or `\n` before it. Searches each byte once, and looks at the
/// byte after a `\r` once more.
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

/// A byte that ends every terminator of its delimiter, and wherever it stands a line ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastByte {
    pub(crate) byte: u8,
    /// Whether a CR before it is part of the terminator.
    removes_cr: bool,
}

impl LastByte {
    const NEWLINE: Self = Self { byte: b'\n', removes_cr: true };

    fn of(byte: u8) -> Self {
        Self { byte, removes_cr: false }
    }

    /// Returns where the content ends of the line in `bytes` that begins at `start` and ends in this byte
    /// at `at`.
    #[inline]
    pub(super) fn content_end(self, bytes: &[u8], start: usize, at: usize) -> usize {
        match bytes.get(at.wrapping_sub(1)) {
            Some(b'\r') if self.removes_cr && at > start => at - 1,
            _ => at,
        }
    }

    /// Returns whether a CR at the end of `line` would be read as part of the terminator that is written
    /// after it, or removed by the next reader.
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

    /// [`Delimiter::conflict`].
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn conflict(self, line: &[u8]) -> Option<usize> {
        match contains(self.byte, line).then(|| memchr(self.byte, line)).flatten() {
            Some(at) => Some(self.content_end(line, 0, at)),
            None => self.ends_in_cr(line).then(|| line.len() - 1),
        }
    }
}

/// What [`Delimiter::find`] found.
#[derive(Debug)]
pub(crate) struct Search {
    /// Where the terminator begins, which is the length of the line's content, and its length.
    pub(crate) found: Option<(usize, usize)>,
    /// If nothing was found: these bytes are content, whatever follows, and need not be searched again.
    pub(crate) settled: usize,
    /// `CrLf`: a lone CR or LF is among the bytes searched.
    pub(crate) bare: bool,
}

impl Search {
    fn new(found: Option<(usize, usize)>, settled: usize) -> Self {
        Self { found, settled, bare: false }
    }
}

/// The terminator that ended a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Terminator {
    /// `\n`, in `Newline` and `Lf`.
    Lf,
    /// `\r\n`, in `Newline` and `CrLf`.
    CrLf,
    /// That byte, in `Byte` and `AnyOf`.
    Byte(u8),
    /// The sequence of the delimiter.
    #[non_exhaustive]
    Sequence {
        /// Its length in bytes.
        length: usize,
    },
}

impl Terminator {
    /// Returns its length in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Lf | Self::Byte(_) => 1,
            Self::CrLf => 2,
            Self::Sequence { length } => length,
        }
    }
}

/// The bytes of [`Delimiter::AnyOf`], never empty. [`Delimiter::any_of`] makes it.
#[derive(Clone, PartialEq, Eq)]
pub struct ByteSet(Arc<Set>);

#[derive(PartialEq, Eq)]
struct Set {
    /// Never empty, each byte once, in the order given.
    bytes: Vec<u8>,
    /// True at each of `bytes`.
    table: [bool; 256],
}

impl ByteSet {
    /// Returns the bytes, each once, in the order given.
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

/// The bytes of [`Delimiter::Sequence`]: 1 to 64. [`Delimiter::sequence`] makes it.
#[derive(Clone)]
pub struct Needle(Arc<memmem::Finder<'static>>);

impl Needle {
    const MAX_LENGTH: usize = 64;

    /// Returns the bytes.
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

/// Why [`Delimiter::any_of`] or [`Delimiter::sequence`] refused its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidDelimiter {
    /// No bytes.
    Empty,
    /// A sequence of more than 64 bytes.
    #[non_exhaustive]
    TooLong {
        /// The number of bytes.
        length: usize,
    },
}

impl fmt::Display for InvalidDelimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a delimiter needs at least one byte"),
            Self::TooLong { length } => {
                write!(f, "a delimiter of {length} bytes is longer than {} bytes", Needle::MAX_LENGTH)
            }
        }
    }
}

impl core::error::Error for InvalidDelimiter {}
