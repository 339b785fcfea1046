use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};

use bytes::BytesMut;

/// What a handler of [`reply_into`](super::reply_into) answers a line with: empty at first, to be appended to as to a `Vec`.
///
/// It is the end of what the connection is to send, and nothing is copied any more. The terminator comes behind it once the handler
/// has returned; whether it can be framed is looked at then.
///
/// A function that writes replies needs no connection to be tested:
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::Reply;
///
/// fn upper(line: &[u8], reply: &mut Reply<'_>) {
///     reply.extend_from_slice(line);
///     reply.make_ascii_uppercase();
/// }
///
/// let mut bytes = BytesMut::from("before, ");
/// upper(b"reply", &mut Reply::from(&mut bytes));
/// assert_eq!(bytes, "before, REPLY");
/// ```
pub struct Reply<'a> {
    bytes: &'a mut BytesMut,
    start: usize,
}

impl Reply<'_> {
    /// Appends bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    /// Makes room for so many bytes more, which then need no allocation.
    ///
    /// # Panics
    ///
    /// Where no memory can be that large, as in `Vec::reserve`.
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Keeps the first `length` bytes, where there are more.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(self.start.saturating_add(length));
    }

    /// Back to an empty reply.
    #[inline]
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}

/// An empty reply behind what is there.
impl<'a> From<&'a mut BytesMut> for Reply<'a> {
    #[inline]
    fn from(bytes: &'a mut BytesMut) -> Self {
        let start = bytes.len();
        Self { bytes, start }
    }
}

impl Deref for Reply<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Reply<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl Extend<u8> for Reply<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.bytes.extend(bytes);
    }
}

impl<'b> Extend<&'b u8> for Reply<'_> {
    fn extend<I: IntoIterator<Item = &'b u8>>(&mut self, bytes: I) {
        self.bytes.extend(bytes);
    }
}

/// Never fails. For `write!` of bytes.
impl io::Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Never fails. For `write!` of text.
impl fmt::Write for Reply<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
