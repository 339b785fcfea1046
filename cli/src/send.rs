//! Lines by script.

use std::cell::Cell;
use std::io;
use std::pin::pin;

use futures_util::{SinkExt, StreamExt, stream};
use lineframe::{AnyIo, Delimiter, Fragment, FragmentCodec, LineCodec};
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::address::Address;
use crate::failure::Failure;
use crate::stream::connect;

/// Send the lines of stdin and print the replies.
///
/// Does both at once, and ends when as many replies as lines have come. Bytes go through as they are; a last line without its
/// terminator is given one.
#[derive(clap::Args)]
#[command(after_long_help = "Example:\n  printf 'hello\\nworld\\n' | lineframe send 127.0.0.1:8083")]
pub(crate) struct Arguments {
    /// The server: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,
}

pub(crate) async fn run(Arguments { address }: Arguments) -> Result<(), Failure> {
    pipe(connect(&address).await?).await
}

/// Sends the lines of stdin and prints the replies, both at once, until as many replies as lines have come. Lines and
/// replies may be of any length: they pass in pieces, as they come, to the byte.
pub(crate) async fn pipe(server: AnyIo) -> Result<(), Failure> {
    let (from_server, to_server) = tokio::io::split(server);
    let mut to_server = FramedWrite::new(to_server, codec());
    let mut replies = FramedRead::new(from_server, codec()).ready_chunks(1024);
    let mut stdout = FramedWrite::new(tokio::io::stdout(), codec());

    let input = Input::default();
    let mut lines = pin!(whole_lines(tokio::io::stdin(), &input));
    let mut sending = pin!(to_server.send_all(&mut lines));
    let mut is_sending = true;
    let mut has_left = false;
    let mut received = 0;
    // Of a reply whose terminator has not come.
    let mut begun = 0;
    while !has_left && (is_sending || received < input.lines.get()) {
        tokio::select! {
            biased;
            done = &mut sending, if is_sending => {
                is_sending = false;
                // Where the server has left, what it has said before tells the rest.
                match done {
                    Err(error) if !is_gone(&error) => return Err(Failure::other("cannot send", error)),
                    _ => {}
                }
            }
            pieces = replies.next() => {
                has_left = pieces.is_none();
                let mut failed = None;
                for piece in pieces.into_iter().flatten() {
                    match piece {
                        Ok(piece) => {
                            received += u64::from(piece.is_last);
                            begun = if piece.is_last { 0 } else { begun + piece.bytes.len() };
                            stdout.feed(piece).await.map_err(Failure::stdout)?;
                        }
                        Err(error) if is_gone(&error) => {}
                        Err(error) => failed = Some(error),
                    }
                    // What comes unasked goes with the rest while lines are sent, and is not waited for after them.
                    if !is_sending && received == input.lines.get() {
                        break;
                    }
                }
                stdout.flush().await.map_err(Failure::stdout)?;
                if let Some(error) = failed {
                    return Err(Failure::other("cannot receive", error));
                }
            }
        }
    }
    match (input.failed.take(), input.lines.get()) {
        _ if has_left && begun > 0 => Err(Failure::cut(begun)),
        (_, lines) if received < lines => Err(Failure::missing(received, lines)),
        (Some(error), _) => Err(Failure::other("cannot read stdin", error)),
        (None, _) => Ok(()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};

    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// CR is content here: what comes in goes out.
fn codec() -> FragmentCodec {
    LineCodec::builder().delimiter(Delimiter::Lf).build().into()
}

/// What has become of stdin so far.
#[derive(Default)]
struct Input {
    lines: Cell<u64>,
    /// Why there are no more, if not for their end.
    failed: Cell<Option<io::Error>>,
}

/// The lines of `from` in pieces. The last one is a whole line, with or without its terminator.
fn whole_lines(from: impl AsyncRead, input: &Input) -> impl stream::Stream<Item = io::Result<Fragment>> {
    let pieces = Box::pin(FramedRead::new(from, codec()));
    stream::unfold((pieces, true), move |(mut pieces, at_start)| async move {
        let piece = match pieces.next().await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                input.failed.set(Some(error));
                return None;
            }
            None if at_start => return None,
            None => Fragment { bytes: Default::default(), is_last: true },
        };
        let is_last = piece.is_last;
        input.lines.set(input.lines.get() + u64::from(is_last));
        Some((Ok(piece), (pieces, is_last)))
    })
}
