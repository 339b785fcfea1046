//! The log of the server, on stderr.
//!
//! A separate thread writes the records from a queue, so that serving never waits for the log. All
//! values are escaped.

mod queue;
mod record;

use std::io;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, ValueEnum};
use lineframe::{LineError, Peer, ServerCounters};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::{Subscriber, set_global_default};
use tracing::{Event, Level, Metadata, debug, enabled, error, info};

use self::queue::Queue;
use self::record::Record;
use crate::failure::Failure;
use crate::show;

/// Maximum number of bytes of a line that are logged.
pub(super) const MAX_SHOWN: usize = 1024;

/// Maximum wait for the log when the server exits.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// The target of records that are logged at every verbosity.
const ALWAYS: &str = "lineframe::always";

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(super) struct Options {
    /// Log the start and end of connections; -vv also logs received lines (escaped) and connections
    /// without data
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Format of the log on stderr; json writes one object per line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Options {
    /// Starts the log of this process.
    pub(super) fn start(&self) -> Result<Log, Failure> {
        let queue = Queue::start(self.log_format, io::stderr());
        let queue = queue.map_err(|error| Failure::other("cannot start the log", error))?;
        let level = match self.verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        };
        // Fails only if the process already has a subscriber.
        _ = set_global_default(Recorder { level, format: self.log_format, queue: Arc::clone(&queue) });
        // The default hook writes to stderr, which may block.
        panic::set_hook(Box::new(|panicked| error!(detail = %panicked, reason = "panic", "panic")));
        Ok(Log(queue))
    }
}

/// The log of this process.
pub(super) struct Log(Arc<Queue>);

impl Log {
    /// Logs the counters as the last record.
    pub(super) fn stopped(&self, all: &ServerCounters) {
        self.0.release();
        counters("stopped", all);
    }

    /// Writes the queued records and then the message of the failure. Gives up after `LAST_WRITE`
    /// if nobody reads stderr.
    pub(super) fn end(self, done: Result<(), Failure>) -> Result<(), Failure> {
        let done = done.map_err(|failure| {
            let (line, silent) = failure.into_line();
            self.0.push_line(&line);
            silent
        });
        self.0.end(LAST_WRITE);
        done
    }
}

/// Passes events to the queue. Ignores spans, because each event has a field `peer`.
struct Recorder {
    level: LevelFilter,
    format: Format,
    queue: Arc<Queue>,
}

impl Subscriber for Recorder {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        // Not `is_event()`: the metadata of `enabled!` is neither a span nor an event.
        !about.is_span()
            && (about.target() == ALWAYS
                || about.target().starts_with("lineframe") && *about.level() <= self.level)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.max(LevelFilter::INFO))
    }

    fn event(&self, event: &Event<'_>) {
        self.queue.push(Record::new(event, self.format));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Returns whether received lines are logged.
pub(super) fn shows_lines() -> bool {
    enabled!(Level::DEBUG)
}

/// Logs a received line at level DEBUG.
pub(super) fn received(peer: Peer, line: Result<&[u8], &LineError>) {
    if !shows_lines() {
        return;
    }
    match line {
        Ok(line) if line.len() > MAX_SHOWN => {
            debug!(%peer, bytes = line.len(), line = %show::escaped(&line[..MAX_SHOWN]), "received, truncated");
        }
        Ok(line) => debug!(%peer, line = %show::escaped(line), "received"),
        Err(bad) => debug!(%peer, %bad, "received"),
    }
}

/// Logs a line from the stderr of a child, at every verbosity.
pub(super) fn child_stderr(peer: Peer, line: &[u8]) {
    info!(target: ALWAYS, %peer, line = %show::escaped(line), "stderr of the command");
}

/// Logs the counters, at every verbosity.
pub(super) fn counters(message: &str, counters: &ServerCounters) {
    let if_any = |count: u64| (count > 0).then_some(count);
    info!(
        target: ALWAYS,
        accepted = counters.accepted,
        lines = counters.lines,
        bad_lines = counters.bad_lines,
        lines_written = counters.lines_written,
        bytes_read = counters.bytes_read,
        bytes_sent = counters.bytes_sent,
        accept_errors = if_any(counters.accept_errors),
        refused = if_any(counters.refused),
        failed = if_any(counters.failed),
        panicked = if_any(counters.panicked),
        aborted = if_any(counters.aborted),
        idle_timeouts = if_any(counters.idle_timeouts),
        line_timeouts = if_any(counters.line_timeouts),
        write_timeouts = if_any(counters.write_timeouts),
        "{message}"
    );
}
