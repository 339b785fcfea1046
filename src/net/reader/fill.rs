use std::boxed::Box;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::Reader;
use crate::net::buffer::{HEADROOM, READ_SIZE, ReadBuffer, ReadIo};
use crate::net::error::{Error, Polled, TimeoutKind};
use crate::net::limits::Total;
use crate::net::poll;
use crate::net::read_state::{End, ReadState};
use crate::net::shutdown::DrainProgress;
use crate::net::timers::WaitFor;

/// Reads from the stream within the deadlines, after a shutdown signal, and up to its end.
impl Reader {
    /// Reads once, into `unread` if lines can be returned from there, and otherwise into the
    /// connection's buffer. Returns `Pending` until bytes arrive or a deadline passes. `counted` is
    /// the kind and number of the counted bytes that are awaited, or `None` for a line.
    pub(in crate::net) fn poll_fill(
        &mut self,
        unread: &mut ReadBuffer,
        counted: Option<(WaitFor, u64)>,
        io: ReadIo<'_>,
        cx: &mut Context<'_>,
    ) -> Polled<()> {
        let most = counted.map_or(self.read_size as usize, |(_, count)| self.most_of_counted(count));
        let wait = match counted {
            _ if self.decoder.is_within_long_line() => WaitFor::Rest,
            _ if self.decoder.is_skipping() => WaitFor::Next,
            Some((wait, _)) => wait,
            None if unread.is_empty() && self.buffer.is_empty() => WaitFor::Next,
            None => WaitFor::Rest,
        };
        let has_begun = !unread.is_empty() || !self.buffer.is_empty() || self.decoder.is_within_long_line();
        if self.timer.is_overdue(wait, has_begun, &self.limits) {
            return Poll::Ready(Err(self.time_out(TimeoutKind::Line)));
        }
        let mut read = self.poll_read(unread, most, io, cx);
        if read.is_pending() {
            let timeout = ready!(self.poll_deadline(wait, has_begun, cx));
            // Data that the system has already received is in time.
            read = poll::with_system_io(|| self.poll_read(unread, most, io, cx)).0;
            if read.is_pending() {
                return Poll::Ready(Err(self.time_out(timeout)));
            }
        }
        self.timer.read_has_ended(wait);
        read.map_err(Error::from)
    }

    /// Returns `Ready` when the deadline of a waiting read has passed.
    fn poll_deadline(&mut self, wait: WaitFor, has_begun: bool, cx: &mut Context<'_>) -> Poll<TimeoutKind> {
        // A waiting connection buffers at most an unfinished line.
        self.buffer.shrink(2);
        self.batch.take_if(|token| Arc::strong_count(token) == 1);
        self.timer.poll(wait, has_begun, &self.limits, cx)
    }

    fn time_out(&mut self, timeout: TimeoutKind) -> Error {
        self.fail(Some(timeout));
        Error::Timeout(timeout)
    }

    fn poll_read(
        &mut self,
        unread: &mut ReadBuffer,
        most: usize,
        io: ReadIo<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.report();
        if unread.unread().len() > HEADROOM {
            self.keep(unread);
        }
        let count = ready!(unread.poll_read(most, io, cx))?;
        if count == 0 {
            self.state = ReadState::Ended(End::Eof);
            return Poll::Ready(Ok(()));
        }
        if count == self.read_size as usize {
            self.read_size = (2 * self.read_size).min(READ_SIZE as u32);
        }
        if let Some(totals) = &self.limits.totals {
            totals.add(Total::BytesRead, count as u64);
        }
        let now = Instant::now();
        poll::begin_turn(now);
        let has_begun = unread.unread().len() > count || !self.buffer.is_empty();
        self.timer.bytes_arrived(now, count, has_begun || self.decoder.is_within_long_line());
        if !self.has_only_lines() || self.buffer.len() > HEADROOM {
            self.keep(unread);
        } else if !self.buffer.is_empty() {
            unread.prepend(&self.buffer);
            self.buffer.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Returns whether the server is shutting down. If not, registers the task to be woken then.
    pub(in crate::net) fn poll_shutdown_signal(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.draining).poll(cx).is_ready()
    }

    /// Runs one round of reading the bytes that arrived before the shutdown signal. A round reads
    /// the bytes of at most one full read, in any number of pieces.
    pub(in crate::net) fn poll_drain_round(&mut self, io: ReadIo<'_>, cx: &mut Context<'_>) -> Poll<()> {
        let mut progress = match core::mem::replace(&mut self.state, ReadState::Open) {
            ReadState::Draining(progress) => progress,
            _ => Box::new(DrainProgress::new(self.bytes_read())),
        };
        let mut failed = None;
        while progress.goes_on(self.bytes_read()) {
            if progress.ends_round() {
                self.state = ReadState::Draining(progress);
                return Poll::Ready(());
            }
            let before = self.buffer.len();
            let mut unread = ReadBuffer::take();
            let (read, is_certain) = poll::with_system_io(|| self.poll_read(&mut unread, READ_SIZE, io, cx));
            self.keep(&mut unread);
            match read {
                Poll::Ready(Ok(())) if self.state.is_eof() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => progress.add(self.buffer.len() - before),
                // Lines that arrived before the error are returned first.
                Poll::Ready(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                Poll::Pending if progress.read_was_empty(is_certain) => break,
                Poll::Pending => {
                    self.state = ReadState::Draining(progress);
                    return poll::poll_yield(cx);
                }
            }
        }
        self.state = ReadState::Ended(End::Drained(failed));
        Poll::Ready(())
    }

    /// Reads and discards all bytes up to the end of the stream.
    pub(in crate::net) fn poll_drop_rest(
        &mut self,
        io: ReadIo<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.state.is_eof() {
            self.buffer.clear();
            ready!(poll::poll_turn(self.timer.read_at(), cx));
            let mut unread = ReadBuffer::take();
            ready!(self.poll_read(&mut unread, READ_SIZE, io, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Returns the maximum size of the next read for `count` counted bytes.
    ///
    /// After a shutdown signal, the read is limited to the missing bytes, because later bytes may
    /// have been sent too late. The rest of a long line has no known length, so it is not limited.
    fn most_of_counted(&self, count: u64) -> usize {
        let is_exact =
            matches!(self.state, ReadState::Ended(End::Drained(_))) && !self.decoder.is_within_long_line();
        let wanted = self.decoder.pending_skip().saturating_add(count);
        let missing = wanted.saturating_sub(self.buffer.len() as u64).max(1);
        let most = self.read_size as usize;
        if is_exact { usize::try_from(missing).map_or(most, |missing| most.min(missing)) } else { most }
    }
}
