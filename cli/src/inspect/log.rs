//! Formats frames as text or JSON and writes them to the output.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use lineframe::scan::Terminator;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::frames::{Bad, Frame};
use super::notes::Notes;
use crate::show;

/// A direction writes its entries when they reach this size. Up to `MAX_WRITES` writes are queued;
/// then passing bytes on waits for the output.
const LARGEST_WRITE: usize = 64 * 1024;
const MAX_WRITES: usize = 4;

const RED: &str = "\x1b[31m";
const NO_COLOUR: &str = "\x1b[0m";

#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Text { colour: bool },
    Json,
}

/// Connection and direction of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Connection number, starting at 1.
    pub(super) connection: u64,
    pub(super) direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Direction {
    /// From the client, or into the command's stdin.
    ToServer,
    /// From the server, or out of the command's stdout.
    ToClient,
    /// Read from a file.
    File,
}

/// The output, shared by all directions.
#[derive(Clone)]
pub(super) struct Log {
    style: Style,
    to_writer: mpsc::Sender<Vec<u8>>,
    bad: Arc<BadCounts>,
}

#[derive(Default)]
struct BadCounts {
    framing: AtomicU64,
    json: AtomicU64,
}

/// The output is closed. The writer holds the error.
#[derive(Debug)]
pub(super) struct Closed;

/// Destination of the frames.
pub(super) struct Output {
    pub(super) to: Box<dyn Write + Send>,
    /// Name in messages.
    pub(super) name: String,
    pub(super) if_full: IfFull,
}

/// Behaviour if the output cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfFull {
    /// Stop reading: a file or stdin is only read for the output.
    End,
    /// Continue to pass bytes on, unless the output is a closed pipe.
    PassUnlessClosed,
    /// Continue to pass bytes on.
    Pass,
}

impl IfFull {
    fn ends_after(self, error: &io::Error) -> bool {
        match self {
            Self::End => true,
            Self::PassUnlessClosed => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Pass => false,
        }
    }
}

/// How the output ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    All,
    /// Partly; the error was reported on stderr.
    Part,
}

impl Log {
    /// Returns the log and the handle of its writer, which ends when every clone of the log is
    /// dropped or when writing fails.
    pub(super) fn new(style: Style, output: Output, notes: Notes) -> (Self, JoinHandle<io::Result<Written>>) {
        let (to_writer, mut writes) = mpsc::channel::<Vec<u8>>(MAX_WRITES);
        let Output { mut to, name, if_full } = output;
        let writer = tokio::task::spawn_blocking(move || {
            let mut header = matches!(style, Style::Text { .. }).then(header);
            let mut write = |bytes: &[u8]| {
                if let Some(header) = header.take() {
                    to.write_all(header.as_bytes())?;
                }
                to.write_all(bytes)?;
                to.flush()
            };
            let mut written = Written::All;
            while let Some(bytes) = writes.blocking_recv() {
                match written {
                    Written::Part => {}
                    Written::All => match write(&bytes) {
                        Ok(()) => {}
                        Err(error) if if_full.ends_after(&error) => return Err(error),
                        Err(error) => {
                            written = Written::Part;
                            notes.note(format_args!("lineframe: cannot write to {name}: {error}"));
                        }
                    },
                }
            }
            Ok(written)
        });
        (Self { style, to_writer, bad: Arc::default() }, writer)
    }

    pub(super) fn begin(&self, place: Place) -> Entries<'_> {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        Entries { log: self, place, time, text: String::new() }
    }

    /// Returns the number of badly framed lines and of lines that are not JSON.
    pub(super) fn bad(&self) -> (u64, u64) {
        (self.bad.framing.load(Relaxed), self.bad.json.load(Relaxed))
    }

    async fn write(&self, bytes: Vec<u8>) -> Result<(), Closed> {
        self.to_writer.send(bytes).await.map_err(|_| Closed)
    }
}

/// Returns the header, which is printed above the first row.
fn header() -> String {
    format!("{:<15} {:>4} {:>7} {:>5} END  READS  TEXT\n", "TIME (UTC)", "CONN", "OFFSET", "LEN")
}

/// Entries of one read, buffered for the writer.
pub(super) struct Entries<'a> {
    log: &'a Log,
    place: Place,
    time: String,
    text: String,
}

