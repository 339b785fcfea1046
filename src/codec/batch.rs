use core::slice;
use std::fmt;
use std::iter::FusedIterator;
#[cfg(feature = "net")]
use std::sync::Arc;
use std::vec::Vec;

use bytes::{Buf, Bytes};
#[cfg(feature = "text")]
use simdutf8::{basic, compat};

use super::item::Item;
use crate::error::LineError;
use crate::scan::Kind;

/// One or more whole lines in order, including bad ones, returned by
/// [`BatchCodec`](crate::BatchCodec). Requires the feature `codec` (on by default).
///
/// A batch is owned and can be sent to another task. As an iterator it yields lines as `Bytes`.
/// [`iter`](Self::iter) and a loop over `&batch` yield slices, which is faster. All lines share the
/// read buffer, which stays in memory as long as one of them exists.
///
/// ```
/// use bytes::BytesMut;
/// use lineframe::BatchCodec;
/// use tokio_util::codec::Decoder;
///
/// let mut batch = BatchCodec::new().decode(&mut BytesMut::from("one\ntwo\n"))?.unwrap();
/// assert_eq!(batch.len(), 2);
/// assert_eq!(batch.next().unwrap().unwrap(), "one");
/// assert_eq!(batch.len(), 1);
/// # std::io::Result::Ok(())
/// ```
#[must_use = "a dropped batch loses its lines"]
#[derive(Clone)]
pub struct Batch {
    /// All bytes from the start of the first line to the end of the last one.
    bytes: Bytes,
    /// The positions of the lines in `bytes`. Never empty.
    places: Vec<Place>,
    /// The requested length, if the first line is a block.
    expected: usize,
    /// The number of lines that the iterator has returned. At most `places.len()`.
    next: usize,
    /// Shared with the connection that returned the batch.
    #[cfg(feature = "net")]
    token: Option<Arc<()>>,
}

/// The position of a line in a batch. Smaller than an [`Item`], because a batch can hold thousands
/// of lines.
#[derive(Clone)]
struct Place {
    kind: Kind,
    start: usize,
    /// At least `start`.
    content_end: usize,
}

impl Batch {
    /// Returns a batch of one line, with capacity for `capacity` lines.
    /// [`with_bytes`](Self::with_bytes) adds the bytes.
    pub(super) fn new(first: Item, capacity: usize) -> Self {
        let mut batch = Self {
            bytes: Bytes::new(),
            places: Vec::with_capacity(capacity),
            expected: first.expected,
            next: 0,
            #[cfg(feature = "net")]
            token: None,
        };
        batch.push(first);
        batch
    }

    /// Adds a line. Returns the number of lines.
    #[inline]
    pub(super) fn push(&mut self, Item { kind, start, content_end, .. }: Item) -> usize {
        self.places.push(Place { kind, start, content_end });
        self.places.len()
    }

