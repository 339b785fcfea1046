use std::{fmt, io};

use crate::error::Escaped;
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
    Refused,
    Panicked,
    TimedOut(TimeoutKind),
}

impl From<io::Result<()>> for Outcome {
    fn from(handled: io::Result<()>) -> Self {
        match handled.map_err(Error::from) {
            Ok(()) => Self::Done,
            Err(Error::NotLines) => Self::Refused,
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
            Self::Refused => Total::Refused,
            Self::Panicked => Total::Panicked,
            Self::TimedOut(TimeoutKind::Idle) => Total::IdleTimeouts,
            Self::TimedOut(TimeoutKind::Line) => Total::LineTimeouts,
            Self::TimedOut(TimeoutKind::Write) => Total::WriteTimeouts,
            // A server makes no connections.
            Self::TimedOut(TimeoutKind::Handshake | TimeoutKind::Connect) => Total::HandshakeTimeouts,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "{}", Escaped(error)),
            Self::Refused => f.write_str("refused"),
            Self::Panicked => f.write_str("its handler panicked"),
            Self::TimedOut(timeout) => write!(f, "{timeout}"),
        }
    }
}
