use std::boxed::Box;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::duplex::{Body, ConnectionCounters, Duplex};
use super::error::{Error, Polled, UpgradeError};
use super::halves::{LineReader, LineWriter};
use super::io::{self as any_io, AnyIo, Joined, Peer};
use super::poll::Inlined;
use super::shutdown::Draining;
use super::split::{self, BorrowedRead, BorrowedWrite, ReuniteError};
use super::writer::Writer;
use crate::codec::{Batch, LineCodec};
use crate::error::LineError;

/// Lines over a byte stream, in both directions: what the handler of a [`Server`](crate::Server)
/// gets, what a
/// [`Client`](crate::Client) returns, and what [`Connection::new`] makes of any stream.
///
/// ```
/// # use lineframe::Connection;
/// # async fn handle(mut conn: Connection) -> std::io::Result<()> {
/// // The outer `?`: the connection failed. An inner error: only this line is bad.
/// while let Some(line) = conn.next_line().await? {
///     match line {
///         Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
///         Err(bad) => conn.write_line(bad.reply()).await?,
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// `while let Some(Ok(line)) = ..` compiles, but ends at the first bad line. To read one good item
/// and treat anything else as an error, use `conn.next_line().await?.transpose()?`.
///
/// A connection is also a [`Stream`] of what `next_line` returns, and a [`Sink`] of lines.
///
#[doc = include_str!("connection.txt")]
pub struct Connection<Io = AnyIo>(Option<Box<Duplex<Io>>>)
where
    Io: AsyncRead + AsyncWrite + Unpin;

/// What a [`Connection`] consists of: [`Connection::into_parts`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<Io> {
    /// The stream.
    pub io: Io,
    /// The codec, at its place in the stream: `read` continues there.
    pub codec: LineCodec,
    /// Bytes that were read and not handed out.
    pub read: BytesMut,
    /// Bytes that were written to the connection and not sent.
    pub unsent: BytesMut,
}

