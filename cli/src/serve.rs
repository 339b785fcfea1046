//! A server for lines.

use std::io;

use lineframe::{Bind, Connection, Server, reply_into};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::listen::Listener;
use crate::show::print;
use crate::units;

/// Answer each line with its ASCII upper case, for many clients at once.
///
/// Prints "listening ADDR" on stdout for each listener, with the port that it got in place of port 0. Serves until SIGINT or
/// SIGTERM, and then until what has come by then is answered. A second signal ends it at once.
#[derive(clap::Args)]
#[command(after_long_help = "Example:\n  lineframe serve 127.0.0.1:0 ./some.sock")]
pub(crate) struct Arguments {
    /// Where to listen: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:8083")]
    addresses: Vec<Address>,

    #[command(flatten)]
    framing: Framing,

    /// The longest reply [default: as --max-length, and at least 64k, so that error lines fit]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    max_encoded_length: Option<usize>,
}

pub(crate) async fn run(
    Arguments { addresses, framing, max_encoded_length }: Arguments,
) -> Result<(), Failure> {
    // Before anybody can know that there is something to stop.
    let mut signals = Signals::new().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let mut listeners = Vec::new();
    for address in &addresses {
        listeners.push(Listener::bind(&Bind::new(), address).await?);
    }
    for listener in &listeners {
        let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
        print(format_args!("listening {address}"))?;
    }
    let longest_reply = max_encoded_length.unwrap_or(framing.max_length.max(64 * 1024));
    let codec = framing.builder().max_encoded_length(longest_reply).build();
    let server = Server::builder().codec(codec).refuse_http_and_tls(true).build();
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    for listener in listeners {
        serving.spawn(server.serve(listener, upper(), stop.clone().cancelled_owned()));
    }
    signals.next().await;
    stop.cancel();
    tokio::select! {
        () = async { while serving.join_next().await.is_some() {} } => {}
        () = signals.next() => {}
    }
    // A Unix socket's file is removed where its listener is dropped, which is in these tasks.
    serving.shutdown().await;
    match server.counters().aborted {
        0 => Ok(()),
        aborted => Err(Failure::other("stopped", format_args!("{aborted} connections were cut"))),
    }
}

/// Answers each line with its ASCII upper case, as Python's `bytes.upper` does. A line that cannot be taken or answered gets an
/// error line; the next one still comes.
pub(crate) fn upper()
-> impl Fn(Connection) -> futures_util::future::BoxFuture<'static, io::Result<()>> + Clone + Send + Sync {
    reply_into(|line, reply| {
        reply.extend_from_slice(line);
        reply.make_ascii_uppercase();
    })
}

/// SIGINT and SIGTERM, from when it is made.
#[cfg(unix)]
struct Signals {
    interrupted: tokio::signal::unix::Signal,
    terminated: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let (interrupted, terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupted, terminated })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        _ = tokio::signal::ctrl_c().await;
    }
}
