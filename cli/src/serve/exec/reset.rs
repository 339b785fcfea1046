use std::future::pending;
use std::io;

use lineframe::Connection;

/// Detects that a client reset its connection while nothing is read from the connection.
pub(super) struct ResetWatch(Option<system::Socket>);

impl ResetWatch {
    /// Never reports a reset if the connection is neither a TCP nor a Unix socket.
    pub(super) fn new(connection: &Connection) -> io::Result<Self> {
        Ok(Self(system::Socket::of(connection)?))
    }

    pub(super) async fn reset(&self) {
        match &self.0 {
            Some(socket) => socket.error().await,
            None => pending().await,
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::future::pending;
    use std::io;
    use std::os::fd::AsFd;

    use lineframe::Connection;
    use tokio::io::Interest;
    use tokio::net::{TcpStream, UnixStream};

    /// Duplicated socket, because the reader and the writer borrow the connection.
    pub(super) struct Socket(UnixStream);

    impl Socket {
        pub(super) fn of(connection: &Connection) -> io::Result<Option<Self>> {
            let io = connection.io();
            let tcp = io.downcast_ref::<TcpStream>().map(AsFd::as_fd);
            let Some(socket) = tcp.or_else(|| io.downcast_ref::<UnixStream>().map(AsFd::as_fd)) else {
                return Ok(None);
            };
            // Only used for readiness, so a `UnixStream` may hold a socket of any family.
            let socket = std::os::unix::net::UnixStream::from(socket.try_clone_to_owned()?);
            Ok(Some(Self(UnixStream::from_std(socket)?)))
        }

        pub(super) async fn error(&self) {
            if self.0.ready(Interest::ERROR).await.is_err() {
                pending().await
            }
        }
    }
}

/// Fallback for systems without error readiness: the next read or write detects the reset.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io;

    use lineframe::Connection;

    pub(super) enum Socket {}

    impl Socket {
        pub(super) fn of(_: &Connection) -> io::Result<Option<Self>> {
            Ok(None)
        }

        pub(super) async fn error(&self) {
            match *self {}
        }
    }
}
