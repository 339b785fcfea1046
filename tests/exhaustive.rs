//! Checks every short stream, cut in every way, with every kind of configuration, against the
//! model: which items are returned, and after which byte. All streams of a configuration share one
//! codec and one buffer, so that state left by one stream is noticed in the next.

mod model;

use bytes::BytesMut;
use model::{Kind, Model};

const LENGTH: usize = 7;
const LIMITS: [usize; 5] = [0, 1, 2, 3, usize::MAX];

/// Returns all strings of up to `LENGTH` letters.
fn strings(letters: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..=LENGTH).flat_map(move |length| {
        (0..letters.len().pow(length as u32)).map(move |mut number| {
            (0..length)
                .map(|_| {
                    let letter = letters[number % letters.len()];
                    number /= letters.len();
                    letter
                })
                .collect()
        })
    })
}

/// Runs all cases of one delimiter and returns their number.
fn run(kind: Kind, letters: &[u8]) -> u64 {
    let mut cases = 0;
    for (max_length, deliver) in LIMITS.into_iter().flat_map(|limit| [(limit, false), (limit, true)]) {
        let model = Model { kind: kind.clone(), max_length, deliver };
        let mut codec = model::builder(&model).build();
        let mut buffer = BytesMut::new();
        let mut taken_in = 0;
        for stream in strings(letters) {
            let expected = model.items(&stream);
            let prompt: Vec<usize> = (0..=stream.len()).map(|end| model.prompt(&stream[..end])).collect();
            // If bit n is set, the stream is cut after byte n.
            for cuts in 0..1_u32 << stream.len().saturating_sub(1) {
                cases += 1;
                let mut items = 0;
                let mut check = |item, when: &dyn std::fmt::Debug| {
                    let item = model::item(&model, item);
                    assert_eq!(
                        Some(&item),
                        expected.get(items),
                        "item {items} of {stream:?} cut {cuts:b}, {when:?}, {model:?}"
                    );
                    items += 1;
                    items
                };
                let mut done = 0;
                let mut start = 0;
                for end in 1..=stream.len() {
                    if end < stream.len() && cuts & 1 << (end - 1) == 0 {
                        continue;
                    }
                    buffer.extend_from_slice(&stream[start..end]);
                    taken_in += (end - start) as u64;
                    start = end;
                    while let Some(item) = model::next(&mut codec, &mut buffer) {
                        done = check(item, &end);
                        let counters = codec.counters();
                        assert_eq!(
                            counters.content_bytes
                                + counters.terminator_bytes
                                + counters.skipped_bytes
                                + buffer.len() as u64,
                            taken_in,
                        );
                    }
                    assert_eq!(
                        done, prompt[end],
                        "items after {end} bytes of {stream:?} cut {cuts:b}, {model:?}"
                    );
                }
                while let Some(item) = model::next_at_eof(&mut codec, &mut buffer) {
                    done = check(item, &"EOF");
                }
                assert_eq!(done, expected.len(), "items of {stream:?} cut {cuts:b}, {model:?}");
                assert!(model::next_at_eof(&mut codec, &mut buffer).is_none() && buffer.is_empty());
            }
        }
    }
    cases
}

macro_rules! delimiters {
    ($($name:ident: $kind:expr, $letters:expr, $cases:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(run($kind, $letters), $cases);
        })*

        #[test]
        fn cases_are_at_least_ten_million() {
            let cases: &[u64] = &[$($cases),*];
            assert!(cases.iter().sum::<u64>() >= 10_000_000);
        }
    };
}

// The number of cases: a^n strings of n letters over an alphabet of a letters, each cut in 2^(n-1)
// ways, with five limits and two policies at EOF.
const THREE: u64 = 10 * (1 + 3 + 2 * 9 + 4 * 27 + 8 * 81 + 16 * 243 + 32 * 729 + 64 * 2187);
const TWO: u64 = 10 * (1 + 2 + 2 * 4 + 4 * 8 + 8 * 16 + 16 * 32 + 32 * 64 + 64 * 128);

delimiters! {
    newline: Kind::Newline, b"a\r\n", THREE;
    lf: Kind::Lf, b"a\r\n", THREE;
    crlf: Kind::CrLf, b"a\r\n", THREE;
    nul: Kind::Byte(0), b"a\0\n", THREE;
    any_of_two: Kind::AnyOf(b"\r\n".to_vec()), b"a\r\n", THREE;
    any_of_three: Kind::AnyOf(b"a\r\n".to_vec()), b"b\r\n", THREE;
    any_of_four: Kind::AnyOf(b"a\r\n\0".to_vec()), b"b\r\0", THREE;
    sequence_of_one: Kind::Sequence(b"a".to_vec()), b"ab", TWO;
    sequence_of_two: Kind::Sequence(b"ab".to_vec()), b"abc", THREE;
    sequence_that_overlaps_itself: Kind::Sequence(b"aa".to_vec()), b"ab", TWO;
    sequence_with_a_false_start: Kind::Sequence(b"aab".to_vec()), b"ab", TWO;
    sequence_with_a_border: Kind::Sequence(b"aba".to_vec()), b"abc", THREE;
    sequence_of_four: Kind::Sequence(b"abab".to_vec()), b"ab", TWO;
}
