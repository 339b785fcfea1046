//! The queue of log lines and the thread that writes them.
//!
//! tracing-appender also writes from a thread. But it panics if the thread cannot start, prints its
//! own errors to stdout and stderr, and does not log how many records it lost.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Level;

use super::Format;
use super::record::Record;

/// Maximum number of queued bytes. The thread may hold as many again while it writes them.
const CAPACITY: usize = 1024 * 1024;

/// Period in which at most one record per reason and level is written. Applies to WARN and above.
const WINDOW: Duration = Duration::from_secs(1);

/// Pause before a retry if stderr is non-blocking and full.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    format: Format,
    /// At most `CAPACITY` bytes.
    waiting: Lines,
    /// Number of records that did not fit or could not be written, and are not reported yet.
    lost: u64,
    /// One window per reason and level. Reasons are fixed words, so there are few.
    windows: Vec<Window>,
    phase: Phase,
}

/// Lines to write, in order.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    each: Vec<Line>,
}

struct Line {
    /// End of the line in `bytes`, after its newline.
    end: usize,
    /// Number of records that the line represents: itself, and those it reports as suppressed or
    /// lost.
    stands_for: u64,
}

#[derive(PartialEq, Eq)]
enum Phase {
    Running,
    /// The thread ends when the queue is empty.
    Ending,
    Ended,
}

struct Window {
    level: Level,
    reason: String,
    /// Time at which the latest queued record was queued.
    since: Instant,
    /// Latest record received since then. It is queued when the window is over.
    held: Option<Record>,
}

impl Queue {
    /// Starts the thread that writes to `stream`.
    pub(super) fn start(format: Format, stream: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self { state: Mutex::new(State::new(format)), changed: Condvar::new() });
        let theirs = Arc::clone(&queue);
        // Never joined, because it may block forever if nobody reads the stream.
        thread::Builder::new().name("log".into()).spawn(move || theirs.write_all(stream))?;
        Ok(queue)
    }

    /// Queues or holds a record. Never waits for the stream.
    pub(super) fn push(&self, record: Record) {
        match record.level <= Level::WARN {
            true => self.lock().limit(record, Instant::now()),
            false => self.lock().push(record),
        }
        self.changed.notify_all();
    }

    /// Queues a line that is not a record.
    pub(super) fn push_line(&self, line: &str) {
        self.lock().push_line(line, 1);
        self.changed.notify_all();
    }

    /// Queues all held records.
    pub(super) fn release(&self) {
        self.lock().release(|_| true);
        self.changed.notify_all();
    }

    /// Queues all held records, and waits until everything is written, for at most `limit`.
    pub(super) fn end(&self, limit: Duration) {
        let mut state = self.lock();
        state.release(|_| true);
        state.report_lost();
        state.phase = Phase::Ending;
        self.changed.notify_all();
        drop(self.changed.wait_timeout_while(state, limit, |state| state.phase != Phase::Ended));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes queued lines until the queue is ended and empty.
    fn write_all(&self, mut stream: impl Write) {
        let mut writing = Lines::default();
        let mut is_cut = false;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state.release(|since| now.saturating_duration_since(since) >= WINDOW);
            if state.waiting.bytes.is_empty() {
                if state.phase != Phase::Running {
                    state.phase = Phase::Ended;
                    self.changed.notify_all();
                    return;
                }
                state = match state.next_release() {
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(at) => {
                        let limit = at.saturating_duration_since(now);
                        self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
                    }
                };
                continue;
            }
            std::mem::swap(&mut writing, &mut state.waiting);
            drop(state);
            let lost = writing.write(&mut stream, &mut is_cut);
            state = self.lock();
            match lost {
                0 => state.report_lost(),
                // Report the loss together with the next record.
                lost => state.lost += lost,
            }
        }
    }
}

impl State {
    fn new(format: Format) -> Self {
        let (waiting, windows) = (Lines::default(), Vec::new());
        Self { format, waiting, lost: 0, windows, phase: Phase::Running }
    }

    /// Queues the record, or holds it if a record of the same kind was queued in the last second.
    fn limit(&mut self, mut record: Record, now: Instant) {
        let of_kind = |window: &&mut Window| window.level == record.level && window.reason == record.reason;
        let Some(window) = self.windows.iter_mut().find(of_kind) else {
            let (level, reason) = (record.level, record.reason.clone());
            self.windows.push(Window { level, reason, since: now, held: None });
            return self.push(record);
        };
        if let Some(held) = window.held.take() {
            record.suppressed += held.suppressed + 1;
        }
        if now.saturating_duration_since(window.since) < WINDOW {
            window.held = Some(record);
        } else {
            window.since = now;
            self.push(record);
        }
    }

