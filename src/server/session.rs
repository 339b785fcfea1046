use std::boxed::Box;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::ended::Ended;
use super::{Accepted, Server, Shared, log};
use crate::connection::{AnyIo, Connection, Drain, Draining, Error, Inner, Peer, Timeout};

impl Server {
    /// One connection from accept to close.
    ///
    /// What waits for long is the handler: the rest is small, or in boxes that are there for the beginning and the end only.
    pub(super) fn session<H, Fut>(
        self,
        accepted: Accepted,
        handler: H,
        permit: OwnedSemaphorePermit,
        drain: Arc<Drain>,
    ) -> impl Future<Output = ()> + use<H, Fut>
    where
        H: FnOnce(Connection) -> Fut,
        Fut: Future<Output = io::Result<()>>,
    {
        let mut session = Session::new(self, accepted.peer, permit);
        // Not an async fn: its arguments would be stored twice.
        let beginning = Box::new((accepted, drain));
        async move {
            let ended = match Box::pin(session.begin(beginning)).await {
                Err(ended) => ended,
                Ok(connection) => match session.caught(|| handler(connection)) {
                    Err(ended) => ended,
                    Ok(handling) => {
                        let mut handling = pin!(handling);
                        poll_fn(|cx| match session.caught(|| handling.as_mut().poll(cx)) {
                            Ok(Poll::Ready(done)) => Poll::Ready(Ended::of(done)),
                            Ok(Poll::Pending) => Poll::Pending,
                            // It is not polled again.
                            Err(ended) => Poll::Ready(ended),
                        })
                        .await
                    }
                },
            };
            session.ended = Some(ended);
            if session.has_come_home().await {
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
    connection: Whereabouts,
    /// How its handler has ended, or what has kept it from one.
    ended: Option<Ended>,
    /// All that could be sent was sent. Who is cut while it lingers was not aborted.
    is_sent: bool,
    _permit: OwnedSemaphorePermit,
}

enum Whereabouts {
    /// Not made yet, or taken apart: then it is its handler's for good.
    Nowhere,
    /// With its handler, or whom that has handed it to.
    Out(oneshot::Receiver<Box<Inner<AnyIo>>>),
    Home(Box<Inner<AnyIo>>),
}

impl Session {
    fn new(server: Server, peer: Peer, permit: OwnedSemaphorePermit) -> Self {
        Self {
            server,
            peer,
            span: log::Span::of(peer),
            is_counted: false,
            connection: Whereabouts::Nowhere,
            ended: None,
            is_sent: false,
            _permit: permit,
        }
    }

    /// Up to where the handler gets it.
    async fn begin(&mut self, beginning: Box<(Accepted, Arc<Drain>)>) -> Result<Connection, Ended> {
        let (accepted, drain) = *beginning;
        let config = &self.server.0.config;
        if let Some(tcp) = accepted.io.downcast_ref::<TcpStream>() {
            // Where it fails, the peer is gone, and the first read says so.
            _ = tcp.set_nodelay(config.tcp_nodelay);
        }
        let accepted = {
            let mut shaking = pin!(shake_hands(&self.server.0, accepted));
            poll_fn(|cx| match self.caught(|| shaking.as_mut().poll(cx)) {
                Ok(shaken) => shaken,
                Err(ended) => Poll::Ready(Err(ended)),
            })
            .await?
        };
        // The handshake may know better.
        self.peer = accepted.peer;
        self.span = log::Span::of(accepted.peer);
        if !self.is_one_of_its_address() {
            return Err(Ended::Refused);
        }
        let config = &self.server.0.config;
        let (codec, limits) = (config.codec.clone(), Arc::clone(&config.limits));
        let draining = Draining::new(drain);
        let (home, back) = oneshot::channel();
        self.connection = Whereabouts::Out(back);
        Ok(Connection::served(accepted.io, codec, accepted.peer, limits, draining, home))
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

    /// Waits until the connection is dropped by whoever has it.
    async fn has_come_home(&mut self) -> bool {
        let Whereabouts::Out(back) = &mut self.connection else { return false };
        self.connection = back.await.map_or(Whereabouts::Nowhere, Whereabouts::Home);
        matches!(self.connection, Whereabouts::Home(_))
    }

    /// Ends a connection that has come home.
    async fn finish(&mut self) {
        let Whereabouts::Home(connection) = &mut self.connection else { return };
        if let Some(timeout) = connection.finish().await {
            self.ended = Some(Ended::TimedOut(timeout));
        }
        self.is_sent = true;
        connection.linger(self.server.0.config.linger_timeout).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Shared { totals, per_ip, .. } = &*self.server.0;
        let (is_whole, counters) = match &mut self.connection {
            Whereabouts::Nowhere => (true, None),
            Whereabouts::Out(back) => {
                // Its handler was dropped before this.
                _ = back.try_recv().map(|mut connection| connection.report());
                (false, None)
            }
            Whereabouts::Home(connection) => {
                connection.report();
                (self.is_sent, Some(connection.counters()))
            }
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
    }
}

async fn shake_hands(shared: &Shared, accepted: Accepted) -> Result<Accepted, Ended> {
    let Some(hook) = &shared.config.handshake else { return Ok(accepted) };
    let shaken = match shared.config.handshake_timeout {
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
