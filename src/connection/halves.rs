use std::boxed::Box;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::AnyIo;
use super::draining::Draining;
use super::error::Error;
use super::input::Input;
use super::output::Output;
use crate::codec::{Batch, CodecCounters, LineCodec};
use crate::error::LineError;

/// One half of a stream and the side of a connection that belongs to it.
pub(super) struct Half<Io, Side>(Option<Box<Whole<Io, Side>>>);

struct Whole<Io, Side> {
    io: Io,
    side: Side,
    is_gone: bool,
    at_end: Option<AtEnd<Io, Side>>,
}

/// What becomes of a half that is dropped. Told whether its stream failed.
type AtEnd<Io, Side> = Box<dyn FnOnce(Io, Side, bool) + Send + Sync>;

impl<Io, Side> Half<Io, Side> {
    pub(super) fn new(io: Io, side: Side, is_gone: bool) -> Self {
        Self(Some(Box::new(Whole { io, side, is_gone, at_end: None })))
    }

    pub(super) fn at_end(mut self, f: impl FnOnce(Io, Side, bool) + Send + Sync + 'static) -> Self {
        self.whole_mut().at_end = Some(Box::new(f));
        self
    }

    /// One step of reading or writing. An error of the stream or a deadline ends the half for good.
    fn poll_in<T>(
        &mut self,
        step: impl FnOnce(&mut Side, &mut Io) -> Poll<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        let whole = self.whole_mut();
        if whole.is_gone {
            return Poll::Ready(Err(Error::Io(io::ErrorKind::NotConnected.into())));
        }
        let polled = step(&mut whole.side, &mut whole.io);
        if let Poll::Ready(Err(Error::Io(_) | Error::Timeout(_))) = polled {
            whole.is_gone = true;
        }
        polled
    }

    fn side(&self) -> &Side {
        &self.0.as_ref().expect("there until it is dropped").side
    }

    fn whole_mut(&mut self) -> &mut Whole<Io, Side> {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl<Io, Side> Drop for Half<Io, Side> {
    fn drop(&mut self) {
        if let Some(whole) = self.0.take() {
            let Whole { io, side, is_gone, at_end } = *whole;
            if let Some(at_end) = at_end {
                at_end(io, side, is_gone);
            }
        }
    }
}

/// The reading half of a connection, or lines read from anything: a file, a pipe, stdin.
///
/// Its methods are those of [`Connection`](super::Connection), but that nothing is sent when a read waits: the writing half
/// sees to that.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::{LineCodec, LineReader, Unterminated};
///
/// let codec = LineCodec::builder().unterminated(Unterminated::Deliver).build();
/// let mut lines = LineReader::with_codec(&b"one\ntwo"[..], codec);
/// assert_eq!(lines.next_line().await?.unwrap()?, "one");
/// assert_eq!(lines.next_line().await?.unwrap()?, "two");
/// assert!(lines.next_line().await?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct LineReader<R: AsyncRead + Unpin = ReadHalf<AnyIo>>(pub(super) Half<R, Input>);

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Lines of at most 64 KiB, a cut last line reported.
    pub fn new(reader: R) -> Self {
        Self::with_codec(reader, LineCodec::new())
    }

    /// Lines as the codec has them.
    pub fn with_codec(reader: R, codec: LineCodec) -> Self {
        Self(Half::new(reader, Input::new(codec.into_sides().0), false))
    }

    /// [`Connection::next_line`](super::Connection::next_line).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, R> {
        poll_fn(|cx| self.0.poll_in(|input, io| input.poll_line(io, &mut (), cx)))
    }

    /// [`Connection::next_text`](super::Connection::next_text).
    ///
    /// # Errors
    ///
    /// The same.
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, R>
    {
        poll_fn(|cx| self.0.poll_in(|input, io| input.poll_text(io, &mut (), cx)))
    }

