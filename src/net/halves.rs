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

/// The reading half of a connection, or a reader of lines from anything: a file, a pipe, stdin.
///
/// Its methods are those of [`Connection`](crate::Connection), and so are their limits, errors and
/// cancel safety. One thing differs: a read does not send what is queued, since that is with the
/// writing half.
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

/// What the two halves of a connection share: each leaves its side here when it is dropped.
pub(super) trait Joint<Half, Side>: Send + Sync {
    fn leave(&self, half: Half, side: Side);

    /// The peer, and an `Option<ReturnTo<Io>>`, for a reunion.
    fn take_owner(&self) -> (Peer, Box<dyn Any>) {
        (Peer::Other, Box::new(()))
    }
}

/// What a half consists of.
type Parts<Half, Side> = (Half, Side, Option<Arc<dyn Joint<Half, Side>>>);

struct ReadSide<R> {
    /// Its writing side leads nowhere: a refusal of HTTP or TLS is not sent by a reading half.
    duplex: Duplex<Join<R, tokio::io::Sink>>,
    joint: Option<Arc<dyn Joint<R, Reader>>>,
}

/// Only `into_inner`, a reunion and `Drop` leave `None` behind.
const TAKEN: &str = "a half has its side until it is dropped or taken apart";

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Reads lines of at most 64 KiB. An unterminated last line is reported.
    pub fn new(reader: R) -> Self {
        Self::with_codec(reader, LineCodec::new())
    }

    /// Reads lines as the codec defines them.
    pub fn with_codec(reader: R, codec: LineCodec) -> Self {
        Self::from_side(reader, Reader::new(codec.into_sides().0), None)
    }

    pub(super) fn from_side(io: R, reader: Reader, joint: Option<Arc<dyn Joint<R, Reader>>>) -> Self {
        let writer = Writer::new(LineCodec::new().into_sides().1);
        let io = tokio::io::join(io, tokio::io::sink());
        let duplex = Duplex::from_sides(io, reader, writer, Peer::Other, None);
        Self(Some(Box::new(ReadSide { duplex, joint })))
    }

    /// Returns the next line: [`Connection::next_line`](crate::Connection::next_line).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, R> {
        poll_fn(|cx| self.duplex_mut().poll_line(cx))
    }

    /// Returns the next line as text: [`Connection::next_text`](crate::Connection::next_text).
    ///
    /// # Errors
    ///
    /// As there.
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, R>
    {
        poll_fn(|cx| self.duplex_mut().poll_text(cx))
    }

    /// Returns all whole lines that have arrived:
    /// [`Connection::next_batch`](crate::Connection::next_batch).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, R> {
        poll_fn(|cx| self.duplex_mut().poll_batch(cx))
    }

    /// Returns unread lines of the last batch to the buffer:
    /// [`Connection::put_back`](crate::Connection::put_back).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.reader_mut().put_back(batch)
    }

    /// Returns exactly `count` bytes: [`Connection::read_bytes`](crate::Connection::read_bytes).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, R> {
        poll_fn(move |cx| self.duplex_mut().poll_block(count, cx))
    }

    /// Drops the next `count` bytes: [`Connection::skip_bytes`](crate::Connection::skip_bytes).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, R> {
        self.reader_mut().skip_bytes(count);
        poll_fn(|cx| self.duplex_mut().poll_skipped(cx))
    }

    /// Whether the server has been asked to stop:
    /// [`Connection::is_draining`](crate::Connection::is_draining).
    pub fn is_draining(&self) -> bool {
        self.duplex().reader.draining().is_draining()
    }

    /// Completes when the server is asked to stop:
    /// [`Connection::draining`](crate::Connection::draining).
    pub fn draining(&self) -> Draining {
        self.duplex().reader.draining().clone()
    }

    /// Returns what became of the bytes read.
    pub fn counters(&self) -> CodecCounters {
        self.duplex().reader.decoder().counters()
    }

    /// Sets the limit for lines read, in bytes of content; `None` is no limit.
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        self.reader_mut().decoder_mut().set_max_length(content_bytes.into().unwrap_or(usize::MAX));
    }

    /// Sets how long the peer may take to begin a line:
    /// [`Connection::set_idle_timeout`](crate::Connection::set_idle_timeout).
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.reader_mut().limits_mut().idle_timeout = timeout.into();
    }

    /// Sets how long a line may take from its first byte to its last:
    /// [`Connection::set_line_timeout`](crate::Connection::set_line_timeout).
    pub fn set_line_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.reader_mut().limits_mut().line_timeout = timeout.into();
    }

    /// Returns the stream.
    pub fn get_ref(&self) -> &R {
        self.duplex().io.reader()
    }

    /// Returns the stream. Bytes that were read and not handed out are lost. The halves of a server's
    /// connection then do not return to it: flush the writing half, or its queued output is lost.
    pub fn into_inner(mut self) -> R {
        self.reader_mut().report();
        self.take().0
    }

    /// Takes it apart.
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

