use core::marker::PhantomData;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::counters::CodecCounters;
use super::decoder::{LineDecoder, MAX_BLOCK_LENGTH};
use super::encoder::LineEncoder;
use super::item::Item;
use super::read_size::ReadSize;
use crate::error::{BlockError, EncodeError, LineError};
use crate::scan::{Delimiter, Scanner, Unterminated};

/// Implements what the codecs over a `line: LineCodec` have in common. Their `next` decodes an item.
macro_rules! implement_codec {
    ($codec:ident, $item:ty, $of:literal) => {
        impl $codec {
            /// Returns a codec for [`Delimiter::Newline`](crate::Delimiter::Newline) and
            #[doc = $of]
            /// of at most 64 KiB.
            pub fn new() -> Self {
                Self::default()
            }

            /// Returns a builder, which sets the delimiter, limits and more.
            pub fn builder() -> LineCodecBuilder<Self> {
                LineCodecBuilder::new()
            }

            /// Returns what became of the bytes read so far: those of all items returned.
            pub fn counters(&self) -> CodecCounters {
                self.line.counters()
            }
        }

        impl core::fmt::Debug for $codec {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($codec)).field("line", &self.line).finish_non_exhaustive()
            }
        }

        /// Continues after the last item.
        impl From<$codec> for LineCodec {
            fn from(codec: $codec) -> Self {
                codec.line
            }
        }

        impl Decoder for $codec {
            type Item = $item;
            /// The decoder never returns it.
            type Error = io::Error;

            #[inline]
            fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<$item>> {
                Ok(self.next(src, false))
            }

            fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<$item>> {
                Ok(self.next(src, true))
            }
        }
    };
}
pub(super) use implement_codec;

/// Decodes a byte stream into lines as `Bytes`, and encodes lines.
///
/// An item is `Result<Bytes, LineError>`: a line that is too long, cut, or badly terminated is an item too,
/// and the next line follows it. The decoder itself never fails, so an error of
/// [`Framed`](tokio_util::codec::Framed) is the stream's own.
///
/// ```
/// use futures::{SinkExt, TryStreamExt};
/// use lineframe::LineCodec;
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (mut peer, io) = tokio::io::duplex(4096);
/// # tokio::io::AsyncWriteExt::write_all(&mut peer, b"hello\r\nfar too long a line\nworld\n").await?;
/// # drop(peer);
/// let mut lines = Framed::new(io, LineCodec::builder().max_length(10).build());
/// # let mut seen = Vec::new();
/// while let Some(line) = lines.try_next().await? {
///     # seen.push(line.is_ok());
///     match line {
///         Ok(line) => println!("{line:?}"), // b"hello", b"world"
///         Err(bad) => println!("{bad}"),    // line of more than 10 bytes, the limit (max_length)
///     }
/// }
/// # assert_eq!(seen, [true, false, true]);
/// # Ok(())
/// # }
/// ```
///
/// `while let Some(Ok(line)) = ..` compiles, but ends at the first bad line: match the inner result, or let
/// it end the stream with `??`.
///
/// Lines are cut from the read buffer without a copy or an allocation. A line that you keep also keeps that
/// buffer (8 to 64 KiB) in memory; `Bytes::copy_from_slice(&line)` releases it.
///
/// # Where other line readers differ
///
#[doc = include_str!("../../docs/decisions.md")]
#[derive(Clone, Debug)]
pub struct LineCodec {
    pub(super) decoder: LineDecoder,
    pub(super) read_size: ReadSize,
    pub(super) encoder: LineEncoder,
}

impl LineCodec {
    /// Returns a codec for [`Delimiter::Newline`] and lines of at most 64 KiB. It reports a cut last line.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder, which sets the delimiter, limits and more.
    pub fn builder() -> LineCodecBuilder {
        LineCodecBuilder::new()
    }

    /// Returns the writing side as a value of its own: [`LineEncoder`].
    pub fn encoder(&self) -> LineEncoder {
        self.encoder.clone()
    }

    /// Appends `line` and its terminator to `dst`: what the [`Encoder`] does, from a slice.
    ///
    /// A decoder of the same configuration reads every accepted line back as it was.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] if the line is over the limit, otherwise [`EncodeError::ContainsTerminator`]
    /// if it would not be read back as one line. `dst` is then unchanged.
    #[inline]
    pub fn encode_line(&mut self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.encoder.encode_line(line, dst)
    }

