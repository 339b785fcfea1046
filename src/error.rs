//! Errors about one line or one counted block.
//!
//! `Display` and `Debug` of these errors print one line of printable ASCII, at most 200 bytes. They
//! never print a byte of the line.

use alloc::format;
use alloc::string::String;
use core::fmt;
use std::io;

use bytes::Bytes;

use crate::scan::Kind;

/// Implements `Debug`, `Error` and `From` for an error type. `Debug` prints the variant and the
/// message. It omits the fields, because they may hold bytes of the line.
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

/// A bad line or block: one that a decoder could not return as a good item. Requires the feature
/// `codec` (on by default).
///
/// A decoder returns this error as an item, and the next line follows. The decoder itself never
/// fails, because [`Framed`](tokio_util::codec::Framed) ends the stream after an error of its
/// decoder and leaves whole lines unread in its buffer.
///
/// `Display`, `Debug` and [`reply`](Self::reply) name the kind, lengths and limits. They never
/// contain a byte from the wire, so they are safe in logs and replies. The fields and
/// [`bytes`](Self::bytes) hold the bytes themselves.
///
/// The error converts into [`io::Error`] of kind `InvalidData`. A program that should stop at the
/// first bad line can therefore use `??`.
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::{LineCodec, LineError};
/// use tokio_util::codec::Decoder;
///
/// let mut codec = LineCodec::builder().max_length(4).build();
/// let bad = codec.decode(&mut BytesMut::from("far too long\n"))?.unwrap().unwrap_err();
/// assert!(matches!(bad, LineError::TooLong { max_length: 4, .. }));
/// assert_eq!(bad.to_string(), "line exceeds the limit of 4 bytes (max_length)");
/// assert_eq!(bad.bytes(), "far ");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// The content is longer than [`max_length`](crate::LineCodecBuilder::max_length). The decoder
    /// skips the rest, up to and including the terminator, in constant memory.
    #[non_exhaustive]
    TooLong {
        /// The first `max_length` bytes, not copied.
        prefix: Bytes,
        /// The limit that the line exceeded, in bytes of content.
        max_length: usize,
    },
    /// The stream ended before the terminator arrived.
    /// [`Unterminated::Deliver`](crate::Unterminated::Deliver) makes such a line a good line
    /// instead.
    #[non_exhaustive]
    Unterminated {
        /// The bytes that arrived.
        line: Bytes,
    },
    /// The line contains a CR without LF, or an LF without CR. Only
    /// [`Delimiter::CrLf`](crate::Delimiter::CrLf) reports this.
    #[non_exhaustive]
    BareTerminator {
        /// The content, up to the CRLF that ended the line.
        line: Bytes,
    },
    /// The line is not UTF-8, but the caller requested text.
    #[non_exhaustive]
    NotUtf8 {
        /// The content.
        line: Bytes,
        /// The length of the longest valid UTF-8 prefix, in bytes.
        valid_up_to: usize,
    },
    /// The stream ended before all bytes of a block arrived.
    /// [`expect_bytes`](crate::LineCodec::expect_bytes) requested the block.
    #[non_exhaustive]
    Incomplete {
        /// The bytes that arrived.
        bytes: Bytes,
        /// The number of bytes requested.
        expected: usize,
    },
}

impl LineError {
    /// Returns `content` if `kind` is good, otherwise the error for `kind`. `expected` is the
    /// requested length of an `Incomplete` block.
    #[inline]
    pub(crate) fn check(kind: Kind, content: Bytes, expected: usize) -> Result<Bytes, Self> {
        match kind {
            Kind::Line | Kind::Piece | Kind::Block => Ok(content),
            // The decoder has cut the content at the limit.
            Kind::TooLong => Err(Self::TooLong { max_length: content.len(), prefix: content }),
            Kind::Unterminated => Err(Self::Unterminated { line: content }),
            Kind::BareTerminator => Err(Self::BareTerminator { line: content }),
            Kind::Incomplete => Err(Self::Incomplete { bytes: content, expected }),
        }
    }

