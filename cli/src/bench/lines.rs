//! What is sent, and what has to come back.

use bytes::BytesMut;
use lineframe::LineCodec;

use crate::failure::Failure;

/// The lines take so much memory, at most, but where two of them need more.
const MOST_BYTES: usize = 1 << 20;
const MOST_LINES: usize = 1000;

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
    /// With their terminators, one behind the other.
    wire: Vec<u8>,
    /// What has to be answered, without terminators, one behind the other.
    replies: Vec<u8>,
    count: usize,
    length: usize,
    reply: Reply,
}

impl Lines {
    /// Different from each other, where `length` leaves room for it, so that a reply to another line is noticed.
    pub(super) fn new(codec: &mut LineCodec, length: usize, reply: Reply) -> Result<Self, Failure> {
        let count = (MOST_BYTES / (length + 1)).clamp(2, MOST_LINES);
        let mut wire = BytesMut::new();
        let mut contents = Vec::with_capacity(count * length);
        for nth in 0..count {
            let number = nth.to_string().into_bytes();
            let letters = (b'a'..=b'z').cycle().skip(nth % 26);
            let line: Vec<u8> = match length > number.len() {
                true => number.into_iter().chain(letters).take(length).collect(),
                false => letters.take(length).collect(),
            };
            codec.encode_line(&line, &mut wire).map_err(|error| {
                Failure::usage(format_args!("lines of {length} bytes cannot be sent: {error}"))
            })?;
            contents.extend_from_slice(&line);
        }
        if reply == Reply::Upper {
            contents.make_ascii_uppercase();
        }
        Ok(Self { wire: wire.into(), replies: contents, count, length, reply })
    }

    /// The bytes of the line that a connection sends as its `nth`.
    pub(super) fn stride(&self) -> u64 {
        (self.wire.len() / self.count) as u64
    }

    /// What is to be written where `from` bytes were, and those up to `to` may be: as much of it as lies in one piece.
    pub(super) fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let size = self.wire.len();
        let start = (from % size as u64) as usize;
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        &self.wire[start..start.saturating_add(length).min(size)]
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

    /// How the `nth` line has to be answered, in `Upper` and `Echo` to the byte.
    pub(super) fn expected(&self, nth: u64) -> &[u8] {
        let start = (nth % self.count as u64) as usize * self.length;
        &self.replies[start..start + self.length]
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
