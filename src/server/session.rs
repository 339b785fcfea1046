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
use tokio::time::{Duration, sleep};

use super::counters::Outcome;
use super::listener::Accepted;
use super::shared::{Hook, Shared, Slot};
use super::trace;
use crate::net::{AnyIo, Connection, Draining, Duplex, TimeoutKind, configure, with_system_io, within_poll};

/// Time that a graceful shutdown gives to a handshake.
const HANDSHAKE_IN_DRAIN: Duration = Duration::from_secs(1);

/// Serves one connection, from accept to close. Without a permit, waits for one.
///
/// This is not an async fn, which would store its arguments twice. While the session waits for the
/// handler, it holds little else: the state for the beginning and the end is boxed.
pub(super) fn run<H, Fut>(
    shared: Arc<Shared>,
    accepted: Accepted,
    handler: H,
    permit: Option<OwnedSemaphorePermit>,
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
        session.connection = (&mut session.returned).await.ok();
        session.stage = Stage::Returned;
        if session.connection.is_some() {
            Box::pin(session.finish()).await;
        }
    }
}

/// A connection under the limits of its server. Dropping the session counts its lines, bytes and
/// outcome, even if the session was aborted.
struct Session {
    span: trace::Span,
    /// `Some` before the handler receives the connection and after the handler has returned it.
    connection: Option<Box<Duplex<AnyIo>>>,
    /// The outcome of the handler, or the reason why there was none. Boxed because it is
    /// short-lived.
    outcome: Option<Box<Outcome>>,
    stage: Stage,
    /// Receives the connection when the handler drops it. Closes without a value if the handler
    /// takes the connection apart.
    returned: Receiver<Box<Duplex<AnyIo>>>,
    /// Dropped after the connection, even if dropping the stream panics.
    slot: Slot,
}

/// The progress of a session.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Until the handler has ended and the connection was dropped or returned.
    Handling,
    /// The connection was returned, or the handler has taken it apart.
    Returned,
    /// The last flush has succeeded or failed. Closing the connection from now on is not an abort.
    Flushed,
}

impl Session {
    fn new(
        shared: Arc<Shared>,
        Accepted { io, peer, is_from_trusted_proxy }: Accepted,
        permit: Option<OwnedSemaphorePermit>,
        draining: Draining,
    ) -> Self {
        let slot = Slot::new(shared, peer, is_from_trusted_proxy, permit);
        let config = slot.shared.config();
        // Allocated before the session has a task, so that this memory is next to the memory of the
        // socket and not in the arena of another thread.
        let mut connection = Connection::with_peer(io, config.codec.clone(), peer).into_duplex();
        let (owner, returned) = oneshot::channel();
        connection.serve(Arc::clone(&config.limits), draining, owner);
        Self {
            span: trace::Span::new(peer),
            connection: Some(connection),
            outcome: None,
            stage: Stage::Handling,
            returned,
            slot,
        }
    }

