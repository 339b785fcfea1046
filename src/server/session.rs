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

use super::{Accepted, Server, Shared};
use crate::connection::{Connection, Draining, Limits, Timeout};

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
        let Some(accepted) = self.shake_hands(accepted).await else { return };
        let Some(_place) = Place::take(&self.0, accepted.peer.ip()) else {
            return totals.refused();
        };
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
        let handled = run(async move { handler(connection).await }).await;
        // The handler may have handed it on.
        let timed_out = match back.await {
            Ok(inner) => {
                let (counters, timed_out) = inner.finish(config.linger_timeout).await;
                totals.ended(counters);
                timed_out
            }
            // It was taken apart, and is the handler's for good.
            Err(_) => None,
        };
        match (timed_out, handled) {
            (Some(timeout), _) => totals.timed_out(timeout),
            (None, Handled::Done) => {}
            (None, Handled::Failed) => totals.failed(),
            (None, Handled::Refused) => totals.refused(),
            (None, Handled::Panicked) => totals.panicked(),
        }
        drop(permit);
    }

    async fn shake_hands(&self, accepted: Accepted) -> Option<Accepted> {
        let Shared { config, totals, .. } = &*self.0;
        let Some(hook) = &config.handshake else { return Some(accepted) };
        let done = match config.handshake_timeout {
            None => hook(accepted).await,
            Some(after) => match timeout(after, hook(accepted)).await {
                Ok(done) => done,
                Err(_) => {
                    totals.timed_out(Timeout::Handshake);
                    return None;
                }
            },
        };
        done.inspect_err(|_| totals.failed()).ok()
    }
}

enum Handled {
    Done,
    Failed,
    Refused,
    Panicked,
}

/// Runs a handler. One that panics costs its own connection only.
async fn run(handler: impl Future<Output = io::Result<()>>) -> Handled {
    let mut handler = pin!(handler);
    // After a panic it is dropped and not polled again, and what it shares with others is theirs to judge.
    let done = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
        Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    });
    match done.await {
        None => Handled::Panicked,
        Some(Ok(())) => Handled::Done,
        Some(Err(error)) => match error.into() {
            crate::Error::NotLines => Handled::Refused,
            _ => Handled::Failed,
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