impl Connection {
    /// Wraps any stream, with the default codec and without deadlines. The type of the stream is
    /// erased, so handlers and clients are written for `Connection` and take every stream. TCP and
    /// Unix streams are not boxed.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self::with_codec(io, LineCodec::new())
    }

    /// Wraps any stream, with this codec and without deadlines.
    pub fn with_codec(
        io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        codec: LineCodec,
    ) -> Self {
        Self::from_io(AnyIo::new(io), codec)
    }

    /// Joins a stream to read from and another to write to, such as the stdout and stdin of a
    /// child.
    /// [`shutdown`](Self::shutdown) drops the writer, which closes a child's stdin.
    pub fn join(
        reader: impl AsyncRead + Send + Sync + Unpin + 'static,
        writer: impl AsyncWrite + Send + Sync + Unpin + 'static,
    ) -> Self {
        Self::new(Joined::new(reader, writer))
    }

    pub(crate) fn with_peer(io: AnyIo, codec: LineCodec, peer: Peer) -> Self {
        Self::from_duplex(Box::new(Duplex::new(io, codec, peer)))
    }

    /// Replaces the stream by one made of it, such as a TLS session: sends queued output, passes
    /// the stream to `f`, and continues over what `f` returns, with the same codec, limits,
    /// deadlines and counters. `f` has no deadline: wrap this call in `tokio::time::timeout`, or a
    /// peer that is silent during its handshake holds its place forever.
    ///
    /// # Errors
    ///
    /// [`Error::LeftOver`] if bytes were read and not handed out. The peer sent them before the
    /// upgrade, and they would be taken for bytes sent after it (CVE-2011-0411). The same if bytes
    /// are still to be skipped, of a body or a long line: they would be skipped after it. Nothing
    /// has changed then. If `f` fails, its error; the connection has then failed.
    pub async fn upgrade<T>(&mut self, f: impl AsyncFnOnce(AnyIo) -> io::Result<T>) -> Result<(), Error>
    where
        T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        match self.duplex().reader.left_over() {
            0 => {}
            bytes => return Err(Error::LeftOver { bytes }),
        }
        self.flush().await?;
        let duplex = self.duplex_mut();
        let io = core::mem::replace(&mut duplex.io, AnyIo::new(tokio::io::empty()));
        // If this future is dropped before `f` is done, nothing is left to read from.
        duplex.reader.fail(None);
        let upgraded = f(io).await?;
        let duplex = self.duplex_mut();
        duplex.io = AnyIo::new(upgraded);
        duplex.reader.reopen();
        Ok(())
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// Wraps a stream and keeps its type: one that is not `Send`, is borrowed, or is wanted back as
    /// it is.
    pub fn from_io(io: Io, codec: LineCodec) -> Self {
        Self::from_duplex(Box::new(Duplex::new(io, codec, Peer::Other)))
    }

    /// Erases the type of the stream.
    pub fn into_any(self) -> Connection
    where
        Io: Send + Sync + 'static,
    {
        let typed = match any_io::cast(self) {
            // It may belong to a server.
            Ok(connection) => return connection,
            Err(typed) => typed,
        };
        let Duplex { io, reader, writer, peer, .. } = *typed.into_duplex();
        Connection::from_duplex(Box::new(Duplex::from_sides(AnyIo::new(io), reader, writer, peer, None)))
    }

    /// Returns the next line, or what is wrong with it. `None`: the peer has sent everything, or
    /// the server [is draining](Self::is_draining). Queued output has been sent then.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Timeout`]: the connection has failed. [`Error::TooManyBadLines`]:
    /// the peer has sent more bad lines than the server allows.
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, Io> {
        Inlined(|cx: &mut Context<'_>| match self.duplex_mut().next_good_line() {
            Some(line) => Poll::Ready(Ok(Some(Ok(line)))),
            None => self.duplex_mut().poll_line(cx),
        })
    }

    /// Returns the next line as text. A line that is not UTF-8 is a [`LineError::NotUtf8`].
    /// Otherwise as
    /// [`next_line`](Self::next_line).
    ///
    /// # Errors
    ///
    /// Those of [`next_line`](Self::next_line).
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, Io>
    {
        poll_fn(|cx| self.duplex_mut().poll_text(cx))
    }

    /// Returns all whole lines that have arrived, in order, including bad ones. Waits for the first
    /// one.
    ///
    /// # Errors
    ///
    /// Those of [`next_line`](Self::next_line).
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_batch(cx))
    }

    /// Returns the lines of the last batch that were not taken with `next()` to the connection.
    /// They are read again, as lines or as what they turn out to be, such as the bytes after `set k
    /// 5`.
    ///
    /// # Errors
    ///
    /// The batch, unchanged, if it is from another connection or something was read after it.
    pub fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.duplex_mut().reader.put_back(batch)
    }

    /// Returns exactly `count` bytes, those after the last line. A drain does not cut them off. Each
    /// call has a line timeout of its own: a handler that reads byte by byte gives up that limit.
    ///
    /// # Errors
    ///
    /// [`Error::Block`] if `count` is over the codec's
    /// [`max_block_length`](crate::LineCodecBuilder::max_block_length); nothing has changed then.
    /// [`body`](Self::body) and [`skip_bytes`](Self::skip_bytes) have no limit. [`Error::Eof`] if
    /// the peer has sent fewer. Otherwise those of [`next_line`](Self::next_line).
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io> {
        poll_fn(move |cx| self.duplex_mut().poll_block(count, cx))
    }

    /// Drops the next `count` bytes as they arrive, in constant memory. Only the idle timeout
    /// applies, to each read: a slow peer may take as long as it likes. The bytes are skipped from
    /// this call on, even if the future is never polled.
    ///
    /// # Errors
    ///
    /// [`Error::Eof`] if the peer has sent fewer. Otherwise those of
    /// [`next_line`](Self::next_line).
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        self.duplex_mut().reader.skip_bytes(count);
        poll_fn(|cx| self.duplex_mut().poll_skipped(cx))
    }

    /// Returns the next `count` bytes as a reader, in constant memory. Bytes that you do not read
    /// are skipped. Only the idle timeout applies, to each read: a slow peer may take as long as it
    /// likes.
    pub fn body(&mut self, count: u64) -> Body<'_, Io> {
        Body::new(self.duplex_mut(), count)
    }

    /// Queues a line; see [when output is sent](Self#when-output-is-sent). If more than 64 KiB (a
    /// server's `max_unsent`) are unsent, waits until the stream has taken them.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] if the bytes [cannot be one line](crate::EncodeError): nothing is written
    /// and the connection goes on. Otherwise the connection has failed.
    pub fn write_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        Inlined(move |cx: &mut Context<'_>| {
            let duplex = self.duplex_mut();
            if !duplex.queue_now(line.as_ref()) {
                ready!(duplex.poll_write_line(line.as_ref(), cx))?;
            }
            match duplex.is_send_due() {
                true => duplex.send_now(cx),
                false => Poll::Ready(Ok(())),
            }
        })
    }

    /// Queues a line and sends everything that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`write_line`](Self::write_line).
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| {
            self.duplex_mut().poll_writer(|writer, io| writer.poll_send_line(&mut line, io, cx))
        })
    }

    /// Queues bytes as they are, without a terminator and without a check, such as a block after a
    /// line.
    ///
    /// # Errors
    ///
    /// The connection has failed.
    pub fn write_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, B> {
        let mut queued = 0;
        poll_fn(move |cx| {
            self.duplex_mut().poll_writer(|writer, io| writer.poll_bytes(bytes.as_ref(), &mut queued, io, cx))
        })
    }

    /// Sends everything that is queued.
    ///
    /// # Errors
    ///
    /// The connection has failed.
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_writer(|writer, io| writer.poll_flush(io, cx)))
    }

    /// Sends everything that is queued, then the end of the stream: the peer reads no more lines.
    /// Reading goes on.
    ///
    /// # Errors
    ///
    /// The connection has failed.
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_writer(|writer, io| writer.poll_shutdown(io, cx)))
    }

    /// Sends one line and returns the next good line.
    ///
    /// # Errors
    ///
    /// [`Error::Line`] for a bad reply, [`Error::Eof`] for none. [`Error::Io`] if an earlier
    /// `request` was dropped before its reply arrived, since a late reply would be taken for this
    /// one's. Otherwise those of [`write_line`](Self::write_line) and
    /// [`next_line`](Self::next_line).
    pub fn request<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.duplex_mut().poll_request(&mut line, cx))
    }

    /// Returns who is at the other end.
    pub fn peer(&self) -> Peer {
        self.duplex().peer
    }

    /// Returns the stream.
    pub fn io(&self) -> &Io {
        &self.duplex().io
    }

    /// Whether the server has been asked to stop. Tells why [`next_line`](Self::next_line) returned
    /// `None`.
    pub fn is_draining(&self) -> bool {
        self.duplex().reader.draining().is_draining()
    }

    /// Completes when the server is asked to stop, for handlers that wait for something other than
    /// a line. It does not borrow the connection. Outside a server it never completes.
    pub fn draining(&self) -> Draining {
        self.duplex().reader.draining().clone()
    }

    /// Returns what went through.
    pub fn counters(&self) -> ConnectionCounters {
        self.duplex().counters()
    }

    /// Sets the limit for lines in both directions, in bytes of content: small before a login,
    /// larger after it. `None` is no limit. If the codec's `max_encoded_length` is set, it stays
    /// the limit for lines written.
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        let (content_bytes, duplex) = (content_bytes.into().unwrap_or(usize::MAX), self.duplex_mut());
        duplex.reader.decoder_mut().set_max_length(content_bytes);
        duplex.writer.encoder_mut().set_max_length(content_bytes);
    }

    /// Sets how long the peer may take to begin a line. `None` is no limit. It counts from when a read
    /// first waits for the line, also if that read's future is dropped and another one waits later.
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.duplex_mut().reader.limits_mut().idle_timeout = timeout.into();
    }

    /// Sets how long a line, or a block of [`read_bytes`](Self::read_bytes), may take from its
    /// first byte to its last. `None` is no limit.
    pub fn set_line_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.duplex_mut().reader.limits_mut().line_timeout = timeout.into();
    }

    /// Sets how long output may wait until the peer takes any of it. `None` is no limit.
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.duplex_mut().writer.limits_mut().write_timeout = timeout.into();
    }

    /// Borrows both halves, to read and write concurrently in one task with `join!`. When they are
    /// dropped, the connection has what either has read or has not sent.
    pub fn split(&mut self) -> (LineReader<BorrowedRead<'_, Io>>, LineWriter<BorrowedWrite<'_, Io>>) {
        split::borrow_halves(self.duplex_mut())
    }

    /// Splits it into two halves for two tasks. A connection of a server returns to it when both
    /// are dropped.
    pub fn into_split(self) -> (LineReader<ReadHalf<Io>>, LineWriter<WriteHalf<Io>>)
    where
        Io: Send + 'static,
    {
        split::into_halves(*self.into_duplex())
    }

    /// Makes a connection of the two halves of [`into_split`](Self::into_split) again, with
    /// everything that either has read or has not sent.
    ///
    /// # Errors
    ///
    /// [`ReuniteError`] with both halves, unchanged, if they are not of the same connection.
    ///
    /// # Panics
    ///
    /// If the stream has panicked.
    pub fn reunite(
        reader: LineReader<ReadHalf<Io>>,
        writer: LineWriter<WriteHalf<Io>>,
    ) -> Result<Self, ReuniteError<Io>>
    where
        Io: 'static,
    {
        split::reunite(reader, writer).map(Self::from_duplex)
    }

    /// Takes it apart. Nothing is lost.
    pub fn into_parts(self) -> Parts<Io> {
        let mut duplex = self.into_duplex();
        duplex.report();
        let Duplex { io, reader, writer, .. } = *duplex;
        let ((decoder, read), (encoder, unsent)) = (reader.into_parts(), writer.into_parts());
        Parts { io, codec: LineCodec::from_sides(decoder, encoder), read, unsent }
    }

    /// Returns the stream, for another protocol.
    ///
    /// # Errors
    ///
    /// [`UpgradeError`] with the connection, unchanged, if bytes were read and not handed out, are
    /// still to be skipped, or were written and not sent. [`into_parts`](Self::into_parts) returns them together with the
    /// stream.
    pub fn into_upgrade(self) -> Result<Io, UpgradeError<Self>> {
        match self.duplex().reader.left_over().saturating_add(self.duplex().writer.unsent()) {
            0 => Ok(self.into_parts().io),
            bytes => Err(UpgradeError { connection: self, source: Error::LeftOver { bytes } }),
        }
    }

    pub(crate) fn from_duplex(duplex: Box<Duplex<Io>>) -> Self {
        Self(Some(duplex))
    }

    pub(crate) fn into_duplex(mut self) -> Box<Duplex<Io>> {
        self.0.take().expect(TAKEN)
    }

    fn duplex(&self) -> &Duplex<Io> {
        self.0.as_ref().expect(TAKEN)
    }

    #[inline]
    pub(crate) fn duplex_mut(&mut self) -> &mut Duplex<Io> {
        self.0.as_mut().expect(TAKEN)
    }
}

/// Only methods that take `self` by value, and `Drop`, leave `None` behind.
const TAKEN: &str = "a connection has its sides until it is dropped or taken apart";

impl<Io: AsyncRead + AsyncWrite + Unpin> Drop for Connection<Io> {
    fn drop(&mut self) {
        if let Some(duplex) = self.0.take() {
            duplex.give_back();
        }
    }
}

/// Yields what [`next_line`](Connection::next_line) returns, and ends after an error.
impl<Io: AsyncRead + AsyncWrite + Unpin> Stream for Connection<Io> {
    type Item = Result<Result<Bytes, LineError>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.duplex_mut().poll_stream(cx)
    }
}

/// `feed` queues a line, `send` is [`send_line`](Connection::send_line), `close` is `shutdown`.
impl<Io: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for Connection<Io> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.duplex_mut().poll_sink(cx, Writer::poll_ready)
    }

    fn start_send(mut self: Pin<&mut Self>, line: Bytes) -> Result<(), Error> {
        self.duplex_mut().writer.queue(&line).map_err(Error::Encode)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.duplex_mut().poll_sink(cx, Writer::poll_flush)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.duplex_mut().poll_sink(cx, Writer::poll_shutdown)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> fmt::Debug for Connection<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
