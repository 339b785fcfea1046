use std::boxed::Box;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot::Sender;

use super::buffer::ReadBuffer;
use super::error::{Error, Polled, TimeoutKind};
use super::io::{AnyIo, Peer};
use super::limits::Limits;
use super::poll;
use super::reader::Reader;
use super::shutdown::Draining;
use super::tasks::{Side, Tasks};
use super::timers::WaitFor;
use super::writer::{WriteIo, Writer};
use crate::codec::{Batch, CodecCounters, LineCodec};
use crate::error::{BlockError, LineError};

/// Both sides of a connection and its stream: the state of a [`Connection`](super::Connection). A
/// read sends queued output before it waits, so it needs both sides.
pub(crate) struct Duplex<Io> {
    pub(crate) io: Io,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) peer: Peer,
    pub(super) owner: Option<ReturnTo<Io>>,
    /// `true` after the `Stream` has yielded an error and has therefore ended.
    stream_has_ended: bool,
    /// The tasks that use the connection as a `Stream` and as a `Sink`.
    tasks: Tasks,
}

/// Returns a connection to its session when the handler drops it. If the handler takes the
/// connection apart, the sender is dropped unused.
pub(crate) type ReturnTo<Io> = Sender<Box<Duplex<Io>>>;

/// The numbers of lines and bytes of a connection, returned by
/// [`Connection::counters`](super::Connection::counters). Requires the feature `net`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounters {
    /// Lines, bad lines and bytes read.
    pub read: CodecCounters,
    /// Lines written. Some of them may still be queued.
    pub lines_written: u64,
    /// Bytes that the stream has accepted.
    pub bytes_sent: u64,
}

impl<Io> Duplex<Io> {
    pub(super) fn new(io: Io, codec: LineCodec, peer: Peer) -> Self {
        let (decoder, encoder) = codec.into_sides();
        Self::from_sides(io, Reader::new(decoder), Writer::new(encoder), peer, None)
    }

    pub(super) fn from_sides(
        io: Io,
        reader: Reader,
        writer: Writer,
        peer: Peer,
        owner: Option<ReturnTo<Io>>,
    ) -> Self {
        Self { io, reader, writer, peer, owner, stream_has_ended: false, tasks: Tasks::default() }
    }

    /// Applies the limits and the shutdown signal of a server. `owner` receives the connection when
    /// the handler drops it.
    pub(crate) fn serve(&mut self, limits: Arc<Limits>, draining: Draining, owner: ReturnTo<Io>) {
        self.reader.serve(Arc::clone(&limits), draining);
        self.writer.serve(limits);
        self.owner = Some(owner);
    }

    /// Returns the connection to its owner, or drops it if it has none.
    pub(super) fn give_back(mut self: Box<Self>) {
        if let Some(owner) = self.owner.take() {
            // The counters must be reported even if the session was aborted.
            _ = owner.send(self).map_err(|mut duplex| duplex.report());
        }
    }

