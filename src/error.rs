//! What can be wrong with one line, or one block.
//!
//! `Display` and `Debug` of these errors are one line of printable ASCII, at most 200 bytes, and never show
//! a byte of the line.

use alloc::format;
use alloc::string::String;
use core::fmt;
use std::io;

use bytes::Bytes;

use crate::scan::Kind;

/// Implements what the errors have in common. `Debug` shows the variant and the message, and not the
/// fields, which may hold bytes of the line.
macro_rules! implement_error {
    ($error:ident, $kind:ident, $($variant:ident),*) => {
        impl fmt::Debug for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let variant = match self {
                    $(Self::$variant { .. } => stringify!($variant),)*
                };
                write!(f, "{variant}({self})")
            }
        }

        impl core::error::Error for $error {}

        impl From<$error> for io::Error {
            fn from(error: $error) -> Self {
                Self::new(io::ErrorKind::$kind, error)
            }
        }
    };
}

/// One line or counted block that could not be returned as it is. The stream continues: the next item is
/// the next line.
///
/// It is an item of a decoder, never its error. After an error,
/// [`Framed`](tokio_util::codec::Framed) ends the stream and leaves whole lines unread in its buffer.
///
/// `Display`, `Debug` and [`reply`](Self::reply) are one line of printable ASCII, at most 200 bytes: the
/// kind, lengths and limits. They never show a byte from the wire, so they are safe in logs and replies.
/// The bytes themselves are in the fields and in [`bytes`](Self::bytes).
///
/// Converts into [`io::Error`] of kind `InvalidData`, so that `??` ends a stream at its first bad line.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// The content is over the limit. The decoder skips its rest up to the terminator, in constant memory.
    /// [`LineCodecBuilder::max_length`](crate::LineCodecBuilder::max_length) sets the limit.
    #[non_exhaustive]
    TooLong {
        /// The first `max_length` bytes, not copied.
        prefix: Bytes,
        /// The limit in force, in bytes of content.
        max_length: usize,
    },
    /// The stream ended before the terminator arrived. With
    /// [`Unterminated::Deliver`](crate::Unterminated::Deliver) it would have been an ordinary line.
    #[non_exhaustive]
    Unterminated {
        /// The part that arrived.
        line: Bytes,
    },
    /// The line holds a CR without LF, or an LF without CR, in
    /// [`Delimiter::CrLf`](crate::Delimiter::CrLf).
    #[non_exhaustive]
    BareTerminator {
        /// The content, up to its CRLF.
        line: Bytes,
    },
    /// The line is not UTF-8, but text was asked for.
    #[non_exhaustive]
    NotUtf8 {
        /// The content.
        line: Bytes,
        /// The number of bytes at its front that are UTF-8.
        valid_up_to: usize,
    },
    /// The stream ended within the bytes that [`expect_bytes`](crate::LineCodec::expect_bytes) asked for.
    #[non_exhaustive]
    Incomplete {
        /// The part that arrived.
        bytes: Bytes,
        /// The number of bytes asked for.
        expected: usize,
    },
}

impl LineError {
    /// Returns an item of this kind: `content`, or an error with it if the kind is bad. `expected` is the
    /// length of an `Incomplete` block.
    #[inline]
    pub(crate) fn check(kind: Kind, content: Bytes, expected: usize) -> Result<Bytes, Self> {
        match kind {
            Kind::Line | Kind::Piece | Kind::Block => Ok(content),
            // The content was cut at the limit.
            Kind::TooLong => Err(Self::TooLong { max_length: content.len(), prefix: content }),
            Kind::Unterminated => Err(Self::Unterminated { line: content }),
            Kind::BareTerminator => Err(Self::BareTerminator { line: content }),
            Kind::Incomplete => Err(Self::Incomplete { bytes: content, expected }),
        }
    }

