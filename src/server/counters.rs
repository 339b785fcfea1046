use std::io;

use crate::net::{Error, TimeoutKind, Total, Totals};

/// What a [`Server`](crate::Server) has done so far. Open connections are included as they were at
/// their last read or write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that are open now, including those in a handshake and those whose handler has
    /// returned but that are not closed yet.
    pub open: u64,
    /// Errors of `accept`.
    pub accept_errors: u64,
    /// Connections refused: over `max_connections_per_ip`, or the peer spoke HTTP or TLS.
    pub refused: u64,
    /// Connections whose handshake or handler returned an error.
    pub failed: u64,
    /// Handlers and handshakes that panicked.
    pub panicked: u64,
    /// Connections closed at the end of a drain, or because the server's future was dropped, before
    /// all their replies were sent.
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
    /// Bytes read, handed out or not.
    pub bytes_read: u64,
    /// Bytes of them that were skipped.
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

/// How a connection of a server ended.
pub(super) enum Outcome {
    Done,
    Failed(io::Error),
    /// Over `max_connections_per_ip`.
    Refused,
    /// The peer sent HTTP or TLS.
    NotLines,
    Panicked,
    TimedOut(TimeoutKind),
    /// Closed by the end of a drain, or because the server's future was dropped.
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
    /// Where it is counted.
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
            // A server makes no connections.
            Self::TimedOut(TimeoutKind::Handshake | TimeoutKind::Connect) => Total::HandshakeTimeouts,
        })
    }
}

#[cfg(feature = "tracing")]
impl Outcome {
    /// A fixed word for the log. `None`: there was no fault.
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

    /// Whether the peer has reset the connection, or closed it before it read everything.
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
