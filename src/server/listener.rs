#[cfg(unix)]
mod unix;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use socket2::{SockRef, Socket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::task::unconstrained;

use crate::net::{AnyIo, Peer};

#[cfg(unix)]
pub use self::unix::BoundUnix;

/// A source of connections: Tokio's `TcpListener` and `UnixListener`, or your own type. Requires
/// the feature `net`.
///
/// ```
/// use std::io;
///
/// use lineframe::{Accepted, AnyIo, Listener, Peer};
/// use tokio::io::DuplexStream;
/// use tokio::sync::mpsc::Receiver;
///
/// /// Accepts in-memory connections, for tests.
/// struct InMemory(Receiver<DuplexStream>);
///
/// impl Listener for InMemory {
///     async fn accept(&mut self) -> io::Result<Accepted> {
///         match self.0.recv().await {
///             Some(stream) => Ok(Accepted::new(AnyIo::new(stream), Peer::Other)),
///             None => std::future::pending().await,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a listener",
    note = "bind one first: `tokio::net::TcpListener::bind(\"127.0.0.1:8083\").await?`"
)]
pub trait Listener: Send + 'static {
    /// Waits for the next connection and returns it. Must be cancel safe: dropping the future must
    /// not lose a connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<Accepted>> + Send;

    /// Returns a connection from the accept queue without waiting, or `None` if the queue is empty.
    /// The server calls this during a shutdown, before it closes the listener.
    ///
    /// The default implementation polls [`accept`](Self::accept) once. Tokio's listeners ask the
    /// system instead, because Tokio may not know yet which connections wait. A type that wraps one
    /// of them should forward this call.
    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        // `unconstrained`, because the budget of a task ends after 128 connections.
        match pin!(unconstrained(self.accept())).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        }
    }
}

/// An accepted connection and its peer. Requires the feature `net`. A
/// [handshake](crate::ServerBuilder::handshake) may change both.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The stream.
    pub io: AnyIo,
    /// The other end of the connection.
    pub peer: Peer,
    pub(super) is_from_trusted_proxy: bool,
}

impl Accepted {
    /// Wraps a stream that was accepted elsewhere.
    ///
    /// ```
    /// # async fn run(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// use lineframe::{Accepted, AnyIo, Peer};
    ///
    /// let peer = Peer::Tcp(stream.peer_addr()?);
    /// let accepted = Accepted::new(AnyIo::new(stream), peer);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(io: AnyIo, peer: Peer) -> Self {
        Self { io, peer, is_from_trusted_proxy: false }
    }

    /// Marks the connection as coming from a proxy that is trusted to report its clients.
    ///
    /// All connections come from the address of the proxy, so that address does not count under
    /// `max_connections_per_ip`. Only the peer that the
    /// [handshake](crate::ServerBuilder::handshake) returns counts.
    ///
    /// ```
    /// # async fn run(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// use lineframe::{Accepted, AnyIo, Peer};
    ///
    /// let accepted = Accepted::new(AnyIo::new(stream), Peer::Other).from_trusted_proxy();
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_trusted_proxy(self) -> Self {
        Self { is_from_trusted_proxy: true, ..self }
    }
}

impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let (io, peer) = Self::accept(self).await?;
        Ok(Accepted::new(AnyIo::new(io), Peer::Tcp(peer)))
    }

    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        accept_from_system(SockRef::from(&*self), |socket| TcpStream::from_std(socket.into()))
    }
}

#[cfg(unix)]
impl Listener for UnixListener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let (io, _) = Self::accept(self).await?;
        let io = AnyIo::new(io);
        let peer = Peer::of(&io);
        Ok(Accepted::new(io, peer))
    }

    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        accept_from_system(SockRef::from(&*self), |socket| {
            UnixStream::from_std(std::os::fd::OwnedFd::from(socket).into())
        })
    }
}

/// Accepts a connection from the system's accept queue, even if Tokio does not know about it yet.
fn accept_from_system<Io>(
    listener: SockRef<'_>,
    into_stream: impl FnOnce(Socket) -> io::Result<Io>,
) -> Option<io::Result<Accepted>>
where
    Io: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let accepted = listener.accept().and_then(|(socket, _)| {
        socket.set_nonblocking(true)?;
        let io = AnyIo::new(into_stream(socket)?);
        let peer = Peer::of(&io);
        Ok(Accepted::new(io, peer))
    });
    match accepted {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        accepted => Some(accepted),
    }
}

/// A builder for listeners with more options than Tokio's `bind`. Requires the feature `net`.
///
/// It sets the backlog, and for Unix sockets the file mode. It also replaces stale socket files and
/// removes them on drop.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::Bind;
///
/// let listener = Bind::new().backlog(64).tcp("127.0.0.1:0").await?;
/// println!("listening on {}", listener.local_addr()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Bind {
    backlog: u32,
    #[cfg(unix)]
    mode: Option<u32>,
}

impl Bind {
    /// Returns the default options: a backlog of 1024, and the mode from the umask of the process.
    ///
    /// ```
    /// let bind = lineframe::Bind::new();
    /// ```
    pub fn new() -> Self {
        Self {
            backlog: 1024,
            #[cfg(unix)]
            mode: None,
        }
    }

    /// Sets how many connections may wait to be accepted. The system may have a lower limit (Linux:
    /// `net.core.somaxconn`). Default: 1024.
    ///
    /// ```
    /// let bind = lineframe::Bind::new().backlog(64);
    /// ```
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Sets the mode of a Unix socket file, such as `0o600`, which defines the users that may
    /// connect. The mode is set before any client can connect. Default: from the umask.
    ///
    /// ```
    /// let bind = lineframe::Bind::new().mode(0o600);
    /// ```
    #[cfg(unix)]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Listens on the first address that can be bound. Port 0 selects a free port.
    ///
    /// # Errors
    ///
    /// The error of the last address, or of the name lookup.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let listener = lineframe::Bind::new().tcp("127.0.0.1:0").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn tcp(&self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the host name has no address");
        for addr in lookup_host(addr).await? {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Allows binding a port whose last connections are in TIME_WAIT. The option has another
            // meaning on Windows.
            #[cfg(not(windows))]
            socket.set_reuseaddr(true)?;
            match socket.bind(addr).and_then(|()| socket.listen(self.backlog)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Default for Bind {
    fn default() -> Self {
        Self::new()
    }
}