    /// Makes the next item the `count` bytes after the last item's line, whatever they hold.
    ///
    /// After a `TooLong` line they are those after its terminator. Bytes that are already buffered are part
    /// of them, and nothing beyond them is consumed. A `count` of 0 is an empty item, which is available
    /// immediately. Then lines follow again. Memcached, NATS and RESP write a line end after a block, which
    /// arrives as an empty line: check that it is empty.
    ///
    /// Call this between items only: with [`Framed`](tokio_util::codec::Framed), through `codec_mut()`,
    /// before it is polled again. If the stream ends before the last of the bytes, the item is
    /// [`LineError::Incomplete`].
    ///
    /// To write a block, append it to `framed.write_buffer_mut()`: the encoder would refuse line ends in it.
    /// The next `feed` or `flush` sends it.
    ///
    /// # Errors
    ///
    /// [`BlockError::TooLong`] if `count` is over [`max_block_length`](LineCodecBuilder::max_block_length),
    /// [`BlockError::Pending`] if another block has not arrived yet. Nothing has changed then. No memory is
    /// reserved for bytes that a peer only announces. To continue after a block that is too large, call
    /// [`skip_bytes`](Self::skip_bytes).
    ///
    /// ```
    /// use bytes::Bytes;
    /// use futures::{SinkExt, TryStreamExt};
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Framed;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (mut peer, io) = tokio::io::duplex(4096);
    /// # tokio::io::AsyncWriteExt::write_all(&mut peer, b"set key 4\r\na\r\nb\r\nget key\r\n").await?;
    /// let mut framed = Framed::new(io, LineCodec::new());
    /// /// Returns the next item, which has to be a good one.
    /// async fn next<T: tokio::io::AsyncRead + Unpin>(lines: &mut Framed<T, LineCodec>) -> std::io::Result<Bytes> {
    ///     Ok(lines.try_next().await?.ok_or(std::io::ErrorKind::UnexpectedEof)??)
    /// }
    /// assert_eq!(next(&mut framed).await?, "set key 4");
    /// framed.codec_mut().expect_bytes(4)?;
    /// let value = next(&mut framed).await?;
    /// assert_eq!(value, "a\r\nb");
    /// assert_eq!(next(&mut framed).await?, ""); // the line end after the block
    /// assert_eq!(next(&mut framed).await?, "get key");
    /// framed.feed(format!("value {}", value.len()).into()).await?;
    /// framed.write_buffer_mut().extend_from_slice(&value);
    /// framed.feed("".into()).await?;
    /// framed.flush().await?;
    /// # let mut written = [0; 13];
    /// # tokio::io::AsyncReadExt::read_exact(&mut peer, &mut written).await?;
    /// # assert_eq!(&written, b"value 4\na\r\nb\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn expect_bytes(&mut self, count: usize) -> Result<(), BlockError> {
        self.decoder.expect_bytes(count)
    }

    /// Drops the next `count` bytes as they arrive, in constant memory. Then lines follow again.
    ///
    /// A second call before they have arrived adds to `count`. A call while a block is pending drops the
    /// bytes after the block. If the stream ends before all have arrived, there is no item for them.
    ///
    /// Call this between items only, as [`expect_bytes`](Self::expect_bytes), which it may precede.
    pub fn skip_bytes(&mut self, count: u64) {
        self.decoder.skip_bytes(count);
    }

    /// Sets the limit for lines, in bytes of content: small before a login, larger after. `None`: no limit,
    /// with the risk that [`LineCodecBuilder::max_length`] warns of.
    ///
    /// It applies to the line under way too, and to lines written unless
    /// [`max_encoded_length`](LineCodecBuilder::max_encoded_length) was set. A [`LineEncoder`] that was
    /// taken before keeps its limit.
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        let max_length = content_bytes.into().unwrap_or(usize::MAX);
        self.decoder.set_max_length(max_length);
        self.encoder.set_max_length(max_length);
    }

    /// Returns the limit for lines, in bytes of content. `None`: no limit.
    pub fn max_length(&self) -> Option<usize> {
        self.decoder.scanner().max_length()
    }

    /// Returns the delimiter.
    pub fn delimiter(&self) -> &Delimiter {
        self.decoder.scanner().delimiter()
    }

    /// Returns what became of the bytes read so far.
    pub fn counters(&self) -> CodecCounters {
        self.decoder.counters()
    }

    /// Forgets the stream and sets all counters to 0, but keeps the configuration. For a stream that is
    /// given up in its middle: at its end, `decode_eof` leaves nothing to reset.
    pub fn reset(&mut self) {
        self.decoder.reset();
        self.read_size = ReadSize::new();
    }

    /// Takes it apart for a connection, which reads without `Framed`.
    #[cfg(feature = "net")]
    pub(crate) fn into_sides(self) -> (LineDecoder, LineEncoder) {
        (self.decoder, self.encoder)
    }

    #[cfg(feature = "net")]
    pub(crate) fn from_sides(decoder: LineDecoder, encoder: LineEncoder) -> Self {
        Self { decoder, read_size: ReadSize::new(), encoder }
    }

    /// Returns the next item at the front of `buffer`, or reserves space for the next read.
    #[inline(always)]
    pub(super) fn next_item_read(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Item> {
        self.read_size.adapt(buffer);
        let item = self.decoder.next_item(buffer, eof);
        if item.is_none() && !eof {
            self.read_size.reserve(buffer);
        }
        item
    }
}

