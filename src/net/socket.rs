use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When a TCP connection is silent, the system asks the peer whether it is still there. Without
/// that, a peer that vanished without a word (a lost network, a power failure) is not noticed until
/// something is sent to it.
///
/// ```
/// use std::time::Duration;
///
/// use lineframe::{Keepalive, Server};
///
/// let keepalive = Keepalive::new().idle(Duration::from_secs(30));
/// let server = Server::builder().keepalive(keepalive).build();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Keepalive {
    idle: Duration,
    interval: Duration,
    probes: u32,
}

impl Keepalive {
    /// 60 s, 10 s and 3 probes: a vanished peer is noticed after 90 s.
    pub fn new() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 3 }
    }

    /// Sets how long a connection is silent before the first probe. Rounded up to whole seconds, of
    /// which there are 1 to 32,767.
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Sets the time between two probes. Rounded as [`idle`](Self::idle) is.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Sets how many probes remain unanswered before the connection is closed, 1 to 127.
    pub fn probes(self, probes: u32) -> Self {
        Self { probes, ..self }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Keepalive> for TcpKeepalive {
    fn from(Keepalive { idle, interval, probes }: Keepalive) -> Self {
        let keepalive = Self::new().with_time(whole_seconds(idle));
        // Other systems have values of their own.
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
        return keepalive.with_interval(whole_seconds(interval)).with_retries(probes.clamp(1, 127));
        #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows)))]
        {
            let _ = (interval, probes);
            keepalive
        }
    }
}

/// Linux refuses 0 and more than 32,767.
fn whole_seconds(time: Duration) -> Duration {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    Duration::from_secs(seconds.clamp(1, 32_767))
}

/// The least `TCP_USER_TIMEOUT`: as long as the default [`Keepalive`] takes. On Linux it replaces
/// the number of probes.
const MIN_USER_TIMEOUT: Duration = Duration::from_secs(90);

/// Sets the options of a TCP connection. They fail if the peer is gone, which the first read
/// reports. Without `nodelay`, a line can wait 40 ms for the acknowledgement of the one before.
pub(crate) fn configure(
    tcp: &TcpStream,
    nodelay: bool,
    keepalive: Option<Keepalive>,
    write_timeout: Option<Duration>,
) {
    _ = tcp.set_nodelay(nodelay);
    let socket = SockRef::from(tcp);
    _ = match keepalive {
        Some(keepalive) => socket.set_tcp_keepalive(&keepalive.into()),
        None => socket.set_keepalive(false),
    };
    // Bytes that were sent and not acknowledged are what keepalive does not look at.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(timeout) = write_timeout {
        _ = socket.set_tcp_user_timeout(Some(timeout.max(MIN_USER_TIMEOUT)));
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (write_timeout, MIN_USER_TIMEOUT);
    // Otherwise a byte of urgent data is left out of the stream, or not: that depends on when it is
    // read (RFC 6093).
    _ = socket.set_out_of_band_inline(true);
}