impl Entries<'_> {
    pub(super) fn frame(&mut self, frame: &Frame<'_>) {
        match frame.bad {
            None => {}
            Some(Bad::NotJson(_)) => _ = self.log.bad.json.fetch_add(1, Relaxed),
            Some(_) => _ = self.log.bad.framing.fetch_add(1, Relaxed),
        }
        match self.log.style {
            Style::Text { colour } => self.row(frame, colour),
            Style::Json => self.object(frame),
        }
    }

    /// Adds a row that is not a frame, such as the end of a connection. Text output only.
    pub(super) fn note(&mut self, note: impl Display) {
        if let Style::Text { .. } = self.log.style {
            let row = format!("{} {:>4} -- {note}", self.clock(), self.at());
            self.text.push_str(&show::escaped(row.as_bytes()));
            self.text.push('\n');
        }
    }

    /// Writes the buffered entries if they have reached `LARGEST_WRITE`.
    pub(super) async fn write_full(&mut self) -> Result<(), Closed> {
        if self.text.len() < LARGEST_WRITE {
            return Ok(());
        }
        self.write().await
    }

    pub(super) async fn write(&mut self) -> Result<(), Closed> {
        match self.text.is_empty() {
            true => Ok(()),
            false => self.log.write(std::mem::take(&mut self.text).into_bytes()).await,
        }
    }

    fn row(&mut self, frame: &Frame<'_>, colour: bool) {
        let (on, off) = if frame.bad.is_some() && colour { (RED, NO_COLOUR) } else { ("", "") };
        let Frame { offset, length, terminator, .. } = frame;
        let (end, reads, text) = (name(*terminator), Reads(frame), show::escaped(frame.text));
        let rest = if (frame.text.len() as u64) < *length { "…" } else { "" };
        let (clock, at) = (self.clock().to_owned(), self.at());
        _ = writeln!(
            self.text,
            "{on}{clock} {at:>4} {offset:>7} {length:>5} {end:<4} {reads:<5}  {text}{rest}{off}"
        );
        if let Some(bad) = &frame.bad {
            _ = writeln!(self.text, "{:>15} {on}   ^ {bad}{off}", "");
        }
    }

    fn object(&mut self, frame: &Frame<'_>) {
        #[derive(Serialize)]
        struct Object<'a> {
            time: &'a str,
            connection: u64,
            direction: Direction,
            offset: u64,
            length: u64,
            terminator: String,
            reads: u64,
            cuts: &'a [u64],
            #[serde(skip_serializing_if = "Option::is_none")]
            text: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hex: Option<String>,
            truncated: bool,
            bad: Option<String>,
        }
        let text = std::str::from_utf8(frame.text).ok();
        let object = Object {
            time: &self.time,
            connection: self.place.connection,
            direction: self.place.direction,
            offset: frame.offset,
            length: frame.length,
            terminator: name(frame.terminator),
            reads: frame.reads,
            cuts: frame.cuts,
            text,
            hex: text.is_none().then(|| hex(frame.text)),
            truncated: (frame.text.len() as u64) < frame.length,
            bad: frame.bad.as_ref().map(Bad::to_string),
        };
        // Cannot fail: the object contains only numbers, strings and arrays of numbers.
        let object = serde_json::to_string(&object).unwrap_or_default();
        if object.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            self.text.push_str(&object);
            return self.text.push('\n');
        }
        for character in object.chars() {
            // Non-ASCII characters occur only in strings, where JSON allows `\u` escapes.
            match show::needs_escape(character) {
                true => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        _ = write!(self.text, "\\u{unit:04x}");
                    }
                }
                false => self.text.push(character),
            }
        }
        self.text.push('\n');
    }

    /// Returns the time of day.
    fn clock(&self) -> &str {
        self.time.get(11..26).unwrap_or(&self.time)
    }

    fn at(&self) -> String {
        match (self.place.direction, self.place.connection) {
            (Direction::ToServer, connection) => format!("{connection}>"),
            (Direction::ToClient, connection) => format!("<{connection}"),
            (Direction::File, _) => String::new(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Returns the name of a terminator in the output.
fn name(terminator: Option<Terminator>) -> String {
    match terminator {
        None => "none".into(),
        Some(Terminator::Lf | Terminator::Byte(b'\n')) => "LF".into(),
        Some(Terminator::CrLf) => "CRLF".into(),
        Some(Terminator::Byte(b'\r')) => "CR".into(),
        Some(Terminator::Byte(0)) => "NUL".into(),
        Some(Terminator::Byte(byte)) => format!("{byte:02x}"),
        Some(_) => "SEQ".into(),
    }
}

/// Displays reads as `1`, or as `3@2,7` for three reads cut after 2 and 7 bytes.
struct Reads<'a>(&'a Frame<'a>);

impl Display for Reads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;

        let Frame { reads, cuts, .. } = self.0;
        let mut text = reads.to_string();
        for (nth, cut) in cuts.iter().take(SHOWN).enumerate() {
            _ = write!(text, "{}{cut}", if nth == 0 { '@' } else { ',' });
        }
        if *reads > SHOWN as u64 + 1 {
            text.push_str(",…");
        }
        f.pad(&text)
    }
}

impl Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { max_length } => {
                write!(f, "longer than the limit of {} (--max-length)", show::bytes(*max_length))
            }
            Self::BareTerminator => f.write_str("contains a CR or LF that is not part of a CRLF"),
            Self::Cut => f.write_str("cut: the stream ended before the terminator"),
            Self::NotJson(why) => write!(f, "not JSON: {why}"),
        }
    }
}
