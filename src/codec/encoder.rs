use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::error::EncodeError;
use crate::scan::{Delimiter, LastByte};

/// An encoder that appends lines to a buffer, independent of a codec. Requires the feature `codec`
/// (on by default).
///
/// [`LineCodec::encoder`](crate::LineCodec::encoder) and the `encoder` methods of other codecs
/// create it. Clones are cheap and share the configuration.
///
/// Use it to write replies from slices inside `Framed`. `Framed` cannot lend its codec and its
/// write buffer at the same time, so the encoder writes into the buffer instead. With
/// [`BatchCodec`](crate::BatchCodec) this is the fastest way to reply: `feed` needs an owned
/// `Bytes` for each reply and copies it into the same buffer.
///
/// ```
/// use futures::{SinkExt, TryStreamExt};
/// use lineframe::BatchCodec;
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (mut peer, io) = tokio::io::duplex(4096);
/// # tokio::io::AsyncWriteExt::write_all(&mut peer, b"one\ntwo\n").await?;
/// # tokio::io::AsyncWriteExt::shutdown(&mut peer).await?;
/// let mut framed = Framed::new(io, BatchCodec::new());
/// let encoder = framed.codec().encoder();
/// let mut reply = Vec::new();
/// while let Some(batch) = framed.try_next().await? {
///     for line in &batch {
///         reply.clear();
///         match line {
///             Ok(line) => reply.extend(line.iter().map(u8::to_ascii_uppercase)),
///             Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()),
///         }
///         encoder.encode_line(&reply, framed.write_buffer_mut())?;
///     }
///     framed.flush().await?; // one write for all replies to a read
/// }
/// # let mut replies = String::new();
/// # drop(framed);
/// # tokio::io::AsyncReadExt::read_to_string(&mut peer, &mut replies).await?;
/// # assert_eq!(replies, "ONE\nTWO\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LineEncoder(Arc<Config>);

/// Shared by clones of an encoder until one of them changes it.
#[derive(Clone, Debug)]
struct Config {
    delimiter: Delimiter,
    write_crlf: bool,
    /// `usize::MAX` means no limit.
    max_length: usize,
    /// Whether `max_length` follows the limit of the decoder.
    follows_decoder: bool,
    /// The terminator, if it is a single byte that ends a line wherever it occurs.
    last_byte: Option<LastByte>,
}

impl LineEncoder {
    pub(super) fn new(
        delimiter: Delimiter,
        write_crlf: bool,
        max_length: usize,
        max_encoded_length: Option<usize>,
    ) -> Self {
        let mut config = Config {
            delimiter,
            write_crlf,
            max_length: max_encoded_length.unwrap_or(max_length),
            follows_decoder: max_encoded_length.is_none(),
            last_byte: None,
        };
        config.last_byte = config.delimiter.last_byte().filter(|last| config.terminator() == [last.byte]);
        Self(Arc::new(config))
    }

    /// Appends `line` and a terminator to `dst`.
    ///
    /// A decoder with the same configuration reads every accepted line back unchanged.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    ///
    /// let encoder = LineCodec::new().encoder();
    /// let mut buffer = BytesMut::new();
    /// encoder.encode_line(b"hello", &mut buffer)?;
    /// assert!(encoder.encode_line(b"two\nlines", &mut buffer).is_err());
    /// assert_eq!(buffer, "hello\n");
    /// # Ok::<(), lineframe::EncodeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`EncodeError::TooLong`] if the line exceeds the limit, otherwise
    /// [`EncodeError::ContainsTerminator`] if a decoder would not read it back as one line. In both
    /// cases `dst` is unchanged.
    #[inline]
    pub fn encode_line(&self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        let Config { max_length, last_byte, .. } = &*self.0;
        if line.len() > *max_length {
            return Err(EncodeError::TooLong { length: line.len(), max_length: *max_length });
        }
        match *last_byte {
            // Inlined, because most lines need no more than this.
            Some(last_byte) if last_byte.conflict(line).is_none() => {
                dst.reserve(line.len() + 1);
                dst.extend_from_slice(line);
                dst.put_u8(last_byte.byte);
                Ok(())
            }
            _ => self.encode_any_line(line, dst),
        }
    }

    #[inline(never)]
    fn encode_any_line(&self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        let start = dst.len();
        dst.reserve(line.len() + self.terminator().len());
        dst.extend_from_slice(line);
        self.end_line(start, dst)
    }

    /// Appends a terminator to the line that starts at `start` in `dst`. If the line is refused,
    /// truncates `dst` to `start`.
    #[inline]
    pub(crate) fn end_line(&self, start: usize, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let end = dst.len();
        let (length, max_length) = (end - start, self.0.max_length);
        if length > max_length {
            dst.truncate(start);
            return Err(EncodeError::TooLong { length, max_length });
        }
        match *self.terminator() {
            // Faster than a call of `extend_from_slice`.
            [byte] => dst.put_u8(byte),
            ref bytes => dst.extend_from_slice(bytes),
        }
        match self.0.delimiter.conflict(&dst[start..end], &dst[start..]) {
            None => Ok(()),
            Some(at) => {
                dst.truncate(start);
                Err(EncodeError::ContainsTerminator { at })
            }
        }
    }

    /// Returns the bytes that are written after each line.
    ///
    /// ```
    /// use lineframe::{Delimiter, LineCodec};
    ///
    /// let encoder = LineCodec::builder().delimiter(Delimiter::CrLf).build().encoder();
    /// assert_eq!(encoder.terminator(), b"\r\n");
    /// ```
    #[inline]
    pub fn terminator(&self) -> &[u8] {
        self.0.terminator()
    }

    /// Returns the limit for the content of a line, in bytes. `None` means no limit.
    ///
    /// ```
    /// assert_eq!(lineframe::LineCodec::new().encoder().max_length(), Some(65_536));
    /// ```
    pub fn max_length(&self) -> Option<usize> {
        Some(self.0.max_length).filter(|max_length| *max_length < usize::MAX)
    }

    /// Adopts the limit of the decoder, unless this encoder has its own limit.
    pub(crate) fn set_max_length(&mut self, max_length: usize) {
        if self.0.follows_decoder {
            Arc::make_mut(&mut self.0).max_length = max_length;
        }
    }
}

impl Config {
    #[inline]
    fn terminator(&self) -> &[u8] {
        match &self.delimiter {
            Delimiter::Newline if self.write_crlf => b"\r\n",
            delimiter => delimiter.written(),
        }
    }
}
