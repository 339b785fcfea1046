use core::marker::PhantomData;

use super::decoder::{LineDecoder, MAX_BLOCK_LENGTH};
use super::encoder::LineEncoder;
use super::line::LineCodec;
use super::read_size::ReadSize;
use crate::scan::{Delimiter, Scanner, Unterminated};

/// A builder for [`LineCodec`] and every other codec, returned by their `builder` methods. Requires
/// the feature `codec` (on by default).
///
/// ```
/// use lineframe::{Delimiter, LineCodec};
///
/// let smtp = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(998).build();
/// assert_eq!(smtp.max_length(), Some(998));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LineCodecBuilder<C = LineCodec> {
    delimiter: Delimiter,
    /// `usize::MAX` means no limit.
    max_length: usize,
    /// `None` means `max_length`.
    max_encoded_length: Option<usize>,
    write_crlf: bool,
    max_block_length: usize,
    unterminated: Unterminated,
    codec: PhantomData<C>,
}

impl<C: From<LineCodec>> LineCodecBuilder<C> {
    pub(super) fn new() -> Self {
        Self {
            delimiter: Delimiter::Newline,
            max_length: 64 * 1024,
            max_encoded_length: None,
            write_crlf: false,
            max_block_length: MAX_BLOCK_LENGTH,
            unterminated: Unterminated::Report,
            codec: PhantomData,
        }
    }

    /// Sets what ends a line. The default is [`Delimiter::Newline`].
    ///
    /// ```
    /// use lineframe::{Delimiter, LineCodec};
    ///
    /// let codec = LineCodec::builder().delimiter(Delimiter::Byte(0)).build();
    /// assert_eq!(codec.delimiter(), &Delimiter::Byte(0));
    /// ```
    pub fn delimiter(self, delimiter: Delimiter) -> Self {
        Self { delimiter, ..self }
    }

    /// Sets the limit for the content of a line, in bytes, without its terminator. The default is
    /// 65,536.
    ///
    /// A line of exactly this length is accepted. A longer line is a
    /// [`LineError::TooLong`](crate::LineError::TooLong). With 0, only empty lines are accepted.
    ///
    /// The limit also bounds the memory of a stream. A decoder holds at most this many bytes of a
    /// line plus one read, which has at most 64 KiB, or 128 KiB for a `Connection`. Its buffer is
    /// at most twice that size.
    ///
    /// **Warning:** `None` means no limit. A peer that sends no terminator can then exhaust the
    /// memory of the process. Use it only for trusted input, such as your own files. For lines
    /// longer than memory, use [`FragmentCodec`](crate::FragmentCodec).
    ///
    /// ```
    /// let codec = lineframe::LineCodec::builder().max_length(1024).build();
    /// assert_eq!(codec.max_length(), Some(1024));
    /// ```
    pub fn max_length(self, content_bytes: impl Into<Option<usize>>) -> Self {
        Self { max_length: content_bytes.into().unwrap_or(usize::MAX), ..self }
    }

    /// Sets the limit for the content of a written line, in bytes. `None` means no limit. The
    /// default is `max_length`.
    ///
    /// Use this if replies may be longer than requests. For example, the replies of
    /// [`LineError::reply`](crate::LineError::reply) have up to 200 bytes. A longer line is an
    /// [`EncodeError::TooLong`](crate::EncodeError::TooLong). The peer may still refuse a line that
    /// exceeds its own limit.
    ///
    /// ```
    /// let codec = lineframe::LineCodec::builder().max_length(80).max_encoded_length(200).build();
    /// assert_eq!(codec.encoder().max_length(), Some(200));
    /// ```
    pub fn max_encoded_length(self, content_bytes: impl Into<Option<usize>>) -> Self {
        Self { max_encoded_length: Some(content_bytes.into().unwrap_or(usize::MAX)), ..self }
    }

    /// Sets whether [`Delimiter::Newline`] writes `\r\n` instead of `\n`. The default is `false`.
    ///
    /// Use this for IRC, POP3 and RESP. `Newline` reads both line ends. Other delimiters ignore
    /// this option.
    ///
    /// ```
    /// let codec = lineframe::LineCodec::builder().write_crlf(true).build();
    /// assert_eq!(codec.encoder().terminator(), b"\r\n");
    /// ```
    pub fn write_crlf(self, yes: bool) -> Self {
        Self { write_crlf: yes, ..self }
    }

    /// Sets the limit for the blocks of [`LineCodec::expect_bytes`], in bytes. `None` means no
    /// limit. The default is 1 MiB.
    ///
    /// The decoder holds a block in memory until it is complete.
    ///
    /// ```
    /// let mut codec = lineframe::LineCodec::builder().max_block_length(1000).build();
    /// assert!(codec.expect_bytes(1001).is_err());
    /// ```
    pub fn max_block_length(self, bytes: impl Into<Option<usize>>) -> Self {
        Self { max_block_length: bytes.into().unwrap_or(usize::MAX), ..self }
    }

    /// Sets the policy for bytes after the last terminator at the end of the stream. The default is
    /// [`Unterminated::Report`].
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::{LineCodec, Unterminated};
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = LineCodec::builder().unterminated(Unterminated::Deliver).build();
    /// assert_eq!(codec.decode_eof(&mut BytesMut::from("last"))?.unwrap().unwrap(), "last");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn unterminated(self, unterminated: Unterminated) -> Self {
        Self { unterminated, ..self }
    }

    /// Returns the codec, at the start of a stream.
    ///
    /// ```
    /// use lineframe::{LineCodec, LineCodecBuilder};
    ///
    /// let builder: LineCodecBuilder = LineCodec::builder();
    /// let codec: LineCodec = builder.build();
    /// ```
    pub fn build(self) -> C {
        let Self { delimiter, max_length, max_encoded_length, write_crlf, .. } = self;
        let encoder = LineEncoder::new(delimiter.clone(), write_crlf, max_length, max_encoded_length);
        let scanner = Scanner::new(delimiter, max_length, self.unterminated);
        let decoder = LineDecoder::new(scanner, self.max_block_length);
        C::from(LineCodec { decoder, read_size: ReadSize::new(), encoder })
    }
}
