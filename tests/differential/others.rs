//! Other line readers and what each should return, derived from what our codec returned. Each
//! deviation is a named `Difference`. `docs/testing.md` gives the reasons.

#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufRead, BufReader, Read};

use bytes::{Bytes, BytesMut};
use lineframe::{Delimiter, EncodeError, LineCodec, LineError};
use tokio_util::codec::{AnyDelimiterCodec, Decoder, Encoder, LinesCodec};

/// An event that a reader returns when it is called until the end of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Line(Vec<u8>),
    /// An unterminated last line that the reader distinguishes from a line.
    Cut(Vec<u8>),
    Error,
    /// The reader stops before the end of the stream.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    LinesCodec,
    AnyDelimiterCodec,
    ActixLinesCodec,
    BufReadLines,
    BufReadUntil,
    Go,
    Asyncio,
}

/// A way in which a reader differs, named as in the table in `docs/testing.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    CutIsLine,
    CutLosesCr,
    CutCrIsNothing,
    LimitCountsCr,
    LimitCountsTerminator,
    NoLimit,
    EndsAtLongLine,
    TailIsLine,
    NotUtf8IsGone,
    SwallowsNextStream,
    TerminatorStays,
    WritesOtherLines,
    WritesLongLines,
}

/// The differences that have occurred.
pub type Seen = BTreeSet<(Reader, Difference)>;

impl Reader {
    pub const ALL: [Self; 7] = [
        Self::LinesCodec,
        Self::AnyDelimiterCodec,
        Self::ActixLinesCodec,
        Self::BufReadLines,
        Self::BufReadUntil,
        Self::Go,
        Self::Asyncio,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::LinesCodec => "tokio-util `LinesCodec`",
            Self::AnyDelimiterCodec => "tokio-util `AnyDelimiterCodec`",
            Self::ActixLinesCodec => "actix-codec `LinesCodec`",
            Self::BufReadLines => "std `BufRead::lines`",
            Self::BufReadUntil => "std `BufRead::read_until`",
            Self::Go => "Go `bufio.Scanner`",
            Self::Asyncio => "asyncio `readline`",
        }
    }

    fn has_limit(self) -> bool {
        !matches!(self, Self::ActixLinesCodec | Self::BufReadLines | Self::BufReadUntil)
    }

    fn is_text(self) -> bool {
        matches!(self, Self::LinesCodec | Self::ActixLinesCodec | Self::BufReadLines)
    }

    /// Returns `true` if the reader strips a CR from the end of a line even without an LF.
    fn strips_cr(self) -> bool {
        matches!(self, Self::LinesCodec | Self::ActixLinesCodec | Self::Go)
    }
}

impl Difference {
    pub fn name(self) -> &'static str {
        match self {
            Self::CutIsLine => "returns a cut last line as a line",
            Self::CutLosesCr => "removes a CR from such a line",
            Self::CutCrIsNothing => "drops such a line if it is a CR alone",
            Self::LimitCountsCr => "counts the CR of a terminator towards the limit",
            Self::LimitCountsTerminator => "counts the whole terminator towards the limit",
            Self::NoLimit => "has no limit",
            Self::EndsAtLongLine => "ends at a line over the limit",
            Self::TailIsLine => "returns the rest of a long line as lines or errors, depending on the reads",
            Self::NotUtf8IsGone => "drops a line that is not UTF-8",
            Self::SwallowsNextStream => "drops the first line of the next stream after a cut long line",
            Self::TerminatorStays => "leaves the terminator on the line",
            Self::WritesOtherLines => "writes lines that are not read back as they were",
            Self::WritesLongLines => "writes lines over the limit",
        }
    }
}

/// A line of a stream: its bytes on the wire, and the item that our codec returned.
#[derive(Debug)]
pub struct Ours<'a> {
    pub item: Result<Bytes, LineError>,
    pub raw: &'a [u8],
    /// The offset of the line in the stream.
    start: usize,
    /// `true` if the last byte of `raw` is a terminator.
    is_terminated: bool,
}

