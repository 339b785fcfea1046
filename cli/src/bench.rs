//! The command `bench`: measures a server that sends one reply per line.

mod clock;
mod connection;
mod lines;
mod measure;
mod pace;
mod report;
mod server;
mod svg;
mod thread;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lineframe::scan::{Scanner, Unterminated};
use tokio::sync::oneshot::Receiver;
use tokio::sync::watch;

use crate::address::Address;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::signals::{Signal, Signals};
use crate::stream::Connecting;
use crate::{show, units};

use clock::{Clock, Deadline, nanoseconds};
use lines::{Lines, Reply};
use report::Report;
use server::ServerProcesses;
use thread::{Schedule, Task};

const EXAMPLES: &str = "\
Examples:
  lineframe bench 127.0.0.1:8083
      10 connections with one line in flight each, for 10 seconds
  lineframe bench --connections 100 --window 16 --length 1k ./some.sock
  lineframe bench --rate 5000 --svg latency.svg 127.0.0.1:8083
      5000 lines per second at fixed times, and a chart of the latencies";

/// Measure how fast a server replies to lines, and check every reply.
///
/// Without --rate, bench runs a closed loop: a connection sends its next line after a reply. With
/// --rate, it runs an open loop: each line is due at a fixed time, even if the server pauses.
///
/// The report shows raw latencies, measured from sending a line. It also shows corrected latencies.
/// In an open loop they are measured from the time a line was due. In a closed loop, lines that a
/// pause of the server kept from being sent are added.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Server: host:port, a path with a slash for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,

    /// Number of connections
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Maximum number of lines per connection that wait for replies
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,

    /// Length of a line, without its terminator
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64")]
    length: usize,

    /// Expected reply to each line
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Reply::Upper)]
    reply: Reply,

    /// Duration of the measurement [default: 10s, unless --count is given]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    duration: Option<Duration>,

    /// Stop after N measured lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Duration of the warm-up before the measurement
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "1s")]
    warm_up: Duration,

    /// Lines per second over all connections, sent at fixed times (open loop)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Number of threads that send lines
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: u32,

    /// Poll for replies instead of sleeping: otherwise the server spends CPU time waking the
    /// benchmark, which it would not do over a network
    #[arg(long)]
    busy_poll: bool,

    /// Fail a connection that waits this long for a reply
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "30s")]
    timeout: Duration,

    /// Process of the server, to measure its CPU time. Found automatically on a loopback address or
    /// a Unix socket
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Write a chart of the latencies by percentile and over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    #[command(flatten)]
    framing: Framing,

    #[command(flatten)]
    connecting: Connecting,
}

impl Arguments {
    fn duration(&self) -> Option<Duration> {
        self.duration.or(self.count.is_none().then_some(DURATION))
    }
}

const DURATION: Duration = Duration::from_secs(10);

pub(crate) async fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let mut warnings = Vec::new();
    if let Some(warning) = limit_connections(&mut arguments) {
        warn(&mut warnings, warning);
    }
    let task = task(&arguments)?;
    let picture = arguments.svg.as_deref().map(Picture::open).transpose()?;
    let (go, started) = watch::channel(None);
    let mut threads = Vec::with_capacity(task.threads);
    for number in 0..task.threads {
        threads.push(thread::start(task.clone(), number, started.clone())?);
    }
    let (connected, outcomes) = threads.into_iter().map(|thread| (thread.connected, thread.outcome)).unzip();
    let listening = tokio::select! {
        listening = all(connected) => listening?,
        _ = signals.next() => return Err(Failure::other("interrupted", "stopped before the measurement")),
    };
    let server = server(&arguments, listening);

    let clock = Clock::start();
    let measured_from = nanoseconds(arguments.warm_up);
    let planned = match arguments.duration() {
        None => LONGEST,
        Some(duration) => measured_from.saturating_add(nanoseconds(duration)).min(LONGEST),
    };
    let deadline = Deadline::new(planned);
    _ = go.send(Some(Schedule { clock, measured_from, deadline: deadline.clone() }));
    show::note(format_args!("{}", report::plan(&arguments)));

    let mut ending = std::pin::pin!(all(outcomes));
    // The server's CPU time at the start and at the end of the measurement.
    let (mut cpu_before, mut cpu_after) = (None, None);
    let mut next_sample = Some(measured_from);
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut ending => break outcomes?,
            () = tokio::time::sleep_until(clock.instant(next_sample.unwrap_or(0))), if next_sample.is_some() => {
                match next_sample {
                    Some(at) if at == measured_from => (cpu_before, next_sample) = (server.cpu(), Some(planned)),
                    _ => (cpu_after, next_sample) = (server.cpu(), None),
                }
            }
            signal = signals.next() => {
                if signal == Signal::Quit || deadline.at() <= clock.now() {
                    return Err(Failure::other("interrupted", "stopped without a report"));
                }
                deadline.bring_forward(clock.now());
            }
        }
    };
    let cpu_after = cpu_after.or_else(|| server.cpu());
    let server_cpu = cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    // The system counts CPU time in hundredths of a second, so shorter times are too imprecise.
    let server_cpu = server_cpu.filter(|cpu| *cpu >= Duration::from_millis(100));

    let end = if deadline.at() <= clock.now() { deadline.at() } else { 0 };
    let mut report = Report::new(&arguments, outcomes, &server, server_cpu, end);
    for warning in report.warnings() {
        warn(&mut warnings, warning);
    }
    report.warnings = warnings;
    let text = if arguments.json { report.json() } else { report.text() };
    // Write the report and the chart even if writing the other one fails.
    let printed = show::print_all(text.as_bytes());
    let drawn = picture.map_or(Ok(()), |picture| picture.write(&svg::draw(&report)));
    report.failure.map_or(Ok(()), Err).and(printed).and(drawn)
}

