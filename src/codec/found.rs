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
    first_kind: ItemKind,
    others: Vec<Other>,
    /// What the `TooLong` ones among the others are longer than.
    max_length: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy)]
struct Other {
    start: u32,
    end: u32,
    kind: Kind,
}

/// A byte, so that a line that is looked at stays in registers. What else is known of each kind is said once: [`Found::kind`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Line,
    TooLong,
    Unterminated,
    BareTerminator,
    /// Whatever the first is that is no line.
    First,
}

impl Found {
    /// Where a batch ends at the latest that has more than one line.
    pub(super) const END: usize = u32::MAX as usize;

    /// With room for `others` more.
    pub(super) fn new(first: Item, max_length: usize, others: usize) -> Self {
        let kind = if first.kind == ItemKind::Line { Kind::Line } else { Kind::First };
        Self {
            first: Line { start: 0, end: first.content, kind },
            first_kind: first.kind,
            others: Vec::with_capacity(others),
            max_length,
        }
    }

    /// An item, behind the others.
    #[inline]
    pub(super) fn push(&mut self, start: usize, end: usize, kind: ItemKind) {
        let kind = match kind {
            ItemKind::Line => Kind::Line,
            ItemKind::TooLong { .. } => Kind::TooLong,
            ItemKind::Unterminated => Kind::Unterminated,
            ItemKind::BareTerminator => Kind::BareTerminator,
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
            Some(at) => self.others.get(at).map(|other| other.line()),
        }
    }

    /// From the line number `from` on.
    pub(super) fn iter(&self, from: usize) -> FoundIter<'_> {
        FoundIter {
            first: (from == 0).then_some(self.first),
            others: self.others.get(from.saturating_sub(1)..).unwrap_or_default().iter(),
        }
    }

    /// With all that is known of it.
    pub(super) fn kind(&self, kind: Kind) -> ItemKind {
        match kind {
            Kind::Line => ItemKind::Line,
            Kind::TooLong => ItemKind::TooLong { max_length: self.max_length },
            Kind::Unterminated => ItemKind::Unterminated,
            Kind::BareTerminator => ItemKind::BareTerminator,
            Kind::First => self.first_kind,
        }
    }
}

impl Other {
    #[inline(always)]
    fn line(self) -> Line {
        Line { start: self.start as usize, end: self.end as usize, kind: self.kind }
    }
}

#[derive(Clone)]
pub(super) struct FoundIter<'a> {
    first: Option<Line>,
    others: slice::Iter<'a, Other>,
}

impl Iterator for FoundIter<'_> {
    type Item = Line;

    #[inline]
    fn next(&mut self) -> Option<Line> {
        match self.first.take() {
            None => self.others.next().map(|other| other.line()),
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
