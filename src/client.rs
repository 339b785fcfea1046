//! A client that connects over TCP or a Unix socket, with a timeout and retries.

mod builder;
mod error;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::{Instant, sleep, timeout_at};

pub use self::builder::ClientBuilder;
pub use self::error::ConnectError;
use crate::LineCodec;
use crate::net::{AnyIo, Connection, Keepalive, Peer, configure};

/// Pause before the second round of attempts. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Maximum pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A client that opens [`Connection`]s, all with the same settings. Requires the feature `net`.
///
/// The client keeps no connection: it is neither a pool nor a session.
///
/// ```
/// use lineframe::Client;
/// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let addr = listener.local_addr()?;
/// # tokio::spawn(async move {
/// #     let (mut io, _) = listener.accept().await.unwrap();
/// #     io.read_exact(&mut [0; 6]).await.unwrap();
/// #     io.write_all(b"HELLO\n").await.unwrap();
/// # });
/// let mut conn = Client::new().connect(addr).await?;
/// assert_eq!(conn.request("hello").await?, "HELLO");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    codec: LineCodec,
    connect_timeout: Option<Duration>,
    retry: u32,
    keepalive: Option<Keepalive>,
}

impl Client {
    /// Creates a client with [`LineCodec::new`], 10 s to connect, and one round of attempts.
    ///
    /// ```
    /// let client = lineframe::Client::new();
    /// ```
    pub fn new() -> Self {
        Self {
            codec: LineCodec::new(),
            connect_timeout: Some(Duration::from_secs(10)),
            retry: 0,
            keepalive: Some(Keepalive::new()),
        }
    }

    /// Returns a builder to set the codec, the timeout, retries and keepalive.
    ///
    /// ```
    /// let client = lineframe::Client::builder().retry(2).build();
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder { client: Self::new() }
    }

    /// Connects over TCP to `addr`: `"host:7000"`, `("host", 7000)`, a [`SocketAddr`] or a slice of
    /// them. The client tries the addresses of a name in the order of the resolver, until one
    /// answers.
    ///
    /// The connection sends lines without delay (`TCP_NODELAY`). It has no deadlines of its own:
    /// set them with [`set_idle_timeout`](Connection::set_idle_timeout),
    /// [`set_line_timeout`](Connection::set_line_timeout) and
    /// [`set_write_timeout`](Connection::set_write_timeout).
    ///
    /// # Errors
    ///
    /// [`ConnectError`], with the reason for each address, if no address answers in the last round.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future closes the attempt.
    ///
    /// ```
    /// # use lineframe::Client;
    /// # async fn run() -> std::io::Result<()> {
    /// let conn = Client::new().connect("localhost:7000").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(&self, addr: impl ToSocketAddrs + fmt::Debug) -> Result<Connection, ConnectError> {
        // Boxed here and in `connect_unix`, so that the caller's future does not grow by 900 bytes.
        Box::pin(async {
            let mut attempts = Attempts::new(self);
            loop {
                if let Some(io) = attempts.over_tcp(&addr).await {
                    configure(&io, true, self.keepalive, None);
                    return Ok(self.connection(AnyIo::new(io)));
                }
                if !attempts.next_round().await {
                    return Err(attempts.failed(format!("{addr:?}")));
                }
            }
        })
        .await
    }

    /// Connects to the Unix socket at `path`. On Linux, a path that begins with a NUL byte is an
    /// abstract name. If the listener's backlog is full, the client waits for space, up to
    /// [`connect_timeout`](ClientBuilder::connect_timeout). Otherwise the same as
    /// [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the last round fails.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with I/O and time enabled.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future closes the attempt.
    ///
    /// ```
    /// # use lineframe::Client;
    /// # async fn run() -> std::io::Result<()> {
    /// let conn = Client::new().connect_unix("/run/app.sock").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(unix)]
    pub async fn connect_unix(&self, path: impl AsRef<Path>) -> Result<Connection, ConnectError> {
        let path = path.as_ref();
        Box::pin(async {
            let mut attempts = Attempts::new(self);
            loop {
                if let Some(io) = attempts.over_unix(path).await {
                    return Ok(self.connection(AnyIo::new(io)));
                }
                if !attempts.next_round().await {
                    return Err(attempts.failed(format!("{path:?}")));
                }
            }
        })
        .await
    }

    fn connection(&self, io: AnyIo) -> Connection {
        let mut codec = self.codec.clone();
        codec.reset();
        let peer = Peer::of(&io);
        Connection::with_peer(io, codec, peer)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

/// The rounds of attempts of one call of `connect`, and their errors.
struct Attempts {
    connect_timeout: Option<Duration>,
    rounds_left: u32,
    /// Pause before the next round.
    pause: Duration,
    /// `true` if an error of this round may be temporary.
    is_temporary: bool,
    /// Failed attempts, the latest last. Attempts with the same address and outcome share one
    /// entry, so that many rounds need little memory.
    failed: Vec<Attempt>,
}

/// An attempt that failed in one or more rounds.
struct Attempt {
    at: String,
    error: io::Error,
    times: u32,
}

impl Attempts {
    fn new(client: &Client) -> Self {
        Self {
            connect_timeout: client.connect_timeout,
            rounds_left: client.retry,
            pause: FIRST_PAUSE,
            is_temporary: false,
            failed: Vec::new(),
        }
    }

    /// Runs one round over TCP.
    async fn over_tcp(&mut self, addr: impl ToSocketAddrs) -> Option<TcpStream> {
        let until = self.deadline();
        let addresses: Vec<_> = match in_time(until, lookup_host(addr)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                // Errors of the resolver have no specific kind. An invalid address is
                // `InvalidInput`.
                let is_temporary = error.kind() != io::ErrorKind::InvalidInput;
                self.note("name lookup".into(), error, is_temporary);
                return None;
            }
        };
        if addresses.is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
            self.note("name lookup".into(), error, false);
        }
        for (tried, &address) in addresses.iter().enumerate() {
            match in_time(share(until, addresses.len() - tried), tcp(address)).await {
                Ok(io) => return Some(io),
                Err(error) => {
                    let is_temporary = is_temporary(&error);
                    self.note(address.to_string(), error, is_temporary);
                }
            }
        }
        None
    }

    /// Runs one round over a Unix socket.
    #[cfg(unix)]
    async fn over_unix(&mut self, path: &Path) -> Option<UnixStream> {
        match in_time(self.deadline(), unix(path)).await {
            Ok(io) => Some(io),
            Err(error) => {
                // A server that is still starting has not created its socket yet.
                let is_temporary = is_temporary(&error) || error.kind() == io::ErrorKind::NotFound;
                self.note(path.display().to_string(), error, is_temporary);
                None
            }
        }
    }

    /// Returns the end of a round that starts now. Returns `None` if the timeout exceeds the range
    /// of the clock.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.connect_timeout?)
    }

    fn note(&mut self, at: String, error: io::Error, is_temporary: bool) {
        self.is_temporary |= is_temporary;
        let outcome = |error: &io::Error| (error.kind(), error.raw_os_error());
        let same = |attempt: &Attempt| attempt.at == at && outcome(&attempt.error) == outcome(&error);
        let before = self.failed.iter().position(same).map_or(0, |index| self.failed.remove(index).times);
        self.failed.push(Attempt { at, error, times: before.saturating_add(1) });
    }

    /// Waits for the next round. Returns `false` if no round is left.
    async fn next_round(&mut self) -> bool {
        if self.rounds_left == 0 || !self.is_temporary {
            return false;
        }
        self.rounds_left -= 1;
        self.is_temporary = false;
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    fn failed(self, target: String) -> ConnectError {
        ConnectError { target, failed: self.failed }
    }
}

