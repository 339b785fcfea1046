//! The codecs in tokio-util's `Framed`, over an in-memory pipe. The peer sends some bytes, then
//! stays connected and silent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use lineframe::{
    BatchCodec, BlockError, Delimiter, EncodeError, FragmentCodec, LineCodec, LineError, TextCodec,
    Unterminated,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio_util::codec::{Decoder, Framed, FramedRead, FramedWrite};

/// Returns a `Framed` whose peer has sent `bytes` and stays connected.
async fn sent<C: Decoder>(bytes: &[u8], codec: C) -> (DuplexStream, Framed<DuplexStream, C>) {
    let (mut peer, io) = duplex(1 << 20);
    peer.write_all(bytes).await.unwrap();
    (peer, Framed::new(io, codec))
}

/// Returns the output of a future that must not wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a result without further input")
}

/// Formats the content of a good line, or the available bytes of a bad one.
fn shown(line: Result<Bytes, LineError>) -> String {
    match line {
        Ok(line) => line.escape_ascii().to_string(),
        Err(bad) => format!("bad {}", bad.bytes().escape_ascii()),
    }
}

#[tokio::test]
async fn lines_after_a_bad_one_need_no_input() {
    let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(5).build();
    let (_peer, mut lines) = sent(b"far too long\r\none\r\nt\nwo\r\nthree\r\n\r\n1234567", codec).await;
    let mut seen = Vec::new();
    while let Some(line) = lines.try_next().now_or_never() {
        seen.push(shown(line.unwrap().unwrap()));
    }
    assert_eq!(seen, ["bad far t", "one", "bad t\\nwo", "three", "", "bad 12345"]);
}

#[tokio::test]
async fn text_after_invalid_utf8_needs_no_input() {
    let (_peer, mut lines) = sent("a\n\u{e9}\n".as_bytes(), TextCodec::new()).await;
    assert_eq!(now(lines.next()).unwrap().unwrap().unwrap(), "a");
    assert_eq!(now(lines.next()).unwrap().unwrap().unwrap(), "\u{e9}");
    let (_peer, mut lines) = sent(b"ab\xff\nb\n\xc3\nc\n", TextCodec::new()).await;
    let bad = now(lines.next()).unwrap().unwrap().unwrap_err();
    assert!(matches!(&bad, LineError::NotUtf8 { line, valid_up_to: 2, .. } if line == &b"ab\xff"[..]));
    assert_eq!(now(lines.next()).unwrap().unwrap().unwrap(), "b");
    let bad = now(lines.next()).unwrap().unwrap().unwrap_err();
    assert!(matches!(bad, LineError::NotUtf8 { valid_up_to: 0, .. }));
    assert_eq!(now(lines.next()).unwrap().unwrap().unwrap(), "c");
    assert_eq!(lines.codec().counters().not_utf8, 2);
    assert_eq!(lines.codec().counters().lines, 2);
}

#[tokio::test]
async fn a_refused_line_leaves_the_sink_usable() {
    let (mut peer, io) = duplex(1024);
    let mut lines = Framed::new(io, LineCodec::builder().max_length(5).build());
    lines.feed("one".into()).await.unwrap();
    let refused = lines.feed("a\nb".into()).await.unwrap_err().downcast().unwrap();
    assert!(matches!(refused, EncodeError::ContainsTerminator { at: 1, .. }));
    let refused = lines.feed("123456".into()).await.unwrap_err().downcast().unwrap();
    assert!(matches!(refused, EncodeError::TooLong { length: 6, max_length: 5, .. }));
    lines.feed("two".into()).await.unwrap();
    // No type annotations. With a generic `Encoder` these calls would not compile.
    lines.flush().await.unwrap();
    lines.close().await.unwrap();
    drop(lines);
    let mut written = String::new();
    peer.read_to_string(&mut written).await.unwrap();
    assert_eq!(written, "one\ntwo\n");
}

