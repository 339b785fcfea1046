//! Decodes a stream, cut into reads, with the codec that the input selects.
//!
//! The codec first decodes the beginning of the stream as a stream of its own, then the whole
//! stream. State that survives the end of the first stream would change the items of the second.

use bytes::{Bytes, BytesMut};
use lineframe::TextCodec;
use lineframe::{BatchCodec, CodecCounters, Fragment, FragmentCodec, LineCodec, LineError};

use super::model::{self, Bad, Item, Model};
use super::text_item;
use super::{Input, Scale, accounted, decode, item, longest_terminator};

/// Long enough that a codec reserves the largest reads.
const MAX_GIANT_STREAM: usize = 80 * 1024;
const CODECS: u8 = 5;
/// More lines than a batch holds.
const MAX_LINES: usize = 5000;
const SMALLEST_READ: usize = 8 * 1024;
const LARGEST_READ: usize = 64 * 1024;

pub fn run(data: &[u8]) {
    run_all(&mut Input::new(data, Scale::Small));
}

/// Decodes the same stream with every codec.
pub fn run_each_codec(data: &[u8]) {
    if let Some(mut case) = Case::read(&mut Input::new(data, Scale::Small)) {
        for codec in 0..CODECS {
            case.codec = codec;
            case.run();
        }
    }
}

pub(super) fn run_all(input: &mut Input) {
    if let Some(case) = Case::read(input) {
        case.run();
    }
}

struct Case {
    model: Model,
    /// The codec that decodes the stream. Less than [`CODECS`].
    codec: u8,
    stream: Vec<u8>,
    /// The length of the first stream.
    cut: usize,
    /// The sizes of reads, repeated.
    reads: Vec<usize>,
    /// Whether the reader keeps the lines, and with them the buffers that they share.
    keeps_lines: bool,
}

impl Case {
    fn run(&self) {
        let streams = [&self.stream[..self.cut], &self.stream].map(|bytes| Stream::new(&self.model, bytes));
        let codec = model::builder(&self.model).build();
        match self.codec {
            0 => lines(self, &streams, codec, item),
            1 => lines(self, &streams, BatchCodec::from(codec), item),
            2 => lines(self, &streams, BatchText(codec.into()), text_item),
            3 => lines(self, &streams, TextCodec::from(codec), text_item),
            _ => fragments(self, &streams, codec.into()),
        }
    }

    fn read(input: &mut Input) -> Option<Self> {
        let model = input.model()?;
        let flags = input.byte()?;
        // One byte of the input is repeated, so that a small input can hold giant lines or
        // thousands of lines.
        let (stretched, factor) = match input.scale {
            Scale::Small => (0, 1),
            Scale::Giant => (input.byte()?, [1, 30, 300, 5000][usize::from(input.byte()? & 3)]),
        };
        let cut = usize::from(input.byte()?);
        let reads = (0..1 + (flags >> 1) % 4)
            .map(|_| {
                input.byte().map(|byte| match byte {
                    byte @ 0..200 => byte.into(),
                    byte => usize::from(byte - 200) * 1500,
                })
            })
            .collect::<Option<Vec<usize>>>()?;
        let stretch = |&byte: &u8| std::iter::repeat_n(byte, if byte == stretched { factor } else { 1 });
        let mut stream: Vec<u8> = input.rest.iter().flat_map(stretch).take(MAX_GIANT_STREAM).collect();
        let mut ends = std::iter::successors(Some(0), |&start| {
            let (content, terminator) = model.first_line(&stream[start..])?;
            Some(start + content + terminator)
        });
        if let Some(end) = ends.nth(MAX_LINES) {
            stream.truncate(end);
        }
        Some(Self {
            model,
            codec: (flags >> 3) % CODECS,
            cut: stream.len() * cut / 256,
            stream,
            reads,
            keeps_lines: flags & 1 == 1,
        })
    }

