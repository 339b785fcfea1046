//! Calls the operations of a codec in any order between reads, and compares the results with the
//! oracle.

use bytes::BytesMut;
use lineframe::{BatchCodec, BlockError, FragmentCodec, LineCodec};

use super::oracle::Oracle;
use super::{Input, Scale, accounted, decode, item, longest_terminator, model};

pub fn run(data: &[u8]) {
    run_all(&mut Input::new(data, Scale::Small));
}

pub(super) fn run_all(input: &mut Input) {
    let Some(mut machine) = Machine::read(input) else { return };
    while machine.operate(input).is_some() {}
    machine.finish();
}

struct Machine {
    codec: LineCodec,
    buffer: BytesMut,
    oracle: Oracle,
    /// The largest length of the stream, in bytes.
    max_stream: usize,
}

impl Machine {
    fn read(input: &mut Input) -> Option<Self> {
        let model = input.model()?;
        let max_block_length = input.size()?;
        let codec = model::builder(&model).max_block_length(max_block_length).build();
        let oracle = Oracle::new(model, max_block_length);
        let max_stream = match input.scale {
            Scale::Small => 1024,
            Scale::Giant => 16 * 1024,
        };
        Some(Self { codec, buffer: BytesMut::new(), oracle, max_stream })
    }

    /// Runs the next operation of the input. Returns `None` at the end of the input.
    fn operate(&mut self, input: &mut Input) -> Option<()> {
        match input.byte()? % 16 {
            0..4 => self.feed(&input.chunk()?),
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
            12 => self.foreign(&input.chunk()?),
            13 => self.batch(),
            14 => self.text(input.byte()?),
            _ => self.fragments(),
        }
        self.check_accounted();
        Some(())
    }

    fn feed(&mut self, chunk: &[u8]) {
        if self.oracle.stream.len() + chunk.len() <= self.max_stream {
            self.buffer.extend_from_slice(chunk);
            self.oracle.stream.extend_from_slice(chunk);
        }
    }

    /// Decodes one item. Returns whether there was one.
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

    /// Checks the buffer when the codec needs more bytes. It must hold exactly the bytes after the
    /// last item. While the rest of a long line is skipped, it must hold at most part of a
    /// terminator.
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
        let oracle = &mut self.oracle;
        let is_pending = oracle.block.is_some();
        match self.codec.expect_bytes(count) {
            Ok(()) => {
                assert!(!is_pending && count <= oracle.max_block_length);
                oracle.block = Some(count);
            }
            Err(BlockError::Pending { asked, .. }) => assert!(is_pending && asked == count),
            Err(BlockError::TooLong { asked, max, .. }) => {
                assert!(!is_pending && asked > max);
                assert_eq!((asked, max), (count, oracle.max_block_length));
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Decodes to the end of the stream. The next byte fed starts another stream.
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

    /// Passes another buffer to the codec in the middle of a stream. The items are not specified,
    /// but each byte must be consumed once, and decoding must end.
    fn foreign(&mut self, bytes: &[u8]) {
        self.foreign_text(bytes);
        let mut buffer = BytesMut::from(bytes);
        let before = accounted(&self.codec.counters());
        // An item consumes at least one byte, except for an empty block and a block that the end of
        // the stream cuts.
        let mut items = bytes.len() + 1;
        for eof in [false, true] {
            while decode(&mut self.codec, &mut buffer, eof).is_some() {
                items = items.checked_sub(1).expect("decoding must end");
                let taken = accounted(&self.codec.counters()) - before;
                assert_eq!(taken, (bytes.len() - buffer.len()) as u64);
            }
        }
        assert!(buffer.is_empty());
        self.reset();
    }

    /// Checks that text that was checked in one buffer is never returned for lines of another
    /// buffer.
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

    /// Decodes `lines` lines as text, then continues with bytes.
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

    /// Decodes a copy of the stream in fragments, as if it ended here, and compares the result with
    /// the oracle.
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
