//! What is sent, and what has to come back.

use bytes::BytesMut;
use lineframe::LineCodec;

use crate::failure::Failure;

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

/// Lines, all of the same length, that each connection sends round and round.
pub(super) struct Lines {
    sent: Round,
    /// What has to be answered, where that is to the byte.
    answers: Round,
    /// A power of two.
    count: usize,
    /// Of each, without its terminator.
    length: usize,
    reply: Reply,
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

impl Lines {
    /// Different from each other, where `length` leaves room for it, so that a reply to another line is noticed.
    pub(super) fn new(codec: &mut LineCodec, length: usize, reply: Reply) -> Result<Self, Failure> {
        let count = 1 << (MOST_BYTES / (length + 1)).clamp(2, MOST_LINES).ilog2();
        let mut sent = BytesMut::new();
        for nth in 0..count {
            let number = nth.to_string().into_bytes();
            let letters = (b'a'..=b'z').cycle().skip(nth % 26);
            let line: Vec<u8> = match length > number.len() {
                true => number.into_iter().chain(letters).take(length).collect(),
                false => letters.take(length).collect(),
            };
            codec.encode_line(&line, &mut sent).map_err(|error| {
                Failure::usage(format_args!("lines of {length} bytes cannot be sent: {error}"))
            })?;
        }
        let sent = Vec::from(sent);
        let mut answers = sent.clone();
        if reply == Reply::Upper {
            answers.chunks_mut(sent.len() / count).for_each(|line| line[..length].make_ascii_uppercase());
        }
        Ok(Self { sent: Round::new(sent), answers: Round::new(answers), count, length, reply })
    }

    /// The bytes of the line that a connection sends as its `nth`.
    #[inline]
    pub(super) fn stride(&self) -> u64 {
        (self.sent.length / self.count) as u64
    }

    /// What is to be written where `from` bytes were, and those up to `to` may be: as much of it as lies in one piece.
    pub(super) fn bytes(&self, from: u64, to: u64) -> &[u8] {
        self.sent.piece(from, to)
    }

    /// Whether this is how the `nth` line has to be answered.
    #[inline]
    pub(super) fn is_answer(&self, nth: u64, reply: &[u8]) -> bool {
        match self.reply {
            Reply::Upper | Reply::Echo => reply == self.expected(nth),
            Reply::Length => reply.len() == self.length,
            Reply::Any => true,
        }
    }

    /// Whether these are, as far as they go, the answers to the `nth` line and those behind it, with the terminators that those had.
    pub(super) fn are_answers(&self, nth: u64, mut bytes: &[u8]) -> bool {
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

    /// How the `nth` line has to be answered, in `Upper` and `Echo` to the byte.
    pub(super) fn expected(&self, nth: u64) -> &[u8] {
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
