use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Deadlines and limits of a connection. Each side of a connection has an `Arc` of them. All
/// connections of a server share one value until a setter changes a side's copy.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) line_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    /// Maximum number of bad lines before the connection ends.
    pub(crate) max_bad_lines: Option<u64>,
    /// Maximum number of unsent bytes. `usize::MAX` means no limit.
    pub(crate) max_unsent: usize,
    pub(crate) refuse_http_and_tls: bool,
    /// The totals of the server, if the connection belongs to one.
    pub(crate) totals: Option<Arc<Totals>>,
}

/// The counters of a server.
#[derive(Clone, Copy)]
pub(crate) enum Total {
    Accepted,
    Open,
    AcceptErrors,
    Refused,
    Failed,
    Panicked,
    Aborted,
    IdleTimeouts,
    LineTimeouts,
    WriteTimeouts,
    HandshakeTimeouts,
    Lines,
    BadLines,
    BytesRead,
    SkippedBytes,
    LinesWritten,
    /// Must be the last variant, because it defines the size of [`Totals`].
    BytesSent,
}

/// Sums over all connections of a server. Each connection adds its new counts on every read and
/// write.
#[derive(Debug, Default)]
pub(crate) struct Totals([AtomicU64; Total::BytesSent as usize + 1]);

impl Limits {
    /// Returns the limits of a connection outside a server: 64 KiB unsent, and no other limit.
    pub(crate) fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Limits>> = LazyLock::new(|| {
            Arc::new(Limits {
                idle_timeout: None,
                line_timeout: None,
                write_timeout: None,
                max_bad_lines: None,
                max_unsent: 64 * 1024,
                refuse_http_and_tls: false,
                totals: None,
            })
        });
        Arc::clone(&NONE)
    }
}

impl Totals {
    pub(crate) fn get(&self, total: Total) -> u64 {
        self.0[total as usize].load(Relaxed)
    }

    pub(crate) fn add(&self, total: Total, count: u64) {
        self.0[total as usize].fetch_add(count, Relaxed);
    }

    pub(crate) fn subtract(&self, total: Total, count: u64) {
        self.0[total as usize].fetch_sub(count, Relaxed);
    }

    /// Adds the count of one connection since its last report. `reported` is the low half of the
    /// count at that report. A count changes by less than 2^31 between two reports.
    pub(super) fn report(&self, total: Total, reported: &mut u32, count: u64) {
        let count = count as u32;
        if *reported != count {
            // The difference is negative after lines were put back.
            let difference = count.wrapping_sub(*reported) as i32;
            self.add(total, i64::from(difference) as u64);
            *reported = count;
        }
    }
}
