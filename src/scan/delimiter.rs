use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use memchr::{memchr, memchr2, memchr3, memmem};

#[cfg(feature = "codec")]
use super::positions::holds;

/// What ends a line.
///
/// Everything else is content: U+2028, U+0085, vertical tab, form feed, NUL, a byte-order mark, and a lone CR too (but
/// where [`CrLf`](Self::CrLf) reports it).
///
/// | delimiter | ends a line | written |
/// |---|---|---|
/// | `Newline` | `\n`; at most one `\r` before it is removed: `a\r\r\n` is `a\r` | `\n`, or `\r\n` where the codec is told so |
/// | `Lf` | `\n`; `\r` is content | `\n` |
/// | `CrLf` | `\r\n` and nothing else; a line with a lone `\r` or `\n` in it is reported, never repaired | `\r\n` |
/// | `Byte` | that byte | that byte |
/// | `AnyOf` | each byte of the set, so CRLF in `any_of(b"\r\n")` is the end of a line and an empty line | the first byte of the set |
/// | `Sequence` | the first occurrence of the bytes, counted from the line's start | the bytes |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delimiter {
    /// `\n`, with at most one `\r` before it removed. The default, and what a person with `telnet` or `nc` sends.
    #[default]
    Newline,
    /// `\n` alone. A `\r` before it is content.
    Lf,
    /// `\r\n` alone, as SMTP (RFC 5321, section 2.3.8) and HTTP (RFC 9112, section 2.2) define a line. A lone CR or LF
    /// does not end the line, and the line in which it stands is a bad one: readers that disagreed about just this are
    /// what SMTP smuggling (CVE-2023-51764 and its kin) lived on.
    CrLf,
    /// One byte, such as NUL.
    Byte(u8),
    /// Any byte of a set: [`Delimiter::any_of`].
    AnyOf(ByteSet),
    /// A sequence of bytes: [`Delimiter::sequence`].
    Sequence(Needle),
}

impl Delimiter {
    /// Each byte of `set` ends a line. The first is the one that is written.
    ///
    /// # Errors
    ///
    /// [`InvalidDelimiter::Empty`] where the set is empty.
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

    /// The first occurrence of `bytes`, counted from the line's start, ends the line.
    ///
    /// # Errors
    ///
    /// [`InvalidDelimiter::Empty`] where there are none, [`InvalidDelimiter::TooLong`] where there are more than 64.
    pub fn sequence(bytes: &[u8]) -> Result<Self, InvalidDelimiter> {
        match bytes.len() {
            0 => Err(InvalidDelimiter::Empty),
            1..=Needle::MAX_LENGTH => {
                Ok(Self::Sequence(Needle(Arc::new(memmem::Finder::new(bytes).into_owned()))))
            }
            length => Err(InvalidDelimiter::TooLong { length }),
        }
    }

    /// How many bytes the longest terminator has: 2 in `Newline` and `CrLf`, the length of a `Sequence`, otherwise 1.
    pub fn max_terminator_length(&self) -> usize {
        match self {
            Self::Newline | Self::CrLf => 2,
            Self::Lf | Self::Byte(_) | Self::AnyOf(_) => 1,
            Self::Sequence(needle) => needle.as_bytes().len(),
        }
    }

    /// What is written behind a line.
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

    /// The first terminator in `bytes`, which start at a line's start; the first `from` of them are known to hold none
    /// that is whole. This is the one place that knows what a terminator is, for every state of the scanner and for the
    /// encoders.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8], from: usize) -> Search {
        let search = self.search(bytes, from);
        #[cfg(test)]
        looks::record(from..search.found.map_or(bytes.len(), |(at, terminator)| at + terminator.length()));
        search
    }

    /// The byte that ends every terminator and nothing else, where there is one.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn last_byte(&self) -> Option<u8> {
        match self {
            Self::Newline | Self::Lf => Some(b'\n'),
            Self::Byte(byte) => Some(*byte),
            Self::CrLf | Self::AnyOf(_) | Self::Sequence(_) => None,
        }
    }

    /// Whether that byte is anywhere in `bytes`. Not known where there is none such.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        self.last_byte().is_none_or(|byte| holds(byte, bytes))
    }

    /// Where the terminator begins whose [last byte](Self::last_byte) stands behind `line`.
    #[inline]
    pub(super) fn content_end(&self, line: &[u8]) -> usize {
        line.len() - usize::from(matches!(self, Self::Newline) && line.ends_with(b"\r"))
    }

    /// Where `line` would be read differently from what it is: `written` is the line and its terminator.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn conflict(&self, line: &[u8], written: &[u8]) -> Option<usize> {
        if let Some(byte) = self.last_byte() {
            // What is behind the line cannot change what is found in it.
            return match holds(byte, line).then(|| memchr(byte, line)).flatten() {
                Some(at) => Some(self.content_end(&line[..at])),
                None => self.ends_in_cr(line).then(|| line.len() - 1),
            };
        }
        let read = self.find(written, 0);
        match read.found {
            _ if read.bare => memchr2(b'\r', b'\n', line),
            Some((at, _)) if at == line.len() => None,
            found => Some(found.map_or(line.len(), |(at, _)| at)),
        }
    }

    /// `Newline` takes a CR at the end of a line for part of its terminator, or, in `\r\r\n`, leaves it to be taken so by
    /// the next reader.
    #[cfg(feature = "codec")]
    #[inline]
    pub(crate) fn ends_in_cr(&self, line: &[u8]) -> bool {
        matches!(self, Self::Newline) && line.ends_with(b"\r")
    }

    #[inline]
    fn search(&self, bytes: &[u8], from: usize) -> Search {
        let rest = &bytes[from..];
        match self {
            Self::Newline | Self::Lf => self.search_byte(b'\n', bytes, from),
            Self::Byte(byte) => self.search_byte(*byte, bytes, from),
            Self::CrLf => find_crlf(bytes, from),
            Self::AnyOf(set) => match set.find(rest) {
                Some(at) => Search::found(from + at, Terminator::Byte(rest[at])),
                None => Search::nothing(bytes.len(), bytes.len()),
            },
            Self::Sequence(needle) => match needle.0.find(rest) {
                Some(at) => {
                    Search::found(from + at, Terminator::Sequence { length: needle.as_bytes().len() })
                }
                // The last bytes may be the beginning of the sequence.
                None => {
                    let searched = from.max((bytes.len() + 1).saturating_sub(needle.as_bytes().len()));
                    Search::nothing(searched, searched)
                }
            },
        }
    }
}