    /// Returns whether an error or a deadline has ended the connection.
    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        self.reader.state().has_failed() || self.writer.has_failed()
    }

    /// Returns the deadline that has ended the connection, if any.
    fn timed_out(&self) -> Option<TimeoutKind> {
        self.writer.timed_out().or(self.reader.state().timed_out())
    }

    pub(crate) fn counters(&self) -> ConnectionCounters {
        let (lines_written, bytes_sent) = self.writer.counts();
        ConnectionCounters { read: self.reader.decoder().counters(), lines_written, bytes_sent }
    }

    /// Returns the number of bytes that were read and not returned.
    #[cfg(feature = "tracing")]
    pub(crate) fn pending(&self) -> usize {
        self.reader.buffered()
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn delimiter(&self) -> &crate::Delimiter {
        self.reader.decoder().scanner().delimiter()
    }

    /// Adds the counts since the last report to the server's totals.
    pub(crate) fn report(&mut self) {
        self.reader.report();
        self.writer.report();
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Duplex<Io> {
    /// Runs one step of reading or writing. An I/O error or a passed deadline ends the connection
    /// for good.
    #[inline]
    pub(crate) fn poll_step<T>(&mut self, step: impl FnOnce(&mut Self) -> Polled<T>) -> Polled<T> {
        if self.has_failed() {
            return Poll::Ready(Err(Error::Io(io::ErrorKind::NotConnected.into())));
        }
        let polled = step(self);
        if matches!(polled, Poll::Ready(Err(Error::Io(_) | Error::Timeout(_))))
            && !self.reader.state().has_failed()
        {
            self.reader.fail(None);
        }
        polled
    }

    /// Returns the next item that `next` takes from the reader, or `None` at the end.
    pub(super) fn poll_next<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut(&mut Reader) -> Option<T>,
    ) -> Polled<Option<T>> {
        loop {
            ready!(self.poll_before_items(cx))?;
            if let Some(item) = next(&mut self.reader) {
                return Poll::Ready(Ok(Some(item)));
            }
            let mut unread = ReadBuffer::take();
            let more = self.poll_more(&mut unread, cx);
            self.reader.keep(&mut unread);
            if !ready!(more)? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Runs all checks that precede an item: sends postponed output, enforces the limit for bad
    /// lines, reads bytes that arrived before a shutdown, and refuses HTTP and TLS.
    pub(crate) fn poll_before_items(&mut self, cx: &mut Context<'_>) -> Polled<()> {
        ready!(self.writer.poll_postponed(&mut self.io, cx))?;
        if self.reader.is_over_bad_lines() && !self.reader.is_refused() {
            ready!(self.writer.poll_flush(&mut self.io, cx))?;
            return Poll::Ready(Err(Error::TooManyBadLines));
        }
        if self.reader.state().must_retry() {
            ready!(self.reader.poll_drain_round(&mut self.io, cx));
        }
        if let Some(refusal) = self.reader.sniff() {
            // If the codec cannot write the error line, the peer receives none.
            _ = self.writer.queue(refusal.as_bytes());
        }
        if self.reader.is_refused() {
            ready!(self.writer.poll_flush(&mut self.io, cx))?;
            return Poll::Ready(Err(Error::NotLines));
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the output has space for replies, then calls
    /// [`poll_before_items`](Self::poll_before_items).
    pub(crate) fn poll_before_reply(&mut self, cx: &mut Context<'_>) -> Polled<()> {
        if self.writer.is_full() {
            ready!(self.writer.poll_ready(&mut self.io, cx))?;
        }
        self.poll_before_items(cx)
    }

    /// Reads once. Call it when the buffered bytes hold no more items. Returns `false` at the end,
    /// after all output was sent.
    pub(crate) fn poll_more(&mut self, unread: &mut ReadBuffer, cx: &mut Context<'_>) -> Polled<bool> {
        if self.reader.state().has_ended() {
            ready!(self.writer.poll_flush(&mut self.io, cx))?;
            return Poll::Ready(self.reader.take_end().map(|()| false));
        }
        // While more than `max_unsent` bytes are unsent, this returns `Pending`. The read deadlines
        // and the shutdown signal are then not checked, because the write deadline ends such a
        // connection. The write deadline also runs while fewer bytes are unsent.
        ready!(self.writer.poll_before_read(&mut self.io, cx))?;
        ready!(poll::poll_turn(self.reader.read_at(), cx));
        if self.reader.poll_shutdown_signal(cx) {
            self.reader.keep(unread);
            ready!(self.reader.poll_drain_round(&mut self.io, cx));
            return Poll::Ready(Ok(true));
        }
        self.reader.poll_fill(unread, None, &mut self.io, cx).map_ok(|()| true)
    }

    /// Returns the result of `next`, for `count` counted bytes, after as many reads as necessary.
    ///
    /// The limit for bad lines does not apply to counted bytes, so this does not call
    /// [`poll_before_items`](Self::poll_before_items). A shutdown does not interrupt them. After a
    /// shutdown signal, this reads no byte after them that had not arrived yet.
    fn poll_counted<T>(
        &mut self,
        cx: &mut Context<'_>,
        (wait, count): (WaitFor, u64),
        mut next: impl FnMut(&mut Reader) -> Result<Option<T>, Error>,
    ) -> Polled<T> {
        loop {
            if let Some(taken) = next(&mut self.reader)? {
                return Poll::Ready(Ok(taken));
            }
            if self.reader.state().is_eof() {
                ready!(self.writer.poll_flush(&mut self.io, cx))?;
                return Poll::Ready(Err(Error::Eof));
            }
            // An error during a drain is reported here.
            self.reader.take_end()?;
            ready!(self.writer.poll_before_read(&mut self.io, cx))?;
            ready!(poll::poll_turn(self.reader.read_at(), cx));
            if !self.reader.state().has_ended() && self.reader.poll_shutdown_signal(cx) {
                ready!(self.reader.poll_drain_round(&mut self.io, cx));
                continue;
            }
            let mut unread = ReadBuffer::take();
            let filled = self.reader.poll_fill(&mut unread, Some((wait, count)), &mut self.io, cx);
            self.reader.keep(&mut unread);
            ready!(filled)?;
        }
    }

    pub(super) fn poll_line(&mut self, cx: &mut Context<'_>) -> Polled<Option<Result<Bytes, LineError>>> {
        self.poll_step(|duplex| duplex.poll_next(cx, Reader::next_line))
    }

    /// Returns the next item of the `Stream`. The `Stream` ends after an error: a caller that
    /// ignores errors would otherwise loop forever.
    pub(super) fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Result<Bytes, LineError>, Error>>> {
        if self.stream_has_ended {
            return Poll::Ready(None);
        }
        let waker = self.tasks.waker(Side::Stream, cx);
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(cx.waker()));
        let item = ready!(self.poll_line(&mut cx));
        self.stream_has_ended = item.is_err();
        Poll::Ready(item.transpose())
    }

    #[cfg(feature = "text")]
    pub(super) fn poll_text(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Polled<Option<Result<bytestring::ByteString, LineError>>> {
        self.poll_step(|duplex| duplex.poll_next(cx, Reader::next_text))
    }

    pub(super) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Polled<Option<Batch>> {
        self.poll_step(|duplex| duplex.poll_next(cx, Reader::next_batch))
    }

    /// Returns a buffered good line if no other check is needed.
    #[inline]
    pub(super) fn next_good_line(&mut self) -> Option<Bytes> {
        if self.writer.is_ready() { self.reader.next_good_line() } else { None }
    }

    /// Queues a line if no other check is needed.
    #[inline]
    pub(super) fn queue_now(&mut self, line: &[u8]) -> bool {
        !self.reader.state().has_failed() && self.writer.queue_now(line)
    }

    pub(super) fn poll_write_line(&mut self, line: &[u8], cx: &mut Context<'_>) -> Polled<()> {
        self.poll_writer(|writer, io| writer.poll_line(line, io, cx))
    }

    /// Returns whether queued output must be sent now.
    #[inline]
    pub(super) fn is_send_due(&self) -> bool {
        self.writer.is_full() || self.reader.is_behind()
    }

    /// Sends as much as the stream accepts without waiting. If the turn is over, the next step
    /// yields.
    pub(super) fn send_now(&mut self, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_writer(|writer, io| {
            writer.send_now(io, cx)?;
            if poll::is_turn_over(poll::line_time()) {
                writer.postpone();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Runs one step of writing for the `Sink`.
    pub(super) fn poll_sink(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(&mut Writer, WriteIo<'_>, &mut Context<'_>) -> Polled<()>,
    ) -> Polled<()> {
        let waker = self.tasks.waker(Side::Sink, cx);
        let mut cx = Context::from_waker(waker.as_ref().unwrap_or(cx.waker()));
        self.poll_writer(|writer, io| step(writer, io, &mut cx))
    }

    /// Runs one step of writing.
    pub(super) fn poll_writer<T>(
        &mut self,
        step: impl FnOnce(&mut Writer, WriteIo<'_>) -> Polled<T>,
    ) -> Polled<T> {
        self.poll_step(|duplex| step(&mut duplex.writer, &mut duplex.io))
    }

    pub(super) fn poll_block(&mut self, count: usize, cx: &mut Context<'_>) -> Polled<Bytes> {
        let max = self.reader.decoder().max_block_length();
        if count > max {
            return Poll::Ready(Err(BlockError::TooLong { asked: count, max }.into()));
        }
        self.poll_step(|duplex| {
            duplex.poll_counted(cx, (WaitFor::Block, count as u64), |reader| reader.next_block(count))
        })
    }

    pub(super) fn poll_skipped(&mut self, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|duplex| {
            duplex.poll_counted(cx, (WaitFor::Next, 0), |reader| Ok(reader.is_skipped().then_some(())))
        })
    }

    pub(super) fn poll_body(
        &mut self,
        count: u64,
        into: &mut ReadBuf<'_>,
        cx: &mut Context<'_>,
    ) -> Polled<usize> {
        self.poll_step(|duplex| {
            duplex.poll_counted(cx, (WaitFor::Next, count), |reader| Ok(reader.next_part(count, into)))
        })
    }

    pub(super) fn poll_request(
        &mut self,
        line: &mut Option<impl AsRef<[u8]>>,
        cx: &mut Context<'_>,
    ) -> Polled<Bytes> {
        if let Some(request) = line {
            if self.writer.is_request_unanswered() {
                return Poll::Ready(Err(Error::Io(io::Error::other(
                    "the future of an earlier request was dropped, so replies can no longer be matched: reconnect",
                ))));
            }
            ready!(self.poll_write_line(request.as_ref(), cx))?;
            *line = None;
            self.writer.set_request_unanswered(true);
        }
        let reply = ready!(self.poll_line(cx));
        self.writer.set_request_unanswered(false);
        Poll::Ready(reply?.ok_or(Error::Eof)?.map_err(Error::from))
    }

    /// Sends all queued output, then closes the writing side. Returns the deadline that has ended
    /// the connection, if any.
    pub(crate) async fn finish(&mut self) -> Option<TimeoutKind> {
        _ = std::future::poll_fn(|cx| self.poll_writer(|writer, io| writer.poll_shutdown(io, cx))).await;
        self.timed_out()
    }

    /// Reads and discards everything that the peer still sends, for at most `after`.
    pub(crate) async fn linger(&mut self, after: Option<Duration>) {
        if self.has_failed() || self.reader.state().is_eof() {
            return;
        }
        let Self { io, reader, .. } = self;
        let dropping = std::future::poll_fn(|cx| poll::within_poll(|| reader.poll_drop_rest(io, cx)));
        match after {
            None => _ = dropping.await,
            Some(after) => _ = tokio::time::timeout(after, dropping).await,
        }
    }
}

/// A reader for counted bytes that follow a line, returned by
/// [`Connection::body`](crate::Connection::body). Requires the feature `net`.
///
/// The next read of the connection skips the bytes that were not read.
#[must_use = "the connection skips the bytes that are not read"]
pub struct Body<'a, Io = AnyIo>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    duplex: &'a mut Duplex<Io>,
    left: u64,
}

impl<'a, Io: AsyncRead + AsyncWrite + Unpin> Body<'a, Io> {
    pub(super) fn new(duplex: &'a mut Duplex<Io>, left: u64) -> Self {
        Self { duplex, left }
    }

    /// Returns the number of bytes that remain to be read.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// assert_eq!(conn.body(5).left(), 5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// Reads the counted bytes, then reports the end.
///
/// # Errors
///
/// Kind `UnexpectedEof` if the stream ends before the last counted byte.
impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Body<'_, Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { duplex, left } = self.get_mut();
        if *left > 0 && buf.remaining() > 0 {
            *left -= ready!(duplex.poll_body(*left, buf, cx))? as u64;
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Drop for Body<'_, Io> {
    fn drop(&mut self) {
        self.duplex.reader.skip_bytes(self.left);
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> fmt::Debug for Body<'_, Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("left", &self.left).finish_non_exhaustive()
    }
}
