//! Connections to a server: host names with all their addresses, Unix paths, a timeout, further
//! attempts.

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

use crate::LineCodec;
use crate::error::Escaped;
use crate::net::{AnyIo, Connection, Error, Keepalive, Peer, TimeoutKind, configure};

/// The pause before the second round of attempts. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// No pause between two rounds is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Makes connections. What it is configured with is the same for all of them; it keeps none of
/// them.
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

/// Configures a [`Client`]. Made by [`Client::builder`].
///
/// ```
/// use lineframe::{Client, Delimiter, LineCodec};
/// use std::time::Duration;
///
/// let smtp = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(998).build();
/// let client = Client::builder().codec(smtp).connect_timeout(Duration::from_secs(3)).retry(5).build();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    client: Client,
}

impl ClientBuilder {
    /// How lines are read and written. Default: [`LineCodec::new`]. Each connection gets a copy, at
    /// the start of a stream.
    pub fn codec(mut self, codec: LineCodec) -> Self {
        self.client.codec = codec;
        self
    }

    /// The time for one round of attempts, from looking up the name until one of its addresses has
    /// answered. Default: 10 seconds; `None`: as long as the system takes, which for an address
    /// where nobody answers is minutes.
    ///
    /// Each address gets an equal share of what is left, so one that is silent does not keep the
    /// next from being tried. The lookup itself runs on in its own thread when it is given up.
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.client.connect_timeout = timeout.into();
        self
    }

    /// How many further rounds of attempts follow a failed one. Default: 0. Before the first of
    /// them there is a pause of 100 ms, twice as long before each further one, and at most 5 s. The
    /// name is looked up anew and each round has a
    /// [`connect_timeout`](Self::connect_timeout) of its own.
    ///
    /// Only what may pass is tried again: refused, reset, timed out, unreachable, a name not found,
    /// a Unix path where nothing is yet. A lack of permission or an address that is none is
    /// reported at once.
    ///
    /// This is about making a connection. One that breaks later is not made again.
    pub fn retry(mut self, further_rounds: u32) -> Self {
        self.client.retry = further_rounds;
        self
    }

    /// When the system asks a silent TCP server whether it is still there; `None`: never. Default:
    /// [`Keepalive::new`].
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.client.keepalive = keepalive.into();
        self
    }

    /// The client.
    pub fn build(self) -> Client {
        self.client
    }
}

impl Client {
    /// [`LineCodec::new`], 10 seconds to connect, one round of attempts.
    pub fn new() -> Self {
        Self {
            codec: LineCodec::new(),
            connect_timeout: Some(Duration::from_secs(10)),
            retry: 0,
            keepalive: Some(Keepalive::new()),
        }
    }

