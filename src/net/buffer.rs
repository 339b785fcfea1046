//! Read and write buffers.

use std::boxed::Box;
use std::cell::Cell;
use std::io;
use std::ops::{Deref, Range};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec::Vec;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Size of the first allocation for output, in bytes: enough for a few short replies.
const FIRST_SIZE: usize = 512;

/// A growable buffer. An empty buffer holds no memory: an idle connection costs a null pointer.
#[derive(Debug, Default)]
pub(super) struct Buffer(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    bytes: BytesMut,
    /// Lower bound of the size of the allocation. The capacity of `bytes` does not include the
    /// bytes that were cut off at its front.
    allocated: usize,
}

impl Buffer {
    /// Returns the bytes for appending and cutting.
    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut BytesMut {
        match &mut self.0 {
            Some(held) => &mut held.bytes,
            none => Self::allocate(none),
        }
    }

    /// Returns the bytes for cutting, or `None` if the buffer holds no memory.
    #[inline]
    pub(super) fn allocated_mut(&mut self) -> Option<&mut BytesMut> {
        self.0.as_mut().map(|held| &mut held.bytes)
    }

    #[cold]
    fn allocate(none: &mut Option<Box<Held>>) -> &mut BytesMut {
        &mut none
            .insert(Box::new(Held { bytes: BytesMut::with_capacity(FIRST_SIZE), allocated: FIRST_SIZE }))
            .bytes
    }

    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        if let Some(held) = &mut self.0 {
            held.allocated = held.allocated();
            held.bytes.advance(count);
        }
    }

    /// Appends bytes. If the buffer has no space, allocates exactly as much as needed.
    pub(super) fn append(&mut self, more: &[u8]) {
        let Held { bytes, allocated } = &mut **self.0.get_or_insert_default();
        let has_space = bytes.capacity() - bytes.len() >= more.len();
        if !has_space && !bytes.try_reclaim(more.len()) {
            if bytes.is_empty() {
                *bytes = BytesMut::with_capacity(more.len());
                *allocated = 0;
            } else {
                bytes.reserve(more.len());
            }
        }
        bytes.extend_from_slice(more);
        *allocated = bytes.capacity().max(*allocated);
    }

    /// Discards the bytes and frees their memory.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Frees memory if the allocation is larger than about `times` the buffered bytes.
    pub(super) fn shrink(&mut self, times: usize) {
        let Some(held) = &mut self.0 else { return };
        if held.bytes.is_empty() {
            self.0 = None;
        } else if held.allocated() > times * held.bytes.len() + 64 {
            *self = Self::from(&held.bytes[..]);
        }
    }

    pub(super) fn into_bytes(self) -> BytesMut {
        self.0.map(|held| held.bytes).unwrap_or_default()
    }
}

impl Held {
    fn allocated(&self) -> usize {
        self.allocated.max(self.bytes.capacity())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |held| &held.bytes)
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::default();
        buffer.append(bytes);
        buffer
    }
}

/// A stream to read from.
pub(super) type ReadIo<'a> = &'a mut (dyn AsyncRead + Unpin + 'a);

/// Maximum number of bytes of one read. 128 KiB is twice the size that many peers write in one
/// call. One more byte avoids a second system call: Tokio asks the system again after a read that
/// has filled its buffer.
pub(super) const READ_SIZE: usize = 128 * 1024 + 1;

/// Space before the bytes of a read, for an unfinished line of earlier reads.
pub(super) const HEADROOM: usize = 4 * 1024;

std::thread_local! {
    /// The read buffer of this thread. Empty while a poll uses it, and before the first read. A
    /// thread-local, so that an idle connection needs no buffer of its own.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The read buffer of the thread, borrowed for one poll, and the range of its unread bytes.
/// Dropping it returns the buffer to the thread and discards the unread bytes.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    /// Empty, or [`HEADROOM`] bytes followed by the bytes of the last read, with capacity for a
    /// full read.
    memory: Vec<u8>,
    /// Range of the unread bytes. Always within `memory`.
    unread: Range<usize>,
}

impl ReadBuffer {
    /// Takes the buffer of the thread. A nested read through another connection allocates its own
    /// buffer.
    pub(crate) fn take() -> Self {
        Self { memory: BUFFER.take(), unread: 0..0 }
    }

    /// Returns the bytes that were read and not returned.
    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        &self.memory[self.unread.clone()]
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Marks `count` bytes as returned.
    pub(super) fn advance(&mut self, count: usize) {
        self.unread.start += count;
    }

    /// Discards the unread bytes, after they were copied elsewhere.
    pub(super) fn clear(&mut self) {
        self.unread = 0..0;
    }

    /// Inserts at most [`HEADROOM`] bytes before the unread bytes.
    pub(super) fn prepend(&mut self, bytes: &[u8]) {
        let start = self.unread.start - bytes.len();
        self.memory[start..self.unread.start].copy_from_slice(bytes);
        self.unread.start = start;
    }

    /// Reads at most `most` bytes once, after the unread bytes. There may be at most [`HEADROOM`]
    /// unread bytes. Returns the number of bytes read, or 0 at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        most: usize,
        io: ReadIo<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.memory.is_empty() {
            self.memory.reserve_exact(HEADROOM + READ_SIZE);
            self.memory.resize(HEADROOM, 0);
        }
        let start = HEADROOM - self.unread.len();
        self.memory.copy_within(self.unread.clone(), start);
        self.unread = start..HEADROOM;
        // The stream receives memory that is formally uninitialized. If it claims bytes that it has
        // not written, these are zeros, and never bytes of another connection of this thread.
        self.memory.truncate(HEADROOM);
        let mut space = (&mut self.memory).limit(most.min(READ_SIZE));
        loop {
            match ready!(poll_read_buf(Pin::new(&mut *io), cx, &mut space)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.unread.end += count;
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        BUFFER.set(core::mem::take(&mut self.memory));
    }
}