    /// Runs the handshake and starts the handler.
    async fn begin<H, Fut>(&mut self, handler: H) -> Result<Fut, Outcome>
    where
        H: FnOnce(Connection) -> Fut,
    {
        let Some(mut connection) = self.connection.take() else { return Err(Outcome::Done) };
        self.slot.wait().await;
        if !self.slot.is_from_trusted_proxy {
            self.slot.count_ip()?;
        }
        let shared = Arc::clone(&self.slot.shared);
        let config = shared.config();
        if let Some(tcp) = connection.io.downcast_ref::<TcpStream>() {
            configure(tcp, config.tcp_nodelay, config.keepalive, config.limits.write_timeout);
        }
        if let Some(hook) = &config.handshake {
            let draining = connection.reader.draining().clone();
            let io = core::mem::replace(&mut connection.io, AnyIo::new(tokio::io::empty()));
            let is_from_trusted_proxy = self.slot.is_from_trusted_proxy;
            let accepted = Accepted { io, peer: connection.peer, is_from_trusted_proxy };
            let mut shaking = pin!(shake_hands(&shared, &**hook, accepted, draining));
            let accepted = poll_fn(|cx| match self.catch_panic(|| shaking.as_mut().poll(cx)) {
                Ok(shaken) => shaken,
                Err(outcome) => Poll::Ready(Err(outcome)),
            })
            .await?;
            (connection.io, connection.peer) = (accepted.io, accepted.peer);
            self.slot.set_peer(accepted.peer);
            self.span = trace::Span::new(accepted.peer);
        }
        trace::connection_began(self.slot.peer);
        self.slot.count_ip()?;
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

    /// Stores the outcome of the handshake or the handler, and reports its error.
    fn end(&mut self, outcome: Outcome) {
        let outcome = &*self.outcome.insert(outcome.into());
        if let (Outcome::Failed(error), Some(on_error)) = (&**outcome, &self.slot.shared.config().on_error) {
            // A panic in `on_error` is ignored.
            _ = catch_unwind(AssertUnwindSafe(|| on_error(self.slot.peer, error)));
        }
    }

    /// Runs a handler or a handshake in the span of the connection. A panic ends only this
    /// connection.
    fn catch_panic<T>(&self, run: impl FnOnce() -> T) -> Result<T, Outcome> {
        // `AssertUnwindSafe`: handlers are responsible for the state they share.
        self.span.in_scope(|| catch_unwind(AssertUnwindSafe(run))).map_err(|_| Outcome::Panicked)
    }

    /// Ends a connection that the handler has returned.
    async fn finish(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(timeout) = connection.finish().await {
            self.outcome = Some(Outcome::TimedOut(timeout).into());
        }
        self.stage = Stage::Flushed;
        connection.linger(self.slot.shared.config().linger_timeout).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (is_complete, summary) = match (&mut self.connection, self.stage) {
            (Some(connection), stage) => {
                connection.report();
                (stage == Stage::Flushed, Some(trace::Summary::of(connection)))
            }
            // The handler took the connection apart, or there was none.
            (None, Stage::Returned | Stage::Flushed) => (true, None),
            (None, Stage::Handling) => match self.returned.try_recv() {
                // The handler was dropped a moment ago.
                Ok(mut connection) => {
                    connection.report();
                    (false, Some(trace::Summary::of(&connection)))
                }
                // The handler, or a task that received the connection, still holds it.
                Err(TryRecvError::Empty) => (false, None),
                // The handler has taken the connection apart.
                Err(TryRecvError::Closed) => (true, None),
            },
        };
        let outcome = match self.outcome.as_deref() {
            Some(outcome) if is_complete => outcome,
            // The stream panicked while the session ended the connection.
            _ if std::thread::panicking() => &Outcome::Panicked,
            _ => &Outcome::Aborted,
        };
        let Slot { shared, peer, .. } = &self.slot;
        outcome.total().into_iter().for_each(|total| shared.totals().add(total, 1));
        trace::connection_ended(*peer, outcome, summary);
    }
}

async fn shake_hands(
    shared: &Shared,
    hook: &Hook,
    accepted: Accepted,
    draining: Draining,
) -> Result<Accepted, Outcome> {
    let mut is_draining = pin!(draining);
    let mut permitting = pin!(shared.handshake_permit());
    // A graceful shutdown gives all handshakes the same second, so queued ones start immediately.
    let _permit = poll_fn(|cx| match permitting.as_mut().poll(cx) {
        Poll::Ready(permit) => Poll::Ready(Some(permit)),
        Poll::Pending => is_draining.as_mut().poll(cx).map(|()| None),
    })
    .await;
    let mut shaking = hook(accepted);
    let mut deadline = pin!(async {
        match shared.config().handshake_timeout {
            None => std::future::pending().await,
            Some(after) => sleep(after).await,
        }
    });
    let mut late_for_drain = pin!(async {
        is_draining.await;
        sleep(HANDSHAKE_IN_DRAIN).await;
    });
    poll_fn(|cx| {
        if let Poll::Ready(shaken) = shaking.as_mut().poll(cx) {
            return Poll::Ready(shaken.map_err(Outcome::Failed));
        }
        if deadline.as_mut().poll(cx).is_pending() {
            ready!(late_for_drain.as_mut().poll(cx));
        }
        // Data that the system has already received is in time.
        match with_system_io(|| shaking.as_mut().poll(cx)).0 {
            Poll::Ready(shaken) => Poll::Ready(shaken.map_err(Outcome::Failed)),
            Poll::Pending => Poll::Ready(Err(Outcome::TimedOut(TimeoutKind::Handshake))),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::mem::size_of_val;
    use std::sync::Arc;

    use crate::{Accepted, AnyIo, Connection, Draining, Peer, Server, reply_into};

    /// Tokio adds 112 bytes to a task, and the allocator rounds the sum up to 256 or 384 bytes.
    #[test]
    fn small_session_fits_in_256_byte_task() {
        let server = Server::new();
        let state = Arc::new(*b"state");
        let handler = move |connection: Connection| {
            reply_into(move |_, reply| reply.extend_from_slice(&*state))(connection)
        };
        let accepted = Accepted::new(AnyIo::new(tokio::io::empty()), Peer::Other);
        let session = super::run(Arc::clone(&server.0), accepted, handler, None, Draining::default());
        assert!(size_of_val(&session) <= 144, "{} bytes", size_of_val(&session));
    }
}
