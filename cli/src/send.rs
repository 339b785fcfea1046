//! The command `send`: sends the lines of stdin and prints the replies.

mod exchange;
mod progress;

use std::pin::pin;
use std::time::Duration;

use lineframe::{AnyIo, Unterminated};
use regex::bytes::Regex;
use tokio_util::io::{InspectReader, InspectWriter};

use self::exchange::Exchange;
use crate::address::Address;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::lines::Lines;
use crate::show::Escaping;
use crate::stream::{Arrived, Connecting};
use crate::units::{self, Limit};

/// Send the lines of stdin and print the replies.
///
/// Sends and receives at the same time. Exits after one reply for each line, even if the server
/// keeps the connection open. If the server does not send one reply per line, use --replies. If it
/// replies only at the end of the input, use --end half-close.
///
/// Bytes are passed on unchanged, except that a last line without a terminator gets one.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  printf 'hello\\nworld\\n' | lineframe send 127.0.0.1:8083
  printf 'EHLO me\\nQUIT\\n' | lineframe send --crlf --end half-close mx:25
  echo PING | lineframe send --retry 5 --expect '^PONG$' ./some.sock
  sort words | lineframe send --end half-close ./some.sock | sort -u")]
pub(crate) struct Arguments {
    /// Server: host:port, a path with a slash for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    connecting: Connecting,
}

/// Options for sending, for the end of the exchange and for printing.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// When to stop
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = End::Replies)]
    end: End,

    /// Stop after N replies [default: one per line]. Later replies are discarded
    #[arg(long, value_name = "N")]
    replies: Option<u64>,

    /// Give up if the server neither accepts nor sends a byte for this long
    #[arg(long, value_name = "DURATION|none", default_value = "30s")]
    #[arg(value_parser = units::limit(units::duration))]
    timeout: Limit<Duration>,

    /// Stop with exit code 7 at the first reply that does not match, or if there is no reply
    #[arg(long, value_name = "REGEX")]
    expect: Option<Regex>,

    #[command(flatten)]
    escaping: Escaping,

    #[command(flatten)]
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum End {
    /// After one reply for each line
    Replies,
    /// When the server closes the connection; the sending direction is closed after the last line
    HalfClose,
    /// After sending the last line, without waiting for replies
    Close,
}

impl Options {
    /// Returns the defaults of `send`, with these framing and escaping options.
    pub(crate) fn new(framing: Framing, escaping: Escaping) -> Self {
        let timeout = Limit(Some(Duration::from_secs(30)));
        Self { end: End::Replies, replies: None, timeout, expect: None, escaping, framing }
    }
}

pub(crate) async fn run(Arguments { address, options, connecting }: Arguments) -> Result<(), Failure> {
    if options.end == End::Close && (options.replies.is_some() || options.expect.is_some()) {
        return Err(Failure::usage(
            "--end close does not wait for replies: it cannot be combined with --replies or --expect",
        ));
    }
    pipe(connecting.connect(&address).await?, &options).await
}

/// Sends the lines of stdin and prints the replies at the same time.
pub(crate) async fn pipe(server: AnyIo, options: &Options) -> Result<(), Failure> {
    let exchange = Exchange::new(options);
    let arrived = Arrived::of(&server);
    let (from_server, to_server) = tokio::io::split(server);
    let from_server = InspectReader::new(from_server, |_| exchange.mark_progress());
    let to_server = InspectWriter::new(to_server, |bytes| exchange.has_sent(bytes.len()));
    let mut replies = Lines::new(from_server, options.framing.scanner(Unterminated::Report));
    let done = {
        let mut sending = pin!(exchange.send(tokio::io::stdin(), to_server));
        let mut receiving = pin!(exchange.receive(&mut replies));
        let mut stalling = pin!(exchange.stalls(&arrived));
        let mut showing = pin!(progress::show(&exchange));
        let mut is_sending = true;
        loop {
            tokio::select! {
                biased;
                done = &mut receiving => break done,
                done = &mut sending, if is_sending => {
                    is_sending = false;
                    if done.is_err() || exchange.is_over() {
                        break done;
                    }
                }
                stalled = &mut stalling => break Err(stalled),
                never = &mut showing => match never {},
            }
        }
    };
    if done.is_err() {
        // A partial reply may explain the failure.
        exchange.print_begun(replies.begun()).await?;
    }
    done.and_then(|()| exchange.judge()).map_err(|failure| exchange.name_reset(failure))
}
