use std::cell::Cell;
use std::io;
use std::pin::pin;

use futures_util::{SinkExt, StreamExt, stream};
use lineframe::{Delimiter, Fragment, FragmentCodec, LineCodec};
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::failure::Failure;
use crate::stream::Stream;

/// Sends the lines of stdin and prints the replies, both at once, until as many replies as lines have come. Lines and
/// replies may be of any length: they pass in pieces, as they come, to the byte.
pub(crate) async fn run(server: Stream) -> Result<(), Failure> {
    let (from_server, to_server) = tokio::io::split(server);
    let mut to_server = FramedWrite::new(to_server, codec());
    let mut replies = FramedRead::new(from_server, codec()).ready_chunks(1024);
    let mut stdout = FramedWrite::new(tokio::io::stdout(), codec());

    let sent = Cell::new(0_u64);
    let mut lines = pin!(whole_lines(tokio::io::stdin()).inspect(|piece| {
        sent.set(sent.get() + u64::from(piece.as_ref().is_ok_and(|piece| piece.is_last)));
    }));
    let mut sending = pin!(to_server.send_all(&mut lines));
    let mut is_sending = true;
    let mut received = 0;
    // Of a reply whose terminator has not come.
    let mut begun = 0;
    while is_sending || received < sent.get() {
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
                let Some(pieces) = pieces else { break };
                for piece in pieces {
                    match piece {
                        Ok(piece) => {
                            received += u64::from(piece.is_last);
                            begun = if piece.is_last { 0 } else { begun + piece.bytes.len() };
                            stdout.feed(piece).await.map_err(Failure::stdout)?;
                        }
                        Err(error) if is_gone(&error) => {}
                        Err(error) => return Err(Failure::other("cannot receive", error)),
                    }
                }
                stdout.flush().await.map_err(Failure::stdout)?;
            }
        }
    }
    match received {
        _ if begun > 0 => Err(Failure::cut(begun)),
        received if received < sent.get() => Err(Failure::missing(received, sent.get())),
        _ => Ok(()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// CR is content here: what comes in goes out.
fn codec() -> FragmentCodec {
    LineCodec::builder().delimiter(Delimiter::Lf).build().into()
}

/// The lines of `input` in pieces. The last one is a whole line, with or without its terminator.
fn whole_lines(input: impl AsyncRead) -> impl stream::Stream<Item = io::Result<Fragment>> {
    let pieces = Box::pin(FramedRead::new(input, codec()));
    stream::unfold((pieces, true), |(mut pieces, at_start)| async move {
        match pieces.next().await {
            Some(piece) => {
                let is_last = piece.as_ref().is_ok_and(|piece| piece.is_last);
                Some((piece, (pieces, is_last)))
            }
            None if at_start => None,
            None => Some((Ok(Fragment { bytes: Default::default(), is_last: true }), (pieces, true))),
        }
    })
}