#[tokio::test]
async fn double_question_mark_ends_at_a_bad_line() {
    async fn strict(lines: &mut Framed<DuplexStream, LineCodec>) -> io::Result<Bytes> {
        Ok(lines.try_next().await?.ok_or(io::ErrorKind::UnexpectedEof)??)
    }
    let (_peer, mut lines) = sent(b"ok\ntoo long\n", LineCodec::builder().max_length(5).build()).await;
    assert_eq!(strict(&mut lines).await.unwrap(), "ok");
    let error = strict(&mut lines).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(
        error.get_ref().unwrap().downcast_ref(),
        Some(LineError::TooLong { max_length: 5, .. })
    ));
}

#[tokio::test]
async fn lines_and_counted_bytes_alternate() {
    let (mut peer, mut framed) = sent(b"put 6\na\r\nb\nc\nget\n", LineCodec::new()).await;
    assert_eq!(now(framed.next()).unwrap().unwrap().unwrap(), "put 6");
    framed.codec_mut().expect_bytes(6).unwrap();
    let block = now(framed.next()).unwrap().unwrap().unwrap();
    assert_eq!(block, "a\r\nb\nc");
    assert_eq!(now(framed.next()).unwrap().unwrap().unwrap(), "");
    assert_eq!(now(framed.next()).unwrap().unwrap().unwrap(), "get");
    // A block of 0 bytes needs no further input, such as after `BDAT 0 LAST`.
    framed.codec_mut().expect_bytes(0).unwrap();
    assert_eq!(now(framed.next()).unwrap().unwrap().unwrap(), "");

    // The encoder refuses the block because it contains terminators. Raw bytes are appended to the
    // write buffer.
    assert!(framed.feed(block.clone()).await.is_err());
    framed.write_buffer_mut().extend_from_slice(&block);
    framed.feed("".into()).await.unwrap();
    framed.send("end".into()).await.unwrap();
    let mut written = [0; 11];
    peer.read_exact(&mut written).await.unwrap();
    assert_eq!(&written, b"a\r\nb\nc\nend\n");
}

#[tokio::test]
async fn a_block_announced_by_the_peer_reserves_nothing() {
    let builder = LineCodec::builder().max_block_length(usize::MAX);
    let (_peer, mut framed) = sent(b"put\nabc", builder.build()).await;
    now(framed.next()).unwrap().unwrap().unwrap();
    framed.codec_mut().expect_bytes(usize::MAX).unwrap();
    assert!(framed.next().now_or_never().is_none());
    assert!(framed.read_buffer().capacity() <= 2 * 8192, "{}", framed.read_buffer().capacity());

    let refused = LineCodec::new().expect_bytes(usize::MAX).unwrap_err();
    assert!(matches!(refused, BlockError::TooLong { asked: usize::MAX, max: 1_048_576, .. }));
}

#[tokio::test]
async fn changing_the_codec_mid_stream_loses_nothing() {
    let stream = b"first\nfar too long a line\n\xffsecond\nthird\nfourth\nfif".as_slice();
    let (mut peer, lines) = sent(stream, LineCodec::builder().max_length(10).build()).await;
    let mut lines = lines;
    assert_eq!(shown(now(lines.next()).unwrap().unwrap()), "first");

    let mut text = lines.map_codec(TextCodec::from);
    let bad = now(text.next()).unwrap().unwrap().unwrap_err();
    assert!(matches!(bad, LineError::TooLong { .. }));
    assert!(matches!(now(text.next()).unwrap().unwrap(), Err(LineError::NotUtf8 { .. })));
    assert_eq!(now(text.next()).unwrap().unwrap().unwrap(), "third");

    let mut lines = text.map_codec(LineCodec::from);
    assert_eq!(shown(now(lines.next()).unwrap().unwrap()), "fourth");
    assert!(lines.next().now_or_never().is_none());

    let mut batches = lines.map_codec(BatchCodec::from);
    peer.write_all(b"th\nsixth\nsev").await.unwrap();
    let batch = now(batches.next()).unwrap().unwrap();
    assert_eq!(batch.map(shown).collect::<Vec<_>>(), ["fifth", "sixth"]);

    let mut fragments = batches.map_codec(LineCodec::from).map_codec(FragmentCodec::from);
    let fragment = now(fragments.next()).unwrap().unwrap();
    assert_eq!((&fragment.bytes[..], fragment.is_last), (&b"sev"[..], false));
    peer.write_all(b"enth\n").await.unwrap();
    let fragment = now(fragments.next()).unwrap().unwrap();
    assert_eq!((&fragment.bytes[..], fragment.is_last), (&b"enth"[..], true));
}

