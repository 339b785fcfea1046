use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What has gone through all connections of a server: each adds what is new whenever it reads or writes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) lines: Total,
    pub(crate) bad_lines: Total,
    pub(crate) bytes_read: Total,
    pub(crate) skipped_bytes: Total,
    pub(crate) lines_written: Total,
    pub(crate) bytes_sent: Total,
}

#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

/// The lower half of a count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported(u32);

impl Total {
    #[cfg(feature = "server")]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// One connection's part of it is `count` now, and was `reported` at the last read or write, which is much less than
    /// 2 GiB ago.
    pub(super) fn report(&self, Reported(reported): &mut Reported, count: u64) {
        let now = count as u32;
        if *reported != now {
            // It falls where lines are put back.
            let grown = now.wrapping_sub(*reported) as i32;
            self.0.fetch_add(i64::from(grown) as u64, Relaxed);
            *reported = now;
        }
    }
}
