use std::boxed::Box;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};
use tokio::time::timeout;

use super::counters::Outcome;
use super::listener::Accepted;
use super::shared::{Config, Hook, Shared};
use super::trace;
use crate::net::{AnyIo, Connection, Draining, Duplex, Peer, TimeoutKind, Total, within_poll};

/// Serves one connection, from accept to close.
///
/// Not an async fn: its arguments would be stored twice. While it waits for the handler it holds
/// little else: what the beginning and the end need is in boxes of their own.
pub(super) fn run<H, Fut>(
    shared: Arc<Shared>,
    accepted: Accepted,
    handler: H,
    permit: OwnedSemaphorePermit,
    draining: Draining,
) -> impl Future<Output = ()> + use<H, Fut>
where
    H: FnOnce(Connection) -> Fut,
    Fut: Future<Output = io::Result<()>>,
{
    let mut session = Session::new(shared, accepted, permit, draining);
    async move {
        {
            let mut handling = pin!(None);
            match Box::pin(session.begin(handler)).await {
                Ok(begun) => handling.set(Some(begun)),
                Err(outcome) => session.end(outcome),
            }
            poll_fn(|cx| session.poll_handler(handling.as_mut(), cx)).await;
        }
        if let Some(returned) = &mut session.returned {
            session.connection = returned.await.ok();
            session.returned = None;
        }
        if session.connection.is_some() {
            Box::pin(session.finish()).await;
        }
    }
}

/// A connection under the limits of its server. Dropping it, at its end or because it was aborted,
/// frees its place and counts what went through.
struct Session {
    shared: Arc<Shared>,
    peer: Peer,
    span: trace::Span,
    /// Whether it is counted in `per_ip`.
    is_counted: bool,
    /// Before the handler gets it, and after it has returned.
    connection: Option<Box<Duplex<AnyIo>>>,
    /// How its handler ended, or why it got none. Boxed: it exists only for a moment.
    outcome: Option<Box<Outcome>>,
    /// The last flush has ended, well or not. Closing during linger is not an abort.
    is_flushed: bool,
    /// Where the connection comes back when the handler drops it. Closes without a value if the
    /// handler takes it apart. `None`: already received.
    returned: Option<Receiver<Box<Duplex<AnyIo>>>>,
}

impl Session {
    fn new(
        shared: Arc<Shared>,
        Accepted { io, peer }: Accepted,
        permit: OwnedSemaphorePermit,
        draining: Draining,
    ) -> Self {
        // `Drop` returns it.
        permit.forget();
        shared.totals().add(Total::Open, 1);
        // Allocated here, before the session has a task, so that it lies beside what Tokio
        // allocated for the socket, and not in the memory of another thread.
        let mut connection = Connection::with_peer(io, shared.config().codec.clone(), peer).into_duplex();
        let (owner, returned) = oneshot::channel();
        connection.serve(Arc::clone(&shared.config().limits), draining, owner);
        Self {
            shared,
            peer,
            span: trace::Span::new(peer),
            is_counted: false,
            connection: Some(connection),
            outcome: None,
            is_flushed: false,
            returned: Some(returned),
        }
    }

    /// Everything up to the handler.
    async fn begin<H, Fut>(&mut self, handler: H) -> Result<Fut, Outcome>
    where
        H: FnOnce(Connection) -> Fut,
    {
        let Some(mut connection) = self.connection.take() else { return Err(Outcome::Done) };
        let shared = Arc::clone(&self.shared);
        let config = shared.config();
        if let Some(tcp) = connection.io.downcast_ref::<TcpStream>() {
            // Fails if the peer is gone; the first read reports that.
            _ = tcp.set_nodelay(config.tcp_nodelay);
        }
        if let Some(hook) = &config.handshake {
            let io = core::mem::replace(&mut connection.io, AnyIo::new(tokio::io::empty()));
            let mut shaking = pin!(shake_hands(config, &**hook, Accepted { io, peer: connection.peer }));
            let accepted = poll_fn(|cx| match self.catch_panic(|| shaking.as_mut().poll(cx)) {
                Ok(shaken) => shaken,
                Err(outcome) => Poll::Ready(Err(outcome)),
            })
            .await?;
            (connection.io, connection.peer) = (accepted.io, accepted.peer);
            self.peer = accepted.peer;
            self.span = trace::Span::new(accepted.peer);
        }
        self.is_counted = shared.count_ip(self.peer)?;
        self.catch_panic(|| handler(Connection::from_duplex(connection)))
    }

