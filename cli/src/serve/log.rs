//! What a server says of itself on stderr. Nothing in it steers a terminal: what clients send is escaped here, and the rest
//! of it is ours.

use std::time::SystemTime;
use std::{fmt, io};

use clap::ValueEnum;
use lineframe::{LineError, Peer, ServerCounters};
use tracing::{Level, Metadata, enabled, info};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::show;

/// Of a line, no more than this is shown.
const SHOWN: usize = 1024;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Log")]
pub(super) struct Options {
    /// Show what clients send, a line each with unprintable bytes escaped, and when connections end
    #[arg(short, long)]
    verbose: bool,

    /// How the log on stderr is written. json: an object a line
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Options {
    /// From here on, what happens is told.
    pub(super) fn start(&self) {
        let verbose = self.verbose;
        let is_told = filter_fn(move |about| is_told(about, verbose));
        // Where nobody reads stderr any more, there is nobody left to tell.
        let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
        let layer = layer.with_timer(Now).with_target(false);
        let layer = match self.log_format {
            Format::Text => layer.boxed(),
            Format::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
        };
        // It fails where it has been done before.
        _ = tracing_subscriber::registry().with(layer.with_filter(is_told)).try_init();
    }
}

/// What is told though nobody asked for it.
const ALWAYS: &str = "always";

/// What went wrong is told, and when asked for it what clients send and each connection's end. All of it names its peer, so
/// spans are of no use.
fn is_told(about: &Metadata<'_>, verbose: bool) -> bool {
    !about.is_span() && (verbose || *about.level() <= Level::WARN || about.target() == ALWAYS)
}

/// As RFC 3339 has it, to the millisecond.
struct Now;

impl FormatTime for Now {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        write!(to, "{}", humantime::format_rfc3339_millis(SystemTime::now()))
    }
}

/// Whether what clients send is told.
pub(super) fn shows_lines() -> bool {
    enabled!(Level::INFO)
}

/// A client has sent this.
pub(super) fn received(peer: Peer, line: Result<&[u8], &LineError>) {
    if !shows_lines() {
        return;
    }
    match line {
        Ok(line) if line.len() > SHOWN => {
            info!(%peer, bytes = line.len(), line = %show::escaped(&line[..SHOWN]), "received, the beginning");
        }
        Ok(line) => info!(%peer, line = %show::escaped(line), "received"),
        Err(bad) => info!(%peer, %bad, "received"),
    }
}

/// The counters: when they are asked for, and as the last thing that a server says.
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