    /// Cuts `bytes` into reads.
    fn chunks<'a>(&self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        // At most about 1000 reads.
        let smallest = bytes.len() / 1024;
        let mut chunks = Vec::new();
        for size in self.reads.iter().cycle() {
            // The first eight reads may be empty.
            let size = if chunks.len() < 8 { *size } else { (*size).max(smallest).max(1) };
            let (chunk, rest) = bytes.split_at(size.min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
        chunks
    }
}

struct Stream<'a> {
    bytes: &'a [u8],
    lines: Vec<Line>,
    counters: CodecCounters,
}

/// A line of the stream according to the model.
struct Line {
    item: Item,
    start: usize,
    content: usize,
    is_terminated: bool,
    /// The end of the line, including its terminator.
    end: usize,
    /// The item is due after this many bytes of the stream. The last line may be due at the end of
    /// the stream.
    due: usize,
}

impl<'a> Stream<'a> {
    fn new(model: &Model, bytes: &'a [u8]) -> Self {
        let mut lines = Vec::new();
        let mut counters = CodecCounters::default();
        let mut start = 0;
        while let Some((item, taken)) = model.first_item(&bytes[start..]) {
            let rest = &bytes[start..];
            let (content, is_terminated) =
                model.first_line(rest).map_or((rest.len(), false), |(content, _)| (content, true));
            let over = model.max_length.saturating_add(longest_terminator(model));
            let due = match is_terminated {
                true => taken.min(over),
                false => over,
            };
            assert_eq!(model.prompt(&rest[..taken.min(due - 1)]), 0);
            assert!(due > taken || model.prompt(&rest[..due]) == 1);
            count(&mut counters, &item, content, taken);
            let due = start.saturating_add(due);
            lines.push(Line { item, start, content, is_terminated, end: start + taken, due });
            start += taken;
        }
        Self { bytes, lines, counters }
    }
}

/// Adds one item to `counters`.
fn count(counters: &mut CodecCounters, item: &Item, content: usize, taken: usize) {
    let (kind, returned) = match item {
        Ok(line) => (&mut counters.lines, line),
        Err(Bad::TooLong(prefix)) => (&mut counters.too_long, prefix),
        Err(Bad::Unterminated(line)) => (&mut counters.unterminated, line),
        Err(Bad::BareTerminator(line)) => (&mut counters.bare_terminator, line),
        Err(Bad::Incomplete(..)) => panic!("no block was requested"),
    };
    *kind += 1;
    counters.content_bytes += returned.len() as u64;
    let rest =
        if returned.len() < content { &mut counters.skipped_bytes } else { &mut counters.terminator_bytes };
    *rest += (taken - returned.len()) as u64;
}

/// The read buffer of a stream, and the largest size that it may have.
struct Reader {
    buffer: BytesMut,
    /// The number of bytes read from all streams.
    taken_in: u64,
    /// The most space that the codec should reserve for the next read.
    read_size: usize,
}

impl Reader {
    fn new() -> Self {
        Self { buffer: BytesMut::new(), taken_in: 0, read_size: SMALLEST_READ }
    }

    fn read(&mut self, chunk: &[u8]) {
        let space = self.buffer.capacity() - self.buffer.len();
        let is_filled = chunk.len() >= space.min(SMALLEST_READ);
        self.read_size = if is_filled { (2 * self.read_size).min(LARGEST_READ) } else { SMALLEST_READ };
        self.buffer.extend_from_slice(chunk);
        self.taken_in += chunk.len() as u64;
    }

    /// Checks that every byte is either counted or still in the buffer.
    fn check_counters(&self, counters: &CodecCounters) {
        assert_eq!(accounted(counters) + self.buffer.len() as u64, self.taken_in, "{counters:?}");
    }

