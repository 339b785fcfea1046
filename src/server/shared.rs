use std::boxed::Box;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::counters::Outcome;
use super::listener::Accepted;
use super::trace;
use crate::codec::LineCodec;
use crate::net::{Keepalive, Limits, Peer, Total, Totals};

pub(super) type Hook =
    dyn Fn(Accepted) -> Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send>> + Send + Sync;

pub(super) type OnError = dyn Fn(Peer, &io::Error) + Send + Sync;

/// The settings of a server.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) codec: LineCodec,
    pub(super) max_connections: Option<usize>,
    pub(super) max_connections_per_ip: Option<usize>,
    /// Number of leading bits of an IPv6 address that `max_connections_per_ip` compares. Always at
    /// most 128.
    pub(super) per_ip_prefix: u8,
    pub(super) max_handshakes: Option<usize>,
    pub(super) limits: Arc<Limits>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) linger_timeout: Option<Duration>,
    pub(super) tcp_nodelay: bool,
    pub(super) keepalive: Option<Keepalive>,
    pub(super) handshake: Option<Arc<Hook>>,
    pub(super) on_error: Option<Arc<OnError>>,
}

/// The state that all sessions of a server share.
pub(super) struct Shared {
    config: Config,
    permits: Arc<Semaphore>,
    handshakes: Semaphore,
    totals: Arc<Totals>,
    /// Numbers of connections by address, or by prefix for IPv6. Empty without
    /// `max_connections_per_ip`.
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

impl Shared {
    pub(super) fn new(mut config: Config) -> Self {
        let totals = Arc::<Totals>::default();
        Arc::make_mut(&mut config.limits).totals = Some(Arc::clone(&totals));
        let semaphore =
            |max: Option<usize>| Semaphore::new(max.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS));
        Self {
            permits: Arc::new(semaphore(config.max_connections)),
            handshakes: semaphore(config.max_handshakes),
            config,
            totals,
            per_ip: Mutex::default(),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Waits until `max_connections` allows another connection.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return permit;
        }
        // Another listener may hold the last permit only for a moment, so this checks the number of
        // open connections.
        let max = self.config.max_connections.filter(|max| self.totals.get(Total::Open) >= *max as u64);
        max.into_iter().for_each(trace::connection_limit_reached);
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Waits until `max_handshakes` allows another handshake.
    pub(super) async fn handshake_permit(&self) -> SemaphorePermit<'_> {
        match self.handshakes.acquire().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Returns the address under which `max_connections_per_ip` counts a peer, or `None` if the
    /// peer is not counted.
    fn counted_ip(&self, peer: Peer) -> Option<IpAddr> {
        self.config.max_connections_per_ip?;
        Some(match peer.ip()?.to_canonical() {
            IpAddr::V6(ip) => {
                let ignored = 128 - u32::from(self.config.per_ip_prefix.min(128));
                let mask = u128::MAX.checked_shl(ignored).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
            ip => ip,
        })
    }

    fn per_ip(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.per_ip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share of a connection in the limits of its server. Dropping this value releases the share.
pub(super) struct Slot {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Peer,
    pub(super) is_from_trusted_proxy: bool,
    /// `true` if the connection is counted under the address of `peer`.
    is_counted: bool,
    /// `true` if the connection is counted under `max_connections`.
    has_permit: bool,
}

impl Slot {
    /// Counts the connection as open. Without a permit, call [`wait`](Self::wait).
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: Peer,
        is_from_trusted_proxy: bool,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        shared.totals.add(Total::Open, 1);
        let has_permit = permit.is_some();
        // `Drop` releases the permit.
        permit.into_iter().for_each(OwnedSemaphorePermit::forget);
        Self { shared, peer, is_from_trusted_proxy, is_counted: false, has_permit }
    }

    /// Waits until `max_connections` allows this connection, unless it has a permit.
    pub(super) async fn wait(&mut self) {
        if !self.has_permit {
            self.shared.permit().await.forget();
            self.has_permit = true;
        }
    }

    /// Counts the connection under its address. Fails if the address has reached its limit.
    pub(super) fn count_ip(&mut self) -> Result<(), Outcome> {
        if self.is_counted {
            return Ok(());
        }
        let (Some(max), Some(ip)) =
            (self.shared.config.max_connections_per_ip, self.shared.counted_ip(self.peer))
        else {
            return Ok(());
        };
        let mut per_ip = self.shared.per_ip();
        let count = per_ip.get(&ip).copied().unwrap_or(0);
        if count >= max {
            return Err(Outcome::Refused);
        }
        per_ip.insert(ip, count + 1);
        self.is_counted = true;
        Ok(())
    }

    /// Sets the peer that the handshake has returned. If its address differs, the connection no
    /// longer counts under the old one.
    pub(super) fn set_peer(&mut self, peer: Peer) {
        if self.shared.counted_ip(peer) != self.shared.counted_ip(self.peer) {
            self.discount_ip();
        }
        self.peer = peer;
    }

    fn discount_ip(&mut self) {
        if !std::mem::take(&mut self.is_counted) {
            return;
        }
        if let Some(ip) = self.shared.counted_ip(self.peer) {
            if let Entry::Occupied(mut count) = self.shared.per_ip().entry(ip) {
                match count.get() {
                    0 | 1 => _ = count.remove(),
                    _ => *count.get_mut() -= 1,
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.discount_ip();
        self.shared.totals.subtract(Total::Open, 1);
        if self.has_permit {
            self.shared.permits.add_permits(1);
        }
    }
}
