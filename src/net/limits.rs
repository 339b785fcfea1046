use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Deadlines and limits of a connection. Each side of a connection has an `Arc` of them, shared by
/// the whole server until a setter of that side changes it.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) line_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    /// The connection ends after more bad lines than this.
    pub(crate) max_bad_lines: Option<u64>,
    /// Bytes. `usize::MAX`: no limit.
    pub(crate) max_unsent: usize,
    pub(crate) refuse_http_and_tls: bool,
    /// The server's.
    pub(crate) totals: Option<Arc<Totals>>,
}

/// What a server counts.
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
    /// The last one: its number is the size of [`Totals`].
    BytesSent,
}

/// Sums over all connections of a server. Each connection adds what is new at every read and write.
#[derive(Debug, Default)]
pub(crate) struct Totals([AtomicU64; Total::BytesSent as usize + 1]);

impl Limits {
    /// Limits of a connection outside a server: 64 KiB unsent, nothing else.
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

    /// Adds what one connection has counted since the last report. `reported` is the low half of
    /// its count then; counts change by less than 2^31 between two reports.
    pub(super) fn report(&self, total: Total, reported: &mut u32, count: u64) {
        let count = count as u32;
        if *reported != count {
            // Negative after lines were put back.
            let difference = count.wrapping_sub(*reported) as i32;
            self.add(total, i64::from(difference) as u64);
            *reported = count;
        }
    }
}
