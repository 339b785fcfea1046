use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::ended::Ended;
use crate::connection::{Timeout, Traffic};

/// What a [`Server`](crate::Server) has done so far, live connections included as they were at their last read or write.
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
    /// Handlers and handshakes that panicked.
    pub panicked: u64,
    /// Connections cut by the end of a drain, or because the server's future was dropped, but for those whose replies had all been
    /// sent.
    pub aborted: u64,
    /// Connections cut by `idle_timeout`.
    pub idle_timeouts: u64,
    /// Connections cut by `line_timeout`.
    pub line_timeouts: u64,
    /// Connections cut by `write_timeout`.
    pub write_timeouts: u64,
    /// Connections cut by `handshake_timeout`.
    pub handshake_timeouts: u64,
    /// Good lines read. Where a function that [`reply`](crate::reply) or one of its kin was given panicked, those that had come together
    /// with the line are not counted.
    pub lines: u64,
    /// Bad lines read, of all kinds.
    pub bad_lines: u64,
    /// Bytes read, whether they were handed over or not.
    pub bytes_read: u64,
    /// Bytes of them that were skipped.
    pub skipped_bytes: u64,
    /// Lines written.
    pub lines_written: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

/// [`Counters`] that all connections add to.
#[derive(Debug, Default)]
pub(super) struct Totals {
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    aborted: AtomicU64,
    idle_timeouts: AtomicU64,
    line_timeouts: AtomicU64,
    write_timeouts: AtomicU64,
    handshake_timeouts: AtomicU64,
    pub(super) traffic: Arc<Traffic>,
}

impl Totals {
    pub(super) fn read(&self) -> Counters {
        let traffic = &self.traffic;
        Counters {
            accepted: self.accepted.load(Relaxed),
            accept_errors: self.accept_errors.load(Relaxed),
            refused: self.refused.load(Relaxed),
            failed: self.failed.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            aborted: self.aborted.load(Relaxed),
            idle_timeouts: self.idle_timeouts.load(Relaxed),
            line_timeouts: self.line_timeouts.load(Relaxed),
            write_timeouts: self.write_timeouts.load(Relaxed),
            handshake_timeouts: self.handshake_timeouts.load(Relaxed),
            lines: traffic.lines.get(),
            bad_lines: traffic.bad_lines.get(),
            bytes_read: traffic.bytes_read.get(),
            skipped_bytes: traffic.skipped_bytes.get(),
            lines_written: traffic.lines_written.get(),
            bytes_sent: traffic.bytes_sent.get(),
        }
    }

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
}
