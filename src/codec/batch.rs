use std::iter::FusedIterator;
use std::{fmt, io};

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::found::{Found, FoundIter, Kind, Line};
use super::item::Item;
use super::walk::{Walk, Window};
use super::{CodecCounters, LineCodec};
use crate::error::{EncodeError, LineError};

/// So many lines of a read, at most, make one batch. The lines behind them make the next one, without further input.
const MAX_LINES: usize = 4096;

/// All whole lines of a read as one item, for little more than the cost of finding them.
///
/// The lines are those of [`LineCodec`], in the same order, bad ones among them. There is no `expect_bytes` here, since
/// a batch has run ahead over whatever follows the line.
///
/// ```
/// use futures::{SinkExt, TryStreamExt};
/// use lineframe::{BatchCodec, LineCodec};
/// use tokio_util::codec::Framed;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// # let (mut peer, io) = tokio::io::duplex(4096);
/// # tokio::io::AsyncWriteExt::write_all(&mut peer, b"one\ntwo\n").await?;
/// # tokio::io::AsyncWriteExt::shutdown(&mut peer).await?;
/// let mut framed = Framed::new(io, BatchCodec::from(LineCodec::new()));
/// while let Some(batch) = framed.try_next().await? {
///     for line in batch {
///         match line {
///             Ok(line) => framed.feed(line).await?,
///             Err(bad) => framed.feed(bad.reply().into()).await?,
///         }
///     }
///     framed.flush().await?; // one write for all the lines of a read
/// }
/// # let mut echoed = String::new();
/// # drop(framed);
/// # tokio::io::AsyncReadExt::read_to_string(&mut peer, &mut echoed).await?;
/// # assert_eq!(echoed, "one\ntwo\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct BatchCodec {
    line: LineCodec,
}

impl BatchCodec {
    /// [`Delimiter::Newline`](crate::Delimiter::Newline), lines of at most 64 KiB, a cut last line reported.
    pub fn new() -> Self {
        Self::default()
    }

    /// What has become of the bytes read so far; every line of a batch counts from when the batch was handed over.
    pub fn counters(&self) -> CodecCounters {
        self.line.counters()
    }
}

impl Walk {
    /// All whole lines at the front of `buffer`, of which `first` is one. The item with which there have been more than
    /// `most_bad` bad ones is the last.
    pub(crate) fn batch_from(
        &mut self,
        first: Item,
        buffer: &mut BytesMut,
        eof: bool,
        most_bad: u64,
    ) -> Batch {
        // As many as there are if they are as long as the first.
        let others = ((buffer.len() - first.consumed) / first.consumed.max(16)).min(MAX_LINES);
        let mut lines = Found::new(first, self.max_length(), others);
        let mut end = first.consumed;
        let (window, eof) = match buffer.get(..Found::END) {
            None => (&buffer[..], eof),
            Some(window) => (window, false),
        };
        let is_over = first.kind.is_bad() && self.bad_items() > most_bad;
        if !is_over && end < window.len() {
            let window = Window { bytes: &window[first.consumed..], eof, most_bad };
            end += self.take_items(window, |start, stop, kind| {
                lines.push(first.consumed + start, first.consumed + stop, kind);
                lines.len() < MAX_LINES
            });
        }
        Batch {
            bytes: buffer.split_to(end).freeze(),
            lines,
            next: 0,
            #[cfg(feature = "net")]
            _lent: None,
        }
    }
}

#[cfg(feature = "net")]
impl Walk {
    /// Takes the lines of `batch` that were not taken as not read. They are what was read last, and their bytes are given
    /// back to be read again.
    pub(crate) fn put_back(&mut self, batch: Batch) -> Bytes {
        let lines = batch.lines.iter(batch.next);
        let starts = lines.clone().skip(1).map(|line| line.start).chain([batch.bytes.len()]);
        for (line, next) in lines.zip(starts) {
            self.untake(batch.lines.kind(line.kind), line.end - line.start, next - line.end);
        }
        let rest = batch.into_rest();
        if !rest.is_empty() {
            self.read_again(rest.len());
        }
        rest
    }
}

/// Takes over the configuration and, in the middle of a stream, its place. A block that is outstanding is a line of its
/// batch.
impl From<LineCodec> for BatchCodec {
    fn from(line: LineCodec) -> Self {
        Self { line }
    }
}

