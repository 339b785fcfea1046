//! Memory for what is read and written.

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

/// The first allocation for output, in bytes: a few short replies.
const FIRST_SIZE: usize = 512;

/// Bytes in memory of their own. An empty one holds no memory: an idle connection costs a null
/// pointer.
#[derive(Debug, Default)]
pub(super) struct Buffer(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    bytes: BytesMut,
    /// The allocation has at least this size. `bytes` does not count what was cut off its front.
    allocated: usize,
}

impl Buffer {
    /// For appending and cutting.
    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut BytesMut {
        match &mut self.0 {
            Some(held) => &mut held.bytes,
            none => Self::allocate(none),
        }
    }

    /// For cutting. `None`: it holds no memory.
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

    /// Allocates exactly what is needed, if it has no memory that it can use.
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

    /// Drops the bytes and their memory.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Gives memory back if it has more than about `times` the bytes that it holds.
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

/// The most bytes that one read takes: twice what many peers write at once, and one byte more,
/// since Tokio asks the system again after a read that has filled its buffer.
pub(super) const READ_SIZE: usize = 128 * 1024 + 1;

/// Space before the bytes of a read, for an unfinished line of earlier reads.
pub(super) const HEADROOM: usize = 4 * 1024;

std::thread_local! {
    /// Empty while a poll uses it, and before the first read. A thread-local, so that an idle
    /// connection needs no buffer of its own.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The thread's read buffer, taken for one poll, and which bytes in it are not handed out yet.
/// Dropping it gives the buffer back to the thread; take the bytes out before.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    /// Empty; or [`HEADROOM`] bytes, those of the last read, and capacity for a whole read.
    memory: Vec<u8>,
    /// Always within `memory`. Empty, or one piece of the stream.
    unread: Range<usize>,
}

impl ReadBuffer {
    /// Takes the thread's buffer. If a read leads through another connection, that one allocates a
    /// buffer of its own.
    pub(crate) fn take() -> Self {
        Self { memory: BUFFER.take(), unread: 0..0 }
    }

    /// Bytes that were read and not handed out.
    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        &self.memory[self.unread.clone()]
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// `count` more bytes are handed out.
    pub(super) fn advance(&mut self, count: usize) {
        self.unread.start += count;
    }

    /// The unread bytes are in another place now.
    pub(super) fn clear(&mut self) {
        self.unread = 0..0;
    }

    /// Puts at most [`HEADROOM`] bytes before those of the last read.
    pub(super) fn prepend(&mut self, bytes: &[u8]) {
        let start = self.unread.start - bytes.len();
        self.memory[start..self.unread.start].copy_from_slice(bytes);
        self.unread.start = start;
    }

    /// Reads at most `most` bytes once, behind the unread bytes, of which there are at most
    /// [`HEADROOM`]. Returns how many bytes the read brought; 0 at the end of the stream.
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
        // The stream gets memory that counts as uninitialized. If it claims bytes that it has not
        // written, these are zeros, not what another connection of this thread has read.
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
