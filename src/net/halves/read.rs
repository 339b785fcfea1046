use std::boxed::Box;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, Join, ReadHalf};

use super::{Joint, Parts, TAKEN};
use crate::codec::{Batch, CodecCounters, LineCodec};
use crate::error::LineError;
use crate::net::duplex::Duplex;
use crate::net::error::Error;
use crate::net::io::{AnyIo, Peer};
use crate::net::reader::Reader;
use crate::net::shutdown::Draining;
use crate::net::writer::Writer;

/// A reader of lines: the reading half of a connection, or a reader of a file, a pipe or stdin.
/// Requires the feature `net`.
///
/// The methods, limits, errors and cancel safety are those of [`Connection`](crate::Connection),
/// with one difference: a read does not send queued output, because the writing half holds that
/// output.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::{LineCodec, LineReader, Unterminated};
///
/// let codec = LineCodec::builder().unterminated(Unterminated::Deliver).build();
/// let mut lines = LineReader::with_codec(&b"one\ntwo"[..], codec);
/// assert_eq!(lines.next_line().await?.unwrap()?, "one");
/// assert_eq!(lines.next_line().await?.unwrap()?, "two");
/// assert!(lines.next_line().await?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct LineReader<R: AsyncRead + Unpin = ReadHalf<AnyIo>>(Option<Box<ReadSide<R>>>);

struct ReadSide<R> {
    /// The writing side discards all output: a reading half cannot send the line that refuses HTTP
    /// or TLS.
    duplex: Duplex<Join<R, tokio::io::Sink>>,
    joint: Option<Arc<dyn Joint<R, Reader>>>,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Reads lines of at most 64 KiB. An unterminated last line is returned as a bad line.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use lineframe::LineReader;
    ///
    /// let mut lines = LineReader::new(&b"one\n"[..]);
    /// assert_eq!(lines.next_line().await?.unwrap()?, "one");
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(reader: R) -> Self {
        Self::with_codec(reader, LineCodec::new())
    }

    /// Reads lines with the given codec.
    ///
    /// ```
    /// use lineframe::{Delimiter, LineCodec, LineReader};
    ///
    /// let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(998).build();
    /// let lines = LineReader::with_codec(&b"one\r\n"[..], codec);
    /// ```
    pub fn with_codec(reader: R, codec: LineCodec) -> Self {
        Self::from_side(reader, Reader::new(codec.into_sides().0), None)
    }

    pub(in crate::net) fn from_side(io: R, reader: Reader, joint: Option<Arc<dyn Joint<R, Reader>>>) -> Self {
        let writer = Writer::new(LineCodec::new().into_sides().1);
        let io = tokio::io::join(io, tokio::io::sink());
        let duplex = Duplex::from_sides(io, reader, writer, Peer::Other, None);
        Self(Some(Box::new(ReadSide { duplex, joint })))
    }

