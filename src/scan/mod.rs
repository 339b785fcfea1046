//! Finds where lines end: the core of every codec of this crate.
//!
//! A [`Scanner`] is shown the bytes that a stream has delivered so far and returns a [`Verdict`]: how many
//! of them are one line, how that line ended, and how many to remove before the next call. It does no I/O,
//! owns no buffer and keeps no bytes. It needs `core`, `alloc` and memchr, nothing else:
//! `default-features = false` leaves just this module.
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
//! **Each byte is searched once**; a byte that may be part of a longer terminator at most as often as the
//! terminator is long. A scanner that found no terminator continues where it stopped, so a line that arrives
//! one byte at a time costs linear time, also while it is skipped. The scanner only remembers how many bytes
//! it has searched. If that number does not fit the bytes shown, it starts again: no slice makes it panic.

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
