use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Settings of TCP keepalive. Requires the feature `net`.
///
/// When a TCP connection is idle, the system probes whether the peer is still reachable. Without
/// keepalive, a peer that vanishes silently (network loss, power failure) is noticed only when
/// something is sent.
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
    /// Returns the defaults: 60 s idle, 10 s between probes, 3 probes. A vanished peer is detected
    /// after 90 s.
    ///
    /// ```
    /// let keepalive = lineframe::Keepalive::new();
    /// ```
    pub fn new() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 3 }
    }

    /// Sets how long a connection is idle before the first probe. Rounded up to whole seconds, from
    /// 1 to 32,767. Default: 60 s.
    ///
    /// ```
    /// let keepalive = lineframe::Keepalive::new().idle(std::time::Duration::from_secs(30));
    /// ```
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// Sets the time between two probes. Rounded up to whole seconds, from 1 to 32,767. Default: 10
    /// s.
    ///
    /// ```
    /// let keepalive = lineframe::Keepalive::new().interval(std::time::Duration::from_secs(5));
    /// ```
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Sets how many unanswered probes close the connection, from 1 to 127. Default: 3.
    ///
    /// ```
    /// let keepalive = lineframe::Keepalive::new().probes(5);
    /// ```
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
        // Other systems use their own values.
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows))]
        return keepalive.with_interval(whole_seconds(interval)).with_retries(probes.clamp(1, 127));
        #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows)))]
        {
            let _ = (interval, probes);
            keepalive
        }
    }
}

/// Rounds up to whole seconds. Linux rejects 0 and values above 32,767.
fn whole_seconds(time: Duration) -> Duration {
    let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    Duration::from_secs(seconds.clamp(1, 32_767))
}

/// Minimum `TCP_USER_TIMEOUT`: the time that the default [`Keepalive`] takes. On Linux, the option
/// replaces the number of probes.
const MIN_USER_TIMEOUT: Duration = Duration::from_secs(90);

/// Sets the options of a TCP connection. Ignores errors, which occur if the peer has disconnected;
/// the first read reports that. Without `nodelay`, a line can wait 40 ms for the acknowledgement of
/// the previous one.
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
    // Keepalive does not apply while sent bytes are unacknowledged.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(timeout) = write_timeout {
        _ = socket.set_tcp_user_timeout(Some(timeout.max(MIN_USER_TIMEOUT)));
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (write_timeout, MIN_USER_TIMEOUT);
    // Without this option, the time of the read decides whether a byte of urgent data is part of
    // the stream (RFC 6093).
    _ = socket.set_out_of_band_inline(true);
}
