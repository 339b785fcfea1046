use core::fmt;
use core::net::{IpAddr, SocketAddr};

#[cfg(any(feature = "client", feature = "server"))]
use super::AnyIo;

/// Who is at the other end of a connection, as far as the system says.
///
/// `Display` is one word or a few, for a log:
///
/// ```
/// use lineframe::Peer;
///
/// assert_eq!(Peer::Tcp(([10, 0, 0, 7], 51514).into()).to_string(), "10.0.0.7:51514");
/// assert_eq!(Peer::Unix { pid: Some(12), uid: 0, gid: 0 }.to_string(), "unix pid 12 uid 0");
/// assert_eq!(Peer::Unix { pid: None, uid: 1000, gid: 0 }.to_string(), "unix uid 1000");
/// assert_eq!(Peer::Other.to_string(), "other");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// The address at the other end of a TCP connection, or the one that a proxy has named.
    Tcp(SocketAddr),
    /// The process at the other end of a Unix socket, as it was when it connected or began to listen. It may be another
    /// one by now.
    Unix {
        /// Its process id, where the system tells it.
        pid: Option<i32>,
        /// Its effective user id.
        uid: u32,
        /// Its effective group id.
        gid: u32,
    },
    /// Nothing is known: any other stream, or one whose peer was gone before it could be asked about.
    Other,
}

impl Peer {
    /// The IP address, where the peer has one. An IPv4 address that an IPv6 socket has seen as `::ffff:10.0.0.7` is
    /// given as `10.0.0.7`, so that it compares equal to what is in a list.
    ///
    /// ```
    /// use lineframe::Peer;
    ///
    /// let mapped = Peer::Tcp("[::ffff:10.0.0.7]:51514".parse().unwrap());
    /// assert_eq!(mapped.ip(), Some([10, 0, 0, 7].into()));
    /// assert_eq!(Peer::Other.ip(), None);
    /// ```
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix { .. } | Self::Other => None,
        }
    }

    /// What the system says of the stream.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn of(io: &AnyIo) -> Self {
        if let Some(tcp) = io.downcast_ref::<tokio::net::TcpStream>() {
            return tcp.peer_addr().map_or(Self::Other, Self::Tcp);
        }
        #[cfg(unix)]
        if let Some(unix) = io.downcast_ref::<tokio::net::UnixStream>() {
            return unix.peer_cred().map_or(Self::Other, |process| Self::Unix {
                pid: process.pid(),
                uid: process.uid(),
                gid: process.gid(),
            });
        }
        Self::Other
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { pid: Some(pid), uid, .. } => write!(f, "unix pid {pid} uid {uid}"),
            Self::Unix { pid: None, uid, .. } => write!(f, "unix uid {uid}"),
            Self::Other => f.write_str("other"),
        }
    }
}
