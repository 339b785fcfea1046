use std::io;
use std::string::String;

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use memchr::memrchr;
use simdutf8::{basic, compat};
use tokio_util::codec::{Decoder, Encoder};

use super::CodecCounters;
use super::builder::LineCodecBuilder;
use super::encoder::LineEncoder;
use super::item::Item;
use super::line::{LineCodec, implement_codec};
use crate::error::LineError;

/// The number of bytes checked in one pass. They stay in the first-level cache while they are
/// checked, copied and compared.
const CHECK_SIZE: usize = 16 * 1024;

/// A codec like [`LineCodec`] that returns good lines as `ByteString`. Requires the feature
/// `text`.
///
/// A line that is not UTF-8 is a [`LineError::NotUtf8`] that contains its bytes; the codec never
/// replaces invalid bytes. All other items are those of `LineCodec`. The codec checks and copies
/// the whole lines in up to 16 KiB of the buffer in one pass, and these lines share the copy. If
/// the terminator is not ASCII, it checks each line separately.
///
/// ```
/// use futures::TryStreamExt;
/// use lineframe::{LineError, TextCodec};
/// use tokio_util::codec::FramedRead;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let mut lines = FramedRead::new(&b"gr\xc3\xbcn\n\xff\n"[..], TextCodec::new());
/// assert_eq!(lines.try_next().await?.unwrap()?, "grün");
/// let bad = lines.try_next().await?.unwrap().unwrap_err();
/// assert!(matches!(bad, LineError::NotUtf8 { valid_up_to: 0, .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct TextCodec {
    line: LineCodec,
    /// The text that was at the front of the buffer when it was checked.
    checked: ByteString,
    /// The number of bytes of `checked` already removed from the buffer. Less than its length, or
    /// 0.
    passed: usize,
}

impl TextCodec {
    /// Returns a [`LineEncoder`] with the configuration of this codec.
    ///
    /// ```
    /// let encoder = lineframe::TextCodec::new().encoder();
    /// assert_eq!(encoder.terminator(), b"\n");
    /// ```
    pub fn encoder(&self) -> LineEncoder {
        self.line.encoder()
    }

    #[inline]
    fn next(&mut self, src: &mut BytesMut, eof: bool) -> Option<Result<ByteString, LineError>> {
        let Some(item) = self.line.next_item_read(src, eof) else {
            self.checked = ByteString::new();
            return None;
        };
        if item.is_bad() {
            self.pass(item.end);
            return item.cut(src).err().map(Err);
        }
        let text = self.text(src, &item);
        self.pass(item.end);
        Some(match text {
            Ok(text) => {
                src.advance(item.end);
                Ok(text)
            }
            Err(valid_up_to) => Err(self.line.decoder.cut_not_utf8(item, src, valid_up_to)),
        })
    }

    /// Returns the text of a good item at the front of `src`. The error is the length of its valid
    /// UTF-8 prefix.
    fn text(&mut self, src: &[u8], item: &Item) -> Result<ByteString, usize> {
        let line = &src[..item.content_end];
        if let Some(text) = self.checked.get(self.passed..self.passed + line.len()) {
            // The caller owns the buffer and may have replaced its content.
            if text.as_bytes() == line {
                return Ok(self.checked.slice_ref(text));
            }
        }
        let bytes = checked_together(src, item);
        // `basic` is faster, but does not stop at the first error. A peer could make it check all
        // bytes again for each line.
        let text = match compat::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() < line.len() => return Err(error.valid_up_to()),
            Err(error) => basic::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        self.checked = ByteString::from(String::from(text));
        self.passed = 0;
        Ok(self.checked.slice_ref(&self.checked[..line.len()]))
    }

    fn pass(&mut self, count: usize) {
        self.passed += count;
        if self.passed >= self.checked.len() {
            self.checked = ByteString::new();
            self.passed = 0;
        }
    }
}

/// Returns the bytes to check in one pass: the item at the front of `src` and the whole lines after
/// it, within `CHECK_SIZE`. No character extends over an ASCII terminator.
fn checked_together<'a>(src: &'a [u8], item: &Item) -> &'a [u8] {
    let terminator = &src[item.content_end..item.end];
    match terminator.last() {
        Some(last) if terminator.is_ascii() => {
            let more = src.get(item.end..src.len().min(CHECK_SIZE)).unwrap_or_default();
            &src[..item.end + memrchr(*last, more).map_or(0, |at| at + 1)]
        }
        _ => &src[..item.content_end],
    }
}

implement_codec!(TextCodec, Result<ByteString, LineError>, "lines");

/// Keeps the configuration and continues after the last item. A pending block becomes an item like
/// a line.
impl From<LineCodec> for TextCodec {
    fn from(line: LineCodec) -> Self {
        Self { line, ..Self::default() }
    }
}

impl Encoder<ByteString> for TextCodec {
    type Error = io::Error;

    fn encode(&mut self, line: ByteString, dst: &mut BytesMut) -> io::Result<()> {
        self.line.encode(line.into_bytes(), dst)
    }
}
