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

/// A connection that reads and writes lines over a byte stream. Requires the feature `net`.
///
/// A [`Server`](crate::Server) passes a connection to each handler, a [`Client`](crate::Client)
/// returns one, and [`Connection::new`] wraps any stream.
///
/// ```
/// # use lineframe::Connection;
/// # async fn handle(mut conn: Connection) -> std::io::Result<()> {
/// // `?` returns if the connection has failed. An inner error concerns only this line.
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
/// A connection is also a [`Stream`] of the items of `next_line`, and a [`Sink`] of lines.
///
#[doc = include_str!("connection.txt")]
pub struct Connection<Io = AnyIo>(Option<Box<Duplex<Io>>>)
where
    Io: AsyncRead + AsyncWrite + Unpin;

/// The stream, codec and buffers of a [`Connection`], returned by [`Connection::into_parts`].
/// Requires the feature `net`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<Io> {
    /// The stream.
    pub io: Io,
    /// The codec, with its state in the middle of the stream: decoding continues with `read`.
    pub codec: LineCodec,
    /// Bytes that were read from the stream and not returned to the caller.
    pub read: BytesMut,
    /// Bytes that were queued and not sent.
    pub unsent: BytesMut,
}

impl Connection {
    /// Wraps any stream, with the default codec and without deadlines. A write waits while
    /// more than 64 KiB of output are unsent.
    ///
    /// The type of the stream is erased, so a handler or client written for `Connection` accepts
    /// every stream. TCP and Unix streams are not boxed.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run() -> std::io::Result<()> {
    /// let stream = tokio::net::TcpStream::connect("127.0.0.1:8083").await?;
    /// let mut conn = Connection::new(stream);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self::with_codec(io, LineCodec::new())
    }

    /// Wraps any stream, with the given codec and without deadlines.
    ///
    /// ```
    /// # use lineframe::{Connection, LineCodec};
    /// # async fn run(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// let codec = LineCodec::builder().max_length(1024).build();
    /// let mut conn = Connection::with_codec(stream, codec);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_codec(
        io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
        codec: LineCodec,
    ) -> Self {
        Self::from_io(AnyIo::new(io), codec)
    }

    /// Joins a stream to read from and a stream to write to, such as the stdout and stdin of a
    /// child process. [`shutdown`](Self::shutdown) drops the writer, which closes the child's
    /// stdin.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # use std::process::Stdio;
    /// # async fn run() -> std::io::Result<()> {
    /// let mut child = tokio::process::Command::new("cat")
    ///     .stdin(Stdio::piped())
    ///     .stdout(Stdio::piped())
    ///     .spawn()?;
    /// let (stdout, stdin) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    /// let mut cat = Connection::join(stdout, stdin);
    /// assert_eq!(cat.request("hello").await?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(
        reader: impl AsyncRead + Send + Sync + Unpin + 'static,
        writer: impl AsyncWrite + Send + Sync + Unpin + 'static,
    ) -> Self {
        Self::new(Joined::new(reader, writer))
    }

    pub(crate) fn with_peer(io: AnyIo, codec: LineCodec, peer: Peer) -> Self {
        Self::from_duplex(Box::new(Duplex::new(io, codec, peer)))
    }

    /// Replaces the stream with one built on top of it, such as a TLS session. The codec, limits,
    /// deadlines and counters stay the same.
    ///
    /// Sends queued output, then passes the stream to `f` and continues with the stream that `f`
    /// returns. `f` has no deadline: wrap this call in `tokio::time::timeout`, or a peer that is
    /// silent during the handshake occupies the connection forever.
    ///
    /// # Errors
    ///
    /// - [`Error::LeftOver`] if received bytes are unread. The peer sent them before the upgrade,
    ///   and they would be accepted as if sent after it (CVE-2011-0411). The same error is returned
    ///   if bytes of a body or a long line are still to be skipped. The connection is unchanged.
    /// - The error of `f`. The connection has then failed.
    /// - Errors of [`flush`](Self::flush).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe. If the future is dropped while `f` runs, the connection has failed.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # use tokio_rustls::TlsAcceptor;
    /// # async fn run(mut conn: Connection, acceptor: TlsAcceptor) -> Result<(), Error> {
    /// use std::{io, time::Duration};
    ///
    /// // The client has sent STARTTLS.
    /// conn.write_line("220 ready").await?;
    /// let upgrade = conn.upgrade(async |io| acceptor.accept(io).await);
    /// tokio::time::timeout(Duration::from_secs(10), upgrade).await.map_err(io::Error::from)??;
    /// # Ok(())
    /// # }
    /// ```
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
        // If this future is dropped before `f` returns, the stream is lost, so the connection must
        // fail.
        duplex.reader.fail(None);
        let upgraded = f(io).await?;
        let duplex = self.duplex_mut();
        duplex.io = AnyIo::new(upgraded);
        duplex.reader.reopen();
        Ok(())
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// Wraps a stream and keeps its type. Use it for streams that are borrowed or not `Send`, and
    /// to get the stream back with its type.
    ///
    /// ```
    /// # use lineframe::{Connection, LineCodec};
    /// # async fn run(mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// let mut conn = Connection::from_io(&mut stream, LineCodec::new());
    /// conn.send_line("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_io(io: Io, codec: LineCodec) -> Self {
        Self::from_duplex(Box::new(Duplex::new(io, codec, Peer::Other)))
    }

    /// Erases the type of the stream.
    ///
    /// ```
    /// # use lineframe::{Connection, LineCodec};
    /// # async fn run(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// let typed = Connection::from_io(stream, LineCodec::new());
    /// let conn: Connection = typed.into_any();
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_any(self) -> Connection
    where
        Io: Send + Sync + 'static,
    {
        let typed = match any_io::cast(self) {
            // An untyped connection may belong to a server, so return it unchanged.
            Ok(connection) => return connection,
            Err(typed) => typed,
        };
        let Duplex { io, reader, writer, peer, .. } = *typed.into_duplex();
        Connection::from_duplex(Box::new(Duplex::from_sides(AnyIo::new(io), reader, writer, peer, None)))
    }

    /// Returns the next line, or a description of a bad line.
    ///
    /// Returns `None` if the peer has closed its side of the stream, or if the server [is
    /// draining](Self::is_draining). All queued output has then been sent.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    /// - [`Error::TooManyBadLines`] if the peer has sent more bad lines than the server's
    ///   `max_bad_lines`.
    /// - [`Error::NotLines`] if the server refuses HTTP and TLS, and the peer speaks one of them.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// while let Some(line) = conn.next_line().await? {
    ///     match line {
    ///         Ok(line) => println!("received {} bytes", line.len()),
    ///         Err(bad) => println!("skipped a bad line: {bad}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, Io> {
        Inlined(|cx: &mut Context<'_>| match self.duplex_mut().next_good_line() {
            Some(line) => Poll::Ready(Ok(Some(Ok(line)))),
            None => self.duplex_mut().poll_line(cx),
        })
    }

    /// Returns the next line as text. Requires the feature `text`. A line that is not UTF-8 is a
    /// [`LineError::NotUtf8`]. Otherwise the same as [`next_line`](Self::next_line), including its
    /// errors and cancel safety.
    ///
    /// # Errors
    ///
    /// The errors of [`next_line`](Self::next_line).
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// if let Some(line) = conn.next_text().await?.transpose()? {
    ///     println!("{}", line.trim());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, Io>
    {
        poll_fn(|cx| self.duplex_mut().poll_text(cx))
    }

    /// Returns all complete lines that are available, in order, including bad ones. Waits until at
    /// least one line is available. Returns `None` at the end, as [`next_line`](Self::next_line)
    /// does.
    ///
    /// # Errors
    ///
    /// The errors of [`next_line`](Self::next_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// while let Some(batch) = conn.next_batch().await? {
    ///     for line in &batch {
    ///         println!("received {} bytes", line?.len());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_batch(cx))
    }

    /// Puts the unread lines of the last batch back into the connection. The bytes are then decoded
    /// again, as lines or as something else, such as the block after the memcached command `set k 0
    /// 0 5`.
    ///
    /// # Errors
    ///
    /// Returns the batch unchanged if it belongs to another connection, or if anything was read
    /// after the batch.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// if let Some(mut batch) = conn.next_batch().await? {
    ///     let first = batch.next();
    ///     conn.put_back(batch).expect("nothing was read after this batch");
    ///     let block = conn.read_bytes(5).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.duplex_mut().reader.put_back(batch)
    }

    /// Returns exactly `count` bytes, starting after the last line that was returned. A graceful
    /// shutdown does not interrupt the block. The line timeout applies to each call, so a handler
    /// that reads a line byte by byte loses that protection.
    ///
    /// # Errors
    ///
    /// - [`Error::Block`] if `count` exceeds the codec's
    ///   [`max_block_length`](crate::LineCodecBuilder::max_block_length). No byte is consumed.
    ///   [`body`](Self::body) and [`skip_bytes`](Self::skip_bytes) have no limit.
    /// - [`Error::Eof`] if the peer closes the stream before `count` bytes have arrived.
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is consumed before the block is complete.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// let block = conn.read_bytes(512).await?;
    /// assert_eq!(block.len(), 512);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io> {
        poll_fn(move |cx| self.duplex_mut().poll_block(count, cx))
    }

    /// Discards the next `count` bytes as they arrive, in constant memory. The skip starts with
    /// this call, even if the returned future is never polled.
    ///
    /// Only the idle timeout applies, and it restarts with each read, so a slow peer may take any
    /// time.
    ///
    /// # Errors
    ///
    /// - [`Error::Eof`] if the peer closes the stream before `count` bytes have arrived.
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next read skips the remaining bytes.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.skip_bytes(1 << 30).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        self.duplex_mut().reader.skip_bytes(count);
        poll_fn(|cx| self.duplex_mut().poll_skipped(cx))
    }

    /// Returns a reader for the next `count` bytes. It uses constant memory, and the connection
    /// skips the bytes that you do not read.
    ///
    /// Only the idle timeout applies, and it restarts with each read, so a slow peer may take any
    /// time. Dropping the reader is safe: the next read of the connection continues after the body.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// let mut file = tokio::fs::File::create("upload").await?;
    /// tokio::io::copy(&mut conn.body(1 << 20), &mut file).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn body(&mut self, count: u64) -> Body<'_, Io> {
        Body::new(self.duplex_mut(), count)
    }

    /// Queues a line; see [when output is sent](Self#when-output-is-sent). If more than 64 KiB (a
    /// server's `max_unsent`) are unsent, first waits until the stream has accepted enough of them.
    ///
    /// # Errors
    ///
    /// - [`Error::Encode`] if the bytes [cannot be one line](crate::EncodeError). The line
    ///   is not queued, and the connection can still be used.
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// for number in 0..3 {
    ///     conn.write_line(format!("item {number}")).await?;
    /// }
    /// conn.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Queues a line and sends all queued output.
    ///
    /// # Errors
    ///
    /// The errors of [`write_line`](Self::write_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all. Queued output is sent later.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.send_line("ready").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| {
            self.duplex_mut().poll_writer(|writer, io| writer.poll_send_line(&mut line, io, cx))
        })
    }

    /// Queues bytes without a terminator and without any check, such as a block after a line. Waits
    /// as [`write_line`](Self::write_line) does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may be queued.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.write_line("VALUE k 0 5").await?;
    /// conn.write_bytes("hello\r\n").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, B> {
        let mut queued = 0;
        poll_fn(move |cx| {
            self.duplex_mut().poll_writer(|writer, io| writer.poll_bytes(bytes.as_ref(), &mut queued, io, cx))
        })
    }

    /// Sends all queued output.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: unsent output is sent later.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.write_line("working").await?;
    /// conn.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_writer(|writer, io| writer.poll_flush(io, cx)))
    }

    /// Sends all queued output, then closes the writing side (half-close). The connection can still
    /// read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: call `shutdown` again to continue.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.shutdown().await?;
    /// while conn.next_line().await?.is_some() {}
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_writer(|writer, io| writer.poll_shutdown(io, cx)))
    }

    /// Sends one line and returns the next line as its reply.
    ///
    /// # Errors
    ///
    /// - [`Error::Line`] if the reply is a bad line, [`Error::Eof`] if the stream ends without a
    ///   reply.
    /// - [`Error::Io`] if the future of an earlier `request` was dropped before its reply arrived.
    ///   Replies can then no longer be matched to requests.
    /// - The errors of [`write_line`](Self::write_line) and [`next_line`](Self::next_line).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: every later `request` fails. [`next_line`](Self::next_line) still returns
    /// the reply.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// let reply = conn.request("PING").await?;
    /// assert_eq!(reply, "PONG");
    /// # Ok(())
    /// # }
    /// ```
    pub fn request<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.duplex_mut().poll_request(&mut line, cx))
    }

    /// Returns the other end of the connection: its address, its process, or [`Peer::Other`].
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// println!("connected to {}", conn.peer());
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer(&self) -> Peer {
        self.duplex().peer
    }

    /// Returns the stream.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// if let Some(tcp) = conn.io().downcast_ref::<tokio::net::TcpStream>() {
    ///     println!("{:?}", tcp.local_addr()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn io(&self) -> &Io {
        &self.duplex().io
    }

    /// Returns whether the server is shutting down. If so, [`next_line`](Self::next_line) returns
    /// `None` after the last line that arrived before the shutdown. Always `false` outside a
    /// server.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// while conn.next_line().await?.is_some() {}
    /// if conn.is_draining() {
    ///     conn.write_line("421 server is shutting down").await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_draining(&self) -> bool {
        self.duplex().reader.draining().is_draining()
    }

    /// Returns a future that completes when the server starts to shut down. Use it in a handler
    /// that waits for something other than a line. The future does not borrow the connection.
    /// Outside a server, it never completes. It is cancel safe.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # use tokio::sync::mpsc::Receiver;
    /// # async fn run(mut conn: Connection, mut events: Receiver<String>) -> Result<(), Error> {
    /// let mut draining = conn.draining();
    /// loop {
    ///     tokio::select! {
    ///         Some(event) = events.recv() => conn.send_line(event).await?,
    ///         _ = &mut draining => break,
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn draining(&self) -> Draining {
        self.duplex().reader.draining().clone()
    }

    /// Returns the numbers of lines and bytes in each direction so far.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let counters = conn.counters();
    /// println!("{} lines read, {} written", counters.read.lines, counters.lines_written);
    /// # Ok(())
    /// # }
    /// ```
    pub fn counters(&self) -> ConnectionCounters {
        self.duplex().counters()
    }

    /// Sets the length limit for lines in both directions, in bytes of content. `None` means no
    /// limit. The default comes from the codec: 64 KiB. If the codec sets `max_encoded_length`,
    /// that remains the limit for written lines.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// conn.set_max_length(1024); // until the client has logged in
    /// conn.set_max_length(1024 * 1024);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        let (content_bytes, duplex) = (content_bytes.into().unwrap_or(usize::MAX), self.duplex_mut());
        duplex.reader.decoder_mut().set_max_length(content_bytes);
        duplex.writer.encoder_mut().set_max_length(content_bytes);
    }

    /// Sets how long the peer may take to begin a line. `None` means no limit. Default: no limit; 5
    /// minutes in a server.
    ///
    /// The time starts when a read first waits for the line. Dropping that read's future does not
    /// restart it.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # use std::time::Duration;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// conn.set_idle_timeout(Duration::from_secs(60));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.duplex_mut().reader.limits_mut().idle_timeout = timeout.into();
    }

    /// Sets how long a line, or a block of [`read_bytes`](Self::read_bytes), may take from its
    /// first byte to its last. `None` means no limit. Default: no limit; 30 s in a server.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # use std::time::Duration;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// conn.set_line_timeout(Duration::from_secs(10));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_line_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.duplex_mut().reader.limits_mut().line_timeout = timeout.into();
    }

    /// Sets how long output may wait until the peer accepts at least one byte. `None` means no
    /// limit. Default: no limit; 30 s in a server.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # use std::time::Duration;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// conn.set_write_timeout(Duration::from_secs(10));
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.duplex_mut().writer.limits_mut().write_timeout = timeout.into();
    }

    /// Borrows the connection as two halves, to read and write concurrently in one task. When the
    /// halves are dropped, their unread and unsent bytes return to the connection.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// let (mut reader, mut writer) = conn.split();
    /// let (line, sent) = tokio::join!(reader.next_line(), writer.send_line("hello"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(&mut self) -> (LineReader<BorrowedRead<'_, Io>>, LineWriter<BorrowedWrite<'_, Io>>) {
        split::borrow_halves(self.duplex_mut())
    }

    /// Splits the connection into two halves for two tasks. When both halves of a server's
    /// connection are dropped, the server ends the connection as usual.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (mut reader, mut writer) = conn.into_split();
    /// tokio::spawn(async move { writer.send_line("hello").await });
    /// while let Some(line) = reader.next_line().await? {
    ///     println!("received {} bytes", line?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_split(self) -> (LineReader<ReadHalf<Io>>, LineWriter<WriteHalf<Io>>)
    where
        Io: Send + 'static,
    {
        split::into_halves(*self.into_duplex())
    }

    /// Reunites the two halves that [`into_split`](Self::into_split) returned. The connection keeps
    /// their unread and unsent bytes.
    ///
    /// # Errors
    ///
    /// Returns [`ReuniteError`] with both halves, unchanged, if they belong to different
    /// connections.
    ///
    /// # Panics
    ///
    /// Panics if the stream has panicked.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (reader, writer) = conn.into_split();
    /// let conn = Connection::reunite(reader, writer).expect("both are halves of `conn`");
    /// # Ok(())
    /// # }
    /// ```
    pub fn reunite(
        reader: LineReader<ReadHalf<Io>>,
        writer: LineWriter<WriteHalf<Io>>,
    ) -> Result<Self, ReuniteError<Io>>
    where
        Io: 'static,
    {
        split::reunite(reader, writer).map(Self::from_duplex)
    }

    /// Returns the stream, the codec and both buffers. No byte is lost.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let parts = conn.into_parts();
    /// println!("{} bytes unread, {} unsent", parts.read.len(), parts.unsent.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_parts(self) -> Parts<Io> {
        let mut duplex = self.into_duplex();
        duplex.report();
        let Duplex { io, reader, writer, .. } = *duplex;
        let ((decoder, read), (encoder, unsent)) = (reader.into_parts(), writer.into_parts());
        Parts { io, codec: LineCodec::from_sides(decoder, encoder), read, unsent }
    }

    /// Returns the stream, to continue with another protocol.
    ///
    /// # Errors
    ///
    /// Returns [`UpgradeError`] with the unchanged connection if received bytes are unread or still
    /// to be skipped, or if queued output is unsent. [`into_parts`](Self::into_parts) returns these
    /// bytes together with the stream.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.flush().await?;
    /// let stream = conn.into_upgrade()?;
    /// # Ok(())
    /// # }
    /// ```
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

/// Only `Drop` and methods that take `self` by value leave `None`.
const TAKEN: &str = "a connection has its sides until it is dropped or taken apart";

impl<Io: AsyncRead + AsyncWrite + Unpin> Drop for Connection<Io> {
    fn drop(&mut self) {
        if let Some(duplex) = self.0.take() {
            duplex.give_back();
        }
    }
}

/// Yields the items of [`next_line`](Connection::next_line). Ends after an error.
impl<Io: AsyncRead + AsyncWrite + Unpin> Stream for Connection<Io> {
    type Item = Result<Result<Bytes, LineError>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.duplex_mut().poll_stream(cx)
    }
}

/// Writes lines: `feed` queues a line, `send` is [`send_line`](Connection::send_line), and `close`
/// is [`shutdown`](Connection::shutdown).
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
