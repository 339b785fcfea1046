//! Serves lines to any number of peers, with the limits, deadlines and graceful shutdown that a
//! public port needs.

mod accept_errors;
mod counters;
mod handler;
mod listener;
mod session;
mod shared;
mod trace;

use std::boxed::Box;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::accept_errors::{AcceptErrors, concerns_one_connection};
pub use self::counters::ServerCounters;
pub use self::handler::{Answer, Replies, Reply, Returned, reply, reply_into};
#[cfg(unix)]
pub use self::listener::BoundUnix;
pub use self::listener::{Accepted, Bind, Listener};
use self::shared::{Config, Shared};
use crate::codec::LineCodec;
use crate::net::{Connection, Draining, Limits, Peer, ShutdownSignal, Total};

/// The default of `max_handshakes`. A TLS handshake takes about a millisecond of CPU time, so this
/// many delay each other by 64 ms.
const HANDSHAKES_PER_CORE: usize = 64;

/// At most this many connections are taken out of the accept queue at a drain. Linux queues up to
/// `net.core.somaxconn`, 4096 by default.
const MAX_QUEUED: usize = 4096;

/// Serves lines. A handle: its clones share limits and counters, over all listeners that they
/// serve.
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
/// Server::new().serve(listener, upper).await;
/// # Ok(())
/// # }
/// ```
///
/// # Handlers
///
/// A handler is an `async fn(Connection) -> std::io::Result<()>` or an async closure. It is cloned
/// for each connection, with everything it captures: put shared state in an `Arc`.
/// [`reply`](crate::reply) makes a handler of a function of a line. If a handler returns an error,
/// [`on_error`](ServerBuilder::on_error) is called.
///
/// The connection belongs to the handler, which may split it, give it to a task, or keep it. When
/// the handler has returned and the connection is dropped, the server ends it: it sends queued
/// output, then the end of the stream, then reads and drops what the peer still sends for
/// `linger_timeout`, so that no reset destroys the replies. Until then the connection counts
/// against the limits. A handler that panics costs only its own connection.
///
/// # Graceful shutdown
///
/// [`serve_with_shutdown`](Self::serve_with_shutdown) takes a future that completes when the server
/// should stop. For SIGINT and SIGTERM, with Tokio's feature `signal`:
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// use lineframe::{Server, reply};
/// use tokio::signal::unix::{SignalKind, signal};
///
/// let mut interrupt = signal(SignalKind::interrupt())?;
/// let mut terminate = signal(SignalKind::terminate())?;
/// let stop = async move {
///     tokio::select! {
///         _ = interrupt.recv() => {}
///         _ = terminate.recv() => {}
///     }
/// };
/// let echo = reply(|line| line.to_vec());
/// let counters = Server::new().serve_with_shutdown(listener, echo, stop).await;
/// println!("{counters:?}");
/// # Ok(())
/// # }
/// ```
///
/// # Runtime
///
/// Any Tokio runtime with I/O and time. If hundreds of connections are busy at the same time, build
/// it with `event_interval(1024)`: the slowest replies come ten times faster than with Tokio's
/// default of 61 polls between two checks of the sockets.
///
/// # Limits
///
/// All limits are finite by default: see [`ServerBuilder`].
#[derive(Clone)]
pub struct Server(Arc<Shared>);

/// The sessions of one listener. Dropping it aborts them.
#[derive(Default)]
struct Sessions {
    tasks: JoinSet<()>,
    shutdown: Arc<ShutdownSignal>,
}

