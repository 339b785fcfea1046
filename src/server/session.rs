use std::boxed::Box;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::ended::Ended;
use super::{Accepted, Config, Hook, Server, Shared, log};
use crate::connection::{AnyIo, Connection, Error, Inner, Peer, Seat, Timeout, Whereabouts, clock};

impl Server {
    /// One connection from accept to close.
    ///
    /// What waits for long is the handler: the rest is small, or in boxes that are there for the beginning and the end only.
    pub(super) fn session<H, Fut>(
        self,
        accepted: Accepted,
        handler: H,
        permit: OwnedSemaphorePermit,
        seat: Seat<AnyIo>,
    ) -> impl Future<Output = ()> + use<H, Fut>
    where
        H: FnOnce(Connection) -> Fut,
        Fut: Future<Output = io::Result<()>>,
    {
        let Accepted { io, peer } = accepted;
        // Made before the session has a task: in memory beside what Tokio has for the socket, and not in that of another thread.
        let connection = Connection::connected(io, self.0.config.codec.clone(), peer);
        let mut session = Session::new(self, peer, connection, permit, seat);
        // Not an async fn: its arguments would be stored twice. What is not needed while the handler waits is in blocks of its own.
        async move {
            {
                let mut handling = pin!(None);
                match Box::pin(session.begin(handler)).await {
                    Ok(begun) => handling.set(Some(begun)),
                    Err(ended) => session.ended = Some(ended.into()),
                }
                poll_fn(|cx| session.poll_handled(handling.as_mut(), cx)).await;
            }
            session.connection = poll_fn(|cx| session.seat.poll_home(cx)).await;
            if session.connection.is_some() {
                Box::pin(session.finish()).await;
            }
        }
    }
}

/// A connection under the limits of its server. When this is dropped, whether at its end or because it was aborted, it counts
/// for them no longer, and what has gone through it is counted.
struct Session {
    server: Server,
    peer: Peer,
    span: log::Span,
    /// Whether it is among those of its address.
    is_counted: bool,
    /// Before its handler has it, and once it has come home.
    connection: Option<Box<Inner<AnyIo>>>,
    /// How its handler has ended, or what has kept it from one. In a box, since it is there for a moment only.
    ended: Option<Box<Ended>>,
    /// All that could be sent was sent. Who is cut while it lingers was not aborted.
    is_sent: bool,
    /// Left when all else has been dropped.
    seat: Seat<AnyIo>,
}

impl Session {
    fn new(
        server: Server,
        peer: Peer,
        connection: Connection,
        permit: OwnedSemaphorePermit,
        seat: Seat<AnyIo>,
    ) -> Self {
        // Given back when this is dropped.
        permit.forget();
        Self {
            server,
            peer,
            span: log::Span::of(peer),
            is_counted: false,
            connection: Some(connection.into_inner()),
            ended: None,
            is_sent: false,
            seat,
        }
    }

    /// Up to where the handler has it.
    async fn begin<H, Fut>(&mut self, handler: H) -> Result<Fut, Ended>
    where
        H: FnOnce(Connection) -> Fut,
    {
        let Some(connection) = self.connection.take() else { return Err(Ended::Done) };
        let mut connection = Connection::from_inner(connection);
        let config = &self.server.0.config;
        if let Some(tcp) = connection.io().downcast_ref::<TcpStream>() {
            // Where it fails, the peer is gone, and the first read says so.
            _ = tcp.set_nodelay(config.tcp_nodelay);
        }
        if let Some(hook) = &config.handshake {
            let (io, peer) = connection.take_io();
            let accepted = {
                let mut shaking = pin!(shake_hands(config, &**hook, Accepted { io, peer }));
                poll_fn(|cx| match self.caught(|| shaking.as_mut().poll(cx)) {
                    Ok(shaken) => shaken,
                    Err(ended) => Poll::Ready(Err(ended)),
                })
                .await?
            };
            connection.put_io(accepted.io, accepted.peer);
            // It may know better.
            self.peer = accepted.peer;
            self.span = log::Span::of(accepted.peer);
        }
        if !self.is_one_of_its_address() {
            return Err(Ended::Refused);
        }
        let limits = Arc::clone(&self.server.0.config.limits);
        connection.serve(limits, self.seat.draining(), self.seat.home());
        self.caught(|| handler(connection))
    }

