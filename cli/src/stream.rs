use std::fmt::Display;
use std::io;
use std::path::Path;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::address::Address;
use crate::failure::Failure;

/// A connection, over TCP or a Unix socket.
pub(crate) type Stream = Pin<Box<dyn Io>>;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

pub(crate) async fn connect(address: &Address) -> Result<Stream, Failure> {
    match address {
        Address::Tcp(to) => TcpStream::connect(to).await.map(tcp),
        #[cfg(unix)]
        Address::Unix(path) => UnixStream::connect(path).await.map(|io| Box::pin(io) as Stream),
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
    .map_err(|error| Failure::cannot_connect(address, error))
}

pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        file: SocketFile,
    },
}

impl Listener {
    pub(crate) async fn bind(address: &Address) -> Result<Self, Failure> {
        match address {
            Address::Tcp(at) => TcpListener::bind(at).await.map(Self::Tcp),
            #[cfg(unix)]
            Address::Unix(path) => bind_unix(path).await,
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
        .map_err(|error| Failure::other(format_args!("cannot listen on {address}"), error))
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(io, _)| tcp(io)),
            #[cfg(unix)]
            Self::Unix { listener, .. } => listener.accept().await.map(|(io, _)| Box::pin(io) as Stream),
        }
    }

    /// The address as a client may be given it.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|at| Address::Tcp(at.to_string())),
            #[cfg(unix)]
            Self::Unix { file, .. } => Ok(Address::Unix(file.0.clone())),
        }
    }
}

/// One line, one packet: without this a line waits up to 40 ms for the acknowledgement of the one before.
fn tcp(io: TcpStream) -> Stream {
    // It fails where the peer has gone already, which the first read tells better.
    _ = io.set_nodelay(true);
    Box::pin(io)
}

/// The file of a listening Unix socket, removed with it.
#[cfg(unix)]
pub(crate) struct SocketFile(std::path::PathBuf);

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

/// Binds. A socket file that a server left behind, so that nobody answers on it, is replaced; any other file stays.
#[cfg(unix)]
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    use std::os::unix::fs::FileTypeExt;

    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(error.kind(), "it exists and is not a socket"));
            }
            match UnixStream::connect(path).await {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        bound => bound?,
    };
    Ok(Listener::Unix { listener, file: SocketFile(path.into()) })
}

/// Prints a line of data on stdout, at once.
pub(crate) fn print(line: impl Display) -> Result<(), Failure> {
    use std::io::Write;

    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Failure::stdout)
}
