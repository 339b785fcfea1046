//! What is measured: latencies, by how long they were and by when they were.

use hdrhistogram::Histogram;

/// Of latencies in nanoseconds, to three digits.
pub(super) type Latencies = Histogram<u64>;

/// An hour: what takes longer is counted as that.
const LONGEST: u64 = 3_600_000_000_000;

/// What a thread has seen of the measured part of a run.
pub(super) struct Measure {
    /// From when a line was sent.
    pub(super) raw: Latencies,
    /// From when it should have been sent. In a closed loop that is the same.
    pub(super) intended: Latencies,
    pub(super) series: Series,
    /// Replies to lines of the measured part.
    pub(super) replies: u64,
    /// How many of them each connection had that has ended.
    pub(super) of_connections: Vec<u64>,
    /// When the last of them came.
    pub(super) last: u64,
}

/// Lines that were sent together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) intended: u64,
    pub(super) sent: u64,
    pub(super) count: u64,
}

impl Measure {
    /// `start` is when the measured part begins.
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

    /// The lines of `run` were answered `now`. Those that were sent in the warm-up do not count.
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
        // Both have the same bounds, so that nothing can be out of them.
        _ = self.raw.add(&other.raw);
        _ = self.intended.add(&other.intended);
        self.series.add(other.series);
        self.replies += other.replies;
        self.of_connections.extend(other.of_connections);
        self.last = self.last.max(other.last);
    }
}

fn latencies() -> Latencies {
    // Lowest, highest and digits are within what the crate takes.
    Latencies::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Latencies in the order of time: slots of equal width, as many as a picture has room for.
pub(super) struct Series {
    /// When the first slot begins.
    pub(super) start: u64,
    /// Of a slot, in nanoseconds. Doubles whenever the slots no longer suffice.
    pub(super) width: u64,
    pub(super) slots: Vec<Slot>,
}

pub(super) struct Slot {
    /// Of the lines that were to be sent in it.
    pub(super) latencies: Histogram<u32>,
    /// That came in it.
    pub(super) replies: u64,
}

const FIRST_WIDTH: u64 = 10_000_000;
const MOST_SLOTS: usize = 400;

impl Series {
    fn new(start: u64) -> Self {
        Self { start, width: FIRST_WIDTH, slots: Vec::new() }
    }

    #[inline]
    fn record(&mut self, run: Run, now: u64, latency: u64) {
        // The later one first: it may make the slots wider.
        self.slot(now).replies += run.count;
        // It grows with what it is given, up to that.
        _ = self.slot(run.intended).latencies.record_n(latency.min(LONGEST), clamp(run.count));
    }

    #[inline]
    fn slot(&mut self, at: u64) -> &mut Slot {
        let mut nth = (at.saturating_sub(self.start) / self.width) as usize;
        while nth >= MOST_SLOTS {
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