    /// Another codec, another timeout, further attempts.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { client: Self::new() }
    }

    /// Connects over TCP to `addr`: `"host:7000"`, `("host", 7000)`, a [`SocketAddr`] or a slice of
    /// them. The addresses of a name are tried in the order in which the system gives them, until
    /// one answers.
    ///
    /// Lines go out at once (`TCP_NODELAY`). The connection has no deadlines of its own:
    /// [`set_idle_timeout`](Connection::set_idle_timeout) and the like set them. When this future
    /// is dropped, so is the attempt.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which says of each address why, when no address has answered in the last
    /// round.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    pub async fn connect(&self, addr: impl ToSocketAddrs + fmt::Debug) -> Result<Connection, ConnectError> {
        // In a box, here as below: whoever connects once does not carry 900 bytes for it in its own
        // future.
        Box::pin(async {
            let mut attempts = Attempts::new(self);
            loop {
                if let Some(io) = attempts.over_tcp(&addr).await {
                    configure(&io, true, self.keepalive, None);
                    return Ok(self.connection(AnyIo::new(io)));
                }
                if !attempts.go_on().await {
                    return Err(attempts.failed(format!("{addr:?}")));
                }
            }
        })
        .await
    }

    /// Connects to the Unix socket at `path`; on Linux a path that begins with a NUL is an abstract
    /// name. Where the listener's backlog is full, it waits for room, up to
    /// [`connect_timeout`](ClientBuilder::connect_timeout). Otherwise as
    /// [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// [`ConnectError`], when nobody has answered in the last round.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with I/O and time enabled.
    #[cfg(unix)]
    pub async fn connect_unix(&self, path: impl AsRef<Path>) -> Result<Connection, ConnectError> {
        let path = path.as_ref();
        Box::pin(async {
            let mut attempts = Attempts::new(self);
            loop {
                if let Some(io) = attempts.over_unix(path).await {
                    return Ok(self.connection(AnyIo::new(io)));
                }
                if !attempts.go_on().await {
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

/// One call of `connect`: its rounds of attempts and what became of them.
struct Attempts {
    connect_timeout: Option<Duration>,
    rounds_left: u32,
    /// Before the next round.
    pause: Duration,
    /// Whether one of this round's attempts may go better another time.
    may_pass: bool,
    /// What failed, the latest last. Those with the same address and outcome stand once, so that
    /// many rounds do not need much memory.
    failed: Vec<Attempt>,
}

/// An attempt that failed, perhaps in several rounds.
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
            may_pass: false,
            failed: Vec::new(),
        }
    }

    /// One round over TCP.
    async fn over_tcp(&mut self, addr: impl ToSocketAddrs) -> Option<TcpStream> {
        let until = self.deadline();
        let addresses: Vec<_> = match in_time(until, lookup_host(addr)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                // What a resolver says has no kind of its own; what is no address at all is
                // `InvalidInput`.
                let may_pass = error.kind() != io::ErrorKind::InvalidInput;
                self.note("name lookup".into(), error, may_pass);
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
                    let may_pass = may_pass(&error);
                    self.note(address.to_string(), error, may_pass);
                }
            }
        }
        None
    }

    /// One round over a Unix socket.
    #[cfg(unix)]
    async fn over_unix(&mut self, path: &Path) -> Option<UnixStream> {
        match in_time(self.deadline(), unix(path)).await {
            Ok(io) => Some(io),
            Err(error) => {
                // A server that is only starting has not made its socket yet.
                let may_pass = may_pass(&error) || error.kind() == io::ErrorKind::NotFound;
                self.note(path.display().to_string(), error, may_pass);
                None
            }
        }
    }

    /// When the round that begins now is over. One that is too far off for the clock is none.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.connect_timeout?)
    }

    fn note(&mut self, at: String, error: io::Error, may_pass: bool) {
        self.may_pass |= may_pass;
        let outcome = |error: &io::Error| (error.kind(), error.raw_os_error());
        let same = |attempt: &Attempt| attempt.at == at && outcome(&attempt.error) == outcome(&error);
        let before = self.failed.iter().position(same).map_or(0, |index| self.failed.remove(index).times);
        self.failed.push(Attempt { at, error, times: before.saturating_add(1) });
    }

    /// Waits for the next round; `false` if there is to be none.
    async fn go_on(&mut self) -> bool {
        if self.rounds_left == 0 || !self.may_pass {
            return false;
        }
        self.rounds_left -= 1;
        self.may_pass = false;
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

/// The end of the first of `parts` equal parts of the time from now on.
fn share(until: Option<Instant>, parts: usize) -> Option<Instant> {
    let now = Instant::now();
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    until.map(|until| now + until.saturating_duration_since(now) / parts)
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let io = TcpStream::connect(address).await?;
    if is_itself(&io) {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there"));
    }
    Ok(io)
}

/// Whether the socket has been connected to itself. Where nobody listens, the system may choose the
/// very port that is to be reached as the one to come from; the two meet, and would hold the port
/// against the server that is to come.
fn is_itself(io: &TcpStream) -> bool {
    matches!((io.local_addr(), io.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// As a blocking `connect` does, waits while the listener's backlog is full, for which Linux has no
/// event.
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

/// Whether the same attempt may go better another time.
fn may_pass(error: &io::Error) -> bool {
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

/// No connection came about.
///
/// `Display` and `Debug` are one line, with what was to be reached, each attempt and why it failed,
/// unprintable characters escaped: `cannot connect to "localhost:7000": [::1]:7000: Connection
/// refused (os error 111); 127.0.0.1:7000: Connection refused (os error 111)`.
///
/// Converts into [`io::Error`], with the kind of the last attempt's error and all of this in it,
/// and into [`Error`]:
/// [`TimeoutKind::Connect`] where the last attempt has timed out, else [`Error::Io`].
pub struct ConnectError {
    /// As its `Debug` shows it.
    target: String,
    failed: Vec<Attempt>,
}

impl ConnectError {
    /// Each address that was tried, and why that failed, the last one last: `10.0.0.7:7000`, a Unix
    /// path, or `name lookup` where it did not come to an address. An address that has failed in
    /// the same way in several rounds stands once, with the latest error.
    pub fn tried(&self) -> impl Iterator<Item = (&str, &io::Error)> {
        self.failed.iter().map(|attempt| (attempt.at.as_str(), &attempt.error))
    }

    fn last(&self) -> Option<&io::Error> {
        self.failed.last().map(|attempt| &attempt.error)
    }

    fn kind(&self) -> io::ErrorKind {
        self.last().map_or(io::ErrorKind::Other, io::Error::kind)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", Escaped(&self.target))?;
        for (index, Attempt { at, error, times }) in self.failed.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            let at = Escaped(at).to_string();
            // Not twice the same: of a string, `Debug` has quotes around it.
            if self.target.trim_matches('"') != at {
                write!(f, "{at}: ")?;
            }
            write!(f, "{}", Escaped(error))?;
            if *times > 1 {
                write!(f, ", {times} times")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectError({self})")
    }
}

/// No source: `Display` says it all.
impl core::error::Error for ConnectError {}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout(TimeoutKind::Connect),
            _ => Self::Io(error.into()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// Only by chance does the system choose such a port by itself, so there is no way to this from
    /// outside.
    #[tokio::test]
    async fn a_socket_that_has_met_itself_is_told_from_a_connection() -> io::Result<()> {
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
