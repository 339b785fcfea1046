//! Compares this codec with other readers, for streams in all their cuts and at all small limits.
//! Every difference that `docs/testing.md` lists must occur, and no other may.
//!
//! Each reader gets its own streams: all short ones over a few letters, and random ones.
//! `others.rs` describes how each reader differs. The fuzz target `differential` uses that file
//! too.

mod others;
#[path = "../peers/mod.rs"]
mod peers;

use std::ops::Range;

use bytes::BytesMut;
use lineframe::LineCodec;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tokio_util::codec::Decoder;

use others::{Event, Expected, Reader, Seen, check, check_written, decoded, ours};
use peers::{Answers, Program, hex, unhex};

const HEAD: &str = "| difference | readers | why this codec does not |";

/// Checks that the table lists exactly the differences that were seen for this reader.
fn check_table(reader: Reader, seen: &Seen) {
    let rows = include_str!("../../docs/testing.md")
        .lines()
        .skip_while(|line| *line != HEAD)
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let mut listed = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [difference, readers, why] = cells[..] else { panic!("{row}") };
        assert!(!why.is_empty(), "{row}");
        for name in readers.split(", ") {
            assert!(Reader::ALL.iter().any(|reader| reader.name() == name), "no reader {name}");
            if name == reader.name() {
                listed.push(difference);
            }
        }
    }
    let mut seen: Vec<_> = seen.iter().map(|(_, difference)| difference.name()).collect();
    listed.sort();
    seen.sort();
    assert_eq!(listed, seen, "{}: listed, and seen", reader.name());
}

/// Returns all streams of the given lengths over the letters.
fn streams(letters: &'static [u8], lengths: Range<u32>) -> impl Iterator<Item = Vec<u8>> {
    lengths.flat_map(move |length| {
        (0..letters.len().pow(length)).map(move |mut number| {
            let letter = |_| {
                let letter = letters[number % letters.len()];
                number /= letters.len();
                letter
            };
            (0..length).map(letter).collect()
        })
    })
}

/// Returns every way to cut a stream into reads.
fn cuts(stream: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    (0..1_usize << stream.len().saturating_sub(1)).map(move |cuts| {
        let mut rest = stream;
        let mut reads = Vec::new();
        for at in (1..stream.len()).rev().filter(|at| cuts >> (at - 1) & 1 == 1) {
            let (before, read) = rest.split_at(at);
            reads.push(read);
            rest = before;
        }
        reads.push(rest);
        reads.reverse();
        reads
    })
}

/// A stream and the sizes of its reads.
type Cut = (Vec<u8>, Vec<usize>);

/// Generates streams of lines, and of bytes that resemble lines.
fn random() -> impl Strategy<Value = Cut> {
    let words = select(vec![
        &b"a"[..],
        b"bcd",
        b"\r",
        b"\n",
        b"\r\n",
        b"\n",
        b"\xff",
        b"\xc3\xa9",
        b"\0",
        b"\xe2\x80\xa8",
        b",;",
        b"0123456789abcdef",
    ]);
    (vec(words, 0..40).prop_map(|words| words.concat()), vec(1..20_usize, 1..5))
}

/// Cuts `bytes` into reads of the given sizes, repeated cyclically.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    for size in sizes.iter().cycle() {
        let (read, rest) = bytes.split_at((*size).min(bytes.len()));
        reads.push(read);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    reads
}

/// Compares streams, each also after a stream that ended inside a long line. If the reader has an
/// encoder, compares its output too.
fn differs_as_listed(reader: Reader, check: Check, check_written: Option<Written>) {
    let sets: &[&[u8]] = match reader {
        Reader::AnyDelimiterCodec => &[b"\r\n", b",;\n\r", b"\n"],
        _ => &[b"\n"],
    };
    let mut seen = Seen::new();
    for set in sets {
        for limit in 0..4 {
            for stream in streams(b"a\r\n", 0..7) {
                for reads in cuts(&stream) {
                    check(reader, set, limit, &[(&stream, reads)], &mut seen);
                }
                let within_long = (&b"aaaa"[..], vec![&b"aaaa"[..]]);
                let streams = [within_long, (&stream, vec![&stream]), (b"b\n", vec![b"b\n"])];
                check(reader, set, limit, &streams, &mut seen);
            }
        }
        let streams = (random(), random(), select(vec![0, 1, 2, 5, 16, 30, usize::MAX]));
        let run = |(first, second, limit): (Cut, Cut, usize)| {
            let streams = [&first, &second].map(|(stream, sizes)| (&stream[..], cut(stream, sizes)));
            check(reader, set, limit, &streams, &mut Seen::new());
            Ok(())
        };
        TestRunner::new(Config::with_cases(2000)).run(&streams, run).unwrap();
        check(reader, set, 30, &[(b"a\xff\nb\n", vec![b"a\xff\nb\n"])], &mut seen);
        for line in streams_of_text() {
            if let Some(check_written) = check_written {
                check_written(reader, set, 3, &line, &mut seen);
            }
        }
    }
    check_table(reader, &seen);
}