#[tokio::test]
async fn skipping_continues_after_a_codec_change() {
    let (mut peer, mut lines) = sent(b"far too long", LineCodec::builder().max_length(5).build()).await;
    assert_eq!(shown(now(lines.next()).unwrap().unwrap()), "bad far t");
    let mut fragments = lines.map_codec(FragmentCodec::from);
    peer.write_all(b" as it is\nok\n").await.unwrap();
    let fragment = now(fragments.next()).unwrap().unwrap();
    assert_eq!((&fragment.bytes[..], fragment.is_last), (&b"ok"[..], true));
}

#[tokio::test]
async fn pending_block_survives_a_codec_change() {
    for eof in [false, true] {
        let asked = || async {
            let (peer, mut lines) =
                sent(if eof { b"put\na\n" } else { b"put\na\nbc\n" }, LineCodec::new()).await;
            now(lines.next()).unwrap().unwrap().unwrap();
            lines.codec_mut().expect_bytes(4).unwrap();
            drop(peer);
            lines
        };
        let mut batches = asked().await.map_codec(BatchCodec::from);
        let mut fragments = asked().await.map_codec(FragmentCodec::from);
        let mut batch = batches.next().await.unwrap().unwrap();
        let fragment = fragments.next().await.unwrap().unwrap();
        if eof {
            let cut = LineError::clone(&batch.next().unwrap().unwrap_err());
            assert!(matches!(cut, LineError::Incomplete { expected: 4, .. }));
            assert_eq!((&fragment.bytes[..], fragment.is_last), (&b"a\n"[..], false));
        } else {
            assert_eq!(batch.map(shown).collect::<Vec<_>>(), ["a\\nbc", ""]);
            assert_eq!((&fragment.bytes[..], fragment.is_last), (&b"a\nbc"[..], true));
        }
    }
}

#[tokio::test]
async fn block_with_invalid_utf8_is_not_a_line() {
    let (_peer, mut lines) = sent(b"put\n\xff\xff\nend\n", LineCodec::new()).await;
    now(lines.next()).unwrap().unwrap().unwrap();
    lines.codec_mut().expect_bytes(2).unwrap();
    let mut text = lines.map_codec(TextCodec::from);
    assert!(matches!(now(text.next()).unwrap().unwrap(), Err(LineError::NotUtf8 { valid_up_to: 0, .. })));
    assert_eq!(now(text.next()).unwrap().unwrap().unwrap(), "");
    let counters = text.codec().counters();
    assert_eq!((counters.lines, counters.blocks, counters.not_utf8), (2, 0, 1));
}

#[tokio::test]
async fn fragment_relay_copies_the_stream_exactly() {
    let codec =
        || FragmentCodec::from(LineCodec::builder().delimiter(Delimiter::Lf).max_length(1000).build());
    let input = [&vec![b'x'; 100_000][..], b"\r\n\n\nshort\ncut"].concat();
    let mut output = Vec::new();
    FramedRead::new(&input[..], codec()).forward(FramedWrite::new(&mut output, codec())).await.unwrap();
    assert_eq!(output, input);
}