    /// Returns a line to answer the peer with: `error: ` and what `Display` shows. It holds no CR, LF or
    /// other control character, and none of the peer's bytes.
    ///
    /// It has up to 200 bytes. A codec whose `max_length` is smaller refuses to write it, unless
    /// [`max_encoded_length`](crate::LineCodecBuilder::max_encoded_length) allows it.
    pub fn reply(&self) -> String {
        format!("error: {self}")
    }

    /// Returns the bytes of the line, or of the part of it that is kept, as they arrived.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::TooLong { prefix, .. } => prefix,
            Self::Unterminated { line } | Self::BareTerminator { line } | Self::NotUtf8 { line, .. } => line,
            Self::Incomplete { bytes, .. } => bytes,
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = Count(self.bytes().len());
        match self {
            Self::TooLong { .. } => write!(f, "line of more than {length}, the limit (max_length)"),
            Self::Unterminated { .. } => write!(f, "line of {length} cut before its terminator"),
            Self::BareTerminator { .. } => {
                write!(f, "line of {length} with a CR or LF that is not part of a CRLF")
            }
            Self::NotUtf8 { valid_up_to, .. } => {
                write!(f, "line of {length} that is not UTF-8 from byte {valid_up_to} on")
            }
            Self::Incomplete { expected, .. } => {
                write!(f, "block of {} cut after {length}", Count(*expected))
            }
        }
    }
}

implement_error!(LineError, InvalidData, TooLong, Unterminated, BareTerminator, NotUtf8, Incomplete);

/// A line that the encoder refused. Nothing of it was written, and the sink continues: send another.
///
/// Converts into [`io::Error`] of kind `InvalidInput`, in which `downcast::<EncodeError>()` finds it.
/// `Display` and `Debug` never show a byte of the line.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The line would not be read back as one line. It holds a terminator, or ends in what would be read as
    /// part of one (a CR in `Newline`, any CR or LF in `CrLf`).
    #[non_exhaustive]
    ContainsTerminator {
        /// The offset of that in the line.
        at: usize,
    },
    /// The line is over the limit for lines written:
    /// [`max_encoded_length`](crate::LineCodecBuilder::max_encoded_length), or `max_length` if that is not
    /// set.
    #[non_exhaustive]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in force.
        max_length: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ContainsTerminator { at } => write!(
                f,
                "line would not be read back as one: it holds a terminator, or part of one, at byte {at}"
            ),
            Self::TooLong { length, max_length } => {
                write!(f, "line of {} is longer than the limit of {}", Count(length), Count(max_length))
            }
        }
    }
}

implement_error!(EncodeError, InvalidInput, ContainsTerminator, TooLong);

/// A block that [`expect_bytes`](crate::LineCodec::expect_bytes) refused. Nothing has changed.
///
/// Converts into [`io::Error`] of kind `InvalidInput`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The block is over the limit. Skip it with [`skip_bytes`](crate::LineCodec::skip_bytes), or raise
    /// [`max_block_length`](crate::LineCodecBuilder::max_block_length).
    #[non_exhaustive]
    TooLong {
        /// The number of bytes asked for.
        asked: usize,
        /// The limit in force.
        max: usize,
    },
    /// Another block has not arrived yet.
    #[non_exhaustive]
    Pending {
        /// The number of bytes asked for.
        asked: usize,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { asked, max } => {
                let (asked, max) = (Count(asked), Count(max));
                write!(f, "block of {asked} is longer than the limit of {max} (max_block_length)")
            }
            Self::Pending { asked } => {
                write!(f, "block of {} while another block is pending", Count(asked))
            }
        }
    }
}

implement_error!(BlockError, InvalidInput, TooLong, Pending);

/// Displays a number of bytes.
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Displays text from the system or a caller as one line that cannot control a terminal: characters that
/// are not printable are escaped, as in `\n` or `\u{202e}`.
#[cfg(feature = "net")]
pub(crate) struct Escaped<T>(pub(crate) T);

#[cfg(feature = "net")]
impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format!("{}", self.0).chars().try_for_each(|character| match character {
            '"' | '\'' | '\\' => write!(f, "{character}"),
            character => write!(f, "{}", character.escape_debug()),
        })
    }
}
