use std::boxed::Box;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::counters::Totals;
use super::ended::Ended;
use super::{Accepted, Server, Shared, log};
use crate::connection::{AnyIo, Connection, ConnectionCounters, Draining, Error, Inner, Limits, Timeout};

impl Server {
    /// One connection from accept to close.
    pub(super) async fn session<H, Fut>(
        self,
        accepted: Accepted,
        handler: H,
        permit: OwnedSemaphorePermit,
        drain: CancellationToken,
    ) where
        H: FnOnce(Connection) -> Fut,
        Fut: Future<Output = io::Result<()>>,
    {
        let Shared { config, totals, .. } = &*self.0;
        if let Some(tcp) = accepted.io.downcast_ref::<TcpStream>() {
            // Where it fails, the peer is gone, and the first read says so.
            _ = tcp.set_nodelay(config.tcp_nodelay);
        }
        let mut peer = accepted.peer;
        let mut counters = None;
        let ended = match log::on_connection(peer, self.shake_hands(accepted)).await {
            Err(ended) => ended,
            Ok(accepted) => {
                peer = accepted.peer;
                match Place::take(&self.0, peer.ip()) {
                    None => Ended::Refused,
                    Some(_place) => {
                        let handled = self.handle(accepted, handler, drain, &mut counters);
                        log::on_connection(peer, handled).await
                    }
                }
            }
        };
        totals.ended(&ended);
        log::ended(peer, &ended, counters.as_ref());
        drop(permit);
    }

    async fn shake_hands(&self, accepted: Accepted) -> Result<Accepted, Ended> {
        let config = &self.0.config;
        let Some(hook) = &config.handshake else { return Ok(accepted) };
        let shaken = match config.handshake_timeout {
            None => hook(accepted).await,
            Some(after) => match timeout(after, hook(accepted)).await {
                Ok(shaken) => shaken,
                Err(_) => return Err(Ended::TimedOut(Timeout::Handshake)),
            },
        };
        shaken.map_err(Ended::Failed)
    }

    /// Runs the handler until it is done and has dropped the connection, and ends that.
    async fn handle<H, Fut>(
        &self,
        accepted: Accepted,
        handler: H,
        drain: CancellationToken,
        counters: &mut Option<ConnectionCounters>,
    ) -> Ended
    where
        H: FnOnce(Connection) -> Fut,
        Fut: Future<Output = io::Result<()>>,
    {
        let Shared { config, totals, .. } = &*self.0;
        let limits = Limits {
            idle_timeout: config.idle_timeout,
            line_timeout: config.line_timeout,
            write_timeout: config.write_timeout,
            max_bad_lines: config.max_bad_lines,
            max_unsent: config.max_unsent,
            refuse_http_and_tls: config.refuse_http_and_tls,
            draining: Draining::new(Some(drain)),
        };
        let (home, back) = oneshot::channel();
        let connection = Connection::served(accepted.io, config.codec.clone(), accepted.peer, limits, home);
        let mut coming = Coming { back, totals };
        let handled = run(async move { handler(connection).await }).await;
        // The handler may have handed it on. Where it was taken apart, it is the handler's for good.
        let Ok(inner) = (&mut coming.back).await else { return handled };
        let mut leaving = Leaving { inner, totals };
        let timed_out = leaving.inner.finish(config.linger_timeout).await;
        *counters = Some(leaving.inner.counters());
        timed_out.map_or(handled, Ended::TimedOut)
    }
}

/// A connection that comes back from its handler: where the session is aborted, as late as this is dropped, and is counted
/// all the same.
struct Coming<'a> {
    back: oneshot::Receiver<Box<Inner<AnyIo>>>,
    totals: &'a Totals,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if let Ok(inner) = self.back.try_recv() {
            self.totals.count(inner.counters());
        }
    }
}

/// A connection that has come back. It is counted at its end, whatever that is.
struct Leaving<'a> {
    inner: Box<Inner<AnyIo>>,
    totals: &'a Totals,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.totals.count(self.inner.counters());
    }
}

/// Runs a handler. One that panics costs its own connection only.
async fn run(handler: impl Future<Output = io::Result<()>>) -> Ended {
    let mut handler = pin!(handler);
    // After a panic it is dropped and not polled again, and what it shares with others is theirs to judge.
    let done = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
        Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    });
    match done.await {
        None => Ended::Panicked,
        Some(Ok(())) => Ended::Done,
        Some(Err(error)) => match Error::from(error) {
            Error::NotLines => Ended::Refused,
            error => Ended::Failed(error.into()),
        },
    }
}

/// A connection's place among those of its address.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    /// `None`: they are not counted, or it has no address.
    ip: Option<IpAddr>,
}

impl<'a> Place<'a> {
    /// `None`: there is none left.
    fn take(shared: &'a Arc<Shared>, ip: Option<IpAddr>) -> Option<Self> {
        let (Some(most), Some(ip)) = (shared.config.max_connections_per_ip, ip) else {
            return Some(Self { shared, ip: None });
        };
        let mut per_ip = shared.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_ip.get(&ip).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        per_ip.insert(ip, count + 1);
        Some(Self { shared, ip: Some(ip) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ip) = self.ip else { return };
        let mut per_ip = self.shared.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = per_ip.entry(ip) {
            match count.get() {
                0 | 1 => _ = count.remove(),
                _ => *count.get_mut() -= 1,
            }
        }
    }
}
