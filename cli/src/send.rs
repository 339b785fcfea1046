//! Lines by script.

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
/// Does both at once, and ends when as many replies as lines have come, whether or not the server goes. Bytes pass as they
/// are; a last line without its terminator is given one. For servers with other than one reply to a line there is
/// --replies, for those that answer when they have seen the end there is --end half-close.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  printf 'hello\\nworld\\n' | lineframe send 127.0.0.1:8083
  printf 'EHLO me\\nQUIT\\n' | lineframe send --crlf --end half-close mx:25
  echo PING | lineframe send --retry 5 --timeout 2s --expect '^PONG$' ./some.sock
  sort words | lineframe send --end half-close ./some.sock | sort -u")]
pub(crate) struct Arguments {
    /// The server: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    connecting: Connecting,
}

/// What is sent, what is waited for, and how it is shown.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// When it ends
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = End::Replies)]
    end: End,

    /// Wait for so many replies, in place of one for each line or of the server's end. Further ones are not printed
    #[arg(long, value_name = "N")]
    replies: Option<u64>,

    /// How long the server may keep it waiting without taking or sending a byte
    #[arg(long, value_name = "DURATION|none", default_value = "30s")]
    #[arg(value_parser = units::limit(units::duration))]
    timeout: Limit<Duration>,

    /// What each reply has to match, one at least: the first that does not ends it with exit code 7
    #[arg(long, value_name = "REGEX")]
    expect: Option<Regex>,

    #[command(flatten)]
    escaping: Escaping,

    #[command(flatten)]
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum End {
    /// When as many replies as lines have come
    Replies,
    /// When the server ends. It is told after the last line that no more comes
    HalfClose,
    /// After the last line, without waiting for replies
    Close,
}

impl Options {
    /// Those of `send` without any.
    pub(crate) fn new(framing: Framing, escaping: Escaping) -> Self {
        let timeout = Limit(Some(Duration::from_secs(30)));
        Self { end: End::Replies, replies: None, timeout, expect: None, escaping, framing }
    }
}

pub(crate) async fn run(Arguments { address, options, connecting }: Arguments) -> Result<(), Failure> {
    if options.end == End::Close && (options.replies.is_some() || options.expect.is_some()) {
        return Err(Failure::usage(
            "--end close waits for no reply: neither --replies nor --expect go with it",
        ));
    }
    pipe(connecting.connect(&address).await?, &options).await
}

/// Sends the lines of stdin and prints the replies, both at once.
pub(crate) async fn pipe(server: AnyIo, options: &Options) -> Result<(), Failure> {
    let exchange = Exchange::new(options);
    let arrived = Arrived::of(&server);
    let (from_server, to_server) = tokio::io::split(server);
    let from_server = InspectReader::new(from_server, |_| exchange.goes_on());
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
        // A line begun may say why.
        exchange.print_begun(replies.begun()).await?;
    }
    done.and_then(|()| exchange.judge()).map_err(|failure| exchange.name_reset(failure))
}
