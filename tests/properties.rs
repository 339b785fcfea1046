//! Random streams, cut at random, compared with the model: the items and counters of each codec,
//! its memory, and the lines that its encoder accepts.

mod model;

use bytes::{Bytes, BytesMut};
use lineframe::{
    BatchCodec, CodecCounters, EncodeError, Fragment, FragmentCodec, LineCodec, LineError, TextCodec,
};
use model::{Ask, Bad, Item, Kind, Model};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

const READ: usize = 64 * 1024;

/// Generates numbers from 0 up; every bit length is equally likely.
fn log_uniform(bits: u32) -> impl Strategy<Value = usize> + Clone {
    (0..=bits).prop_flat_map(|bits| 0..1_usize << bits)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Newline),
        1 => Just(Kind::Lf),
        3 => Just(Kind::CrLf),
        1 => prop_oneof![Just(0), Just(b'\n'), Just(0xa9)].prop_map(Kind::Byte),
        2 => vec(prop::sample::select(b"\r\n\0a\xa9".to_vec()), 1..6).prop_map(Kind::AnyOf),
        2 => vec(prop::sample::select(b"ab\r\n".to_vec()), 1..=64).prop_map(Kind::Sequence),
        1 => vec(prop::sample::select(b"ab".to_vec()), 1..4).prop_map(Kind::Sequence),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    let max_length = prop_oneof![20 => log_uniform(17), 1 => Just(usize::MAX)];
    (kind(), max_length, any::<bool>()).prop_map(|(kind, max_length, deliver)| Model {
        kind,
        max_length,
        deliver,
    })
}

/// A repeated letter. Long streams of runs are fast to generate and to shrink.
#[derive(Clone, Debug)]
struct Run {
    letter: usize,
    length: usize,
}

fn run(bits: u32) -> impl Strategy<Value = Run> {
    (0..16_usize, log_uniform(bits)).prop_map(|(letter, length)| Run { letter, length })
}

/// Generates the runs of a stream. One in 200 streams has a run of more than 64 KiB.
fn runs() -> impl Strategy<Value = Vec<Run>> {
    let giant = (0..16_usize, READ + 1..4 * READ).prop_map(|(letter, length)| Run { letter, length });
    prop_oneof![
        199 => vec(run(11), 0..24),
        1 => (vec(run(12), 0..8), giant, vec(run(12), 0..8))
            .prop_map(|(before, giant, after)| [before, vec![giant], after].concat()),
    ]
}

fn stream(kind: &Kind, runs: &[Run]) -> Vec<u8> {
    let terminator = match kind {
        Kind::Newline | Kind::Lf => &b"\n"[..],
        Kind::CrLf => b"\r\n",
        Kind::Byte(byte) => std::slice::from_ref(byte),
        Kind::AnyOf(set) => set,
        Kind::Sequence(sequence) => sequence,
    };
    let cut_terminator = &terminator[..terminator.len() - 1];
    let letters: [&[u8]; 16] = [
        b"x",
        b"x",
        b"x",
        b"abc",
        b"a",
        terminator,
        terminator,
        terminator,
        terminator,
        cut_terminator,
        b"\r\n",
        b"\r",
        b"\n",
        "é世".as_bytes(),
        b"\xff",
        b"\xc3",
    ];
    let mut stream = Vec::new();
    for run in runs {
        let letter = letters[run.letter];
        // Long runs of terminators test little, so they are kept short.
        let length = if (5..13).contains(&run.letter) { run.length.clamp(1, 3) } else { run.length };
        stream.extend(letter.iter().cycle().take(length.next_multiple_of(letter.len().max(1))));
    }
    stream
}

/// Generates the lengths of the reads, which are used in turn.
fn reads() -> impl Strategy<Value = Vec<usize>> {
    vec(log_uniform(14).prop_map(|length| length.max(1)), 1..8)
}

