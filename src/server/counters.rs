use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::ended::Ended;
use crate::codec::CodecCounters;
use crate::connection::{ConnectionCounters, Timeout};

/// What a [`Server`](crate::Server) has done so far. What went through a connection is added when the connection has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Errors of `accept`.
    pub accept_errors: u64,
    /// Connections refused: over `max_connections_per_ip`, HTTP or TLS at a line port.
    pub refused: u64,
    /// Connections whose handshake or handler gave an error.
    pub failed: u64,
    /// Handlers that panicked.
    pub panicked: u64,
    /// Connections cut by the end of a drain.
    pub aborted: u64,
    /// Connections cut by `idle_timeout`.
    pub idle_timeouts: u64,
    /// Connections cut by `line_timeout`.
    pub line_timeouts: u64,
    /// Connections cut by `write_timeout`.
    pub write_timeouts: u64,
    /// Connections cut by `handshake_timeout`.
    pub handshake_timeouts: u64,
    /// Good lines read.
    pub lines: u64,
    /// Bad lines read, of all kinds.
    pub bad_lines: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes of them that were skipped.
    pub skipped_bytes: u64,
    /// Lines written.
    pub lines_written: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

macro_rules! totals {
    ($($field:ident),*) => {
        /// [`Counters`] that all connections add to.
        #[derive(Debug, Default)]
        pub(super) struct Totals {
            $($field: AtomicU64,)*
        }

        impl Totals {
            pub(super) fn read(&self) -> Counters {
                Counters { $($field: self.$field.load(Relaxed),)* }
            }
        }
    };
}

totals!(
    accepted,
    accept_errors,
    refused,
    failed,
    panicked,
    aborted,
    idle_timeouts,
    line_timeouts,
    write_timeouts,
    handshake_timeouts,
    lines,
    bad_lines,
    bytes_read,
    skipped_bytes,
    lines_written,
    bytes_sent
);

impl Totals {
    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    pub(super) fn aborted(&self) {
        self.aborted.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self, ended: &Ended) {
        let total = match ended {
            Ended::Done => None,
            Ended::Failed(_) => Some(&self.failed),
            Ended::Refused => Some(&self.refused),
            Ended::Panicked => Some(&self.panicked),
            Ended::TimedOut(Timeout::Idle) => Some(&self.idle_timeouts),
            Ended::TimedOut(Timeout::Line) => Some(&self.line_timeouts),
            Ended::TimedOut(Timeout::Write) => Some(&self.write_timeouts),
            // A server connects to nobody.
            Ended::TimedOut(Timeout::Handshake | Timeout::Connect) => Some(&self.handshake_timeouts),
        };
        if let Some(total) = total {
            total.fetch_add(1, Relaxed);
        }
    }

    /// What went through a connection that is not the handler's any more.
    pub(super) fn count(&self, connection: ConnectionCounters) {
        let ConnectionCounters { read, lines_written, bytes_sent, .. } = connection;
        let CodecCounters { lines, content_bytes, terminator_bytes, skipped_bytes, .. } = read;
        for (total, count) in [
            (&self.lines, lines),
            (&self.bad_lines, read.bad_items()),
            (&self.bytes_read, content_bytes + terminator_bytes + skipped_bytes),
            (&self.skipped_bytes, skipped_bytes),
            (&self.lines_written, lines_written),
            (&self.bytes_sent, bytes_sent),
        ] {
            total.fetch_add(count, Relaxed);
        }
    }
}
