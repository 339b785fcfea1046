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

/// The default of `max_handshakes`. A TLS handshake takes about a millisecond of CPU time, so this
/// many delay each other by 64 ms.
const HANDSHAKES_PER_CORE: usize = 64;

/// Configures a [`Server`]. Created by [`Server::builder`]. For every limit and deadline, `None` is
/// no limit.
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

    /// Sets the delimiter and the limits of lines for all connections. Default: [`LineCodec::new`].
    pub fn codec(mut self, codec: LineCodec) -> Self {
        self.0.codec = codec;
        self
    }

    /// Sets how many connections there may be at the same time, over all listeners. Further ones
    /// wait in the backlogs of the listeners. Default: 10,000.
    pub fn max_connections(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections = n.into();
        self
    }

    /// Sets how many of them may come from one IP address. Further ones are closed immediately and
    /// counted as refused. Default: no limit.
    ///
    /// A connection counts under the address of its socket before the
    /// [handshake](Self::handshake), and under the one that the handshake reports after it.
    /// A connection [from a proxy](Accepted::from_trusted_proxy) counts only under the latter.
    /// IPv6 addresses count by [prefix](Self::per_ip_prefix), IPv4-mapped ones as IPv4.
    pub fn max_connections_per_ip(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections_per_ip = n.into();
        self
    }

    /// Sets how many leading bits of an IPv6 address `max_connections_per_ip` compares: 0 to 128,
    /// and more is 128. A subscriber usually has a whole /64. Default: 64.
    pub fn per_ip_prefix(mut self, bits: u8) -> Self {
        self.0.per_ip_prefix = bits.min(128);
        self
    }

    /// Sets how many [handshakes](Self::handshake) run at the same time. The others wait, and
    /// `handshake_timeout` does not count until they run. Default: 64 per core.
    pub fn max_handshakes(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_handshakes = n.into();
        self
    }

    /// Sets how many bad lines a connection may send in total. The next one is delivered, then the
    /// connection is closed. Default: 100.
    pub fn max_bad_lines(mut self, n: impl Into<Option<u64>>) -> Self {
        self.limits().max_bad_lines = n.into();
        self
    }

    /// Sets how many bytes of output may be unsent. Above that, a handler that writes more has to
    /// wait, and the connection is not read. Default: 64 KiB.
    pub fn max_unsent(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.limits().max_unsent = bytes.into().unwrap_or(usize::MAX);
        self
    }

    /// Sets how long a peer may take to begin a line. Default: 5 minutes.
    pub fn idle_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().idle_timeout = after.into();
        self
    }

    /// Sets how long a line may take from its first byte to its last, however slowly it arrives.
    /// Default: 30 s.
    pub fn line_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().line_timeout = after.into();
        self
    }

    /// Sets how long output may wait until the peer takes any of it. Default: 30 s.
    pub fn write_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().write_timeout = after.into();
        self
    }

    /// Sets how long the [handshake](Self::handshake) may take. During a drain it may take 1 s more.
    /// Default: 10 s.
    pub fn handshake_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.handshake_timeout = after.into();
        self
    }

    /// Sets how long connections may take to end once the server is asked to stop. Those still open
    /// are then aborted. Default: 10 s.
    pub fn drain_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.drain_timeout = after.into();
        self
    }

    /// Sets how long, after the last reply and the end of the stream, bytes that a peer still sends
    /// are read and dropped. Closing earlier would reset the connection, which may destroy replies
    /// that the peer has not read. Default: 2 s.
    pub fn linger_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.linger_timeout = after.into();
        self
    }

    /// Sets `TCP_NODELAY`. Without it, a reply can wait 40 ms for the acknowledgement of the one
    /// before. Default: on.
    pub fn tcp_nodelay(mut self, yes: bool) -> Self {
        self.0.tcp_nodelay = yes;
        self
    }

    /// Sets when the system asks a silent TCP peer whether it is still there; `None`: never.
    /// Default: [`Keepalive::new`].
    ///
    /// If bytes that were sent are not acknowledged, the system closes the connection after 90 s or
    /// `write_timeout`, whichever is longer (`TCP_USER_TIMEOUT`, on Linux and Android), unless
    /// there is no `write_timeout`.
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.0.keepalive = keepalive.into();
        self
    }

    /// Sets whether a peer that speaks HTTP or TLS gets one error line and is closed before any of
    /// it is taken for lines. A web page can make a browser send such a request to any port
    /// (cross-protocol requests). For protocols in which the peer speaks first and no line is
    /// `METHOD target HTTP/1.1`. Default: off.
    pub fn refuse_http_and_tls(mut self, yes: bool) -> Self {
        self.limits().refuse_http_and_tls = yes;
        self
    }

    /// Sets what happens between accepting a connection and its handler: a TLS handshake, a PROXY
    /// header. It runs in the connection's own task, counts against the limits, and has a deadline.
    /// It is cloned for each connection. Wrap the [`AnyIo`](crate::AnyIo), not the socket taken out
    /// of it: a drain asks the system, through the `AnyIo`, what it has received.
    pub fn handshake<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Accepted) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Accepted>> + Send + 'static,
    {
        self.0.handshake = Some(Arc::new(move |accepted| Box::pin(hook.clone()(accepted))));
        self
    }

    /// Sets a function that is called with every error that a handshake or a handler returns.
    /// Without one, errors are counted ([`ServerCounters::failed`](crate::ServerCounters::failed))
    /// and, with the feature `tracing`, logged.
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

    /// Creates the server.
    pub fn build(self) -> Server {
        Server(Arc::new(Shared::new(self.0)))
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").finish_non_exhaustive()
    }
}
