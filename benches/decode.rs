//! Compares the codecs, without I/O, with other crates: `cargo bench --bench decode`.
//!
//! Every contender reads the same bytes in pieces of 64 KiB. The benchmark checks the number of
//! lines and bytes that each contender returns.
//!
//! Each round measures all contenders once, because other work on the machine changes over time.
//! Compare the ratios within a round. A cell shows the median time per line and, in brackets, the
//! median ratio to `LinesCodec` in the same round and its range. Common benchmark frameworks cannot
//! do this: they measure one contender after the other.

use std::fmt::Debug;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use bstr::io::BufReadExt;
use bytes::{Bytes, BytesMut};
use lineframe::{Batch, BatchCodec, LineCodec, TextCodec};
use tokio_util::codec::{AnyDelimiterCodec, Decoder, Encoder, LinesCodec};

const ROUNDS: usize = 9;
/// Bytes per contender and round.
const BYTES: usize = 4 << 20;
const PIECE: usize = 64 * 1024;

struct Contender {
    name: &'static str,
    /// Returns the number of lines and the number of bytes in them, without terminators.
    run: fn(&[u8]) -> (usize, usize),
}

const fn contender(name: &'static str, run: fn(&[u8]) -> (usize, usize)) -> Contender {
    Contender { name, run }
}

const DECODERS: &[Contender] = &[
    contender("tokio-util LinesCodec", |bytes| {
        decode(LinesCodec::new(), bytes, |line: String| one(line.len()))
    }),
    contender("tokio-util AnyDelimiterCodec", |bytes| {
        let codec = AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec());
        decode(codec, bytes, |line: Bytes| one(line.len()))
    }),
    contender("actix-codec LinesCodec", |bytes| {
        let mut codec = actix_codec::LinesCodec::default();
        feed(bytes, |buffer| {
            actix_codec::Decoder::decode(&mut codec, buffer).unwrap().map(|line| one(line.len()))
        })
    }),
    contender("asynchronous-codec LinesCodec", |bytes| {
        let mut codec = asynchronous_codec::LinesCodec;
        feed(bytes, |buffer| {
            let line = asynchronous_codec::Decoder::decode(&mut codec, buffer).unwrap();
            line.map(|line| one(line.len() - 1))
        })
    }),
    contender("BufRead::lines", |bytes| {
        let lines = BufReader::with_capacity(PIECE, bytes).lines();
        lines.fold((0, 0), |sum, line| add(sum, one(black_box(line.unwrap()).len())))
    }),
    contender("bstr for_byte_line", |bytes| {
        let mut sum = (0, 0);
        let mut lines = BufReader::with_capacity(PIECE, bytes);
        let done = lines.for_byte_line(|line| {
            sum = add(sum, one(black_box(line).len()));
            Ok(true)
        });
        done.unwrap();
        sum
    }),
    contender("memchr_iter over the bytes", |bytes| {
        let ends = memchr::memchr_iter(b'\n', bytes).map(black_box);
        let (count, last) = ends.fold((0, 0), |(count, _), at| (count + 1, at + 1));
        (count, last - count)
    }),
    contender("memchr, `split_to`, `freeze`", |bytes| {
        feed(bytes, |buffer| {
            let end = memchr::memchr(b'\n', buffer)?;
            let mut line = buffer.split_to(end + 1);
            line.truncate(end);
            Some(one(black_box(line.freeze()).len()))
        })
    }),
    contender("**LineCodec** `Bytes`", |bytes| {
        decode(LineCodec::new(), bytes, |line: Result<Bytes, _>| one(line.unwrap().len()))
    }),
    contender("**BatchCodec** `&[u8]`", |bytes| {
        decode(BatchCodec::new(), bytes, |batch: Batch| {
            batch.iter().fold((0, 0), |sum, line| add(sum, one(black_box(line.unwrap()).len())))
        })
    }),
    contender("**TextCodec** `ByteString`", |bytes| {
        decode(TextCodec::new(), bytes, |line: Result<bytestring::ByteString, _>| one(line.unwrap().len()))
    }),
    contender("**BatchCodec** `&str`", |bytes| {
        decode(BatchCodec::new(), bytes, |batch: Batch| {
            batch.text().fold((0, 0), |sum, line| add(sum, one(black_box(line.unwrap()).len())))
        })
    }),
];

const ENCODERS: &[Contender] = &[
    contender("tokio-util LinesCodec", |bytes| encode(LinesCodec::new(), bytes, |line| line)),
    contender("tokio-util AnyDelimiterCodec", |bytes| {
        encode(AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec()), bytes, |line| line)
    }),
    contender("**LineCodec** `encode_line`", |bytes| {
        let mut codec = LineCodec::new();
        write(bytes, |line, into| codec.encode_line(line.as_bytes(), into).unwrap())
    }),
];

fn one(length: usize) -> (usize, usize) {
    (1, length)
}

fn add(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}