#[tokio::test]
async fn batches_hold_at_most_4096_lines() {
    let (_peer, batches) = sent(&b"\n".repeat(10_000), BatchCodec::new()).await;
    let mut batches = batches;
    let mut sizes = Vec::new();
    while let Some(batch) = batches.next().now_or_never() {
        sizes.push(batch.unwrap().unwrap().len());
    }
    assert_eq!(sizes.iter().sum::<usize>(), 10_000);
    assert!(sizes.iter().all(|size| *size <= 4096) && sizes.contains(&4096), "{sizes:?}");
}

#[test]
fn batch_reports_the_number_of_remaining_lines() {
    let mut batch = BatchCodec::new()
        .decode(&mut BytesMut::from("a\nb\nc\nd\n"))
        .unwrap()
        .expect("whole lines are buffered");
    for left in (0..=4).rev() {
        assert_eq!((batch.len(), batch.size_hint()), (left, (left, Some(left))));
        assert_eq!((batch.iter().len(), batch.iter().count()), (left, left));
        let mut lent = batch.iter();
        assert_eq!((lent.next().is_some(), lent.len()), (left > 0, left.saturating_sub(1)));
        assert_eq!(batch.next().is_some(), left > 0);
    }
}

/// A stream of short lines that fills each read buffer and records its size.
struct Recorder {
    left: usize,
    max_read: usize,
    sizes: Vec<usize>,
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.sizes.push(buf.remaining());
        let length = self.left.min(self.max_read).min(buf.remaining());
        buf.put_slice(&[b'x', b'\n'].repeat(length.div_ceil(2))[..length]);
        self.left -= length;
        Poll::Ready(Ok(()))
    }
}

async fn sizes(left: usize, max_read: usize) -> Vec<usize> {
    let codec = LineCodec::builder().unterminated(Unterminated::Deliver).build();
    let mut lines = FramedRead::new(Recorder { left, max_read, sizes: Vec::new() }, codec);
    while let Some(line) = lines.try_next().await.unwrap() {
        line.unwrap();
    }
    lines.into_inner().sizes
}

#[tokio::test]
async fn read_buffer_doubles_while_reads_fill_it() {
    let mut full = sizes(1 << 20, usize::MAX).await;
    // The last read reports EOF and does not fill its buffer.
    full.pop();
    assert_eq!(full[0], 8 * 1024);
    for (at, room) in full.iter().enumerate() {
        assert!(*room >= (8 * 1024) << at.min(3), "{full:?}");
        assert!(*room <= 130 * 1024, "{full:?}");
    }
    // Reads that do not fill the buffer leave it small, but never smaller than 4 KiB.
    let small = sizes(1 << 20, 3000).await;
    assert!(small.iter().all(|room| (4 * 1024..=8 * 1024).contains(room)), "{small:?}");
}

#[test]
fn an_idle_framed_keeps_at_most_8_kib() {
    let mut codec = LineCodec::builder().max_length(None).build();
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    for size in [1, 1000, 8 * 1024, 100_000, 4 << 20, 100, 9000, 1] {
        // Reads fill the buffer, as from a busy peer, except for the last.
        let mut left = size;
        while left > 0 {
            let room = (buffer.capacity() - buffer.len()).max(1);
            let read = left.min(room);
            buffer.resize(buffer.len() + read, b'x');
            left -= read;
            assert!(codec.decode(&mut buffer).unwrap().is_none());
        }
        buffer.extend_from_slice(b"\n");
        assert_eq!(codec.decode(&mut buffer).unwrap().unwrap().unwrap().len(), size);
        assert!(codec.decode(&mut buffer).unwrap().is_none());
        assert!(buffer.is_empty() && buffer.capacity() <= 8 * 1024, "{} after {size}", buffer.capacity());
        assert!(buffer.capacity() >= 4 * 1024, "{} after {size}", buffer.capacity());
    }
}

