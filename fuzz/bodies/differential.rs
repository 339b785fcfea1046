//! Compares this crate's codec with other line readers, over streams cut into reads.
//!
//! The readers must return the same lines, except for the differences that `others` lists.

use super::others::{Reader, check, check_written};
use super::{Input, Scale};

pub fn run(data: &[u8]) {
    _ = read(&mut Input::new(data, Scale::Small));
}

pub(super) fn read(input: &mut Input) -> Option<()> {
    let reader = match input.byte()? % 4 {
        0 => Reader::LinesCodec,
        1 => Reader::AnyDelimiterCodec,
        2 => Reader::BufReadLines,
        _ => Reader::BufReadUntil,
    };
    let set = match reader {
        Reader::AnyDelimiterCodec => {
            let count = 1 + usize::from(input.byte()?) % 4;
            input.bytes(count)?
        }
        Reader::BufReadUntil => input.bytes(1)?,
        _ => b"\n",
    };
    let limit = input.size()?;
    let first = usize::from(input.byte()?);
    let count = 1 + usize::from(input.byte()?) % 4;
    let sizes = input.bytes(count)?;
    let (times, max_stream) = match (input.scale, input.byte()?) {
        (Scale::Giant, byte) => (1 << (byte & 7), 16 * 1024),
        (Scale::Small, byte @ 248..) => (1 << (byte & 3), 1024),
        (Scale::Small, _) => (1, 1024),
    };
    let bytes = input.rest.repeat(times);
    let stream = &bytes[..bytes.len().min(max_stream)];
    let (first, second) = stream.split_at(first.min(stream.len()));
    let streams = [first, second, stream].map(|stream| (stream, cut(stream, sizes)));
    let seen = &mut Default::default();
    check(reader, set, limit, &streams, seen);
    if let (Reader::LinesCodec | Reader::AnyDelimiterCodec, Ok(line)) = (reader, std::str::from_utf8(first)) {
        check_written(reader, set, limit, line, seen);
    }
    Some(())
}

/// Cuts `bytes` into reads. The sizes repeat.
fn cut<'a>(mut bytes: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    // At most about 1000 reads.
    let smallest = bytes.len() / 1024;
    let mut reads = Vec::new();
    for size in sizes.iter().cycle() {
        let (read, rest) = bytes.split_at(usize::from(*size).max(smallest).max(1).min(bytes.len()));
        reads.push(read);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    reads
}
