use super::LineCodec;
use crate::scan::{Delimiter, Unterminated};

/// Where none is set.
pub(super) const MAX_BLOCK_LENGTH: usize = 1024 * 1024;

/// Configures a [`LineCodec`], and by `From<LineCodec>` each of the other codecs. Made by [`LineCodec::builder`].
///
/// ```
/// use lineframe::{Delimiter, LineCodec};
///
/// let smtp = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(998).build();
/// assert_eq!(smtp.max_length(), 998);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LineCodecBuilder {
    pub(super) delimiter: Delimiter,
    pub(super) max_length: usize,
    pub(super) max_encoded_length: Option<usize>,
    pub(super) write_crlf: bool,
    pub(super) max_block_length: usize,
    pub(super) unterminated: Unterminated,
}

impl LineCodecBuilder {
    pub(super) fn new() -> Self {
        Self {
            delimiter: Delimiter::Newline,
            max_length: 64 * 1024,
            max_encoded_length: None,
            write_crlf: false,
            max_block_length: MAX_BLOCK_LENGTH,
            unterminated: Unterminated::Report,
        }
    }

    /// What ends a line. Default: [`Delimiter::Newline`].
    pub fn delimiter(self, delimiter: Delimiter) -> Self {
        Self { delimiter, ..self }
    }

    /// The limit for a line's content, in bytes, its terminator not counted. Default: 65,536. A line of exactly so many
    /// bytes passes; a longer one is a [`LineError::TooLong`](crate::LineError::TooLong). 0 lets only empty lines pass.
    ///
    /// This bounds the memory of a connection: a decoder holds at most so many bytes and one read (up to 64 KiB, of a
    /// `Connection` 128) of a line under way, in a buffer of at most twice that.
    pub fn max_length(self, content_bytes: usize) -> Self {
        Self { max_length: content_bytes, ..self }
    }

    /// No limit for lines read, nor for lines written where
    /// [`max_encoded_length`](Self::max_encoded_length) does not set one.
    ///
    /// **Warning:** a peer that sends no terminator then fills the memory of the process. For input that is trusted,
    /// such as a file of one's own. For lines longer than memory there is [`FragmentCodec`](crate::FragmentCodec).
    pub fn without_max_length(self) -> Self {
        self.max_length(usize::MAX)
    }

    /// The limit for the content of a line written, in bytes, where it is not to be `max_length`: replies that may be
    /// longer than requests, such as error lines (200 bytes, [`LineError::reply`](crate::LineError::reply)) under a small
    /// limit. A line over it is an [`EncodeError::TooLong`](crate::EncodeError::TooLong). The same codec
    /// at the other end refuses what is over its own `max_length`.
    pub fn max_encoded_length(self, content_bytes: usize) -> Self {
        Self { max_encoded_length: Some(content_bytes), ..self }
    }

    /// Write `\r\n` with [`Delimiter::Newline`], which reads both: IRC, POP3, RESP. Default: `\n`. The other delimiters
    /// write what they read, whatever is set here.
    pub fn write_crlf(self, yes: bool) -> Self {
        Self { write_crlf: yes, ..self }
    }

    /// The largest block that [`LineCodec::expect_bytes`] accepts, in bytes. Default: 1 MiB. Such a block is held in
    /// memory until it is whole.
    pub fn max_block_length(self, bytes: usize) -> Self {
        Self { max_block_length: bytes, ..self }
    }

    /// What becomes of bytes behind the last terminator at the end of the stream. Default: [`Unterminated::Report`].
    pub fn unterminated(self, unterminated: Unterminated) -> Self {
        Self { unterminated, ..self }
    }

    /// The codec, at the start of a stream.
    pub fn build(self) -> LineCodec {
        LineCodec::from_builder(self)
    }
}
