use std::boxed::Box;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::buffer::Buffer;
use super::deadline::Deadline;
use super::error::{Error, Timeout};
use super::limits::Limits;
use super::take::Unsent;
use super::traffic::Reported;
use super::turn;
use crate::codec::LineEncoder;
use crate::error::EncodeError;

/// Bytes are queued in pieces of so many.
const PIECE: usize = 64 * 1024;

/// The writing side of a connection: what has been written to it and not been sent, and how long the peer may take over it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) encoder: LineEncoder,
    unsent: Buffer,
    /// All was handed to the stream, which has not been told to pass it on.
    is_flush_due: bool,
    pub(super) limits: Arc<Limits>,
    /// Always what `limits` says, without a look there for each line.
    max_unsent: usize,
    /// Begins when output first waits for the peer, and goes on until what was waited for has gone out.
    pub(super) deadline: Option<Box<Deadline>>,
    pub(super) has_timed_out: bool,
    /// Something was not sent since this task has had its turn.
    pub(super) is_put_off: bool,
    /// A `request` was dropped before its reply came.
    pub(super) is_reply_due: bool,
    pub(super) lines: u64,
    pub(super) bytes: u64,
    reported: Reported,
}

impl Output {
    pub(super) fn new(encoder: LineEncoder) -> Self {
        let limits = Limits::none();
        Self {
            max_unsent: limits.max_unsent,
            limits,
            encoder,
            unsent: Buffer::default(),
            is_flush_due: false,
            deadline: None,
            has_timed_out: false,
            is_put_off: false,
            is_reply_due: false,
            lines: 0,
            bytes: 0,
            reported: Default::default(),
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn limit(&mut self, limits: Arc<Limits>) {
        self.max_unsent = limits.max_unsent;
        self.limits = limits;
    }

    /// Queues a line, once no more than `max_unsent` bytes are unsent.
    pub(super) fn poll_line<Io: AsyncWrite + Unpin>(
        &mut self,
        line: &[u8],
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_room(io, cx))?;
        self.queue(line).map_err(Error::Encode)?;
        Poll::Ready(self.send_some(io, cx))
    }

    /// Queues a line.
    #[inline]
    pub(super) fn queue(&mut self, line: &[u8]) -> Result<(), EncodeError> {
        let encoded = self.encoder.encode_line(line, self.unsent.spare_bytes());
        self.queued(encoded)
    }

    /// Queues the line that `write` appends.
    #[cfg(feature = "server")]
    #[inline]
    pub(super) fn queue_written(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        let from = self.append(write);
        let encoded = self.encoder.end_line(from, self.unsent.bytes());
        self.queued(encoded)
    }

    /// Queues the line that `write` appends. Whether there is [another end](Self::holds_terminator) in it is asked later, and then it
    /// is [ended](Self::terminate) itself.
    #[cfg(feature = "server")]
    #[inline]
    pub(super) fn queue_unsearched(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        let from = self.append(write);
        let encoded = self.encoder.end_line_unsearched(from, self.unsent.bytes());
        self.queued(encoded)
    }

    /// Whether a line ends anywhere in what was queued from there on.
    #[cfg(feature = "server")]
    pub(super) fn holds_terminator(&self, from: usize) -> bool {
        self.encoder.holds_terminator(&self.unsent[from..])
    }

    /// Ends the lines that end there, which were queued [unsearched](Self::queue_unsearched).
    #[cfg(feature = "server")]
    pub(super) fn terminate(&mut self, ends: &[usize]) {
        let unsent = self.unsent.bytes();
        ends.iter().for_each(|end| LineEncoder::turn_terminator(&mut unsent[..*end]));
    }

    /// So many lines are not queued from there on.
    #[cfg(feature = "server")]
    pub(super) fn unqueue(&mut self, from: usize, count: usize) -> BytesMut {
        self.lines -= count as u64;
        // In memory of their own: shared, it could not be written to.
        let lines = BytesMut::from(&self.unsent[from..]);
        self.unsent.bytes().truncate(from);
        lines
    }

    /// So many bytes were not sent.
    #[cfg(feature = "server")]
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    #[inline]
    fn queued(&mut self, encoded: Result<(), EncodeError>) -> Result<(), EncodeError> {
        match encoded {
            Ok(()) => self.lines += 1,
            // There may be much room now, and nothing in it.
            Err(_) if self.unsent.is_empty() => self.unsent.leave(),
            Err(_) => self.unsent.shrink(2),
        }
        encoded
    }

    /// Queues so many lines with their terminators, which `write` appends.
    #[cfg(feature = "server")]
    pub(super) fn queue_lines(&mut self, count: u64, write: impl FnOnce(&mut BytesMut)) {
        self.append(write);
        self.lines += count;
    }

    /// Where what `write` appends begins. Where that panics, nothing is appended.
    #[cfg(feature = "server")]
    #[inline]
    fn append(&mut self, write: impl FnOnce(&mut BytesMut)) -> usize {
        struct Begun<'a> {
            unsent: &'a mut BytesMut,
            from: usize,
        }

        impl Drop for Begun<'_> {
            fn drop(&mut self) {
                self.unsent.truncate(self.from);
            }
        }

