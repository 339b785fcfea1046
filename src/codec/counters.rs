/// What became of every byte that a codec has taken in, and how many items it made of them.
///
/// Always, after every item and every `None`: the bytes read so far are
///
/// ```text
/// content_bytes + terminator_bytes + skipped_bytes + the bytes still in the read buffer
/// ```
///
/// They add up over all streams that the codec is used on, until [`LineCodec::reset`](crate::LineCodec::reset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecCounters {
    /// Good lines. From [`FragmentCodec`](crate::FragmentCodec): lines whose last fragment has come.
    pub lines: u64,
    /// Counted blocks that came whole: [`LineCodec::expect_bytes`](crate::LineCodec::expect_bytes).
    pub blocks: u64,
    /// Bytes handed over: the content of good lines, of blocks, and what bad items hold
    /// ([`LineError::bytes`](crate::LineError::bytes)).
    pub content_bytes: u64,
    /// Bytes of terminators, but for those of `TooLong` lines.
    pub terminator_bytes: u64,
    /// Bytes dropped: the rest of `TooLong` lines with their terminators, and what
    /// [`LineCodec::skip_bytes`](crate::LineCodec::skip_bytes) took.
    pub skipped_bytes: u64,
    /// Items [`LineError::TooLong`](crate::LineError::TooLong).
    pub too_long: u64,
    /// Items [`LineError::Unterminated`](crate::LineError::Unterminated). From
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
    /// All bytes taken in.
    #[cfg(feature = "net")]
    pub(crate) fn bytes(&self) -> u64 {
        self.content_bytes + self.terminator_bytes + self.skipped_bytes
    }

    /// All items that were not good.
    pub fn bad_items(&self) -> u64 {
        self.too_long + self.unterminated + self.bare_terminator + self.not_utf8 + self.incomplete
    }
}
