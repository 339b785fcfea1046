use std::io;
use std::vec::Vec;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::CodecCounters;
use super::builder::LineCodecBuilder;
use super::line::{LineCodec, implement_codec};
use crate::error::EncodeError;
use crate::scan::Kind;

/// A codec that returns lines of any length in pieces, for lines longer than memory. Requires the
/// feature `codec` (on by default).
///
/// Each [`Fragment`] has at most `max_length` bytes (0 counts as 1) and is returned as soon as its
/// bytes are available. No line is too long. How reads cut the stream decides where a line is cut
/// into fragments. It never changes the joined fragments or the position of
/// [`is_last`](Fragment::is_last).
///
/// If the stream ends within a line, the last fragment has no `is_last`, with both policies of
/// [`Unterminated`](crate::Unterminated). If you convert the codec into a [`LineCodec`] within a
/// line, the rest of the line is returned as a line.
///
/// A relay is `reader.forward(writer)`. The encoder writes a terminator only after a fragment with
/// `is_last`. With `Newline` it writes the configured line end. With
/// [`Delimiter::Lf`](crate::Delimiter::Lf) a relay reproduces every byte. With
/// [`Delimiter::CrLf`](crate::Delimiter::CrLf) a lone CR or LF passes as content.
///
/// ```
/// use futures::StreamExt;
/// use lineframe::{Delimiter, FragmentCodec};
/// use tokio_util::codec::{FramedRead, FramedWrite};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let codec = FragmentCodec::builder().delimiter(Delimiter::Lf).max_length(1024).build();
/// let input = [&[b'x'; 1_000_000][..], b"\r\nshort\ncut"].concat();
/// let mut output = Vec::new();
/// let reader = FramedRead::new(&input[..], codec.clone());
/// reader.forward(FramedWrite::new(&mut output, codec)).await?;
/// assert_eq!(output, input);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct FragmentCodec {
    line: LineCodec,
    /// Whether the last fragment read was not the last one of its line.
    is_within_line: bool,
    /// The last bytes written of the current line. Shorter than the longest terminator.
    tail: Vec<u8>,
}

/// A piece of a line, returned and written by [`FragmentCodec`]. Requires the feature `codec` (on
/// by default).
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::FragmentCodec;
/// use tokio_util::codec::Decoder;
///
/// let mut codec = FragmentCodec::builder().max_length(3).build();
/// let mut buffer = BytesMut::from("hello\n");
/// let first = codec.decode(&mut buffer)?.unwrap();
/// assert_eq!((&first.bytes[..], first.is_last), (&b"hel"[..], false));
/// let last = codec.decode(&mut buffer)?.unwrap();
/// assert_eq!((&last.bytes[..], last.is_last), (&b"lo"[..], true));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The content. Empty only in the last fragment of a line, and for a block that the end of the
    /// stream cut before its first byte.
    pub bytes: Bytes,
    /// Whether the line ends here: its terminator has arrived, or is to be written.
    pub is_last: bool,
}

impl FragmentCodec {
    fn next(&mut self, src: &mut BytesMut, eof: bool) -> Option<Fragment> {
        let LineCodec { decoder, read_size, .. } = &mut self.line;
        read_size.adapt(src);
        let Some(item) = decoder.next_piece(src, eof) else {
            if !eof {
                read_size.reserve(src);
            } else if std::mem::take(&mut self.is_within_line) {
                decoder.add_cut_line();
            }
            return None;
        };
        let is_last = match item.kind {
            Kind::Piece => {
                self.is_within_line = item.end == item.content_end;
                !self.is_within_line
            }
            kind => kind == Kind::Block,
        };
        Some(Fragment { bytes: item.cut_bytes(src), is_last })
    }
}

implement_codec!(FragmentCodec, Fragment, "fragments");

/// Keeps the configuration and continues after the last item. The rest of a `TooLong` line is still
/// skipped. A pending block becomes one fragment, with `is_last` unless the stream ends within the
/// block.
impl From<LineCodec> for FragmentCodec {
    fn from(line: LineCodec) -> Self {
        Self { line, is_within_line: false, tail: Vec::new() }
    }
}

/// Writes the fragment, and a terminator after the last fragment of a line.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` that contains an [`EncodeError::ContainsTerminator`] if
/// a decoder would end the line at another place. The encoder then writes no byte of the fragment,
/// and the line can continue with another fragment.
impl Encoder<Fragment> for FragmentCodec {
    type Error = io::Error;

    fn encode(&mut self, fragment: Fragment, dst: &mut BytesMut) -> io::Result<()> {
        let Fragment { bytes, is_last } = fragment;
        let Self { line, tail, .. } = self;
        let longest = line.delimiter().max_terminator_length();
        let start = dst.len();
        dst.extend_from_slice(&bytes);
        if is_last {
            dst.extend_from_slice(line.encoder.terminator());
        }
        let written = &dst[start..];
        let end = if bytes.is_empty() { &tail[..] } else { &bytes[..] };
        let conflict = match line.delimiter().find_across(tail, written) {
            Some(at) if !is_last || at != tail.len() + bytes.len() => Some(at.saturating_sub(tail.len())),
            _ if is_last && line.delimiter().ends_in_cr(end) => Some(bytes.len().saturating_sub(1)),
            _ => None,
        };
        if let Some(at) = conflict {
            dst.truncate(start);
            return Err(EncodeError::ContainsTerminator { at }.into());
        }
        if is_last {
            tail.clear();
        } else {
            tail.extend_from_slice(&bytes[bytes.len().saturating_sub(longest - 1)..]);
            tail.drain(..tail.len().saturating_sub(longest - 1));
        }
        Ok(())
    }
}
