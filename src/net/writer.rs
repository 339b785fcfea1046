use std::boxed::Box;
use std::format;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::buffer::Buffer;
use super::error::{Error, Polled, TimeoutKind};
use super::limits::{Limits, Total};
use super::poll;
use super::timers::Deadline;
use crate::codec::LineEncoder;
use crate::error::EncodeError;

/// A stream to write to.
pub(super) type WriteIo<'a> = &'a mut (dyn AsyncWrite + Unpin + 'a);

/// Number of bytes that `write_bytes` queues before it checks how many are unsent.
const PIECE: usize = 64 * 1024;

/// State of the output.
///
/// ```text
/// Flushed    -- the stream accepts bytes ----------------> Unflushed
/// Unflushed  -- everything is sent and flushed ----------> Flushed
/// Flushed, Unflushed  -- the turn or the budget is over -> Postponed
/// Postponed  -- the next poll sends the output ----------> Unflushed
/// any        -- deadline passed, or the half failed -----> Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The stream has flushed all bytes that it accepted.
    Flushed,
    /// The stream has accepted bytes and has not been flushed since.
    Unflushed,
    /// Like `Unflushed`; the next poll of the task sends the queued output first.
    Postponed,
    /// The writer has failed, because of this deadline if it is `Some`.
    Failed(Option<TimeoutKind>),
}

/// The writing side of a connection. Queues lines and sends them within the deadline.
#[derive(Debug)]
pub(crate) struct Writer {
    encoder: LineEncoder,
    /// Output that is queued and not accepted by the stream. Holds no memory when empty.
    unsent: Buffer,
    state: State,
    limits: Arc<Limits>,
    /// Starts when output first waits for the peer, and restarts with each byte that the stream
    /// accepts. `None` if no output has waited since everything was last sent.
    deadline: Option<Box<Deadline>>,
    /// `true` while a request has no reply. Stays `true` if the request's future is dropped. Stored
    /// here rather than in `Duplex`, so that it survives a split.
    request_unanswered: bool,
    lines: u64,
    bytes: u64,
    /// Number of lines at the last report.
    reported: u32,
}

impl Writer {
    pub(super) fn new(encoder: LineEncoder) -> Self {
        Self {
            encoder,
            unsent: Buffer::default(),
            state: State::Flushed,
            limits: Limits::none(),
            deadline: None,
            request_unanswered: false,
            lines: 0,
            bytes: 0,
            reported: 0,
        }
    }

    /// Applies the limits of a server.
    pub(super) fn serve(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
    }

    /// Queues a line. Queues nothing if the encoder refuses the line.
    #[inline]
    pub(super) fn queue(&mut self, line: &[u8]) -> Result<(), EncodeError> {
        let encoded = self.encoder.encode_line(line, self.unsent.bytes_mut());
        self.queued(encoded)
    }

    /// Queues a line if no other check is needed: the fast path of `write_line`. Returns `false` if
    /// the line is not queued.
    #[inline]
    pub(super) fn queue_now(&mut self, line: &[u8]) -> bool {
        self.is_ready() && !self.is_full() && self.queue(line).is_ok()
    }

    /// Queues the bytes that `write` appends as one line. If they cannot be a line, queues an error
    /// line instead.
    ///
    /// # Errors
    ///
    /// The encoder refuses the error line as well.
    #[inline]
    pub(crate) fn queue_reply(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        /// Removes a partial reply if `write` panics.
        struct Undo<'a> {
            unsent: &'a mut BytesMut,
            start: usize,
        }

