//! Allocations of the codecs and the memory they keep. `allocation_counter` provides the counting
//! allocator.

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use bytes::{Bytes, BytesMut};
use lineframe::{BatchCodec, Delimiter, FragmentCodec, LineCodec, LineError, TextCodec};
use tokio_util::codec::{Decoder, Encoder};

const KIB: u64 = 1024;
const READ: usize = 64 * 1024;

/// Reads from `stream` into the free capacity of the buffer, as `Framed` does.
fn read(buffer: &mut BytesMut, stream: &mut &[u8]) {
    let length = stream.len().min(buffer.capacity() - buffer.len());
    let (read, rest) = stream.split_at(length);
    buffer.extend_from_slice(read);
    *stream = rest;
}

/// Decodes `lines` short lines and drops each item. Each read has at most `per_read` lines, and no
/// two adjacent lines are equal.
fn decode<D: Decoder<Error = std::io::Error>>(
    codec: &mut D,
    lines: usize,
    per_read: usize,
) -> AllocationInfo {
    let stream: String = (0..lines).map(|at| format!("a line of 24 bytes, {:04}\r\n", at % 10_000)).collect();
    measure(|| {
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        let mut items = 0;
        for mut chunk in stream.as_bytes().chunks(26 * per_read) {
            while !chunk.is_empty() {
                read(&mut buffer, &mut chunk);
                while let Some(item) = codec.decode(&mut buffer).unwrap() {
                    black_box(item);
                    items += 1;
                }
            }
        }
        assert!(items > 0 && buffer.is_empty());
    })
}

#[test]
fn a_line_costs_no_allocation() {
    for per_read in [1, 3, 100, 10_000] {
        for delimiter in [Delimiter::Newline, Delimiter::CrLf, Delimiter::sequence(b"\r\n").unwrap()] {
            let codec = || LineCodec::builder().delimiter(delimiter.clone()).build();
            // The buffer grows again after small reads, which allocates.
            let bursts = if 26 * per_read > 8 * 1024 { 100_000 / per_read as u64 } else { 0 };
            let count = |info: AllocationInfo, what| {
                let most = 8 + 8 * bursts;
                assert!(
                    info.count_total <= most,
                    "{} allocations for 100,000 {what}, {per_read} a read",
                    info.count_total
                );
            };
            count(decode(&mut codec(), 100_000, per_read), "lines");
            count(decode(&mut FragmentCodec::from(codec()), 100_000, per_read), "fragments");
        }
    }
}

#[test]
fn batches_and_text_cost_few_allocations_per_read() {
    // Each read is 64 KiB.
    let reads = 100_000 * 26 / READ as u64;
    let batches = decode(&mut BatchCodec::new(), 100_000, 100_000).count_total;
    assert!(batches < 16 * reads, "{batches} allocations in {reads} reads");
    // For each 16 KiB of a read: the text, and the state that its lines share.
    let texts = decode(&mut TextCodec::new(), 100_000, 100_000).count_total;
    assert!(texts < 10 * reads, "{texts} allocations in {reads} reads");
}

#[test]
fn a_written_line_costs_no_allocation() {
    let mut codec = LineCodec::new();
    let mut written = BytesMut::with_capacity(64 * 1024);
    let line = Bytes::from_static(b"a line");
    let info = measure(|| {
        for _ in 0..100_000 {
            codec.encode(line.clone(), &mut written).unwrap();
            codec.encode_line(b"a\nb", &mut written).unwrap_err();
            if written.len() > 60 * 1024 {
                written.clear();
            }
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn unterminated_gibibyte_needs_constant_memory() {
    let mut codec = LineCodec::new();
    let piece = vec![b'x'; 1 << 20];
    let mut too_long = 0;
    let info = measure(|| {
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        for _ in 0..1024 {
            let mut piece = &piece[..];
            while !piece.is_empty() {
                read(&mut buffer, &mut piece);
                while let Some(item) = codec.decode(&mut buffer).unwrap() {
                    assert!(matches!(item, Err(LineError::TooLong { prefix, .. }) if prefix.len() == 65_536));
                    too_long += 1;
                }
            }
        }
        let mut end = &b"\nok\n"[..];
        read(&mut buffer, &mut end);
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap().unwrap(), "ok");
    });
    assert_eq!(too_long, 1);
    assert!(info.bytes_max < 64 * KIB + KIB * KIB, "{} bytes", info.bytes_max);
    assert_eq!(codec.counters().skipped_bytes, (1 << 30) - 65_536 + 1);
}

#[test]
fn memory_of_a_giant_line_is_freed() {
    // The short lines arrive either while the giant line is kept or after it is dropped.
    for is_kept in [false, true] {
        let mut codec = LineCodec::builder().max_length(8 << 20).build();
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        let info = measure(|| {
            let stream = [vec![b'x'; 4 << 20], b"\n".to_vec(), b"short\n".repeat(100)].concat();
            let mut stream = &stream[..];
            let mut kept = Vec::new();
            let mut lines = 0;
            while !stream.is_empty() {
                read(&mut buffer, &mut stream);
                while let Some(line) = codec.decode(&mut buffer).unwrap() {
                    lines += 1;
                    if lines == 1 && is_kept {
                        kept.push(line);
                    }
                }
            }
            assert_eq!(lines, 101);
        });
        assert!(info.bytes_max >= 4 << 20);
        assert!(info.bytes_current <= 64 * KIB as i64, "{} bytes are live", info.bytes_current);
    }
}

#[test]
fn kept_short_lines_share_their_buffers() {
    // Keeps 1000 lines of 4 bytes, each received in its own read.
    let mut codec = LineCodec::new();
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    let mut kept = Vec::with_capacity(1000);
    let info = measure(|| {
        for _ in 0..1000 {
            read(&mut buffer, &mut &b"keep\n"[..]);
            kept.push(codec.decode(&mut buffer).unwrap().unwrap().unwrap());
            assert!(codec.decode(&mut buffer).unwrap().is_none());
        }
    });
    assert!(info.bytes_current <= 128 * KIB as i64, "{} bytes are live", info.bytes_current);
    assert_eq!(kept.len(), 1000);
}

#[test]
fn prefix_is_not_copied() {
    let mut codec = LineCodec::builder().max_length(1000).build();
    let mut buffer = BytesMut::from(&[b'x'; 5000][..]);
    let before = buffer.as_ptr();
    let Some(Err(LineError::TooLong { prefix, .. })) = codec.decode(&mut buffer).unwrap() else { panic!() };
    assert_eq!((prefix.as_ptr(), prefix.len()), (before, 1000));
    assert!(buffer.is_empty());
}

#[test]
fn empty_line_does_not_pin_its_buffer() {
    let mut codec = LineCodec::new();
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    buffer.extend_from_slice(b"\n");
    let line = codec.decode(&mut buffer).unwrap().unwrap().unwrap();
    let info = measure(|| drop(buffer));
    assert!(line.is_empty() && info.bytes_current <= -(64 * KIB as i64), "{info:?}");
}