    pub(super) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { bytes, ..self }
    }

    /// Iterates over the remaining lines as slices.
    ///
    /// The remaining lines are those that the batch itself, as an iterator, has not returned.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::BatchCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let batch = BatchCodec::new().decode(&mut BytesMut::from("one\ntwo\n"))?.unwrap();
    /// let lines: Vec<&[u8]> = batch.iter().collect::<Result<_, _>>().unwrap();
    /// assert_eq!(lines, [b"one", b"two"]);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter { batch: self, places: self.places().iter() }
    }

    /// Iterates over the remaining lines as text. Requires the feature `text`.
    ///
    /// A line that is not UTF-8 is a [`LineError::NotUtf8`]. All bytes of the batch are checked in
    /// one pass, and line by line only if they are not UTF-8.
    /// [`BatchCodec::counters`](crate::BatchCodec::counters) counts a line that is not UTF-8 as a
    /// good line, because the codec returns it before the check.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::BatchCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let batch = BatchCodec::new().decode(&mut BytesMut::from("one\ntwo\n"))?.unwrap();
    /// let lines: Vec<&str> = batch.text().collect::<Result<_, _>>().unwrap();
    /// assert_eq!(lines, ["one", "two"]);
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(feature = "text")]
    pub fn text(&self) -> impl Iterator<Item = Result<&str, LineError>> {
        let all = basic::from_utf8(&self.bytes).ok();
        self.places().iter().map(move |place| {
            let bytes = self.line(place)?;
            match all.and_then(|all| all.get(place.start..place.content_end)) {
                Some(text) => Ok(text),
                None => compat::from_utf8(bytes).map_err(|error| LineError::NotUtf8 {
                    line: self.bytes.slice(place.start..place.content_end),
                    valid_up_to: error.valid_up_to(),
                }),
            }
        })
    }

    /// Returns a line of [`iter`](Self::iter) as `Bytes`, without a copy.
    ///
    /// The result keeps the whole batch in memory. `Bytes::copy_from_slice(line)` does not.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::BatchCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let batch = BatchCodec::new().decode(&mut BytesMut::from("one\n"))?.unwrap();
    /// let line = batch.iter().next().unwrap().unwrap();
    /// assert_eq!(batch.slice_ref(line), "one");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if `line` is not a slice of this batch, like [`Bytes::slice_ref`].
    pub fn slice_ref(&self, line: &[u8]) -> Bytes {
        self.bytes.slice_ref(line)
    }

    /// Returns the bytes of the remaining lines as they were read, with their terminators.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use lineframe::BatchCodec;
    /// use tokio_util::codec::Decoder;
    ///
    /// let mut batch = BatchCodec::new().decode(&mut BytesMut::from("one\ntwo\n"))?.unwrap();
    /// batch.next();
    /// assert_eq!(batch.into_rest(), "two\n");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn into_rest(mut self) -> Bytes {
        let taken = self.places().first().map_or(self.bytes.len(), |place| place.start);
        self.bytes.advance(taken);
        self.bytes
    }

    /// Marks the batch and its later clones as returned by the connection that owns `token`.
    #[cfg(feature = "net")]
    pub(crate) fn with_token(self, token: &Arc<()>) -> Self {
        Self { token: Some(Arc::clone(token)), ..self }
    }

    /// Returns whether the connection that owns `token` returned this batch.
    #[cfg(feature = "net")]
    pub(crate) fn has_token(&self, token: &Arc<()>) -> bool {
        self.token.as_ref().is_some_and(|own| Arc::ptr_eq(own, token))
    }

    /// Iterates over the remaining lines: kind, content length and total length of each.
    #[cfg(feature = "net")]
    pub(super) fn untaken(&self) -> impl Iterator<Item = (Kind, usize, usize)> {
        let ends = self.places().iter().skip(1).map(|next| next.start).chain([self.bytes.len()]);
        let lines = self.places().iter().zip(ends);
        lines.map(|(line, end)| (line.kind, line.content_end - line.start, end - line.start))
    }

    /// Returns the positions of the remaining lines.
    fn places(&self) -> &[Place] {
        &self.places[self.next..]
    }

    #[inline(always)]
    fn line(&self, place: &Place) -> Result<&[u8], LineError> {
        if place.kind.is_bad() {
            self.bad_line(place)?;
        }
        Ok(&self.bytes[place.start..place.content_end])
    }

    #[cold]
    fn bad_line(&self, place: &Place) -> Result<Bytes, LineError> {
        self.owned_line(place)
    }

    #[inline]
    fn owned_line(&self, place: &Place) -> Result<Bytes, LineError> {
        LineError::check(place.kind, self.bytes.slice(place.start..place.content_end), self.expected)
    }
}

impl Iterator for Batch {
    type Item = Result<Bytes, LineError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let place = self.places.get(self.next)?;
        self.next += 1;
        Some(self.owned_line(place))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.places.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batch {}
impl FusedIterator for Batch {}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("lines", &self.len()).field("bytes", &self.bytes.len()).finish()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Result<&'a [u8], LineError>;
    type IntoIter = BatchIter<'a>;

    fn into_iter(self) -> BatchIter<'a> {
        self.iter()
    }
}

/// An iterator over the lines of a [`Batch`] as slices, returned by [`Batch::iter`]. Requires the
/// feature `codec` (on by default).
#[derive(Clone)]
pub struct BatchIter<'a> {
    batch: &'a Batch,
    places: slice::Iter<'a, Place>,
}

impl fmt::Debug for BatchIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchIter").field("lines", &self.len()).finish()
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<&'a [u8], LineError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.places.next().map(|place| self.batch.line(place))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl ExactSizeIterator for BatchIter<'_> {}
impl FusedIterator for BatchIter<'_> {}
