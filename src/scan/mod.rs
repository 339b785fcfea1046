//! Finds where lines end in a byte slice. All codecs of this crate use this module.
//!
//! The caller passes the bytes that a stream has delivered so far to a [`Scanner`]. The scanner
//! returns a [`Verdict`]: the length of the first line, how it ended, and how many bytes to remove
//! before the next call. A scanner does no I/O, owns no buffer and stores no bytes.
//!
//! This module needs no feature. With `default-features = false` the crate contains only this
//! module and depends on `core`, `alloc` and memchr.
//!
//! ```
//! use lineframe::scan::{Delimiter, Kind, Scanner, Terminator, Unterminated};
//!
//! let mut scanner = Scanner::new(Delimiter::Newline, 5, Unterminated::Report);
//! let mut bytes = &b"ab\r\nfar too long\nc"[..];
//! let mut seen = Vec::new();
//! while let Some(verdict) = scanner.scan_eof(bytes) {
//!     let content = &bytes[verdict.content];
//!     seen.push((verdict.offset, verdict.kind, content, verdict.terminator));
//!     bytes = &bytes[verdict.consumed..];
//! }
//! assert_eq!(
//!     seen,
//!     [
//!         (0, Kind::Line, &b"ab"[..], Some(Terminator::CrLf)),
//!         (4, Kind::TooLong, b"far t", Some(Terminator::Lf)),
//!         (17, Kind::Unterminated, b"c", None),
//!     ]
//! );
//! ```
//!
//! **A scanner searches each byte once.** A byte that may be part of a terminator of N bytes is
//! searched at most N times. If a search finds no terminator, the next call continues where that
//! search stopped. A line that arrives one byte at a time therefore costs linear time, even while
//! the scanner skips it.
//!
//! A scanner remembers only the number of bytes it has searched. If the next slice is shorter than
//! that number, the scanner searches it from the start. No slice makes a scanner panic.

mod delimiter;
mod scanner;
#[cfg(feature = "codec")]
mod search;
#[cfg(test)]
mod tests;

#[cfg(feature = "codec")]
pub(crate) use delimiter::LastByte;
pub use delimiter::{ByteSet, Delimiter, InvalidDelimiter, Needle, Terminator};
#[cfg(feature = "codec")]
pub(crate) use scanner::Lines;
pub use scanner::{Kind, Scanner, Unterminated, Verdict};