impl Delimiter {
    #[inline]
    fn search_byte(&self, byte: u8, bytes: &[u8], from: usize) -> Search {
        let Some(at) = memchr(byte, &bytes[from..]) else {
            return Search::nothing(bytes.len(), self.content_end(bytes));
        };
        let content = self.content_end(&bytes[..from + at]);
        let terminator = match self {
            Self::Byte(byte) => Terminator::Byte(*byte),
            _ if content < from + at => Terminator::CrLf,
            _ => Terminator::Lf,
        };
        Search::found(content, terminator)
    }
}

/// Only `\r\n` ends a line; a lone `\r` or `\n` on the way to it is remembered. Each byte is searched once, and the one
/// behind a `\r` looked at once more.
fn find_crlf(bytes: &[u8], from: usize) -> Search {
    let mut bare = false;
    let mut at = from;
    while let Some(found) = memchr2(b'\r', b'\n', &bytes[at..]) {
        at += found;
        match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Search { bare, ..Search::found(at, Terminator::CrLf) },
            (b'\r', None) => return Search { bare, ..Search::nothing(at, at) },
            _ => bare = true,
        }
        at += 1;
    }
    Search { bare, ..Search::nothing(bytes.len(), bytes.len()) }
}

/// What [`Delimiter::find`] saw.
#[derive(Debug)]
pub(crate) struct Search {
    /// The terminator and where it begins, which is the length of the line's content.
    pub(crate) found: Option<(usize, Terminator)>,
    /// Where none was found: so many bytes need not be searched again.
    pub(crate) searched: usize,
    /// Where none was found: so many bytes are part of no terminator, whatever follows. At most `searched`.
    pub(crate) settled: usize,
    /// `CrLf`: a lone CR or LF among the bytes searched.
    pub(crate) bare: bool,
}

impl Search {
    fn found(at: usize, terminator: Terminator) -> Self {
        Self { found: Some((at, terminator)), searched: at, settled: at, bare: false }
    }

    fn nothing(searched: usize, settled: usize) -> Self {
        Self { found: None, searched, settled, bare: false }
    }
}

/// What ended a line on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Terminator {
    /// `\n`, under `Newline` and `Lf`.
    Lf,
    /// `\r\n`, under `Newline` and `CrLf`.
    CrLf,
    /// That byte, under `Byte` and `AnyOf`.
    Byte(u8),
    /// The sequence of the delimiter.
    #[non_exhaustive]
    Sequence {
        /// How many bytes it has.
        length: usize,
    },
}

impl Terminator {
    /// How many bytes it takes on the wire.
    pub fn length(self) -> usize {
        match self {
            Self::Lf | Self::Byte(_) => 1,
            Self::CrLf => 2,
            Self::Sequence { length } => length,
        }
    }
}

/// The bytes of [`Delimiter::AnyOf`], never empty. Made by [`Delimiter::any_of`].
#[derive(Clone)]
pub struct ByteSet(Arc<Set>);

struct Set {
    /// Never empty, each byte once, in the order given.
    bytes: Vec<u8>,
    /// True at each of `bytes`.
    table: [bool; 256],
}

impl ByteSet {
    /// The bytes, each once, in the order given.
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

impl PartialEq for ByteSet {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ByteSet {}

/// The bytes of [`Delimiter::Sequence`]: 1 to 64. Made by [`Delimiter::sequence`].
#[derive(Clone)]
pub struct Needle(Arc<memmem::Finder<'static>>);

impl Needle {
    const MAX_LENGTH: usize = 64;

    /// The bytes.
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
    /// No bytes at all.
    Empty,
    /// A sequence of more than 64 bytes.
    #[non_exhaustive]
    TooLong {
        /// How many bytes there were.
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

/// Which bytes were searched, for the tests that count how often.
#[cfg(test)]
pub(super) mod looks {
    extern crate std;
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::ops::Range;

    std::thread_local! {
        static SEARCHED: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
    }

    pub(in crate::scan) fn record(range: Range<usize>) {
        SEARCHED.with_borrow_mut(|searched| searched.push(range));
    }

    pub(in crate::scan) fn take() -> Vec<Range<usize>> {
        SEARCHED.take()
    }
}