        impl Drop for Undo<'_> {
            fn drop(&mut self) {
                self.unsent.truncate(self.start);
            }
        }

        let unsent = self.unsent.bytes_mut();
        let start = unsent.len();
        let undo = Undo { unsent, start };
        write(undo.unsent);
        core::mem::forget(undo);
        let encoded = self.encoder.end_line(start, self.unsent.bytes_mut());
        self.queued(encoded).or_else(|error| self.queue(format!("error: reply refused: {error}").as_bytes()))
    }

    #[inline]
    fn queued(&mut self, encoded: Result<(), EncodeError>) -> Result<(), EncodeError> {
        match encoded {
            Ok(()) => self.lines += 1,
            // The refused line may have grown the buffer.
            Err(_) => self.unsent.shrink(2),
        }
        encoded
    }

    /// Waits until at most `max_unsent` bytes are unsent, then queues a line.
    pub(super) fn poll_line(&mut self, line: &[u8], io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        ready!(self.poll_ready(io, cx))?;
        self.queue(line).map_err(Error::Encode)?;
        Poll::Ready(self.send_if_full(io, cx))
    }

    /// Queues the line and sets `line` to `None`, then sends all queued output.
    pub(super) fn poll_send_line(
        &mut self,
        line: &mut Option<impl AsRef<[u8]>>,
        io: WriteIo<'_>,
        cx: &mut Context<'_>,
    ) -> Polled<()> {
        if let Some(unqueued) = line {
            ready!(self.poll_line(unqueued.as_ref(), io, cx))?;
            *line = None;
        }
        self.poll_flush(io, cx)
    }

    /// Queues bytes without a check. Earlier calls have queued the first `queued` of them.
    pub(super) fn poll_bytes(
        &mut self,
        bytes: &[u8],
        queued: &mut usize,
        io: WriteIo<'_>,
        cx: &mut Context<'_>,
    ) -> Polled<()> {
        while *queued < bytes.len() {
            ready!(self.poll_ready(io, cx))?;
            let end = bytes.len().min(*queued + PIECE);
            self.unsent.bytes_mut().extend_from_slice(&bytes[*queued..end]);
            *queued = end;
        }
        Poll::Ready(self.send_if_full(io, cx))
    }

    /// Returns whether more than `max_unsent` bytes are unsent.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.unsent.len() > self.limits.max_unsent
    }

    /// Returns `Ready` when at most `max_unsent` bytes are unsent.
    pub(super) fn poll_ready(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        ready!(self.poll_postponed(io, cx))?;
        if self.is_full() {
            return self.poll_send(self.limits.max_unsent, io, cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends postponed output as soon as this task may write again.
    #[inline]
    pub(super) fn poll_postponed(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        match self.state {
            State::Postponed => self.poll_resumed(io, cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    #[cold]
    fn poll_resumed(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        ready!(poll::poll_turn(Some(poll::line_time()), cx));
        ready!(poll::poll_budget(cx));
        self.state = State::Unflushed;
        Poll::Ready(self.send_now(io, cx))
    }

    /// Sends as much as the stream accepts without waiting. Call it before a read. Returns
    /// `Pending` if more than `max_unsent` bytes remain unsent: the connection does not read from a
    /// peer that does not accept its replies.
    pub(super) fn poll_before_read(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        match self.poll_flush(io, cx) {
            // The write deadline keeps running.
            Poll::Pending if !self.is_full() => Poll::Ready(Ok(())),
            sent => sent,
        }
    }

    /// Sends all queued output and flushes the stream.
    pub(super) fn poll_flush(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        // `poll_send` would clear the deadline of a pending shutdown.
        if self.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(0, io, cx)
    }

    /// Sends all queued output, then closes the writing side of the stream.
    pub(super) fn poll_shutdown(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        ready!(self.poll_flush(io, cx))?;
        self.poll_in_time(io, cx, |writer, io, cx| {
            let shut = retry_interrupted(|| Pin::new(&mut *io).poll_shutdown(cx));
            if shut.is_ready() {
                writer.deadline = None;
            }
            shut
        })
    }

    fn send_if_full(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.is_full() { self.send_now(io, cx) } else { Ok(()) }
    }

    /// Sends as much as the stream accepts without waiting. The rest is sent later.
    pub(crate) fn send_now(&mut self, io: WriteIo<'_>, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.poll_write(0, io, cx) {
            Poll::Ready(sent) => sent.map_err(Error::from),
            Poll::Pending => {
                if poll::poll_budget(cx).is_pending() {
                    self.state = State::Postponed;
                }
                Ok(())
            }
        }
    }

    /// Lets other tasks run before this task reads or writes again.
    pub(super) fn postpone(&mut self) {
        self.state = State::Postponed;
    }

    /// Sends until at most `left` bytes are unsent, within the deadline.
    fn poll_send(&mut self, left: usize, io: WriteIo<'_>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_in_time(io, cx, |writer, io, cx| writer.poll_write(left, io, cx))
    }

    /// Runs `step` within the deadline. Before the deadline fails the connection, `step` asks the
    /// system whether the socket has space: Tokio may not know yet, or the system may not have
    /// reported it.
    fn poll_in_time(
        &mut self,
        io: WriteIo<'_>,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut Self, WriteIo<'_>, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Polled<()> {
        let mut try_step = |writer: &mut Self, cx: &mut Context<'_>| {
            let taken = (writer.bytes, poll::taken());
            let stepped = step(writer, io, cx);
            (stepped, taken != (writer.bytes, poll::taken()))
        };
        let (mut stepped, mut has_progressed) = try_step(self, cx);
        loop {
            if let Poll::Ready(done) = stepped {
                return Poll::Ready(done.map_err(Error::from));
            }
            let deadline = self.deadline.get_or_insert_default();
            if has_progressed {
                deadline.start(None);
            }
            ready!(deadline.poll(self.limits.write_timeout, cx));
            ((stepped, has_progressed), _) = poll::with_system_io(|| try_step(self, cx));
            if stepped.is_pending() && !has_progressed {
                self.fail(Some(TimeoutKind::Write));
                return Poll::Ready(Err(Error::Timeout(TimeoutKind::Write)));
            }
        }
    }

    fn poll_write(&mut self, left: usize, io: WriteIo<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent.len() > left {
            match Pin::new(&mut *io).poll_write(cx, &self.unsent) {
                Poll::Pending => {
                    // Frees the memory of sent bytes, unless that would copy many bytes.
                    self.unsent.shrink(8);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.sent(written),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if self.unsent.is_empty() {
            self.unsent.clear();
            if self.state != State::Flushed {
                self.state = State::Unflushed;
                ready!(retry_interrupted(|| Pin::new(&mut *io).poll_flush(cx)))?;
                self.state = State::Flushed;
            }
        }
        if self.is_flushed() {
            self.deadline = None;
        }
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, bytes: usize) {
        self.unsent.advance(bytes);
        self.bytes += bytes as u64;
        if let Some(deadline) = &mut self.deadline {
            deadline.start(None);
        }
        if self.state == State::Flushed {
            self.state = State::Unflushed;
        }
        self.report();
        if let Some(totals) = &self.limits.totals {
            totals.add(Total::BytesSent, bytes as u64);
        }
    }

    /// Returns whether the writer has not failed and no output is postponed.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Flushed | State::Unflushed)
    }

    /// Returns the number of bytes that are queued and not accepted by the stream.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.state == State::Flushed
    }

    /// Marks the writer as failed.
    pub(super) fn fail(&mut self, timeout: Option<TimeoutKind>) {
        self.state = State::Failed(timeout);
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// Returns the deadline that made the writer fail, if any.
    pub(super) fn timed_out(&self) -> Option<TimeoutKind> {
        match self.state {
            State::Failed(timeout) => timeout,
            _ => None,
        }
    }

    pub(super) fn is_request_unanswered(&self) -> bool {
        self.request_unanswered
    }

    pub(super) fn set_request_unanswered(&mut self, unanswered: bool) {
        self.request_unanswered = unanswered;
    }

    /// Returns the numbers of lines queued and bytes sent so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.lines, self.bytes)
    }

    pub(super) fn encoder_mut(&mut self) -> &mut LineEncoder {
        &mut self.encoder
    }

    pub(super) fn limits_mut(&mut self) -> &mut Limits {
        Arc::make_mut(&mut self.limits)
    }

    /// Adds the lines queued since the last report to the server's totals.
    pub(super) fn report(&mut self) {
        if let Some(totals) = &self.limits.totals {
            totals.report(Total::LinesWritten, &mut self.reported, self.lines);
        }
    }

    pub(super) fn into_parts(self) -> (LineEncoder, BytesMut) {
        (self.encoder, self.unsent.into_bytes())
    }
}

/// Repeats a call as long as a signal interrupts it.
fn retry_interrupted(mut call: impl FnMut() -> Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    loop {
        match ready!(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}
