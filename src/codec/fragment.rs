use std::io;
use std::vec::Vec;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::CodecCounters;
use super::line::{LineCodec, LineCodecBuilder, implement_codec};
use crate::error::EncodeError;
use crate::scan::Kind;

/// Decodes lines longer than memory, in pieces.
///
/// A piece has at most `max_length` bytes (0 counts as 1) and is returned as soon as it is available. Where
/// a line is cut into pieces depends on how it arrived; the pieces joined, and the place of
/// [`is_last`](Fragment::is_last), do not. No line is too long. A stream that ends within a line ends
/// without an `is_last`, under both policies of [`Unterminated`](crate::Unterminated). In the middle of a line,
/// a [`LineCodec`] made from it returns the rest of the line as a line.
///
/// A relay is `reader.forward(writer)`, and adds nothing: the encoder writes a terminator after `is_last`
/// only. In `Newline` it writes the configured line end; with [`Delimiter::Lf`](crate::Delimiter::Lf) a relay
/// is exact to the byte. In [`Delimiter::CrLf`](crate::Delimiter::CrLf) a lone CR or LF passes as content.
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
/// FramedRead::new(&input[..], codec.clone()).forward(FramedWrite::new(&mut output, codec)).await?;
/// assert_eq!(output, input);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct FragmentCodec {
    line: LineCodec,
    /// Whether the last piece read was not the last one of its line.
    is_within_line: bool,
    /// The last bytes written of the line under way. Shorter than the longest terminator.
    tail: Vec<u8>,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Content. Empty only in the last piece of a line, and for a block that was cut before its first byte.
    pub bytes: Bytes,
    /// Whether the line ends here: its terminator has arrived, or has to be written.
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

implement_codec!(FragmentCodec, Fragment, "pieces");

/// Takes over the configuration and, in the middle of a stream, its place. The rest of a `TooLong` line is
/// still skipped, and a pending block arrives as one last piece (not a last one if the stream ends within
/// it).
impl From<LineCodec> for FragmentCodec {
    fn from(line: LineCodec) -> Self {
        Self { line, is_within_line: false, tail: Vec::new() }
    }
}

/// Writes the piece, and the terminator after the last piece of a line.
///
/// # Errors
///
/// Kind `InvalidInput`, with an [`EncodeError::ContainsTerminator`] in it, if the line would end elsewhere
/// than after a last piece. Nothing of the piece is written then, and the line can continue with another.
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
