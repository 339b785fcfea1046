use std::string::String;
use std::{fmt, io};

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use memchr::memrchr;
use simdutf8::{basic, compat};
use tokio_util::codec::{Decoder, Encoder};

use super::batch::Batch;
use super::item::{Item, ItemKind};
#[cfg(feature = "net")]
use super::walk::Walk;
use super::{CodecCounters, LineCodec};
use crate::error::{EncodeError, LineError};

/// So many bytes are near: they are checked, copied and looked at again out of a processor's first cache.
const NEAR: usize = 16 * 1024;

/// Lines as UTF-8 text: [`LineCodec`] with [`ByteString`] for its good lines.
///
/// A line that is not UTF-8 is a [`LineError::NotUtf8`], with its bytes in it; nothing is repaired. Otherwise the items
/// are those of `LineCodec`. Text is checked and copied once for all whole lines in 16 KiB of the buffer, and the lines share
/// that copy.
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
    /// Text that stood at the front of the buffer when it was checked.
    checked: ByteString,
    /// So many bytes of `checked` have been taken off the buffer. Always less than its length, or 0.
    passed: usize,
}

impl TextCodec {
    /// [`Delimiter::Newline`](crate::Delimiter::Newline), lines of at most 64 KiB, a cut last line reported.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has become of the bytes read so far.
    pub fn counters(&self) -> CodecCounters {
        self.line.counters()
    }

    #[inline]
    fn next_text(&mut self, src: &mut BytesMut, eof: bool) -> Option<Result<ByteString, LineError>> {
        let Some(item) = self.line.next_item_read(src, eof) else {
            self.checked = ByteString::new();
            return None;
        };
        let text = match item.kind {
            ItemKind::Line | ItemKind::Block => self.text(src, &item),
            bad => {
                self.pass(item.consumed);
                return bad.with(item.cut_bytes(src)).err().map(Err);
            }
        };
        self.pass(item.consumed);
        Some(match text {
            Ok(text) => {
                src.advance(item.consumed);
                Ok(text)
            }
            Err(valid_up_to) => {
                self.line.walk.count_not_utf8(item.kind);
                Err(LineError::NotUtf8 { line: item.cut_bytes(src), valid_up_to })
            }
        })
    }

    /// The text of a good item at the front of `src`, or how much of it is text.
    fn text(&mut self, src: &[u8], item: &Item) -> Result<ByteString, usize> {
        let line = &src[..item.content];
        if let Some(text) = self.checked.get(self.passed..self.passed + line.len()) {
            // The buffer is the caller's and may be another one than last time.
            if text.as_bytes() == line {
                return Ok(self.checked.slice_ref(text));
            }
        }
        let bytes = together(src, item);
        // Not the faster check, which goes on to the end whatever is wrong at the beginning: a peer could have all of it checked for
        // each line.
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

/// What is checked at once: the item at the front of `src`, and as many lines behind it as are near. A character cannot go on behind a
/// terminator of ASCII.
fn together<'a>(src: &'a [u8], item: &Item) -> &'a [u8] {
    let terminator = &src[item.content..item.consumed];
    match terminator.last() {
        Some(last) if terminator.is_ascii() => {
            let more = src.get(item.consumed..src.len().min(NEAR)).unwrap_or_default();
            &src[..item.consumed + memrchr(*last, more).map_or(0, |at| at + 1)]
        }
        _ => &src[..item.content],
    }
}

#[cfg(feature = "net")]
impl Walk {
    /// Takes one item off the front of `buffer` as text, checked and copied by itself.
    pub(crate) fn cut_text(&mut self, item: Item, buffer: &mut BytesMut) -> Result<ByteString, LineError> {
        let valid_up_to = match compat::from_utf8(&buffer[..item.content]) {
            Ok(text) if !item.kind.is_bad() => {
                let text = ByteString::from(text);
                buffer.advance(item.consumed);
                return Ok(text);
            }
            checked => checked.map_or_else(|error| error.valid_up_to(), str::len),
        };
        let line = item.cut(buffer)?;
        self.count_not_utf8(item.kind);
        Err(LineError::NotUtf8 { line, valid_up_to })
    }
}

impl fmt::Debug for TextCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextCodec").field("line", &self.line).finish_non_exhaustive()
    }
}

/// Takes over the configuration and, in the middle of a stream, its place. A block that is outstanding is an item like a
/// line.
impl From<LineCodec> for TextCodec {
    fn from(line: LineCodec) -> Self {
        Self { line, ..Self::default() }
    }
}

/// Goes on behind the last item.
impl From<TextCodec> for LineCodec {
    fn from(text: TextCodec) -> Self {
        text.line
    }
}

impl Decoder for TextCodec {
    type Item = Result<ByteString, LineError>;
    /// Never given by this decoder.
    type Error = io::Error;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(self.next_text(src, false))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        Ok(self.next_text(src, true))
    }
}

impl Encoder<ByteString> for TextCodec {
    type Error = EncodeError;

    fn encode(&mut self, line: ByteString, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.line.encode_line(line.as_bytes(), dst)
    }
}

impl Batch {
    /// The lines that were not taken yet, lent as text; a line that is not UTF-8 is a [`LineError::NotUtf8`]. The whole
    /// batch is checked at once; only where something in it is not UTF-8, line by line.
    ///
    /// [`BatchCodec::counters`](crate::BatchCodec::counters) counts such a line as a good one: it was handed over before
    /// text was asked for.
    pub fn text(&self) -> impl Iterator<Item = Result<&str, LineError>> {
        let all = basic::from_utf8(&self.bytes).ok();
        self.lines.iter(self.next).map(move |line| {
            let bytes = self.item(line)?;
            match all.and_then(|all| all.get(line.start..line.end)) {
                Some(text) => Ok(text),
                None => compat::from_utf8(bytes).map_err(|error| LineError::NotUtf8 {
                    line: self.bytes.slice(line.start..line.end),
                    valid_up_to: error.valid_up_to(),
                }),
            }
        })
    }
}
