//! What `recv(1024)` makes of messages, and what [`LineCodec`] makes of the very same reads.
//!
//! The server of the socket tutorial that nearly everyone has typed calls `recv(1024)` and takes what it returns for a
//! message. On a real TCP connection, this shows message for message when that holds.
//!
//! ```sh
//! cargo run --example recv_1024            # coloured on a terminal, unless NO_COLOR is set
//! cargo run --example recv_1024 -- --json  # the same as data
//! ```

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use lineframe::LineCodec;
use serde_json::json;
use tokio_util::codec::Decoder;

/// What the tutorial says.
const RECV: usize = 1024;

fn main() -> io::Result<()> {
    let json = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(_) => return Err(io::Error::other("the only option is --json")),
    };
    let sends = sends();
    let sent = sends.concat();
    let reads = send_and_recv(&sends)?;
    let frames = decode(&reads)?;
    if !frames.iter().map(|frame| &frame.line).eq(&sent) {
        return Err(io::Error::other("the frames are not what was sent"));
    }

    let pieces = pieces(&sent, &reads);
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let picture = Picture { color, out: String::new() };
    let shown = if json { as_json(&sends, &pieces, &frames) } else { picture.draw(&sends, &pieces, &frames) };
    io::stdout().write_all(shown.as_bytes())
}

/// Eight messages of a chat client, in the five goes in which it sends them.
fn sends() -> Vec<Vec<Bytes>> {
    let long = |length: usize, text: &str| text.bytes().cycle().take(length).collect();
    vec![
        vec!["HELLO alice".into()],
        vec!["JOIN #rust".into(), "SAY good morning!".into(), "SAY does this ever lose messages?".into()],
        vec![
            long(944, "PASTE while True: data = conn.recv(1024); if not data: break; handle(data); "),
            long(2480, "LOG json.decoder.JSONDecodeError: Unterminated string starting at char 1019; "),
        ],
        vec![long(1500, "LOG json.decoder.JSONDecodeError: Extra data at char 961; ")],
        vec!["SAY odd. it works on my machine".into()],
    ]
}

/// Sends over TCP what one go after the other holds, and gives what each `recv(1024)` at the other end returned.
fn send_and_recv(sends: &[Vec<Bytes>]) -> io::Result<Vec<Vec<u8>>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;

    let mut codec = LineCodec::new();
    let mut reads = Vec::new();
    for messages in sends {
        let mut wire = BytesMut::new();
        for message in messages {
            codec.encode_line(message, &mut wire)?;
        }
        client.write_all(&wire)?;
        wait_for(&server, wire.len())?;
        let mut left = wire.len();
        while left > 0 {
            let read = recv(&mut server)?;
            left = left.saturating_sub(read.len());
            reads.push(read);
        }
    }
    client.shutdown(Shutdown::Write)?;
    match recv(&mut server) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(reads),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("more arrived than was sent")),
    }
}

/// The tutorial's `conn.recv(1024)`.
fn recv(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; RECV];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(buffer[..count].to_vec()),
    }
}

/// Until so many bytes have arrived: a server that is slower than its client, so that every run shows the same.
fn wait_for(stream: &TcpStream, count: usize) -> io::Result<()> {
    let mut arrived = vec![0; count];
    loop {
        match stream.peek(&mut arrived)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            all if all == count => return Ok(()),
            _ => std::thread::yield_now(),
        }
    }
}

/// A line that the codec has handed over, and the numbers of the reads that it lay in.
struct Frame {
    line: Bytes,
    first_read: usize,
    last_read: usize,
}

/// The same reads through the codec, one after the other.
fn decode(reads: &[Vec<u8>]) -> io::Result<Vec<Frame>> {
    let mut codec = LineCodec::new();
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut first_read = 1;
    for (last_read, read) in (1..).zip(reads) {
        if buffer.is_empty() {
            first_read = last_read;
        }
        buffer.extend_from_slice(read);
        while let Some(line) = codec.decode(&mut buffer)? {
            frames.push(Frame { line: line?, first_read, last_read });
            first_read = last_read;
        }
    }
    match codec.decode_eof(&mut buffer)? {
        None => Ok(frames),
        Some(rest) => Err(io::Error::other(format!("left over: {rest:?}"))),
    }
}

/// What a read holds of one message.
struct Piece {
    /// Counted from 1.
    message: usize,
    /// How many bytes the message has, its newline not counted.
    length: usize,
    /// Of the message's bytes, its newline being the last one.
    range: Range<usize>,
}

