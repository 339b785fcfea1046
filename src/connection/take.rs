//! How what was read is handed over, and what the other side of the connection does meanwhile.

use std::task::{Context, Poll};

#[cfg(feature = "server")]
use tokio::time::Instant;

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

    /// Gives also how many of `bytes` were taken, which are all that has been read, the last of them just now.
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
pub(super) struct InPlace<F>(pub(super) F);

/// Bytes, and who finds the lines in them.
#[cfg(feature = "server")]
pub(super) struct Shown<'a> {
    pub(super) walk: &'a mut Walk,
    pub(super) window: Window<'a>,
    /// When it is, where they have just been read.
    pub(super) now: Option<Instant>,
}

#[cfg(feature = "server")]
impl<F> InPlace<F> {
    fn show<U>(
        &mut self,
        input: &mut Input,
        unsent: &mut U,
        bytes: &[u8],
        now: Option<Instant>,
    ) -> (usize, Option<()>)
    where
        F: FnMut(&mut U, Shown<'_>) -> (usize, usize),
    {
        let window = Window { bytes, eof: input.is_at_eof, most_bad: input.max_bad_lines };
        let (shown, taken) = (self.0)(unsent, Shown { walk: &mut input.walk, window, now });
        if shown > 1 {
            // The last of them may be a long line, and another than the one that was waited for.
            input.line_begins();
        }
        (taken, (shown > 0).then_some(()))
    }
}

#[cfg(feature = "server")]
impl<U, F: FnMut(&mut U, Shown<'_>) -> (usize, usize)> Take<U, ()> for InPlace<F> {
    const IN_PLACE: bool = true;

    fn buffered(&mut self, input: &mut Input, unsent: &mut U) -> Option<()> {
        if input.buffer.is_empty() && !input.is_at_eof && !input.walk.is_ahead() {
            // There is no line in nothing, and a walk through it costs as much as one through a line.
            return None;
        }
        let mut buffer = core::mem::take(&mut input.buffer);
        let (taken, item) = self.show(input, unsent, &buffer, None);
        buffer.advance(taken);
        input.buffer = buffer;
        item
    }

    fn in_place(&mut self, input: &mut Input, unsent: &mut U, bytes: &[u8]) -> (usize, Option<()>) {
        let now = input.read_at;
        self.show(input, unsent, bytes, now)
    }
}
