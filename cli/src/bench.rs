//! Load against a server that answers each line with one.

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
      10 connections, each with one line in flight, for 10 seconds
  lineframe bench --connections 100 --window 16 --length 1k --duration 1m ./some.sock
  lineframe bench --rate 5000 --svg latency.svg 127.0.0.1:8083
      5000 lines a second, whatever the server does, and a picture of it";

/// Measure how fast a server answers lines, and check every answer.
///
/// Without --rate it is a closed loop: the next line is sent when a reply has come. With --rate it is an open loop: lines
/// are due at fixed times, and what the server's pauses keep waiting is counted from when it was due. The report has both:
/// raw latencies from when a line was sent, and corrected ones from when it was due, or, in a closed loop, with the lines
/// added that would have been sent during a pause.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The server: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,

    /// How many connections
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// How many lines of a connection may wait for their replies
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,

    /// How long a line is, its terminator not counted
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64")]
    length: usize,

    /// How each line has to be answered
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Reply::Upper)]
    reply: Reply,

    /// For how long lines are sent that count [default: 10s, where there is no --count]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    duration: Option<Duration>,

    /// How many lines are sent that count, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// For how long lines are sent before that, which do not count
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "1s")]
    warm_up: Duration,

    /// How many lines a second are sent, by all connections together: an open loop
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// How many threads send them
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: u32,

    /// Ask for replies again and again, and never sleep: else the server wakes who sleeps, and spends CPU time on that which on a
    /// network it would not
    #[arg(long)]
    busy_poll: bool,

    /// A connection without a reply for so long has failed
    #[arg(long, value_name = "DURATION", value_parser = units::duration, default_value = "30s")]
    timeout: Duration,

    /// The server's process, for its CPU time. Found by itself where it listens on a loopback address or a Unix socket
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Draw the latencies, by percentile and over time
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
        _ = signals.next() => return Err(Failure::other("interrupted", "before it began")),
    };
    let server = server(&arguments, listening);

    let clock = Clock::start();
    let measured_from = nanoseconds(arguments.warm_up);
    let planned = match arguments.duration() {
        None => FAR,
        Some(duration) => measured_from.saturating_add(nanoseconds(duration)).min(FAR),
    };
    let deadline = Deadline::new(planned);
    _ = go.send(Some(Schedule { clock, measured_from, deadline: deadline.clone() }));
    show::note(format_args!("{}", report::plan(&arguments)));

    let mut ending = std::pin::pin!(all(outcomes));
    // The server's CPU time, when the measured part begins and when it ends.
    let (mut cpu_before, mut cpu_after) = (None, None);
    let mut next_look = Some(measured_from);
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut ending => break outcomes?,
            () = tokio::time::sleep_until(clock.instant(next_look.unwrap_or(0))), if next_look.is_some() => {
                match next_look {
                    Some(at) if at == measured_from => (cpu_before, next_look) = (server.cpu(), Some(planned)),
                    _ => (cpu_after, next_look) = (server.cpu(), None),
                }
            }
            signal = signals.next() => {
                if signal == Signal::Quit || deadline.at() <= clock.now() {
                    return Err(Failure::other("interrupted", "without a report"));
                }
                deadline.bring_forward(clock.now());
            }
        }
    };
    let cpu_after = cpu_after.or_else(|| server.cpu());
    let server_cpu = cpu_after.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    // It is told in hundredths of a second.
    let server_cpu = server_cpu.filter(|cpu| *cpu >= Duration::from_millis(100));

    let end = if deadline.at() <= clock.now() { deadline.at() } else { 0 };
    let mut report = Report::new(&arguments, outcomes, &server, server_cpu, end);
    for warning in report.warnings() {
        warn(&mut warnings, warning);
    }
    report.warnings = warnings;
    let text = if arguments.json { report.json() } else { report.text() };
    // One that cannot be written does not keep the other from being written.
    let printed = show::print_all(text.as_bytes());
    let drawn = picture.map_or(Ok(()), |picture| picture.write(&svg::draw(&report)));
    report.failure.map_or(Ok(()), Err).and(printed).and(drawn)
}

/// The file of `--svg`, opened before the run, so that nobody waits for a picture that cannot be
/// written.
struct Picture<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Picture<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        // What is in it stays until there is something to replace it.
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

/// A year. What is later is too late for tokio's timers.
const FAR: u64 = 365 * 24 * 3_600 * 1_000_000_000;

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

/// What every thread says, or what the first one says that fails.
async fn all<T>(receivers: Vec<Receiver<Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    let mut all = Vec::with_capacity(receivers.len());
    for receiver in receivers {
        all.push(receiver.await.map_err(|_| Failure::other("a thread", "it has ended"))??);
    }
    Ok(all)
}

/// The processes that were named, else those that can be found.
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

/// Has no more connections than the limit for open files allows.
#[cfg(unix)]
fn limit_connections(arguments: &mut Arguments) -> Option<String> {
    use rustix::process::{Resource, getrlimit};

    /// What the process has open beside its connections: stdio, and for each thread what its runtime needs.
    const OTHERS: u64 = 16;
    const OF_A_THREAD: u64 = 8;

    // With a rate each connection has a timer.
    let each = if arguments.rate.is_some() && cfg!(target_os = "linux") { 2 } else { 1 };
    let others = OTHERS + OF_A_THREAD * u64::from(arguments.threads);
    let needed = others + each * u64::from(arguments.connections);
    let current = getrlimit(Resource::Nofile).current.filter(|&current| current < needed)?;
    let asked = arguments.connections;
    arguments.connections = (current.saturating_sub(others) / each).clamp(1, asked.into()) as u32;
    Some(format!(
        "{} connections and not {asked}: this process may have {current} files open (RLIMIT_NOFILE, ulimit -Hn)",
        arguments.connections
    ))
}

#[cfg(not(unix))]
fn limit_connections(_: &mut Arguments) -> Option<String> {
    None
}
