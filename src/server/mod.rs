//! Serves lines to any number of peers, with the limits, deadlines and graceful shutdown that a
//! public port needs.

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
            sessions.shutdown.send();
            drain(&server.0, listener, handler, sessions).await;
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
/// reset them, and what they have sent would be lost. While the system lacks resources, waits until
/// ended sessions have given some back.
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
                    // Nobody is left who could give anything back.
                    return;
                }
                sleep(pause).await;
            }
            None => return,
        }
    }
}

/// Lets the sessions end, then aborts those that are late. Each is counted when it is dropped.
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
