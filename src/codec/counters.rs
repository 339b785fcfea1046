/// Counters of the items and bytes that a codec has returned or skipped. Requires the feature
/// `codec` (on by default).
///
/// After every item and every `None`, this sum equals the number of bytes read so far:
///
/// ```text
/// content_bytes + terminator_bytes + skipped_bytes + bytes still in the read buffer
/// ```
///
/// The counters accumulate over all streams of the codec until
/// [`LineCodec::reset`](crate::LineCodec::reset).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecCounters {
    /// Good lines. For [`FragmentCodec`](crate::FragmentCodec): lines whose last fragment was
    /// returned.
    pub lines: u64,
    /// Complete blocks, requested with [`LineCodec::expect_bytes`](crate::LineCodec::expect_bytes).
    pub blocks: u64,
    /// Bytes returned: the content of good lines and blocks, and the bytes in bad items
    /// ([`LineError::bytes`](crate::LineError::bytes)).
    pub content_bytes: u64,
    /// Bytes of terminators, except those of `TooLong` lines.
    pub terminator_bytes: u64,
    /// Bytes dropped: the rest of `TooLong` lines with their terminators, and the bytes of
    /// [`LineCodec::skip_bytes`](crate::LineCodec::skip_bytes).
    pub skipped_bytes: u64,
    /// Items of kind [`LineError::TooLong`](crate::LineError::TooLong).
    pub too_long: u64,
    /// Items of kind [`LineError::Unterminated`](crate::LineError::Unterminated). For
    /// [`FragmentCodec`](crate::FragmentCodec): streams that ended within a line.
    pub unterminated: u64,
    /// Items of kind [`LineError::BareTerminator`](crate::LineError::BareTerminator).
    pub bare_terminator: u64,
    /// Items of kind [`LineError::NotUtf8`](crate::LineError::NotUtf8).
    pub not_utf8: u64,
    /// Items of kind [`LineError::Incomplete`](crate::LineError::Incomplete).
    pub incomplete: u64,
}

impl CodecCounters {
    /// Returns the number of bytes returned or skipped.
    #[cfg(feature = "net")]
    pub(crate) fn bytes(&self) -> u64 {
        self.content_bytes + self.terminator_bytes + self.skipped_bytes
    }

    /// Returns the number of bad items of all kinds.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::LineCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut codec = LineCodec::builder().max_length(3).build();
    /// codec.decode(&mut BytesMut::from("too long\n"))?;
    /// assert_eq!(codec.counters().bad_items(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bad_items(&self) -> u64 {
        self.too_long + self.unterminated + self.bare_terminator + self.not_utf8 + self.incomplete
    }
}
