//! Serves lines to any number of peers, with the limits, deadlines and the drain that a public port needs.

mod bind;
mod builder;
mod counters;
mod ended;
mod listener;
mod log;
mod replies;
mod reply;
mod session;

use std::boxed::Box;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

pub use self::bind::Bind;
#[cfg(unix)]
pub use self::bind::BoundUnix;
pub use self::builder::ServerBuilder;
pub use self::counters::Counters;
pub use self::listener::{Accepted, Listener};
pub use self::replies::{reply, reply_bytewise, reply_into};
pub use self::reply::Reply;

use self::counters::Totals;
use crate::codec::LineCodec;
use crate::connection::{AnyIo, Connection, Limits, Seats};

/// Serves lines. A handle: its clones share caps and counters, over all listeners that they serve.
///
/// ```no_run
/// use lineframe::{Connection, Server};
/// use tokio::net::TcpListener;
///
/// async fn upper(mut conn: Connection) -> std::io::Result<()> {
///     while let Some(line) = conn.next_line().await? {
///         match line {
///             Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
///             Err(bad) => conn.write_line(bad.reply()).await?,
///         }
///     }
///     Ok(())
/// }
///
/// # async fn run() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:8083").await?;
/// let stop = std::future::pending::<()>(); // `tokio::signal::ctrl_c()`, say
/// let counters = Server::new().serve(listener, upper, stop).await;
/// println!("{counters:?}");
/// # Ok(())
/// # }
/// ```
///
/// # Handlers
///
/// A handler is an `async fn(Connection) -> std::io::Result<()>` or an async closure. It is cloned for each connection, and
/// what it has captured with it: shared state goes in an `Arc`. [`reply`] makes one of a function of a line.
///
/// The connection belongs to the handler, who may split it, hand it to a task, or keep it. When it is dropped it comes back:
/// what is queued is sent, then the end of the stream, and what the peer still sends is read and dropped for
/// `linger_timeout`, so that no reset destroys the replies. It counts against the caps until then. A handler that panics
/// costs its own connection only.
///
/// # Runtime
///
/// Any Tokio runtime with I/O and time. With hundreds of connections that are busy at once, one built with
/// `event_interval(1024)` keeps the slowest replies ten times faster than Tokio's own 61 turns between two looks at the sockets.
///
/// # Limits
///
/// All are finite unless you say otherwise: see [`ServerBuilder`].
#[derive(Clone)]
pub struct Server(Arc<Shared>);

type Hook = dyn Fn(Accepted) -> Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send>> + Send + Sync;

struct Config {
    codec: LineCodec,
    max_connections: usize,
    max_connections_per_ip: Option<usize>,
    limits: Arc<Limits>,
    handshake_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    linger_timeout: Duration,
    tcp_nodelay: bool,
    handshake: Option<Arc<Hook>>,
}

struct Shared {
    config: Config,
    permits: Arc<Semaphore>,
    totals: Totals,
    /// Connections of each address; empty where there is no limit for them.
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// The sessions of a listener, which end with its server's future.
#[derive(Default)]
struct Sessions(Arc<Seats<AnyIo>>);

impl Drop for Sessions {
    fn drop(&mut self) {
        self.0.abort_all();
    }
}

impl Server {
    /// All limits at their defaults.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Other limits, another codec, a handshake.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    fn from_config(mut config: Config) -> Self {
        let totals = Totals::default();
        Arc::make_mut(&mut config.limits).traffic = Some(Arc::clone(&totals.traffic));
        let permits = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Shared { config, permits, totals, per_ip: Mutex::default() }))
    }

    /// Serves the connections of `listener` until `shutdown` is done, whatever that gives, and then drains: no more are
    /// accepted, lines that have come are answered, and connections still there after `drain_timeout` are aborted and
    /// counted. Gives the counters as they are then.
    ///
    /// Nothing ends it otherwise. A connection is accepted only when there is room for it under `max_connections`. An error of
    /// `accept` that is about one connection is passed over; after any other, such as a lack of file descriptors, the next
    /// attempt is made 10 ms later, then 20, up to a second, and it recovers by itself.
    pub fn serve<L, H, Fut, S>(
        &self,
        listener: L,
        handler: H,
        shutdown: S,
    ) -> impl Future<Output = Counters> + Send + 'static + use<L, H, Fut, S>
    where
        L: Listener,
        H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
        S: Future + Send + 'static,
    {
        let server = self.clone();
        async move {
            let sessions = Sessions::default();
            server.accept_all(listener, handler, pin!(shutdown), &sessions).await;
            sessions.0.drain();
            server.drain(&sessions).await;
            server.counters()
        }
    }

    /// Serves one connection that somebody else has accepted, with all limits: inetd, tests. Waits for its place under
    /// `max_connections`.
    pub fn serve_one<H, Fut>(
        &self,
        accepted: Accepted,
        handler: H,
    ) -> impl Future<Output = ()> + Send + 'static + use<H, Fut>
    where
        H: FnOnce(Connection) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let server = self.clone();
        async move {
            let permit = server.permit().await;
            server.0.totals.accepted();
            let seat = Arc::<Seats<_>>::default().take();
            server.session(accepted, handler, permit, seat).await;
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.0.totals.read()
    }

    /// Accepts until `shutdown` is done.
    async fn accept_all<L, H, Fut, S>(
        &self,
        mut listener: L,
        handler: H,
        mut shutdown: Pin<&mut S>,
        sessions: &Sessions,
    ) where
        L: Listener,
        H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
        S: Future,
    {
        loop {
            let mut accepted = pin!(self.accept(&mut listener));
            let mut permit = pin!(self.permit());
            let next = poll_fn(|cx| {
                if shutdown.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let taken = ready!(permit.as_mut().poll(cx));
                match accepted.as_mut().poll(cx) {
                    Poll::Ready(accepted) => Poll::Ready(Some((accepted, taken))),
                    Poll::Pending => {
                        // Not kept while nobody comes here: other listeners have connections waiting for it.
                        permit.set(self.permit());
                        Poll::Pending
                    }
                }
            });
            let Some((accepted, permit)) = next.await else { return };
            self.0.totals.accepted();
            let seat = sessions.0.take();
            let at = seat.at();
            let session = self.clone().session(accepted, handler.clone(), permit, seat);
            sessions.0.runs(at, tokio::spawn(session).abort_handle());
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.0.permits).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    async fn accept(&self, listener: &mut impl Listener) -> Accepted {
        let mut pause = Duration::from_millis(10);
        let mut errors = log::AcceptErrors::default();
        loop {
            match listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    self.0.totals.accept_failed();
                    errors.tell(&error);
                    if !is_about_one_connection(&error) {
                        sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(1));
                    }
                }
            }
        }
    }

    /// Lets the sessions end, for as long as they may.
    async fn drain(&self, sessions: &Sessions) {
        match self.0.config.drain_timeout {
            None => sessions.0.all_left().await,
            Some(after) => _ = timeout(after, sessions.0.all_left()).await,
        }
        sessions.0.abort_all();
        // They are counted as they are dropped.
        sessions.0.all_left().await;
    }
}

/// Errors that `accept` passes on from the connection that it would have given (accept(2), "Error handling").
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("counters", &self.counters()).finish_non_exhaustive()
    }
}
