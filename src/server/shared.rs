use std::boxed::Box;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::Outcome;
use super::listener::Accepted;

use crate::codec::LineCodec;
use crate::net::{Limits, Peer, Total, Totals};

pub(super) type Hook =
    dyn Fn(Accepted) -> Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send>> + Send + Sync;

pub(super) type OnError = dyn Fn(Peer, &io::Error) + Send + Sync;

/// How a server is configured.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) codec: LineCodec,
    pub(super) max_connections: Option<usize>,
    pub(super) max_connections_per_ip: Option<usize>,
    pub(super) limits: Arc<Limits>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) linger_timeout: Option<Duration>,
    pub(super) tcp_nodelay: bool,
    pub(super) handshake: Option<Arc<Hook>>,
    pub(super) on_error: Option<Arc<OnError>>,
}

/// What all sessions of a server share.
pub(super) struct Shared {
    config: Config,
    permits: Arc<Semaphore>,
    totals: Arc<Totals>,
    /// Connections of each address. Empty without `max_connections_per_ip`.
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

impl Shared {
    pub(super) fn new(mut config: Config) -> Self {
        let totals = Arc::<Totals>::default();
        Arc::make_mut(&mut config.limits).totals = Some(Arc::clone(&totals));
        let max = config.max_connections.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { config, permits: Arc::new(Semaphore::new(max)), totals, per_ip: Mutex::default() }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Waits for a place under `max_connections`.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    #[cfg(test)]
    pub(super) fn try_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Counts a connection of this address. Returns whether it has to be released again.
    pub(super) fn count_ip(&self, peer: Peer) -> Result<bool, Outcome> {
        let (Some(max), Some(ip)) = (self.config.max_connections_per_ip, peer.ip()) else { return Ok(false) };
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_ip.get(&ip).copied().unwrap_or(0);
        if count >= max {
            return Err(Outcome::Refused);
        }
        per_ip.insert(ip, count + 1);
        Ok(true)
    }

    /// A connection is closed: frees its place, and that under its address if it is counted there.
    pub(super) fn release(&self, peer: Peer, is_counted: bool) {
        if let (true, Some(ip)) = (is_counted, peer.ip()) {
            let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Entry::Occupied(mut count) = per_ip.entry(ip) {
                match count.get() {
                    0 | 1 => _ = count.remove(),
                    _ => *count.get_mut() -= 1,
                }
            }
        }
        self.totals.subtract(Total::Open, 1);
        self.permits.add_permits(1);
    }
}
