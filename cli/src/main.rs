//! `lineframe`: serve, connect to, send to, inspect and measure protocols made of lines.

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

/// Serve, connect to, send to, inspect and measure protocols made of lines.
#[derive(Parser)]
#[command(name = "lineframe", version, after_help = format!("{NOTATION}\n\n{EXIT_CODES}"))]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const NOTATION: &str = "\
Addresses:
  127.0.0.1:8083  TCP, as host:port; an IPv6 address in brackets: [::1]:8083
  ./some.sock     a Unix socket: anything with a slash in it
  @name           a Unix socket in Linux's abstract namespace

Durations are 500ms, 2s, 3m, 1h; sizes are bytes, or 1k, 64k, 1M. Every option
is an environment variable too: --max-length is LINEFRAME_MAX_LENGTH. Flags win.";

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a process")]
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

/// Tokio looks for what has come on sockets after so many turns of tasks. At its own 61, some of 512 busy connections wait for many
/// rounds of the others: docs/performance.md.
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
    // A thread that waits for stdin is never joined: it would hold the end up until the next line is typed.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Threads beside the workers: for name lookups, stdin, stdout, and the output and stderr of `inspect`.
const BLOCKING_THREADS: usize = 5;

fn runtime(command: &Command) -> io::Result<Runtime> {
    let default = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = match command {
        Command::Serve(arguments) => arguments.workers.unwrap_or_else(default),
        _ => default(),
    };
    // Each thread of bench may need another for a name lookup.
    let more = match command {
        Command::Bench(arguments) => 2 * arguments.threads as usize,
        _ => BLOCKING_THREADS,
    };
    descriptors::check(workers + more)?;
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all().event_interval(EVENT_INTERVAL).build()
}

/// The whole command line, with its options from the environment.
fn command() -> clap::Command {
    environment::with_variables(Arguments::command())
}

fn parse<A: Into<std::ffi::OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
) -> Result<Arguments, clap::Error> {
    command().try_get_matches_from(arguments).and_then(|matches| Arguments::from_arg_matches(&matches))
}

/// Help, or what is wrong with the arguments. The message repeats some of them, so it is made again from arguments that a
/// terminal may be given.
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
