use core::time::Duration;

use super::Client;
use crate::LineCodec;
use crate::net::Keepalive;

/// A builder for a [`Client`], returned by [`Client::builder`]. Requires the feature `net`.
///
/// ```
/// use lineframe::{Client, Delimiter, LineCodec};
/// use std::time::Duration;
///
/// let smtp = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(998).build();
/// let timeout = Duration::from_secs(3);
/// let client = Client::builder().codec(smtp).connect_timeout(timeout).retry(5).build();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    pub(super) client: Client,
}

impl ClientBuilder {
    /// Sets the codec that reads and writes lines. Each connection starts with a fresh copy.
    /// Default: [`LineCodec::new`].
    ///
    /// ```
    /// use lineframe::{Client, LineCodec};
    ///
    /// let codec = LineCodec::builder().max_length(1024).build();
    /// let client = Client::builder().codec(codec).build();
    /// ```
    pub fn codec(mut self, codec: LineCodec) -> Self {
        self.client.codec = codec;
        self
    }

    /// Sets how long one round of attempts may take, including the name lookup. Default: 10 s.
    /// `None` means the timeout of the system, which is minutes for an address that does not
    /// answer.
    ///
    /// The addresses that are left share the remaining time equally, so a silent address does not
    /// use up the time of the next one. A lookup that times out continues in its own thread.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let client = lineframe::Client::builder().connect_timeout(Duration::from_secs(3)).build();
    /// ```
    pub fn connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.client.connect_timeout = timeout.into();
        self
    }

    /// Sets how many more rounds of attempts follow a failed one. Default: 0.
    ///
    /// The client pauses for 100 ms before the first of these rounds. Each further pause is twice
    /// as long, up to 5 s. Each round looks up the name again and has its own
    /// [`connect_timeout`](Self::connect_timeout).
    ///
    /// Only temporary errors are retried: connection refused, reset or aborted, timeout, host or
    /// network unreachable, unknown host name, and a Unix socket that does not exist yet. Permanent
    /// errors, such as a lack of permission or an invalid address, are returned immediately.
    ///
    /// A connection that breaks later is not opened again.
    ///
    /// ```
    /// let client = lineframe::Client::builder().retry(5).build();
    /// ```
    pub fn retry(mut self, further_rounds: u32) -> Self {
        self.client.retry = further_rounds;
        self
    }

    /// Sets when the system probes an idle TCP connection for a server that has vanished. `None`
    /// disables the probes. Default: [`Keepalive::new`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use lineframe::{Client, Keepalive};
    ///
    /// let keepalive = Keepalive::new().idle(Duration::from_secs(30));
    /// let client = Client::builder().keepalive(keepalive).build();
    /// ```
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.client.keepalive = keepalive.into();
        self
    }

    /// Returns the client.
    ///
    /// ```
    /// let client = lineframe::Client::builder().build();
    /// ```
    pub fn build(self) -> Client {
        self.client
    }
}