        let unsent = self.unsent.spare_bytes();
        let from = unsent.len();
        let begun = Begun { unsent, from };
        write(begun.unsent);
        core::mem::forget(begun);
        from
    }

    /// Queues a line, which is then `None`, and sends everything.
    pub(super) fn poll_line_sent<Io: AsyncWrite + Unpin>(
        &mut self,
        line: &mut Option<impl AsRef<[u8]>>,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if let Some(unqueued) = line {
            ready!(self.poll_line(unqueued.as_ref(), io, cx))?;
            *line = None;
        }
        self.poll_send(0, io, cx)
    }

    /// Queues bytes as they are, of which `queued` have been.
    pub(super) fn poll_bytes<Io: AsyncWrite + Unpin>(
        &mut self,
        bytes: &[u8],
        queued: &mut usize,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        while *queued < bytes.len() {
            ready!(self.poll_room(io, cx))?;
            let end = bytes.len().min(*queued + PIECE);
            self.unsent.spare_bytes().extend_from_slice(&bytes[*queued..end]);
            *queued = end;
        }
        Poll::Ready(self.send_some(io, cx))
    }

    #[inline]
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.unsent.len() + bytes <= self.max_unsent
    }

    /// How many bytes more may be unsent before another line waits.
    #[cfg(feature = "server")]
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.max_unsent.saturating_sub(self.unsent.len())
    }

    /// Ready where no more than `max_unsent` bytes are unsent.
    pub(super) fn poll_room<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.poll_before_take(io, cx))?;
        match self.unsent.len() > self.max_unsent {
            true => self.poll_send(self.max_unsent, io, cx),
            false => {
                self.deadline = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Past `max_unsent`, sends what goes out without waiting.
    fn send_some<Io: AsyncWrite + Unpin>(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.unsent.len() > self.max_unsent {
            true => self.send_now(io, cx),
            false => Ok(()),
        }
    }

    /// Sends what goes out without waiting. What does not goes out later.
    pub(super) fn send_now<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        match self.poll_write(0, io, cx) {
            Poll::Ready(sent) => sent.map_err(Error::from),
            Poll::Pending => {
                self.is_put_off = turn::poll_budget(cx).is_pending();
                Ok(())
            }
        }
    }

    /// Sends until no more than `left` bytes are unsent, within the deadline.
    pub(super) fn poll_send<Io: AsyncWrite + Unpin>(
        &mut self,
        left: usize,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if let Poll::Ready(sent) = self.poll_write(left, io, cx) {
            return Poll::Ready(sent.map_err(Error::from));
        }
        self.poll_late(cx)
    }

    fn poll_late<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        ready!(self.deadline.get_or_insert_default().poll(self.limits.write_timeout, cx));
        self.has_timed_out = true;
        Poll::Ready(Err(Error::Timeout(Timeout::Write)))
    }

    fn poll_write<Io: AsyncWrite + Unpin>(
        &mut self,
        left: usize,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unsent.len() > left {
            match Pin::new(&mut *io).poll_write(cx, &self.unsent) {
                Poll::Pending => {
                    // What was sent is not to need memory while a little more waits. Much is not copied for that.
                    self.unsent.shrink(8);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.unsent.advance(written);
                    self.bytes += written as u64;
                    self.is_flush_due = true;
                    self.report();
                    if let Some(traffic) = &self.limits.traffic {
                        traffic.bytes_sent.add(written as u64);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if self.unsent.is_empty() {
            // An idle connection keeps no buffer.
            self.unsent.leave();
            self.is_put_off = false;
            if self.is_flush_due {
                ready!(uninterrupted(|| Pin::new(&mut *io).poll_flush(cx)))?;
                self.is_flush_due = false;
            }
        }
        self.deadline = None;
        Poll::Ready(Ok(()))
    }

    /// Adds the lines that were written since the last time to what all of the server's connections have.
    pub(super) fn report(&mut self) {
        if let Some(traffic) = &self.limits.traffic {
            traffic.lines_written.report(&mut self.reported, self.lines);
        }
    }

    /// Sends everything, then the end of the stream.
    pub(super) fn poll_shutdown<Io: AsyncWrite + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        // Once all is sent, the deadline is about the shutdown, and sending nothing would begin it anew at each poll.
        if !self.is_sent() {
            ready!(self.poll_send(0, io, cx))?;
        }
        if let Poll::Ready(shut) = uninterrupted(|| Pin::new(&mut *io).poll_shutdown(cx)) {
            self.deadline = None;
            return Poll::Ready(shut.map_err(Error::from));
        }
        self.poll_late(cx)
    }

    fn is_sent(&self) -> bool {
        self.unsent.is_empty() && !self.is_flush_due
    }

    pub(super) fn into_parts(self) -> (LineEncoder, BytesMut) {
        (self.encoder, self.unsent.into_bytes())
    }
}

/// Calls again where a call was interrupted, as is done with reads and writes.
fn uninterrupted(mut call: impl FnMut() -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    loop {
        match ready!(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

impl<Io: AsyncWrite + Unpin> Unsent<Io> for Output {
    fn say(&mut self, error: &str) {
        // What cannot be framed stays unsaid.
        _ = self.queue(error.as_bytes());
    }

    /// Sends what was put off, once it is this task's turn again.
    fn poll_before_take(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_put_off {
            ready!(turn::poll_budget(cx));
            self.is_put_off = false;
            self.send_now(io, cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_before_wait(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.is_sent() {
            return Poll::Ready(Ok(()));
        }
        match self.poll_write(0, io, cx) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(Error::from)),
            // A peer that does not take its replies is not read any further.
            Poll::Pending if self.unsent.len() > self.max_unsent => self.poll_send(self.max_unsent, io, cx),
            Poll::Pending => {
                self.deadline = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_before_end(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.is_sent() {
            true => Poll::Ready(Ok(())),
            false => self.poll_send(0, io, cx),
        }
    }
}
