//! Shows how a stream is framed: between a client and a server, around a command's stdin and stdout, or in a file.

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

/// How long the end waits, after a signal, for a reader of stdout or stderr.
const LAST_WRITE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  lineframe inspect 127.0.0.1:9000 127.0.0.1:8083
      between clients of port 9000 and the server on port 8083
  lineframe inspect --check json --output frames.log -- python3 server.py
      around a program that speaks JSON-RPC on its stdin and stdout
  printf 'a\\r\\nb' | lineframe inspect
      what a pipe or a file is made of";

/// Show how a stream is framed: each line with its offset, its length, how it ended and in which reads it came.
///
/// Between clients and a server (LISTEN SERVER), around a command's stdin and stdout (-- COMMAND), or of a file or stdin.
/// Every byte passes as it is, ends included, and waits while nobody takes the output. Frames go to stdout; around a
/// command, whose replies have that place, to stderr.
///
/// Ends with the file or the command, whose exit code it takes over, or between clients and a server with SIGINT or
/// SIGTERM. Otherwise exit code 6 says that there were bad frames, 7 that a --check was not met.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = EXAMPLES,
    // It writes no lines of its own.
    mut_arg("crlf", |arg| arg.hide(true)),
    override_usage = "lineframe inspect [OPTIONS] LISTEN SERVER\n       \
        lineframe inspect [OPTIONS] -- COMMAND [ARGS]...\n       \
        lineframe inspect [OPTIONS] [FILE]"
)]
pub(crate) struct Arguments {
    /// Where to listen and the server to pass everything on to, or a file; - is stdin
    #[arg(value_name = "LISTEN SERVER | FILE", num_args = 0..=2, conflicts_with = "command")]
    what: Vec<OsString>,

    /// The command to run with its stdin and stdout passing through here
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Flag each line that is not of this kind
    #[arg(long, value_name = "KIND")]
    check: Option<Check>,

    /// Print one JSON object per frame
    #[arg(long)]
    json: bool,

    /// Write the frames to this file, which is made anew
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Show at most so many bytes of each line. Lengths and offsets count all of them
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "1k")]
    max_text: usize,

    #[command(flatten)]
    framing: Framing,
}

/// What is looked at.
enum What {
    Relay { listen: Address, server: Address },
    Command(Vec<OsString>),
    File(PathBuf),
    Stdin,
}

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let what = what(&arguments)?;
    // None if signals have their default action.
    let mut signals = None;
    let (notes, notes_writer) = Notes::new();
    let done = inspect(arguments, what, &mut signals, &notes).await;
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

/// Waits for `writing`, after a signal for at most `LAST_WRITE`.
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
    what: What,
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
    let (output, is_terminal) = output(&arguments, &what)?;
    let name = output.name.clone();
    let style = match arguments.json {
        true => Style::Json,
        false => {
            Style::Text { colour: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()) }
        }
    };
    let (log, writer) = Log::new(style, output, notes.clone());
    let done = match what {
        What::Relay { listen, server } => relay::run(&listen, server, &rules, &log, signals, notes).await,
        What::Command(command) => child::run(&command, &rules, &log, signals, notes).await,
        What::File(path) => match tokio::fs::File::open(&path).await {
            Ok(file) => read(file, path.display(), &rules, &log).await,
            Err(error) if is_address(&path) && error.kind() == io::ErrorKind::NotFound => {
                let path = path.display();
                Err(Failure::usage(format_args!(
                    "{path} is an address without another: inspect LISTEN SERVER, such as 127.0.0.1:0 {path}"
                )))
            }
            Err(error) => Err(Failure::other(format_args!("cannot open {}", path.display()), error)),
        },
        What::Stdin => read(tokio::io::stdin(), "stdin", &rules, &log).await,
    };
    let (framing, json) = log.bad();
    drop(log);
    // Where nobody takes the output any more, its writer says why.
    let Some(written) = limited(writer, signals).await else {
        return done.and(Err(Failure::other("interrupted", "nobody took the rest of the output")));
    };
    match written {
        Ok(Err(error)) if arguments.output.is_none() => return Err(Failure::stdout(error)),
        Ok(Err(error)) => return Err(Failure::other(format_args!("cannot write to {name}"), error)),
        Err(error) => return Err(Failure::other("the output failed", error)),
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

fn what(arguments: &Arguments) -> Result<What, Failure> {
    let address = |text: &OsString| {
        let parsed = match text.to_str() {
            Some(text) => text.parse::<Address>(),
            None => Err("an address is UTF-8".into()),
        };
        parsed.map_err(|why| Failure::usage(format_args!("{}: {why}", text.to_string_lossy())))
    };
    Ok(match (&arguments.what[..], &arguments.command[..]) {
        ([], []) => What::Stdin,
        ([], command) => What::Command(command.into()),
        ([file], _) if file == "-" => What::Stdin,
        ([file], _) => What::File(file.into()),
        ([listen, server, ..], _) => What::Relay { listen: address(listen)?, server: address(server)? },
    })
}

/// Whether it looks like host:port, and so is hardly the name of a file.
fn is_address(path: &Path) -> bool {
    let address = path.to_str().and_then(|path| path.parse().ok());
    matches!(address, Some(Address::Tcp(_) | Address::Abstract(_)))
}

/// Where the frames go, and whether that is a terminal.
fn output(arguments: &Arguments, what: &What) -> Result<(Output, bool), Failure> {
    let if_full = match what {
        What::File(_) | What::Stdin => IfFull::End,
        What::Relay { .. } if arguments.output.is_none() => IfFull::PassUnlessClosed,
        What::Relay { .. } | What::Command(_) => IfFull::Pass,
    };
    let (to, is_terminal, name): (Box<dyn Write + Send>, _, _) = match (&arguments.output, what) {
        (Some(path), _) => {
            let file = File::create(path)
                .map_err(|error| Failure::other(format_args!("cannot write {}", path.display()), error))?;
            let is_terminal = file.is_terminal();
            (Box::new(file), is_terminal, show::escaped(path.as_os_str().as_encoded_bytes()))
        }
        (None, What::Command(_)) => (Box::new(io::stderr()), io::stderr().is_terminal(), "stderr".into()),
        (None, _) => (Box::new(io::stdout()), io::stdout().is_terminal(), "stdout".into()),
    };
    Ok((Output { to, name, if_full }, is_terminal))
}

/// The frames of what is there to be read.
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