/// Decodes a stream with our codec, which returns one item per line on the wire. The codec is at
/// the start of a stream before and after the call.
pub fn ours<'a>(codec: &mut LineCodec, set: &[u8], stream: &'a [u8], reads: &[&[u8]]) -> Vec<Ours<'a>> {
    let mut items = Vec::new();
    events(codec, reads, |item| items.push(item.map_err(|never| panic!("{never}")).unwrap()));
    let mut start = 0;
    let lines: Vec<_> = stream.split_inclusive(|byte| set.contains(byte)).collect();
    assert_eq!(items.len(), lines.len(), "{items:?}");
    let lines = items.into_iter().zip(lines).map(|(item, raw)| {
        let is_terminated = raw.last().is_some_and(|byte| set.contains(byte));
        assert!(matches!(item, Err(LineError::TooLong { .. })) || item.is_ok() == is_terminated, "{item:?}");
        let line = Ours { item, raw, start, is_terminated };
        start += raw.len();
        line
    });
    lines.collect()
}

impl Ours<'_> {
    /// Returns the line without its terminator byte.
    fn before_its_end(&self) -> &[u8] {
        &self.raw[..self.raw.len() - usize::from(self.is_terminated)]
    }
}

/// Passes everything that a decoder returns to `event`.
fn events<D: Decoder>(codec: &mut D, reads: &[&[u8]], mut event: impl FnMut(Result<D::Item, D::Error>)) {
    let mut buffer = BytesMut::new();
    for read in reads {
        buffer.extend_from_slice(read);
        while let Some(item) = codec.decode(&mut buffer).transpose() {
            event(item);
        }
    }
    while let Some(item) = codec.decode_eof(&mut buffer).transpose() {
        event(item);
    }
}

/// Returns the events of a decoder.
pub fn decoded<D: Decoder>(codec: &mut D, reads: &[&[u8]]) -> Vec<Event>
where
    D::Item: AsRef<[u8]>,
{
    let mut all = Vec::new();
    events(codec, reads, |item| {
        all.push(item.map_or(Event::Error, |line| Event::Line(line.as_ref().to_vec())));
    });
    all
}

/// Returns the events of `BufRead::lines`.
pub fn buf_read_lines(reads: &[&[u8]]) -> Vec<Event> {
    BufReader::new(Reads::new(reads))
        .lines()
        .map(|line| line.map_or(Event::Error, |line| Event::Line(line.into_bytes())))
        .collect()
}

/// Returns the events of `BufRead::read_until`, without the terminator.
pub fn buf_read_until(end: u8, reads: &[&[u8]]) -> Vec<Event> {
    let mut reader = BufReader::new(Reads::new(reads));
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(end, &mut line).expect("no failing read") == 0 {
            return all;
        }
        all.push(match line.strip_suffix(&[end]) {
            Some(line) => Event::Line(line.to_vec()),
            None => Event::Cut(line),
        });
    }
}

/// Returns one read per call.
struct Reads<'a>(VecDeque<&'a [u8]>);

impl<'a> Reads<'a> {
    fn new(reads: &[&'a [u8]]) -> Self {
        // An empty read would mean EOF.
        Self(reads.iter().copied().filter(|read| !read.is_empty()).collect())
    }
}

impl Read for Reads<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(next) = self.0.front_mut() else { return Ok(0) };
        let count = next.read(into)?;
        if next.is_empty() {
            self.0.pop_front();
        }
        Ok(count)
    }
}

/// Derives what a reader should return from the items of our codec.
pub struct Expected<'a> {
    pub reader: Reader,
    pub limit: usize,
    pub seen: &'a mut Seen,
    /// `true` if the last stream ended inside a line over the limit.
    ended_within_long: bool,
}

impl<'a> Expected<'a> {
    pub fn new(reader: Reader, limit: usize, seen: &'a mut Seen) -> Self {
        Self { reader, limit, seen, ended_within_long: false }
    }

