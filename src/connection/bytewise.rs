//! Replies that are their lines with other bytes in them, which are made for many lines at once.

use std::ops::Range;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::queue::Queue;
use super::take::Shown;
use super::{Connection, Error};
use crate::codec::{ItemKind, Items};

/// So many bytes are mapped at a time, between which compilers see no other work.
const PIECE: usize = 64;

/// What becomes of each byte.
pub(crate) struct Bytewise<F> {
    map: F,
    /// What ends each line, where that is one byte, and where lines stay lines when it is mapped as all bytes are.
    terminator: Option<u8>,
}

impl<F: Fn(u8) -> u8> Bytewise<F> {
    pub(crate) fn new(map: F, connection: &mut Connection) -> Self {
        let is_only_of_itself = |made| (0..=u8::MAX).all(|byte| (map(byte) == made) == (byte == made));
        let terminator = connection.inner_mut().output.encoder.last_byte();
        // Behind another byte that became a CR, a `\n` would be read as a CRLF.
        let terminator = terminator.filter(|byte| is_only_of_itself(*byte) && is_only_of_itself(b'\r'));
        Self { map, terminator }
    }
}

impl Connection {
    /// Answers the lines that have come, until its replies have to wait for the peer: at least one line. `None` at the end.
    pub(crate) fn poll_bytewise(
        &mut self,
        cx: &mut Context<'_>,
        bytewise: &Bytewise<impl Fn(u8) -> u8>,
    ) -> Poll<Result<Option<()>, Error>> {
        self.poll_windows(cx, |output, Shown { walk, window, .. }| {
            let mut mapping = Mapping {
                bytes: window.bytes,
                bytewise,
                queue: Queue::new(output),
                run: 0..0,
                lines: 0,
                shown: 0,
            };
            let taken = walk.take_items(window, &mut mapping);
            mapping.end_run();
            (mapping.shown, taken, mapping.queue.refused())
        })
    }
}

/// The way through a window.
struct Mapping<'a, F> {
    bytes: &'a [u8],
    bytewise: &'a Bytewise<F>,
    queue: Queue<'a>,
    /// Lines, each with its terminator, that are not mapped yet.
    run: Range<usize>,
    lines: u64,
    shown: usize,
}

impl<F: Fn(u8) -> u8> Items for &mut Mapping<'_, F> {
    #[inline(always)]
    fn line(&mut self, start: usize, end: usize) -> bool {
        let is_of_run = end - start <= self.queue.max_length()
            && self.bytewise.terminator.is_some_and(|terminator| self.bytes.get(end) == Some(&terminator));
        if !is_of_run {
            return self.item(start, end, ItemKind::Line);
        }
        self.lines(start, end + 1, 1);
        self.queue.has_room_for(self.run.len())
    }

    #[inline]
    fn most_together(&self) -> usize {
        let room = self.queue.room().saturating_sub(self.run.len());
        if self.bytewise.terminator.is_some() { room.min(self.queue.max_length()) } else { 0 }
    }

    #[inline(always)]
    fn lines(&mut self, start: usize, end: usize, count: usize) {
        self.shown += count;
        if self.run.is_empty() {
            self.run = start..start;
        }
        // What is no line of a run ends it.
        debug_assert_eq!(self.run.end, start);
        self.run.end = end;
        self.lines += count as u64;
    }

    /// One that does not end as its reply does, and whatever else needs a look of its own.
    #[inline(never)]
    fn item(&mut self, start: usize, end: usize, kind: ItemKind) -> bool {
        self.shown += 1;
        self.end_run();
        let content = &self.bytes[start..end];
        self.queue.push(|reply| match kind.is_bad() {
            false => map_into(content, &self.bytewise.map, reply),
            true => reply.extend_from_slice(kind.reply(content).as_bytes()),
        })
    }
}

impl<F: Fn(u8) -> u8> Mapping<'_, F> {
    fn end_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let lines = &self.bytes[self.run.clone()];
        self.queue.push_lines(self.lines, |replies| map_into(lines, &self.bytewise.map, replies));
        (self.run.start, self.lines) = (self.run.end, 0);
    }
}

fn map_into(bytes: &[u8], map: impl Fn(u8) -> u8, into: &mut BytesMut) {
    into.reserve(bytes.len());
    let pieces = bytes.chunks_exact(PIECE);
    let rest = pieces.remainder();
    for piece in pieces.filter_map(|piece| piece.first_chunk::<PIECE>()) {
        into.extend_from_slice(&piece.map(&map));
    }
    let mut last = [0; PIECE];
    last[..rest.len()].copy_from_slice(rest);
    into.extend_from_slice(&last.map(map)[..rest.len()]);
}
