//! Lines by hand.

use std::fmt::{self, Display};
use std::io::{self, BufRead, IsTerminal, Write};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use lineframe::{AnyIo, EncodeError, LineCodec, LineError};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};

use crate::address::Address;
use crate::failure::Failure;
use crate::{send, show, stream};

/// Talk to a server by hand.
///
/// Sends each line that you type, but empty ones, and prints the server's lines as they come, with control characters written
/// out. Ends with Ctrl-D, or with the server. Where stdin is not a terminal it is `send`.
#[derive(clap::Args)]
#[command(after_long_help = "Example:\n  lineframe connect 127.0.0.1:8083")]
pub(crate) struct Arguments {
    /// The server: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,
}

pub(crate) async fn run(Arguments { address }: Arguments) -> Result<(), Failure> {
    talk(stream::connect(&address).await?, format_args!("Connected to {address}.")).await
}

/// Talks to a server by hand; where nobody is there to type, sends what stdin holds.
pub(crate) async fn talk(server: AnyIo, greeting: impl Display) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return send::pipe(server).await;
    }
    let (from_server, to_server) = tokio::io::split(server);
    let mut replies = FramedRead::new(from_server, LineCodec::new());
    let mut to_server = FramedWrite::new(to_server, LineCodec::new());
    let screen = Screen::new();
    screen.note(format_args!("{greeting}\nType a line and press Enter. Ctrl-D ends."));
    let mut typed = typed_lines();
    loop {
        // A server that reads nothing is no reason to stop listening to it: a line is only taken where `feed` does not
        // wait for the server.
        let has_room = to_server.write_buffer().len() < to_server.backpressure_boundary();
        let has_unsent = !to_server.write_buffer().is_empty();
        tokio::select! {
            // What was typed before Ctrl-D goes out before it, and a server that never pauses cannot hold Ctrl-D up.
            biased;
            sent = to_server.flush(), if has_unsent => {
                if let Err(EncodeError::Io(error)) = sent {
                    screen.clear();
                    return Err(Failure::other("cannot send", error));
                }
            }
            line = typed.recv(), if has_room => match line {
                None => {
                    screen.end();
                    return Ok(());
                }
                Some(line) if line.is_empty() => screen.prompt(),
                Some(line) => match to_server.feed(line).await {
                    Ok(()) => screen.prompt(),
                    Err(refused) => screen.note(format_args!("not sent: {refused}")),
                },
            },
            reply = replies.next() => match reply {
                Some(Ok(Ok(reply))) => screen.reply(&reply).map_err(Failure::stdout)?,
                Some(Ok(Err(LineError::Unterminated { line, .. }))) => {
                    screen.reply(&line).map_err(Failure::stdout)?;
                    screen.clear();
                    return Err(Failure::cut(line.len()));
                }
                Some(Ok(Err(bad))) => screen.note(format_args!("bad reply: {bad}")),
                Some(Err(error)) => {
                    screen.clear();
                    return Err(Failure::other("the connection failed", error));
                }
                None => {
                    screen.clear();
                    show::note(format_args!("the server has closed the connection"));
                    return Ok(());
                }
            },
        }
    }
}

/// What a person sees: replies on stdout, notes and the prompt below them on stderr.
struct Screen {
    escapes: bool,
    prompts: bool,
}

impl Screen {
    fn new() -> Self {
        Self { escapes: io::stdout().is_terminal(), prompts: io::stderr().is_terminal() }
    }

    fn reply(&self, reply: &[u8]) -> io::Result<()> {
        self.clear();
        let mut stdout = io::stdout().lock();
        match self.escapes {
            true => stdout.write_all(show::escaped(reply).as_bytes())?,
            false => stdout.write_all(reply)?,
        }
        stdout.write_all(b"\n")?;
        stdout.flush()?;
        self.prompt();
        Ok(())
    }

    fn note(&self, note: fmt::Arguments<'_>) {
        self.clear();
        show::note(note);
        self.prompt();
    }

    fn prompt(&self) {
        self.steer("> ");
    }

    /// Takes the prompt away, with what was typed behind it so far; that is sent with its line all the same.
    fn clear(&self) {
        self.steer("\r\x1b[K");
    }

    /// Leaves the line with the prompt on it to whatever is shown next.
    fn end(&self) {
        self.steer("\n");
    }

    fn steer(&self, codes: &str) {
        if self.prompts {
            _ = io::stderr().write_all(codes.as_bytes());
        }
    }
}

/// What is typed, a line at a time, from a thread of its own that is never joined: it may wait for a line for ever.
fn typed_lines() -> mpsc::Receiver<Bytes> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for mut line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
            // Of a line end as Windows has it, or of Enter pressed before this program had the terminal.
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if send.blocking_send(line.into()).is_err() {
                break;
            }
        }
    });
    lines
}