    /// [`Connection::next_batch`](super::Connection::next_batch).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, R> {
        poll_fn(|cx| self.0.poll_in(|input, io| input.poll_batch(io, &mut (), cx)))
    }

    /// [`Connection::put_back`](super::Connection::put_back).
    pub fn put_back(&mut self, batch: Batch) {
        self.0.whole_mut().side.put_back(batch);
    }

    /// [`Connection::read_bytes`](super::Connection::read_bytes).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, R> {
        poll_fn(move |cx| self.0.poll_in(|input, io| input.poll_bytes(count, io, &mut (), cx)))
    }

    /// [`Connection::skip_bytes`](super::Connection::skip_bytes).
    ///
    /// # Errors
    ///
    /// The same.
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, R> {
        self.0.whole_mut().side.skip_bytes(count);
        poll_fn(|cx| self.0.poll_in(|input, io| input.poll_skipped(io, &mut (), cx)))
    }

    /// [`Connection::is_draining`](super::Connection::is_draining).
    pub fn is_draining(&self) -> bool {
        self.0.side().draining.is_draining()
    }

    /// [`Connection::draining`](super::Connection::draining).
    pub fn draining(&self) -> Draining {
        self.0.side().draining.clone()
    }

    /// What became of the bytes read.
    pub fn counters(&self) -> CodecCounters {
        self.0.side().walk.counters()
    }

    /// A new limit for lines read, in bytes of content.
    pub fn set_max_length(&mut self, content_bytes: usize) {
        self.0.whole_mut().side.walk.set_max_length(content_bytes);
    }

    /// [`Connection::set_idle_timeout`](super::Connection::set_idle_timeout).
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        Arc::make_mut(&mut self.0.whole_mut().side.limits).idle_timeout = timeout.into();
    }

    /// [`Connection::set_line_timeout`](super::Connection::set_line_timeout).
    pub fn set_line_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        Arc::make_mut(&mut self.0.whole_mut().side.limits).line_timeout = timeout.into();
    }
}

impl<R: AsyncRead + Unpin> fmt::Debug for LineReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// The writing half of a connection, or lines written to anything.
///
/// Nobody flushes for it, and so it has no `write_line`: [`feed_line`](Self::feed_line) queues and is followed by
/// [`flush`](Self::flush), [`send_line`](Self::send_line) does both. What is queued when it is dropped is lost, but where it
/// is a half of a connection that is whole again then, or goes home to its server.
pub struct LineWriter<W: AsyncWrite + Unpin = WriteHalf<AnyIo>>(pub(super) Half<W, Output>);

impl<W: AsyncWrite + Unpin> LineWriter<W> {
    /// Lines of at most 64 KiB, ended by `\n`.
    pub fn new(writer: W) -> Self {
        Self::with_codec(writer, LineCodec::new())
    }

    /// Lines as the codec has them.
    pub fn with_codec(writer: W, codec: LineCodec) -> Self {
        Self(Half::new(writer, Output::new(codec.into_sides().1), false))
    }

    /// Queues a line. Waits where more than 64 KiB (a server's `max_unsent`) are unsent already.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::write_line`](super::Connection::write_line).
    pub fn feed_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        poll_fn(move |cx| self.0.poll_in(|output, io| output.poll_line(line.as_ref(), io, cx)))
    }

    /// Queues bytes as they are, without a terminator and without a check.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn feed_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, B> {
        let mut queued = 0;
        poll_fn(move |cx| self.0.poll_in(|output, io| output.poll_bytes(bytes.as_ref(), &mut queued, io, cx)))
    }

    /// Queues a line and sends all that is queued.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::write_line`](super::Connection::write_line).
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.0.poll_in(|output, io| output.poll_line_sent(&mut line, io, cx)))
    }

    /// Sends all that is queued.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.0.poll_in(|output, io| output.poll_send(0, io, cx)))
    }

    /// Sends all that is queued, then the end of the stream.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        poll_fn(|cx| self.0.poll_in(|output, io| output.poll_shutdown(io, cx))).await
    }

    /// A new limit for lines written, in bytes of content, where the codec's `max_encoded_length` was not set.
    pub fn set_max_length(&mut self, content_bytes: usize) {
        self.0.whole_mut().side.encoder.set_max_length(content_bytes);
    }

    /// [`Connection::set_write_timeout`](super::Connection::set_write_timeout).
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        Arc::make_mut(&mut self.0.whole_mut().side.limits).write_timeout = timeout.into();
    }
}

impl<W: AsyncWrite + Unpin> fmt::Debug for LineWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter").finish_non_exhaustive()
    }
}
