mod parts;
mod read;
mod write;

use std::boxed::Box;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::parts::Parts;
use super::duplex::{ConnectionCounters, Duplex};
use super::error::Error;
use super::io::{self as any_io, AnyIo, Joined, Peer};
use super::shutdown::Draining;
use crate::codec::LineCodec;

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
/// A connection is also a [`Stream`](futures_core::Stream) of the items of `next_line`, and a [`Sink`](futures_sink::Sink) of lines.
///
#[doc = include_str!("connection.txt")]
pub struct Connection<Io = AnyIo>(Option<Box<Duplex<Io>>>)
where
    Io: AsyncRead + AsyncWrite + Unpin;

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

impl<Io: AsyncRead + AsyncWrite + Unpin> fmt::Debug for Connection<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
