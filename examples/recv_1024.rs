//! Compares `recv(1024)` with [`LineCodec`] on the same reads of a real TCP connection.
//!
//! Many socket tutorials call `recv(1024)` and treat its result as one message. This example sends
//! eight messages and shows, for each read, which parts of which messages it returned.
//!
//! ```sh
//! cargo run --example recv_1024            # in colour on a terminal, unless NO_COLOR is set
//! cargo run --example recv_1024 -- --json  # as JSON
//! ```

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use lineframe::LineCodec;
use serde_json::json;
use tokio_util::codec::Decoder;

/// Size passed to `recv`, in bytes.
const RECV: usize = 1024;

fn main() -> io::Result<()> {
    let json = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(_) => return Err(io::Error::other("unknown argument; the only option is --json")),
    };
    let sends = sends();
    let sent = sends.concat();
    let reads = send_and_recv(&sends)?;
    let frames = decode(&reads)?;
    if !frames.iter().map(|frame| &frame.line).eq(&sent) {
        return Err(io::Error::other("the decoded lines differ from the sent lines"));
    }

    let pieces = pieces(&sent, &reads);
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let picture = Picture { color, out: String::new() };
    let shown = if json { as_json(&sends, &pieces, &frames) } else { picture.draw(&sends, &pieces, &frames) };
    io::stdout().write_all(shown.as_bytes())
}

/// Returns eight messages of a chat client, grouped into five writes.
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

/// Sends each group with one write over TCP. Returns the result of each `recv(1024)` of the server.
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

/// Does the same as Python's `conn.recv(1024)`, except that the end of the stream is an error.
fn recv(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffer = [0; RECV];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(buffer[..count].to_vec()),
    }
}

/// Waits until `count` bytes have arrived, like a slow server. Without this, runs would differ.
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

/// A decoded line and the reads that contained its bytes, counted from 1.
struct Frame {
    line: Bytes,
    first_read: usize,
    last_read: usize,
}

/// Feeds the reads to the codec in order and returns all lines.
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
        Some(rest) => Err(io::Error::other(format!("data after the last line: {rest:?}"))),
    }
}

/// The part of one message that one read returned.
struct Piece {
    /// Message number, counted from 1.
    message: usize,
    /// Length of the message in bytes, without its newline.
    length: usize,
    /// Byte range within the message. The newline is at index `length`.
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

/// Returns the pieces of messages in each read.
fn pieces(sent: &[Bytes], reads: &[Vec<u8>]) -> Vec<Vec<Piece>> {
    let messages = stream_ranges(sent.iter().map(|line| line.len() + 1));
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
    stream_ranges(reads.iter().map(Vec::len)).into_iter().map(pieces_in).collect()
}

/// Returns the ranges in the stream of consecutive parts with the given lengths.
fn stream_ranges(lengths: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let starts_at = |end: &mut usize, length| Some(std::mem::replace(end, *end + length)..*end);
    lengths.scan(0, starts_at).collect()
}

/// Describes how a read differs from one whole message.
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

/// Draws each message in its own colour, or with its own digit if `color` is false.
struct Picture {
    color: bool,
    out: String,
}

impl Picture {
    const WIDTH: usize = 80;
    /// Columns before each bar.
    const MARGIN: usize = 18;
    /// Columns of a bar of 1024 bytes. All bars have this scale.
    const CELLS: usize = 20;
    /// Indices into the 256-colour palette, light enough for black digits.
    const COLORS: [u8; 8] = [75, 215, 114, 212, 80, 221, 209, 147];

    fn draw(mut self, sends: &[Vec<Bytes>], reads: &[Vec<Piece>], frames: &[Frame]) -> String {
        self.title("Sent", "one line each, without newline; joined: one write");
        let mut message = 0;
        for group in sends {
            for (index, line) in group.iter().enumerate() {
                message += 1;
                let joined = match index {
                    _ if group.len() == 1 => ' ',
                    0 => '┌',
                    last if last + 1 == group.len() => '└',
                    _ => '│',
                };
                self.margin(joined, "message", message, line.len());
                self.whole(message, line, "");
            }
        }

        self.title("recv(1024)", "bytes that each call returned, including newlines");
        for (number, pieces) in (1..).zip(reads) {
            self.margin(' ', "read", number, pieces.iter().map(|piece| piece.range.len()).sum());
            self.pieces(pieces);
            self.styled(if is_right(pieces) { "32" } else { "31" }, &format!(" {}", verdict(pieces)));
            self.out.push('\n');
        }

        self.title("LineCodec", "lines decoded from the same reads");
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
        let (pieces, lines) = (reads.len(), frames.len());
        self.out.push('\n');
        let recv = format!("{sent} messages sent; recv({RECV}): {pieces} pieces, {right} right by luck;");
        self.styled("1", &format!("{recv} LineCodec: {lines}, all right"));
        self.out.push('\n');
        self.out
    }

    fn title(&mut self, title: &str, description: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.styled("1", &format!("{title:10}"));
        self.styled("2", &format!(" bytes  {description}"));
        self.out.push('\n');
    }

    fn margin(&mut self, joined: char, kind: &str, number: usize, bytes: usize) {
        _ = write!(self.out, "{joined} {:9} {bytes:4} ", format!("{kind} {number}"));
    }

    /// Draws a whole message. Its text is clipped to fit inside the bar, or after a short bar.
    fn whole(&mut self, message: usize, line: &[u8], note: &str) {
        let cells = cells(line.len()).clamp(1, Self::WIDTH - Self::MARGIN - 14);
        let mut room = Self::WIDTH - Self::MARGIN - cells - 2;
        let text = String::from_utf8_lossy(line);
        let is_inside = cells > Self::CELLS / 2;
        self.edge(None);
        self.bar(message, cells, &if is_inside { clipped(&text, cells - 5) } else { String::new() });
        self.edge(None);
        if !is_inside {
            let after = clipped(&text, room - 12);
            room -= after.chars().count() + 1;
            _ = write!(self.out, " {after}");
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

    /// Draws a bar: the number of the message, its text, then fill up to `cells` columns.
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

    /// Draws an end of a bar, with a mark if the message is cut there.
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

/// Returns the columns of a bar for `bytes`, rounded to the nearest.
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
    let sends = sends.iter().map(|group| group.iter().map(|line| text(line)).collect::<Vec<_>>());
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