    fn differs(&mut self, difference: Difference) {
        self.seen.insert((self.reader, difference));
    }

    /// Returns the expected events of one stream.
    pub fn stream(&mut self, ours: &[Ours], reads: &[&[u8]]) -> Vec<Event> {
        let mut expected = Vec::new();
        let mut lines = ours.iter();
        if self.ended_within_long {
            if let Some(first) = lines.next() {
                self.differs(Difference::SwallowsNextStream);
                self.ended_within_long = !first.is_terminated;
            }
        }
        for line in lines {
            if self.reader == Reader::Asyncio {
                self.asyncio(line, reads, &mut expected);
                continue;
            }
            let event = self.line(line);
            let is_error = event == Some(Event::Error);
            expected.extend(event);
            if is_error && self.reader == Reader::Go {
                self.differs(Difference::EndsAtLongLine);
                expected.push(Event::End);
                break;
            }
        }
        expected
    }

    /// Returns the expected event of one line.
    fn line(&mut self, line: &Ours) -> Option<Event> {
        let before_its_end = line.before_its_end();
        let content = match &line.item {
            Ok(content) | Err(LineError::Unterminated { line: content, .. }) => &content[..],
            Err(LineError::TooLong { prefix, .. }) => {
                let content = match (before_its_end, line.is_terminated && self.ends_in_crlf()) {
                    ([content @ .., b'\r'], true) => content,
                    (content, _) => content,
                };
                assert!(content.len() > self.limit && &content[..self.limit] == prefix);
                if self.reader.has_limit() {
                    self.ended_within_long = self.keeps_state() && !line.is_terminated;
                    return Some(Event::Error);
                }
                self.differs(Difference::NoLimit);
                content
            }
            Err(other) => panic!("{other:?}"),
        };
        if self.reader == Reader::LinesCodec && before_its_end.len() > self.limit {
            assert_eq!([content, b"\r"].concat(), before_its_end);
            self.differs(Difference::LimitCountsCr);
            return Some(Event::Error);
        }
        if self.reader == Reader::Go && before_its_end.len() >= self.limit {
            self.differs(Difference::LimitCountsTerminator);
            return Some(Event::Error);
        }
        if self.reader.is_text() && std::str::from_utf8(content).is_err() {
            self.differs(Difference::NotUtf8IsGone);
            return Some(Event::Error);
        }
        if line.is_terminated {
            return Some(Event::Line(content.to_vec()));
        }
        if self.reader == Reader::BufReadUntil {
            return Some(Event::Cut(content.to_vec()));
        }
        let cut = match content {
            b"\r" if self.reader.strips_cr() && self.reader != Reader::Go => {
                self.differs(Difference::CutCrIsNothing);
                return None;
            }
            [stripped @ .., b'\r'] if self.reader.strips_cr() => {
                self.differs(Difference::CutLosesCr);
                stripped
            }
            content => content,
        };
        self.differs(Difference::CutIsLine);
        Some(Event::Line(cut.to_vec()))
    }

    /// Returns `true` if the reader treats a CR before the terminator byte as part of the
    /// terminator.
    fn ends_in_crlf(&self) -> bool {
        !matches!(self.reader, Reader::BufReadUntil | Reader::AnyDelimiterCodec)
    }

    fn keeps_state(&self) -> bool {
        matches!(self.reader, Reader::LinesCodec | Reader::AnyDelimiterCodec)
    }