    /// Queues the records held by windows that are over.
    fn release(&mut self, is_over: impl Fn(Instant) -> bool) {
        let over = self.windows.iter_mut().filter(|window| is_over(window.since));
        let released: Vec<_> = over.filter_map(Window::release).collect();
        for record in released {
            self.push(record);
        }
    }

    fn next_release(&self) -> Option<Instant> {
        let held = self.windows.iter().filter(|window| window.held.is_some());
        held.filter_map(|window| window.since.checked_add(WINDOW)).min()
    }

    fn push(&mut self, record: Record) {
        let stands_for = 1 + record.suppressed;
        self.push_line(&record.into_line(), stands_for);
    }

    fn push_line(&mut self, line: &str, stands_for: u64) {
        // Lost records are older than this line, so report them first.
        self.report_lost();
        match self.lost == 0 && self.waiting.has_space(line) {
            true => self.waiting.push(line, stands_for),
            false => self.lost += stands_for,
        }
    }

    fn report_lost(&mut self) {
        if self.lost > 0 {
            let line = Record::of_lost(self.lost, self.format).into_line();
            if self.waiting.has_space(&line) {
                self.waiting.push(&line, self.lost);
                self.lost = 0;
            }
        }
    }
}

impl Lines {
    fn has_space(&self, line: &str) -> bool {
        self.bytes.len() + line.len() <= CAPACITY
    }

    fn push(&mut self, line: &str, stands_for: u64) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.each.push(Line { end: self.bytes.len(), stands_for });
    }

    /// Writes and removes all lines, and returns the number of lost records. If `is_cut`, the
    /// previous write ended within a line, and a newline is written first.
    fn write(&mut self, stream: &mut impl Write, is_cut: &mut bool) -> u64 {
        let mut written = 0;
        if !*is_cut || write_all(stream, b"\n") == 1 {
            written = write_all(stream, &self.bytes);
            *is_cut = !matches!(self.bytes[..written], [] | [.., b'\n']);
        }
        self.bytes.clear();
        // A line that lacks only its newline is not lost: the next write adds the newline.
        let lost = self.each.drain(..).filter(|line| line.end > written + 1);
        lost.map(|line| line.stands_for).sum()
    }
}

impl Window {
    fn release(&mut self) -> Option<Record> {
        let held = self.held.take()?;
        self.since = Instant::now();
        Some(held)
    }
}

/// Writes all bytes unless writing fails. Returns the number of bytes written.
fn write_all(stream: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest @ [_, ..]) = bytes.get(written..) {
        match stream.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    written.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts `takes[0]` bytes, then fails once, and so on; after the last failure accepts
    /// everything. Queues another line at each failure.
    struct Full {
        takes: Vec<usize>,
        taken: Vec<u8>,
        queue: Arc<Queue>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.takes.first_mut() {
                None => bytes.len(),
                Some(0) => {
                    self.takes.remove(0);
                    self.queue.push_line("{\"n\":2}\n");
                    return Err(ErrorKind::StorageFull.into());
                }
                Some(left) => {
                    let count = bytes.len().min(*left);
                    *left -= count;
                    count
                }
            };
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the log if writing fails after each of `takes`, and the number of queued records.
    fn written(takes: &[usize]) -> (String, u64) {
        let state = State { lost: 5, phase: Phase::Ending, ..State::new(Format::Json) };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        queue.push_line("{\"n\":1}\n");
        queue.lock().push_line("{\"suppressed\":3}\n", 4);
        queue.push_line("{\"n\":1}\n");
        let mut stream = Full { takes: takes.into(), taken: Vec::new(), queue: Arc::clone(&queue) };
        queue.write_all(&mut stream);
        let failures = takes.len() - stream.takes.len();
        (String::from_utf8(stream.taken).unwrap(), 5 + 6 + failures as u64)
    }

    #[test]
    fn lost_records_are_counted_after_failed_writes() {
        let longest = written(&[]).0.len();
        for first in 0..longest {
            for second in 0..longest {
                let (log, pushed) = written(&[first, second]);
                let objects: Vec<serde_json::Value> = log.lines().flat_map(serde_json::from_str).collect();
                assert!(log.lines().count() <= objects.len() + 2, "{log}");
                let count = |object: &serde_json::Value| match object["lost"].as_u64() {
                    Some(lost) => lost,
                    None => 1 + object["suppressed"].as_u64().unwrap_or(0),
                };
                let counted: u64 = objects.iter().map(count).sum();
                assert_eq!(counted, pushed, "{first}, {second}: {log}");
            }
        }
    }
}
