//! `lineframe`: a command-line tool for line-based protocols.

#![forbid(unsafe_code)]

mod address;
mod bench;
mod completions;
mod connect;
mod demo;
mod descriptors;
mod environment;
mod failure;
mod framing;
#[cfg(test)]
mod fuzzed;
mod inspect;
mod lines;
mod listen;
mod man;
#[cfg(test)]
mod pages;
mod send;
mod serve;
mod show;
mod signals;
mod stream;
mod units;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::failure::{EXIT_CODES, Failure};

/// Serve, connect to, send to, inspect and measure line-based protocols.
#[derive(Parser)]
#[command(name = "lineframe", version, after_help = format!("{NOTATION}\n\n{EXIT_CODES}"))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const NOTATION: &str = "\
Addresses:
  127.0.0.1:8083  TCP, as host:port; put an IPv6 address in brackets: [::1]:8083
  ./some.sock     path of a Unix socket; it must contain a slash
  @name           Unix socket in the abstract namespace of Linux

Write durations as 500ms, 2s, 3m or 1h. Write sizes in bytes, or as 1k, 64k, 1M.
Every option can also be set by an environment variable: --max-length by
LINEFRAME_MAX_LENGTH. An option on the command line overrides its variable.";

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "a process has only one value of this type")]
enum Command {
    Demo(demo::Arguments),
    Serve(serve::Arguments),
    Connect(connect::Arguments),
    Send(send::Arguments),
    Inspect(inspect::Arguments),
    Bench(bench::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Number of task polls after which Tokio checks for I/O events. With Tokio's default of 61, some
/// of 512 busy connections wait while the others are polled many times: docs/performance.md.
const EVENT_INTERVAL: u32 = 1024;

fn main() -> ExitCode {
    let command = match parse(std::env::args_os()) {
        Ok(arguments) => arguments.command,
        Err(error) => return explain(error),
    };
    #[cfg(unix)]
    if matches!(command, Command::Serve(_) | Command::Bench(_)) {
        descriptors::raise();
    }
    let runtime = match runtime(&command) {
        Ok(runtime) => runtime,
        Err(error) => return Failure::other("cannot start", error).report(),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Connect(arguments) => connect::run(arguments).await,
            Command::Send(arguments) => send::run(arguments).await,
            Command::Inspect(arguments) => inspect::run(arguments).await,
            Command::Bench(arguments) => bench::run(arguments).await,
            Command::Completions(arguments) => completions::run(arguments),
            Command::Man(arguments) => man::run(arguments),
        }
    });
    // Joining the thread that reads stdin would delay the exit until the next line is typed.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Threads needed in addition to the workers: name lookups, stdin, stdout, and the frames and notes
/// of `inspect`.
const BLOCKING_THREADS: usize = 5;

fn runtime(command: &Command) -> io::Result<Runtime> {
    let default = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = match command {
        Command::Serve(arguments) => arguments.workers.unwrap_or_else(default),
        _ => default(),
    };
    // Each thread of `bench` may need a second thread for a name lookup.
    let more = match command {
        Command::Bench(arguments) => 2 * arguments.threads as usize,
        _ => BLOCKING_THREADS,
    };
    descriptors::check(workers + more)?;
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all().event_interval(EVENT_INTERVAL).build()
}

/// Returns the complete command line; its options can be set by environment variables.
fn command() -> clap::Command {
    environment::with_variables(Arguments::command())
}

fn parse<A: Into<std::ffi::OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
) -> Result<Arguments, clap::Error> {
    command().try_get_matches_from(arguments).and_then(|matches| Arguments::from_arg_matches(&matches))
}

/// Prints the help or the usage error. An error message quotes arguments, so the arguments are
/// escaped and parsed again to build a message that cannot control the terminal.
fn explain(error: clap::Error) -> ExitCode {
    let shown = std::env::args_os().map(|argument| show::escaped(argument.as_encoded_bytes()));
    let error = parse(shown).err().unwrap_or(error);
    let printed = error.print();
    if !error.use_stderr() {
        let printed = printed.and_then(|()| io::stdout().flush()).map_err(Failure::stdout);
        return printed.map_or_else(Failure::report, |()| ExitCode::SUCCESS);
    }
    environment::note_variables();
    ExitCode::from(2)
}
