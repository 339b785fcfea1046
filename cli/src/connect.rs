//! Lines by hand.

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

/// Talk to a server by hand.
///
/// Sends each line that you type, but empty ones, and prints the server's lines above it as they come, with control
/// characters written out. Up and down, Ctrl-R and the usual keys edit; Ctrl-D, Ctrl-C and the server's end end it. Where
/// stdin is not a terminal it is `send`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  lineframe connect 127.0.0.1:8083
  lineframe connect --crlf --reconnect irc.example:6667")]
pub(crate) struct Arguments {
    /// The server: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR")]
    address: Address,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    connecting: Connecting,
}

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// When the server goes, connect again, for as long as it takes
    #[arg(long)]
    reconnect: bool,

    /// Send empty lines too
    #[arg(long)]
    send_empty: bool,

    /// Where lines are stored from one run to the next. A line that begins with a space is not stored, but is sent with
    /// its space [default: lineframe/history in $XDG_STATE_HOME or ~/.local/state]
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
    /// The usual ones, but that nothing is remembered.
    pub(crate) fn forgetful() -> Self {
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

/// So many bytes may wait for the server to read them before further lines are refused.
const MOST_UNSENT: usize = 1 << 20;

/// So many keys are taken before the screen is brought up to date.
const MOST_KEYS: usize = 4000;

/// Keys that follow each other within this are taken together: a paste, which costs one redraw.
const PASTE_GAP: Duration = Duration::from_millis(1);

/// How long keys are taken before the screen is brought up to date.
const LONGEST_BATCH: Duration = Duration::from_millis(20);

/// How long what was typed may take to go out when all else has ended.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// A server that goes within this is not connected to again at once.
const SHORT: Duration = Duration::from_secs(1);

/// Talks to `server` by hand, and then with the one at the address `again`; where nobody is there to type, sends what stdin
/// holds.
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
        "{greeting}\nType a line and press Enter. Up and Ctrl-R find earlier ones, Ctrl-D ends."
    ));
    let history = options
        .history_path()
        .map_or(Ok(History::default()), |path| History::open(&path).map_err(|error| (path, error)));
    let history = history.unwrap_or_else(|(path, error)| {
        let path = show::escaped(path.as_os_str().as_encoded_bytes());
        show::note(format_args!("Lines are not remembered: {path}: {error}"));
        History::default()
    });
    // From here on nothing ends the process that does not give the terminal back.
    let signals = Signals::new().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let screen = Screen::new(options.escaping.is_on(&io::stdout()));
    let screen = screen.map_err(|error| Failure::other("cannot use the terminal", error))?;
    let link = Link::to(server, &options.framing);
    let codec = options.framing.codec();
    let unsent = BytesMut::new();
    let editor = Editor::new(history);
    let mut talk = Talk { link, codec, unsent, editor, screen, signals, again, options };
    let ended = talk.run().await;
    // Gives the terminal back.
    drop(talk);
    match ended? {
        Some(Gone::Cut(length)) => Err(Failure::cut(length)),
        Some(Gone::Failed(error)) => Err(Failure::other("the connection failed", error)),
        Some(gone @ Gone::Closed) => {
            show::note(format_args!("{gone}"));
            Ok(())
        }
        None => Ok(()),
    }
}

struct Talk<'a> {
    link: Link,
    codec: LineCodec,
    /// Lines typed that the server has not taken. Grows by a line only while it is not over `MOST_UNSENT`.
    unsent: BytesMut,
    editor: Editor,
    screen: Screen,
    signals: Signals,
    again: Option<(&'a Address, Connecting)>,
    options: &'a Options,
}

/// The way to the server.
enum Link {
    Up { replies: Lines<ReadHalf<AnyIo>>, to_server: WriteHalf<AnyIo>, since: Instant },
    Down(Pin<Box<dyn Future<Output = Result<AnyIo, Failure>>>>),
}

enum Event {
    Came(Batch),
    Gone(Gone),
    NotSent(io::Error),
    Connected(Result<AnyIo, Failure>),
}

/// How a server has gone.
enum Gone {
    Closed,
    /// Within a line, after so many bytes of it.
    Cut(usize),
    Failed(io::Error),
}

impl Link {
    fn to(server: AnyIo, framing: &Framing) -> Self {
        let (from_server, to_server) = tokio::io::split(server);
        let replies = Lines::new(from_server, framing.scanner(Unterminated::Report));
        Self::Up { replies, to_server, since: Instant::now() }
    }

