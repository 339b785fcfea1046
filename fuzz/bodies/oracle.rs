//! The model's lines one by one, as they are asked for while the stream still comes.

use super::longest_terminator;
use super::model::{Bad, Item, Model};

/// What comes next, worked out anew each time from all bytes that were fed.
#[derive(Clone)]
pub struct Oracle {
    pub model: Model,
    pub max_block_length: usize,
    pub stream: Vec<u8>,
    /// Where the line under way starts, or what stands before it.
    pub at: usize,
    /// That line was reported as too long.
    pub is_skipping: bool,
    pub skip: u64,
    pub block: Option<usize>,
    /// To be skipped behind the block.
    then_skip: u64,
    /// So many were given.
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
            let there = self.rest()[..expected.min(self.rest().len())].to_vec();
            let is_whole = there.len() == expected;
            if !is_whole && !eof {
                return None;
            }
            self.at += there.len();
            self.end_block();
            return Some(if is_whole { Ok(there) } else { Err(Bad::Incomplete(there, expected)) });
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

    /// Past the rest of a line that is too long, then past what is to be skipped. `false`: more is needed for that.
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

    /// What is left if nothing more comes and no line is too long, whole lines and a cut one. A block is a line.
    pub fn lines_to_the_end(mut self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut whole = Vec::new();
        while self.block.is_some() {
            match self.next(true) {
                Some(Ok(block)) => whole.push(block),
                Some(Err(Bad::Incomplete(bytes, _))) => return (whole, bytes),
                other => panic!("a block, not {other:?}"),
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
