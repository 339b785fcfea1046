use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::encoder::LineEncoder;
use super::item::Item;
use super::room::Room;
use super::walk::Walk;
use super::{CodecCounters, LineCodecBuilder};
use crate::error::{EncodeError, LineError, TooManyBytes};
use crate::scan::Delimiter;

/// Lines out of a byte stream as `Bytes`, and back.
///
/// An item is `Result<Bytes, LineError>`: a line that is too long, cut, or badly terminated is an item too, and the next
/// line comes behind it. The decoder itself never fails, so what [`Framed`](tokio_util::codec::Framed) gives as an error
/// is the stream's own.
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
/// `while let Some(Ok(line)) = ..` compiles and ends at the first bad line: match the inner result, or let it end the
/// stream with `??`.
///
/// Lines are cut from the read buffer without a copy or an allocation. One that is kept keeps that buffer (8 to 64 KiB)
/// in memory; `Bytes::copy_from_slice(&line)` lets go of it.
///
/// # Where other line readers answer differently
///
#[doc = include_str!("../../docs/decisions.md")]
#[derive(Clone, Debug)]
pub struct LineCodec {
    pub(super) walk: Walk,
    pub(super) room: Room,
    pub(super) encoder: LineEncoder,
}

/// Both sides of it for a connection, which reads by itself, and back.
#[cfg(feature = "net")]
impl LineCodec {
    pub(crate) fn into_sides(self) -> (Walk, LineEncoder) {
        (self.walk, self.encoder)
    }

    pub(crate) fn from_sides(walk: Walk, encoder: LineEncoder) -> Self {
        Self { walk, room: Room::new(), encoder }
    }
}

impl LineCodec {
    /// [`Delimiter::Newline`], lines of at most 64 KiB, a cut last line reported.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Another delimiter, another limit, and the rest.
    pub fn builder() -> LineCodecBuilder {
        LineCodecBuilder::new()
    }

    pub(super) fn from_builder(builder: LineCodecBuilder) -> Self {
        let LineCodecBuilder {
            delimiter,
            max_length,
            max_encoded_length,
            write_crlf,
            max_block_length,
            unterminated,
        } = builder;
        Self {
            encoder: LineEncoder::new(delimiter.clone(), write_crlf, max_length, max_encoded_length),
            walk: Walk::new(delimiter, max_length, unterminated, max_block_length),
            room: Room::new(),
        }
    }

    /// Appends `line` and its terminator to `dst`: what the [`Encoder`] does, from a slice.
    ///
    /// What is accepted is read back as it is by a decoder of the same configuration.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] where the line is over the limit, else [`EncodeError::ContainsTerminator`] where it
    /// would not be read back as this one line. `dst` is then as it was.
    #[inline]
    pub fn encode_line(&mut self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.encoder.encode_line(line, dst)
    }

    /// The next item is exactly the `count` bytes behind the last item's line, whatever is in them; behind a `TooLong`
    /// line those after its terminator. Bytes that are already buffered are part of them, nothing beyond is consumed. A
    /// `count` of 0 is an empty item at once. Then come lines again: what memcached, NATS and RESP put behind a block
    /// arrives as an empty line; check that it is one.
    ///
    /// Between items only: with [`Framed`](tokio_util::codec::Framed), through `codec_mut()`, before it is polled again.
    /// Where the stream ends before the last of them, the item is [`LineError::Incomplete`].
    ///
    /// # Errors
    ///
    /// [`TooManyBytes`] where `count` is over
    /// [`max_block_length`](LineCodecBuilder::max_block_length), or a block is still outstanding. Nothing has changed then,
    /// and no memory was reserved: nothing ever is for what a peer merely announces. To go on behind a block that is too
    /// large, [`skip_bytes`](Self::skip_bytes).
    ///
    /// A block that is to be written goes past the encoder, which would refuse the line ends in it, into
    /// `framed.write_buffer_mut()`; the next `feed` or `flush` sees to the rest.
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
    /// /// For where an item has to come, and a good one.
    /// async fn next<T: tokio::io::AsyncRead + Unpin>(lines: &mut Framed<T, LineCodec>) -> std::io::Result<Bytes> {
    ///     Ok(lines.try_next().await?.ok_or(std::io::ErrorKind::UnexpectedEof)??)
    /// }
    /// assert_eq!(next(&mut framed).await?, "set key 4");
    /// framed.codec_mut().expect_bytes(4)?;
    /// let value = next(&mut framed).await?;
    /// assert_eq!(value, "a\r\nb");
    /// assert_eq!(next(&mut framed).await?, ""); // what ends the block
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
    pub fn expect_bytes(&mut self, count: usize) -> Result<(), TooManyBytes> {
        self.walk.expect_bytes(count)
    }

    /// The next `count` bytes are dropped as they come, in constant memory, and then there are lines again. Called again
    /// before they have come, it adds up; called while a block is outstanding, they are those behind the block. A stream
    /// that ends before they have all come ends without an item for them.
    ///
    /// Between items only, as [`expect_bytes`](Self::expect_bytes), which it may precede.
    pub fn skip_bytes(&mut self, count: u64) {
        self.walk.skip_bytes(count);
    }

    /// A new limit for lines, in bytes of content: small before a login, larger after. It applies to the line under way
    /// too, and to lines written unless
    /// [`max_encoded_length`](LineCodecBuilder::max_encoded_length) was set.
    pub fn set_max_length(&mut self, content_bytes: usize) {
        self.walk.set_max_length(content_bytes);
        self.encoder.set_max_length(content_bytes);
    }

    /// The limit for lines, in bytes of content.
    pub fn max_length(&self) -> usize {
        self.walk.max_length()
    }

    /// What ends a line.
    pub fn delimiter(&self) -> &Delimiter {
        self.walk.scanner().delimiter()
    }

    /// What has become of the bytes read so far.
    pub fn counters(&self) -> CodecCounters {
        self.walk.counters()
    }

    /// Forgets the stream and what was counted and keeps the configuration: for a stream that is given up in its middle.
    /// At a stream's end `decode_eof` leaves nothing behind that would need it.
    pub fn reset(&mut self) {
        self.walk.reset();
        self.room = Room::new();
    }

    /// The next item at the front of `buffer`, with room made for the next read where one is needed.
    #[inline]
    pub(super) fn next_item_read(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Item> {
        self.room.look(buffer);
        let item = self.walk.next_item(buffer, eof);
        if item.is_none() && !eof {
            self.room.make(buffer);
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
    /// Never given by this decoder.
    type Error = io::Error;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        match self.next_item_read(src, false) {
            Some(item) => Ok(Some(item.cut(src))),
            None => Ok(None),
        }
    }

    /// What is left at the end of the stream, an item at a time, then `None`, however often it is asked. The codec is then
    /// at the start of another stream.
    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(self.next_item_read(src, true).map(|item| item.cut(src)))
    }
}

/// One `Encoder` and not a generic one, so that `framed.flush()` and `framed.close()` need no type annotation.
impl Encoder<Bytes> for LineCodec {
    type Error = EncodeError;

    fn encode(&mut self, line: Bytes, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_line(&line, dst)
    }
}