impl Default for LineCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder for LineCodec {
    type Item = Result<Bytes, LineError>;
    /// The decoder never returns it.
    type Error = io::Error;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        match self.next_item_read(src, false) {
            Some(item) => Ok(Some(item.cut(src))),
            None => Ok(None),
        }
    }

    /// Returns what is left at the end of the stream, one item per call, then `None`, however often it is
    /// called. The codec is then at the start of another stream.
    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(self.next_item_read(src, true).map(|item| item.cut(src)))
    }
}

/// There is one `Encoder` and not a generic one, so that `framed.flush()` and `framed.close()` need no type
/// annotation.
///
/// # Errors
///
/// Kind `InvalidInput`, with an [`EncodeError`] in it, if the line is refused. Nothing of it is written
/// then, and the sink continues.
impl Encoder<Bytes> for LineCodec {
    type Error = io::Error;

    fn encode(&mut self, line: Bytes, dst: &mut BytesMut) -> io::Result<()> {
        Ok(self.encode_line(&line, dst)?)
    }
}

/// Configures a codec: [`LineCodec::builder`], and `builder` of each other codec.
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
    /// `usize::MAX`: no limit.
    max_length: usize,
    /// `None`: that of the lines read.
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

    /// Sets what ends a line. Default: [`Delimiter::Newline`].
    pub fn delimiter(self, delimiter: Delimiter) -> Self {
        Self { delimiter, ..self }
    }

    /// Sets the limit for a line's content, in bytes, without its terminator. Default: 65,536.
    ///
    /// A line of exactly that length passes; a longer one is a
    /// [`LineError::TooLong`](crate::LineError::TooLong). 0 lets only empty lines pass.
    ///
    /// This bounds the memory of a connection. A decoder holds at most that many bytes of a line and one
    /// read (up to 64 KiB, of a `Connection` 128 KiB), in a buffer of at most twice that size.
    ///
    /// **Warning:** with `None` there is no limit. A peer that sends no terminator then fills the memory of
    /// the process. Use it for trusted input only, such as your own files. For lines longer than memory there
    /// is [`FragmentCodec`](crate::FragmentCodec).
    pub fn max_length(self, content_bytes: impl Into<Option<usize>>) -> Self {
        Self { max_length: content_bytes.into().unwrap_or(usize::MAX), ..self }
    }

    /// Sets the limit for the content of a line written, in bytes. `None`: no limit. Default: `max_length`.
    ///
    /// For replies that may be longer than requests, such as error lines (up to 200 bytes,
    /// [`LineError::reply`](crate::LineError::reply)) under a small limit. A line over it is an
    /// [`EncodeError::TooLong`]. The other end refuses lines over its own `max_length`.
    pub fn max_encoded_length(self, content_bytes: impl Into<Option<usize>>) -> Self {
        Self { max_encoded_length: Some(content_bytes.into().unwrap_or(usize::MAX)), ..self }
    }

    /// Sets whether to write `\r\n` with [`Delimiter::Newline`], which reads both: IRC, POP3, RESP.
    /// Default: `\n`. The other delimiters always write what they read.
    pub fn write_crlf(self, yes: bool) -> Self {
        Self { write_crlf: yes, ..self }
    }

    /// Sets the largest block that [`LineCodec::expect_bytes`] accepts, in bytes. `None`: no limit. Default:
    /// 1 MiB. A block is held in memory until it is complete.
    pub fn max_block_length(self, bytes: impl Into<Option<usize>>) -> Self {
        Self { max_block_length: bytes.into().unwrap_or(usize::MAX), ..self }
    }

    /// Sets what becomes of bytes after the last terminator at the end of the stream. Default:
    /// [`Unterminated::Report`].
    pub fn unterminated(self, unterminated: Unterminated) -> Self {
        Self { unterminated, ..self }
    }

    /// Returns the codec, at the start of a stream.
    pub fn build(self) -> C {
        let Self { delimiter, max_length, max_encoded_length, write_crlf, .. } = self;
        let encoder = LineEncoder::new(delimiter.clone(), write_crlf, max_length, max_encoded_length);
        let scanner = Scanner::new(delimiter, max_length, self.unterminated);
        let decoder = LineDecoder::new(scanner, self.max_block_length);
        C::from(LineCodec { decoder, read_size: ReadSize::new(), encoder })
    }
}
