//! The lines that `bench` sends, and the expected replies.

use std::fmt::Display;

use bytes::BytesMut;
use lineframe::LineCodec;

use crate::failure::Failure;
use crate::show;

/// Target size of all lines, exceeded only if two lines need more. Lines, writes and reads then fit
/// into the cache of a core.
const MAX_BYTES: usize = 1 << 17;
const MAX_LINES: usize = 1024;

/// Number of bytes available without wrapping around, at any position. Reads and writes are rarely
/// larger.
const PIECE: usize = 64 * 1024;

/// Expected reply to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Reply {
    /// The line in ASCII upper case, as from `lineframe serve`
    Upper,
    /// The same line
    Echo,
    /// Any line of the same length
    Length,
    /// Any line
    Any,
}

/// Number of digits of a line number.
///
/// All lines of a run have different numbers, so that a reply to another connection, a late reply
/// and a duplicate are detected. Base 32 needs only shifts, and its digits stay distinct in upper
/// case.
const NUMBER: usize = 8;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Connection `number`, counted from 0, out of `of` connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) of: u64,
}

impl Member {
    /// Returns the digits of the number of its `nth` line, which is unique over all connections.
    #[inline]
    fn line_number(self, nth: u64, digits: &[u8; 32]) -> [u8; NUMBER] {
        let line = nth.wrapping_mul(self.of).wrapping_add(self.number);
        std::array::from_fn(|at| digits[(line >> (5 * (NUMBER - 1 - at)) & 31) as usize])
    }
}

/// A cycle of lines of the same length, which each connection sends repeatedly. Lines of at least
/// [`NUMBER`] bytes begin with their number.
pub(super) struct Lines {
    sent: Cycle,
    /// Expected replies, for [`Reply::Upper`] and [`Reply::Echo`].
    answers: Cycle,
    /// Number of lines; a power of two.
    count: usize,
    /// Length of a line without its terminator.
    length: usize,
    reply: Reply,
    is_numbered: bool,
    /// Digits of the numbers in `answers`.
    answer_digits: [u8; 32],
}

/// Consecutive lines with their terminators.
struct Cycle {
    /// The lines, and then their first [`PIECE`] bytes again.
    bytes: Vec<u8>,
    /// Length without the repeated bytes.
    length: usize,
}

impl Cycle {
    fn new(mut bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        bytes.extend_from_within(..length.min(PIECE));
        Self { bytes, length }
    }

    /// Returns the bytes of the endless cycle from position `from`: up to `to`, but at most the
    /// contiguous ones.
    #[inline]
    fn piece(&self, from: u64, to: u64) -> &[u8] {
        let start = (from % self.length as u64) as usize;
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        &self.bytes[start..start.saturating_add(length).min(self.bytes.len())]
    }
}

/// Checks that lines of any digits and letters can be sent.
fn check_digits(codec: &mut LineCodec) -> Result<(), String> {
    let mut terminator = BytesMut::new();
    codec.encode_line(b"", &mut terminator).map_err(|error| error.to_string())?;
    for digit in (b'0'..=b'9').chain(b'a'..=b'z') {
        codec.encode_line(&[digit], &mut BytesMut::new()).map_err(|error| error.to_string())?;
        // With a sequence as the delimiter, the terminator would begin within the line.
        if terminator.first() == Some(&digit) {
            return Err("the terminator begins with a letter or digit".into());
        }
    }
    Ok(())
}

impl Lines {
    /// Creates lines that differ from each other if `length` allows it, so that a reply to another
    /// line is detected. `bytes` inserts the numbers.
    pub(super) fn new(codec: &mut LineCodec, length: usize, reply: Reply) -> Result<Self, Failure> {
        let is_numbered = length >= NUMBER;
        let refused = |why: &dyn Display| {
            let length = show::bytes(length);
            Failure::usage(format_args!(
                "cannot send lines of {length}: {why}; change --length, --delimiter or --max-length"
            ))
        };
        if is_numbered {
            check_digits(codec).map_err(|why| refused(&why))?;
        }
        let count = 1 << (MAX_BYTES / (length + 1)).clamp(2, MAX_LINES).ilog2();
        let mut sent = BytesMut::new();
        for nth in 0..count {
            let number = match is_numbered {
                true => vec![DIGITS[0]; NUMBER],
                false => nth.to_string().into_bytes(),
            };
            let letters = (b'a'..=b'z').cycle().skip(nth % 26);
            let line: Vec<u8> = match is_numbered || length > number.len() {
                true => number.into_iter().chain(letters).take(length).collect(),
                false => letters.take(length).collect(),
            };
            codec.encode_line(&line, &mut sent).map_err(|error| refused(&error))?;
        }
        let sent = Vec::from(sent);
        let mut answers = sent.clone();
        if reply == Reply::Upper {
            answers.chunks_mut(sent.len() / count).for_each(|line| line[..length].make_ascii_uppercase());
        }
        let mut answer_digits = *DIGITS;
        if reply == Reply::Upper {
            answer_digits.make_ascii_uppercase();
        }
        let (sent, answers) = (Cycle::new(sent), Cycle::new(answers));
        Ok(Self { sent, answers, count, length, reply, is_numbered, answer_digits })
    }

