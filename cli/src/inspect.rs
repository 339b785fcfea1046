//! The command `inspect`: shows how a stream is framed, between clients and a server, around a
//! command, or in a file.

mod child;
mod frames;
mod log;
mod notes;
mod pass;
mod relay;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::show::{self, counted};
use crate::signals::Signals;
use crate::units;

use frames::{Check, Rules};
use log::{Direction, IfFull, Log, Output, Place, Style, Written};
use notes::Notes;
use pass::{Shared, Stopped, pass};

/// Maximum wait for a reader of stdout or stderr after a signal.
const LAST_WRITE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  lineframe inspect 127.0.0.1:9000 127.0.0.1:8083
      between clients that connect to port 9000 and the server on port 8083
  lineframe inspect --check json --output frames.log -- python3 server.py
      around a program that speaks JSON-RPC on stdin and stdout
  printf 'a\\r\\nb' | lineframe inspect
      a pipe or a file";

/// Show how a stream is framed: offset, length, terminator and reads of each line.
///
/// Inspects the traffic between clients and a server (LISTEN SERVER), the stdin and stdout of a
/// command (-- COMMAND), or a file or stdin. Passes on every byte and every end of a stream
/// unchanged, but waits if nobody reads the output. Frames go to stdout, or to stderr if there is a
/// command, because its replies use stdout.
///
/// Exits at the end of the file or with the exit code of the command; between clients and a server,
/// at SIGINT or SIGTERM. Otherwise the exit code is 6 if there were bad frames and 7 if a --check
/// failed.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = EXAMPLES,
    // `inspect` does not write lines.
    mut_arg("crlf", |arg| arg.hide(true)),
    override_usage = "lineframe inspect [OPTIONS] LISTEN SERVER\n       \
        lineframe inspect [OPTIONS] -- COMMAND [ARGS]...\n       \
        lineframe inspect [OPTIONS] [FILE]"
)]
pub(crate) struct Arguments {
    /// Address to listen on and server to connect to, or a file; - is stdin
    #[arg(value_name = "LISTEN SERVER | FILE", num_args = 0..=2, conflicts_with = "command")]
    what: Vec<OsString>,

    /// Command to run and inspect, with its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Report each line that is not of this kind
    #[arg(long, value_name = "KIND")]
    check: Option<Check>,

    /// Print one JSON object per frame
    #[arg(long)]
    json: bool,

    /// Write the frames to this file, replacing its contents
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Show at most SIZE bytes of each line. Lengths and offsets count all bytes
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "1k")]
    max_text: usize,

    #[command(flatten)]
    framing: Framing,
}

/// The stream to inspect.
enum Source {
    Relay { listen: Address, server: Address },
    Command(Vec<OsString>),
    File(PathBuf),
    Stdin,
}

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let source = source(&arguments)?;
    // `None` while signals have their default action.
    let mut signals = None;
    let (notes, notes_writer) = Notes::new();
    let done = inspect(arguments, source, &mut signals, &notes).await;
    let (line, done) = match done {
        Ok(()) => (String::new(), Ok(())),
        Err(failure) => {
            let (line, silent) = failure.into_line();
            (line, Err(silent))
        }
    };
    let last = async {
        notes.last(line).await;
        _ = notes_writer.await;
    };
    limited(last, &mut signals).await;
    done
}

/// Waits for `writing`. After a signal, gives up after `LAST_WRITE` and returns `None`.
async fn limited<T>(writing: impl Future<Output = T>, signals: &mut Option<Signals>) -> Option<T> {
    let interrupted = async {
        match signals {
            None => std::future::pending().await,
            Some(signals) => {
                if !signals.was_received() {
                    signals.next().await;
                }
                tokio::time::sleep(LAST_WRITE).await;
            }
        }
    };
    tokio::select! {
        biased;
        written = writing => Some(written),
        () = interrupted => None,
    }
}

