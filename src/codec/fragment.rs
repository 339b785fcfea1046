use std::vec::Vec;
use std::{fmt, io};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::item::ItemKind;
use super::walk::Step;
use super::{CodecCounters, LineCodec};
use crate::error::EncodeError;

/// Lines longer than memory, as the pieces they come in.
///
/// A piece has at most `max_length` bytes (a `max_length` of 0 counts as 1) and is handed over as soon as it is there. Where
/// a line is cut into pieces depends on how it arrived; the pieces joined do not, nor does the place of
/// [`is_last`](Fragment::is_last). No line is too long here. A stream that ends within a line ends without an
/// `is_last`, under both policies of [`Unterminated`](crate::Unterminated): that is the report.
///
/// A relay is `reader.forward(writer)`, and adds nothing: the encoder writes a terminator behind `is_last` only. In
/// `Newline` it writes the line end that it is set to; with [`Delimiter::Lf`](crate::Delimiter::Lf) a relay is exact to
/// the byte. In [`Delimiter::CrLf`](crate::Delimiter::CrLf) a lone CR or LF passes as content: a piece cannot tell of it.
///
/// ```
/// use futures::StreamExt;
/// use lineframe::{Delimiter, FragmentCodec, LineCodec};
/// use tokio_util::codec::{FramedRead, FramedWrite};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let codec = FragmentCodec::from(LineCodec::builder().delimiter(Delimiter::Lf).max_length(1024).build());
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
    /// Writing: the last bytes of the line under way. Always shorter than the longest terminator.
    tail: Vec<u8>,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Content. Empty at most in the last piece of a line, and in the one that tells of a block cut by the end of the stream
    /// before its first byte.
    pub bytes: Bytes,
    /// Whether the line ends here: its terminator has come, or is to be written.
    pub is_last: bool,
}

impl FragmentCodec {
    /// [`Delimiter::Newline`](crate::Delimiter::Newline), pieces of at most 64 KiB.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has become of the bytes read so far.
    pub fn counters(&self) -> CodecCounters {
        self.line.counters()
    }

    fn next_fragment(&mut self, src: &mut BytesMut, eof: bool) -> Option<Fragment> {
        let LineCodec { walk, room, .. } = &mut self.line;
        room.look(src);
        let limit = walk.scanner().max_length();
        loop {
            match walk.step_piece(src, eof, limit) {
                Some(Step::Item(item)) => {
                    let is_last = matches!(item.kind, ItemKind::Block | ItemKind::Piece { is_last: true });
                    return Some(Fragment { bytes: item.cut_bytes(src), is_last });
                }
                Some(Step::Drop(count)) => src.advance(count),
                None => {
                    if !eof {
                        room.make(src);
                    }
                    return None;
                }
            }
        }
    }
}

impl fmt::Debug for FragmentCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FragmentCodec").field("line", &self.line).finish_non_exhaustive()
    }
}

/// Takes over the configuration and, in the middle of a stream, its place: the rest of a `TooLong` line is still skipped,
/// and a block that is outstanding arrives as one last piece (not a last one where the stream ends within it).
impl From<LineCodec> for FragmentCodec {
    fn from(line: LineCodec) -> Self {
        Self { line, tail: Vec::new() }
    }
}

impl Decoder for FragmentCodec {
    type Item = Fragment;
    /// Never given by this decoder.
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Fragment>> {
        Ok(self.next_fragment(src, false))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Fragment>> {
        Ok(self.next_fragment(src, true))
    }
}

/// Writes the piece, and the terminator behind a line's last.
///
/// # Errors
///
/// Kind `InvalidInput`, with an [`EncodeError::ContainsTerminator`] in it, where the line would end elsewhere than behind
/// this or a later last piece. Nothing of the piece is written then, and the line can go on with another.
impl Encoder<Fragment> for FragmentCodec {
    type Error = io::Error;

    fn encode(&mut self, fragment: Fragment, dst: &mut BytesMut) -> io::Result<()> {
        let Fragment { bytes, is_last } = fragment;
        let Self { line, tail } = self;
        let longest = line.delimiter().max_terminator_length();
        let start = dst.len();
        dst.extend_from_slice(&bytes);
        if is_last {
            dst.extend_from_slice(line.encoder.terminator());
        }
        let written = &dst[start..];
        // A terminator can lie within this piece, or across the border to those before.
        let border = [&tail[..], &written[..written.len().min(longest)]].concat();
        let ends_early = |searched: &[u8], before: usize| {
            let (at, _) = line.delimiter().find(searched, 0).found?;
            (!is_last || at != before + bytes.len()).then(|| at.saturating_sub(before))
        };
        let ends_in_cr = || {
            let end = if bytes.is_empty() { &tail[..] } else { &bytes[..] };
            (is_last && line.delimiter().ends_in_cr(end)).then(|| bytes.len().saturating_sub(1))
        };
        let conflict = ends_early(&border, tail.len()).or_else(|| ends_early(written, 0)).or_else(ends_in_cr);
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
