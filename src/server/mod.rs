//! A server for line protocols, with the limits, deadlines and graceful shutdown that a public port
//! needs.

mod accept_errors;
mod builder;
mod counters;
mod handler;
mod listener;
mod session;
mod shared;
mod trace;

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::accept_errors::AcceptErrors;
pub use self::builder::ServerBuilder;
pub use self::counters::ServerCounters;
pub use self::handler::{Answer, Replies, Reply, Returned, reply, reply_into};
#[cfg(unix)]
pub use self::listener::BoundUnix;
pub use self::listener::{Accepted, Bind, Listener};
use self::shared::Shared;
use crate::net::{Connection, Draining, ShutdownSignal, Total};

/// Maximum number of queued connections that a graceful shutdown accepts. Linux queues up to
/// `net.core.somaxconn`, 4096 by default.
const MAX_QUEUED: usize = 4096;

/// A server for line protocols. Requires the feature `net`.
///
/// Clones share limits and counters, across all listeners that they serve.
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
/// A handler is an `async fn(Connection) -> std::io::Result<()>` or an async closure. The server
/// clones the handler for each connection, with everything it captures: put shared state in an
/// `Arc`. [`reply`](crate::reply) makes a handler from a function that returns the reply to a line.
/// If a handler returns an error, the server calls [`on_error`](ServerBuilder::on_error).
///
/// The handler owns the connection. It may split the connection, pass it to a task, or keep it. The
/// server ends the connection after the handler has returned and the connection is dropped:
///
/// - It sends the queued output.
/// - It closes the writing side.
/// - It reads and discards bytes from the peer for up to `linger_timeout`, so that no reset
///   destroys the replies.
///
/// Until then the connection counts against the limits. A panic in a handler ends only its own
/// connection.
///
/// # Graceful shutdown
///
/// [`serve_with_shutdown`](Self::serve_with_shutdown) takes a future that completes when the server
/// should stop. For SIGINT and SIGTERM, enable Tokio's feature `signal`:
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
/// The server runs on any Tokio runtime with I/O and time enabled. If hundreds of connections are
/// busy at the same time, build the runtime with `event_interval(1024)`. The slowest replies are
/// then ten times faster than with Tokio's default of 61 polls between two checks of the sockets.
///
/// # Limits
///
/// All limits except `max_connections_per_ip` have finite defaults: see [`ServerBuilder`].
#[derive(Clone)]
pub struct Server(Arc<Shared>);

/// The sessions of one listener. Dropping this value aborts all of them.
#[derive(Default)]
struct Sessions {
    tasks: JoinSet<()>,
    shutdown: Arc<ShutdownSignal>,
}

impl Server {
    /// Creates a server with the default limits.
    ///
    /// ```
    /// let server = lineframe::Server::new();
    /// ```
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder to set limits, deadlines, the codec and a handshake.
    ///
    /// ```
    /// let server = lineframe::Server::builder().max_connections(100).build();
    /// ```
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// Serves the connections of `listener` until the returned future is dropped. Dropping the
    /// future aborts all connections; for a graceful shutdown, use
    /// [`serve_with_shutdown`](Self::serve_with_shutdown).
    ///
    /// The server accepts a connection only if `max_connections` allows it. It ignores an error of
    /// `accept` that concerns one connection. After any other error, such as a lack of file
    /// descriptors, it retries after 10 ms, then after twice as long each time, up to 1 s.
    ///
    /// ```no_run
    /// # async fn run(listener: tokio::net::TcpListener) {
    /// use lineframe::{Server, reply};
    ///
    /// Server::new().serve(listener, reply(|line| line.to_vec())).await;
    /// # }
    /// ```
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

    /// Serves the connections of `listener` until `shutdown` completes with any output, then shuts
    /// down gracefully. Returns the counters after the shutdown.
    ///
    /// During the shutdown the server:
    ///
    /// - accepts the connections in the accept queue, then closes the listener;
    /// - answers all lines that have arrived;
    /// - aborts and counts the connections that are still open after `drain_timeout`.
    ///
    /// Dropping the future aborts all connections. Errors of `accept` are handled as in
    /// [`serve`](Self::serve).
    ///
    /// ```no_run
    /// # async fn run(listener: tokio::net::TcpListener) {
    /// use lineframe::{Server, reply};
    ///
    /// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    /// let echo = reply(|line| line.to_vec());
    /// let server = tokio::spawn(Server::new().serve_with_shutdown(listener, echo, stopped));
    /// drop(stop);
    /// println!("{} lines", server.await.unwrap().lines);
    /// # }
    /// ```
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
            sessions.shutdown.send();
            drain(&server.0, listener, handler, sessions).await;
            server.counters()
        }
    }

    /// Serves one connection that was accepted elsewhere, such as by inetd or by a test, under all
    /// limits of the server. Waits until `max_connections` allows the connection. Dropping the
    /// future aborts the connection.
    ///
    /// ```
    /// # async fn run(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    /// use lineframe::{Accepted, AnyIo, Peer, Server, reply};
    ///
    /// let accepted = Accepted::new(AnyIo::new(stream), Peer::Other);
    /// Server::new().serve_one(accepted, reply(|line| line.to_vec())).await;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Returns the counters of the server so far.
    ///
    /// ```
    /// let server = lineframe::Server::new();
    /// assert_eq!(server.counters().accepted, 0);
    /// ```
    pub fn counters(&self) -> ServerCounters {
        ServerCounters::read(self.0.totals())
    }
}

impl Sessions {
    /// Starts a session. Without a permit, the session waits for one.
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
            // Frees the memory of ended sessions.
            while let Poll::Ready(Some(_)) = sessions.tasks.poll_join_next(cx) {}
            let permit = ready!(permitting.as_mut().poll(cx));
            match accepting.as_mut().poll(cx) {
                Poll::Ready(accepted) => Poll::Ready((accepted, permit)),
                Poll::Pending => {
                    // Release the permit, so that another listener can accept a connection.
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

/// Accepts the connections in the accept queue. Closing the listener would reset these connections
/// and lose what their peers have sent. While the system lacks resources, this waits until ended
/// sessions have freed some.
async fn accept_queued<H, Fut>(
    shared: &Arc<Shared>,
    listener: &mut impl Listener,
    handler: H,
    sessions: &mut Sessions,
) where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut errors = AcceptErrors::default();
    let mut left = MAX_QUEUED;
    while left > 0 {
        match listener.accept_queued() {
            Some(Ok(accepted)) => {
                left -= 1;
                errors.accepted();
                sessions.start(shared, accepted, handler.clone(), None);
            }
            Some(Err(error)) => {
                shared.totals().add(Total::AcceptErrors, 1);
                let Some(pause) = errors.failed(&error) else { continue };
                while sessions.tasks.try_join_next().is_some() {}
                if sessions.tasks.is_empty() {
                    // No session is left that could free resources.
                    return;
                }
                sleep(pause).await;
            }
            None => return,
        }
    }
}

/// Lets the sessions end, then aborts those that are still open after `drain_timeout`. Each session
/// is counted when it is dropped.
async fn drain<H, Fut>(shared: &Arc<Shared>, mut listener: impl Listener, handler: H, mut sessions: Sessions)
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let all_end = async {
        accept_queued(shared, &mut listener, handler, &mut sessions).await;
        drop(listener);
        while sessions.tasks.join_next().await.is_some() {}
    };
    match shared.config().drain_timeout {
        None => all_end.await,
        Some(after) => _ = timeout(after, all_end).await,
    }
    sessions.tasks.shutdown().await;
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
