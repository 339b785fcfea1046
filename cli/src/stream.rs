//! Connecting to a server.

use std::time::Duration;

use lineframe::{AnyIo, Client};

use crate::address::{self, Address};
use crate::failure::Failure;
use crate::units::{self, Limit};

/// Connection options, shared by the commands that connect to a server.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Connecting")]
pub(crate) struct Connecting {
    /// Time limit for one round of attempts over all addresses of the host
    #[arg(long, value_name = "DURATION|none", default_value = "10s")]
    #[arg(value_parser = units::limit(units::duration))]
    connect_timeout: Limit<Duration>,

    /// Retry up to N times if connecting fails, pausing 100ms at first and up to 5s
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry: u32,
}

impl Default for Connecting {
    fn default() -> Self {
        Self { connect_timeout: Limit(Some(Duration::from_secs(10))), retry: 0 }
    }
}

impl Connecting {
    /// Returns these options with unlimited retries.
    pub(crate) fn for_ever(self) -> Self {
        Self { retry: u32::MAX, ..self }
    }

    pub(crate) async fn connect(self, address: &Address) -> Result<AnyIo, Failure> {
        let client = Client::builder().connect_timeout(self.connect_timeout.0).retry(self.retry).build();
        let connected = match address {
            Address::Tcp(to) => {
                let to = address::with_scope_number(to).await.map_err(|error| {
                    Failure::cannot_connect(format_args!("cannot connect to {address}: {error}"))
                })?;
                client.connect(&*to).await
            }
            #[cfg(unix)]
            Address::Unix(path) => client.connect_unix(path).await,
            // An abstract name begins with a NUL byte: unix(7).
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Address::Abstract(name) => {
                use std::os::unix::ffi::OsStringExt;

                let name = std::ffi::OsString::from_vec([b"\0", &name[..]].concat());
                client.connect_unix(std::path::PathBuf::from(name)).await
            }
            #[allow(unreachable_patterns, reason = "Linux supports every kind")]
            _ => {
                let why = format!("cannot connect to {address}: this system does not support such sockets");
                return Err(Failure::cannot_connect(why));
            }
        };
        connected.map(|connection| connection.into_parts().io).map_err(Failure::cannot_connect)
    }
}

/// Asks the system whether a connection has unread bytes. Tokio's readiness may be out of date:
/// after the process was stopped, timers fire before Tokio learns of bytes received meanwhile.
pub(crate) struct Arrived(#[cfg(unix)] Option<std::os::fd::OwnedFd>);

impl Arrived {
    /// Duplicates the descriptor, so that the connection can be read at the same time.
    pub(crate) fn of(io: &AnyIo) -> Self {
        #[cfg(unix)]
        return Self(socket(io).and_then(|socket| socket.try_clone_to_owned().ok()));
        #[cfg(not(unix))]
        {
            _ = io;
            Self()
        }
    }

    pub(crate) fn has_some(&self) -> bool {
        #[cfg(unix)]
        return self.0.as_ref().is_some_and(is_readable);
        #[cfg(not(unix))]
        false
    }
}

/// Returns whether the connection has unread bytes, or an end or error to report.
pub(crate) fn has_arrived(io: &AnyIo) -> bool {
    #[cfg(unix)]
    return socket(io).is_some_and(|socket| is_readable(&socket));
    #[cfg(not(unix))]
    {
        _ = io;
        false
    }
}

#[cfg(unix)]
fn socket(io: &AnyIo) -> Option<std::os::fd::BorrowedFd<'_>> {
    use std::os::fd::AsFd;

    let tcp = io.downcast_ref::<tokio::net::TcpStream>().map(AsFd::as_fd);
    tcp.or_else(|| io.downcast_ref::<tokio::net::UnixStream>().map(AsFd::as_fd))
}

#[cfg(unix)]
fn is_readable(socket: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&zero)).is_ok_and(|ready| ready > 0)
}

/// Connects with the default options: one round of attempts, within 10 s.
pub(crate) async fn connect(address: &Address) -> Result<AnyIo, Failure> {
    Connecting::default().connect(address).await
}
