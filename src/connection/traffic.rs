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

/// What has been added of one connection: the last 32 bits of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reported(u32);

impl Total {
    #[cfg(feature = "server")]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// One connection's part of it is `count` now, and was `reported` at the last read or write: it was less than 2^31 away then.
    pub(super) fn report(&self, Reported(reported): &mut Reported, count: u64) {
        let count = count as u32;
        if *reported != count {
            // It falls where lines are put back.
            let difference = count.wrapping_sub(*reported) as i32;
            self.0.fetch_add(i64::from(difference) as u64, Relaxed);
            *reported = count;
        }
    }
}
