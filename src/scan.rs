//! Where lines end: the core that every codec of this crate stands on.
//!
//! A [`Scanner`] is shown the bytes that a stream has brought so far and answers with a [`Verdict`]: how many of them are
//! one line, how that line ended, how many to take away before asking again. It does no I/O, owns no buffer, keeps no
//! bytes, and needs `core`, `alloc` and memchr, nothing else: `default-features = false` leaves just this module.
//!
//! ```
//! use lineframe::scan::{Delimiter, Kind, Scanner, Terminator, Unterminated};
//!
//! let mut scanner = Scanner::new(Delimiter::Newline, 5, Unterminated::Report);
//! let mut bytes = &b"ab\r\nfar too long\nc"[..];
//! let mut seen = Vec::new();
//! while let Some(verdict) = scanner.scan_eof(bytes) {
//!     seen.push((verdict.offset, verdict.kind, &bytes[verdict.content.clone()], verdict.terminator));
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
//! **Each byte is searched once**, a byte that may be part of a longer terminator at most as often as the terminator is
//! long: a scanner that found no terminator goes on where it stopped, so a line that arrives in one-byte pieces costs
//! linear time, while it is skipped too. What it remembers is a number, and a number that does not fit the bytes it is
//! shown is dropped: no slice makes it panic.

mod delimiter;
#[cfg(feature = "codec")]
mod positions;
mod scanner;
#[cfg(test)]
mod tests;

pub use delimiter::{ByteSet, Delimiter, InvalidDelimiter, Needle, Terminator};
pub use scanner::{Kind, Scanner, Unterminated, Verdict};
