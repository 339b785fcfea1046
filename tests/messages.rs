//! Error messages are one line of printable ASCII, at most 200 bytes long, and never contain bytes
//! from the wire.

use std::fmt::{Debug, Display};
use std::io;

use bytes::{Bytes, BytesMut};
use lineframe::{
    BatchCodec, BlockError, Delimiter, EncodeError, FragmentCodec, LineCodec, LineError, TextCodec,
};
use tokio_util::codec::Decoder;

/// Returns all formats of an error.
fn said(error: &(impl Display + Debug)) -> [String; 3] {
    [format!("{error}"), format!("{error:?}"), format!("{error:#?}")]
}

fn check(said: &[String]) {
    for said in said {
        assert!(said.len() <= 200, "{} bytes: {said}", said.len());
        assert!(!said.is_empty() && said.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{said:?}");
    }
}

/// Returns one error of each kind, each about a line with `content`.
fn line_errors(content: &[u8]) -> Vec<LineError> {
    let mut errors = Vec::new();
    let mut add = |codec: LineCodec, stream: &[u8], expect: Option<usize>| {
        let mut codec = TextCodec::from({
            let mut codec = codec;
            if let Some(count) = expect {
                codec.expect_bytes(count).unwrap();
            }
            codec
        });
        errors.push(codec.decode_eof(&mut BytesMut::from(stream)).unwrap().unwrap().unwrap_err());
    };
    let builder = || LineCodec::builder().delimiter(Delimiter::CrLf);
    let terminated = [content, b"\r\n"].concat();
    add(builder().max_length(0).build(), &[content, b"x\r\n"].concat(), None);
    add(builder().build(), content, None);
    add(builder().build(), &[content, b"x\n", &terminated].concat(), None);
    add(
        builder().delimiter(Delimiter::sequence(b"end").unwrap()).build(),
        &[content, b"\xffend"].concat(),
        None,
    );
    add(builder().build(), content, Some(content.len() + 1));
    errors
}

#[test]
fn line_error_messages_contain_no_line_bytes() {
    // The content contains `z` and `~`, which no message contains by itself.
    let marks = (0..=255_u8).flat_map(|byte| [vec![byte; 40], vec![b'z', byte, b'~']]);
    for content in marks {
        let errors = line_errors(&content);
        let kinds: Vec<_> = errors.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 5);
        assert!((1..5).all(|at| !kinds[..at].contains(&kinds[at])), "five kinds: {errors:?}");
        for error in errors {
            let mut said = said(&error).to_vec();
            said.push(error.reply());
            check(&said);
            assert!(said.iter().all(|said| !said.contains(['z', '~'])), "{said:?}");
            // The bytes are available from the error itself.
            assert!(matches!(error, LineError::TooLong { .. }) || error.bytes().starts_with(&content));
        }
    }
}

#[test]
fn lengths_and_limits_are_named() {
    let [too_long, unterminated, bare, not_utf8, incomplete]: [LineError; 5] =
        line_errors(b"abc").try_into().unwrap();
    assert_eq!(too_long.reply(), "error: line exceeds the limit of 0 bytes (max_length)");
    assert_eq!(unterminated.reply(), "error: line of 3 bytes cut before its terminator");
    assert_eq!(bare.reply(), "error: line of 8 bytes with a CR or LF that is not part of a CRLF");
    assert_eq!(not_utf8.reply(), "error: line of 4 bytes with invalid UTF-8 at byte 3");
    assert_eq!(incomplete.reply(), "error: block of 4 bytes cut after 3 bytes");
    assert_eq!(format!("{incomplete:#?}"), "Incomplete(block of 4 bytes cut after 3 bytes)");
}

#[test]
fn messages_with_the_longest_numbers_fit() {
    let mut codec = LineCodec::builder().max_block_length(usize::MAX - 1).build();
    check(&said(&codec.expect_bytes(usize::MAX).unwrap_err()));
    codec.expect_bytes(usize::MAX - 1).unwrap();
    check(&said(&codec.expect_bytes(usize::MAX).unwrap_err()));
    let cut = codec.decode_eof(&mut BytesMut::from("x")).unwrap().unwrap().unwrap_err();
    check(&said(&cut));
    check(&[cut.reply()]);
}

#[test]
fn encode_error_messages_contain_no_line_bytes() {
    let mut codec = LineCodec::builder().max_length(100).build();
    for byte in 0..=255_u8 {
        for line in [vec![b'z', byte, b'\n', byte], vec![byte; 101]] {
            let refused = codec.encode_line(&line, &mut BytesMut::new()).unwrap_err();
            let said = said(&refused);
            check(&said);
            assert!(said.iter().all(|said| !said.contains('z')), "{said:?}");
            let error = io::Error::from(refused);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.get_ref().is_some_and(|inner| inner.is::<EncodeError>()));
        }
    }
}

