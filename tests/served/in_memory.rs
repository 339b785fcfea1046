use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use lineframe::{Accepted, AnyIo, Listener, Peer};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Accepts the connections of its [`Dialer`]. Used with a paused clock, which does not work with
/// sockets.
pub struct InMemory(UnboundedReceiver<io::Result<Accepted>>);

#[derive(Clone)]
pub struct Dialer(UnboundedSender<io::Result<Accepted>>);

pub fn in_memory() -> (Dialer, InMemory) {
    let (dialer, listener) = unbounded_channel();
    (Dialer(dialer), InMemory(listener))
}

impl Dialer {
    /// Connects a peer whose stream buffers `capacity` bytes in each direction. One read returns at
    /// most `capacity` bytes.
    pub fn connect(&self, capacity: usize) -> DuplexStream {
        self.connect_from([127, 0, 0, 1].into(), capacity)
    }

    pub fn connect_from(&self, ip: Ipv4Addr, capacity: usize) -> DuplexStream {
        let (peer, io) = duplex(capacity);
        self.0.send(Ok(Accepted::new(AnyIo::new(io), Peer::Tcp(SocketAddr::from((ip, 1024)))))).unwrap();
        peer
    }

    pub fn fail(&self, error: io::Error) {
        self.0.send(Err(error)).unwrap();
    }
}

impl Listener for InMemory {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => pending().await,
        }
    }
}
