#[cfg(feature = "net")]
use alloc::string::String;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::LineError;
use crate::scan::Kind;

/// An item, and where it lies in the bytes that the decoder was shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(super) kind: Kind,
    pub(super) start: usize,
    /// At least `start`.
    pub(super) content_end: usize,
    /// Where the next item begins. At least `content_end`.
    pub(super) end: usize,
    /// The number of bytes asked for, of a block.
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

    /// Returns the content. `bytes` are those that the decoder was shown.
    #[cfg(feature = "net")]
    #[inline]
    pub(crate) fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.content_end]
    }

    /// Returns where the item ends: after its terminator and, in `TooLong`, what was skipped so far.
    #[cfg(feature = "net")]
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Returns what to answer a bad item with.
    #[cfg(feature = "net")]
    #[cold]
    pub(crate) fn error_reply(&self, bytes: &[u8]) -> String {
        let content = Bytes::copy_from_slice(self.content(bytes));
        let bad = LineError::check(self.kind, content, self.expected).err();
        bad.map(|bad| bad.reply()).unwrap_or_default()
    }

    /// Takes the item off the front of `buffer`, without a copy. It has to be the first one.
    #[inline(always)]
    pub(crate) fn cut(self, buffer: &mut BytesMut) -> Result<Bytes, LineError> {
        LineError::check(self.kind, self.cut_bytes(buffer), self.expected)
    }

    /// [`cut`](Self::cut) without a look at its kind.
    #[inline(always)]
    pub(crate) fn cut_bytes(self, buffer: &mut BytesMut) -> Bytes {
        debug_assert_eq!(self.start, 0);
        if self.content_end == 0 {
            // An empty slice would keep the whole buffer alive.
            buffer.advance(self.end);
            return Bytes::new();
        }
        let mut bytes = buffer.split_to(self.end);
        bytes.truncate(self.content_end);
        bytes.freeze()
    }
}
