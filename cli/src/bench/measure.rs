//! Latencies as a distribution and over time.

use hdrhistogram::Histogram;

/// Histogram of latencies in nanoseconds, with three significant digits.
pub(super) type Latencies = Histogram<u64>;

/// Longest recorded latency in nanoseconds: one hour. Longer latencies count as one hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Results of a thread during the measurement.
pub(super) struct Measure {
    /// Latencies from the time a line was sent.
    pub(super) raw: Latencies,
    /// Latencies from the time a line was due. In a closed loop, the same as `raw`.
    pub(super) intended: Latencies,
    pub(super) series: Series,
    /// Number of replies to measured lines.
    pub(super) replies: u64,
    /// Number of replies of each connection that has ended.
    pub(super) of_connections: Vec<u64>,
    /// Time of the last reply.
    pub(super) last: u64,
}

/// Lines sent at the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) intended: u64,
    pub(super) sent: u64,
    pub(super) count: u64,
}

impl Measure {
    /// Creates an empty measure that begins at `start`.
    pub(super) fn new(start: u64) -> Self {
        Self {
            raw: latencies(),
            intended: latencies(),
            series: Series::new(start),
            replies: 0,
            of_connections: Vec::new(),
            last: start,
        }
    }

    /// Records replies to the lines of `run`, received at `now`. Ignores lines sent in the warm-up.
    #[inline]
    pub(super) fn record(&mut self, run: Run, now: u64) {
        if run.sent < self.series.start {
            return;
        }
        self.raw.saturating_record_n(now.saturating_sub(run.sent), run.count);
        let latency = now.saturating_sub(run.intended);
        self.intended.saturating_record_n(latency, run.count);
        self.series.record(run, now, latency);
        self.replies += run.count;
        self.last = self.last.max(now);
    }

    pub(super) fn add(&mut self, other: Self) {
        // Cannot fail, because both histograms have the same bounds.
        _ = self.raw.add(&other.raw);
        _ = self.intended.add(&other.intended);
        self.series.add(other.series);
        self.replies += other.replies;
        self.of_connections.extend(other.of_connections);
        self.last = self.last.max(other.last);
    }
}

fn latencies() -> Latencies {
    // Cannot fail, because the arguments are valid for the crate.
    Latencies::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Latencies over time, in at most `MAX_SLOTS` slots of equal width.
pub(super) struct Series {
    /// Start of the first slot.
    pub(super) start: u64,
    /// Width of a slot in nanoseconds. Doubles when the slots no longer suffice.
    pub(super) width: u64,
    pub(super) slots: Vec<Slot>,
}

pub(super) struct Slot {
    /// Latencies of the lines that were due in the slot.
    pub(super) latencies: Histogram<u32>,
    /// Number of replies received in the slot.
    pub(super) replies: u64,
}

/// Initial width of a slot in nanoseconds.
const FIRST_WIDTH: u64 = 10_000_000;
const MAX_SLOTS: usize = 400;

impl Series {
    fn new(start: u64) -> Self {
        Self { start, width: FIRST_WIDTH, slots: Vec::new() }
    }

    #[inline]
    fn record(&mut self, run: Run, now: u64, latency: u64) {
        // The later slot first, because it may widen the slots.
        self.slot(now).replies += run.count;
        // Cannot fail, because the histogram resizes itself.
        _ = self.slot(run.intended).latencies.record_n(latency.min(LONGEST), clamp(run.count));
    }

    #[inline]
    fn slot(&mut self, at: u64) -> &mut Slot {
        let mut nth = (at.saturating_sub(self.start) / self.width) as usize;
        while nth >= MAX_SLOTS {
            self.widen();
            nth /= 2;
        }
        if nth >= self.slots.len() {
            self.slots.resize_with(nth + 1, Slot::new);
        }
        &mut self.slots[nth]
    }

    fn widen(&mut self) {
        let mut slots = std::mem::take(&mut self.slots).into_iter();
        while let Some(mut slot) = slots.next() {
            if let Some(next) = slots.next() {
                slot.add(&next);
            }
            self.slots.push(slot);
        }
        self.width *= 2;
    }

    fn add(&mut self, mut other: Self) {
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        if self.slots.len() < other.slots.len() {
            self.slots.resize_with(other.slots.len(), Slot::new);
        }
        for (slot, other) in self.slots.iter_mut().zip(&other.slots) {
            slot.add(other);
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new(2).unwrap_or_else(|error| unreachable!("{error}"));
        Self { latencies, replies: 0 }
    }

    pub(super) fn add(&mut self, other: &Self) {
        _ = self.latencies.add(&other.latencies);
        self.replies += other.replies;
    }
}

fn clamp(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}
