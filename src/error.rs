//! What can be wrong with one line: [`LineError`] when it is read, [`EncodeError`] when it is to be written.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write as _};
use std::io;

use bytes::Bytes;

/// One line, or one counted block, that could not be handed over as it is. The stream goes on: the next item is the next
/// line.
///
/// An item of a decoder, never its error: [`Framed`](tokio_util::codec::Framed) ends a stream at an error and leaves whole
/// lines unread behind it.
///
/// `Display`, `Debug` and [`reply`](Self::reply) are one line of printable ASCII, at most 200 bytes, with kinds, lengths
/// and limits in it and never a byte that came over the wire: logs and replies cannot be injected into. The bytes
/// themselves are in the fields and in [`bytes`](Self::bytes).
///
/// Converts into [`io::Error`] of kind `InvalidData`, so that `??` ends a stream at its first bad line.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// The content is over the limit. Its rest is skipped, in memory that does not grow, up to its terminator; raise the
    /// limit with [`LineCodecBuilder::max_length`](crate::LineCodecBuilder::max_length).
    #[non_exhaustive]
    TooLong {
        /// The first `max_length` bytes, not copied.
        prefix: Bytes,
        /// The limit in force, in bytes of content.
        max_length: usize,
    },
    /// The stream ended before the terminator came. With [`Unterminated::Deliver`](crate::Unterminated::Deliver) it
    /// would have been an ordinary line.
    #[non_exhaustive]
    Unterminated {
        /// What had come of it.
        line: Bytes,
    },
    /// A CR without LF, or an LF without CR, stands in the line, where only CRLF ends one:
    /// [`Delimiter::CrLf`](crate::Delimiter::CrLf).
    #[non_exhaustive]
    BareTerminator {
        /// The content, up to its CRLF.
        line: Bytes,
    },
    /// The line is not UTF-8, where text was asked for.
    #[non_exhaustive]
    NotUtf8 {
        /// The content.
        line: Bytes,
        /// So many bytes at its front are UTF-8.
        valid_up_to: usize,
    },
    /// The stream ended within the bytes that [`expect_bytes`](crate::LineCodec::expect_bytes) asked for.
    #[non_exhaustive]
    Incomplete {
        /// What had come of them.
        bytes: Bytes,
        /// How many were to come.
        expected: usize,
    },
}

impl LineError {
    /// A line to answer the peer with: `error: ` and what `Display` gives. It holds no CR, LF or other control character
    /// and none of the peer's bytes.
    ///
    /// It has up to 200 bytes. A codec whose `max_length` is smaller refuses to write it, as any other long line, unless
    /// [`max_encoded_length`](crate::LineCodecBuilder::max_encoded_length) leaves room for it.
    pub fn reply(&self) -> String {
        format!("error: {self}")
    }

    /// The bytes of the line, or of the part of it that is kept, as they came.
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
        match self {
            Self::TooLong { max_length, .. } => {
                write!(f, "line of more than {max_length} bytes, the limit (max_length)")
            }
            Self::Unterminated { line } => {
                write!(f, "line of {} bytes cut before its terminator", line.len())
            }
            Self::BareTerminator { line } => {
                write!(f, "line of {} bytes with a CR or LF that is not part of a CRLF", line.len())
            }
            Self::NotUtf8 { line, valid_up_to } => {
                write!(f, "line of {} bytes that is not UTF-8 from byte {valid_up_to} on", line.len())
            }
            Self::Incomplete { bytes, expected } => {
                write!(f, "block of {expected} bytes cut after {} bytes", bytes.len())
            }
        }
    }
}

impl fmt::Debug for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::TooLong { .. } => "TooLong",
            Self::Unterminated { .. } => "Unterminated",
            Self::BareTerminator { .. } => "BareTerminator",
            Self::NotUtf8 { .. } => "NotUtf8",
            Self::Incomplete { .. } => "Incomplete",
        };
        write!(f, "{kind}({self})")
    }
}

impl core::error::Error for LineError {}

impl From<LineError> for io::Error {
    fn from(error: LineError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// A line that was refused for writing. Nothing of it was written and the sink goes on: send another.
///
/// `Display` and `Debug` are one line of printable ASCII, at most 200 bytes, without a byte of the line. Converts into
/// [`io::Error`] of kind `InvalidInput`; [`Io`](Self::Io) into the error within.
#[non_exhaustive]
pub enum EncodeError {
    /// It would not come back as it is: it holds what ends a line, or an end that with the terminator behind it would be
    /// read differently (in `Newline` a CR, in `CrLf` any CR or LF).
    #[non_exhaustive]
    ContainsTerminator {
        /// Where that stands in the line, counted from 0.
        at: usize,
    },
    /// It is over the limit for lines written:
    /// [`max_encoded_length`](crate::LineCodecBuilder::max_encoded_length), or `max_length` where that is not set.
    #[non_exhaustive]
    TooLong {
        /// How many bytes it has.
        length: usize,
        /// The limit in force.
        max_length: usize,
    },
    /// The stream failed. Every `Encoder::Error` has to be able to carry this one; the encoders here never give it.
    Io(io::Error),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContainsTerminator { at } => {
                write!(
                    f,
                    "line would not be read back as one: it holds a terminator, or part of one, at byte {at}"
                )
            }
            Self::TooLong { length, max_length } => {
                write!(f, "line of {length} bytes is longer than the limit of {max_length} bytes")
            }
            Self::Io(error) => OneLine { room: 160, out: f }.write_fmt(format_args!("{error}")),
        }
    }
}

impl fmt::Debug for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::ContainsTerminator { .. } => "ContainsTerminator",
            Self::TooLong { .. } => "TooLong",
            Self::Io(_) => "Io",
        };
        write!(f, "{kind}({self})")
    }
}

impl core::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::ContainsTerminator { .. } | Self::TooLong { .. } => None,
        }
    }
}

impl From<io::Error> for EncodeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<EncodeError> for io::Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Io(error) => error,
            refused => Self::new(io::ErrorKind::InvalidInput, refused),
        }
    }
}

/// [`expect_bytes`](crate::LineCodec::expect_bytes) refused; nothing has changed. Skip the block with
/// [`skip_bytes`](crate::LineCodec::skip_bytes), or raise
/// [`max_block_length`](crate::LineCodecBuilder::max_block_length).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TooManyBytes {
    /// How many bytes were asked for.
    pub asked: usize,
    /// How many could have been: `max_block_length`, and 0 while a block is still to come.
    pub max: usize,
}

impl fmt::Display for TooManyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { asked, max: 0 } => {
                write!(f, "block of {asked} bytes while another is still to come, or none may come")
            }
            Self { asked, max } => {
                write!(f, "block of {asked} bytes is longer than the limit of {max} bytes (max_block_length)")
            }
        }
    }
}

impl fmt::Debug for TooManyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TooManyBytes({self})")
    }
}

impl core::error::Error for TooManyBytes {}

impl From<TooManyBytes> for io::Error {
    fn from(error: TooManyBytes) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// Writes what the system or a caller said as one line of printable ASCII, at most `room` bytes of it.
struct OneLine<'a, 'b> {
    room: usize,
    out: &'a mut fmt::Formatter<'b>,
}

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, said: &str) -> fmt::Result {
        for escaped in said.chars().map(char::escape_default) {
            let length = escaped.len();
            if length > self.room {
                self.room = 0;
                return Ok(());
            }
            self.room -= length;
            write!(self.out, "{escaped}")?;
        }
        Ok(())
    }
}
