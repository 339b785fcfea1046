//! One direction of a stream as its frames: where each begins, how it ends, in which reads it came.

use std::str;

use bytes::{Buf, BytesMut};
use lineframe::scan::{Delimiter, Kind, Scanner, Terminator, Unterminated, Verdict};

/// So many cuts of one frame are told, at most; the number of its reads is exact.
const MOST_CUTS: usize = 32;

/// What is asked of a line beyond its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Check {
    /// Each line is a JSON value.
    Json,
}

/// What the frames of a stream are judged and shown by.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) delimiter: Delimiter,
    pub(super) max_length: usize,
    pub(super) max_text: usize,
    pub(super) check: Option<Check>,
}

/// The frames of one direction. Holds the line under way, up to `max_length`, and what was read behind it.
pub(super) struct Frames {
    rules: Rules,
    scanner: Scanner,
    /// Starts with what is left of the last frame given.
    held: BytesMut,
    /// How many bytes of `held` that is. `None`: it has been let go.
    given: Option<usize>,
    /// How many bytes have come. Always at least the scanner's offset.
    read: u64,
    /// Where the frame under way was cut, and how often.
    cuts: Vec<u64>,
    cut_count: u64,
    /// The line under way, where it is over the limit and passes in pieces.
    long: Option<Long>,
}

struct Long {
    offset: u64,
    length: u64,
    text: Vec<u8>,
}

/// A line, or what stands in the place of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// How many bytes of the stream stand before it.
    pub(super) offset: u64,
    /// Of its content, in bytes, whatever of it is shown.
    pub(super) length: u64,
    /// `None`: the stream ended first.
    pub(super) terminator: Option<Terminator>,
    /// How many reads it came in, its terminator included.
    pub(super) reads: u64,
    /// After how many of its bytes each but the last of them ended: the first 32.
    pub(super) cuts: &'a [u64],
    /// How the content begins: `max_text` bytes at the most.
    pub(super) text: &'a [u8],
    pub(super) bad: Option<Bad>,
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    TooLong { max_length: usize },
    BareTerminator,
    Cut,
    NotJson(String),
}

impl Frames {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            scanner: Scanner::new(rules.delimiter.clone(), rules.max_length, Unterminated::Report),
            rules: rules.clone(),
            held: BytesMut::new(),
            given: None,
            read: 0,
            cuts: Vec::new(),
            cut_count: 0,
            long: None,
        }
    }

    /// What one read has brought. The frames of the read before have been taken.
    pub(super) fn push(&mut self, read: &[u8]) {
        self.leave_last();
        let start = self.long.as_ref().map_or(self.scanner.offset(), |long| long.offset);
        if self.read > start && !read.is_empty() {
            self.cut_count += 1;
            if self.cuts.len() < MOST_CUTS {
                self.cuts.push(self.read - start);
            }
        }
        self.read += read.len() as u64;
        self.held.extend_from_slice(read);
    }

    /// The next frame that is whole; at the stream's end what is left, too.
    pub(super) fn next(&mut self, is_end: bool) -> Option<Frame<'_>> {
        self.leave_last();
        loop {
            let verdict = match is_end {
                true => self.scanner.scan_eof(&self.held),
                false => self.scanner.scan(&self.held),
            };
            match verdict {
                Some(Verdict { kind: Kind::TooLong | Kind::Piece, terminator, consumed, offset, .. }) => {
                    let content = consumed - terminator.map_or(0, Terminator::length);
                    let long = self.long.get_or_insert(Long { offset, length: 0, text: Vec::new() });
                    long.length += content as u64;
                    let room = self.rules.max_text.saturating_sub(long.text.len());
                    long.text.extend_from_slice(&self.held[..content.min(room)]);
                    match terminator {
                        Some(_) => {
                            self.given = Some(consumed);
                            return self.long_frame(terminator);
                        }
                        None => self.held.advance(consumed),
                    }
                }
                Some(verdict) => {
                    self.given = Some(verdict.consumed);
                    return Some(self.frame(verdict));
                }
                None if is_end && self.long.is_some() => {
                    self.given = Some(0);
                    return self.long_frame(None);
                }
                None => return None,
            }
        }
    }

    /// How many bytes have come.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Lets go of the frame that was given last.
    fn leave_last(&mut self) {
        if let Some(rest) = self.given.take() {
            self.held.advance(rest);
            self.cuts.clear();
            self.cut_count = 0;
            self.long = None;
        }
    }

    fn frame(&self, verdict: Verdict) -> Frame<'_> {
        let content = &self.held[verdict.content];
        let bad = match verdict.kind {
            Kind::BareTerminator => Some(Bad::BareTerminator),
            Kind::Unterminated => Some(Bad::Cut),
            _ => self.rules.check.and_then(|Check::Json| not_json(content)).map(Bad::NotJson),
        };
        Frame {
            offset: verdict.offset,
            length: content.len() as u64,
            terminator: verdict.terminator,
            reads: self.cut_count + 1,
            cuts: &self.cuts,
            text: shown(content, content.len() as u64, self.rules.max_text),
            bad,
        }
    }

    /// The frame that a line over the limit has become.
    fn long_frame(&self, terminator: Option<Terminator>) -> Option<Frame<'_>> {
        let long = self.long.as_ref()?;
        Some(Frame {
            offset: long.offset,
            length: long.length,
            terminator,
            reads: self.cut_count + 1,
            cuts: &self.cuts,
            text: shown(&long.text, long.length, self.rules.max_text),
            bad: Some(Bad::TooLong { max_length: self.rules.max_length }),
        })
    }
}

/// The first `max` bytes of a content of `length` bytes that begins with `start`; a character that would be cut is left
/// off.
fn shown(start: &[u8], length: u64, max: usize) -> &[u8] {
    let start = &start[..start.len().min(max)];
    match str::from_utf8(start) {
        Err(error) if (start.len() as u64) < length && error.error_len().is_none() => {
            &start[..error.valid_up_to()]
        }
        _ => start,
    }
}

fn not_json(content: &[u8]) -> Option<String> {
    if content.is_empty() {
        return Some("an empty line".into());
    }
    match str::from_utf8(content) {
        Err(error) => Some(format!("not UTF-8 from byte {} on", error.valid_up_to())),
        Ok(text) => serde_json::from_str::<serde::de::IgnoredAny>(text).err().map(|error| error.to_string()),
    }
}
