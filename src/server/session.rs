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
use super::shared::{Hook, Place, Shared};
use super::trace;
use crate::net::{AnyIo, Connection, Draining, Duplex, TimeoutKind, configure, with_system_io, within_poll};

/// How long a handshake may still take when its server drains.
const HANDSHAKE_IN_DRAIN: Duration = Duration::from_secs(1);

/// Serves one connection, from accept to close. Without a permit, it waits for one.
///
/// Not an async fn: its arguments would be stored twice. While it waits for the handler it holds
/// little else: what the beginning and the end need is in boxes of their own.
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

/// A connection under the limits of its server. Dropping it, at its end or because it was aborted,
/// counts what went through.
struct Session {
    span: trace::Span,
    /// Before the handler gets it, and after it has returned.
    connection: Option<Box<Duplex<AnyIo>>>,
    /// How its handler ended, or why it got none. Boxed: it exists only for a moment.
    outcome: Option<Box<Outcome>>,
    stage: Stage,
    /// Where the connection comes back when the handler drops it. Closes without a value if the
    /// handler takes it apart.
    returned: Receiver<Box<Duplex<AnyIo>>>,
    /// Dropped after the connection, even if its stream panics then.
    place: Place,
}

/// How far a session has got.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Up to the end of the handler, and until nobody has the connection any more.
    Handling,
    /// The connection has come back, or was taken apart.
    Returned,
    /// The last flush has ended, well or not. Closing the connection from now on is not an abort.
    Flushed,
}

impl Session {
    fn new(
        shared: Arc<Shared>,
        Accepted { io, peer, is_from_trusted_proxy }: Accepted,
        permit: Option<OwnedSemaphorePermit>,
        draining: Draining,
    ) -> Self {
        let place = Place::new(shared, peer, is_from_trusted_proxy, permit);
        let config = place.shared.config();
        // Allocated here, before the session has a task, so that it lies beside what Tokio
        // allocated for the socket, and not in the memory of another thread.
        let mut connection = Connection::with_peer(io, config.codec.clone(), peer).into_duplex();
        let (owner, returned) = oneshot::channel();
        connection.serve(Arc::clone(&config.limits), draining, owner);
        Self {
            span: trace::Span::new(peer),
            connection: Some(connection),
            outcome: None,
            stage: Stage::Handling,
            returned,
            place,
        }
    }

    /// Everything up to the handler.
    async fn begin<H, Fut>(&mut self, handler: H) -> Result<Fut, Outcome>
    where
        H: FnOnce(Connection) -> Fut,
    {
        let Some(mut connection) = self.connection.take() else { return Err(Outcome::Done) };
        self.place.wait().await;
        if !self.place.is_from_trusted_proxy {
            self.place.count_ip()?;
        }
        let shared = Arc::clone(&self.place.shared);
        let config = shared.config();
        if let Some(tcp) = connection.io.downcast_ref::<TcpStream>() {
            configure(tcp, config.tcp_nodelay, config.keepalive, config.limits.write_timeout);
        }
        if let Some(hook) = &config.handshake {
            let draining = connection.reader.draining().clone();
            let io = core::mem::replace(&mut connection.io, AnyIo::new(tokio::io::empty()));
            let is_from_trusted_proxy = self.place.is_from_trusted_proxy;
            let accepted = Accepted { io, peer: connection.peer, is_from_trusted_proxy };
            let mut shaking = pin!(shake_hands(&shared, &**hook, accepted, draining));
            let accepted = poll_fn(|cx| match self.catch_panic(|| shaking.as_mut().poll(cx)) {
                Ok(shaken) => shaken,
                Err(outcome) => Poll::Ready(Err(outcome)),
            })
            .await?;
            (connection.io, connection.peer) = (accepted.io, accepted.peer);
            self.place.set_peer(accepted.peer);
            self.span = trace::Span::new(accepted.peer);
        }
        trace::connection_began(self.place.peer);
        self.place.count_ip()?;
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
        if let (Outcome::Failed(error), Some(on_error)) = (&**outcome, &self.place.shared.config().on_error) {
            // A panic in it changes nothing.
            _ = catch_unwind(AssertUnwindSafe(|| on_error(self.place.peer, error)));
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
        self.stage = Stage::Flushed;
        connection.linger(self.place.shared.config().linger_timeout).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (is_complete, summary) = match (&mut self.connection, self.stage) {
            (Some(connection), stage) => {
                connection.report();
                (stage == Stage::Flushed, Some(trace::Summary::of(connection)))
            }
            // It was taken apart, or there was no handler for it.
            (None, Stage::Returned | Stage::Flushed) => (true, None),
            (None, Stage::Handling) => match self.returned.try_recv() {
                // Its handler was dropped just now.
                Ok(mut connection) => {
                    connection.report();
                    (false, Some(trace::Summary::of(&connection)))
                }
                // The handler has it still, or somebody to whom it gave it.
                Err(TryRecvError::Empty) => (false, None),
                // The handler has taken it apart.
                Err(TryRecvError::Closed) => (true, None),
            },
        };
        let outcome = match self.outcome.as_deref() {
            Some(outcome) if is_complete => outcome,
            // Its stream, while the connection was ended.
            _ if std::thread::panicking() => &Outcome::Panicked,
            _ => &Outcome::Aborted,
        };
        let Place { shared, peer, .. } = &self.place;
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
    // The drain gives all handshakes the same second, so none waits for another.
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
        // Bytes that the system has already are in time.
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

    /// A task of Tokio's has 112 bytes of its own, and takes 256 or 384.
    #[test]
    fn a_session_fits_in_a_task_of_256_bytes_with_a_handler_of_one_pointer() {
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
