#[cfg(feature = "server")]
use alloc::string::String;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::LineError;

/// An item and where it lies at the front of the bytes shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(super) kind: ItemKind,
    pub(super) content: usize,
    /// Content, terminator and, in `TooLong`, what was skipped so far.
    pub(super) consumed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Line,
    /// Counted bytes, all of them.
    Block,
    TooLong {
        max_length: usize,
    },
    Unterminated,
    BareTerminator,
    Incomplete {
        expected: usize,
    },
    Piece {
        is_last: bool,
    },
}

impl Item {
    /// Takes the item off the front of `buffer`, without a copy.
    #[inline(always)]
    pub(crate) fn cut(self, buffer: &mut BytesMut) -> Result<Bytes, LineError> {
        match self.kind {
            ItemKind::Line => Ok(self.cut_bytes(buffer)),
            bad => bad.with(self.cut_bytes(buffer)),
        }
    }

    #[inline(always)]
    pub(crate) fn cut_bytes(self, buffer: &mut BytesMut) -> Bytes {
        if self.content == 0 {
            // An empty slice would keep the whole buffer alive.
            buffer.advance(self.consumed);
            return Bytes::new();
        }
        let mut bytes = buffer.split_to(self.consumed);
        bytes.truncate(self.content);
        bytes.freeze()
    }
}

impl ItemKind {
    #[inline]
    pub(crate) fn is_bad(self) -> bool {
        !matches!(self, Self::Line | Self::Block | Self::Piece { .. })
    }

    /// What a peer is told of a bad item with this content.
    #[cfg(feature = "server")]
    #[cold]
    pub(crate) fn reply(self, content: &[u8]) -> String {
        let bad = self.with(Bytes::copy_from_slice(content)).err();
        bad.map(|bad| bad.reply()).unwrap_or_default()
    }

    /// The item with its content in it.
    #[inline]
    pub(super) fn with(self, bytes: Bytes) -> Result<Bytes, LineError> {
        Err(match self {
            Self::Line | Self::Block | Self::Piece { .. } => return Ok(bytes),
            Self::TooLong { max_length } => LineError::TooLong { prefix: bytes, max_length },
            Self::Unterminated => LineError::Unterminated { line: bytes },
            Self::BareTerminator => LineError::BareTerminator { line: bytes },
            Self::Incomplete { expected } => LineError::Incomplete { bytes, expected },
        })
    }
}

/// What is told of each item, where its content begins and ends, until it gives false.
pub(crate) trait Items {
    /// A good line with its terminator. Apart from the others, since what is told there is only one that all of its work may be part of.
    fn line(&mut self, start: usize, end: usize) -> bool;
    fn item(&mut self, start: usize, end: usize, kind: ItemKind) -> bool;

    /// How many bytes of good lines, at most, may be told [together](Self::lines).
    #[inline(always)]
    fn most_together(&self) -> usize {
        0
    }

    /// So many good lines, one behind the other from `start` to `end`, each with a terminator of one byte.
    fn lines(&mut self, _start: usize, _end: usize, _count: usize) {}
}

impl<F: FnMut(usize, usize, ItemKind) -> bool> Items for F {
    #[inline(always)]
    fn line(&mut self, start: usize, end: usize) -> bool {
        self(start, end, ItemKind::Line)
    }

    #[inline(always)]
    fn item(&mut self, start: usize, end: usize, kind: ItemKind) -> bool {
        self(start, end, kind)
    }
}
