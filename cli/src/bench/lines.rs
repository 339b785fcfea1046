//! What is sent, and what has to come back.

use std::fmt::Display;

use bytes::BytesMut;
use lineframe::LineCodec;

use crate::failure::Failure;
use crate::show;

/// The lines take so much memory, at most, but where two of them need more: it stays in a core's cache, with what is sent and read.
const MOST_BYTES: usize = 1 << 17;
const MOST_LINES: usize = 1024;

/// A read or a write is seldom of more.
const PIECE: usize = 64 * 1024;

/// How a line has to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Reply {
    /// With its ASCII upper case, as `serve` does
    Upper,
    /// With itself
    Echo,
    /// With a line of its length
    Length,
    /// With a line
    Any,
}

/// The number of a line, of [`NUMBER`] digits, so that no two lines of a run are the same: a reply of
/// another connection, a late one and a doubled one are all noticed. Base 32 needs only shifts, and
/// its digits are distinct in upper case too.
const NUMBER: usize = 8;
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// One of `of` connections, the one with this `number` from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) number: u64,
    pub(super) of: u64,
}

impl Member {
    /// The number of its `nth` line among the lines of all connections.
    #[inline]
    fn line_number(self, nth: u64, digits: &[u8; 32]) -> [u8; NUMBER] {
        let line = nth.wrapping_mul(self.of).wrapping_add(self.number);
        std::array::from_fn(|at| digits[(line >> (5 * (NUMBER - 1 - at)) & 31) as usize])
    }
}

/// Lines, all of the same length, that each connection sends round and round, from [`NUMBER`] bytes
/// on each with its own number at the front.
pub(super) struct Lines {
    sent: Round,
    /// What has to be answered, where that is to the byte.
    answers: Round,
    /// A power of two.
    count: usize,
    /// Of each, without its terminator.
    length: usize,
    reply: Reply,
    is_numbered: bool,
    /// Of the numbers in `answers`.
    answer_digits: [u8; 32],
}

/// Lines with their terminators, one behind the other.
struct Round {
    /// The first ones again behind the last, so that [`PIECE`] bytes from anywhere on lie in one piece.
    bytes: Vec<u8>,
    /// Without those.
    length: usize,
}

impl Round {
    fn new(mut bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        bytes.extend_from_within(..length.min(PIECE));
        Self { bytes, length }
    }

    /// From `from` up to `to`, round and round: as much of it as lies in one piece.
    #[inline]
    fn piece(&self, from: u64, to: u64) -> &[u8] {
        let start = (from % self.length as u64) as usize;
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        &self.bytes[start..start.saturating_add(length).min(self.bytes.len())]
    }
}

/// Whether lines of any digits and letters can be sent.
fn check_digits(codec: &mut LineCodec) -> Result<(), String> {
    let mut terminator = BytesMut::new();
    codec.encode_line(b"", &mut terminator).map_err(|error| error.to_string())?;
    for digit in (b'0'..=b'9').chain(b'a'..=b'z') {
        codec.encode_line(&[digit], &mut BytesMut::new()).map_err(|error| error.to_string())?;
        // A sequence would begin in the line.
        if terminator.first() == Some(&digit) {
            return Err("their terminator begins with a letter or a digit".into());
        }
    }
    Ok(())
}

impl Lines {
    /// Different from each other, where `length` leaves room for it, so that a reply to another line is noticed. The numbers
    /// come later.
    pub(super) fn new(codec: &mut LineCodec, length: usize, reply: Reply) -> Result<Self, Failure> {
        let is_numbered = length >= NUMBER;
        let refused = |why: &dyn Display| {
            Failure::usage(format_args!("lines of {} cannot be sent: {why}", show::bytes(length)))
        };
        if is_numbered {
            check_digits(codec).map_err(|why| refused(&why))?;
        }
        let count = 1 << (MOST_BYTES / (length + 1)).clamp(2, MOST_LINES).ilog2();
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
        let (sent, answers) = (Round::new(sent), Round::new(answers));
        Ok(Self { sent, answers, count, length, reply, is_numbered, answer_digits })
    }

    /// How many bytes a line is, with its terminator.
    #[inline]
    pub(super) fn stride(&self) -> u64 {
        (self.sent.length / self.count) as u64
    }

    /// What `member` is to write where `from` bytes were, and those up to `to` may be: as much of it as lies in one piece, in
    /// `room` if it is numbered.
    pub(super) fn bytes<'a>(&'a self, member: Member, from: u64, to: u64, room: &'a mut Vec<u8>) -> &'a [u8] {
        let piece = self.sent.piece(from, to);
        if !self.is_numbered {
            return piece;
        }
        room.clear();
        room.extend_from_slice(&piece[..piece.len().min(PIECE)]);
        let (mut nth, offset) = (from / self.stride(), (from % self.stride()) as usize);
        let mut rest = &mut room[..];
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
        room
    }

    /// Whether this is how the `nth` line of `member` has to be answered.
    #[inline]
    pub(super) fn is_answer(&self, member: Member, nth: u64, reply: &[u8]) -> bool {
        match self.reply {
            Reply::Upper | Reply::Echo => {
                reply.len() == self.length && self.is_numbered(member, nth, reply, self.round_answer(nth))
            }
            Reply::Length => reply.len() == self.length,
            Reply::Any => true,
        }
    }

    /// Whether `bytes` are, as far as they go, `line` with the number of the `nth` line of `member`.
    #[inline]
    fn is_numbered(&self, member: Member, nth: u64, bytes: &[u8], line: &[u8]) -> bool {
        if !self.is_numbered {
            return bytes == &line[..bytes.len()];
        }
        let number = member.line_number(nth, &self.answer_digits);
        let count = bytes.len().min(NUMBER);
        bytes[..count] == number[..count] && bytes[count..] == line[count..bytes.len()]
    }

    /// Whether these are, as far as they go, the answers to the `nth` line of `member` and those behind it, with the
    /// terminators that those had.
    pub(super) fn are_answers(&self, member: Member, nth: u64, mut bytes: &[u8]) -> bool {
        if self.is_numbered {
            let stride = self.stride() as usize;
            let mut lines = bytes.chunks(stride).zip(nth..);
            return lines.all(|(line, nth)| {
                let start = (nth as usize & (self.count - 1)) * stride;
                self.is_numbered(member, nth, line, &self.answers.bytes[start..start + stride])
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

    /// How the `nth` line of `member` has to be answered, in `Upper` and `Echo` to the byte.
    pub(super) fn expected(&self, member: Member, nth: u64) -> Vec<u8> {
        let mut expected = self.round_answer(nth).to_vec();
        if self.is_numbered {
            expected[..NUMBER].copy_from_slice(&member.line_number(nth, &self.answer_digits));
        }
        expected
    }

    /// The same without its number.
    fn round_answer(&self, nth: u64) -> &[u8] {
        let start = (nth as usize & (self.count - 1)) * (self.answers.length / self.count);
        &self.answers.bytes[start..start + self.length]
    }

    /// Whether only the length of an answer is looked at, if that.
    pub(super) fn is_of_any_content(&self) -> bool {
        matches!(self.reply, Reply::Length | Reply::Any)
    }

    /// What was expected, in words.
    pub(super) fn expectation(&self) -> &'static str {
        match self.reply {
            Reply::Upper => "its line in upper case (--reply upper)",
            Reply::Echo => "its line (--reply echo)",
            Reply::Length => "as long as its line (--reply length)",
            Reply::Any => "a line (--reply any)",
        }
    }
}