#[test]
fn errors_become_io_errors_of_the_right_kind() {
    let line = line_errors(b"abc").remove(0);
    assert_eq!(io::Error::from(line).kind(), io::ErrorKind::InvalidData);
    let mut codec = LineCodec::builder().max_block_length(1).build();
    let too_long = codec.expect_bytes(2).unwrap_err();
    assert!(matches!(too_long, BlockError::TooLong { asked: 2, max: 1, .. }));
    let message = "block of 2 bytes exceeds the limit of 1 byte (max_block_length)";
    assert_eq!(too_long.to_string(), message);
    codec.expect_bytes(1).unwrap();
    let pending = codec.expect_bytes(1).unwrap_err();
    assert!(matches!(pending, BlockError::Pending { asked: 1, .. }));
    assert_eq!(pending.to_string(), "block of 1 byte while another block is pending; read that one first");
    for error in [too_long, pending] {
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
    let empty = Delimiter::any_of(b"").unwrap_err();
    assert_eq!(empty.to_string(), "empty delimiter; use at least 1 byte");
    assert_eq!(Delimiter::sequence(b"").unwrap_err(), empty);
    let long = Delimiter::sequence(&[0; 65]).unwrap_err();
    assert_eq!(long.to_string(), "delimiter of 65 bytes exceeds the limit of 64 bytes");
}

#[test]
fn debug_output_contains_no_stream_bytes() {
    // Among the codecs, these two keep bytes of the stream.
    let mut text = TextCodec::new();
    let mut buffer = BytesMut::from("secret\nsecret\nsec");
    _ = text.decode(&mut buffer);
    assert!(!format!("{text:?}").contains("secret"));
    let mut fragments = lineframe::FragmentCodec::from(
        LineCodec::builder().delimiter(Delimiter::sequence(b"secreter").unwrap()).build(),
    );
    let bytes = Bytes::from("a secret");
    let fragment = lineframe::Fragment { bytes, is_last: false };
    tokio_util::codec::Encoder::encode(&mut fragments, fragment, &mut BytesMut::new()).unwrap();
    assert!(!format!("{fragments:?}").contains("a secret"));
    let batch = lineframe::BatchCodec::new().decode(&mut BytesMut::from("secret\n")).unwrap().unwrap();
    assert_eq!(format!("{batch:?}"), "Batch { lines: 1, bytes: 7 }");
    assert_eq!(format!("{:?}", batch.iter()), "BatchIter { lines: 1 }");
    let (reader, writer) = lineframe::Connection::new(tokio::io::empty()).into_split();
    assert!(format!("{reader:?}").starts_with("LineReader { counters: CodecCounters { lines: 0"));
    assert_eq!(format!("{writer:?}"), "LineWriter { .. }");
    assert_eq!(format!("{:?}", reader.draining()), "Draining { is_draining: false, .. }");
    let conn = lineframe::Connection::new(tokio::io::empty());
    assert!(format!("{conn:?}").starts_with("Connection { peer: Other, counters: ConnectionCounters {"));
    let server = lineframe::Server::default();
    assert!(format!("{server:?}").starts_with("Server { counters: ServerCounters {"));
    assert_eq!(format!("{:?}", lineframe::Server::builder()), "ServerBuilder { .. }");
    assert_eq!(format!("{:?}", Delimiter::any_of(b"\r\n").unwrap()), r#"AnyOf("\r\n")"#);
    assert_eq!(format!("{:?}", Delimiter::sequence(b"end\0").unwrap()), r#"Sequence("end\x00")"#);
}

#[test]
fn peers_display_their_address_or_ids() {
    use lineframe::Peer;
    assert_eq!(Peer::Tcp(([127, 0, 0, 1], 80).into()).to_string(), "127.0.0.1:80");
    assert_eq!(Peer::Unix { pid: Some(7), uid: 8, gid: 9 }.to_string(), "unix pid 7 uid 8");
    assert_eq!(Peer::Unix { pid: None, uid: 8, gid: 9 }.to_string(), "unix uid 8");
    assert_eq!(Peer::Other.to_string(), "other");
}

#[test]
fn debug_output_names_the_type() {
    let codec = || LineCodec::builder().delimiter(Delimiter::Byte(b';')).build();
    let batch = BatchCodec::from(codec()).decode(&mut BytesMut::from("a;b;")).unwrap().expect("two lines");
    for (shown, name, part) in [
        (format!("{:?}", codec()), "LineCodec", "Byte(59)"),
        (format!("{:?}", FragmentCodec::from(codec())), "FragmentCodec", "Byte(59)"),
        (format!("{:?}", TextCodec::from(codec())), "TextCodec", "Byte(59)"),
        (format!("{:?}", BatchCodec::from(codec())), "BatchCodec", "Byte(59)"),
        (format!("{batch:?}"), "Batch", "lines: 2, bytes: 4"),
        (format!("{:?}", batch.iter()), "BatchIter", "lines: 2"),
        (format!("{:?}", Delimiter::any_of(b"\0;").unwrap()), "AnyOf", "\\x00;"),
        (format!("{:?}", Delimiter::sequence(b"\x1e\n").unwrap()), "Sequence", "\\x1e\\n"),
    ] {
        assert!(shown.starts_with(name) && shown.contains(part), "{shown}");
    }
}
