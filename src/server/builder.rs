use std::boxed::Box;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Accepted, Config, Server};
use crate::codec::LineCodec;
use crate::connection::Limits;

/// Configures a [`Server`]. Made by [`Server::builder`]. Where a limit takes a `Duration` or a number or `None`, `None` is no
/// limit.
#[must_use]
pub struct ServerBuilder(Config);

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self(Config {
            codec: LineCodec::new(),
            max_connections: 10_000,
            max_connections_per_ip: None,
            limits: Arc::new(Limits {
                idle_timeout: Some(Duration::from_secs(5 * 60)),
                line_timeout: Some(Duration::from_secs(30)),
                write_timeout: Some(Duration::from_secs(30)),
                max_bad_lines: Some(100),
                max_unsent: 64 * 1024,
                refuse_http_and_tls: false,
                traffic: None,
            }),
            handshake_timeout: Some(Duration::from_secs(10)),
            drain_timeout: Some(Duration::from_secs(10)),
            linger_timeout: Duration::from_secs(2),
            tcp_nodelay: true,
            handshake: None,
        })
    }

    fn limits(&mut self) -> &mut Limits {
        Arc::make_mut(&mut self.0.limits)
    }

    /// The delimiter and the limits of lines, for all connections. Default: [`LineCodec::new`].
    pub fn codec(mut self, codec: LineCodec) -> Self {
        self.0.codec = codec;
        self
    }

    /// How many connections there are at once, over all listeners. Further ones wait in the listeners' backlogs. Default:
    /// 10,000.
    pub fn max_connections(mut self, n: usize) -> Self {
        self.0.max_connections = n;
        self
    }

    /// How many of them may be from one IP address, after the handshake has said which that is. Further ones are closed at
    /// once, and counted as refused. Default: no limit.
    pub fn max_connections_per_ip(mut self, n: impl Into<Option<usize>>) -> Self {
        self.0.max_connections_per_ip = n.into();
        self
    }

    /// How many bad lines a connection may have in total. The next one is handed over too, and ends it. Default: 100.
    pub fn max_bad_lines(mut self, n: impl Into<Option<u64>>) -> Self {
        self.limits().max_bad_lines = n.into();
        self
    }

    /// How many bytes of replies may be unsent before a handler that writes more has to wait, and the connection is no longer
    /// read. Default: 64 KiB.
    pub fn max_unsent(mut self, bytes: usize) -> Self {
        self.limits().max_unsent = bytes;
        self
    }

    /// How long a peer may take to begin a line. Default: 5 minutes.
    pub fn idle_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().idle_timeout = after.into();
        self
    }

    /// How long a line may take from its first byte to its last, however it drips. Default: 30 s.
    pub fn line_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().line_timeout = after.into();
        self
    }

    /// How long replies may wait for the peer to take them. Default: 30 s.
    pub fn write_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.limits().write_timeout = after.into();
        self
    }

    /// How long the [handshake](Self::handshake) may take. Default: 10 s.
    pub fn handshake_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.handshake_timeout = after.into();
        self
    }

    /// How long connections may take to end once the server is asked to stop. Those that are left are aborted. Default: 10 s.
    pub fn drain_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.0.drain_timeout = after.into();
        self
    }

    /// How long, after the last reply and the end of the stream, what a peer still sends is read and dropped. Closing before
    /// would reset the connection and might destroy replies that the peer has not read. Default: 2 s.
    pub fn linger_timeout(mut self, after: Duration) -> Self {
        self.0.linger_timeout = after;
        self
    }

    /// `TCP_NODELAY`: without it a reply can wait 40 ms for the acknowledgement of the one before. Default: on.
    pub fn tcp_nodelay(mut self, yes: bool) -> Self {
        self.0.tcp_nodelay = yes;
        self
    }

    /// Whether a peer that speaks HTTP or TLS gets one error line and is closed before any of it is taken for lines. A browser
    /// can be made to send such a request to any port (cross-protocol requests). For protocols in which the peer speaks first
    /// and a line is never `METHOD target HTTP/1.1`. Default: off.
    pub fn refuse_http_and_tls(mut self, yes: bool) -> Self {
        self.limits().refuse_http_and_tls = yes;
        self
    }

    /// What happens between accepting a connection and its handler: a TLS handshake, a PROXY header. It runs in the
    /// connection's own task, counts against the caps, and is under a deadline. Cloned for each connection. Wrap the [`AnyIo`](crate::AnyIo)
    /// and not the socket taken out of it, which a drain could not ask for what the system has received.
    pub fn handshake<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Accepted) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = io::Result<Accepted>> + Send + 'static,
    {
        self.0.handshake = Some(Arc::new(move |accepted| Box::pin(hook.clone()(accepted))));
        self
    }

    /// The server.
    pub fn build(self) -> Server {
        Server::from_config(self.0)
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").finish_non_exhaustive()
    }
}
