//! Checks that `reply` and `reply_into` send the same replies to the same lines.

mod served;

use std::io;

use lineframe::{
    Accepted, AnyIo, Connection, Delimiter, LineCodec, Peer, Server, ServerBuilder, ServerCounters,
    Unterminated, reply, reply_into,
};
use proptest::collection::vec;
use proptest::prelude::*;
use served::{Buffers, Running, rest, soon, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Functions of a byte. Some turn other bytes into a terminator or a part of one, or a terminator
/// into something else.
const MAPS: [fn(u8) -> u8; 9] = [
    |byte| byte.to_ascii_uppercase(),
    |byte| byte,
    |byte| byte ^ 1,
    |byte| byte ^ 0x80,
    |byte| if byte == b'x' { b'\n' } else { byte },
    |byte| if byte == b'x' { b'\r' } else { byte },
    |byte| if byte == b'\n' { b'x' } else { byte },
    |byte| if byte == b'z' { b'a' } else { byte },
    |_| b'y',
];

fn delimiters() -> Vec<Delimiter> {
    vec![
        Delimiter::Newline,
        Delimiter::Newline,
        Delimiter::Lf,
        Delimiter::Byte(b'\n'),
        Delimiter::Byte(b'x'),
        // Error lines contain this byte.
        Delimiter::Byte(b'a'),
        Delimiter::CrLf,
        Delimiter::any_of(b"\n\r").unwrap(),
        Delimiter::any_of(b"x").unwrap(),
        Delimiter::sequence(b"\n").unwrap(),
        Delimiter::sequence(b"xy").unwrap(),
    ]
}

prop_compose! {
    fn codec()(
        delimiter in prop::sample::select(delimiters()),
        max_length in prop::sample::select(vec![0, 3, 100, 10_000]),
        max_encoded_length in prop::sample::select(vec![0, 2, 100, 300, 10_000]),
        write_crlf: bool,
        deliver: bool,
        block in prop::option::of(0..200_usize),
    ) -> LineCodec {
        let unterminated = if deliver { Unterminated::Deliver } else { Unterminated::Report };
        let builder = LineCodec::builder()
            .write_crlf(write_crlf && delimiter == Delimiter::Newline)
            .delimiter(delimiter)
            .max_length(max_length)
            .max_encoded_length(max_encoded_length)
            .unterminated(unterminated);
        let mut codec = builder.build();
        if let Some(count) = block {
            codec.expect_bytes(count).unwrap();
        }
        codec
    }
}

/// Generates streams. One in 30 is so long that replies have to wait for the peer.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let letter =
        prop::sample::select(vec![&b"x"[..], b"a", b"z", b"\n", b"\n", b"\r\n", b"\r", b"xy", b"\xff"]);
    let run = (letter, prop_oneof![3 => 1..4_usize, 1 => 1..90_usize])
        .prop_map(|(letter, times)| letter.repeat(times));
    let some = vec(run, 0..40).prop_map(|runs| runs.concat());
    (some, prop_oneof![29 => Just(1), 1 => Just(300_usize)]).prop_map(|(some, times)| some.repeat(times))
}

/// Sends `sent` in reads of at most `read_size` bytes. Returns the replies and the counters.
async fn answered<H, Fut>(
    handler: H,
    server: ServerBuilder,
    sent: &[u8],
    read_size: usize,
) -> (Vec<u8>, ServerCounters)
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let server = server.build();
    let (peer, io) = tokio::io::duplex(read_size);
    let (mut reader, mut writer) = tokio::io::split(peer);
    let mut said = Vec::new();
    let served = server.serve_one(Accepted::new(AnyIo::new(io), Peer::Other), handler);
    let write = async {
        // A handler may end before it has read everything.
        _ = writer.write_all(sent).await;
        _ = writer.shutdown().await;
    };
    let ((), (), read) = tokio::join!(served, write, reader.read_to_end(&mut said));
    read.unwrap();
    (said, server.counters())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn reply_and_reply_into_send_the_same(
        codec in codec(),
        sent in stream(),
        map in prop::sample::select(MAPS.to_vec()),
        max_unsent in prop::sample::select(vec![1, 100, 64 * 1024]),
        max_bad_lines in prop::sample::select(vec![None, Some(1)]),
        read_size in prop::sample::select(vec![1, 7, 100, 5000, 1 << 20]),
    ) {
        let server = || Server::builder().codec(codec.clone()).max_unsent(max_unsent).max_bad_lines(max_bad_lines);
        check_same_replies(server, &sent, map, read_size);
    }
}

