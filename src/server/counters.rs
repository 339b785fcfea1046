use std::io;

use crate::net::{Error, TimeoutKind, Total, Totals};

/// The counters of a [`Server`](crate::Server), returned by
/// [`Server::counters`](crate::Server::counters). Requires the feature `net`.
///
/// They include open connections up to their last read or write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that are open now. This includes connections in a handshake, and connections
    /// that are not closed yet although their handler has returned.
    pub open: u64,
    /// Errors of `accept`.
    pub accept_errors: u64,
    /// Connections refused because of `max_connections_per_ip`, or because the peer spoke HTTP or
    /// TLS.
    pub refused: u64,
    /// Connections whose handshake or handler returned an error.
    pub failed: u64,
    /// Connections whose handshake or handler panicked.
    pub panicked: u64,
    /// Connections closed before all their replies were sent, by `drain_timeout` or because the
    /// server's future was dropped.
    pub aborted: u64,
    /// Connections closed by `idle_timeout`.
    pub idle_timeouts: u64,
    /// Connections closed by `line_timeout`.
    pub line_timeouts: u64,
    /// Connections closed by `write_timeout`.
    pub write_timeouts: u64,
    /// Connections closed by `handshake_timeout`.
    pub handshake_timeouts: u64,
    /// Good lines read.
    pub lines: u64,
    /// Bad lines read, of all kinds.
    pub bad_lines: u64,
    /// Bytes read from all streams, including those that no handler has received.
    pub bytes_read: u64,
    /// Bytes skipped, as part of `bytes_read`.
    pub skipped_bytes: u64,
    /// Lines written.
    pub lines_written: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

impl ServerCounters {
    pub(super) fn read(totals: &Totals) -> Self {
        Self {
            accepted: totals.get(Total::Accepted),
            open: totals.get(Total::Open),
            accept_errors: totals.get(Total::AcceptErrors),
            refused: totals.get(Total::Refused),
            failed: totals.get(Total::Failed),
            panicked: totals.get(Total::Panicked),
            aborted: totals.get(Total::Aborted),
            idle_timeouts: totals.get(Total::IdleTimeouts),
            line_timeouts: totals.get(Total::LineTimeouts),
            write_timeouts: totals.get(Total::WriteTimeouts),
            handshake_timeouts: totals.get(Total::HandshakeTimeouts),
            lines: totals.get(Total::Lines),
            bad_lines: totals.get(Total::BadLines),
            bytes_read: totals.get(Total::BytesRead),
            skipped_bytes: totals.get(Total::SkippedBytes),
            lines_written: totals.get(Total::LinesWritten),
            bytes_sent: totals.get(Total::BytesSent),
        }
    }
}

/// The outcome of a connection.
pub(super) enum Outcome {
    Done,
    Failed(io::Error),
    /// The connection exceeds `max_connections_per_ip`.
    Refused,
    /// The peer sent HTTP or TLS.
    NotLines,
    Panicked,
    TimedOut(TimeoutKind),
    /// Closed by `drain_timeout`, or because the server's future was dropped.
    Aborted,
}

impl From<io::Result<()>> for Outcome {
    fn from(handled: io::Result<()>) -> Self {
        match handled.map_err(Error::from) {
            Ok(()) => Self::Done,
            Err(Error::NotLines) => Self::NotLines,
            Err(error) => Self::Failed(error.into()),
        }
    }
}

impl Outcome {
    /// Returns the counter of this outcome.
    pub(super) fn total(&self) -> Option<Total> {
        Some(match self {
            Self::Done => return None,
            Self::Failed(_) => Total::Failed,
            Self::Refused | Self::NotLines => Total::Refused,
            Self::Panicked => Total::Panicked,
            Self::Aborted => Total::Aborted,
            Self::TimedOut(TimeoutKind::Idle) => Total::IdleTimeouts,
            Self::TimedOut(TimeoutKind::Line) => Total::LineTimeouts,
            Self::TimedOut(TimeoutKind::Write) => Total::WriteTimeouts,
            // `Connect` cannot occur in a server.
            Self::TimedOut(TimeoutKind::Handshake | TimeoutKind::Connect) => Total::HandshakeTimeouts,
        })
    }
}

#[cfg(feature = "tracing")]
impl Outcome {
    /// Returns a fixed word for the log, or `None` if there was no fault.
    pub(super) fn reason(&self) -> Option<&'static str> {
        Some(match self {
            Self::Done => return None,
            Self::Failed(error) => match error.get_ref().and_then(|error| error.downcast_ref()) {
                Some(Error::Timeout(timeout)) => timeout_reason(*timeout),
                Some(Error::TooManyBadLines) => "too_many_bad_lines",
                Some(_) => "handler",
                None if self.is_reset() => "reset",
                None if error.raw_os_error().is_some() => "io",
                None => "handler",
            },
            Self::Refused => "per_ip_limit",
            Self::NotLines => "http_or_tls",
            Self::Panicked => "panic",
            Self::TimedOut(timeout) => timeout_reason(*timeout),
            Self::Aborted => "aborted",
        })
    }

    /// Returns whether the peer has reset the connection, or has closed it before reading
    /// everything.
    pub(super) fn is_reset(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};

        matches!(self, Self::Failed(error)
            if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset))
    }
}

#[cfg(feature = "tracing")]
fn timeout_reason(timeout: TimeoutKind) -> &'static str {
    match timeout {
        TimeoutKind::Idle => "idle_timeout",
        TimeoutKind::Line => "line_timeout",
        TimeoutKind::Write => "write_timeout",
        TimeoutKind::Handshake => "handshake_timeout",
        TimeoutKind::Connect => "connect_timeout",
    }
}
