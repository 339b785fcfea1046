//! What waits for the thread that writes the log.
//!
//! tracing-appender has such a thread too. It panics if it cannot start it, reports its own errors
//! on stdout and stderr, and does not log how many records it lost.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Level;

use super::Format;
use super::record::Record;

/// How many bytes may wait. As many may be being written.
const CAPACITY: usize = 1024 * 1024;

/// In this time at most one record of each reason and level is written, from WARN on.
const WINDOW: Duration = Duration::from_secs(1);

/// The pause before the next attempt if somebody has made stderr non-blocking.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    format: Format,
    /// Lines to be written, at most `CAPACITY` bytes.
    waiting: Vec<u8>,
    /// How many lines these are.
    lines: u64,
    /// Records that did not fit or could not be written, and are not reported yet.
    lost: u64,
    /// One for each reason and level. Reasons are fixed words, so there are few.
    windows: Vec<Window>,
    phase: Phase,
}

#[derive(PartialEq, Eq)]
enum Phase {
    Running,
    /// The thread ends when nothing is left to write.
    Ending,
    Ended,
}

struct Window {
    level: Level,
    reason: String,
    /// When the last record was queued.
    since: Instant,
    /// The last record after that one. It is queued when the window is over.
    held: Option<Record>,
}

impl Queue {
    /// Starts the thread that writes the records to `stream`.
    pub(super) fn start(format: Format, stream: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self { state: Mutex::new(State::new(format)), changed: Condvar::new() });
        let theirs = Arc::clone(&queue);
        // Never joined: it may wait for ever for a reader of the stream.
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

    /// Queues a line that is no record.
    pub(super) fn push_line(&self, line: &str) {
        self.lock().push_line(line, 1);
        self.changed.notify_all();
    }

    /// Queues what is held, and waits until everything is written, for at most `limit`.
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

    /// Writes what is queued, until the end.
    fn write_all(&self, mut stream: impl Write) {
        let mut writing = Vec::new();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state.release(|since| now.saturating_duration_since(since) >= WINDOW);
            if state.waiting.is_empty() {
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
            let lines = std::mem::take(&mut state.lines);
            drop(state);
            let written = write_whole(&mut stream, &writing);
            writing.clear();
            state = self.lock();
            match written {
                Ok(()) => state.report_lost(),
                // Reported with the next record.
                Err(_) => state.lost += lines,
            }
        }
    }
}

impl State {
    fn new(format: Format) -> Self {
        let (waiting, windows) = (Vec::new(), Vec::new());
        Self { format, waiting, lines: 0, lost: 0, windows, phase: Phase::Running }
    }

    /// Queues the record, or holds it if another of its kind was queued in the last second.
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

    /// Queues what is held by the windows that are over.
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
        // Before this line, since they came before it.
        self.report_lost();
        match self.lost == 0 && self.waiting.len() + line.len() <= CAPACITY {
            true => self.append(line),
            false => self.lost += stands_for,
        }
    }

    fn report_lost(&mut self) {
        if self.lost > 0 {
            let line = Record::of_lost(self.lost, self.format).into_line();
            if self.waiting.len() + line.len() <= CAPACITY {
                self.append(&line);
                self.lost = 0;
            }
        }
    }

    fn append(&mut self, line: &str) {
        self.waiting.extend_from_slice(line.as_bytes());
        self.lines += 1;
    }
}

impl Window {
    fn release(&mut self) -> Option<Record> {
        let held = self.held.take()?;
        self.since = Instant::now();
        Some(held)
    }
}

fn write_whole(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
