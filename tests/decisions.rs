//! Checks every cell of the table in `docs/decisions.md` against the reader of its column.
//!
//! The two codecs run in this process. The other readers are programs in `tests/peers`, which run
//! if their language is installed.

mod peers;

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use lineframe::{EncodeError, LineCodec, LineError};
use peers::{Answers, Program, hex, skipped, unhex};
use serde_json::Value;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::{Decoder, Encoder, FramedRead, LinesCodec};

const HEAD: &str = "| on the wire | lineframe | `LinesCodec` | netty | Go | asyncio | case |";
const LINEFRAME: usize = 1;
const LINES_CODEC: usize = 2;
const NETTY: usize = 3;
const GO: usize = 4;
const ASYNCIO: usize = 5;

struct Row {
    cells: Vec<String>,
    task: Task,
}

enum Task {
    Read {
        limit: Option<usize>,
        reads: Vec<Vec<u8>>,
        next_stream: Option<Vec<u8>>,
        /// If set, the cell also shows how many bytes the reader holds.
        is_endless: bool,
    },
    Write(Vec<u8>),
}

/// The items that a reader returned for one stream.
#[derive(Default)]
struct Outcome {
    before_eof: Vec<String>,
    held: usize,
    at_eof: Vec<String>,
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = include_str!("../docs/decisions.md")
        .lines()
        .skip_while(|line| *line != HEAD)
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| {
            let cells: Vec<String> = line.split(" | ").map(String::from).collect();
            assert_eq!(cells.len(), HEAD.matches(" | ").count() + 1, "{line}");
            Row { task: Task::parse(&cells[0]), cells }
        })
        .collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    rows
}

impl Task {
    fn parse(cell: &str) -> Self {
        if let Some(line) = cell.strip_prefix("write ") {
            return Self::Write(uncode(line));
        }
        let (limit, cell) = match cell.strip_prefix("limit ").map(|cell| cell.split_once(": ").unwrap()) {
            Some((limit, cell)) => (Some(limit.parse().unwrap()), cell),
            None => (None, cell),
        };
        let (cell, next_stream) = match cell.split_once(", next stream ") {
            Some((cell, next)) => (cell, Some(uncode(next))),
            None => (cell, None),
        };
        let reads = match cell.split_once(" in reads of ") {
            Some((all, size)) => uncode(all).chunks(size.parse().unwrap()).map(Vec::from).collect(),
            None => cell.split(" then ").map(uncode).collect(),
        };
        Self::Read { limit, reads, next_stream, is_endless: cell.contains(" in reads of ") }
    }
}

/// Formats bytes in the notation of the table.
fn code(bytes: &[u8]) -> String {
    match bytes {
        [] => "empty".into(),
        [first, .., _] if bytes.len() > 16 && bytes.iter().all(|byte| byte == first) => {
            format!("{} × {}", code(&[*first]), bytes.len())
        }
        _ => format!("`{}`", bytes.escape_ascii()),
    }
}

fn uncode(cell: &str) -> Vec<u8> {
    if let Some((once, times)) = cell.split_once(" × ") {
        return uncode(once).repeat(times.parse().unwrap());
    }
    let mut text =
        cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).unwrap_or_else(|| panic!("{cell}"));
    let mut bytes = Vec::new();
    while let Some(first) = text.chars().next() {
        let (byte, length) = match (first, text.as_bytes().get(1)) {
            ('\\', Some(b'n')) => (b'\n', 2),
            ('\\', Some(b'r')) => (b'\r', 2),
            ('\\', Some(b'x')) => (u8::from_str_radix(&text[2..4], 16).unwrap(), 4),
            (' '..='~', _) if first != '\\' => (first as u8, 1),
            _ => panic!("{cell}"),
        };
        bytes.push(byte);
        text = &text[length..];
    }
    assert_eq!(code(&bytes), cell, "not in canonical notation");
    bytes
}

/// Formats the cell for what a reader returned.
fn cell(task: &Task, outcome: &[Outcome]) -> String {
    let is_endless = matches!(task, Task::Read { is_endless: true, .. });
    let one = |outcome: &Outcome| {
        let mut parts = Vec::new();
        if is_endless || !outcome.before_eof.is_empty() {
            parts.push(list(&outcome.before_eof));
        }
        if is_endless {
            parts.push(format!("holds {}", outcome.held));
        }
        if !outcome.at_eof.is_empty()
            || outcome.held > 0 && outcome.before_eof.last().is_none_or(|last| last != "end")
        {
            parts.push(format!("EOF: {}", list(&outcome.at_eof)));
        }
        if parts.is_empty() { list(&[]) } else { parts.join("; ") }
    };
    outcome.iter().map(one).collect::<Vec<_>>().join("; next: ")
}

