use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::CodecCounters;
use super::batch::Batch;
use super::builder::LineCodecBuilder;
use super::encoder::LineEncoder;
use super::line::{LineCodec, implement_codec};

/// A codec that returns all whole lines of a read as one [`Batch`]. Requires the feature `codec`
/// (on by default).
///
/// A batch costs little more than finding its lines. The lines are those of [`LineCodec`], in the
/// same order, including bad ones. A batch has at most 4096 lines; further lines are returned as
/// the next batch, without another read.
///
/// There is no `expect_bytes`, because a batch may already contain the bytes after a line. The
/// fastest way to reply is a [`LineEncoder`].
///
/// ```
/// use futures::{SinkExt, TryStreamExt};
/// use lineframe::BatchCodec;
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (mut peer, io) = tokio::io::duplex(4096);
/// # tokio::io::AsyncWriteExt::write_all(&mut peer, b"one\ntwo\n").await?;
/// # tokio::io::AsyncWriteExt::shutdown(&mut peer).await?;
/// let mut framed = Framed::new(io, BatchCodec::new());
/// while let Some(batch) = framed.try_next().await? {
///     for line in batch {
///         match line {
///             Ok(line) => framed.feed(line).await?,
///             Err(bad) => framed.feed(bad.reply().into()).await?,
///         }
///     }
///     framed.flush().await?; // one write for all lines of a read
/// }
/// # let mut echoed = String::new();
/// # drop(framed);
/// # tokio::io::AsyncReadExt::read_to_string(&mut peer, &mut echoed).await?;
/// # assert_eq!(echoed, "one\ntwo\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct BatchCodec {
    line: LineCodec,
}

impl BatchCodec {
    /// Returns a [`LineEncoder`] with the configuration of this codec, for replies to a batch.
    ///
    /// ```
    /// let encoder = lineframe::BatchCodec::new().encoder();
    /// assert_eq!(encoder.terminator(), b"\n");
    /// ```
    pub fn encoder(&self) -> LineEncoder {
        self.line.encoder()
    }

    fn next(&mut self, src: &mut BytesMut, eof: bool) -> Option<Batch> {
        let first = self.line.next_item_read(src, eof)?;
        Some(self.line.decoder.batch_from(first, src, eof, u64::MAX))
    }
}

implement_codec!(BatchCodec, Batch, "lines");

/// Keeps the configuration and continues after the last item. A pending block becomes a line of its
/// batch.
impl From<LineCodec> for BatchCodec {
    fn from(line: LineCodec) -> Self {
        Self { line }
    }
}

impl Encoder<Bytes> for BatchCodec {
    type Error = io::Error;

    fn encode(&mut self, line: Bytes, dst: &mut BytesMut) -> io::Result<()> {
        self.line.encode(line, dst)
    }
}
