use bytes::BytesMut;

const MIN: usize = 8 * 1024;
const MAX: usize = 64 * 1024;

/// Chooses the buffer size for the next read of a `Framed`.
///
/// `Framed` reads into the free space of its buffer, even if that is one byte. A decoder that needs
/// more bytes therefore reserves space first: 8 KiB, doubling to 64 KiB only while reads fill it.
/// This type also frees an allocation that a very long line has grown.
#[derive(Clone, Debug)]
pub(super) struct ReadSize {
    /// The space for the next read, `MIN..=MAX`.
    wanted: usize,
    /// The buffer length at which the last read has filled its space. `None` after the comparison.
    full: Option<usize>,
    /// The largest capacity since the allocation was last replaced. After lines were split off the
    /// front, the capacity of the buffer no longer shows how much memory it keeps alive.
    allocated: usize,
}

impl ReadSize {
    pub(super) fn new() -> Self {
        Self { wanted: MIN, full: Some(MIN), allocated: 0 }
    }

    /// Adapts to the size of the last read. Must be called first in each decode.
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
            // Lines in use elsewhere pin the allocation. Allocate again only if less than half of
            // the wanted space is left, so that many short lines share one allocation.
            if buffer.capacity() - buffer.len() < self.wanted / 2 {
                buffer.reserve(self.wanted);
            }
        }
        if buffer.capacity() > self.max_capacity(buffer.len()) {
            // `try_reclaim` or `reserve` has recovered the allocation of a very long line.
            self.replace(buffer, needed);
        }
        self.allocated = self.allocated.max(buffer.capacity());
        self.full = Some(buffer.capacity().min(needed));
    }

    /// Returns the largest capacity to keep. Between lines, this is the space for one read. Within
    /// a line, it is twice the needed space, so that a growing line is moved as rarely as a growing
    /// `Vec`.
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