impl Piece {
    fn is_cut_before(&self) -> bool {
        self.range.start > 0
    }

    fn is_cut_after(&self) -> bool {
        self.range.end <= self.length
    }

    fn is_whole(&self) -> bool {
        !self.is_cut_before() && !self.is_cut_after()
    }
}

/// For each read, what it holds of which messages.
fn pieces(sent: &[Bytes], reads: &[Vec<u8>]) -> Vec<Vec<Piece>> {
    let messages = in_stream(sent.iter().map(|line| line.len() + 1));
    let pieces_in = |read: Range<usize>| {
        let overlapping = (1..).zip(&messages).filter(|(_, at)| at.start < read.end && read.start < at.end);
        overlapping
            .map(|(message, at)| Piece {
                message,
                length: at.len() - 1,
                range: at.start.max(read.start) - at.start..at.end.min(read.end) - at.start,
            })
            .collect()
    };
    in_stream(reads.iter().map(Vec::len)).into_iter().map(pieces_in).collect()
}

/// Where things of these lengths lie in a stream of nothing else.
fn in_stream(lengths: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let starts_at = |end: &mut usize, length| Some(std::mem::replace(end, *end + length)..*end);
    lengths.scan(0, starts_at).collect()
}

/// What a read is, for who takes it for a message.
fn verdict(pieces: &[Piece]) -> String {
    let part = |piece: &Piece, of: &str| match (piece.is_cut_before(), piece.is_cut_after()) {
        (false, false) => format!("{of}{}", piece.message),
        (false, true) => {
            format!("first {} of {} bytes of {of}{}", piece.range.len(), piece.length, piece.message)
        }
        (true, true) => format!("{} bytes out of {of}{}", piece.range.len(), piece.message),
        (true, false) => format!("the end of {of}{}", piece.message),
    };
    match pieces {
        _ if is_right(pieces) => "right, by luck".into(),
        [first, .., last] if pieces.iter().all(Piece::is_whole) => {
            format!("messages {}-{} merged", first.message, last.message)
        }
        [first, others @ ..] => {
            let others = others.iter().map(|piece| format!(" + {}", part(piece, "")));
            std::iter::once(part(first, "message ")).chain(others).collect()
        }
        [] => "nothing".into(),
    }
}

fn is_right(pieces: &[Piece]) -> bool {
    matches!(pieces, [one] if one.is_whole())
}

/// Draws with one colour, and one digit, per message.
struct Picture {
    color: bool,
    out: String,
}

impl Picture {
    const WIDTH: usize = 80;
    /// What stands before a bar.
    const MARGIN: usize = 18;
    /// The length of a full read's bar. All bars have this scale.
    const CELLS: usize = 20;
    /// Of the 256-colour palette, light enough for black digits.
    const COLORS: [u8; 8] = [75, 215, 114, 212, 80, 221, 209, 147];

    fn draw(mut self, sends: &[Vec<Bytes>], reads: &[Vec<Piece>], frames: &[Frame]) -> String {
        self.title("Sent", "a line each, newline not counted; joined: sent in one go");
        let mut message = 0;
        for go in sends {
            for (place, line) in go.iter().enumerate() {
                message += 1;
                let joined = match place {
                    _ if go.len() == 1 => ' ',
                    0 => '┌',
                    last if last + 1 == go.len() => '└',
                    _ => '│',
                };
                self.margin(joined, "message", message, line.len());
                self.whole(message, line, "");
            }
        }

        self.title("recv(1024)", "what each call returned, newlines included");
        for (number, pieces) in (1..).zip(reads) {
            self.margin(' ', "read", number, pieces.iter().map(|piece| piece.range.len()).sum());
            self.pieces(pieces);
            self.styled(if is_right(pieces) { "32" } else { "31" }, &format!(" {}", verdict(pieces)));
            self.out.push('\n');
        }

        self.title("LineCodec", "what it made of the same reads");
        for (number, frame) in (1..).zip(frames) {
            let Frame { line, first_read, last_read } = frame;
            let from = if first_read == last_read {
                format!("read {last_read}")
            } else {
                format!("reads {first_read}-{last_read}")
            };
            self.margin(' ', "frame", number, line.len());
            self.whole(number, line, &from);
        }

        let sent = sends.iter().flatten().count();
        let right = reads.iter().filter(|pieces| is_right(pieces)).count();
        let (made, framed) = (reads.len(), frames.len());
        self.out.push('\n');
        let of_recv = format!("{sent} messages sent; recv({RECV}) made {made}, {right} right by luck;");
        self.styled("1", &format!("{of_recv} LineCodec {framed}, all right"));
        self.out.push('\n');
        self.out
    }

