//! The command `connect`: an interactive session with a server.

mod editor;
mod history;
mod screen;

use std::fmt::{self, Display};
use std::future::Future;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BytesMut;
use lineframe::scan::Kind;
use lineframe::{AnyIo, LineCodec, Unterminated};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use self::editor::{Editor, Request};
use self::history::History;
use self::screen::Screen;
use crate::address::Address;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::lines::{Batch, Lines};
use crate::show::Escaping;
use crate::signals::Signals;
use crate::stream::Connecting;
use crate::units::{self, Limit};
use crate::{send, show};

/// Talk to a server interactively.
///
/// Sends each line that you type, except empty lines. Prints the lines of the server above the
/// input line when they arrive, with control characters escaped. Up, Down and Ctrl-R recall earlier
/// lines. The session ends at Ctrl-D, at Ctrl-C, or when the server closes the connection.
///
/// If stdin is not a terminal, `connect` works like `send`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  lineframe connect 127.0.0.1:8083
  lineframe connect --crlf --reconnect irc.example:6667")]
pub(crate) struct Arguments {
    /// Server: host:port, a path with a slash for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    connecting: Connecting,
}

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Reconnect when the connection ends, and retry until it succeeds
    #[arg(long)]
    reconnect: bool,

    /// Send empty lines too
    #[arg(long)]
    send_empty: bool,

    /// File that stores typed lines between sessions. A line that begins with a space is not
    /// stored, but is sent with its space [default: lineframe/history in $XDG_STATE_HOME or
    /// ~/.local/state]
    #[arg(long, value_name = "FILE|none", value_parser = units::limit(file))]
    history: Option<Limit<PathBuf>>,

    #[command(flatten)]
    escaping: Escaping,

    #[command(flatten)]
    framing: Framing,
}

fn file(path: &str) -> Result<PathBuf, String> {
    Ok(path.into())
}

impl Options {
    /// Returns the default options without a history file.
    pub(crate) fn without_history() -> Self {
        Self { history: Some(Limit(None)), ..Self::default() }
    }

    fn history_path(&self) -> Option<PathBuf> {
        match &self.history {
            Some(Limit(path)) => path.clone(),
            None => history::default_path(),
        }
    }
}

pub(crate) async fn run(Arguments { address, options, connecting }: Arguments) -> Result<(), Failure> {
    let server = connecting.connect(&address).await?;
    let greeting = format!("Connected to {address}.");
    let again = options.reconnect.then_some((&address, connecting));
    talk(server, greeting, again, &options).await
}

/// Limit for unsent bytes in a session. Beyond it, further lines are refused.
const MAX_UNSENT: usize = 1 << 20;

/// Maximum number of keys handled between two updates of the screen.
const MAX_KEYS: usize = 4000;

/// Maximum pause between two keys of the same batch. A pasted text then costs one update.
const PASTE_GAP: Duration = Duration::from_millis(1);

/// Maximum duration of a batch of keys.
const LONGEST_BATCH: Duration = Duration::from_millis(20);

/// Time limit for sending the remaining lines when the session ends.
const LAST_WRITE: Duration = Duration::from_millis(50);

/// Pause before a reconnection if the previous connection lasted less than this.
const SHORT: Duration = Duration::from_secs(1);

/// Runs an interactive session with `server`; reconnects to the address `again` if there is one.
/// If stdin is not a terminal, sends its lines like `send`.
pub(crate) async fn talk(
    server: AnyIo,
    greeting: impl Display,
    again: Option<(&Address, Connecting)>,
    options: &Options,
) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return send::pipe(server, &send::Options::new(options.framing.clone(), options.escaping)).await;
    }
    show::note(format_args!(
        "{greeting}\nType a line and press Enter. Up and Ctrl-R recall earlier lines; Ctrl-D exits."
    ));
    let history = options
        .history_path()
        .map_or(Ok(History::default()), |path| History::open(&path).map_err(|error| (path, error)));
    let history = history.unwrap_or_else(|(path, error)| {
        let path = show::escaped(path.as_os_str().as_encoded_bytes());
        show::note(format_args!("Lines are not stored: cannot use {path}: {error}"));
        History::default()
    });
    // Handle signals before raw mode begins, so that every exit restores the terminal.
    let signals = Signals::new().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let screen = Screen::new(options.escaping.is_on(&io::stdout()));
    let screen = screen.map_err(|error| Failure::other("cannot use the terminal", error))?;
    let link = Link::to(server, &options.framing);
    let codec = options.framing.codec();
    let unsent = BytesMut::new();
    let editor = Editor::new(history);
    let mut talk = Talk { link, codec, unsent, editor, screen, signals, again, options };
    let ended = talk.run().await;
    // Restores the terminal.
    drop(talk);
    match ended? {
        Some(End::Cut(length)) => Err(Failure::cut(length)),
        Some(End::Failed(error)) => Err(Failure::other("connection failed", error)),
        Some(end @ End::Closed) => {
            show::note(format_args!("{end}"));
            Ok(())
        }
        None => Ok(()),
    }
}