    /// Returns the length of a line in bytes, with its terminator.
    #[inline]
    pub(super) fn stride(&self) -> u64 {
        (self.sent.length / self.count) as u64
    }

    /// Returns the next bytes of `member` to write, from position `from` up to at most `to`.
    /// Numbered lines are built in `buffer`.
    pub(super) fn bytes<'a>(
        &'a self,
        member: Member,
        from: u64,
        to: u64,
        buffer: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let piece = self.sent.piece(from, to);
        if !self.is_numbered {
            return piece;
        }
        buffer.clear();
        buffer.extend_from_slice(&piece[..piece.len().min(PIECE)]);
        let (mut nth, offset) = (from / self.stride(), (from % self.stride()) as usize);
        let mut rest = &mut buffer[..];
        if offset > 0 {
            let (begun, next) = rest.split_at_mut((self.stride() as usize - offset).min(rest.len()));
            let number = &member.line_number(nth, DIGITS)[offset.min(NUMBER)..];
            let count = number.len().min(begun.len());
            begun[..count].copy_from_slice(&number[..count]);
            (rest, nth) = (next, nth + 1);
        }
        for line in rest.chunks_mut(self.stride() as usize) {
            let number = member.line_number(nth, DIGITS);
            match line.first_chunk_mut() {
                Some(place) => *place = number,
                None => line.copy_from_slice(&number[..line.len()]),
            }
            nth += 1;
        }
        buffer
    }

    /// Returns whether `reply` is the expected reply to the `nth` line of `member`.
    #[inline]
    pub(super) fn is_answer(&self, member: Member, nth: u64, reply: &[u8]) -> bool {
        match self.reply {
            Reply::Upper | Reply::Echo => {
                reply.len() == self.length && self.matches(member, nth, reply, self.unnumbered_answer(nth))
            }
            Reply::Length => reply.len() == self.length,
            Reply::Any => true,
        }
    }

    /// Returns whether `bytes` are the beginning of `line`, with the number of the `nth` line of
    /// `member`.
    #[inline]
    fn matches(&self, member: Member, nth: u64, bytes: &[u8], line: &[u8]) -> bool {
        if !self.is_numbered {
            return bytes == &line[..bytes.len()];
        }
        let number = member.line_number(nth, &self.answer_digits);
        let count = bytes.len().min(NUMBER);
        bytes[..count] == number[..count] && bytes[count..] == line[count..bytes.len()]
    }

    /// Returns whether `bytes` are the beginning of the expected replies, with terminators, to the
    /// lines of `member` from the `nth` one on.
    pub(super) fn are_answers(&self, member: Member, nth: u64, mut bytes: &[u8]) -> bool {
        if self.is_numbered {
            let stride = self.stride() as usize;
            let mut lines = bytes.chunks(stride).zip(nth..);
            return lines.all(|(line, nth)| {
                let start = (nth as usize & (self.count - 1)) * stride;
                self.matches(member, nth, line, &self.answers.bytes[start..start + stride])
            });
        }
        let mut at = nth * self.stride();
        while !bytes.is_empty() {
            let expected = self.answers.piece(at, at + bytes.len() as u64);
            let (these, rest) = bytes.split_at(expected.len());
            if these != expected {
                return false;
            }
            at += these.len() as u64;
            bytes = rest;
        }
        true
    }

    /// Returns the expected reply to the `nth` line of `member`. Exact for `Upper` and `Echo`.
    pub(super) fn expected(&self, member: Member, nth: u64) -> Vec<u8> {
        let mut expected = self.unnumbered_answer(nth).to_vec();
        if self.is_numbered {
            expected[..NUMBER].copy_from_slice(&member.line_number(nth, &self.answer_digits));
        }
        expected
    }

    /// Returns the expected reply to the `nth` line before its number is inserted.
    fn unnumbered_answer(&self, nth: u64) -> &[u8] {
        let start = (nth as usize & (self.count - 1)) * (self.answers.length / self.count);
        &self.answers.bytes[start..start + self.length]
    }

    /// Returns whether the contents of replies are ignored.
    pub(super) fn is_of_any_content(&self) -> bool {
        matches!(self.reply, Reply::Length | Reply::Any)
    }

    /// Describes the expected reply in a message.
    pub(super) fn expectation(&self) -> &'static str {
        match self.reply {
            Reply::Upper => "the line in upper case (--reply upper)",
            Reply::Echo => "the line itself (--reply echo)",
            Reply::Length => "as long as the line (--reply length)",
            Reply::Any => "a line (--reply any)",
        }
    }
}