    fn title(&mut self, title: &str, what: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.styled("1", &format!("{title:10}"));
        self.styled("2", &format!(" bytes  {what}"));
        self.out.push('\n');
    }

    fn margin(&mut self, joined: char, what: &str, number: usize, bytes: usize) {
        _ = write!(self.out, "{joined} {:9} {bytes:4} ", format!("{what} {number}"));
    }

    /// A message in one piece, with as much of its text as there is room for, in its bar or behind it.
    fn whole(&mut self, message: usize, line: &[u8], note: &str) {
        let cells = cells(line.len()).clamp(1, Self::WIDTH - Self::MARGIN - 14);
        let mut room = Self::WIDTH - Self::MARGIN - cells - 2;
        let text = String::from_utf8_lossy(line);
        let is_inside = cells > Self::CELLS / 2;
        self.edge(None);
        self.bar(message, cells, &if is_inside { clipped(&text, cells - 5) } else { String::new() });
        self.edge(None);
        if !is_inside {
            let behind = clipped(&text, room - 12);
            room -= behind.chars().count() + 1;
            _ = write!(self.out, " {behind}");
        }
        if !note.is_empty() {
            self.styled("2", &format!("{note:>room$}"));
        }
        self.out.push('\n');
    }

    fn pieces(&mut self, pieces: &[Piece]) {
        self.edge(pieces.first().is_some_and(Piece::is_cut_before).then_some("<"));
        let (mut bytes, mut drawn) = (0, 0);
        for piece in pieces {
            bytes += piece.range.len();
            let end = cells(bytes).max(drawn + 1);
            self.bar(piece.message, end - drawn, "");
            drawn = end;
        }
        self.edge(pieces.last().is_some_and(Piece::is_cut_after).then_some(">"));
        _ = write!(self.out, "{:1$}", "", Self::CELLS - drawn.min(Self::CELLS));
    }

    /// The digit of the message, its text, and the message's colour (without colours: its digit) all along.
    fn bar(&mut self, message: usize, cells: usize, text: &str) {
        let filler = if self.color { ' ' } else { char::from_digit(message as u32 % 10, 10).unwrap_or('#') };
        let mut bar = message.to_string();
        if !text.is_empty() {
            bar = format!("{bar} {text} ");
        }
        let drawn = bar.chars().count();
        bar.extend(std::iter::repeat_n(filler, cells.saturating_sub(drawn)));
        let color = Self::COLORS[message.saturating_sub(1) % Self::COLORS.len()];
        self.styled(&format!("38;5;16;48;5;{color}"), &bar);
    }

    /// An end of a bar, marked where a message is cut there.
    fn edge(&mut self, cut: Option<&str>) {
        match cut {
            Some(mark) => self.styled("1;31", mark),
            None => self.out.push(if self.color { ' ' } else { '|' }),
        }
    }

    fn styled(&mut self, style: &str, text: &str) {
        _ = match self.color {
            true => write!(self.out, "\x1b[{style}m{text}\x1b[0m"),
            false => write!(self.out, "{text}"),
        };
    }
}

/// The length of a bar for so many bytes, rounded.
fn cells(bytes: usize) -> usize {
    (bytes * Picture::CELLS + RECV / 2) / RECV
}

fn clipped(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.into(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn as_json(sends: &[Vec<Bytes>], reads: &[Vec<Piece>], frames: &[Frame]) -> String {
    let text = String::from_utf8_lossy;
    let sends = sends.iter().map(|go| go.iter().map(|line| text(line)).collect::<Vec<_>>());
    let reads = reads.iter().map(|pieces| {
        let held = pieces.iter().map(|piece| {
            let Piece { message, length, range } = piece;
            json!({ "message": message, "length": length, "start": range.start, "end": range.end })
        });
        json!({ "pieces": held.collect::<Vec<_>>(), "verdict": verdict(pieces), "right": is_right(pieces) })
    });
    let frames = frames.iter().map(|frame| {
        let Frame { line, first_read, last_read } = frame;
        json!({ "line": text(line), "first_read": first_read, "last_read": last_read })
    });
    let lists = json!({
        "sends": sends.collect::<Vec<_>>(),
        "reads": reads.collect::<Vec<_>>(),
        "frames": frames.collect::<Vec<_>>(),
    });
    format!("{lists:#}\n")
}
