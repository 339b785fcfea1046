//! One connection type for both sides: whole lines in, whole lines out.

mod any_io;
mod body;
mod buffer;
#[cfg(feature = "server")]
mod bytewise;
pub(crate) mod clock;
mod deadline;
mod drained;
mod draining;
mod error;
mod guard;
mod halves;
#[cfg(feature = "server")]
mod home;
mod inner;
mod input;
mod joined;
mod limits;
mod output;
mod peer;
mod plain;
#[cfg(feature = "server")]
mod queue;
mod reading;
#[cfg(feature = "server")]
mod served;
mod take;
mod traffic;
mod turn;

use std::boxed::Box;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

pub use self::any_io::AnyIo;
pub use self::body::Body;
#[cfg(feature = "server")]
pub(crate) use self::bytewise::Bytewise;
pub use self::draining::Draining;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use self::error::Escaped;
pub use self::error::{Error, Timeout};
pub use self::halves::{LineReader, LineWriter};
#[cfg(feature = "server")]
pub(crate) use self::home::{Seat, Seats, Whereabouts};
#[cfg(feature = "server")]
pub(crate) use self::limits::Limits;
pub use self::peer::Peer;
#[cfg(feature = "server")]
pub(crate) use self::served::Answers;
#[cfg(feature = "server")]
pub(crate) use self::traffic::Traffic;

pub(crate) use self::inner::Inner;
use self::input::Input;
use self::joined::Joined;
use self::output::Output;
use self::plain::Inlined;
use crate::codec::{Batch, CodecCounters, LineCodec};
use crate::error::LineError;

/// A stream of bytes as lines, on either side of it: what handlers of a [`Server`](struct.Server.html) are given, what a
/// [`Client`](struct.Client.html) connects to, and what any stream becomes by [`Connection::new`].
///
/// ```
/// # use lineframe::Connection;
/// # async fn handle(mut conn: Connection) -> std::io::Result<()> {
/// // The outer `?`: the connection is gone. An inner error: this line only; the next one still comes.
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
/// `while let Some(Ok(line)) = ..` compiles and ends at the first bad line. Where one good item has to come,
/// `conn.next_line().await?.transpose()?` ends with an error at a bad one.
///
/// # When output goes out
///
/// [`write_line`](Self::write_line) queues. What is queued goes out
///
/// - when a read is about to wait, or the end is about to be reported,
/// - past 64 KiB (a server's `max_unsent`),
/// - by [`flush`](Self::flush) and [`send_line`](Self::send_line),
/// - at once where lines are being answered that were read more than a millisecond ago. A handler of a server that answered
///   the lines before quickly, and now holds up its thread for each, is seen to do so at the 32nd of them at the latest; one
///   that waits, at the first.
///
/// So lines that came together are answered with one write, and a single one at once. A handler that waits for something
/// else than a read uses `send_line`. A connection that is dropped outside a server loses what is queued.
///
/// # When a future is dropped
///
/// | method | dropped before it is done |
/// |---|---|
/// | `next_line`, `next_text`, `next_batch` | nothing is lost |
/// | `read_bytes` | nothing is taken |
/// | `skip_bytes`, `body` | what is left of the bytes is skipped by the next read |
/// | `write_line`, `send_line` | the line is queued whole, or, where it has to wait for that, not at all |
/// | `write_bytes` | a part may have been queued |
/// | `flush`, `shutdown` | what is unsent goes out later |
/// | `request` | the reply is still to come: `next_line` reads it, another `request` is refused |
/// | `upgrade` | the connection is gone |
///
/// # Deadlines
///
/// A connection made by `new`, and a client's, has none: [`set_line_timeout`](Self::set_line_timeout),
/// [`set_idle_timeout`](Self::set_idle_timeout) and [`set_write_timeout`](Self::set_write_timeout) set them. Those of a
/// server's connections are 30 seconds for a line, 5 minutes between lines and 30 seconds for the peer to take what was
/// written, unless the server was told otherwise. They are judged only after trying to read or write, and a peer that drips
/// cannot reset them.
pub struct Connection<Io = AnyIo>(Option<Box<Inner<Io>>>)
where
    Io: AsyncRead + AsyncWrite + Unpin;

/// What a [`Connection`] is made of: [`Connection::into_parts`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<Io> {
    /// The stream.
    pub io: Io,
    /// The codec. In the middle of a line, `read` begins with it.
    pub codec: LineCodec,
    /// Read and not handed over.
    pub read: BytesMut,
    /// Written to the connection and not sent.
    pub unsent: BytesMut,
}

