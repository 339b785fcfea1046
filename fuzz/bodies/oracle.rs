//! A step-by-step version of the model: returns items while the stream is still arriving.

use super::longest_terminator;
use super::model::{Bad, Item, Model};

/// The expected items, computed again at each step from all bytes received so far.
#[derive(Clone)]
pub struct Oracle {
    pub model: Model,
    pub max_block_length: usize,
    pub stream: Vec<u8>,
    /// The start of the current line, or of the bytes to skip and the block before that line.
    pub at: usize,
    /// Whether the current line was reported as too long.
    pub is_skipping: bool,
    pub skip: u64,
    pub block: Option<usize>,
    /// The number of bytes to skip after the block.
    then_skip: u64,
    /// The number of items returned.
    pub items: u64,
}

impl Oracle {
    pub fn new(model: Model, max_block_length: usize) -> Self {
        let stream = Vec::new();
        Self {
            model,
            max_block_length,
            stream,
            at: 0,
            is_skipping: false,
            skip: 0,
            block: None,
            then_skip: 0,
            items: 0,
        }
    }

    pub fn rest(&self) -> &[u8] {
        &self.stream[self.at..]
    }

    pub fn skip_bytes(&mut self, count: u64) {
        let skip = if self.block.is_some() { &mut self.then_skip } else { &mut self.skip };
        *skip = skip.saturating_add(count);
    }

    pub fn next(&mut self, eof: bool) -> Option<Item> {
        let item = self.find_next(eof)?;
        self.items += 1;
        Some(item)
    }

    fn find_next(&mut self, eof: bool) -> Option<Item> {
        if self.block == Some(0) {
            self.end_block();
            return Some(Ok(Vec::new()));
        }
        if !self.skip_ahead(eof) {
            return None;
        }
        if let Some(expected) = self.block {
            let received = self.rest()[..expected.min(self.rest().len())].to_vec();
            let is_whole = received.len() == expected;
            if !is_whole && !eof {
                return None;
            }
            self.at += received.len();
            self.end_block();
            return Some(if is_whole { Ok(received) } else { Err(Bad::Incomplete(received, expected)) });
        }
        let rest = self.rest();
        let is_terminated = self.model.first_line(rest).is_some();
        let over = self.model.max_length.saturating_add(longest_terminator(&self.model));
        if !is_terminated && !eof && rest.len() < over {
            return None;
        }
        let (item, taken) = self.model.first_item(rest)?;
        if is_terminated || eof {
            self.at += taken;
        } else {
            self.is_skipping = true;
        }
        Some(item)
    }

    /// Skips the rest of a line that is too long, then the bytes of `skip_bytes`. Returns `false`
    /// if that needs more bytes.
    pub fn skip_ahead(&mut self, eof: bool) -> bool {
        if self.is_skipping {
            let rest = self.rest();
            match self.model.first_line(rest) {
                Some((content, terminator)) => self.at += content + terminator,
                None if eof => self.at = self.stream.len(),
                None => return false,
            }
            self.is_skipping = false;
        }
        let count = self.rest().len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.at += count;
        self.skip -= count as u64;
        if eof {
            self.skip = 0;
        }
        self.skip == 0
    }

    fn end_block(&mut self) {
        self.block = None;
        self.skip = self.skip.saturating_add(std::mem::take(&mut self.then_skip));
    }

    /// Returns the remaining whole lines and the cut line at the end, if the stream ends here and
    /// no line is too long. A block counts as a line.
    pub fn lines_to_the_end(mut self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut whole = Vec::new();
        while self.block.is_some() {
            match self.next(true) {
                Some(Ok(block)) => whole.push(block),
                Some(Err(Bad::Incomplete(bytes, _))) => return (whole, bytes),
                other => panic!("expected a block, got {other:?}"),
            }
        }
        self.skip_ahead(true);
        while let Some((content, terminator)) = self.model.first_line(self.rest()) {
            whole.push(self.rest()[..content].to_vec());
            self.at += content + terminator;
        }
        (whole, self.rest().to_vec())
    }
}
