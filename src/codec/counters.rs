/// What became of every byte that a codec has taken in, and how many items it made of them.
///
/// After every item and every `None`, the bytes read so far are
///
/// ```text
/// content_bytes + terminator_bytes + skipped_bytes + the bytes still in the read buffer
/// ```
///
/// They add up over all streams of the codec, until [`LineCodec::reset`](crate::LineCodec::reset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecCounters {
    /// Good lines. Of [`FragmentCodec`](crate::FragmentCodec): lines whose last fragment was returned.
    pub lines: u64,
    /// Complete counted blocks: [`LineCodec::expect_bytes`](crate::LineCodec::expect_bytes).
    pub blocks: u64,
    /// Bytes returned: the content of good lines, of blocks, and what bad items hold
    /// ([`LineError::bytes`](crate::LineError::bytes)).
    pub content_bytes: u64,
    /// Bytes of terminators, except those of `TooLong` lines.
    pub terminator_bytes: u64,
    /// Bytes dropped: the rest of `TooLong` lines with their terminators, and the bytes of
    /// [`LineCodec::skip_bytes`](crate::LineCodec::skip_bytes).
    pub skipped_bytes: u64,
    /// Items [`LineError::TooLong`](crate::LineError::TooLong).
    pub too_long: u64,
    /// Items [`LineError::Unterminated`](crate::LineError::Unterminated). Of
    /// [`FragmentCodec`](crate::FragmentCodec): streams that ended within a line.
    pub unterminated: u64,
    /// Items [`LineError::BareTerminator`](crate::LineError::BareTerminator).
    pub bare_terminator: u64,
    /// Items [`LineError::NotUtf8`](crate::LineError::NotUtf8).
    pub not_utf8: u64,
    /// Items [`LineError::Incomplete`](crate::LineError::Incomplete).
    pub incomplete: u64,
}

impl CodecCounters {
    /// Returns the number of all bytes taken in.
    #[cfg(feature = "net")]
    pub(crate) fn bytes(&self) -> u64 {
        self.content_bytes + self.terminator_bytes + self.skipped_bytes
    }

    /// Returns the number of all items that were not good.
    pub fn bad_items(&self) -> u64 {
        self.too_long + self.unterminated + self.bare_terminator + self.not_utf8 + self.incomplete
    }
}
