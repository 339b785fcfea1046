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

/// A source of connections: Tokio's `TcpListener` and `UnixListener`, or your own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a listener",
    note = "bind one first: `tokio::net::TcpListener::bind(\"127.0.0.1:8083\").await?`"
)]
pub trait Listener: Send + 'static {
    /// Returns the next connection. If the future is dropped, no connection is lost.
    fn accept(&mut self) -> impl Future<Output = io::Result<Accepted>> + Send;

    /// Returns a connection that is already waiting to be accepted, if there is one. A drain calls
    /// it before it closes the listener.
    ///
    /// By default it polls [`accept`](Self::accept) once. Tokio's listeners ask the system, since
    /// Tokio may not know yet what waits: a listener that wraps one should pass the call on.
    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        // Not within the budget of the task, which ends after 128 connections.
        match pin!(unconstrained(self.accept())).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        }
    }
}

/// An accepted connection and its peer. A handshake may change both.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The stream.
    pub io: AnyIo,
    /// Who is at the other end.
    pub peer: Peer,
    pub(super) is_from_trusted_proxy: bool,
}

impl Accepted {
    /// Wraps a stream that something else has accepted.
    pub fn new(io: AnyIo, peer: Peer) -> Self {
        Self { io, peer, is_from_trusted_proxy: false }
    }

    /// Marks it as coming from a proxy that is trusted to report its clients. Only the peer that
    /// the [handshake](crate::ServerBuilder::handshake) reports counts under
    /// `max_connections_per_ip` then, not the proxy, from which all connections come.
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

/// Accepts a connection if the system has one waiting, whatever Tokio knows of it.
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

/// Binds listeners with more control than Tokio's `bind`: the backlog, and for Unix sockets the
/// mode, stale files and removal.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::Bind;
///
/// let listener = Bind::new().backlog(64).tcp("127.0.0.1:0").await?;
/// println!("listening {}", listener.local_addr()?);
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
    /// Starts with a backlog of 1024 and the mode that follows from the umask of the process.
    pub fn new() -> Self {
        Self {
            backlog: 1024,
            #[cfg(unix)]
            mode: None,
        }
    }

    /// Sets how many connections may wait to be accepted. The system may have a smaller limit
    /// (Linux: `net.core.somaxconn`). Default: 1024.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Sets who may connect to a Unix socket: the mode of its file, such as `0o600`. It is set
    /// before anybody can connect.
    #[cfg(unix)]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Listens on the first address that can be bound. Port 0 is any free port.
    ///
    /// # Errors
    ///
    /// The error of the last address tried, or of the lookup.
    pub async fn tcp(&self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in lookup_host(addr).await? {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Allows to bind a port whose last connections are in TIME_WAIT. On Windows the option
            // means something else.
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
