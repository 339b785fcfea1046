use std::iter::FusedIterator;
use std::slice;
use std::vec::Vec;

use super::item::{Item, ItemKind};

/// Where the lines of a batch lie in its bytes, in order, never overlapping.
///
/// The first may be anything, of any length. The others are lines before [`Found::END`], and their places are small: there may
/// be thousands of them, and a single line needs no list.
#[derive(Clone)]
pub(super) struct Found {
    first: Line,
    others: Vec<Other>,
    /// What the `TooLong` ones among the others are longer than.
    max_length: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: ItemKind,
}

#[derive(Clone, Copy)]
struct Other {
    start: u32,
    end: u32,
    kind: OtherKind,
}

#[derive(Clone, Copy)]
enum OtherKind {
    Line,
    TooLong,
    Unterminated,
    BareTerminator,
}

impl Found {
    /// Where a batch ends at the latest that has more than one line.
    pub(super) const END: usize = u32::MAX as usize;

    /// With room for `others` more.
    pub(super) fn new(first: Item, max_length: usize, others: usize) -> Self {
        let first = Line { start: 0, end: first.content, kind: first.kind };
        Self { first, others: Vec::with_capacity(others), max_length }
    }

    /// An item, behind the others.
    #[inline]
    pub(super) fn push(&mut self, start: usize, end: usize, kind: ItemKind) {
        let kind = match kind {
            ItemKind::Line => OtherKind::Line,
            ItemKind::TooLong { .. } => OtherKind::TooLong,
            ItemKind::Unterminated => OtherKind::Unterminated,
            ItemKind::BareTerminator => OtherKind::BareTerminator,
            ItemKind::Block | ItemKind::Incomplete { .. } | ItemKind::Piece { .. } => {
                unreachable!("counted bytes come before the first line")
            }
        };
        self.others.push(Other { start: start as u32, end: end as u32, kind });
    }

    pub(super) fn len(&self) -> usize {
        1 + self.others.len()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<Line> {
        match at.checked_sub(1) {
            None => Some(self.first),
            Some(at) => self.others.get(at).map(|other| other.line(self.max_length)),
        }
    }

    /// From the line number `from` on.
    pub(super) fn iter(&self, from: usize) -> FoundIter<'_> {
        FoundIter {
            first: (from == 0).then_some(self.first),
            others: self.others.get(from.saturating_sub(1)..).unwrap_or_default().iter(),
            max_length: self.max_length,
        }
    }
}

impl Other {
    #[inline(always)]
    fn line(self, max_length: usize) -> Line {
        // By itself, so that compilers do not jump through a table for every line.
        let kind = match matches!(self.kind, OtherKind::Line) {
            true => ItemKind::Line,
            false => self.bad(max_length),
        };
        Line { start: self.start as usize, end: self.end as usize, kind }
    }

    #[cold]
    fn bad(self, max_length: usize) -> ItemKind {
        match self.kind {
            OtherKind::Line => ItemKind::Line,
            OtherKind::TooLong => ItemKind::TooLong { max_length },
            OtherKind::Unterminated => ItemKind::Unterminated,
            OtherKind::BareTerminator => ItemKind::BareTerminator,
        }
    }
}

#[derive(Clone)]
pub(super) struct FoundIter<'a> {
    first: Option<Line>,
    others: slice::Iter<'a, Other>,
    max_length: usize,
}

impl Iterator for FoundIter<'_> {
    type Item = Line;

    #[inline]
    fn next(&mut self) -> Option<Line> {
        match self.first.take() {
            None => self.others.next().map(|other| other.line(self.max_length)),
            first => first,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.first.is_some()) + self.others.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for FoundIter<'_> {}
impl FusedIterator for FoundIter<'_> {}
