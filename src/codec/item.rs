#[cfg(feature = "net")]
use alloc::string::String;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::LineError;
use crate::scan::Kind;

/// An item and its position in the bytes that were passed to the decoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(super) kind: Kind,
    pub(super) start: usize,
    /// At least `start`.
    pub(super) content_end: usize,
    /// The start of the next item. At least `content_end`.
    pub(super) end: usize,
    /// The requested length of a block, otherwise 0.
    pub(super) expected: usize,
}

impl Item {
    #[inline]
    pub(crate) fn is_bad(&self) -> bool {
        self.kind.is_bad()
    }

    #[cfg(feature = "net")]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the content. `bytes` must be the bytes that were passed to the decoder.
    #[cfg(feature = "net")]
    #[inline]
    pub(crate) fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.content_end]
    }

    /// Returns the end of the item, including its terminator. For `TooLong` this includes the bytes
    /// skipped so far.
    #[cfg(feature = "net")]
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Returns the reply to a bad item, or an empty string for a good one.
    #[cfg(feature = "net")]
    #[cold]
    pub(crate) fn error_reply(&self, bytes: &[u8]) -> String {
        let content = Bytes::copy_from_slice(self.content(bytes));
        let bad = LineError::check(self.kind, content, self.expected).err();
        bad.map(|bad| bad.reply()).unwrap_or_default()
    }

    /// Removes the item from the front of `buffer` without a copy. `start` must be 0.
    #[inline(always)]
    pub(crate) fn cut(self, buffer: &mut BytesMut) -> Result<Bytes, LineError> {
        LineError::check(self.kind, self.cut_bytes(buffer), self.expected)
    }

    /// Removes the item from the front of `buffer` like [`cut`](Self::cut), ignoring its kind.
    #[inline(always)]
    pub(crate) fn cut_bytes(self, buffer: &mut BytesMut) -> Bytes {
        debug_assert_eq!(self.start, 0);
        if self.content_end == 0 {
            // An empty slice would keep the whole buffer in memory.
            buffer.advance(self.end);
            return Bytes::new();
        }
        let mut bytes = buffer.split_to(self.end);
        bytes.truncate(self.content_end);
        bytes.freeze()
    }
}
