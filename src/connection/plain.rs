//! Lines that have been read already, and lines for which there is room: for less than what any line may need.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::guard::Guard;
use super::inner::Inner;

impl<Io> Inner<Io> {
    /// A good line that is there, where nothing but lines is to be thought of. `None`: that is for
    /// [`Input::poll_line`](super::Input::poll_line) to say.
    #[inline]
    pub(super) fn next_plain_line(&mut self) -> Option<Bytes> {
        let Self { input, output, .. } = self;
        let is_plain = !input.is_gone && input.guard == Guard::Off && input.drained.is_none();
        if !is_plain || input.is_over() || output.is_put_off {
            return None;
        }
        let buffer = input.buffer.bytes_there()?;
        let line = input.walk.whole_line(buffer)?.cut_bytes(buffer);
        input.line_begins();
        Some(line)
    }

    /// Queues a line, where that is all that is to be done. False: nothing was queued, and
    /// [`Output::poll_line`](super::Output::poll_line) says why.
    #[inline]
    pub(super) fn queue_plain_line(&mut self, line: &[u8]) -> bool {
        let Self { input, output, .. } = self;
        let is_plain = !input.is_gone && output.has_room_for(0) && output.deadline.is_none();
        is_plain && !output.is_put_off && output.queue(line).is_ok()
    }

    /// Whether what was written is not to wait for more.
    #[inline]
    pub(super) fn is_to_send(&self) -> bool {
        !self.output.has_room_for(0) || self.input.is_behind()
    }
}

/// As [`poll_fn`](std::future::poll_fn), but part of the future that awaits it: what is awaited at each line gives its result, which
/// is large, without the copies that a call makes of it.
pub(super) struct Inlined<F>(pub(super) F);

// Nothing in it is pinned.
impl<F> Unpin for Inlined<F> {}

impl<T, F: FnMut(&mut Context<'_>) -> Poll<T>> Future for Inlined<F> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        (self.0)(cx)
    }
}
