//! Whatever can be done with a codec between two reads, in any order, against a step-by-step reader of the model's lines.

use bytes::BytesMut;
use lineframe::{BatchCodec, FragmentCodec, LineCodec};

use super::model::{self, Bad, Item, Model};
use super::{Input, accounted, decode, item, longest_terminator};

/// A case takes in so much at most.
const MAX_STREAM: usize = 16 * 1024;

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let Some(mut machine) = Machine::read(&mut input) else { return };
    while machine.operate(&mut input).is_some() {}
    machine.finish();
}

struct Machine {
    codec: LineCodec,
    buffer: BytesMut,
    oracle: Oracle,
}

impl Machine {
    fn read(input: &mut Input) -> Option<Self> {
        let model = input.model()?;
        let max_block_length = input.size()?;
        let codec = model::builder(&model).max_block_length(max_block_length).build();
        let oracle = Oracle::new(model, max_block_length);
        Some(Self { codec, buffer: BytesMut::new(), oracle })
    }

    /// One operation of the input. `None`: there is none any more.
    fn operate(&mut self, input: &mut Input) -> Option<()> {
        match input.byte()? % 16 {
            0..4 => self.feed(&chunk(input)?),
            4 => _ = self.decode(false),
            5 | 6 => while self.decode(false) {},
            7 => self.expect_bytes(input.size()?),
            8 => {
                let count = input.size()? as u64;
                self.codec.skip_bytes(count);
                self.oracle.skip_bytes(count);
            }
            9 => {
                let limit = input.size()?;
                self.codec.set_max_length(limit);
                self.oracle.model.max_length = limit;
            }
            10 => self.finish(),
            11 => self.reset(),
            12 => self.foreign(&chunk(input)?),
            13 => self.batch(),
            14 => self.text(input.byte()?),
            _ => self.fragments(),
        }
        self.check_accounted();
        Some(())
    }

    fn feed(&mut self, chunk: &[u8]) {
        if self.oracle.stream.len() + chunk.len() <= MAX_STREAM {
            self.buffer.extend_from_slice(chunk);
            self.oracle.stream.extend_from_slice(chunk);
        }
    }

    /// Asks for one item; whether there was one.
    fn decode(&mut self, eof: bool) -> bool {
        let given = decode(&mut self.codec, &mut self.buffer, eof);
        let expected = self.oracle.next(eof);
        assert_eq!(given.as_ref().map(|given| item(&self.oracle.model, given)), expected);
        self.check_accounted();
        if given.is_none() {
            self.check_waiting();
        }
        given.is_some()
    }

    /// Exactly the bytes that wait for more are held; of the rest of a line that is skipped, at most part of a terminator.
    fn check_waiting(&self) {
        let rest = self.oracle.rest();
        if self.oracle.is_skipping {
            assert!(
                rest.ends_with(&self.buffer) && self.buffer.len() < longest_terminator(&self.oracle.model)
            );
        } else {
            assert_eq!(self.buffer, rest);
        }
    }

    fn check_accounted(&self) {
        let taken_in = self.oracle.stream.len();
        let counters = self.codec.counters();
        assert_eq!(accounted(&counters) + self.buffer.len() as u64, taken_in as u64, "{counters:?}");
        assert_eq!(
            counters.lines + counters.blocks + counters.bad_items(),
            self.oracle.items,
            "{counters:?}"
        );
    }

    fn expect_bytes(&mut self, count: usize) {
        let given = self.codec.expect_bytes(count).map_err(|bad| (bad.asked, bad.max));
        let oracle = &mut self.oracle;
        let max = if oracle.block.is_some() { 0 } else { oracle.max_block_length };
        if oracle.block.is_some() || count > max {
            assert_eq!(given, Err((count, max)));
        } else {
            assert_eq!(given, Ok(()));
            oracle.block = Some(count);
        }
    }

    /// To the end of the stream. The next byte fed is the first of another stream.
    fn finish(&mut self) {
        while self.decode(true) {}
        assert!(!self.decode(true) && self.buffer.is_empty());
    }

    fn reset(&mut self) {
        self.codec.reset();
        self.buffer = BytesMut::new();
        self.oracle = Oracle::new(self.oracle.model.clone(), self.oracle.max_block_length);
        assert_eq!(self.codec.counters(), Default::default());
    }

    /// In the middle of everything, a buffer with other bytes in it. What comes out is the caller's own doing, but each
    /// byte is still taken once, and the end is reached.
    fn foreign(&mut self, bytes: &[u8]) {
        self.foreign_text(bytes);
        let mut buffer = BytesMut::from(bytes);
        let before = accounted(&self.codec.counters());
        // An item takes a byte at least; but for a block of none, or one that the end of the stream cuts.
        let mut items = bytes.len() + 1;
        for eof in [false, true] {
            while decode(&mut self.codec, &mut buffer, eof).is_some() {
                items = items.checked_sub(1).expect("an end");
                let taken = accounted(&self.codec.counters()) - before;
                assert_eq!(taken, (bytes.len() - buffer.len()) as u64);
            }
        }
        assert!(buffer.is_empty());
        self.reset();
    }