    /// Checks the buffer when the codec needs more bytes. At most `at_most` bytes are buffered, and
    /// there is space for a useful read. The capacity is at most the size of the next read, or
    /// twice the needed space within a line.
    fn check_buffer(&self, at_most: usize) {
        let (length, capacity) = (self.buffer.len(), self.buffer.capacity());
        assert!(length <= at_most, "{length} bytes are buffered, at most {at_most} expected");
        assert!(capacity - length >= SMALLEST_READ / 2, "{length} of {capacity} bytes in use");
        let most = if length == 0 { self.read_size } else { 2 * (length + self.read_size) };
        assert!(capacity <= most, "{length} of {capacity} bytes in use, capacity of at most {most} expected");
    }
}

/// A codec whose items are whole lines.
trait Lines {
    fn next(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Vec<Result<Bytes, LineError>>>;
    fn counted(&self) -> CodecCounters;
}

impl Lines for LineCodec {
    fn next(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Vec<Result<Bytes, LineError>>> {
        Some(vec![decode(self, buffer, eof)?])
    }

    fn counted(&self) -> CodecCounters {
        self.counters()
    }
}

impl Lines for BatchCodec {
    fn next(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Vec<Result<Bytes, LineError>>> {
        let batch = decode(self, buffer, eof)?;
        let slices: Vec<_> = batch.iter().map(|line| line.map(Bytes::copy_from_slice)).collect();
        let lines: Vec<_> = batch.collect();
        assert_eq!(lines, slices);
        Some(lines)
    }

    fn counted(&self) -> CodecCounters {
        self.counters()
    }
}
impl Lines for TextCodec {
    fn next(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Vec<Result<Bytes, LineError>>> {
        Some(vec![decode(self, buffer, eof)?.map(|text| text.into_bytes())])
    }

    fn counted(&self) -> CodecCounters {
        self.counters()
    }
}
struct BatchText(BatchCodec);
impl Lines for BatchText {
    fn next(&mut self, buffer: &mut BytesMut, eof: bool) -> Option<Vec<Result<Bytes, LineError>>> {
        let batch = decode(&mut self.0, buffer, eof)?;
        Some(batch.text().map(|text| text.map(|text| Bytes::copy_from_slice(text.as_bytes()))).collect())
    }

