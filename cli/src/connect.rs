use std::io::{self, BufRead, IsTerminal, Write};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lineframe::{EncodeError, LineCodec};
use tokio::sync::mpsc;
use tokio_util::codec::Framed;

use crate::failure::Failure;
use crate::stream::Stream;
use crate::{send, show};

/// Talks to a server by hand; where nobody is there to type, sends what stdin holds.
pub(crate) async fn run(server: Stream) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return send::run(server).await;
    }
    let mut server = Framed::new(server, LineCodec::new());
    let mut typed = typed_lines();
    let raw = !io::stdout().is_terminal();
    prompt("");
    loop {
        tokio::select! {
            line = typed.recv() => match line {
                // Ctrl-D.
                None => break prompt("\r"),
                Some(line) if line.is_empty() => prompt(""),
                Some(line) => match server.send(line).await {
                    Ok(()) => {}
                    Err(EncodeError::Io(error)) => return Err(Failure::other("cannot send", error)),
                    Err(refused) => {
                        eprintln!("not sent: {refused}");
                        prompt("");
                    }
                },
            },
            reply = server.next() => match reply {
                Some(Ok(Ok(reply))) => {
                    // Over the prompt, if one is shown.
                    eprint!("\r");
                    print(&reply, raw).map_err(Failure::stdout)?;
                    prompt("");
                }
                Some(Ok(Err(bad))) => {
                    eprintln!("\rbad reply: {bad}");
                    prompt("");
                }
                Some(Err(error)) => {
                    eprint!("\r");
                    return Err(Failure::other("the connection failed", error));
                }
                None => {
                    eprintln!("\rthe server has closed the connection");
                    break;
                }
            },
        }
    }
    Ok(())
}

fn prompt(before: &str) {
    eprint!("{before}> ");
}

fn print(reply: &[u8], raw: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match raw {
        true => stdout.write_all(reply)?,
        false => stdout.write_all(show::escaped(reply).as_bytes())?,
    }
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// What is typed, a line at a time, from a thread of its own that is never joined: it may wait for a line for ever.
fn typed_lines() -> mpsc::Receiver<Bytes> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
            if send.blocking_send(line.into()).is_err() {
                break;
            }
        }
    });
    lines
}