type Check = fn(Reader, &[u8], usize, &[(&[u8], Vec<&[u8]>)], &mut Seen);
type Written = fn(Reader, &[u8], usize, &str, &mut Seen);

fn streams_of_text() -> impl Iterator<Item = String> {
    streams(b"a\r\n,", 0..6).map(|line| String::from_utf8(line).unwrap())
}

#[test]
fn lines_codec() {
    differs_as_listed(Reader::LinesCodec, check, Some(check_written));
}

#[test]
fn any_delimiter_codec() {
    differs_as_listed(Reader::AnyDelimiterCodec, check, Some(check_written));
}

#[test]
fn buf_read_lines() {
    differs_as_listed(Reader::BufReadLines, check, None);
}

#[test]
fn buf_read_until() {
    differs_as_listed(Reader::BufReadUntil, check, None);
}

/// Adapts actix-codec's codec to the traits of tokio-util.
#[derive(Default)]
struct Actix(actix_codec::LinesCodec);

impl Decoder for Actix {
    type Item = String;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> std::io::Result<Option<String>> {
        actix_codec::Decoder::decode(&mut self.0, buffer)
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> std::io::Result<Option<String>> {
        actix_codec::Decoder::decode_eof(&mut self.0, buffer)
    }
}

#[test]
fn actix_lines_codec() {
    let check: Check = |reader, set, limit, streams, seen| {
        let mut codec = LineCodec::builder().max_length(limit).build();
        let mut expected = Expected::new(reader, limit, seen);
        for (stream, reads) in streams {
            let lines = ours(&mut codec, set, stream, reads);
            let given = decoded(&mut Actix::default(), reads);
            assert_eq!(given, expected.stream(&lines, reads), "limit {limit}, {reads:?}");
        }
    };
    let check_written: Written = |reader, _, limit, line, seen| {
        let mut codec = LineCodec::builder().max_length(limit).build();
        let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
        let written = codec.encode_line(line.as_bytes(), &mut ours);
        actix_codec::Encoder::encode(&mut actix_codec::LinesCodec::default(), line, &mut theirs).unwrap();
        let back = decoded(&mut Actix::default(), &[&theirs]);
        let ours = written.as_ref().map(|()| &ours[..]);
        Expected::new(reader, limit, seen).written(line, ours, &theirs, &back);
    };
    differs_as_listed(Reader::ActixLinesCodec, check, Some(check_written));
}

/// Sends all streams, cuts and limits to one run of a program.
fn program_differs_as_listed(reader: Reader, program: Program) {
    let cases: Vec<(Vec<u8>, usize)> =
        (1..4).flat_map(|limit| streams(b"a\r\n", 0..6).map(move |stream| (stream, limit))).collect();
    let cases: Vec<_> = cases
        .iter()
        .flat_map(|(stream, limit)| cuts(stream).map(move |reads| (stream, *limit, reads)))
        .collect();
    let questions = cases.iter().map(|(_, limit, reads)| {
        let reads: String =
            reads.iter().filter(|read| !read.is_empty()).map(|read| format!(" {}", hex(read))).collect();
        format!("read {limit}{reads}")
    });
    let Some(Answers { version, answers }) = program.ask(questions) else { return };
    let mut seen = Seen::new();
    for ((stream, limit, reads), answer) in cases.iter().zip(answers) {
        let mut codec = LineCodec::builder().max_length(*limit).build();
        let lines = ours(&mut codec, b"\n", stream, reads);
        let expected = Expected::new(reader, *limit, &mut seen).stream(&lines, reads);
        assert_eq!(events(&answer), expected, "{version}, limit {limit}, {reads:?}");
    }
    check_table(reader, &seen);
}

/// Parses an answer, ignoring when each event occurred.
fn events(answer: &str) -> Vec<Event> {
    let event = |word: &str| match word.split_once('=') {
        Some(("line", line)) => Some(Event::Line(unhex(line))),
        Some(("held", _)) => None,
        None if word == "eof" => None,
        None if word == "error" => Some(Event::Error),
        None if word == "end" => Some(Event::End),
        _ => panic!("{answer}"),
    };
    answer.split(' ').filter_map(event).collect()
}

#[test]
fn go() {
    program_differs_as_listed(Reader::Go, Program::go("bufio_lines.go"));
}

#[test]
fn asyncio() {
    program_differs_as_listed(Reader::Asyncio, Program::python("asyncio_lines.py"));
}