/// Fills the buffer like `Framed`: as far as its capacity, which grows by 8 KiB if it is full.
fn feed(bytes: &[u8], mut next: impl FnMut(&mut BytesMut) -> Option<(usize, usize)>) -> (usize, usize) {
    let mut buffer = BytesMut::with_capacity(PIECE);
    let mut sum = (0, 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        if buffer.len() == buffer.capacity() {
            buffer.reserve(8 * 1024);
        }
        let (piece, later) = rest.split_at(rest.len().min(PIECE).min(buffer.capacity() - buffer.len()));
        buffer.extend_from_slice(piece);
        rest = later;
        while let Some(lines) = next(&mut buffer) {
            sum = add(sum, lines);
        }
    }
    sum
}

fn decode<D: Decoder>(
    mut codec: D,
    bytes: &[u8],
    measure: impl Fn(D::Item) -> (usize, usize),
) -> (usize, usize)
where
    D::Error: Debug,
{
    feed(bytes, |buffer| codec.decode(buffer).unwrap().map(|item| measure(black_box(item))))
}

fn encode<'a, T, C: Encoder<T>>(mut codec: C, bytes: &'a [u8], as_item: fn(&'a str) -> T) -> (usize, usize)
where
    C::Error: Debug,
{
    write(bytes, |line, into| codec.encode(as_item(line), into).unwrap())
}

/// Encodes the lines of `bytes` one by one into a buffer that is emptied at 64 KiB, as if sent.
fn write<'a>(bytes: &'a [u8], mut put: impl FnMut(&'a str, &mut BytesMut)) -> (usize, usize) {
    let length = 1 + bytes.iter().position(|&byte| byte == b'\n').unwrap();
    let text = std::str::from_utf8(bytes).unwrap();
    let mut buffer = BytesMut::with_capacity(2 * PIECE);
    let mut sum = (0, 0);
    for at in (0..text.len()).step_by(length) {
        put(&text[at..at + length - 1], &mut buffer);
        if buffer.len() >= PIECE {
            sum.1 += black_box(&buffer[..]).len();
            buffer.clear();
        }
        sum.0 += 1;
    }
    (sum.0, sum.1 + buffer.len() - sum.0)
}

/// Returns lines of `length` bytes, including the terminator. With `is_ascii` off, one character in
/// five has two to four bytes. The positions are random, as in real text, because the processor's
/// branch prediction would learn regular positions.
fn lines(length: usize, is_ascii: bool) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut lines = String::with_capacity(BYTES);
    while lines.len() + length <= BYTES {
        let end = lines.len() + length - 1;
        while lines.len() < end {
            let character = match is_ascii || random.u8(..5) > 0 {
                true => random.lowercase(),
                false => ['é', 'ж', '世', '€', '😀'][random.usize(..5)],
            };
            lines.push(if lines.len() + character.len_utf8() > end { '.' } else { character });
        }
        lines.push('\n');
    }
    lines.into_bytes()
}

fn table(title: &str, contenders: &[Contender], inputs: &[(usize, bool)]) {
    println!("\n{title}\n");
    let heads = inputs.iter().map(|(length, is_ascii)| match is_ascii {
        true => format!("{length} B"),
        false => format!("{length} B, 20 % non-ASCII"),
    });
    println!("| ns per line | {} |", heads.collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(inputs.len()));
    let mut cells = vec![Vec::new(); contenders.len()];
    for &(length, is_ascii) in inputs {
        let bytes = lines(length, is_ascii);
        let count = bytes.len() / length;
        let expected = (count, bytes.len() - count);
        let mut took = vec![Vec::new(); contenders.len()];
        for round in 0..=ROUNDS {
            for (contender, took) in contenders.iter().zip(&mut took) {
                let since = Instant::now();
                let sum = (contender.run)(black_box(&bytes));
                let elapsed = since.elapsed().as_secs_f64() * 1e9 / count as f64;
                assert_eq!(sum, expected, "{}", contender.name);
                // The first round warms up.
                if round > 0 {
                    took.push(elapsed);
                }
            }
        }
        for (cells, own) in cells.iter_mut().zip(&took) {
            let mut ratios: Vec<f64> = own.iter().zip(&took[0]).map(|(own, first)| own / first).collect();
            let mut own = own.clone();
            own.sort_by(f64::total_cmp);
            ratios.sort_by(f64::total_cmp);
            let [least, median, most] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| ratios[at]);
            cells.push(format!("{:.1} ({median:.2}, {least:.2}-{most:.2})", own[ROUNDS / 2]));
        }
    }
    for (contender, cells) in contenders.iter().zip(cells) {
        println!("| {} | {} |", contender.name, cells.join(" | "));
    }
}

fn main() {
    let ascii = [8, 32, 128, 1024].map(|length| (length, true));
    let other = [32, 128, 1024].map(|length| (length, false));
    table("Decoding ASCII", DECODERS, &ascii);
    table("Decoding text", DECODERS, &other);
    table("Encoding", ENCODERS, &ascii);
}