    /// Returns a line to send to the peer: `error: ` followed by the `Display` text. It contains no
    /// control character and no byte from the peer.
    ///
    /// The reply has at most 200 bytes. A codec with a smaller `max_length` refuses to write it. In
    /// that case set [`max_encoded_length`](crate::LineCodecBuilder::max_encoded_length) to 200.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let bad = LineCodec::new().decode_eof(&mut BytesMut::from("by"))?.unwrap().unwrap_err();
    /// assert_eq!(bad.reply(), "error: line of 2 bytes cut before its terminator");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn reply(&self) -> String {
        format!("error: {self}")
    }

    /// Returns the bytes of the line as they arrived. For `TooLong` these are the first
    /// `max_length` bytes; for `Unterminated` and `Incomplete`, the bytes before the end of the
    /// stream.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let bad = LineCodec::new().decode_eof(&mut BytesMut::from("by"))?.unwrap().unwrap_err();
    /// assert_eq!(bad.bytes(), "by");
    /// # std::io::Result::Ok(())
    /// ```
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
            Self::TooLong { .. } => write!(f, "line exceeds the limit of {length} (max_length)"),
            Self::Unterminated { .. } => write!(f, "line of {length} cut before its terminator"),
            Self::BareTerminator { .. } => {
                write!(f, "line of {length} with a CR or LF that is not part of a CRLF")
            }
            Self::NotUtf8 { valid_up_to, .. } => {
                write!(f, "line of {length} with invalid UTF-8 at byte {valid_up_to}")
            }
            Self::Incomplete { expected, .. } => {
                write!(f, "block of {} cut after {length}", Count(*expected))
            }
        }
    }
}

implement_error!(LineError, InvalidData, TooLong, Unterminated, BareTerminator, NotUtf8, Incomplete);

/// A line that the encoder refused to write. Requires the feature `codec` (on by default).
///
/// The encoder wrote nothing of the line, and the next line can be written. The error converts into
/// [`io::Error`] of kind `InvalidInput`; `downcast::<EncodeError>()` returns it from there.
/// `Display` and `Debug` never contain a byte of the line.
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::{EncodeError, LineCodec};
///
/// let mut buffer = BytesMut::new();
/// let refused = LineCodec::new().encode_line(b"a\nQUIT", &mut buffer).unwrap_err();
/// assert!(matches!(refused, EncodeError::ContainsTerminator { at: 1, .. }));
/// assert!(buffer.is_empty());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A decoder would not read the content back as one line. The content contains a terminator, or
    /// its end and the terminator together would be read differently. The latter is a CR at the end
    /// with `Newline`, or any CR or LF with `CrLf`.
    #[non_exhaustive]
    ContainsTerminator {
        /// The offset of the terminator, or of the part of one, in the line.
        at: usize,
    },
    /// The content is longer than
    /// [`max_encoded_length`](crate::LineCodecBuilder::max_encoded_length), which defaults to
    /// `max_length`.
    #[non_exhaustive]
    TooLong {
        /// The length of the content in bytes.
        length: usize,
        /// The limit in bytes.
        max_length: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ContainsTerminator { at } => {
                write!(f, "line contains a terminator, or part of one, at byte {at}; remove or escape it")
            }
            Self::TooLong { length, max_length } => {
                let (length, max_length) = (Count(length), Count(max_length));
                write!(f, "line of {length} exceeds the limit of {max_length} (max_encoded_length)")
            }
        }
    }
}

implement_error!(EncodeError, InvalidInput, ContainsTerminator, TooLong);

/// A block that [`expect_bytes`](crate::LineCodec::expect_bytes) refused. Requires the feature
/// `codec` (on by default).
///
/// The codec is unchanged. The error converts into [`io::Error`] of kind `InvalidInput`.
///
/// ```
/// use lineframe::{BlockError, LineCodec};
///
/// let mut codec = LineCodec::builder().max_block_length(1000).build();
/// let refused = codec.expect_bytes(2000).unwrap_err();
/// assert!(matches!(refused, BlockError::TooLong { asked: 2000, max: 1000, .. }));
/// codec.skip_bytes(2000); // continue with the line after the block
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockError {
    /// The block is longer than [`max_block_length`](crate::LineCodecBuilder::max_block_length).
    /// Skip it with [`skip_bytes`](crate::LineCodec::skip_bytes), or raise the limit.
    #[non_exhaustive]
    TooLong {
        /// The number of bytes requested.
        asked: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A block that was requested earlier is not complete. Read it first.
    #[non_exhaustive]
    Pending {
        /// The number of bytes requested.
        asked: usize,
    },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { asked, max } => {
                let (asked, max) = (Count(asked), Count(max));
                write!(f, "block of {asked} exceeds the limit of {max} (max_block_length)")
            }
            Self::Pending { asked } => {
                write!(f, "block of {} while another block is pending; read that one first", Count(asked))
            }
        }
    }
}

implement_error!(BlockError, InvalidInput, TooLong, Pending);

/// A number of bytes, displayed as `1 byte` or `2 bytes`.
struct Count(usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Text from the system or a caller, displayed so that it cannot control a terminal. It becomes one
/// line; characters that are not printable are escaped, as in `\n` or `\u{202e}`.
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
