use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::builder::LineCodecBuilder;
use super::counters::CodecCounters;
use super::decoder::LineDecoder;
use super::encoder::LineEncoder;
use super::item::Item;
use super::read_size::ReadSize;
use crate::error::{BlockError, EncodeError, LineError};
use crate::scan::Delimiter;

/// Implements the methods and traits shared by all codecs that wrap a `line: LineCodec`. The
/// codec's `next` method decodes one item.
macro_rules! implement_codec {
    ($codec:ident, $item:ty, $of:literal) => {
        impl $codec {
            /// Returns a codec with the default configuration:
            /// [`Delimiter::Newline`](crate::Delimiter::Newline) and
            #[doc = concat!($of, " of at most 65,536 bytes.")]
            ///
            /// ```
            #[doc = concat!("let codec = lineframe::", stringify!($codec), "::new();")]
            /// ```
            pub fn new() -> Self {
                Self::default()
            }

            /// Returns a builder that sets the delimiter, the limits and other options.
            ///
            /// ```
            /// # use lineframe::Delimiter;
            #[doc = concat!("let codec = lineframe::", stringify!($codec), "::builder()")]
            ///     .delimiter(Delimiter::CrLf)
            ///     .max_length(1024)
            ///     .build();
            /// ```
            pub fn builder() -> LineCodecBuilder<Self> {
                LineCodecBuilder::new()
            }

            /// Returns counters of the items and bytes that the codec has returned.
            ///
            /// ```
            #[doc = concat!("let codec = lineframe::", stringify!($codec), "::new();")]
            /// assert_eq!(codec.counters().bad_items(), 0);
            /// ```
            pub fn counters(&self) -> CodecCounters {
                self.line.counters()
            }
        }

        impl core::fmt::Debug for $codec {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($codec)).field("line", &self.line).finish_non_exhaustive()
            }
        }

        /// Keeps the configuration and continues after the last item.
        impl From<$codec> for LineCodec {
            fn from(codec: $codec) -> Self {
                codec.line
            }
        }

        impl Decoder for $codec {
            type Item = $item;
            /// Never returned by the decoder.
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

/// A codec that decodes a byte stream into lines of `Bytes` and encodes lines. Requires the feature
/// `codec` (on by default).
///
/// Each item is a `Result<Bytes, LineError>`. A bad line (too long, unterminated or wrongly
/// terminated) is an item too, and the next line follows it. The decoder itself never fails, so an
/// error of [`Framed`](tokio_util::codec::Framed) comes from the stream.
///
/// ```
/// use futures::{SinkExt, TryStreamExt};
/// use lineframe::LineCodec;
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (mut peer, io) = tokio::io::duplex(4096);
/// # let input = b"hello\r\nfar too long a line\nworld\n";
/// # tokio::io::AsyncWriteExt::write_all(&mut peer, input).await?;
/// # drop(peer);
/// let mut lines = Framed::new(io, LineCodec::builder().max_length(10).build());
/// # let mut seen = Vec::new();
/// while let Some(line) = lines.try_next().await? {
///     # seen.push(line.is_ok());
///     match line {
///         Ok(line) => println!("{line:?}"), // b"hello", b"world"
///         Err(bad) => println!("{bad}"), // line exceeds the limit of 10 bytes (max_length)
///     }
/// }
/// # assert_eq!(seen, [true, false, true]);
/// # Ok(())
/// # }
/// ```
///
/// Do not write `while let Some(Ok(line)) = ..`: it compiles, but the loop ends at the first bad
/// line. Match the inner result, or use `??` to stop at a bad line on purpose.
///
/// Lines are slices of the read buffer, without a copy or an allocation. A line that you keep also
/// keeps its buffer (8 to 64 KiB) in memory. To release the buffer, copy the line with
/// `Bytes::copy_from_slice(&line)`.
///
/// # Other line readers
///
/// Other line readers treat bad input differently. After a line that is too long, tokio-util's
/// `LinesCodec` and Go's `bufio.Scanner` end the stream, and asyncio's `readline` can return the
/// rest of the line as another line. [The framing contract] states the rules of this codec, and
/// [a table] compares five readers.
///
/// For example, the line after a bad line needs no further input:
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::{LineCodec, LineError};
/// use tokio_util::codec::Decoder;
///
/// let mut codec = LineCodec::builder().max_length(3).build();
/// let mut buffer = BytesMut::from("abcd\nb\n");
/// let bad = codec.decode(&mut buffer)?.unwrap().unwrap_err();
/// assert!(matches!(bad, LineError::TooLong { .. }));
/// assert_eq!(codec.decode(&mut buffer)?.unwrap().unwrap(), "b");
/// # std::io::Result::Ok(())
/// ```
///
/// [The framing contract]: https://docs.rs/crate/lineframe/latest/source/docs/framing.md
/// [a table]: https://docs.rs/crate/lineframe/latest/source/docs/decisions.md
#[derive(Clone, Debug)]
pub struct LineCodec {
    pub(super) decoder: LineDecoder,
    pub(super) read_size: ReadSize,
    pub(super) encoder: LineEncoder,
}

impl LineCodec {
    /// Returns a codec with the default configuration: [`Delimiter::Newline`] and lines of at most
    /// 65,536 bytes. An unterminated last line is reported as bad.
    ///
    /// ```
    /// let codec = lineframe::LineCodec::new();
    /// assert_eq!(codec.max_length(), Some(65_536));
    /// ```
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder that sets the delimiter, the limits and other options.
    ///
    /// ```
    /// use lineframe::{Delimiter, LineCodec};
    ///
    /// let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(998).build();
    /// assert_eq!(codec.max_length(), Some(998));
    /// ```
    pub fn builder() -> LineCodecBuilder {
        LineCodecBuilder::new()
    }

    /// Returns a [`LineEncoder`] with the configuration of this codec. It writes lines without the
    /// codec.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    ///
    /// let encoder = LineCodec::new().encoder();
    /// let mut buffer = BytesMut::new();
    /// encoder.encode_line(b"hello", &mut buffer)?;
    /// assert_eq!(buffer, "hello\n");
    /// # Ok::<(), lineframe::EncodeError>(())
    /// ```
    pub fn encoder(&self) -> LineEncoder {
        self.encoder.clone()
    }

    /// Appends `line` and a terminator to `dst`. Does the same as the [`Encoder`], but takes a
    /// slice.
    ///
    /// A decoder with the same configuration reads every accepted line back unchanged.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    ///
    /// let mut codec = LineCodec::new();
    /// let mut buffer = BytesMut::new();
    /// codec.encode_line(b"hello", &mut buffer)?;
    /// assert!(codec.encode_line(b"two\nlines", &mut buffer).is_err());
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
    pub fn encode_line(&mut self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.encoder.encode_line(line, dst)
    }

    /// Requests that the next item is a block: the `count` bytes after the last item's line,
    /// whatever they contain.
    ///
    /// After a `TooLong` line, the block starts after the terminator of that line. Bytes that are
    /// already buffered belong to the block, and no byte after the block is consumed. A `count` of
    /// 0 is an empty item, available immediately. After the block, the codec returns lines again.
    /// Memcached, NATS and RESP send a line end after a block; it arrives as an empty line. Check
    /// that this line is empty.
    ///
    /// Call this only between two items. With [`Framed`](tokio_util::codec::Framed), call it
    /// through `codec_mut()` before the next poll. If the stream ends within the block, the item is
    /// [`LineError::Incomplete`].
    ///
    /// To write a block, append it to `framed.write_buffer_mut()`, because the encoder would refuse
    /// line ends in it. The next `feed` or `flush` sends it.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use futures::{SinkExt, TryStreamExt};
    /// use lineframe::LineCodec;
    /// use tokio::io::AsyncRead;
    /// use tokio_util::codec::Framed;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (mut peer, io) = tokio::io::duplex(4096);
    /// # let input = b"set key 4\r\na\r\nb\r\nget key\r\n";
    /// # tokio::io::AsyncWriteExt::write_all(&mut peer, input).await?;
    /// type Lines<T> = Framed<T, LineCodec>;
    /// /// Returns the next item, which must be a good one.
    /// async fn next<T: AsyncRead + Unpin>(lines: &mut Lines<T>) -> std::io::Result<Bytes> {
    ///     Ok(lines.try_next().await?.ok_or(std::io::ErrorKind::UnexpectedEof)??)
    /// }
    /// let mut framed = Framed::new(io, LineCodec::new());
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
    ///
    /// # Errors
    ///
    /// Returns [`BlockError::TooLong`] if `count` exceeds
    /// [`max_block_length`](LineCodecBuilder::max_block_length), and [`BlockError::Pending`] if an
    /// earlier block is not complete. In both cases the codec is unchanged. The codec never
    /// reserves memory for bytes that a peer only announces. To continue after a block that is too
    /// long, call [`skip_bytes`](Self::skip_bytes).
    pub fn expect_bytes(&mut self, count: usize) -> Result<(), BlockError> {
        self.decoder.expect_bytes(count)
    }

    /// Drops the next `count` bytes as they arrive, in constant memory. After them, the codec
    /// returns lines again.
    ///
    /// Several calls add up. If a block is pending, the bytes after the block are dropped. If the
    /// stream ends within the dropped bytes, no item reports it.
    ///
    /// Call this only between two items, like [`expect_bytes`](Self::expect_bytes). A block that is
    /// requested after this call starts after the dropped bytes.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = LineCodec::new();
    /// codec.skip_bytes(5);
    /// let mut buffer = BytesMut::from("a\nb\ncd\n");
    /// assert_eq!(codec.decode(&mut buffer)?.unwrap().unwrap(), "d");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn skip_bytes(&mut self, count: u64) {
        self.decoder.skip_bytes(count);
    }

    /// Sets the limit for the content of lines, in bytes. Use a small limit before a login and a
    /// larger one after it.
    ///
    /// The limit also applies to the current line. It applies to written lines unless
    /// [`max_encoded_length`](LineCodecBuilder::max_encoded_length) was set. A [`LineEncoder`] that
    /// was created earlier keeps its limit. `None` means no limit; see the warning of
    /// [`LineCodecBuilder::max_length`].
    ///
    /// ```
    /// let mut codec = lineframe::LineCodec::builder().max_length(100).build();
    /// codec.set_max_length(10_000);
    /// assert_eq!(codec.max_length(), Some(10_000));
    /// ```
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        let max_length = content_bytes.into().unwrap_or(usize::MAX);
        self.decoder.set_max_length(max_length);
        self.encoder.set_max_length(max_length);
    }

    /// Returns the limit for the content of lines, in bytes. `None` means no limit.
    ///
    /// ```
    /// assert_eq!(lineframe::LineCodec::new().max_length(), Some(65_536));
    /// ```
    pub fn max_length(&self) -> Option<usize> {
        self.decoder.scanner().max_length()
    }

    /// Returns the delimiter.
    ///
    /// ```
    /// use lineframe::{Delimiter, LineCodec};
    ///
    /// assert_eq!(LineCodec::new().delimiter(), &Delimiter::Newline);
    /// ```
    pub fn delimiter(&self) -> &Delimiter {
        self.decoder.scanner().delimiter()
    }

    /// Returns counters of the items and bytes that the codec has returned or skipped.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = LineCodec::new();
    /// codec.decode(&mut BytesMut::from("hello\r\n"))?;
    /// let counters = codec.counters();
    /// assert_eq!((counters.lines, counters.content_bytes, counters.terminator_bytes), (1, 5, 2));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn counters(&self) -> CodecCounters {
        self.decoder.counters()
    }

    /// Returns to the start of a stream, sets all counters to 0 and keeps the configuration.
    ///
    /// Call this if you abandon a stream before its end. After `decode_eof` has returned `None`,
    /// the codec is ready for another stream without it.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = LineCodec::new();
    /// codec.decode(&mut BytesMut::from("hello\n"))?;
    /// codec.reset();
    /// assert_eq!(codec.counters().lines, 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn reset(&mut self) {
        self.decoder.reset();
        self.read_size = ReadSize::new();
    }

    /// Splits the codec for a connection, which reads without `Framed`.
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
    /// Never returned by the decoder.
    type Error = io::Error;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        match self.next_item_read(src, false) {
            Some(item) => Ok(Some(item.cut(src))),
            None => Ok(None),
        }
    }

    /// Returns the remaining items of the stream, one per call, then `None` on every further call.
    /// The codec is then at the start of another stream.
    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(self.next_item_read(src, true).map(|item| item.cut(src)))
    }
}

/// Writes lines. Only `Bytes` is supported: with a generic encoder, `framed.flush()` and
/// `framed.close()` would need a type annotation.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` that contains an [`EncodeError`] if the line is refused.
/// The encoder then writes no byte of the line, and the next line can be written.
impl Encoder<Bytes> for LineCodec {
    type Error = io::Error;

    fn encode(&mut self, line: Bytes, dst: &mut BytesMut) -> io::Result<()> {
        Ok(self.encode_line(&line, dst)?)
    }
}
