use std::any::Any;
use std::boxed::Box;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadHalf, WriteHalf};

use super::duplex::Duplex;
use super::error::{Error, Polled};
use super::io::{AnyIo, Peer};
use super::reader::Reader;
use super::shutdown::Draining;
use super::writer::{WriteIo, Writer};
use crate::codec::{Batch, CodecCounters, LineCodec};
use crate::error::LineError;

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

/// The state that the two halves of a connection share. Each half leaves its side there when it is
/// dropped.
pub(super) trait Joint<Half, Side>: Send + Sync {
    fn leave(&self, half: Half, side: Side);

    /// Returns the peer and an `Option<ReturnTo<Io>>`, to reunite the halves.
    fn take_owner(&self) -> (Peer, Box<dyn Any>) {
        (Peer::Other, Box::new(()))
    }
}

/// The parts of a half.
type Parts<Half, Side> = (Half, Side, Option<Arc<dyn Joint<Half, Side>>>);

struct ReadSide<R> {
    /// The writing side discards all output: a reading half cannot send the line that refuses HTTP
    /// or TLS.
    duplex: Duplex<Join<R, tokio::io::Sink>>,
    joint: Option<Arc<dyn Joint<R, Reader>>>,
}

/// Only `into_inner`, `reunite` and `Drop` leave `None`.
const TAKEN: &str = "a half has its side until it is dropped or taken apart";

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

    pub(super) fn from_side(io: R, reader: Reader, joint: Option<Arc<dyn Joint<R, Reader>>>) -> Self {
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
    pub(super) fn take(&mut self) -> Parts<R, Reader> {
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

/// A writer of lines: the writing half of a connection, or a writer to a file, a pipe or stdout.
/// Requires the feature `net`.
///
/// A half has no read that could send queued output, so it has no `write_line`.
/// [`feed_line`](Self::feed_line) queues a line, [`flush`](Self::flush) sends queued output, and
/// [`send_line`](Self::send_line) does both.
///
/// Dropping the writer loses queued output, with two exceptions: a half of a server's connection
/// and a borrowed half return their queued output to the connection.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::LineWriter;
///
/// let mut output = Vec::new();
/// let mut lines = LineWriter::new(&mut output);
/// lines.feed_line("one").await?;
/// lines.send_line("two").await?;
/// drop(lines);
/// assert_eq!(output, b"one\ntwo\n");
/// # Ok(())
/// # }
/// ```
pub struct LineWriter<W: AsyncWrite + Unpin = WriteHalf<AnyIo>>(Option<Box<WriteSide<W>>>);

struct WriteSide<W> {
    io: W,
    writer: Writer,
    joint: Option<Arc<dyn Joint<W, Writer>>>,
}

impl<W: AsyncWrite + Unpin> LineWriter<W> {
    /// Writes lines of at most 64 KiB, terminated by `\n`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use lineframe::LineWriter;
    ///
    /// let mut lines = LineWriter::new(tokio::io::stdout());
    /// lines.send_line("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(writer: W) -> Self {
        Self::with_codec(writer, LineCodec::new())
    }

    /// Writes lines with the given codec.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use lineframe::{Delimiter, LineCodec, LineWriter};
    ///
    /// let codec = LineCodec::builder().delimiter(Delimiter::CrLf).build();
    /// let mut output = Vec::new();
    /// LineWriter::with_codec(&mut output, codec).send_line("one").await?;
    /// assert_eq!(output, b"one\r\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_codec(writer: W, codec: LineCodec) -> Self {
        Self::from_side(writer, Writer::new(codec.into_sides().1), None)
    }

    pub(super) fn from_side(io: W, writer: Writer, joint: Option<Arc<dyn Joint<W, Writer>>>) -> Self {
        Self(Some(Box::new(WriteSide { io, writer, joint })))
    }

    /// Queues a line. If more than 64 KiB (a server's `max_unsent`) are unsent, first waits until
    /// the stream has accepted enough of them.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::write_line`](crate::Connection::write_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// let mut lines = LineWriter::new(&mut output);
    /// lines.feed_line("one").await?;
    /// lines.feed_line("two").await?;
    /// lines.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn feed_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_line(line.as_ref(), io, cx)))
    }

    /// Queues bytes without a terminator and without any check. Waits as
    /// [`feed_line`](Self::feed_line) does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the stream has failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may be queued.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// let mut lines = LineWriter::new(&mut output);
    /// lines.feed_line("put 4").await?;
    /// lines.feed_bytes("body").await?;
    /// lines.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn feed_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, B> {
        let mut queued = 0;
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_bytes(bytes.as_ref(), &mut queued, io, cx)))
    }

    /// Queues a line and sends all queued output.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::write_line`](crate::Connection::write_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all. Queued output is sent later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// LineWriter::new(&mut output).send_line("one").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_send_line(&mut line, io, cx)))
    }

    /// Sends all queued output.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the stream has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: unsent output is sent later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// let mut lines = LineWriter::new(&mut output);
    /// lines.feed_line("one").await?;
    /// lines.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.poll_step(|writer, io| writer.poll_flush(io, cx)))
    }

    /// Sends all queued output, then closes the stream for writing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the stream has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: call `shutdown` again to continue.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (reader, mut writer) = conn.into_split();
    /// writer.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.poll_step(|writer, io| writer.poll_shutdown(io, cx)))
    }

    /// Sets the length limit for lines, in bytes of content. `None` means no limit. Default: 64
    /// KiB, from the codec. Has no effect if the codec sets `max_encoded_length`.
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// let mut lines = LineWriter::new(tokio::io::sink());
    /// lines.set_max_length(1024);
    /// ```
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        self.writer_mut().encoder_mut().set_max_length(content_bytes.into().unwrap_or(usize::MAX));
    }

    /// Sets how long output may wait until the peer accepts at least one byte. `None`, the default
    /// outside a server, means no limit. See
    /// [`Connection::set_write_timeout`](crate::Connection::set_write_timeout).
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// use std::time::Duration;
    ///
    /// let mut lines = LineWriter::new(tokio::io::sink());
    /// lines.set_write_timeout(Duration::from_secs(10));
    /// ```
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.writer_mut().limits_mut().write_timeout = timeout.into();
    }

    /// Returns the stream.
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// let lines = LineWriter::new(tokio::io::sink());
    /// let stream: &tokio::io::Sink = lines.get_ref();
    /// ```
    pub fn get_ref(&self) -> &W {
        &self.0.as_ref().expect(TAKEN).io
    }

    /// Returns the stream. Queued output is lost. The halves of a server's connection then do not
    /// return to the server.
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// let stream = LineWriter::new(tokio::io::sink()).into_inner();
    /// ```
    pub fn into_inner(mut self) -> W {
        self.writer_mut().report();
        self.take().0
    }

    /// Runs one step of writing. An I/O error or a passed deadline ends this half for good.
    fn poll_step<T>(&mut self, step: impl FnOnce(&mut Writer, WriteIo<'_>) -> Polled<T>) -> Polled<T> {
        let WriteSide { io, writer, .. } = &mut **self.0.as_mut().expect(TAKEN);
        if writer.has_failed() {
            return Poll::Ready(Err(Error::Io(io::ErrorKind::NotConnected.into())));
        }
        let polled = step(writer, io);
        if matches!(polled, Poll::Ready(Err(Error::Io(_)))) {
            writer.fail(None);
        }
        polled
    }

    /// Returns the parts of the half and leaves `None`.
    pub(super) fn take(&mut self) -> Parts<W, Writer> {
        let WriteSide { io, writer, joint } = *self.0.take().expect(TAKEN);
        (io, writer, joint)
    }

    fn writer_mut(&mut self) -> &mut Writer {
        &mut self.0.as_mut().expect(TAKEN).writer
    }
}

impl<W: AsyncWrite + Unpin> Drop for LineWriter<W> {
    fn drop(&mut self) {
        if self.0.is_some() {
            let (half, side, joint) = self.take();
            if let Some(joint) = joint {
                joint.leave(half, side);
            }
        }
    }
}

/// Writes lines: `feed` is [`feed_line`](LineWriter::feed_line), `send` is
/// [`send_line`](LineWriter::send_line), and `close` is [`shutdown`](LineWriter::shutdown).
impl<W: AsyncWrite + Unpin> Sink<Bytes> for LineWriter<W> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|writer, io| writer.poll_ready(io, cx))
    }

    fn start_send(mut self: Pin<&mut Self>, line: Bytes) -> Result<(), Error> {
        self.writer_mut().queue(&line).map_err(Error::Encode)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|writer, io| writer.poll_flush(io, cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|writer, io| writer.poll_shutdown(io, cx))
    }
}

impl<W: AsyncWrite + Unpin> fmt::Debug for LineWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter").finish_non_exhaustive()
    }
}