/// Goes on where the last batch ended.
impl From<BatchCodec> for LineCodec {
    fn from(batch: BatchCodec) -> Self {
        batch.line
    }
}

impl Decoder for BatchCodec {
    type Item = Batch;
    /// Never given by this decoder.
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Batch>> {
        let first = self.line.next_item_read(src, false);
        Ok(first.map(|first| self.line.walk.batch_from(first, src, false, u64::MAX)))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Batch>> {
        let first = self.line.next_item_read(src, true);
        Ok(first.map(|first| self.line.walk.batch_from(first, src, true, u64::MAX)))
    }
}

impl Encoder<Bytes> for BatchCodec {
    type Error = EncodeError;

    fn encode(&mut self, line: Bytes, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.line.encode_line(&line, dst)
    }
}

/// Whole lines, in order, bad ones among them: at least one, as [`BatchCodec`] hands it over.
///
/// Owned: it can go to another task. As an iterator it gives its lines away as [`Bytes`]; [`iter`](Self::iter), or
/// `for line in &batch`, lends them as slices, which is faster and leaves them there. All of them share the read buffer,
/// which stays in memory as long as one of them does.
#[must_use = "the lines in it have been read and come no second time"]
#[derive(Clone)]
pub struct Batch {
    /// From the first line to the end of the last one, with everything between.
    pub(super) bytes: Bytes,
    /// All within `bytes`.
    pub(super) lines: Found,
    /// So many of `lines` were taken. Always at most their number.
    pub(super) next: usize,
    /// Shows the connection that it is from whether it is still there.
    #[cfg(feature = "net")]
    _lent: Option<std::sync::Arc<()>>,
}

impl Batch {
    /// The lines that were not taken yet, lent.
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter { batch: self, lines: self.lines.iter(self.next) }
    }

    /// A line that [`iter`](Self::iter) lent, to keep: no copy, and the whole batch stays in memory for it.
    /// `Bytes::copy_from_slice` copies it out.
    ///
    /// # Panics
    ///
    /// Where `line` is not a slice of this batch, as [`Bytes::slice_ref`].
    pub fn slice_ref(&self, line: &[u8]) -> Bytes {
        self.bytes.slice_ref(line)
    }

    /// The bytes of the lines that were not taken, as they were read, with their terminators.
    pub fn into_rest(mut self) -> Bytes {
        match self.lines.get(self.next) {
            Some(line) => self.bytes.advance(line.start),
            None => self.bytes.clear(),
        }
        self.bytes
    }

    /// As long as it, or a clone of it, is there, `lent` is shared.
    #[cfg(feature = "net")]
    pub(crate) fn lent_by(self, lent: &std::sync::Arc<()>) -> Self {
        Self { _lent: Some(std::sync::Arc::clone(lent)), ..self }
    }

    #[inline(always)]
    pub(super) fn item(&self, line: Line) -> Result<&[u8], LineError> {
        let error = if matches!(line.kind, Kind::Line) { None } else { self.error(line) };
        error.map_or(Ok(&self.bytes[line.start..line.end]), Err)
    }

    #[cold]
    fn error(&self, line: Line) -> Option<LineError> {
        self.owned_item(line).err()
    }

    #[inline]
    fn owned_item(&self, line: Line) -> Result<Bytes, LineError> {
        self.lines.kind(line.kind).with(self.bytes.slice(line.start..line.end))
    }
}

impl Iterator for Batch {
    type Item = Result<Bytes, LineError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.get(self.next)?;
        self.next += 1;
        Some(self.owned_item(line))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.lines.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batch {}
impl FusedIterator for Batch {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("lines", &self.len()).field("bytes", &self.bytes.len()).finish()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Result<&'a [u8], LineError>;
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> BatchIter<'a> {
        self.iter()
    }
}

/// The lines of a [`Batch`], lent: [`Batch::iter`].
#[derive(Clone)]
pub struct BatchIter<'a> {
    batch: &'a Batch,
    lines: FoundIter<'a>,
}

impl fmt::Debug for BatchIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchIter").field("lines", &self.len()).finish()
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<&'a [u8], LineError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next().map(|line| self.batch.item(line))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lines.size_hint()
    }
}

impl ExactSizeIterator for BatchIter<'_> {}
impl FusedIterator for BatchIter<'_> {}