/// Cuts a stream into reads.
fn chunks<'a>(stream: &'a [u8], reads: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    reads.iter().cycle().map_while(move |length| {
        let (chunk, behind) = rest.split_at(rest.len().min(*length));
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Feeds a decoder as `Framed` does. Checks that every byte is counted, that little memory is held,
/// and that the decoder returns nothing more after EOF.
fn decode_all<D: Decoder<Error = std::io::Error>>(
    codec: &mut D,
    counters: fn(&D) -> CodecCounters,
    model: &Model,
    chunks: impl Iterator<Item = impl AsRef<[u8]>>,
    mut each: impl FnMut(&mut D, D::Item),
) {
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    let before = counters(codec);
    let mut taken_in = before.content_bytes + before.terminator_bytes + before.skipped_bytes;
    let check = |codec: &D, buffer: &BytesMut, taken_in| {
        let now = counters(codec);
        let accounted = now.content_bytes + now.terminator_bytes + now.skipped_bytes + buffer.len() as u64;
        assert_eq!(accounted, taken_in);
    };
    for chunk in chunks {
        buffer.extend_from_slice(chunk.as_ref());
        taken_in += chunk.as_ref().len() as u64;
        while let Some(item) = codec.decode(&mut buffer).unwrap() {
            check(codec, &buffer, taken_in);
            each(codec, item);
        }
        check(codec, &buffer, taken_in);
        let longest_terminator = if let Kind::Sequence(sequence) = &model.kind { sequence.len() } else { 2 };
        let most = model.max_length.max(BLOCK).saturating_add(longest_terminator - 1);
        assert!(buffer.len() <= most, "{} bytes held", buffer.len());
        assert!(buffer.capacity() <= 2 * (buffer.len() + READ), "{} bytes of memory", buffer.capacity());
    }
    while let Some(item) = codec.decode_eof(&mut buffer).unwrap() {
        check(codec, &buffer, taken_in);
        each(codec, item);
    }
    assert!(buffer.is_empty());
    assert!(codec.decode_eof(&mut buffer).unwrap().is_none());
}

/// The longest block that the tests request.
const BLOCK: usize = 1 << 12;

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let length = || prop_oneof![1 => Just(0), 5 => log_uniform(10), 1 => 0..BLOCK];
    vec(
        prop_oneof![2 => Just(Ask::Lines), 2 => length().prop_map(Ask::Expect), 1 => length().prop_map(Ask::Skip)],
        0..6,
    )
}

fn line_items(
    codec: &mut LineCodec,
    model: &Model,
    chunks: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Vec<Item> {
    let mut items = Vec::new();
    decode_all(codec, LineCodec::counters, model, chunks, |_, item| items.push(model::item(model, item)));
    items
}

/// An item of a text codec, for which invalid UTF-8 is one more fault.
#[derive(Debug, PartialEq)]
enum Text {
    Good(String),
    NotUtf8(Vec<u8>, usize),
    Bad(Bad),
}

fn expected_text(items: Vec<Item>) -> Vec<Text> {
    let text = |item: Item| match item.map(String::from_utf8) {
        Ok(Ok(text)) => Text::Good(text),
        Ok(Err(error)) => Text::NotUtf8(error.as_bytes().to_vec(), error.utf8_error().valid_up_to()),
        Err(bad) => Text::Bad(bad),
    };
    items.into_iter().map(text).collect()
}

fn text(model: &Model, item: Result<impl AsRef<str>, LineError>) -> Text {
    match item {
        Ok(text) => Text::Good(text.as_ref().to_owned()),
        Err(LineError::NotUtf8 { line, valid_up_to, .. }) => Text::NotUtf8(line.to_vec(), valid_up_to),
        Err(bad) => Text::Bad(model::item(model, Err::<Bytes, _>(bad)).unwrap_err()),
    }
}

/// Runs 10,000 cases for each property, or `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let chosen = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        None => ProptestConfig { cases: 10_000, ..chosen },
        Some(_) => chosen,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn items_do_not_depend_on_the_reads(model in model(), runs in runs(), reads in reads(), other in reads()) {
        let stream = stream(&model.kind, &runs);
        let expected = model.items(&stream);
        let mut codec = model::builder(&model).build();
        prop_assert_eq!(&line_items(&mut codec, &model, chunks(&stream, &reads)), &expected);
        // The same codec reads the next stream, from another buffer.
        prop_assert_eq!(&line_items(&mut codec, &model, chunks(&stream, &other)), &expected);

        let counters = codec.counters();
        let count = |is: fn(&Item) -> bool| 2 * expected.iter().filter(|item| is(item)).count() as u64;
        prop_assert_eq!(counters.lines, count(Result::is_ok));
        prop_assert_eq!(counters.too_long, count(|item| matches!(item, Err(Bad::TooLong(_)))));
        prop_assert_eq!(counters.unterminated, count(|item| matches!(item, Err(Bad::Unterminated(_)))));
        prop_assert_eq!(counters.bare_terminator, count(|item| matches!(item, Err(Bad::BareTerminator(_)))));
        prop_assert_eq!(counters.bad_items(), count(Result::is_err));
    }

    #[test]
    fn reset_removes_all_state_of_a_stream(model in model(), runs in runs(), reads in reads(), end in any::<prop::sample::Index>()) {
        let stream = stream(&model.kind, &runs);
        let mut codec = model::builder(&model).build();
        let mut buffer = BytesMut::new();
        for chunk in chunks(&stream[..end.index(stream.len() + 1)], &reads) {
            buffer.extend_from_slice(chunk);
            while model::next(&mut codec, &mut buffer).is_some() {}
        }
        _ = codec.expect_bytes(3);
        codec.skip_bytes(5);
        codec.reset();
        prop_assert_eq!(codec.counters(), CodecCounters::default());
        prop_assert_eq!(line_items(&mut codec, &model, chunks(&stream, &reads)), model.items(&stream));
    }

    #[test]
    fn blocks_between_lines_match_the_model(model in model(), runs in runs(), reads in reads(), asks in asks()) {
        let stream = stream(&model.kind, &runs);
        let ask = |items: usize| asks.get(items - 1).copied().unwrap_or(Ask::Lines);
        let expected = model.items_asked(&stream, ask);
        let mut codec = model::builder(&model).max_block_length(BLOCK).build();
        let mut items = Vec::new();
        decode_all(&mut codec, LineCodec::counters, &model, chunks(&stream, &reads), |codec, item| {
            items.push(model::item(&model, item));
            match ask(items.len()) {
                Ask::Lines => {}
                Ask::Skip(count) => codec.skip_bytes(count as u64),
                Ask::Expect(count) => {
                    codec.expect_bytes(BLOCK + 1).unwrap_err();
                    codec.expect_bytes(count).unwrap();
                    codec.expect_bytes(0).unwrap_err();
                }
            }
        });
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn batches_hold_the_same_lines(model in model(), runs in runs(), reads in reads(), taken in 0..4_usize) {
        let stream = stream(&model.kind, &runs);
        let expected = model.items(&stream);
        let mut codec = BatchCodec::from(model::builder(&model).build());
        let mut items = Vec::new();
        decode_all(&mut codec, BatchCodec::counters, &model, chunks(&stream, &reads), |_, mut batch| {
            assert!(batch.len() > 0);
            let lent: Vec<Item> = batch.iter().map(|item| model::item(&model, item)).collect();
            for line in batch.iter().flatten() {
                assert_eq!(batch.slice_ref(line), line);
            }
            // Taking some lines by value and iterating over the others must yield the same lines.
            let mut both: Vec<Item> = batch.by_ref().take(taken).map(|item| model::item(&model, item)).collect();
            both.extend(batch.iter().map(|item| model::item(&model, item)));
            assert_eq!(both, lent);
            // The rest of the batch can be decoded again.
            let rest = batch.clone().into_rest();
            let again = line_items(&mut model::builder(&model).build(), &model, [rest].into_iter());
            assert_eq!(again, batch.map(|item| model::item(&model, item)).collect::<Vec<_>>());
            items.extend(lent);
        });
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn text_is_checked_line_by_line(model in model(), runs in runs(), reads in reads()) {
        let stream = stream(&model.kind, &runs);
        let expected = expected_text(model.items(&stream));
        let mut codec = TextCodec::from(model::builder(&model).build());
        let mut items = Vec::new();
        decode_all(&mut codec, TextCodec::counters, &model, chunks(&stream, &reads), |_, item| items.push(text(&model, item)));
        prop_assert_eq!(&items, &expected);
        let not_utf8 = expected.iter().filter(|item| matches!(item, Text::NotUtf8(..))).count() as u64;
        prop_assert_eq!(codec.counters().not_utf8, not_utf8);

        let mut codec = BatchCodec::from(model::builder(&model).build());
        let mut items = Vec::new();
        decode_all(&mut codec, BatchCodec::counters, &model, chunks(&stream, &reads), |_, batch| {
            items.extend(batch.text().map(|item| text(&model, item)));
        });
        prop_assert_eq!(&items, &expected);
    }

    #[test]
    fn joined_fragments_equal_the_lines(model in model(), runs in runs(), reads in reads(), again in reads()) {
        let stream = stream(&model.kind, &runs);
        // Fragments have no limit and no bad lines. A cut line has no last fragment.
        let mut expected = Vec::new();
        let mut rest = &stream[..];
        while let Some((content, terminator)) = model.first_line(rest) {
            expected.push(rest[..content].to_vec());
            rest = &rest[content + terminator..];
        }
        let tail = rest;

        let decode = |codec: &mut FragmentCodec, stream: &[u8], reads: &[usize]| {
            let mut lines = vec![Vec::new()];
            decode_all(codec, FragmentCodec::counters, &model, chunks(stream, reads), |_, Fragment { bytes, is_last }| {
                assert!(bytes.len() <= model.max_length.max(1) && (is_last || !bytes.is_empty()));
                lines.last_mut().unwrap().extend_from_slice(&bytes);
                if is_last {
                    lines.push(Vec::new());
                }
            });
            lines
        };
        let mut codec = FragmentCodec::from(model::builder(&model).build());
        let lines = decode(&mut codec, &stream, &reads);
        prop_assert_eq!(lines.last().unwrap(), tail);
        prop_assert_eq!(&lines[..lines.len() - 1], &expected);
        prop_assert_eq!(codec.counters().lines, expected.len() as u64);
        prop_assert_eq!(codec.counters().unterminated, u64::from(!tail.is_empty()));

        // A relay: the fragments that the encoder accepts decode to the same lines.
        let mut relayed = BytesMut::new();
        let mut refused = false;
        decode_all(&mut FragmentCodec::from(model::builder(&model).build()), FragmentCodec::counters, &model, chunks(&stream, &reads), |_, fragment| {
            refused |= codec.encode(fragment, &mut relayed).is_err();
        });
        // Two kinds of content can be read but not written: a CR before a CRLF, and content that
        // overlaps with a sequence.
        prop_assert!(!refused || matches!(model.kind, Kind::Newline | Kind::Sequence(_)));
        if !refused {
            prop_assert_eq!(decode(&mut FragmentCodec::from(model::builder(&model).build()), &relayed, &again), lines);
            prop_assert!(model.kind != Kind::Lf || relayed == stream);
        }
    }

    #[test]
    fn accepted_lines_are_read_back(
        model in model(), runs in vec(runs(), 1..4), max_encoded_length in prop::option::of(log_uniform(10)), write_crlf: bool, reads in reads(),
    ) {
        let lines: Vec<Vec<u8>> = runs.iter().map(|runs| stream(&model.kind, runs)).collect();
        let mut builder = model::builder(&model).write_crlf(write_crlf);
        if let Some(max_encoded_length) = max_encoded_length {
            builder = builder.max_encoded_length(max_encoded_length);
        }
        let mut codec = builder.build();
        let limit = max_encoded_length.unwrap_or(model.max_length);
        let mut written = BytesMut::new();
        let mut accepted = Vec::new();
        for line in &lines {
            let before = written.clone();
            // The line must be read back with the plain terminator. With `write_crlf`, a CR at
            // the end is refused as well.
            let without_limit = Model { max_length: usize::MAX, ..model.clone() };
            let plain = [&line[..], codec.delimiter().written()].concat();
            let is_one_line = without_limit.items(&plain) == [Ok(line.clone())];
            match codec.encode(Bytes::copy_from_slice(line), &mut written) {
                Ok(()) => {
                    prop_assert!(is_one_line && line.len() <= limit);
                    accepted.push(Ok(line.clone()));
                }
                Err(refused) => {
                    prop_assert_eq!(&written, &before);
                    match refused.downcast().expect("the encoder's error") {
                        EncodeError::TooLong { length, max_length, .. } => {
                            prop_assert_eq!((length, max_length), (line.len(), limit));
                            prop_assert!(length > limit);
                        }
                        EncodeError::ContainsTerminator { at, .. } => {
                            prop_assert!(!is_one_line && line.len() <= limit && at < line.len());
                        }
                        refused => prop_assert!(false, "{refused}"),
                    }
                }
            }
        }
        let reader = Model { max_length: usize::MAX, ..model };
        prop_assert_eq!(line_items(&mut model::builder(&reader).build(), &reader, chunks(&written, &reads)), accepted);
    }
}
