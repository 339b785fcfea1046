use std::fmt::Display;
use std::io;
#[cfg(unix)]
use std::path::Path;

use lineframe::{Accepted, AnyIo, Client};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use crate::address::Address;
use crate::failure::Failure;

pub(crate) async fn connect(address: &Address) -> Result<AnyIo, Failure> {
    let connected = match address {
        Address::Tcp(to) => Client::new().connect(to.as_str()).await,
        #[cfg(unix)]
        Address::Unix(path) => Client::new().connect_unix(path).await,
        #[cfg(not(unix))]
        Address::Unix(_) => {
            return Err(Failure::cannot_connect(format_args!(
                "cannot connect to {address}: no Unix sockets here"
            )));
        }
    };
    connected.map(|connection| connection.into_parts().io).map_err(Failure::cannot_connect)
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

    /// The address as a client may be given it.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|at| Address::Tcp(at.to_string())),
            #[cfg(unix)]
            Self::Unix { file, .. } => Ok(Address::Unix(file.0.clone())),
        }
    }
}

impl lineframe::Listener for Listener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => lineframe::Listener::accept(listener).await,
            #[cfg(unix)]
            Self::Unix { listener, .. } => lineframe::Listener::accept(listener).await,
        }
    }
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
