use bytes::BytesMut;

const MIN: usize = 8 * 1024;
const MAX: usize = 64 * 1024;

/// Steers what is read next. `Framed` reads into whatever room its buffer has left, one byte if it is one; so before a
/// decoder asks for more it makes room: 8 KiB, doubling to 64 KiB only while reads fill it. And it gives back the
/// allocation that a giant line has blown up.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// How much to make, `MIN..=MAX`.
    wanted: usize,
    /// What the buffer has to hold for the last read to have filled it; `None` once looked at.
    full: Option<usize>,
    /// The largest capacity seen since the allocation was last replaced: after lines were cut off its front, a buffer no
    /// longer shows how much memory it keeps alive.
    allocated: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { wanted: MIN, full: Some(MIN), allocated: 0 }
    }

    /// At the start of a decode: did the last read fill the room that it was given?
    #[inline]
    pub(super) fn look(&mut self, buffer: &BytesMut) {
        if let Some(full) = self.full.take() {
            self.wanted = if buffer.len() >= full { (self.wanted * 2).min(MAX) } else { MIN };
        }
    }

    /// At its end, when more bytes are needed.
    pub(super) fn make(&mut self, buffer: &mut BytesMut) {
        self.allocated = self.allocated.max(buffer.capacity());
        let needed = buffer.len() + self.wanted;
        if self.allocated > self.keep(buffer.len()) {
            self.replace(buffer, needed);
        } else if buffer.capacity() < needed && !buffer.try_reclaim(self.wanted) {
            // Lines still held elsewhere pin the allocation. Use up half of the room in it before the next one, so that
            // many short lines share what they pin.
            if buffer.capacity() - buffer.len() < self.wanted / 2 {
                buffer.reserve(self.wanted);
            }
        }
        if buffer.capacity() > self.keep(buffer.len()) {
            // `try_reclaim` and `reserve` have brought a giant line's allocation back.
            self.replace(buffer, needed);
        }
        self.allocated = self.allocated.max(buffer.capacity());
        self.full = Some(buffer.capacity().min(needed));
    }

    /// The largest allocation to hold on to: exactly the room while no line is under way, twice what is needed while one
    /// is, so that a growing line is moved as often as a growing `Vec`.
    fn keep(&self, held: usize) -> usize {
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