    /// Returns the next line. See [`Connection::next_line`](crate::Connection::next_line).
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::next_line`](crate::Connection::next_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"one\ntwo\n"[..]);
    /// while let Some(line) = lines.next_line().await? {
    ///     println!("{} bytes", line?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, R> {
        poll_fn(|cx| self.duplex_mut().poll_line(cx))
    }

    /// Returns the next line as text. Requires the feature `text`. See
    /// [`Connection::next_text`](crate::Connection::next_text).
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::next_line`](crate::Connection::next_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new("día\n".as_bytes());
    /// assert_eq!(lines.next_text().await?.unwrap()?, "día");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, R>
    {
        poll_fn(|cx| self.duplex_mut().poll_text(cx))
    }

    /// Returns all complete lines that are available. See
    /// [`Connection::next_batch`](crate::Connection::next_batch).
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::next_line`](crate::Connection::next_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"one\ntwo\n"[..]);
    /// assert_eq!(lines.next_batch().await?.unwrap().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, R> {
        poll_fn(|cx| self.duplex_mut().poll_batch(cx))
    }

    /// Puts the unread lines of the last batch back. See
    /// [`Connection::put_back`](crate::Connection::put_back).
    ///
    /// # Errors
    ///
    /// Returns the batch unchanged if it belongs to another reader, or if anything was read after
    /// the batch.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"put 4\nbody"[..]);
    /// let mut batch = lines.next_batch().await?.unwrap();
    /// assert_eq!(batch.next().unwrap()?, "put 4");
    /// lines.put_back(batch).expect("nothing was read after this batch");
    /// assert_eq!(lines.read_bytes(4).await?, "body");
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.reader_mut().put_back(batch)
    }

    /// Returns exactly `count` bytes. See
    /// [`Connection::read_bytes`](crate::Connection::read_bytes).
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::read_bytes`](crate::Connection::read_bytes).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is consumed before the block is complete.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"put 4\nbody"[..]);
    /// lines.next_line().await?;
    /// assert_eq!(lines.read_bytes(4).await?, "body");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, R> {
        poll_fn(move |cx| self.duplex_mut().poll_block(count, cx))
    }

    /// Discards the next `count` bytes. See
    /// [`Connection::skip_bytes`](crate::Connection::skip_bytes).
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::skip_bytes`](crate::Connection::skip_bytes).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next read skips the remaining bytes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"header\none\n"[..]);
    /// lines.skip_bytes(7).await?;
    /// assert_eq!(lines.next_line().await?.unwrap()?, "one");
    /// # Ok(())
    /// # }
    /// ```
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, R> {
        self.reader_mut().skip_bytes(count);
        poll_fn(|cx| self.duplex_mut().poll_skipped(cx))
    }

    /// Returns whether the server is shutting down. See
    /// [`Connection::is_draining`](crate::Connection::is_draining).
    ///
    /// ```
    /// # use lineframe::LineReader;
    /// assert!(!LineReader::new(&b"no server"[..]).is_draining());
    /// ```
    pub fn is_draining(&self) -> bool {
        self.duplex().reader.draining().is_draining()
    }

    /// Returns a future that completes when the server starts to shut down. See
    /// [`Connection::draining`](crate::Connection::draining).
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (reader, mut writer) = conn.into_split();
    /// reader.draining().await;
    /// writer.send_line("421 server is shutting down").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn draining(&self) -> Draining {
        self.duplex().reader.draining().clone()
    }

    /// Returns the numbers of lines, bad lines and bytes read so far.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"one\n"[..]);
    /// lines.next_line().await?;
    /// assert_eq!(lines.counters().lines, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn counters(&self) -> CodecCounters {
        self.duplex().reader.decoder().counters()
    }

    /// Sets the length limit for lines, in bytes of content. `None` means no limit. Default: 64
    /// KiB, from the codec.
    ///
    /// ```
    /// # use lineframe::LineReader;
    /// let mut lines = LineReader::new(&b"one\n"[..]);
    /// lines.set_max_length(1024);
    /// ```
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        self.reader_mut().decoder_mut().set_max_length(content_bytes.into().unwrap_or(usize::MAX));
    }

    /// Sets how long the peer may take to begin a line. `None`, the default outside a server, means
    /// no limit. See [`Connection::set_idle_timeout`](crate::Connection::set_idle_timeout).
    ///
    /// ```
    /// # use lineframe::LineReader;
    /// use std::time::Duration;
    ///
    /// let mut lines = LineReader::new(&b"one\n"[..]);
    /// lines.set_idle_timeout(Duration::from_secs(60));
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.reader_mut().limits_mut().idle_timeout = timeout.into();
    }

    /// Sets how long a line may take from its first byte to its last. `None`, the default outside a
    /// server, means no limit. See
    /// [`Connection::set_line_timeout`](crate::Connection::set_line_timeout).
    ///
    /// ```
    /// # use lineframe::LineReader;
    /// use std::time::Duration;
    ///
    /// let mut lines = LineReader::new(&b"one\n"[..]);
    /// lines.set_line_timeout(Duration::from_secs(10));
    /// ```
    pub fn set_line_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.reader_mut().limits_mut().line_timeout = timeout.into();
    }

    /// Returns the stream.
    ///
    /// ```
    /// # use lineframe::LineReader;
    /// assert_eq!(*LineReader::new(&b"one\n"[..]).get_ref(), b"one\n");
    /// ```
    pub fn get_ref(&self) -> &R {
        self.duplex().io.reader()
    }

    /// Returns the stream. Bytes that were read and not returned are lost. The halves of a server's
    /// connection then do not return to the server: flush the writing half, or its queued output is
    /// lost.
    ///
    /// ```
    /// # use lineframe::LineReader;
    /// let lines = LineReader::new(&b"one\n"[..]);
    /// assert_eq!(lines.into_inner(), b"one\n");
    /// ```
    pub fn into_inner(mut self) -> R {
        self.reader_mut().report();
        self.take().0
    }

    /// Returns the parts of the half and leaves `None`.
    pub(in crate::net) fn take(&mut self) -> Parts<R, Reader> {
        let ReadSide { duplex, joint } = *self.0.take().expect(TAKEN);
        (duplex.io.into_inner().0, duplex.reader, joint)
    }

    fn duplex(&self) -> &Duplex<Join<R, tokio::io::Sink>> {
        &self.0.as_ref().expect(TAKEN).duplex
    }

    fn reader_mut(&mut self) -> &mut Reader {
        &mut self.duplex_mut().reader
    }

    fn duplex_mut(&mut self) -> &mut Duplex<Join<R, tokio::io::Sink>> {
        &mut self.0.as_mut().expect(TAKEN).duplex
    }
}

impl<R: AsyncRead + Unpin> Drop for LineReader<R> {
    fn drop(&mut self) {
        if self.0.is_some() {
            let (half, side, joint) = self.take();
            if let Some(joint) = joint {
                joint.leave(half, side);
            }
        }
    }
}

/// Yields the items of [`next_line`](LineReader::next_line). Ends after an error.
impl<R: AsyncRead + Unpin> Stream for LineReader<R> {
    type Item = Result<Result<Bytes, LineError>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.duplex_mut().poll_stream(cx)
    }
}

impl<R: AsyncRead + Unpin> fmt::Debug for LineReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader").field("counters", &self.counters()).finish_non_exhaustive()
    }
}
