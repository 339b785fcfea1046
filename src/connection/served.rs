//! What a server does with its connections.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::guard::Guard;
use super::inner::{Home, Inner};
use super::{AnyIo, Connection, ConnectionCounters, Draining, Error, Limits, Peer, Timeout};
use crate::codec::LineCodec;

impl Connection {
    /// A connection of a server, which is to have it back.
    pub(crate) fn served(
        io: AnyIo,
        codec: LineCodec,
        peer: Peer,
        limits: Arc<Limits>,
        draining: Draining,
        home: Home<AnyIo>,
    ) -> Self {
        let mut connection = Self::connected(io, codec, peer);
        let Inner { input, output, home: to, .. } = connection.inner_mut();
        if limits.refuse_http_and_tls {
            input.guard = Guard::WATCHING;
        }
        input.limits = Arc::clone(&limits);
        output.limits = limits;
        input.draining = draining;
        *to = Some(home);
        connection
    }

    /// [`write_line`](Self::write_line) for who calls [`send_queued`](Self::send_queued) often enough.
    #[inline]
    pub(crate) fn poll_queue(&mut self, line: &[u8], cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_in(|_, output, io| output.poll_line(line, io, cx))
    }

    /// Sends what goes out without waiting.
    pub(crate) fn send_queued(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.poll_in(|_, output, io| Poll::Ready(output.send_now(io, cx))) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

impl Inner<AnyIo> {
    /// What a server does with a connection that has come home: everything is sent, then the end of the stream. Gives the
    /// deadline that has ended it, if one has.
    pub(crate) async fn finish(&mut self) -> Option<Timeout> {
        let Self { io, input, output, is_gone, .. } = self;
        *is_gone |= *is_gone || poll_fn(|cx| output.poll_shutdown(io, cx)).await.is_err();
        if output.has_timed_out { Some(Timeout::Write) } else { input.timed_out }
    }

    /// Then what the peer still sends is read and dropped for a while.
    pub(crate) async fn linger(&mut self, linger: Duration) {
        let Self { io, input, is_gone, .. } = self;
        if !*is_gone && !input.is_at_eof() {
            _ = tokio::time::timeout(linger, poll_fn(|cx| input.poll_drop_all(io, cx))).await;
        }
    }

    pub(crate) fn counters(&self) -> ConnectionCounters {
        ConnectionCounters::of(&self.input, &self.output)
    }
}