fn check_same_replies(server: impl Fn() -> ServerBuilder, sent: &[u8], map: fn(u8) -> u8, read_size: usize) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mapped = move |line: &[u8]| line.iter().map(|byte| map(*byte)).collect::<Vec<_>>();
        let into = reply_into(move |line, reply| reply.extend(mapped(line)));
        let expected = answered(reply(mapped), server(), sent, read_size).await;
        let got = answered(into, server(), sent, read_size).await;
        assert!(got == expected, "into: {got:?} instead of {expected:?}");
    });
}

/// Covers cases that random input may miss: lines whose reply becomes two lines, ends in part of
/// the terminator, or is too long.
#[test]
fn replies_are_the_same_for_many_lines() {
    for delimiter in delimiters() {
        for map in MAPS {
            for line in [&b"ax"[..], b"xa", b"z", b"", b"a\r", &[b'b'; 300], &[b'b'; 301]] {
                let codec = LineCodec::builder().delimiter(delimiter.clone()).max_encoded_length(300).build();
                let line = [line, delimiter.written()].concat();
                let others = [b"y", delimiter.written()].concat().repeat(40);
                let sent = [&others[..], &line, &others, &line, &line].concat();
                check_same_replies(|| Server::builder().codec(codec.clone()), &sent, map, 1 << 20);
            }
        }
    }
}

#[tokio::test]
async fn empty_block_is_answered_without_input() {
    let mut codec = LineCodec::new();
    codec.expect_bytes(0).unwrap();
    let (mut peer, io) = tokio::io::duplex(100);
    let length = reply(|block| block.len().to_string());
    let served =
        Server::builder().codec(codec).build().serve_one(Accepted::new(AnyIo::new(io), Peer::Other), length);
    let asked = async {
        let mut said = [0; 2];
        soon(peer.read_exact(&mut said)).await.unwrap();
        assert_eq!(&said, b"0\n");
        drop(peer);
    };
    tokio::join!(served, asked);
}

/// The reply was incomplete when the handler panicked.
#[tokio::test]
async fn partial_reply_of_a_panicking_handler_is_dropped() {
    let half = reply_into(|line, reply| {
        // For `two`, the reply would be read as two lines.
        let also = if line == b"two" { &b"\n2"[..] } else { b"" };
        reply.extend_from_slice(&[line, also].concat());
        assert_ne!(line, b"panic", "as asked");
    });
    let refused = "contains a terminator, or part of one, at byte 3; remove or escape it";
    panics(half, "a\ntwo\nb\npanic\nc\n", &format!("a\nerror: reply refused: line {refused}\nb\n")).await;
}

async fn panics<H, Fut>(handler: H, sent: &str, expected: &str)
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let (address, listener) = tcp(Buffers::Usual);
    let running = Running::start(Server::builder(), listener, handler);
    let mut peer = address.connect().await.unwrap();
    peer.write_all(sent.as_bytes()).await.unwrap();
    assert_eq!(soon(rest(&mut peer)).await, expected);
    assert_eq!(soon(running.stopped()).await.panicked, 1);
}

#[test]
fn reply_edits_keep_the_bytes_before_it() {
    use std::fmt::Write as _;
    use std::io::Write as _;

    let mut bytes = bytes::BytesMut::from("before");
    let mut reply = lineframe::Reply::from(&mut bytes);
    assert!(reply.is_empty());
    reply.extend_from_slice(b"some bytes");
    reply.make_ascii_uppercase();
    reply.truncate(4);
    reply.truncate(usize::MAX);
    reply.push(b' ');
    reply.extend(b"a".iter().chain(b"b"));
    reply.extend(*b"cd");
    reply.write_all(b" e").unwrap();
    reply.flush().unwrap();
    reply.write_char('é').unwrap();
    assert_eq!(&reply[..], "SOME abcd eé".as_bytes());
    assert_eq!(format!("{reply:?}"), r#""SOME abcd e\xc3\xa9""#);
    reply.clear();
    reply.reserve(100);
    io::Write::write_fmt(&mut reply, format_args!("{}", 7)).unwrap();
    assert_eq!(bytes, "before7");
}
