//! Where the replies to lines that came together go.

use std::format;

use bytes::BytesMut;

use super::output::Output;
use crate::error::EncodeError;

/// So many replies are searched at once.
const TOGETHER: usize = 32;

/// Replies, of which each is a line, or is replaced by an error line.
pub(super) struct Queue<'a> {
    output: &'a mut Output,
    /// What is searched later begins here, and consists of `count` lines that end at `ends`.
    from: usize,
    ends: [usize; TOGETHER],
    count: usize,
    searches_later: bool,
    /// Not even an error line could be framed.
    refused: Option<EncodeError>,
}

impl<'a> Queue<'a> {
    pub(super) fn new(output: &'a mut Output) -> Self {
        let from = output.unsent();
        Self { output, from, ends: [0; TOGETHER], count: 0, searches_later: false, refused: None }
    }

    /// Where that is possible, many replies are searched at once for what must not be in them: it costs as much to begin as for one.
    pub(super) fn search_later(&mut self) {
        self.searches_later = self.output.encoder.searches_together();
    }

    /// The reply is what `write` appends, or, where that cannot be framed, an error line. Gives whether another one may come: not where
    /// it has [no room](Self::has_room_for), nor where not even the error line [can be framed](Self::refused).
    #[inline]
    pub(super) fn push(&mut self, write: impl FnOnce(&mut BytesMut)) -> bool {
        match self.try_push(write) {
            Ok(()) => self.has_room_for(0),
            Err(error) => {
                self.refused = Some(error);
                false
            }
        }
    }

    pub(super) fn refused(&mut self) -> Option<EncodeError> {
        self.refused.take()
    }

    #[inline(always)]
    fn try_push(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), EncodeError> {
        if !self.searches_later {
            return self.output.queue_written(write).or_else(|error| self.refuse(&error));
        }
        if let Err(error) = self.output.queue_unsearched(write) {
            self.search()?;
            self.refuse(&error)?;
            self.from = self.output.unsent();
            return Ok(());
        }
        self.ends[self.count] = self.output.unsent();
        self.count += 1;
        if self.count == TOGETHER { self.search() } else { Ok(()) }
    }

    /// What was pushed and not searched yet.
    fn search(&mut self) -> Result<(), EncodeError> {
        let (from, ends) = (self.from, self.ends);
        let ends = &ends[..core::mem::take(&mut self.count)];
        if ends.is_empty() {
            return Ok(());
        }
        if self.output.holds_terminator(from) {
            self.push_again(from, ends)?;
        } else {
            self.output.terminate(ends);
        }
        self.from = self.output.unsent();
        Ok(())
    }

    /// One by one: a terminator is in one of them.
    #[cold]
    fn push_again(&mut self, from: usize, ends: &[usize]) -> Result<(), EncodeError> {
        let lines = self.output.unqueue(from, ends.len());
        let terminator = self.output.encoder.terminator().len();
        let mut start = 0;
        for end in ends.iter().map(|end| end - from) {
            self.output.queue(&lines[start..end - terminator]).or_else(|error| self.refuse(&error))?;
            start = end;
        }
        Ok(())
    }

    #[cold]
    fn refuse(&mut self, error: &EncodeError) -> Result<(), EncodeError> {
        self.output.queue(format!("error: reply refused: {error}").as_bytes())
    }

    /// Lines and their terminators, which are known to be lines.
    pub(super) fn push_lines(&mut self, count: u64, write: impl FnOnce(&mut BytesMut)) {
        self.output.queue_lines(count, write);
    }

    /// Whether it [has room](Self::room) for so many bytes more.
    #[inline]
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.output.has_room_for(bytes)
    }

    /// How many bytes it takes, and another reply behind them.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.output.room()
    }

    #[inline]
    pub(super) fn max_length(&self) -> usize {
        self.output.encoder.max_length()
    }
}

/// Nothing stays in the output that was not searched, also where the next reply has panicked.
impl Drop for Queue<'_> {
    fn drop(&mut self) {
        let searched = self.search();
        debug_assert!(searched.is_ok(), "where errors cannot be framed, each reply is searched at once");
    }
}