    fn counted(&self) -> CodecCounters {
        self.0.counters()
    }
}

type ToItem = fn(&Model, &Result<Bytes, LineError>) -> Item;

/// Decodes the streams with a codec that returns whole lines. Checks the items, when they are
/// returned, the buffer and the counters.
fn lines(case: &Case, streams: &[Stream], mut codec: impl Lines, to_item: ToItem) {
    let most_held = case.model.max_length.saturating_add(longest_terminator(&case.model) - 1);
    let mut reader = Reader::new();
    for stream in streams {
        let before = codec.counted();
        let mut seen = Seen { case, to_item, lines: &stream.lines, done: 0, not_utf8: 0, kept: Vec::new() };
        let mut fed = 0;
        for chunk in case.chunks(stream.bytes) {
            reader.read(chunk);
            fed += chunk.len();
            while let Some(items) = codec.next(&mut reader.buffer, false) {
                seen.check(items);
                reader.check_counters(&codec.counted());
            }
            assert_eq!(seen.done, stream.lines.partition_point(|line| line.due <= fed), "after {fed} bytes");
            reader.check_counters(&codec.counted());
            reader.check_buffer(most_held);
        }
        while let Some(items) = codec.next(&mut reader.buffer, true) {
            seen.check(items);
            reader.check_counters(&codec.counted());
        }
        assert_eq!(seen.done, stream.lines.len());
        for _ in 0..2 {
            assert!(codec.next(&mut reader.buffer, true).is_none() && reader.buffer.is_empty());
        }
        // A batch is counted before its lines are read as text.
        let not_utf8 = codec.counted().not_utf8 - before.not_utf8;
        assert!(not_utf8 == 0 || not_utf8 == seen.not_utf8);
        let mut expected = stream.counters;
        (expected.lines, expected.not_utf8) = (expected.lines - not_utf8, not_utf8);
        assert_eq!(codec.counted(), sum(before, expected));
        // Later reads must not have changed a line.
        assert!(seen.kept.iter().all(|(given, line)| to_item(&case.model, given) == line.item));
    }
}

/// The items that a stream has returned so far.
struct Seen<'a> {
    case: &'a Case,
    to_item: ToItem,
    lines: &'a [Line],
    done: usize,
    not_utf8: u64,
    kept: Vec<(Result<Bytes, LineError>, &'a Line)>,
}

impl Seen<'_> {
    fn check(&mut self, items: Vec<Result<Bytes, LineError>>) {
        assert!(!items.is_empty());
        for given in items {
            let line = self.lines.get(self.done).expect("the model must have this item");
            assert_eq!((self.to_item)(&self.case.model, &given), line.item, "{:?}", self.case.model);
            self.done += 1;
            self.not_utf8 += u64::from(matches!(given, Err(LineError::NotUtf8 { .. })));
            if self.case.keeps_lines {
                self.kept.push((given, line));
            }
        }
    }
}

/// Decodes the streams in fragments. Checks the joined fragments and their sizes, and that only
/// bytes that may be part of a terminator stay buffered.
fn fragments(case: &Case, streams: &[Stream], mut codec: FragmentCodec) {
    let largest = case.model.max_length.max(1);
    let most_held = longest_terminator(&case.model) - 1;
    let mut reader = Reader::new();
    for stream in streams {
        let before = codec.counters();
        let content = |line: &Line| &stream.bytes[line.start..line.start + line.content];
        let mut whole = 0;
        let mut joined = Vec::new();
        let mut check = |Fragment { bytes, is_last }: Fragment| {
            assert!(bytes.len() <= largest, "{} bytes, at most {largest} expected", bytes.len());
            assert!(is_last || !bytes.is_empty());
            joined.extend_from_slice(&bytes);
            if is_last {
                let line = stream.lines.get(whole).expect("the model must have this line");
                assert!(line.is_terminated);
                assert_eq!(joined, content(line));
                joined.clear();
                whole += 1;
            }
            whole
        };
        let mut fed = 0;
        let mut done = 0;
        for chunk in case.chunks(stream.bytes) {
            reader.read(chunk);
            fed += chunk.len();
            while let Some(fragment) = decode(&mut codec, &mut reader.buffer, false) {
                done = check(fragment);
                reader.check_counters(&codec.counters());
            }
            let due = stream.lines.partition_point(|line| line.is_terminated && line.end <= fed);
            assert_eq!(done, due, "whole lines after {fed} bytes");
            reader.check_counters(&codec.counters());
            reader.check_buffer(most_held);
        }
        while let Some(fragment) = decode(&mut codec, &mut reader.buffer, true) {
            done = check(fragment);
            reader.check_counters(&codec.counters());
        }
        let cut = stream.lines.last().filter(|line| !line.is_terminated);
        assert_eq!(done, stream.lines.len() - usize::from(cut.is_some()));
        assert_eq!(joined, cut.map_or(&[][..], content));
        for _ in 0..2 {
            assert!(decode(&mut codec, &mut reader.buffer, true).is_none() && reader.buffer.is_empty());
        }
        let mut expected = CodecCounters::default();
        expected.lines = done as u64;
        expected.unterminated = u64::from(cut.is_some());
        expected.content_bytes = stream.lines.iter().map(|line| line.content as u64).sum();
        expected.terminator_bytes = stream.bytes.len() as u64 - expected.content_bytes;
        assert_eq!(codec.counters(), sum(before, expected));
    }
}

fn sum(mut all: CodecCounters, more: CodecCounters) -> CodecCounters {
    all.lines += more.lines;
    all.content_bytes += more.content_bytes;
    all.terminator_bytes += more.terminator_bytes;
    all.skipped_bytes += more.skipped_bytes;
    all.too_long += more.too_long;
    all.unterminated += more.unterminated;
    all.bare_terminator += more.bare_terminator;
    all.not_utf8 += more.not_utf8;
    all
}