/// Yields what [`next_line`](LineReader::next_line) returns, and ends after an error.
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

/// The writing half of a connection, or a writer of lines to anything.
///
/// No read flushes for it, so it has no `write_line`: [`feed_line`](Self::feed_line) queues,
/// [`flush`](Self::flush) sends, and [`send_line`](Self::send_line) does both. If it is dropped,
/// queued output is lost, unless it is a half of a server's connection or a borrowed half: then the
/// connection has it again.
pub struct LineWriter<W: AsyncWrite + Unpin = WriteHalf<AnyIo>>(Option<Box<WriteSide<W>>>);

struct WriteSide<W> {
    io: W,
    writer: Writer,
    joint: Option<Arc<dyn Joint<W, Writer>>>,
}

impl<W: AsyncWrite + Unpin> LineWriter<W> {
    /// Writes lines of at most 64 KiB, terminated by `\n`.
    pub fn new(writer: W) -> Self {
        Self::with_codec(writer, LineCodec::new())
    }

    /// Writes lines as the codec defines them.
    pub fn with_codec(writer: W, codec: LineCodec) -> Self {
        Self::from_side(writer, Writer::new(codec.into_sides().1), None)
    }

    pub(super) fn from_side(io: W, writer: Writer, joint: Option<Arc<dyn Joint<W, Writer>>>) -> Self {
        Self(Some(Box::new(WriteSide { io, writer, joint })))
    }

    /// Queues a line. If more than 64 KiB (a server's `max_unsent`) are unsent, waits until the
    /// stream has taken them. If the future is dropped, the line is queued whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::write_line`](crate::Connection::write_line).
    pub fn feed_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_line(line.as_ref(), io, cx)))
    }

    /// Queues bytes as they are, without a terminator and without a check. If the future is
    /// dropped, a part may be queued.
    ///
    /// # Errors
    ///
    /// The stream has failed.
    pub fn feed_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, B> {
        let mut queued = 0;
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_bytes(bytes.as_ref(), &mut queued, io, cx)))
    }

    /// Queues a line and sends everything that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::write_line`](crate::Connection::write_line).
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_send_line(&mut line, io, cx)))
    }

    /// Sends everything that is queued.
    ///
    /// # Errors
    ///
    /// The stream has failed.
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.poll_step(|writer, io| writer.poll_flush(io, cx)))
    }

    /// Sends everything that is queued, then the end of the stream.
    ///
    /// # Errors
    ///
    /// The stream has failed.
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.poll_step(|writer, io| writer.poll_shutdown(io, cx)))
    }

    /// Sets the limit for lines written, in bytes of content, unless the codec's
    /// `max_encoded_length` is set; `None` is no limit.
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        self.writer_mut().encoder_mut().set_max_length(content_bytes.into().unwrap_or(usize::MAX));
    }

    /// Sets how long output may wait for the peer:
    /// [`Connection::set_write_timeout`](crate::Connection::set_write_timeout).
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.writer_mut().limits_mut().write_timeout = timeout.into();
    }

    /// Returns the stream.
    pub fn get_ref(&self) -> &W {
        &self.0.as_ref().expect(TAKEN).io
    }

    /// Returns the stream. Queued output is lost. The halves of a server's connection then do not
    /// return to it.
    pub fn into_inner(mut self) -> W {
        self.writer_mut().report();
        self.take().0
    }

    /// One step of writing. An I/O error or a deadline ends the half for good.
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

    /// Takes it apart.
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

/// `feed` is [`feed_line`](LineWriter::feed_line), `send` is [`send_line`](LineWriter::send_line).
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
