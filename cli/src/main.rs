//! `lineframe`: serve, connect to, send to and try out protocols made of lines.

#![forbid(unsafe_code)]

mod address;
mod connect;
mod demo;
mod failure;
mod send;
mod serve;
mod show;
mod stream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::address::Address;
use crate::failure::Failure;

/// Try out, serve, connect to, and send to protocols made of lines.
#[derive(Parser)]
#[command(name = "lineframe", version, after_help = ADDRESSES_AND_EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const ADDRESSES_AND_EXIT_CODES: &str = "\
Addresses:
  127.0.0.1:8083  TCP, as host:port; an IPv6 address in brackets: [::1]:8083
  ./some.sock     a Unix socket: anything with a slash in it

Exit codes:
  0 well; 1 anything else: cannot listen, replies are missing; 2 usage;
  3 cannot connect; 6 the server's last line was cut";

#[derive(Subcommand)]
enum Command {
    /// Try it out: a server and a client connected to it, in one process.
    ///
    /// The server answers each line with its ASCII upper case. On a terminal you type the lines; otherwise they are those
    /// of stdin.
    #[command(after_long_help = "Examples:\n  lineframe demo\n  printf 'hello\\nworld\\n' | lineframe demo")]
    Demo,
    /// Answer each line with its ASCII upper case, for many clients at once.
    ///
    /// Prints "listening ADDR" on stdout for each listener, with the port that it got in place of port 0. Serves until
    /// SIGINT or SIGTERM.
    #[command(after_long_help = "Example:\n  lineframe serve 127.0.0.1:0 ./some.sock")]
    Serve {
        /// Where to listen: host:port, or a path with a slash in it for a Unix socket.
        #[arg(value_name = "ADDR", default_value = "127.0.0.1:8083")]
        addresses: Vec<Address>,
    },
    /// Talk to a server by hand.
    ///
    /// Sends each line that you type, but empty ones, and prints the server's lines as they come, with control characters
    /// written out. Ends with Ctrl-D, or with the server. Where stdin is not a terminal it is `send`.
    #[command(after_long_help = "Example:\n  lineframe connect 127.0.0.1:8083")]
    Connect {
        /// The server: host:port, or a path with a slash in it for a Unix socket.
        #[arg(value_name = "ADDR")]
        address: Address,
    },
    /// Send the lines of stdin and print the replies.
    ///
    /// Does both at once, and ends when as many replies as lines have come. Bytes go through as they are; a last line
    /// without its terminator is given one.
    #[command(after_long_help = "Example:\n  printf 'hello\\nworld\\n' | lineframe send 127.0.0.1:8083")]
    Send {
        /// The server: host:port, or a path with a slash in it for a Unix socket.
        #[arg(value_name = "ADDR")]
        address: Address,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::other("cannot start", error).report(),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Demo => demo::run().await,
            Command::Serve { addresses } => serve::run(&addresses).await,
            Command::Connect { address } => {
                connect::run(stream::connect(&address).await?, format_args!("Connected to {address}.")).await
            }
            Command::Send { address } => send::run(stream::connect(&address).await?).await,
        }
    });
    // A thread that waits for stdin is never joined: it would hold the end up until the next line is typed.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Help, or what is wrong with the arguments. The message repeats some of them, so it is made again from arguments that a
/// terminal may be given.
fn explain(error: clap::Error) -> ExitCode {
    let shown = std::env::args_os().map(|argument| show::escaped(argument.as_encoded_bytes()));
    let error = Arguments::try_parse_from(shown).err().unwrap_or(error);
    // Who does not read it does not miss it.
    _ = error.print();
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}
