//! What a server does with its connections.

use std::boxed::Box;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::clock;
use super::guard::Guard;
use super::home::Home;
use super::inner::Inner;
use super::output::Output;
use super::queue::Queue;
use super::take::Shown;
use super::{AnyIo, Connection, ConnectionCounters, Draining, Error, Limits, Peer, Timeout};
use crate::codec::{ItemKind, Items};
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
        input.limit(Arc::clone(&limits));
        output.limit(limits);
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
        self.poll_windows(cx, |output, Shown { walk, window, now }| {
            answers.begin(now);
            let mut queue = Queue::new(output);
            queue.search_later();
            let mut answered = Answered { bytes: window.bytes, answers, queue: &mut queue, shown: 0 };
            let taken = walk.take_items(window, &mut answered);
            (answered.shown, taken, queue.refused())
        })
    }

    /// Shows `answer` what has come, once there is room for replies. That gives how many lines it has answered, how many bytes it has
    /// taken, and why a reply could not be framed.
    pub(super) fn poll_windows(
        &mut self,
        cx: &mut Context<'_>,
        mut answer: impl FnMut(&mut Output, Shown<'_>) -> (usize, usize, Option<EncodeError>),
    ) -> Poll<Result<Option<()>, Error>> {
        let mut refused = None;
        let shown = ready!(self.poll_in(|input, output, io| {
            if !output.has_room_for(0) {
                ready!(output.poll_room(io, cx))?;
            }
            input.poll_shown(io, output, cx, |output, show| {
                let (shown, taken, refusal) = answer(output, show);
                refused = refusal;
                (shown, taken)
            })
        }))?;
        Poll::Ready(refused.map_or(Ok(shown), |error| Err(Error::Encode(error))))
    }

    /// Sends what goes out without waiting.
    pub(crate) fn send_queued(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.poll_in(|_, output, io| Poll::Ready(output.send_now(io, cx))) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

/// What answers lines.
pub(crate) trait Answers {
    /// Before the first of those that are there. It is `now`, where somebody has just looked.
    fn begin(&mut self, now: Option<Instant>);
    /// Appends its reply.
    fn line(&mut self, line: &[u8], reply: &mut BytesMut);
    /// Whether what has been answered may wait for the next line, if there is one behind it.
    fn goes_on(&mut self, is_last: bool) -> bool;
}

/// The items of a window.
struct Answered<'a, 'o, A> {
    bytes: &'a [u8],
    answers: &'a mut A,
    queue: &'a mut Queue<'o>,
    shown: usize,
}

impl<A: Answers> Items for &mut Answered<'_, '_, A> {
    #[inline(always)]
    fn line(&mut self, start: usize, end: usize) -> bool {
        let Answered { bytes, answers, queue, .. } = &mut **self;
        let line = &bytes[start..end];
        let has_room = queue.push(|reply| answers.line(line, reply));
        self.goes_on(end, has_room)
    }

    #[inline(never)]
    fn item(&mut self, start: usize, end: usize, kind: ItemKind) -> bool {
        if !kind.is_bad() {
            return self.line(start, end);
        }
        let said = kind.reply(&self.bytes[start..end]);
        let has_room = self.queue.push(|reply| reply.extend_from_slice(said.as_bytes()));
        self.goes_on(end, has_room)
    }
}

impl<A: Answers> Answered<'_, '_, A> {
    #[inline(always)]
    fn goes_on(&mut self, end: usize, has_room: bool) -> bool {
        self.shown += 1;
        // Its terminator is the last byte.
        let is_last = end + 1 >= self.bytes.len();
        has_room && self.answers.goes_on(is_last)
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
