//! How what was read is handed over, and what the other side of the connection does meanwhile.

use std::task::{Context, Poll};

use super::error::Error;
use super::input::Input;
#[cfg(feature = "server")]
use crate::codec::{Walk, Window};

/// What the other side of a connection does when this one reads: it sees that nothing stays unsent.
pub(super) trait Unsent<Io> {
    /// Writes an error line, if it can.
    fn say(&mut self, error: &str);
    /// Something is about to be handed over, or to be waited for. Pending: others have their turn first.
    fn poll_before_take(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// A read is about to wait. Pending: it must not read.
    fn poll_before_wait(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    /// The end is about to be reported.
    fn poll_before_end(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
}

/// A reading half has no unsent output.
impl<Io> Unsent<Io> for () {
    fn say(&mut self, _: &str) {}

    fn poll_before_take(&mut self, _: &mut Io, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_before_wait(&mut self, _: &mut Io, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_before_end(&mut self, _: &mut Io, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

/// How items are taken: cut out of what has been read, or looked at where it was read.
pub(super) trait Take<U, T> {
    const IN_PLACE: bool = false;

    fn buffered(&mut self, input: &mut Input, unsent: &mut U) -> Option<T>;

    /// Gives also how many of `bytes` were taken, which are all that has been read.
    fn in_place(&mut self, _: &mut Input, _: &mut U, _bytes: &[u8]) -> (usize, Option<T>) {
        (0, None)
    }
}

impl<U, T, F: FnMut(&mut Input, &mut U) -> Option<T>> Take<U, T> for F {
    fn buffered(&mut self, input: &mut Input, unsent: &mut U) -> Option<T> {
        self(input, unsent)
    }
}

#[cfg(feature = "server")]
pub(super) struct Shown<F>(pub(super) F);

#[cfg(feature = "server")]
impl<U, F: FnMut(&mut U, &mut Walk, Window<'_>) -> (usize, usize)> Take<U, ()> for Shown<F> {
    const IN_PLACE: bool = true;

    fn buffered(&mut self, input: &mut Input, unsent: &mut U) -> Option<()> {
        let mut buffer = core::mem::take(&mut input.buffer);
        let (taken, item) = self.in_place(input, unsent, &buffer);
        buffer.advance(taken);
        input.buffer = buffer;
        item
    }

    fn in_place(&mut self, input: &mut Input, unsent: &mut U, bytes: &[u8]) -> (usize, Option<()>) {
        let most_bad = input.limits.max_bad_lines.unwrap_or(u64::MAX);
        let window = Window { bytes, eof: input.is_at_eof, most_bad };
        let (shown, taken) = (self.0)(unsent, &mut input.walk, window);
        if shown > 1 {
            // The last of them may be a long line, and another than the one that was waited for.
            input.line_begins();
        }
        (taken, (shown > 0).then_some(()))
    }
}
