use std::future::Future;
use std::io;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use crate::connection::{AnyIo, Peer};

/// What connections come from: tokio's `TcpListener` and `UnixListener`, or one of your own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a listener",
    note = "bind one first: `tokio::net::TcpListener::bind(\"127.0.0.1:8083\").await?`"
)]
pub trait Listener: Send + 'static {
    /// The next connection. Dropped before it is done, it loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<Accepted>> + Send;
}

/// A connection that has been accepted, and from whom. A handshake may change both.
#[derive(Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// The stream.
    pub io: AnyIo,
    /// Who is at the other end.
    pub peer: Peer,
}

impl Accepted {
    /// From a stream that something else has accepted.
    pub fn new(io: AnyIo, peer: Peer) -> Self {
        Self { io, peer }
    }
}

impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let (io, peer) = Self::accept(self).await?;
        Ok(Accepted::new(AnyIo::new(io), Peer::Tcp(peer)))
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
}