async fn in_time<T>(until: Option<Instant>, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match until {
        None => attempt.await,
        Some(until) => timeout_at(until, attempt).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time (connect_timeout)"))
        }),
    }
}

/// Divides the remaining time into `parts` equal parts, and returns the end of the first one.
fn share(until: Option<Instant>, parts: usize) -> Option<Instant> {
    let now = Instant::now();
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    until.map(|until| now + until.saturating_duration_since(now) / parts)
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let io = TcpStream::connect(address).await?;
    if is_itself(&io) {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no server listens on this port"));
    }
    Ok(io)
}

/// Returns whether the socket is connected to itself.
///
/// If no server listens on a port of this host, the system may choose that very port as the local
/// port. The socket then connects to itself, and would prevent the server from binding the port.
fn is_itself(io: &TcpStream) -> bool {
    matches!((io.local_addr(), io.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Connects to a Unix socket. Like a blocking `connect`, waits while the listener's backlog is
/// full. Linux has no event for that, so this polls.
#[cfg(unix)]
async fn unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = Duration::from_millis(5);
    loop {
        match UnixStream::connect(path).await {
            Err(full) if full.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            connected => return connected,
        }
        pause = (pause * 2).min(FIRST_PAUSE);
    }
}

/// Returns whether the error may be temporary.
fn is_temporary(error: &io::Error) -> bool {
    use io::ErrorKind::*;

    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | ConnectionAborted
            | TimedOut
            | HostUnreachable
            | NetworkUnreachable
            | NetworkDown
            | AddrNotAvailable
            | Interrupted
    )
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// The system connects a socket to itself only by chance, so no test through the public API can
    /// cover it.
    #[tokio::test]
    async fn sockets_connected_to_themselves_are_detected() -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse().unwrap())?;
        let port = socket.local_addr()?;
        assert!(is_itself(&socket.connect(port).await?));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let io = TcpStream::connect(listener.local_addr()?).await?;
        assert!(!is_itself(&io));
        Ok(())
    }
}
