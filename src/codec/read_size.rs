use bytes::BytesMut;

const MIN: usize = 8 * 1024;
const MAX: usize = 64 * 1024;

/// Sizes the buffer for the next read of a `Framed`.
///
/// `Framed` reads into whatever space its buffer has left, even if that is one byte. So a decoder that
/// needs more bytes reserves space first: 8 KiB, doubling to 64 KiB only while reads fill it. It also frees
/// the allocation that a giant line has grown.
#[derive(Clone, Debug)]
pub(super) struct ReadSize {
    /// The space for the next read, `MIN..=MAX`.
    wanted: usize,
    /// The buffer length at which the last read has filled its space; `None` once compared.
    full: Option<usize>,
    /// The largest capacity seen since the allocation was last replaced. After lines were cut off its
    /// front, the buffer's own capacity no longer shows how much memory it keeps alive.
    allocated: usize,
}

impl ReadSize {
    pub(super) fn new() -> Self {
        Self { wanted: MIN, full: Some(MIN), allocated: 0 }
    }

    /// Adapts to the last read. Called first in each decode.
    #[inline]
    pub(super) fn adapt(&mut self, buffer: &BytesMut) {
        if let Some(full) = self.full.take() {
            self.wanted = if buffer.len() >= full { (self.wanted * 2).min(MAX) } else { MIN };
        }
    }

    /// Reserves space for the next read. Called when a decode needs more bytes.
    pub(super) fn reserve(&mut self, buffer: &mut BytesMut) {
        self.allocated = self.allocated.max(buffer.capacity());
        let needed = buffer.len() + self.wanted;
        if self.allocated > self.max_capacity(buffer.len()) {
            self.replace(buffer, needed);
        } else if buffer.capacity() < needed && !buffer.try_reclaim(self.wanted) {
            // Lines still held elsewhere pin the allocation. Use up half of its space before allocating
            // again, so that many short lines share what they pin.
            if buffer.capacity() - buffer.len() < self.wanted / 2 {
                buffer.reserve(self.wanted);
            }
        }
        if buffer.capacity() > self.max_capacity(buffer.len()) {
            // `try_reclaim` or `reserve` has brought a giant line's allocation back.
            self.replace(buffer, needed);
        }
        self.allocated = self.allocated.max(buffer.capacity());
        self.full = Some(buffer.capacity().min(needed));
    }

    /// Returns the largest allocation to keep: between lines the space for one read; within a line twice
    /// what is needed, so that a growing line is moved as rarely as a growing `Vec`.
    fn max_capacity(&self, held: usize) -> usize {
        match held {
            0 => self.wanted,
            held => 2 * (held + self.wanted),
        }
    }

    fn replace(&mut self, buffer: &mut BytesMut, capacity: usize) {
        let mut fresh = BytesMut::with_capacity(capacity);
        fresh.extend_from_slice(buffer);
        *buffer = fresh;
        self.allocated = 0;
    }
}
