use std::boxed::Box;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use super::Server;
use super::listener::Accepted;
use super::shared::{Config, Shared};
use crate::codec::LineCodec;
use crate::net::{Keepalive, Limits, Peer};

/// The default of `max_handshakes` per core. A TLS handshake takes about 1 ms of CPU time, so 64
/// handshakes delay each other by up to 64 ms.
const HANDSHAKES_PER_CORE: usize = 64;

/// A builder for a [`Server`], returned by [`Server::builder`]. Requires the feature `net`.
///
/// All limits have finite defaults, except `max_connections_per_ip`. For every limit and deadline,
/// `None` means no limit.
///
/// ```
/// use std::time::Duration;
///
/// use lineframe::Server;
///
/// let server = Server::builder()
///     .max_connections(1000)
///     .max_connections_per_ip(10)
///     .idle_timeout(Duration::from_secs(60))
///     .build();
/// ```
#[derive(Clone)]
#[must_use]
pub struct ServerBuilder(Config);

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self(Config {
            codec: LineCodec::new(),
            max_connections: Some(10_000),
            max_connections_per_ip: None,
            per_ip_prefix: 64,
            max_handshakes: Some(HANDSHAKES_PER_CORE * available_parallelism().map_or(1, usize::from)),
            limits: Arc::new(Limits {
                idle_timeout: Some(Duration::from_secs(5 * 60)),
                line_timeout: Some(Duration::from_secs(30)),
                write_timeout: Some(Duration::from_secs(30)),
                max_bad_lines: Some(100),
                ..(*Limits::none()).clone()
            }),
            handshake_timeout: Some(Duration::from_secs(10)),
            drain_timeout: Some(Duration::from_secs(10)),
            linger_timeout: Some(Duration::from_secs(2)),
            tcp_nodelay: true,
            keepalive: Some(Keepalive::new()),
            handshake: None,
            on_error: None,
        })
    }

    fn limits(&mut self) -> &mut Limits {
        Arc::make_mut(&mut self.0.limits)
    }

    /// Sets the codec of all connections: the delimiter and the length limits. Default:
    /// [`LineCodec::new`].
    ///
    /// ```
    /// use lineframe::{LineCodec, Server};
    ///
    /// let codec = LineCodec::builder().max_length(1024).build();
    /// let server = Server::builder().codec(codec).build();
    /// ```
    pub fn codec(mut self, codec: LineCodec) -> Self {
        self.0.codec = codec;
        self
    }

    /// Sets the maximum number of open connections, over all listeners. Further connections wait in
    /// the backlogs of the listeners. Default: 10,000.
    ///
    /// ```
    /// let server = lineframe::Server::builder().max_connections(1000).build();
    /// ```
    pub fn max_connections(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections = n.into();
        self
    }

    /// Sets the maximum number of open connections from one IP address. The server closes further
    /// connections immediately and counts them as refused. Default: no limit.
    ///
    /// Before the [handshake](Self::handshake), a connection counts under the address of its
    /// socket. After the handshake, it counts under the address that the handshake returns. A
    /// connection [from a trusted proxy](Accepted::from_trusted_proxy) counts only under the
    /// latter. IPv6 addresses count by [prefix](Self::per_ip_prefix), and IPv4-mapped addresses
    /// count as IPv4.
    ///
    /// ```
    /// let server = lineframe::Server::builder().max_connections_per_ip(10).build();
    /// ```
    pub fn max_connections_per_ip(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections_per_ip = n.into();
        self
    }

    /// Sets how many leading bits of an IPv6 address `max_connections_per_ip` compares, from 0 to
    /// 128. Larger values mean 128. A subscriber usually has a whole /64. Default: 64.
    ///
    /// ```
    /// use lineframe::Server;
    ///
    /// let server = Server::builder().max_connections_per_ip(10).per_ip_prefix(48).build();
    /// ```
    pub fn per_ip_prefix(mut self, bits: u8) -> Self {
        self.0.per_ip_prefix = bits.min(128);
        self
    }

    /// Sets how many [handshakes](Self::handshake) may run at the same time. Further handshakes
    /// wait, and `handshake_timeout` starts only when they run. Default: 64 per core.
    ///
    /// ```
    /// let server = lineframe::Server::builder().max_handshakes(256).build();
    /// ```
    pub fn max_handshakes(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_handshakes = n.into();
        self
    }

    /// Sets how many bad lines a connection may send in total. The handler still receives the next
    /// bad line; then the server closes the connection. Default: 100.
    ///
    /// ```
    /// let server = lineframe::Server::builder().max_bad_lines(10).build();
    /// ```
    pub fn max_bad_lines(mut self, n: impl Into<Option<u64>>) -> Self {
        self.limits().max_bad_lines = n.into();
        self
    }

    /// Sets how many bytes of output may be unsent per connection. Above this limit, a handler that
    /// writes has to wait, and the server does not read from the connection. Default: 64 KiB.
    ///
    /// ```
    /// let server = lineframe::Server::builder().max_unsent(256 * 1024).build();
    /// ```
    pub fn max_unsent(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.limits().max_unsent = bytes.into().unwrap_or(usize::MAX);
        self
    }

    /// Sets how long a peer may take to begin a line. Default: 5 minutes.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = lineframe::Server::builder().idle_timeout(Duration::from_secs(60)).build();
    /// ```
    pub fn idle_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().idle_timeout = after.into();
        self
    }

    /// Sets how long a line may take from its first byte to its last. Sending slowly does not
    /// extend the deadline. Default: 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = lineframe::Server::builder().line_timeout(Duration::from_secs(10)).build();
    /// ```
    pub fn line_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().line_timeout = after.into();
        self
    }

    /// Sets how long output may wait until the peer accepts at least one byte. Default: 30 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = lineframe::Server::builder().write_timeout(Duration::from_secs(10)).build();
    /// ```
    pub fn write_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().write_timeout = after.into();
        self
    }

    /// Sets how long the [handshake](Self::handshake) may take. After a graceful shutdown has
    /// started, the handshake may take at most 1 s more. Default: 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = lineframe::Server::builder().handshake_timeout(Duration::from_secs(5)).build();
    /// ```
    pub fn handshake_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.handshake_timeout = after.into();
        self
    }

    /// Sets how long connections may take to end after a shutdown was requested. The server aborts
    /// the connections that are still open after this time. Default: 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = lineframe::Server::builder().drain_timeout(Duration::from_secs(30)).build();
    /// ```
    pub fn drain_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.drain_timeout = after.into();
        self
    }

    /// Sets how long the server reads and discards bytes from the peer after it has sent the last
    /// reply and closed the writing side. Closing the socket earlier would reset the connection,
    /// and the reset can destroy replies that the peer has not read. Default: 2 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let server = lineframe::Server::builder().linger_timeout(Duration::from_secs(5)).build();
    /// ```
    pub fn linger_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.linger_timeout = after.into();
        self
    }

    /// Sets `TCP_NODELAY`. Without this option, a reply can wait 40 ms for the acknowledgement of
    /// the previous one. Default: on.
    ///
    /// ```
    /// let server = lineframe::Server::builder().tcp_nodelay(false).build();
    /// ```
    pub fn tcp_nodelay(mut self, yes: bool) -> Self {
        self.0.tcp_nodelay = yes;
        self
    }

    /// Sets when the system probes an idle TCP connection for a peer that has vanished. `None`
    /// disables the probes. Default: [`Keepalive::new`].
    ///
    /// On Linux and Android, `TCP_USER_TIMEOUT` also closes a connection whose sent bytes are not
    /// acknowledged for 90 s or `write_timeout`, whichever is longer. The option is not set if
    /// there is no `write_timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use lineframe::{Keepalive, Server};
    ///
    /// let keepalive = Keepalive::new().idle(Duration::from_secs(30));
    /// let server = Server::builder().keepalive(keepalive).build();
    /// ```
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.0.keepalive = keepalive.into();
        self
    }

    /// Sets whether the server refuses peers that speak HTTP or TLS. Such a peer receives one error
    /// line, and the server closes the connection before it reads any lines. Default: off.
    ///
    /// A web page can make a browser send an HTTP request to any port (a cross-protocol request).
    /// Enable this for protocols in which the peer speaks first and no line has the form `METHOD
    /// target HTTP/1.1`.
    ///
    /// ```
    /// let server = lineframe::Server::builder().refuse_http_and_tls(true).build();
    /// ```
    pub fn refuse_http_and_tls(mut self, yes: bool) -> Self {
        self.limits().refuse_http_and_tls = yes;
        self
    }

    /// Sets a function that runs between accepting a connection and its handler, such as a TLS
    /// handshake or a parser for PROXY headers.
    ///
    /// The function is cloned for each connection. It runs in the task of the connection, counts
    /// against the limits, and has a [deadline](Self::handshake_timeout). Wrap the
    /// [`AnyIo`](crate::AnyIo) itself, not the socket inside: during a shutdown, the server asks
    /// the system through the `AnyIo` what has been received.
    ///
    /// ```
    /// # async fn run(acceptor: tokio_rustls::TlsAcceptor) -> std::io::Result<()> {
    /// use lineframe::{Accepted, AnyIo, Server};
    ///
    /// let server = Server::builder()
    ///     .handshake(async move |mut accepted: Accepted| {
    ///         accepted.io = AnyIo::new(acceptor.accept(accepted.io).await?);
    ///         Ok(accepted)
    ///     })
    ///     .build();
    /// # Ok(())
    /// # }
    /// ```
    pub fn handshake<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Accepted) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Accepted>> + Send + 'static,
    {
        self.0.handshake = Some(Arc::new(move |accepted| Box::pin(hook.clone()(accepted))));
        self
    }

    /// Sets a function that the server calls with every error of a handshake or a handler.
    ///
    /// By default, the server counts errors
    /// ([`ServerCounters::failed`](crate::ServerCounters::failed)) and logs them if the feature
    /// `tracing` is enabled.
    ///
    /// ```
    /// use lineframe::Server;
    ///
    /// let server = Server::builder().on_error(|peer, error| eprintln!("{peer}: {error}")).build();
    /// ```
    pub fn on_error(mut self, report: impl Fn(Peer, &io::Error) + Send + Sync + 'static) -> Self {
        self.0.on_error = Some(Arc::new(report));
        self
    }

    /// Returns the server.
    ///
    /// ```
    /// let server = lineframe::Server::builder().build();
    /// ```
    pub fn build(self) -> Server {
        Server(Arc::new(Shared::new(self.0)))
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").finish_non_exhaustive()
    }
}
