//! The clock of a run: nanoseconds since its start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::units::later;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(super) fn now(self) -> u64 {
        nanoseconds(self.0.elapsed())
    }

    pub(super) fn instant(self, at: u64) -> tokio::time::Instant {
        later(self.0.into(), Duration::from_nanos(at))
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Time at which sending stops. Can be brought forward by a signal.
#[derive(Clone, Debug)]
pub(super) struct Deadline(Arc<AtomicU64>);

impl Deadline {
    pub(super) fn new(at: u64) -> Self {
        Self(Arc::new(AtomicU64::new(at)))
    }

    pub(super) fn at(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn bring_forward(&self, to: u64) {
        self.0.fetch_min(to, Relaxed);
    }
}