    /// Text that was checked in the one buffer is not given for lines of the other.
    #[cfg(feature = "text")]
    fn foreign_text(&self, bytes: &[u8]) {
        let mut lines = self.codec.clone();
        let mut texts = lineframe::TextCodec::from(self.codec.clone());
        let (mut for_lines, mut for_texts) = (self.buffer.clone(), self.buffer.clone());
        let mut next = |for_lines: &mut BytesMut, for_texts: &mut BytesMut, eof| {
            let line = decode(&mut lines, for_lines, eof);
            let text = decode(&mut texts, for_texts, eof);
            let text =
                text.map(|text| super::text_item(&self.oracle.model, &text.map(|text| text.into_bytes())));
            assert_eq!(text, line.as_ref().map(|line| item(&self.oracle.model, line)));
            line.is_some()
        };
        next(&mut for_lines, &mut for_texts, false);
        (for_lines, for_texts) = (bytes.into(), bytes.into());
        for eof in [false, true] {
            while next(&mut for_lines, &mut for_texts, eof) {}
        }
    }

    #[cfg(not(feature = "text"))]
    fn foreign_text(&self, _bytes: &[u8]) {}

    fn batch(&mut self) {
        let mut codec = BatchCodec::from(std::mem::take(&mut self.codec));
        let batch = decode(&mut codec, &mut self.buffer, false);
        self.codec = codec.into();
        let Some(batch) = batch else {
            assert_eq!(self.oracle.next(false), None);
            return self.check_waiting();
        };
        let mut lines = 0;
        for line in batch {
            assert_eq!(Some(item(&self.oracle.model, &line)), self.oracle.next(false));
            lines += 1;
        }
        assert!(lines > 0);
    }

    /// So many lines as text, then bytes again.
    #[cfg(feature = "text")]
    fn text(&mut self, lines: u8) {
        let mut codec = lineframe::TextCodec::from(std::mem::take(&mut self.codec));
        for _ in 0..lines {
            let given =
                decode(&mut codec, &mut self.buffer, false).map(|text| text.map(|text| text.into_bytes()));
            let given = given.map(|given| super::text_item(&self.oracle.model, &given));
            assert_eq!(given, self.oracle.next(false));
            if given.is_none() {
                break;
            }
        }
        self.codec = codec.into();
    }

    #[cfg(not(feature = "text"))]
    fn text(&mut self, _lines: u8) {}

    /// What the stream would be if it ended here and were read to its end in fragments.
    fn fragments(&self) {
        let mut codec = FragmentCodec::from(self.codec.clone());
        let mut buffer = self.buffer.clone();
        let mut whole = Vec::new();
        let mut joined = Vec::new();
        for eof in [false, true] {
            while let Some(fragment) = decode(&mut codec, &mut buffer, eof) {
                joined.extend_from_slice(&fragment.bytes);
                if fragment.is_last {
                    whole.push(std::mem::take(&mut joined));
                }
            }
        }
        assert!(buffer.is_empty());
        assert_eq!((whole, joined), self.oracle.clone().lines_to_the_end());
    }
}

/// Bytes to be fed: up to 31, many times over or once.
fn chunk(input: &mut Input) -> Option<Vec<u8>> {
    let header = input.byte()?;
    let times = [1, 1, 1, 1, 2, 16, 64, 512][usize::from(header >> 5)];
    Some(input.bytes(usize::from(header & 31))?.repeat(times))
}

/// What comes next, worked out anew each time from all bytes that were fed.
#[derive(Clone)]
struct Oracle {
    model: Model,
    max_block_length: usize,
    stream: Vec<u8>,
    /// Where the line under way starts, or what stands before it.
    at: usize,
    /// That line was reported as too long.
    is_skipping: bool,
    skip: u64,
    block: Option<usize>,
    /// To be skipped behind the block.
    then_skip: u64,
    /// So many were given.
    items: u64,
}

impl Oracle {
    fn new(model: Model, max_block_length: usize) -> Self {
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

    fn rest(&self) -> &[u8] {
        &self.stream[self.at..]
    }

    fn skip_bytes(&mut self, count: u64) {
        let skip = if self.block.is_some() { &mut self.then_skip } else { &mut self.skip };
        *skip = skip.saturating_add(count);
    }

    fn next(&mut self, eof: bool) -> Option<Item> {
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
    fn skip_ahead(&mut self, eof: bool) -> bool {
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
    fn lines_to_the_end(mut self) -> (Vec<Vec<u8>>, Vec<u8>) {
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
