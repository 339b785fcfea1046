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

/// Serve, connect to, and send to line protocols.
///
/// An address is host:port, [v6]:port, or a path with a slash in it for a Unix socket. Exit codes: 0; 1 other; 2 usage;
/// 3 cannot connect; 6 the peer's last line was cut.
#[derive(Parser)]
#[command(name = "lineframe", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it out: a server and a client connected to it, in one process.
    ///
    /// On a terminal it prompts; otherwise it sends the lines of its standard input: printf 'hello\n' | lineframe demo
    Demo,
    /// Answer each line with its ASCII upper case, for many clients at once.
    ///
    /// Prints "listening ADDR" on stdout for each listener, port 0 resolved. Example: lineframe serve 127.0.0.1:0
    /// ./upper.sock
    Serve {
        /// Where to listen.
        #[arg(value_name = "ADDR", default_value = "127.0.0.1:8083")]
        addresses: Vec<Address>,
    },
    /// Talk to a server by hand: prompts, skips empty lines, prints what comes.
    ///
    /// Where its standard input is not a terminal, it is `send`. Example: lineframe connect 127.0.0.1:8083
    Connect {
        /// The server.
        #[arg(value_name = "ADDR")]
        address: Address,
    },
    /// Send the lines of stdin and print the replies, both at once, until as many replies as lines have come.
    ///
    /// Bytes go through as they are; a last line without its terminator is given one. Example: printf 'a\nb\n' |
    /// lineframe send 127.0.0.1:8083
    Send {
        /// The server.
        #[arg(value_name = "ADDR")]
        address: Address,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::other("cannot start", error).report(),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Demo => demo::run().await,
            Command::Serve { addresses } => serve::run(&addresses).await,
            Command::Connect { address } => connect::run(stream::connect(&address).await?).await,
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
