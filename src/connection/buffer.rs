use std::boxed::Box;
use std::cell::Cell;
use std::ops::Deref;

use bytes::{Buf, BytesMut};

/// Bytes in memory of their own, which is there only while there are any: an idle connection has a pointer to nothing.
#[derive(Debug, Default)]
pub(super) struct Buffer(Option<Box<Held>>);

#[derive(Debug, Default)]
struct Held {
    bytes: BytesMut,
    /// Their allocation has at least so many.
    allocated: usize,
}

/// More than this is not kept for others: a burst of replies and one long one.
const MOST_SPARE: usize = 128 * 1024;

std::thread_local! {
    /// Memory that was [left](Buffer::leave).
    static SPARE: Cell<Option<Box<Held>>> = const { Cell::new(None) };
}

impl Buffer {
    /// To add to them, and to cut from them.
    #[inline]
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        match &mut self.0 {
            Some(held) => &mut held.bytes,
            none => Self::begin(none),
        }
    }

    /// Where there are any.
    #[inline]
    pub(super) fn bytes_there(&mut self) -> Option<&mut BytesMut> {
        self.0.as_mut().map(|held| &mut held.bytes)
    }

    /// To add to them, for little time: where there are none, in memory that another one of this thread has left.
    #[inline]
    pub(super) fn spare_bytes(&mut self) -> &mut BytesMut {
        if self.0.is_none() {
            self.0 = SPARE.take();
        }
        self.bytes()
    }

    /// Nothing is in them any more. Their memory is for the next one of this thread that has something to add to.
    pub(super) fn leave(&mut self) {
        let Some(mut held) = self.0.take() else { return };
        held.bytes.clear();
        // Back to where the memory begins.
        _ = held.bytes.try_reclaim(held.allocated);
        if held.most_allocated() <= MOST_SPARE {
            SPARE.set(Some(held));
        }
    }

    #[cold]
    fn begin(none: &mut Option<Box<Held>>) -> &mut BytesMut {
        &mut none.insert(Box::default()).bytes
    }

    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        if let Some(held) = &mut self.0 {
            // What is before the bytes is no part of their capacity.
            held.allocated = held.most_allocated();
            held.bytes.advance(count);
        }
    }

    pub(super) fn append(&mut self, more: &[u8]) {
        let Held { bytes, allocated } = &mut **self.0.get_or_insert_default();
        let has_room = bytes.capacity() - bytes.len() >= more.len();
        if !has_room && !bytes.try_reclaim(more.len()) {
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

    /// In little more memory than so many times what they need.
    pub(super) fn shrink(&mut self, times: usize) {
        let Some(held) = &mut self.0 else { return };
        if held.bytes.is_empty() {
            self.0 = None;
        } else if held.most_allocated() > times * held.bytes.len() + 64 {
            *self = Self::from(&held.bytes[..]);
        }
    }

    pub(super) fn into_bytes(self) -> BytesMut {
        self.0.map(|held| held.bytes).unwrap_or_default()
    }
}

impl Held {
    fn most_allocated(&self) -> usize {
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
