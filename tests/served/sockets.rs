use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use lineframe::{Accepted, AnyIo, Listener};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

#[derive(Clone, Copy, Debug)]
pub enum Buffers {
    Usual,
    /// The smallest size that the kernel allows.
    Smallest,
}

/// An address that peers can connect to.
#[derive(Debug)]
pub enum Address {
    Tcp(SocketAddr, Buffers),
    /// The file is removed on drop.
    Unix(PathBuf, Buffers),
}

/// A listener, and the buffer sizes of the connections it accepts.
pub enum AnyListener {
    Tcp(TcpListener),
    Unix(UnixListener, Buffers),
}

/// Listens on a free TCP port.
pub fn tcp(buffers: Buffers) -> (Address, AnyListener) {
    let socket = TcpSocket::new_v4().unwrap();
    // Accepted sockets inherit the buffer sizes of the listener.
    buffers.set(SockRef::from(&socket));
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1024).unwrap();
    (Address::Tcp(listener.local_addr().unwrap(), buffers), AnyListener::Tcp(listener))
}

/// Listens on a new socket path.
pub fn unix(buffers: Buffers) -> (Address, AnyListener) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("lineframe-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    (Address::Unix(path, buffers), AnyListener::Unix(listener, buffers))
}

/// Returns each kind of socket with each buffer size.
pub fn all_kinds() -> [(Address, AnyListener); 4] {
    [tcp(Buffers::Usual), unix(Buffers::Usual), tcp(Buffers::Smallest), unix(Buffers::Smallest)]
}

impl Address {
    pub async fn connect(&self) -> io::Result<AnyIo> {
        Ok(match self {
            Self::Tcp(address, buffers) => {
                let socket = TcpSocket::new_v4()?;
                buffers.set(SockRef::from(&socket));
                let io = socket.connect(*address).await?;
                io.set_nodelay(true)?;
                AnyIo::new(io)
            }
            Self::Unix(path, buffers) => {
                let io = UnixStream::connect(path).await?;
                buffers.set(SockRef::from(&io));
                AnyIo::new(io)
            }
        })
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        if let Self::Unix(path, _) = self {
            _ = std::fs::remove_file(path);
        }
    }
}

impl Listener for AnyListener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => Listener::accept(listener).await,
            Self::Unix(listener, buffers) => {
                let accepted = Listener::accept(listener).await?;
                let io = accepted.io.downcast_ref::<UnixStream>().expect("a Unix stream");
                buffers.set(SockRef::from(io));
                Ok(accepted)
            }
        }
    }

    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.accept_queued(),
            Self::Unix(listener, _) => listener.accept_queued(),
        }
    }
}

impl Buffers {
    fn set(self, socket: SockRef<'_>) {
        if let Self::Smallest = self {
            socket.set_send_buffer_size(1).unwrap();
            socket.set_recv_buffer_size(1).unwrap();
        }
    }
}

/// Connects from another local address of this machine.
#[cfg(target_os = "linux")]
pub async fn connect_from(ip: Ipv4Addr, address: &Address) -> io::Result<TcpStream> {
    let Address::Tcp(address, _) = address else { panic!("not a TCP address") };
    let socket = TcpSocket::new_v4()?;
    socket.bind((ip, 0).into())?;
    socket.connect(*address).await
}