/// The file of `--svg`. Opened before the run, so that a bad path fails immediately.
struct Picture<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Picture<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        // Keep the old contents until the new chart is written.
        match File::options().write(true).create(true).truncate(false).open(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(cannot_write(path, error)),
        }
    }

    fn write(mut self, picture: &str) -> Result<(), Failure> {
        let written =
            self.file.write_all(picture.as_bytes()).and_then(|()| match self.file.metadata()?.is_file() {
                true => self.file.set_len(picture.len() as u64),
                false => Ok(()),
            });
        written.map_err(|error| cannot_write(self.path, error))
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::other(format_args!("cannot write {}", path.display()), error)
}

/// Longest run in nanoseconds: a year. Tokio's timers cover about two years.
const LONGEST: u64 = 365 * 24 * 3_600 * 1_000_000_000;

fn task(arguments: &Arguments) -> Result<Task, Failure> {
    let mut codec = arguments.framing.codec();
    let lines = Lines::new(&mut codec, arguments.length, arguments.reply)?;
    let connections = arguments.connections as usize;
    Ok(Task {
        server: arguments.address.clone(),
        connecting: arguments.connecting,
        connections,
        threads: connections.min(arguments.threads as usize),
        lines: Arc::new(lines),
        scanner: Scanner::new(codec.delimiter().clone(), codec.max_length(), Unterminated::Report),
        window: arguments.window.into(),
        rate: arguments.rate.map(|rate| rate as f64),
        count: arguments.count,
        timeout: arguments.timeout,
        busy_poll: arguments.busy_poll,
    })
}

/// Returns the values of all threads, or the first failure.
async fn all<T>(receivers: Vec<Receiver<Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    let mut all = Vec::with_capacity(receivers.len());
    for receiver in receivers {
        all.push(
            receiver.await.map_err(|_| Failure::other("internal error", "a thread ended unexpectedly"))??,
        );
    }
    Ok(all)
}

/// Returns the processes given by `--server-pid`, otherwise those found on this machine.
fn server(arguments: &Arguments, listening: Vec<Option<u32>>) -> ServerProcesses {
    ServerProcesses::new(match &arguments.address {
        _ if !arguments.server_pid.is_empty() => arguments.server_pid.clone(),
        Address::Tcp(address) => server::listening(address),
        Address::Unix(_) | Address::Abstract(_) => listening.into_iter().flatten().take(1).collect(),
    })
}

fn warn(warnings: &mut Vec<String>, warning: String) {
    show::note(format_args!("lineframe: warning: {warning}"));
    warnings.push(warning);
}

/// Reduces the number of connections to the limit for open files, and returns a warning if it does.
#[cfg(unix)]
fn limit_connections(arguments: &mut Arguments) -> Option<String> {
    use rustix::process::{Resource, getrlimit};

    /// Descriptors reserved for the process, such as stdio, and for the runtime of each thread.
    const PER_PROCESS: u64 = 16;
    const PER_THREAD: u64 = 8;

    // With `--rate`, each connection also has a timer.
    let each = if arguments.rate.is_some() && cfg!(target_os = "linux") { 2 } else { 1 };
    let reserved = PER_PROCESS + PER_THREAD * u64::from(arguments.threads);
    let needed = reserved + each * u64::from(arguments.connections);
    let current = getrlimit(Resource::Nofile).current.filter(|&current| current < needed)?;
    let requested = arguments.connections;
    arguments.connections = (current.saturating_sub(reserved) / each).clamp(1, requested.into()) as u32;
    Some(format!(
        "using {} instead of {requested}: the limit for open files is {current} (raise it with ulimit -Hn)",
        show::counted(arguments.connections.into(), "connection")
    ))
}

#[cfg(not(unix))]
fn limit_connections(_: &mut Arguments) -> Option<String> {
    None
}
