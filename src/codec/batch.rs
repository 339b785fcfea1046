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

/// Whole lines in order, including bad ones: at least one. [`BatchCodec`](crate::BatchCodec) returns it.
///
/// It is owned, so it can go to another task. As an iterator it yields its lines as [`Bytes`];
/// [`iter`](Self::iter), or `for line in &batch`, yields slices, which is faster. All lines share the read
/// buffer, which stays in memory as long as one of them does.
#[must_use = "the lines in it have been read, and are not returned again"]
#[derive(Clone)]
pub struct Batch {
    /// From the first line to the end of the last one, with everything between.
    bytes: Bytes,
    /// Where the lines are in `bytes`. Never empty.
    places: Vec<Place>,
    /// The number of bytes asked for, if the first line is a block.
    expected: usize,
    /// The number of lines taken. Always at most their number.
    next: usize,
    /// Shared with the connection that returned the batch.
    #[cfg(feature = "net")]
    token: Option<Arc<()>>,
}

/// Where a line lies in the bytes of its batch, which may have thousands of them: smaller than an [`Item`].
#[derive(Clone)]
struct Place {
    kind: Kind,
    start: usize,
    /// At least `start`.
    content_end: usize,
}

impl Batch {
    /// Returns a batch of one line, with memory for `capacity` lines, and without the bytes.
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

    /// Adds a line, and returns the number of lines.
    #[inline]
    pub(super) fn push(&mut self, Item { kind, start, content_end, .. }: Item) -> usize {
        self.places.push(Place { kind, start, content_end });
        self.places.len()
    }

    pub(super) fn with_bytes(self, bytes: Bytes) -> Self {
        Self { bytes, ..self }
    }

    /// Iterates over the lines that were not taken yet, as slices.
    pub fn iter(&self) -> BatchIter<'_> {
        BatchIter { batch: self, places: self.places().iter() }
    }

    /// Iterates over the lines that were not taken yet, as text. A line that is not UTF-8 is a
    /// [`LineError::NotUtf8`].
    ///
    /// All bytes of the batch are checked together, and line by line only if they are not UTF-8.
    /// [`BatchCodec::counters`](crate::BatchCodec::counters) counts a line that is not UTF-8 as a good one,
    /// because the codec returned it before text was asked for.
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

    /// Returns a line of [`iter`](Self::iter) as `Bytes`, without a copy. It keeps the whole batch in memory;
    /// `Bytes::copy_from_slice` does not.
    ///
    /// # Panics
    ///
    /// If `line` is not a slice of this batch, as [`Bytes::slice_ref`].
    pub fn slice_ref(&self, line: &[u8]) -> Bytes {
        self.bytes.slice_ref(line)
    }

    /// Returns the bytes of the lines that were not taken, as they were read, with their terminators.
    pub fn into_rest(mut self) -> Bytes {
        let taken = self.places().first().map_or(self.bytes.len(), |place| place.start);
        self.bytes.advance(taken);
        self.bytes
    }

    /// Marks the batch and its clones as from the connection that owns `token`, which they then share.
    #[cfg(feature = "net")]
    pub(crate) fn with_token(self, token: &Arc<()>) -> Self {
        Self { token: Some(Arc::clone(token)), ..self }
    }

    /// Returns whether the batch is from the connection that owns `token`.
    #[cfg(feature = "net")]
    pub(crate) fn has_token(&self, token: &Arc<()>) -> bool {
        self.token.as_ref().is_some_and(|own| Arc::ptr_eq(own, token))
    }

    /// Iterates over the lines that were not taken: the kind, and the bytes of content and in total.
    #[cfg(feature = "net")]
    pub(super) fn untaken(&self) -> impl Iterator<Item = (Kind, usize, usize)> {
        let ends = self.places().iter().skip(1).map(|next| next.start).chain([self.bytes.len()]);
        let lines = self.places().iter().zip(ends);
        lines.map(|(line, end)| (line.kind, line.content_end - line.start, end - line.start))
    }

    /// Returns the lines that were not taken.
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

/// The lines of a [`Batch`] as slices: [`Batch::iter`].
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
