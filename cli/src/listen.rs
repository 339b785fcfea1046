//! Listeners for every kind of address.

use std::io;

#[cfg(unix)]
use lineframe::BoundUnix;
use lineframe::{Accepted, Bind};
use tokio::net::TcpListener;
#[cfg(any(target_os = "linux", target_os = "android"))]
use tokio::net::UnixListener;

use crate::address::{self, Address};
use crate::failure::Failure;

pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(BoundUnix),
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Abstract(UnixListener, Address),
}

impl Listener {
    pub(crate) async fn bind(bind: &Bind, address: &Address) -> Result<Self, Failure> {
        match address {
            Address::Tcp(at) => match address::with_scope_number(at).await {
                Ok(at) => bind.tcp(&*at).await.map(Self::Tcp),
                Err(error) => Err(error),
            },
            #[cfg(unix)]
            Address::Unix(path) => bind.unix(path).await.map(Self::Unix),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Address::Abstract(name) => {
                bind.unix_abstract(name).map(|listener| Self::Abstract(listener, address.clone()))
            }
            #[allow(unreachable_patterns, reason = "Linux supports every kind")]
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
        .map_err(|error| Failure::other(format_args!("cannot listen on {address}"), error))
    }

    /// Returns the address that clients connect to, with the actual port.
    pub(crate) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|at| Address::Tcp(at.to_string())),
            #[cfg(unix)]
            Self::Unix(listener) => Ok(Address::Unix(listener.path().into())),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Abstract(_, address) => Ok(address.clone()),
        }
    }
}

impl lineframe::Listener for Listener {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => lineframe::Listener::accept(listener).await,
            #[cfg(unix)]
            Self::Unix(listener) => lineframe::Listener::accept(listener).await,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Abstract(listener, _) => lineframe::Listener::accept(listener).await,
        }
    }

    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.accept_queued(),
            #[cfg(unix)]
            Self::Unix(listener) => listener.accept_queued(),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::Abstract(listener, _) => listener.accept_queued(),
        }
    }
}