struct Talk<'a> {
    link: Link,
    codec: LineCodec,
    /// Encoded lines not yet sent. A line is added only if the length is at most `MAX_UNSENT`.
    unsent: BytesMut,
    editor: Editor,
    screen: Screen,
    signals: Signals,
    again: Option<(&'a Address, Connecting)>,
    options: &'a Options,
}

/// Connection state.
enum Link {
    Up { replies: Lines<ReadHalf<AnyIo>>, to_server: WriteHalf<AnyIo>, since: Instant },
    Down(Pin<Box<dyn Future<Output = Result<AnyIo, Failure>>>>),
}

enum Event {
    Received(Batch),
    Ended(End),
    NotSent(io::Error),
    Connected(Result<AnyIo, Failure>),
}

/// How a connection ended.
enum End {
    Closed,
    /// Within a line, after this many of its bytes.
    Cut(usize),
    Failed(io::Error),
}

impl Link {
    fn to(server: AnyIo, framing: &Framing) -> Self {
        let (from_server, to_server) = tokio::io::split(server);
        let replies = Lines::new(from_server, framing.scanner(Unterminated::Report));
        Self::Up { replies, to_server, since: Instant::now() }
    }

    /// Sends `unsent` until the next event. Cancel safe.
    async fn next(&mut self, unsent: &mut BytesMut) -> Event {
        match self {
            Self::Up { replies, to_server, .. } => loop {
                tokio::select! {
                    received = replies.next() => return match received {
                        Ok(Some(batch)) => Event::Received(batch),
                        Ok(None) => Event::Ended(End::Closed),
                        Err(error) => Event::Ended(End::Failed(error)),
                    },
                    sent = to_server.write_buf(unsent), if !unsent.is_empty() => {
                        if let Err(error) = sent {
                            return Event::NotSent(error);
                        }
                    }
                }
            },
            Self::Down(connecting) => Event::Connected(connecting.await),
        }
    }
}