fn list(events: &[String]) -> String {
    if events.is_empty() {
        return "nothing".into();
    }
    let counted = events.chunk_by(|a, b| a == b && a == "error").map(|same| match same.len() {
        1 => same[0].clone(),
        times => format!("{} × {times}", same[0]),
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// A stream that returns one read at a time and is pending in between.
#[derive(Default)]
struct Reads {
    next: Vec<u8>,
    is_closed: bool,
}

impl AsyncRead for Reads {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.next.is_empty() && !self.is_closed {
            return Poll::Pending;
        }
        let length = self.next.len().min(into.remaining());
        into.put_slice(&self.next[..length]);
        self.next.drain(..length);
        Poll::Ready(Ok(()))
    }
}

/// Reads the streams with one codec, using a new `FramedRead` for each.
fn outcome<C: Decoder + Default>(
    mut codec: C,
    task: &Task,
    show: impl Fn(Result<C::Item, C::Error>) -> String,
) -> Vec<Outcome> {
    let Task::Read { reads, next_stream, .. } = task else { panic!("nothing to read") };
    let mut context = Context::from_waker(Waker::noop());
    let next = next_stream.iter().map(|read| vec![read.clone()]);
    std::iter::once(reads.clone())
        .chain(next)
        .map(|reads| {
            let mut framed = FramedRead::new(Reads::default(), std::mem::take(&mut codec));
            let mut outcome = Outcome::default();
            for read in reads {
                framed.get_mut().next = read;
                while let Poll::Ready(item) = Pin::new(&mut framed).poll_next(&mut context) {
                    outcome.before_eof.push(item.map_or("end".into(), &show));
                }
            }
            outcome.held = framed.read_buffer().len();
            framed.get_mut().is_closed = true;
            // `FramedRead` has finished when it returns `None` twice in a row.
            let mut is_done = false;
            while let Poll::Ready(item) = Pin::new(&mut framed).poll_next(&mut context) {
                match item {
                    None if is_done => break,
                    None => is_done = true,
                    Some(item) => {
                        outcome.at_eof.extend(std::mem::take(&mut is_done).then(|| "end".into()));
                        outcome.at_eof.push(show(item));
                    }
                }
            }
            codec = std::mem::take(framed.decoder_mut());
            outcome
        })
        .collect()
}

/// Fails with every row whose cell differs from what the reader returned.
fn check_column(column: usize, of: impl Display, rows: &[Row], really: impl IntoIterator<Item = String>) {
    let mut really = really.into_iter();
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|Row { cells, .. }| {
            let (says, returned) = (&cells[column], really.next().expect("an answer for every row"));
            (*says != returned)
                .then(|| format!("{}\n  the table says {says}\n  {of} returns {returned}", cells[0]))
        })
        .collect();
    assert!(really.next().is_none(), "more answers than rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn readme_rows_are_copied_from_the_table() {
    let table = include_str!("../docs/decisions.md");
    let head = HEAD.strip_suffix(" case |").unwrap();
    let page = include_str!("../README.md").lines().skip_while(|line| *line != head).skip(2);
    let rows: Vec<_> = page.take_while(|line| !line.is_empty()).collect();
    // Rows in the table continue with a case column.
    let unknown: Vec<_> =
        rows.iter().filter(|row| !table.lines().any(|line| line.starts_with(&format!("{row} `")))).collect();
    assert!(rows.len() >= 4 && unknown.is_empty(), "{} rows, {unknown:#?}", rows.len());
}

#[test]
fn every_row_has_its_case() {
    let file: Value = serde_json::from_str(include_str!("conformance.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    for Row { cells, task } in rows() {
        let name = cells.last().unwrap().trim_matches('`');
        let case = cases.iter().find(|case| case["name"] == name).unwrap_or_else(|| panic!("no case {name}"));
        let config = case["config"].as_object();
        assert!(config.is_none_or(|config| config.keys().eq(["max_length"])), "{name}: {config:?}");
        match task {
            Task::Read { limit, reads, .. } => {
                assert_eq!(data(&case["input"]), reads.concat(), "{name}");
                assert_eq!(case["config"]["max_length"].as_u64(), limit.map(|limit| limit as u64), "{name}");
            }
            Task::Write(line) => {
                let lines = case["encode"].as_array().unwrap();
                assert!(lines.iter().any(|entry| data(&entry["line"]) == line), "{name}");
            }
        }
    }
}

/// Parses bytes in the notation of the conformance file.
fn data(notation: &Value) -> Vec<u8> {
    let piece = |piece: &Value| match piece {
        Value::String(hex) => unhex(hex),
        _ => unhex(piece["repeat"].as_str().unwrap()).repeat(piece["times"].as_u64().unwrap() as usize),
    };
    match notation {
        Value::Array(pieces) => pieces.iter().flat_map(piece).collect(),
        whole => piece(whole),
    }
}

#[test]
fn lineframe() {
    let show = |item: io::Result<Result<Bytes, LineError>>| match item.expect("a decoder that never fails") {
        Ok(line) => code(&line),
        Err(LineError::TooLong { prefix, .. }) => format!("too long {}", code(&prefix)),
        Err(LineError::Unterminated { line, .. }) => format!("unterminated {}", code(&line)),
        Err(other) => panic!("{other:?}"),
    };
    let rows = rows();
    let cells = rows.iter().map(|row| match &row.task {
        Task::Read { limit: Some(limit), .. } => {
            cell(&row.task, &outcome(LineCodec::builder().max_length(*limit).build(), &row.task, show))
        }
        Task::Read { .. } => cell(&row.task, &outcome(LineCodec::new(), &row.task, show)),
        Task::Write(line) => {
            let mut out = BytesMut::new();
            match LineCodec::new().encode_line(line, &mut out) {
                Ok(()) => code(&out),
                Err(EncodeError::ContainsTerminator { at, .. }) => format!("refused at byte {at}"),
                Err(other) => panic!("{other:?}"),
            }
        }
    });
    check_column(LINEFRAME, "lineframe", &rows, cells);
}

#[test]
fn lines_codec() {
    let show = |item: Result<String, _>| item.map_or("error".into(), |line| code(line.as_bytes()));
    let rows = rows();
    let cells = rows.iter().map(|row| match &row.task {
        Task::Read { limit, .. } => {
            let codec = limit.map_or_else(LinesCodec::new, LinesCodec::new_with_max_length);
            cell(&row.task, &outcome(codec, &row.task, show))
        }
        Task::Write(line) => {
            let mut out = BytesMut::new();
            LinesCodec::new().encode(std::str::from_utf8(line).unwrap(), &mut out).unwrap();
            code(&out)
        }
    });
    check_column(LINES_CODEC, "LinesCodec", &rows, cells);
}

#[test]
fn netty() {
    let jars: Option<String> = std::env::var("LINEFRAME_NETTY_CLASSPATH").ok().or_else(|| {
        let jars = ["buffer", "codec", "common", "resolver", "transport"]
            .map(|part| PathBuf::from(format!("/usr/share/java/netty-{part}.jar")));
        let all = jars.iter().all(|jar| jar.exists()).then(|| std::env::join_paths(jars).ok());
        all.flatten()?.into_string().ok()
    });
    let Some(jars) = jars else { return skipped("netty") };
    check_peer(NETTY, Program::java(&jars, "NettyLines.java"));
}

#[test]
fn go() {
    check_peer(GO, Program::go("bufio_lines.go"));
}

#[test]
fn asyncio() {
    check_peer(ASYNCIO, Program::python("asyncio_lines.py"));
}

/// Runs `program` once for all rows, if it is installed.
fn check_peer(column: usize, program: Program) {
    let rows = rows();
    let questions = rows.iter().map(|row| question(&row.task));
    let Some(Answers { version, answers }) = program.ask(questions) else { return };
    let cells: Vec<String> =
        rows.iter().zip(answers).map(|(row, answer)| cell_of_answer(&row.task, &answer)).collect();
    let reader = HEAD.split(" | ").nth(column).unwrap();
    check_column(column, format!("{reader} ({version})"), &rows, cells);
}

fn question(task: &Task) -> String {
    match task {
        Task::Read { next_stream: Some(_), .. } => "next".into(),
        Task::Read { limit, reads, .. } => {
            let limit = limit.map_or("-".into(), |limit| limit.to_string());
            let reads = reads.iter().map(|read| hex(read));
            ["read".into(), limit].into_iter().chain(reads).collect::<Vec<String>>().join(" ")
        }
        Task::Write(line) => format!("write {}", hex(line)),
    }
}

fn cell_of_answer(task: &Task, answer: &str) -> String {
    let mut outcome = Outcome::default();
    let mut is_over = false;
    for word in answer.split(' ') {
        let event = match word.split_once('=') {
            Some(("wrote", bytes)) => return code(&unhex(bytes)),
            Some(("line", bytes)) => code(&unhex(bytes)),
            Some(("held", count)) => {
                outcome.held = count.parse().unwrap();
                continue;
            }
            None if word == "-" => return word.into(),
            None if word == "eof" => {
                is_over = true;
                continue;
            }
            _ => {
                assert!(["error", "end"].contains(&word), "{answer}");
                word.into()
            }
        };
        if is_over { outcome.at_eof.push(event) } else { outcome.before_eof.push(event) }
    }
    cell(task, &[outcome])
}