    /// After each read, asyncio discards its whole buffer if that has no terminator and is over the
    /// limit.
    fn asyncio(&mut self, line: &Ours, reads: &[&[u8]], expected: &mut Vec<Event>) {
        let (length, before) = (line.raw.len(), expected.len());
        let read_ends = reads.iter().scan(0, |end, read| {
            *end += read.len();
            Some(*end)
        });
        let mut begin = 0;
        for end in read_ends.filter_map(|end| end.checked_sub(line.start)) {
            if end >= length && line.is_terminated {
                break;
            }
            if end.min(length) - begin > self.limit {
                expected.push(Event::Error);
                begin = end.min(length);
            }
        }
        let is_long = line.before_its_end().len() > self.limit;
        if is_long && line.item.is_ok() {
            self.differs(Difference::LimitCountsCr);
        }
        if begin > 0 && begin < length || expected.len() - before > 1 {
            self.differs(Difference::TailIsLine);
        }
        let rest = &line.raw[begin..];
        if rest.len() - usize::from(line.is_terminated && !rest.is_empty()) > self.limit {
            expected.push(Event::Error);
        } else if !rest.is_empty() {
            let difference =
                if line.is_terminated { Difference::TerminatorStays } else { Difference::CutIsLine };
            self.differs(difference);
            expected.push(Event::Line(rest.to_vec()));
        }
    }

    /// Checks a written line. `ours` is the output or the refusal of our encoder, `theirs` is the
    /// output of the other encoder, and `back` is what the other reader decodes from it.
    pub fn written(&mut self, line: &str, ours: Result<&[u8], &EncodeError>, theirs: &[u8], back: &[Event]) {
        match ours {
            Ok(ours) => assert_eq!(theirs, ours),
            Err(EncodeError::ContainsTerminator { .. }) => {
                assert_ne!(back, [Event::Line(line.into())]);
                self.differs(Difference::WritesOtherLines);
            }
            Err(EncodeError::TooLong { .. }) => self.differs(Difference::WritesLongLines),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Compares a reader in this process with our codec on consecutive streams, each cut into reads.
pub fn check(reader: Reader, set: &[u8], limit: usize, streams: &[(&[u8], Vec<&[u8]>)], seen: &mut Seen) {
    let delimiter = match reader {
        Reader::AnyDelimiterCodec => Delimiter::any_of(set).expect("a non-empty set"),
        Reader::BufReadUntil => Delimiter::Byte(set[0]),
        _ => Delimiter::Newline,
    };
    let mut codec = LineCodec::builder().delimiter(delimiter).max_length(limit).build();
    let mut expected = Expected::new(reader, limit, seen);
    let mut lines_codec = LinesCodec::new_with_max_length(limit);
    let mut any = AnyDelimiterCodec::new_with_max_length(set.to_vec(), vec![set[0]], limit);
    for (stream, reads) in streams {
        let lines = ours(&mut codec, set, stream, reads);
        let given = match reader {
            Reader::LinesCodec => decoded(&mut lines_codec, reads),
            Reader::AnyDelimiterCodec => decoded(&mut any, reads),
            Reader::BufReadLines => buf_read_lines(reads),
            Reader::BufReadUntil => buf_read_until(set[0], reads),
            _ => panic!("{reader:?} does not run in this process"),
        };
        assert_eq!(given, expected.stream(&lines, reads), "{reader:?}, limit {limit}, {reads:?}");
    }
}

/// Compares an encoder in this process with our codec on one line.
pub fn check_written(reader: Reader, set: &[u8], limit: usize, line: &str, seen: &mut Seen) {
    let delimiter = match reader {
        Reader::AnyDelimiterCodec => Delimiter::any_of(set).expect("a non-empty set"),
        _ => Delimiter::Newline,
    };
    let mut codec = LineCodec::builder().delimiter(delimiter).max_length(limit).build();
    let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
    let written = codec.encode_line(line.as_bytes(), &mut ours);
    let back = match reader {
        Reader::LinesCodec => {
            LinesCodec::new().encode(line, &mut theirs).expect("the encoder has no limit");
            decoded(&mut LinesCodec::new(), &[&theirs])
        }
        Reader::AnyDelimiterCodec => {
            let mut any = AnyDelimiterCodec::new(set.to_vec(), vec![set[0]]);
            any.encode(line, &mut theirs).expect("the encoder has no limit");
            decoded(&mut any, &[&theirs])
        }
        _ => panic!("{reader:?} does not run in this process"),
    };
    let ours = written.as_ref().map(|()| &ours[..]);
    Expected::new(reader, limit, seen).written(line, ours, &theirs, &back);
}