    fn poll_handler<Fut: Future<Output = io::Result<()>>>(
        &mut self,
        mut handling: Pin<&mut Option<Fut>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(handling) = handling.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let outcome = match self.catch_panic(|| within_poll(|| handling.poll(cx))) {
            Ok(handled) => ready!(handled).into(),
            Err(panicked) => panicked,
        };
        self.end(outcome);
        Poll::Ready(())
    }

    /// Keeps the outcome of the handshake or the handler, and reports its error.
    fn end(&mut self, outcome: Outcome) {
        let outcome = &*self.outcome.insert(outcome.into());
        if let (Outcome::Failed(error), Some(on_error)) = (&**outcome, &self.shared.config().on_error) {
            // A panic in it changes nothing.
            _ = catch_unwind(AssertUnwindSafe(|| on_error(self.peer, error)));
        }
    }

    /// Runs a handler or a handshake in the connection's span. A panic costs only this connection.
    fn catch_panic<T>(&self, run: impl FnOnce() -> T) -> Result<T, Outcome> {
        // State that it shares with others is its own responsibility.
        self.span.in_scope(|| catch_unwind(AssertUnwindSafe(run))).map_err(|_| Outcome::Panicked)
    }

    /// Ends a connection that the handler has returned.
    async fn finish(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(timeout) = connection.finish().await {
            self.outcome = Some(Outcome::TimedOut(timeout).into());
        }
        self.is_flushed = true;
        connection.linger(self.shared.config().linger_timeout).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (is_complete, counters) = match (&mut self.connection, &mut self.returned) {
            (Some(connection), _) => {
                connection.report();
                (self.is_flushed, Some(connection.counters()))
            }
            (None, None) => (true, None),
            (None, Some(returned)) => match returned.try_recv() {
                // Its handler was dropped just now.
                Ok(mut connection) => {
                    connection.report();
                    (false, None)
                }
                // The handler has it still, or somebody to whom it gave it.
                Err(TryRecvError::Empty) => (false, None),
                // The handler has taken it apart.
                Err(TryRecvError::Closed) => (true, None),
            },
        };
        match &self.outcome {
            Some(outcome) if is_complete => {
                outcome.total().into_iter().for_each(|total| self.shared.totals().add(total, 1));
                trace::connection_ended(self.peer, outcome, counters.as_ref());
            }
            _ => self.shared.totals().add(Total::Aborted, 1),
        }
        drop(self.connection.take());
        self.shared.release(self.peer, self.is_counted);
    }
}

async fn shake_hands(config: &Config, hook: &Hook, accepted: Accepted) -> Result<Accepted, Outcome> {
    let shaken = match config.handshake_timeout {
        None => hook(accepted).await,
        Some(after) => match timeout(after, hook(accepted)).await {
            Ok(shaken) => shaken,
            Err(_) => return Err(Outcome::TimedOut(TimeoutKind::Handshake)),
        },
    };
    shaken.map_err(Outcome::Failed)
}

#[cfg(test)]
mod tests {
    use std::mem::size_of_val;
    use std::sync::Arc;

    use crate::{Accepted, AnyIo, Connection, Draining, Peer, Server, reply_into};

    /// A task of Tokio's has 112 bytes of its own, and takes 256 or 384.
    #[test]
    fn a_session_fits_in_a_task_of_256_bytes_with_a_handler_of_one_pointer() {
        let server = Server::new();
        let state = Arc::new(*b"state");
        let handler = move |connection: Connection| {
            reply_into(move |_, reply| reply.extend_from_slice(&*state))(connection)
        };
        let accepted = Accepted::new(AnyIo::new(tokio::io::empty()), Peer::Other);
        let permit = server.0.try_permit().unwrap();
        let session = super::run(Arc::clone(&server.0), accepted, handler, permit, Draining::default());
        assert!(size_of_val(&session) <= 144, "{} bytes", size_of_val(&session));
    }
}
