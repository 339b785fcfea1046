//! Splits one direction of a stream into frames and records in which reads they arrived.

use std::str;

use bytes::{Buf, BytesMut};
use lineframe::scan::{Delimiter, Kind, Scanner, Terminator, Unterminated, Verdict};

/// Maximum number of recorded cuts per frame. The number of reads is exact.
const MOST_CUTS: usize = 32;

/// Optional check of the contents of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Check {
    /// Each line is a JSON value.
    Json,
}

/// Settings for splitting and checking a stream.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) delimiter: Delimiter,
    pub(super) max_length: usize,
    pub(super) max_text: usize,
    pub(super) check: Option<Check>,
}

/// Frames of one direction. Buffers the current line, up to `max_length`, and at most one more
/// read.
pub(super) struct Frames {
    rules: Rules,
    scanner: Scanner,
    /// Begins with the frame that was returned last, until it is removed.
    held: BytesMut,
    /// Length of that frame in `held`. `None` if it has been removed.
    returned: Option<usize>,
    /// Number of bytes read. Always at least the scanner's offset.
    read: u64,
    /// Offsets within the current frame at which reads ended, at most `MOST_CUTS`.
    cuts: Vec<u64>,
    cut_count: u64,
    /// The current line if it is longer than `max_length`.
    long: Option<Long>,
}

struct Long {
    offset: u64,
    length: u64,
    text: Vec<u8>,
}

/// A good or bad line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Offset of the first byte in the stream.
    pub(super) offset: u64,
    /// Length of the whole content in bytes, without the terminator.
    pub(super) length: u64,
    /// `None` if the stream ended before the terminator.
    pub(super) terminator: Option<Terminator>,
    /// Number of reads in which the frame arrived, including its terminator.
    pub(super) reads: u64,
    /// Bytes of the frame received at the end of each read except the last; at most 32 values.
    pub(super) cuts: &'a [u64],
    /// Beginning of the content, at most `max_text` bytes.
    pub(super) text: &'a [u8],
    pub(super) bad: Option<Bad>,
}

/// The fault of a frame.
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
            returned: None,
            read: 0,
            cuts: Vec::new(),
            cut_count: 0,
            long: None,
        }
    }

    /// Adds the bytes of one read. Call `next` until it returns `None` before the next `push`.
    pub(super) fn push(&mut self, read: &[u8]) {
        self.remove_returned();
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

    /// Returns the next complete frame. At the end of the stream, also returns an incomplete one.
    pub(super) fn next(&mut self, is_end: bool) -> Option<Frame<'_>> {
        self.remove_returned();
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
                            self.returned = Some(consumed);
                            return self.long_frame(terminator);
                        }
                        None => self.held.advance(consumed),
                    }
                }
                Some(verdict) => {
                    self.returned = Some(verdict.consumed);
                    return Some(self.frame(verdict));
                }
                None if is_end && self.long.is_some() => {
                    self.returned = Some(0);
                    return self.long_frame(None);
                }
                None => return None,
            }
        }
    }

    /// Returns the number of bytes read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Removes the frame that was returned last.
    fn remove_returned(&mut self) {
        if let Some(rest) = self.returned.take() {
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

    /// Returns the frame of a line that is longer than `max_length`.
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

/// Returns at most `max` bytes of `start`, the beginning of a content of `length` bytes. Omits a
/// character that would be cut.
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
        return Some("empty line".into());
    }
    match str::from_utf8(content) {
        Err(error) => Some(format!("not UTF-8 from byte {} on", error.valid_up_to())),
        Ok(text) => serde_json::from_str::<serde::de::IgnoredAny>(text).err().map(|error| error.to_string()),
    }
}