impl Server {
    /// Creates a server with the default limits.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Configures limits, the codec, a handshake.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// Serves the connections of `listener` until this future is dropped. That aborts them; for a
    /// graceful shutdown, use
    /// [`serve_with_shutdown`](Self::serve_with_shutdown).
    ///
    /// A connection is accepted only when `max_connections` allows it. An error of `accept` that
    /// concerns one connection is ignored. After any other, such as a lack of file descriptors, the
    /// server tries again after 10 ms, then 20, up to a second.
    pub fn serve<L, H, Fut>(
        &self,
        mut listener: L,
        handler: H,
    ) -> impl Future<Output = Infallible> + Send + 'static + use<L, H, Fut>
    where
        L: Listener,
        H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        let mut sessions = Sessions::default();
        async move { accept_all(&shared, &mut listener, handler, &mut sessions).await }
    }

    /// Serves the connections of `listener` until `shutdown` completes, with any output, then
    /// drains: connections in the accept queue are accepted, the listener is closed, lines that
    /// have arrived are answered, and connections that are still open after `drain_timeout` are
    /// aborted and counted. Returns the counters after that.
    ///
    /// Accepts as [`serve`](Self::serve) does.
    pub fn serve_with_shutdown<L, H, Fut, S>(
        &self,
        mut listener: L,
        handler: H,
        shutdown: S,
    ) -> impl Future<Output = ServerCounters> + Send + 'static + use<L, H, Fut, S>
    where
        L: Listener,
        H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
        S: Future + Send + 'static,
    {
        let server = self.clone();
        async move {
            let mut sessions = Sessions::default();
            {
                let mut shutdown = pin!(shutdown);
                let mut accepting =
                    pin!(accept_all(&server.0, &mut listener, handler.clone(), &mut sessions));
                poll_fn(|cx| match shutdown.as_mut().poll(cx) {
                    Poll::Ready(_) => Poll::Ready(()),
                    Poll::Pending => accepting.as_mut().poll(cx).map(|never| match never {}),
                })
                .await;
            }
            accept_queued(&server.0, &mut listener, &handler, &mut sessions);
            drop(listener);
            sessions.shutdown.send();
            drain(&server.0, sessions.tasks).await;
            server.counters()
        }
    }

    /// Serves one connection that something else has accepted, such as inetd or a test, under all
    /// limits. Waits for its place under `max_connections`.
    pub fn serve_one<H, Fut>(
        &self,
        accepted: Accepted,
        handler: H,
    ) -> impl Future<Output = ()> + Send + 'static + use<H, Fut>
    where
        H: FnOnce(Connection) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        async move {
            shared.totals().add(Total::Accepted, 1);
            session::run(shared, accepted, handler, None, Draining::default()).await;
        }
    }

    /// Returns what has happened so far.
    pub fn counters(&self) -> ServerCounters {
        ServerCounters::read(self.0.totals())
    }
}

impl Sessions {
    /// Starts a session. Without a permit, it waits for one.
    fn start<H, Fut>(
        &mut self,
        shared: &Arc<Shared>,
        accepted: Accepted,
        handler: H,
        permit: Option<OwnedSemaphorePermit>,
    ) where
        H: FnOnce(Connection) -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        shared.totals().add(Total::Accepted, 1);
        let draining = Draining::new(Arc::clone(&self.shutdown));
        self.tasks.spawn(session::run(Arc::clone(shared), accepted, handler, permit, draining));
    }
}

async fn accept_all<H, Fut>(
    shared: &Arc<Shared>,
    listener: &mut impl Listener,
    handler: H,
    sessions: &mut Sessions,
) -> Infallible
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut errors = AcceptErrors::default();
    loop {
        let mut accepting = pin!(accept(shared, listener, &mut errors));
        let mut permitting = pin!(shared.permit());
        let (accepted, permit) = poll_fn(|cx| {
            // Ended sessions give their memory back.
            while let Poll::Ready(Some(_)) = sessions.tasks.poll_join_next(cx) {}
            let permit = ready!(permitting.as_mut().poll(cx));
            match accepting.as_mut().poll(cx) {
                Poll::Ready(accepted) => Poll::Ready((accepted, permit)),
                Poll::Pending => {
                    // Other listeners may have connections that wait for this permit.
                    permitting.set(shared.permit());
                    Poll::Pending
                }
            }
        })
        .await;
        sessions.start(shared, accepted, handler.clone(), Some(permit));
    }
}