#[tokio::test]
async fn forward_needs_no_error_adapter() {
    let mut output = Vec::new();
    let reader = FramedRead::new(&b"one\ntwo\n"[..], LineCodec::new());
    let writer = FramedWrite::new(&mut output, LineCodec::builder().write_crlf(true).build());
    reader.map(|line| Ok(line??)).forward(writer).await.unwrap();
    assert_eq!(output, b"one\r\ntwo\r\n");
}

#[tokio::test]
async fn an_encoder_answers_batches_in_the_write_buffer() {
    let codec = BatchCodec::builder().max_length(3).build();
    let (mut peer, mut framed) = sent(b"one\ntwo\n", codec).await;
    let encoder = framed.codec().encoder();
    let batch = now(framed.next()).unwrap().unwrap();
    for line in &batch {
        encoder.encode_line(line.unwrap(), framed.write_buffer_mut()).unwrap();
    }
    let refused = encoder.encode_line(b"four", framed.write_buffer_mut()).unwrap_err();
    assert!(matches!(refused, EncodeError::TooLong { length: 4, max_length: 3, .. }));
    framed.close().await.unwrap();
    let mut replies = [0; 8];
    peer.read_exact(&mut replies).await.unwrap();
    assert_eq!(&replies, b"one\ntwo\n");
}

#[test]
fn every_codec_has_a_builder() {
    let mut stream = BytesMut::from("a;b;");
    let mut text = TextCodec::builder().delimiter(Delimiter::Byte(b';')).build();
    assert_eq!(text.decode(&mut stream).unwrap().unwrap().unwrap(), "a");
    let builder = FragmentCodec::builder().delimiter(Delimiter::Byte(b';')).max_length(2);
    let fragment = builder.clone().build().decode(&mut stream).unwrap().unwrap();
    assert_eq!((&fragment.bytes[..], fragment.is_last), (&b"b"[..], true));
    // Converting a codec in the middle of a line keeps the rest as a line.
    let (mut stream, mut fragments) = (BytesMut::from("cde;f"), builder.build());
    assert!(!fragments.decode(&mut stream).unwrap().unwrap().is_last);
    let mut lines = LineCodec::from(fragments);
    assert_eq!(lines.decode(&mut stream).unwrap().unwrap().unwrap(), "e");
    assert!(lines.decode_eof(&mut stream).unwrap().unwrap().is_err());
    let mut fragments = FragmentCodec::from(lines);
    assert!(fragments.decode_eof(&mut stream).unwrap().is_none());
    assert_eq!(fragments.counters().unterminated, 1);
}

#[test]
fn default_codecs_have_the_documented_limits() {
    assert_eq!(LineCodec::new().max_length(), Some(65_536));
    assert_eq!(LineCodec::builder().max_length(None).build().max_length(), None);
    let mut fragments = FragmentCodec::new();
    let piece = fragments.decode(&mut BytesMut::from("line\nrest")).unwrap().unwrap();
    assert_eq!((&piece.bytes[..], piece.is_last), (&b"line"[..], true));
}

#[test]
fn set_max_length_keeps_a_separate_encoded_limit() {
    let written = |codec: &mut LineCodec, line: &[u8]| codec.encode_line(line, &mut BytesMut::new()).is_ok();
    let mut codec = LineCodec::new();
    codec.set_max_length(3);
    assert_eq!(
        (codec.max_length(), written(&mut codec, b"abc"), written(&mut codec, b"abcd")),
        (Some(3), true, false)
    );
    let mut stream = BytesMut::from("abc\nabcd\n");
    assert!(codec.decode(&mut stream).unwrap().unwrap().is_ok());
    assert!(codec.decode(&mut stream).unwrap().unwrap().is_err());

    let mut apart = LineCodec::builder().max_encoded_length(4).build();
    apart.set_max_length(3);
    assert_eq!(
        (apart.max_length(), written(&mut apart, b"abcd"), written(&mut apart, b"abcde")),
        (Some(3), true, false)
    );
}