async fn inspect(
    arguments: Arguments,
    source: Source,
    signals: &mut Option<Signals>,
    notes: &Notes,
) -> Result<(), Failure> {
    let codec = arguments.framing.codec();
    let rules = Rules {
        delimiter: codec.delimiter().clone(),
        max_length: codec.max_length().unwrap_or(usize::MAX),
        max_text: arguments.max_text,
        check: arguments.check,
    };
    let (output, is_terminal) = output(&arguments, &source)?;
    let name = output.name.clone();
    let style = match arguments.json {
        true => Style::Json,
        false => {
            Style::Text { colour: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()) }
        }
    };
    let (log, writer) = Log::new(style, output, notes.clone());
    let done = match source {
        Source::Relay { listen, server } => relay::run(&listen, server, &rules, &log, signals, notes).await,
        Source::Command(command) => child::run(&command, &rules, &log, signals, notes).await,
        Source::File(path) => match tokio::fs::File::open(&path).await {
            Ok(file) => read(file, path.display(), &rules, &log).await,
            Err(error) if is_address(&path) && error.kind() == io::ErrorKind::NotFound => {
                let path = path.display();
                Err(Failure::usage(format_args!(
                    "{path} is an address; a second one is missing: inspect LISTEN SERVER, such as 127.0.0.1:0 {path}"
                )))
            }
            Err(error) => Err(Failure::other(format_args!("cannot open {}", path.display()), error)),
        },
        Source::Stdin => read(tokio::io::stdin(), "stdin", &rules, &log).await,
    };
    let (framing, json) = log.bad();
    drop(log);
    // The writer returns the error if the output could not be written.
    let Some(written) = limited(writer, signals).await else {
        return done.and(Err(Failure::other("interrupted", "nobody read the rest of the output")));
    };
    match written {
        Ok(Err(error)) if arguments.output.is_none() => return Err(Failure::stdout(error)),
        Ok(Err(error)) => return Err(Failure::other(format_args!("cannot write to {name}"), error)),
        Err(error) => return Err(Failure::other("internal error in the output thread", error)),
        Ok(Ok(Written::Part)) => return done.and(Err(Failure::passed_on(1))),
        Ok(Ok(Written::All)) => done?,
    }
    let badly_framed = counted(framing, "bad frame");
    let not_json = match json {
        1 => "1 line is not JSON".to_owned(),
        _ => format!("{json} lines are not JSON"),
    };
    match (framing, json) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure::framing(badly_framed)),
        (0, _) => Err(Failure::expectation(not_json)),
        (_, _) => Err(Failure::expectation(format_args!("{badly_framed}, and {not_json}"))),
    }
}

fn source(arguments: &Arguments) -> Result<Source, Failure> {
    let address = |text: &OsString| {
        let parsed = match text.to_str() {
            Some(text) => text.parse::<Address>(),
            None => Err("an address must be UTF-8".into()),
        };
        parsed.map_err(|why| Failure::usage(format_args!("{}: {why}", text.to_string_lossy())))
    };
    Ok(match (&arguments.what[..], &arguments.command[..]) {
        ([], []) => Source::Stdin,
        ([], command) => Source::Command(command.into()),
        ([file], _) if file == "-" => Source::Stdin,
        ([file], _) => Source::File(file.into()),
        ([listen, server, ..], _) => Source::Relay { listen: address(listen)?, server: address(server)? },
    })
}

/// Returns whether the path looks like an address, such as host:port, rather than a file name.
fn is_address(path: &Path) -> bool {
    let address = path.to_str().and_then(|path| path.parse().ok());
    matches!(address, Some(Address::Tcp(_) | Address::Abstract(_)))
}

/// Returns the output for the frames, and whether it is a terminal.
fn output(arguments: &Arguments, source: &Source) -> Result<(Output, bool), Failure> {
    let if_full = match source {
        Source::File(_) | Source::Stdin => IfFull::End,
        Source::Relay { .. } if arguments.output.is_none() => IfFull::PassUnlessClosed,
        Source::Relay { .. } | Source::Command(_) => IfFull::Pass,
    };
    let (to, is_terminal, name): (Box<dyn Write + Send>, _, _) = match (&arguments.output, source) {
        (Some(path), _) => {
            let file = File::create(path)
                .map_err(|error| Failure::other(format_args!("cannot write {}", path.display()), error))?;
            let is_terminal = file.is_terminal();
            (Box::new(file), is_terminal, show::escaped(path.as_os_str().as_encoded_bytes()))
        }
        (None, Source::Command(_)) => (Box::new(io::stderr()), io::stderr().is_terminal(), "stderr".into()),
        (None, _) => (Box::new(io::stdout()), io::stdout().is_terminal(), "stdout".into()),
    };
    Ok((Output { to, name, if_full }, is_terminal))
}

/// Shows the frames of a file or of stdin.
async fn read(
    from: impl tokio::io::AsyncRead + Unpin,
    name: impl std::fmt::Display,
    rules: &Rules,
    log: &Log,
) -> Result<(), Failure> {
    let place = Place { connection: 1, direction: Direction::File };
    match pass(from, tokio::io::sink(), place, &Shared::default(), rules, log).await {
        Err(Stopped::Read(error)) => Err(Failure::other(format_args!("cannot read {name}"), error)),
        Err(Stopped::Output) | Ok(_) => Ok(()),
    }
}