    fn poll_handled<Fut: Future<Output = io::Result<()>>>(
        &mut self,
        mut handling: Pin<&mut Option<Fut>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(handled) = handling.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let ended = match self.caught(|| clock::within_poll(|| handled.poll(cx))) {
            Ok(done) => Ended::of(ready!(done)),
            // It is not polled again.
            Err(ended) => ended,
        };
        self.ended = Some(ended.into());
        Poll::Ready(())
    }

    /// Whether there is a place left for it under `max_connections_per_ip`, which it then has.
    fn is_one_of_its_address(&mut self) -> bool {
        let Shared { config, per_ip, .. } = &*self.server.0;
        let (Some(most), Some(ip)) = (config.max_connections_per_ip, self.peer.ip()) else { return true };
        let mut per_ip = per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_ip.get(&ip).copied().unwrap_or(0);
        self.is_counted = count < most;
        if self.is_counted {
            per_ip.insert(ip, count + 1);
        }
        self.is_counted
    }

    /// What a handler or a handshake does. One that panics costs its own connection only.
    fn caught<T>(&self, does: impl FnOnce() -> T) -> Result<T, Ended> {
        // What it shares with others is theirs to judge.
        self.span.of_all(|| catch_unwind(AssertUnwindSafe(does))).map_err(|_| Ended::Panicked)
    }

    /// Ends a connection that has come home.
    async fn finish(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(timeout) = connection.finish().await {
            self.ended = Some(Ended::TimedOut(timeout).into());
        }
        self.is_sent = true;
        connection.linger(self.server.0.config.linger_timeout).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Shared { totals, per_ip, permits, .. } = &*self.server.0;
        let (is_whole, counters) = match (&mut self.connection, self.seat.forsake()) {
            (Some(connection), _) => {
                connection.report();
                (self.is_sent, Some(connection.counters()))
            }
            // Its handler was dropped before this.
            (None, Whereabouts::Home(mut connection)) => {
                connection.report();
                (false, None)
            }
            (None, Whereabouts::Out(_)) => (false, None),
            (None, _) => (true, None),
        };
        match &self.ended {
            Some(ended) if is_whole => {
                totals.ended(ended);
                log::ended(self.peer, ended, counters.as_ref());
            }
            _ => totals.aborted(),
        }
        if let (true, Some(ip)) = (self.is_counted, self.peer.ip()) {
            let mut per_ip = per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Entry::Occupied(mut count) = per_ip.entry(ip) {
                match count.get() {
                    0 | 1 => _ = count.remove(),
                    _ => *count.get_mut() -= 1,
                }
            }
        }
        drop(self.connection.take());
        permits.add_permits(1);
    }
}

async fn shake_hands(config: &Config, hook: &Hook, accepted: Accepted) -> Result<Accepted, Ended> {
    let shaken = match config.handshake_timeout {
        None => hook(accepted).await,
        Some(after) => match timeout(after, hook(accepted)).await {
            Ok(shaken) => shaken,
            Err(_) => return Err(Ended::TimedOut(Timeout::Handshake)),
        },
    };
    shaken.map_err(Ended::Failed)
}

impl Ended {
    fn of(handled: io::Result<()>) -> Self {
        match handled.map_err(Error::from) {
            Ok(()) => Self::Done,
            Err(Error::NotLines) => Self::Refused,
            Err(error) => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of_val;
    use std::sync::Arc;

    use crate::connection::Seats;
    use crate::{Accepted, AnyIo, Connection, Peer, Server, reply_into};

    /// A task of Tokio's has 112 bytes of its own, and takes 256 or 384.
    #[test]
    fn a_session_fits_in_a_task_of_256_bytes_with_a_handler_of_one_pointer() {
        let server = Server::new();
        let state = Arc::new(*b"state");
        let handler = move |connection: Connection| {
            reply_into(move |_, reply| reply.extend_from_slice(&*state))(connection)
        };
        let accepted = Accepted::new(AnyIo::new(tokio::io::empty()), Peer::Other);
        let permit = Arc::clone(&server.0.permits).try_acquire_owned().unwrap();
        let session = server.clone().session(accepted, handler, permit, Arc::<Seats<_>>::default().take());
        assert!(size_of_val(&session) <= 144, "{} bytes", size_of_val(&session));
    }
}