/// What went through a [`Connection`]: [`Connection::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounters {
    /// What became of the bytes read.
    pub read: CodecCounters,
    /// Lines written, whether sent already or not.
    pub lines_written: u64,
    /// Bytes handed to the stream.
    pub bytes_sent: u64,
}

impl Connection {
    /// Any stream, with the codec's defaults and no deadlines. Its type is forgotten: handlers and clients name
    /// `Connection` and take every stream. TCP and Unix streams are not boxed.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self::with_codec(io, LineCodec::new())
    }

    /// Any stream, with a codec of its own and no deadlines.
    pub fn with_codec(
        io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        codec: LineCodec,
    ) -> Self {
        Self::typed(AnyIo::new(io), codec)
    }

    /// A stream to read from and another to write to, such as a child's stdout and stdin.
    /// [`shutdown`](Self::shutdown) drops the writer, which closes a child's stdin.
    pub fn join(
        reader: impl AsyncRead + Send + Sync + Unpin + 'static,
        writer: impl AsyncWrite + Send + Sync + Unpin + 'static,
    ) -> Self {
        Self::new(Joined::new(reader, writer))
    }

    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn connected(io: AnyIo, codec: LineCodec, peer: Peer) -> Self {
        let mut connection = Self::typed(io, codec);
        connection.inner_mut().peer = peer;
        connection
    }

    /// Makes another stream of this one, such as a TLS session: sends what is queued, hands the stream to `f` and goes on
    /// over what that gives, with the same codec, limits, deadlines and counters. `f` itself has no deadline: a peer that is silent
    /// in its handshake holds its place until `tokio::time::timeout` around this gives up.
    ///
    /// # Errors
    ///
    /// [`Error::LeftOver`] where bytes have been read that were not handed over: they came before the upgrade and would be
    /// taken for what came after it (CVE-2011-0411). Nothing has changed then. Where `f` fails, its error; the connection is
    /// then gone.
    pub async fn upgrade<T>(&mut self, f: impl AsyncFnOnce(AnyIo) -> io::Result<T>) -> Result<(), Error>
    where
        T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        match self.inner_mut().input.buffered() {
            0 => {}
            bytes => return Err(Error::LeftOver { bytes }),
        }
        self.flush().await?;
        let inner = self.inner_mut();
        let io = core::mem::replace(&mut inner.io, AnyIo::new(tokio::io::empty()));
        inner.input.is_gone = true;
        let upgraded = f(io).await?;
        let inner = self.inner_mut();
        inner.io = AnyIo::new(upgraded);
        inner.input.is_gone = false;
        Ok(())
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// A stream that is to keep its type: one that is not `Send`, is borrowed, or is wanted back as it is.
    pub fn typed(io: Io, codec: LineCodec) -> Self {
        let (walk, encoder) = codec.into_sides();
        Self(Some(Box::new(Inner::new(io, Input::new(walk), Output::new(encoder), Peer::Other))))
    }

    /// Forgets the stream's type.
    pub fn into_any(self) -> Connection
    where
        Io: Send + Sync + 'static,
    {
        let typed = match any_io::cast(self) {
            // It may have a home.
            Ok(connection) => return connection,
            Err(typed) => typed,
        };
        let Inner { io, input, output, peer, .. } = *typed.into_inner();
        Connection(Some(Box::new(Inner::new(AnyIo::new(io), input, output, peer))))
    }

    /// The next line, or what is wrong with it. `None`: the peer has sent all it will send, or the server
    /// [is draining](Self::is_draining); what was queued has been sent.
    ///
    /// # Errors
    ///
    /// The connection is gone: [`Error::Io`], [`Error::Timeout`]. [`Error::TooManyBadLines`] where more came than the
    /// server takes.
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, Io> {
        Inlined(|cx: &mut Context<'_>| match self.inner_mut().next_plain_line() {
            Some(line) => Poll::Ready(Ok(Some(Ok(line)))),
            None => self.poll_in(|input, output, io| input.poll_line(io, output, cx)),
        })
    }

    /// The next line as text. One that is not UTF-8 is a [`LineError::NotUtf8`]. Otherwise [`next_line`](Self::next_line).
    ///
    /// # Errors
    ///
    /// Those of [`next_line`](Self::next_line).
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, Io>
    {
        poll_fn(|cx| self.poll_in(|input, output, io| input.poll_text(io, output, cx)))
    }

    /// All whole lines that have come, in order, bad ones among them; waits for the first.
    ///
    /// # Errors
    ///
    /// Those of [`next_line`](Self::next_line).
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, Io> {
        poll_fn(|cx| self.poll_in(|input, output, io| input.poll_batch(io, output, cx)))
    }

    /// Gives back the lines of the last batch that were not taken with `next()`: they are read again, as lines or as what
    /// they turned out to be, such as the bytes behind `set k 5`. For the batch that was read last, before anything else
    /// is read.
    pub fn put_back(&mut self, batch: Batch) {
        self.inner_mut().input.put_back(batch);
    }

    /// Exactly `count` bytes: those behind the last line. A drain does not cut them.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyBytes`] over the codec's
    /// [`max_block_length`](crate::LineCodecBuilder::max_block_length), and nothing has changed: [`body`](Self::body) and
    /// [`skip_bytes`](Self::skip_bytes) have no limit. [`Error::Eof`] where the peer has sent fewer. Otherwise those of
    /// [`next_line`](Self::next_line).
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io> {
        poll_fn(move |cx| self.poll_in(|input, output, io| input.poll_bytes(count, io, output, cx)))
    }

    /// Drops the next `count` bytes as they come, in constant memory. The idle timeout applies to each read, and no other:
    /// a peer that drips may take as long as it likes. They are not to be read from the call on, whether the future is polled
    /// or not.
    ///
    /// # Errors
    ///
    /// [`Error::Eof`] where the peer has sent fewer. Otherwise those of [`next_line`](Self::next_line).
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        self.skip_later(count);
        poll_fn(|cx| self.poll_in(|input, output, io| input.poll_skipped(io, output, cx)))
    }

    /// The next `count` bytes as a reader, in constant memory. What is not read of them is skipped. The idle timeout applies
    /// to each read, and no other: a peer that drips may take as long as it likes.
    pub fn body(&mut self, count: u64) -> Body<'_, Io> {
        Body { connection: self, left: count }
    }

    /// Queues a line: [when output goes out](Self#when-output-goes-out). Waits before that where more than 64 KiB (a server's
    /// `max_unsent`) are unsent already, and where other tasks are to have their turns first.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] where the line [cannot be one](crate::EncodeError): nothing is written and the connection goes on.
    /// Otherwise the connection is gone.
    pub fn write_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        Inlined(move |cx: &mut Context<'_>| {
            if !self.inner_mut().queue_plain_line(line.as_ref()) {
                ready!(self.poll_in(|_, output, io| output.poll_line(line.as_ref(), io, cx)))?;
            }
            match self.inner().is_to_send() {
                true => self.poll_in(|_, output, io| Poll::Ready(output.send_now(io, cx))),
                false => Poll::Ready(Ok(())),
            }
        })
    }

    /// Queues a line and sends all that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`write_line`](Self::write_line).
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.poll_in(|_, output, io| output.poll_line_sent(&mut line, io, cx)))
    }

    /// Queues bytes as they are, without a terminator and without a check: a block behind a line.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn write_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, B> {
        let mut queued = 0;
        poll_fn(move |cx| {
            self.poll_in(|_, output, io| output.poll_bytes(bytes.as_ref(), &mut queued, io, cx))
        })
    }

    /// Sends all that is queued.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.poll_in(|_, output, io| output.poll_send(0, io, cx)))
    }

    /// Sends all that is queued, then the end of the stream: the peer reads no more lines. Reading goes on.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.poll_in(|_, output, io| output.poll_shutdown(io, cx)))
    }

    /// One line out, one good line in.
    ///
    /// # Errors
    ///
    /// [`Error::Line`] for a bad reply, [`Error::Eof`] for none. [`Error::Io`] where an earlier `request` was dropped before
    /// its reply came: a late reply would be taken for this one's. Otherwise those of [`write_line`](Self::write_line)
    /// and [`next_line`](Self::next_line).
    pub fn request<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.poll_request(&mut line, cx))
    }

    fn poll_request(
        &mut self,
        line: &mut Option<impl AsRef<[u8]>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, Error>> {
        if let Some(request) = line {
            if self.inner_mut().output.is_reply_due {
                return Poll::Ready(Err(Error::Io(io::Error::other(
                    "a request was dropped; its reply is still to come",
                ))));
            }
            ready!(self.poll_in(|_, output, io| output.poll_line(request.as_ref(), io, cx)))?;
            *line = None;
            self.inner_mut().output.is_reply_due = true;
        }
        let reply = ready!(self.poll_in(|input, output, io| input.poll_line(io, output, cx)));
        self.inner_mut().output.is_reply_due = false;
        Poll::Ready(reply?.ok_or(Error::Eof)?.map_err(Error::from))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.inner().peer
    }

    /// The stream.
    pub fn io(&self) -> &Io {
        &self.inner().io
    }

    /// Whether the server has been asked to stop: what [`next_line`](Self::next_line) gave `None` for, if not for the end.
    pub fn is_draining(&self) -> bool {
        self.draining().is_draining()
    }

    /// Done when the server is asked to stop, for handlers that wait for something else than a line. The connection stays
    /// free. Never done outside a server.
    pub fn draining(&self) -> Draining {
        self.inner().with_sides(|input, _| input.draining.clone())
    }

    /// What went through.
    pub fn counters(&self) -> ConnectionCounters {
        self.inner().with_sides(ConnectionCounters::of)
    }

    /// A new limit for lines in both directions, in bytes of content: small before a login, larger after. Lines written keep
    /// theirs where the codec's `max_encoded_length` was set.
    pub fn set_max_length(&mut self, content_bytes: usize) {
        let Inner { input, output, .. } = self.inner_mut();
        input.walk.set_max_length(content_bytes);
        output.encoder.set_max_length(content_bytes);
    }

    /// How long the peer may take to begin a line. `None`: for ever.
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        Arc::make_mut(&mut self.inner_mut().input.limits).idle_timeout = timeout.into();
    }

    /// How long a line may take from its first byte to its last, and a block of [`read_bytes`](Self::read_bytes). `None`: for
    /// ever.
    pub fn set_line_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        Arc::make_mut(&mut self.inner_mut().input.limits).line_timeout = timeout.into();
    }

    /// How long output may wait for the peer to take it. `None`: for ever.
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        Arc::make_mut(&mut self.inner_mut().output.limits).write_timeout = timeout.into();
    }

    /// Both halves for a while, to read and to write at once in one task with `join!`. When they are dropped the connection
    /// is whole again, with what either has read or has not sent.
    pub fn split(
        &mut self,
    ) -> (LineReader<impl AsyncRead + Unpin + use<'_, Io>>, LineWriter<impl AsyncWrite + Unpin + use<'_, Io>>)
    {
        self.inner_mut().lend()
    }

    /// Both halves for good, for two tasks. A connection of a server goes home to it when both are dropped.
    pub fn into_split(self) -> (LineReader<ReadHalf<Io>>, LineWriter<WriteHalf<Io>>)
    where
        Io: Send + 'static,
    {
        self.into_inner().part()
    }

    /// Everything it is made of, nothing lost.
    pub fn into_parts(self) -> Parts<Io> {
        let mut inner = self.into_inner();
        inner.report();
        let Inner { io, input, output, .. } = *inner;
        let ((walk, read), (encoder, unsent)) = (input.into_parts(), output.into_parts());
        Parts { io, codec: LineCodec::from_sides(walk, encoder), read, unsent }
    }

    /// The stream alone, for another protocol.
    ///
    /// # Errors
    ///
    /// [`Error::LeftOver`] where bytes were read and not handed over, or written and not sent. They are then lost with the
    /// connection; [`into_parts`](Self::into_parts) has them.
    pub fn into_upgrade(self) -> Result<Io, Error> {
        let Parts { io, read, unsent, .. } = self.into_parts();
        match read.len() + unsent.len() {
            0 => Ok(io),
            bytes => Err(Error::LeftOver { bytes }),
        }
    }

    /// One step of reading or writing. An error of the stream or a deadline ends the connection for good.
    fn poll_in<T>(
        &mut self,
        step: impl FnOnce(&mut Input, &mut Output, &mut Io) -> Poll<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        self.inner_mut().poll_in(step)
    }

    fn skip_later(&mut self, count: u64) {
        self.inner_mut().input.skip_bytes(count);
    }

    fn inner(&self) -> &Inner<Io> {
        self.0.as_ref().expect("there until the connection is dropped or taken apart")
    }

    fn inner_mut(&mut self) -> &mut Inner<Io> {
        let inner = self.0.as_mut().expect("there until the connection is dropped or taken apart");
        if inner.lent.is_some() {
            inner.take_back();
        }
        inner
    }

    pub(crate) fn into_inner(mut self) -> Box<Inner<Io>> {
        self.inner_mut();
        self.0.take().expect("there until the connection is dropped or taken apart")
    }
}

impl ConnectionCounters {
    fn of(input: &Input, output: &Output) -> Self {
        Self { read: input.walk.counters(), lines_written: output.lines, bytes_sent: output.bytes }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Drop for Connection<Io> {
    fn drop(&mut self) {
        if let Some(mut inner) = self.0.take() {
            inner.take_back();
            if let Some(home) = inner.home.take() {
                // Where the session was aborted, it is only counted.
                _ = home.send(inner).map_err(|mut inner| inner.report());
            }
        }
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
