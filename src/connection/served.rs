//! What a server does with its connections.

use std::boxed::Box;
use std::format;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;

use super::clock;
use super::guard::Guard;
use super::home::Home;
use super::inner::Inner;
use super::output::Output;
use super::{AnyIo, Connection, ConnectionCounters, Draining, Error, Limits, Peer, Timeout};
use crate::codec::{ItemKind, Items, Walk, Window};
use crate::error::EncodeError;

impl Connection {
    pub(crate) fn from_inner(inner: Box<Inner<AnyIo>>) -> Self {
        Self(Some(inner))
    }

    /// Makes it a connection of a server, which is to have it back.
    pub(crate) fn serve(&mut self, limits: Arc<Limits>, draining: Draining, home: Home<AnyIo>) {
        let Inner { input, output, home: to, .. } = self.inner_mut();
        if limits.refuse_http_and_tls {
            input.guard = Guard::WATCHING;
        }
        input.limits = Arc::clone(&limits);
        output.limits = limits;
        input.draining = draining;
        *to = Some(home);
    }

    /// Its stream, and whom it is to, until they are [put back](Self::put_io).
    pub(crate) fn take_io(&mut self) -> (AnyIo, Peer) {
        let Inner { io, peer, .. } = self.inner_mut();
        (core::mem::replace(io, AnyIo::new(tokio::io::empty())), *peer)
    }

    pub(crate) fn put_io(&mut self, io: AnyIo, peer: Peer) {
        let inner = self.inner_mut();
        (inner.io, inner.peer) = (io, peer);
    }

    /// Shows the lines that have come, until an answer is the last or the replies have to wait for the peer: at least one line.
    /// `None` at the end.
    pub(crate) fn poll_answered(
        &mut self,
        cx: &mut Context<'_>,
        answers: &mut impl Answers,
    ) -> Poll<Result<Option<()>, Error>> {
        self.poll_windows(cx, |queue, walk, window| {
            let mut answered = Answered { bytes: window.bytes, answers, queue, shown: 0 };
            let taken = walk.take_items(window, &mut answered);
            (answered.shown, taken)
        })
    }

    /// Shows `answer` what has come, once there is room for replies.
    pub(super) fn poll_windows(
        &mut self,
        cx: &mut Context<'_>,
        mut answer: impl FnMut(Queue<'_>, &mut Walk, Window<'_>) -> (usize, usize),
    ) -> Poll<Result<Option<()>, Error>> {
        self.poll_in(|input, output, io| {
            if !output.has_room_for(0) {
                ready!(output.poll_room(io, cx))?;
            }
            input.poll_shown(io, output, cx, |output, walk, window| answer(Queue(output), walk, window))
        })
    }

    /// Sends what goes out without waiting.
    pub(crate) fn send_queued(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.poll_in(|_, output, io| Poll::Ready(output.send_now(io, cx))) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

/// What is answered, until it gives false.
pub(crate) trait Answers {
    fn line(&mut self, line: &[u8], queue: &mut Queue<'_>) -> bool;
    /// A bad line, of which this is said.
    fn bad(&mut self, said: &str, queue: &mut Queue<'_>) -> bool;
}

/// The items of a window.
struct Answered<'a, A> {
    bytes: &'a [u8],
    answers: &'a mut A,
    queue: Queue<'a>,
    shown: usize,
}

impl<A: Answers> Items for &mut Answered<'_, A> {
    #[inline(always)]
    fn line(&mut self, start: usize, end: usize) -> bool {
        self.shown += 1;
        self.answers.line(&self.bytes[start..end], &mut self.queue) && self.queue.has_room_for(0)
    }

    #[inline(never)]
    fn item(&mut self, start: usize, end: usize, kind: ItemKind) -> bool {
        if !kind.is_bad() {
            return self.line(start, end);
        }
        self.shown += 1;
        let said = kind.reply(&self.bytes[start..end]);
        self.answers.bad(&said, &mut self.queue) && self.queue.has_room_for(0)
    }
}

/// Where replies go.
pub(crate) struct Queue<'a>(&'a mut Output);

impl Queue<'_> {
    /// The reply is what `write` appends, or, where that cannot be framed, an error line. Fails where not even that can.
    #[inline]
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        self.0.queue_written(write).or_else(|error| self.refuse(&error))
    }

    #[cold]
    fn refuse(&mut self, error: &EncodeError) -> Result<(), EncodeError> {
        self.0.queue(format!("error: reply refused: {error}").as_bytes())
    }

    /// Lines and their terminators, which are known to be lines.
    pub(super) fn push_lines(&mut self, count: u64, write: impl FnOnce(&mut BytesMut)) {
        self.0.queue_lines(count, write);
    }

    /// Whether it takes so many bytes more, and another reply behind them.
    #[inline]
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.0.has_room_for(bytes)
    }

    #[inline]
    pub(super) fn max_length(&self) -> usize {
        self.0.encoder.max_length()
    }
}

impl Inner<AnyIo> {
    /// What a server does with a connection that has come home: everything is sent, then the end of the stream. Gives the
    /// deadline that has ended it, if one has.
    pub(crate) async fn finish(&mut self) -> Option<Timeout> {
        let Self { io, input, output, .. } = self;
        input.is_gone = input.is_gone || poll_fn(|cx| output.poll_shutdown(io, cx)).await.is_err();
        if output.has_timed_out { Some(Timeout::Write) } else { input.timed_out }
    }

    /// Then what the peer still sends is read and dropped for a while.
    pub(crate) async fn linger(&mut self, linger: Duration) {
        let Self { io, input, .. } = self;
        if !input.is_gone && !input.is_at_eof() {
            let dropping = poll_fn(|cx| clock::within_poll(|| input.poll_drop_all(io, cx)));
            _ = tokio::time::timeout(linger, dropping).await;
        }
    }

    pub(crate) fn counters(&self) -> ConnectionCounters {
        ConnectionCounters::of(&self.input, &self.output)
    }
}