impl Talk<'_> {
    /// Runs the session. Returns `None` if the user ended it, or how the connection ended.
    async fn run(&mut self) -> Result<Option<End>, Failure> {
        let mut typed = typed();
        let mut hung_up = pin!(hung_up());
        loop {
            self.screen.draw(&self.editor);
            tokio::select! {
                // In raw mode Ctrl-C is a key and not a signal.
                _ = self.signals.next() => return Ok(None),
                () = &mut hung_up => return Ok(None),
                keys = typed.recv() => {
                    // The terminal is gone.
                    let Some(keys) = keys else { return Ok(None) };
                    let mut keys = keys.into_iter();
                    loop {
                        match self.editor.handle(&mut keys) {
                            Request::None => break,
                            Request::Clear => self.screen.clear_all(),
                            Request::Suspend => {
                                let suspended = self.screen.suspend();
                                suspended.map_err(|error| Failure::other("cannot use the terminal", error))?;
                            }
                            Request::End => {
                                self.enter();
                                self.screen.end();
                                self.flush_and_close().await;
                                return Ok(None);
                            }
                        }
                    }
                    self.enter();
                }
                event = self.link.next(&mut self.unsent) => {
                    let end = match event {
                        Event::Received(batch) => self.show(&batch).map_err(Failure::stdout)?,
                        Event::Ended(end) => Some(end),
                        Event::NotSent(error) => {
                            self.discard_unsent(error);
                            None
                        }
                        Event::Connected(server) => {
                            self.link = Link::to(server?, &self.options.framing);
                            self.screen.note(format_args!("reconnected"));
                            None
                        }
                    };
                    if let Some(end) = end {
                        let Some(again) = self.again else { return Ok(Some(end)) };
                        self.reconnect(end, again);
                    }
                }
            }
        }
    }

    /// Queues the entered lines for sending and adds them to the history.
    fn enter(&mut self) {
        for line in self.editor.take_entered() {
            self.screen.leave(&line);
            if line.is_empty() && !self.options.send_empty {
                continue;
            }
            if let Err(error) = self.editor.remember(&line) {
                self.screen.note(format_args!("not stored in the history: {error}"));
            }
            if self.unsent.len() > MAX_UNSENT {
                self.screen.note(format_args!("not sent: the server has not read the earlier lines yet"));
            } else if let Err(refused) = self.codec.encode_line(line.as_bytes(), &mut self.unsent) {
                self.screen.note(format_args!("not sent: {refused}"));
            }
        }
    }

    /// Prints the replies of a batch in order, and a note for each bad one. Returns `End::Cut` if
    /// the stream ended within a reply.
    fn show(&mut self, batch: &Batch) -> io::Result<Option<End>> {
        let mut end = None;
        for lines in batch.lines.split_inclusive(|line| line.kind != Kind::Line) {
            let last = lines.last().map(|line| (line.kind, line.content.len()));
            let (shown, bad) = match last {
                Some((Kind::Line, _)) | None => (lines, None),
                Some((Kind::Unterminated, length)) => {
                    end = Some(End::Cut(length));
                    (lines, None)
                }
                Some((kind, _)) => (&lines[..lines.len() - 1], Some(kind)),
            };
            self.screen.replies(&batch.bytes, shown)?;
            if let (Some(kind), Link::Up { replies, .. }) = (bad, &self.link) {
                let fault = replies.fault(kind).unwrap_or_default();
                self.screen.note(format_args!("bad reply: {fault}"));
            }
        }
        Ok(end)
    }

    fn reconnect(&mut self, end: End, (address, connecting): (&Address, Connecting)) {
        self.screen.note(format_args!("{end}; reconnecting"));
        self.discard_unsent("the connection ended");
        let was_short = matches!(self.link, Link::Up { since, .. } if since.elapsed() < SHORT);
        let address = address.clone();
        self.link = Link::Down(Box::pin(async move {
            if was_short {
                sleep(SHORT).await;
            }
            connecting.for_ever().connect(&address).await
        }));
    }

    fn discard_unsent(&mut self, why: impl Display) {
        if !self.unsent.is_empty() {
            self.screen.note(format_args!("{} not sent: {why}", show::bytes(self.unsent.len())));
            self.unsent.clear();
        }
    }

    /// Sends the unsent lines and closes the sending direction, within `LAST_WRITE`.
    async fn flush_and_close(&mut self) {
        if let Link::Up { to_server, .. } = &mut self.link {
            let sending = async {
                to_server.write_all_buf(&mut self.unsent).await?;
                to_server.shutdown().await
            };
            _ = timeout(LAST_WRITE, sending).await;
        }
        self.discard_unsent("the server did not read them in time");
    }
}

/// Returns the typed keys, read by a separate thread. The thread is never joined, because it may
/// wait for a key forever.
fn typed() -> mpsc::Receiver<Vec<crossterm::event::Event>> {
    // Capacity 1: later keys collect into larger batches while the screen is updated.
    let (send, typed) = mpsc::channel(1);
    std::thread::spawn(move || while keys().is_ok_and(|keys| send.blocking_send(keys).is_ok()) {});
    typed
}

/// Waits for a key, and returns it with the keys that follow without a pause.
fn keys() -> io::Result<Vec<crossterm::event::Event>> {
    let mut keys = vec![crossterm::event::read()?];
    let first = Instant::now();
    while keys.len() < MAX_KEYS && first.elapsed() < LONGEST_BATCH && crossterm::event::poll(PASTE_GAP)? {
        keys.push(crossterm::event::read()?);
    }
    Ok(keys)
}

/// Waits for SIGHUP, even if the process was started with SIGHUP ignored: crossterm does not report
/// that the terminal is gone.
async fn hung_up() {
    #[cfg(unix)]
    if let Ok(mut hangup) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        hangup.recv().await;
        return;
    }
    std::future::pending().await
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Cut(length) => {
                write!(f, "the server closed the connection after {} of a line", show::bytes(*length))
            }
            Self::Failed(error) => write!(f, "connection failed: {error}"),
        }
    }
}
