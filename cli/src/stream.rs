use std::fmt::Display;
use std::io;

#[cfg(unix)]
use lineframe::BoundUnix;
use lineframe::{Accepted, AnyIo, Bind, Client};
use tokio::net::TcpListener;

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
    Unix(BoundUnix),
}

impl Listener {
    pub(crate) async fn bind(address: &Address) -> Result<Self, Failure> {
        match address {
            Address::Tcp(at) => Bind::new().tcp(at).await.map(Self::Tcp),
            #[cfg(unix)]
            Address::Unix(path) => Bind::new().unix(path).await.map(Self::Unix),
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
            Self::Unix(listener) => Ok(Address::Unix(listener.path().into())),
        }
    }
}

impl lineframe::Listener for Listener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => lineframe::Listener::accept(listener).await,
            #[cfg(unix)]
            Self::Unix(listener) => lineframe::Listener::accept(listener).await,
        }
    }
}

/// Prints a line of data on stdout, at once.
pub(crate) fn print(line: impl Display) -> Result<(), Failure> {
    use std::io::Write;

    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Failure::stdout)
}