async fn accept(shared: &Shared, listener: &mut impl Listener, errors: &mut AcceptErrors) -> Accepted {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                errors.accepted();
                return accepted;
            }
            Err(error) => {
                shared.totals().add(Total::AcceptErrors, 1);
                if let Some(pause) = errors.failed(&error) {
                    sleep(pause).await;
                }
            }
        }
    }
}

/// Accepts the connections that have been waiting in the accept queue: closing the listener would
/// reset them, and what they have sent would be lost.
fn accept_queued<H, Fut>(
    shared: &Arc<Shared>,
    listener: &mut impl Listener,
    handler: &H,
    sessions: &mut Sessions,
) where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    for _ in 0..MAX_QUEUED {
        match listener.accept_queued() {
            Some(Ok(accepted)) => sessions.start(shared, accepted, handler.clone(), None),
            Some(Err(error)) => {
                shared.totals().add(Total::AcceptErrors, 1);
                if !concerns_one_connection(&error) {
                    return;
                }
            }
            None => return,
        }
    }
}

/// Lets the sessions end, then aborts those that are late. Each is counted when it is dropped.
async fn drain(shared: &Shared, mut sessions: JoinSet<()>) {
    let all_end = async { while sessions.join_next().await.is_some() {} };
    match shared.config().drain_timeout {
        None => all_end.await,
        Some(after) => _ = timeout(after, all_end).await,
    }
    sessions.shutdown().await;
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

/// Configures a [`Server`]. Created by [`Server::builder`]. For every limit and deadline, `None` is
/// no limit.
#[derive(Clone)]
#[must_use]
pub struct ServerBuilder(Config);

impl ServerBuilder {
    fn new() -> Self {
        Self(Config {
            codec: LineCodec::new(),
            max_connections: Some(10_000),
            max_connections_per_ip: None,
            per_ip_prefix: 64,
            max_handshakes: Some(HANDSHAKES_PER_CORE * available_parallelism().map_or(1, usize::from)),
            limits: Arc::new(Limits {
                idle_timeout: Some(Duration::from_secs(5 * 60)),
                line_timeout: Some(Duration::from_secs(30)),
                write_timeout: Some(Duration::from_secs(30)),
                max_bad_lines: Some(100),
                ..(*Limits::none()).clone()
            }),
            handshake_timeout: Some(Duration::from_secs(10)),
            drain_timeout: Some(Duration::from_secs(10)),
            linger_timeout: Some(Duration::from_secs(2)),
            tcp_nodelay: true,
            handshake: None,
            on_error: None,
        })
    }

    fn limits(&mut self) -> &mut Limits {
        Arc::make_mut(&mut self.0.limits)
    }

    /// Sets the delimiter and the limits of lines for all connections. Default: [`LineCodec::new`].
    pub fn codec(mut self, codec: LineCodec) -> Self {
        self.0.codec = codec;
        self
    }

    /// Sets how many connections there may be at the same time, over all listeners. Further ones
    /// wait in the backlogs of the listeners. Default: 10,000.
    pub fn max_connections(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections = n.into();
        self
    }

    /// Sets how many of them may come from one IP address. Further ones are closed immediately and
    /// counted as refused. Default: no limit.
    ///
    /// A connection counts under the address of its socket before the
    /// [handshake](Self::handshake), and under the one that the handshake reports after it.
    /// A connection [from a proxy](Accepted::from_trusted_proxy) counts only under the latter.
    /// IPv6 addresses count by [prefix](Self::per_ip_prefix), IPv4-mapped ones as IPv4.
    pub fn max_connections_per_ip(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections_per_ip = n.into();
        self
    }

    /// Sets how many leading bits of an IPv6 address `max_connections_per_ip` compares: 0 to 128,
    /// and more is 128. A subscriber usually has a whole /64. Default: 64.
    pub fn per_ip_prefix(mut self, bits: u8) -> Self {
        self.0.per_ip_prefix = bits.min(128);
        self
    }

    /// Sets how many [handshakes](Self::handshake) run at the same time. The others wait, and
    /// `handshake_timeout` does not count until they run. Default: 64 per core.
    pub fn max_handshakes(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_handshakes = n.into();
        self
    }

    /// Sets how many bad lines a connection may send in total. The next one is delivered, then the
    /// connection is closed. Default: 100.
    pub fn max_bad_lines(mut self, n: impl Into<Option<u64>>) -> Self {
        self.limits().max_bad_lines = n.into();
        self
    }

    /// Sets how many bytes of output may be unsent. Above that, a handler that writes more has to
    /// wait, and the connection is not read. Default: 64 KiB.
    pub fn max_unsent(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.limits().max_unsent = bytes.into().unwrap_or(usize::MAX);
        self
    }

    /// Sets how long a peer may take to begin a line. Default: 5 minutes.
    pub fn idle_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().idle_timeout = after.into();
        self
    }

    /// Sets how long a line may take from its first byte to its last, however slowly it arrives.
    /// Default: 30 s.
    pub fn line_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().line_timeout = after.into();
        self
    }

    /// Sets how long output may wait for the peer to take it. Default: 30 s.
    pub fn write_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().write_timeout = after.into();
        self
    }

    /// Sets how long the [handshake](Self::handshake) may take. During a drain it may take 1 s more.
    /// Default: 10 s.
    pub fn handshake_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.handshake_timeout = after.into();
        self
    }

    /// Sets how long connections may take to end once the server is asked to stop. Those still open
    /// are then aborted. Default: 10 s.
    pub fn drain_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.drain_timeout = after.into();
        self
    }

    /// Sets how long, after the last reply and the end of the stream, bytes that a peer still sends
    /// are read and dropped. Closing earlier would reset the connection, which may destroy replies
    /// that the peer has not read. Default: 2 s.
    pub fn linger_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.linger_timeout = after.into();
        self
    }

    /// Sets `TCP_NODELAY`. Without it, a reply can wait 40 ms for the acknowledgement of the one
    /// before. Default: on.
    pub fn tcp_nodelay(mut self, yes: bool) -> Self {
        self.0.tcp_nodelay = yes;
        self
    }

    /// Sets whether a peer that speaks HTTP or TLS gets one error line and is closed before any of
    /// it is taken for lines. A web page can make a browser send such a request to any port
    /// (cross-protocol requests). For protocols in which the peer speaks first and no line is
    /// `METHOD target HTTP/1.1`. Default: off.
    pub fn refuse_http_and_tls(mut self, yes: bool) -> Self {
        self.limits().refuse_http_and_tls = yes;
        self
    }

    /// Sets what happens between accepting a connection and its handler: a TLS handshake, a PROXY
    /// header. It runs in the connection's own task, counts against the limits, and has a deadline.
    /// It is cloned for each connection. Wrap the [`AnyIo`](crate::AnyIo), not the socket taken out
    /// of it: a drain asks the system, through the `AnyIo`, what it has received.
    pub fn handshake<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Accepted) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Accepted>> + Send + 'static,
    {
        self.0.handshake = Some(Arc::new(move |accepted| Box::pin(hook.clone()(accepted))));
        self
    }

    /// Sets a function that is called with every error that a handshake or a handler returns.
    /// Without one, errors are counted ([`ServerCounters::failed`](crate::ServerCounters::failed))
    /// and, with the feature `tracing`, logged.
    ///
    /// ```
    /// use lineframe::Server;
    ///
    /// let server = Server::builder().on_error(|peer, error| eprintln!("{peer}: {error}")).build();
    /// ```
    pub fn on_error(mut self, report: impl Fn(Peer, &io::Error) + Send + Sync + 'static) -> Self {
        self.0.on_error = Some(Arc::new(report));
        self
    }

    /// Creates the server.
    pub fn build(self) -> Server {
        Server(Arc::new(Shared::new(self.0)))
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").finish_non_exhaustive()
    }
}