    /// Sends what is unsent, until something else happens. Dropped before, it loses nothing.
    async fn next(&mut self, unsent: &mut BytesMut) -> Event {
        match self {
            Self::Up { replies, to_server, .. } => loop {
                tokio::select! {
                    came = replies.next() => return match came {
                        Ok(Some(batch)) => Event::Came(batch),
                        Ok(None) => Event::Gone(Gone::Closed),
                        Err(error) => Event::Gone(Gone::Failed(error)),
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
    /// Until the person ends it, or the server goes for good.
    async fn run(&mut self) -> Result<Option<Gone>, Failure> {
        let mut typed = typed();
        let mut hung_up = pin!(hung_up());
        loop {
            self.screen.draw(&self.editor);
            tokio::select! {
                // Ctrl-C is a key here.
                _ = self.signals.next() => return Ok(None),
                () = &mut hung_up => return Ok(None),
                keys = typed.recv() => {
                    // Without a terminal there is nobody left.
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
                                self.say_last_words().await;
                                return Ok(None);
                            }
                        }
                    }
                    self.enter();
                }
                event = self.link.next(&mut self.unsent) => {
                    let gone = match event {
                        Event::Came(batch) => self.show(&batch).map_err(Failure::stdout)?,
                        Event::Gone(gone) => Some(gone),
                        Event::NotSent(error) => {
                            self.forget_unsent(error);
                            None
                        }
                        Event::Connected(server) => {
                            self.link = Link::to(server?, &self.options.framing);
                            self.screen.note(format_args!("connected again"));
                            None
                        }
                    };
                    if let Some(gone) = gone {
                        let Some(again) = self.again else { return Ok(Some(gone)) };
                        self.connect_again(gone, again);
                    }
                }
            }
        }
    }

    /// Sends the lines that were entered.
    fn enter(&mut self) {
        for line in self.editor.take_entered() {
            self.screen.leave(&line);
            if line.is_empty() && !self.options.send_empty {
                continue;
            }
            if let Err(error) = self.editor.remember(&line) {
                self.screen.note(format_args!("not remembered: {error}"));
            }
            if self.unsent.len() > MOST_UNSENT {
                self.screen.note(format_args!("not sent: the server has still to read what was sent before"));
            } else if let Err(refused) = self.codec.encode_line(line.as_bytes(), &mut self.unsent) {
                self.screen.note(format_args!("not sent: {refused}"));
            }
        }
    }

    /// Shows replies in their order, bad ones by what is wrong with them, and tells where one was cut.
    fn show(&mut self, batch: &Batch) -> io::Result<Option<Gone>> {
        let mut gone = None;
        for lines in batch.lines.split_inclusive(|line| line.kind != Kind::Line) {
            let last = lines.last().map(|line| (line.kind, line.content.len()));
            let (shown, bad) = match last {
                Some((Kind::Line, _)) | None => (lines, None),
                Some((Kind::Unterminated, length)) => {
                    gone = Some(Gone::Cut(length));
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
        Ok(gone)
    }

    fn connect_again(&mut self, gone: Gone, (address, connecting): (&Address, Connecting)) {
        self.screen.note(format_args!("{gone}; connecting again"));
        self.forget_unsent("the server has gone");
        let was_short = matches!(self.link, Link::Up { since, .. } if since.elapsed() < SHORT);
        let address = address.clone();
        self.link = Link::Down(Box::pin(async move {
            if was_short {
                sleep(SHORT).await;
            }
            connecting.for_ever().connect(&address).await
        }));
    }

    fn forget_unsent(&mut self, why: impl Display) {
        if !self.unsent.is_empty() {
            self.screen.note(format_args!("{} not sent: {why}", show::bytes(self.unsent.len())));
            self.unsent.clear();
        }
    }

    /// What was entered before the end goes out before it, if the server takes it.
    async fn say_last_words(&mut self) {
        if let Link::Up { to_server, .. } = &mut self.link {
            let saying = async {
                to_server.write_all_buf(&mut self.unsent).await?;
                to_server.shutdown().await
            };
            _ = timeout(LAST_WORDS, saying).await;
        }
        self.forget_unsent("the server has not taken them");
    }
}

/// What is typed, from a thread of its own that is never joined: it may wait for a key for ever.
fn typed() -> mpsc::Receiver<Vec<crossterm::event::Event>> {
    // One batch, so that the next ones grow while the screen is brought up to date.
    let (send, typed) = mpsc::channel(1);
    std::thread::spawn(move || while keys().is_ok_and(|keys| send.blocking_send(keys).is_ok()) {});
    typed
}

/// Waits for a key, and takes those that follow it without a pause.
fn keys() -> io::Result<Vec<crossterm::event::Event>> {
    let mut keys = vec![crossterm::event::read()?];
    let first = Instant::now();
    while keys.len() < MOST_KEYS && first.elapsed() < LONGEST_BATCH && crossterm::event::poll(PASTE_GAP)? {
        keys.push(crossterm::event::read()?);
    }
    Ok(keys)
}

/// Waits until the terminal has gone. crossterm goes on reading where nothing is left, so the end is here also where SIGHUP was
/// to be ignored.
async fn hung_up() {
    #[cfg(unix)]
    if let Ok(mut hangup) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        hangup.recv().await;
        return;
    }
    std::future::pending().await
}

impl Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server has closed the connection"),
            Self::Cut(length) => {
                write!(f, "the server has left within a line, after {} of it", show::bytes(*length))
            }
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
        }
    }
}
