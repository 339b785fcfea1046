//! Counts the instructions per line. `benches/instructions/run` runs this program under valgrind.
//!
//! `instructions CASE TIMES` processes 1024 lines of 64 bytes TIMES times, in memory and on one
//! thread. The instructions for one more repetition are the same on each run, even on a busy
//! machine. Without arguments, the program prints the names of the cases.

use std::hint::black_box;
use std::io;

use bytes::BytesMut;
use lineframe::{
    Accepted, AnyIo, Batch, BatchCodec, Connection, LineCodec, Peer, Reply, Server, TextCodec, reply_into,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Decoder;

const LINES: usize = 1024;
const LENGTH: usize = 64;

type Case = (&'static str, fn(usize));

const CASES: &[Case] = &[
    ("decode", |times| decode(times, LineCodec::new(), |line: Result<_, _>| line.is_ok().into())),
    ("decode-batch", |times| {
        decode(times, BatchCodec::new(), |batch: Batch| {
            batch.iter().filter(|line| black_box(line).is_ok()).count()
        })
    }),
    ("decode-text", |times| decode(times, TextCodec::new(), |line: Result<_, _>| line.is_ok().into())),
    ("decode-not-text", |times| {
        decode_lines(times, b"\xff", TextCodec::new(), |line: Result<_, _>| line.is_err().into());
    }),
    ("encode", |times| {
        let (mut codec, mut into) = (LineCodec::new(), BytesMut::new());
        for _ in 0..times {
            into.clear();
            for _ in 0..LINES {
                codec.encode_line(black_box(&[b'x'; LENGTH - 1]), &mut into).unwrap();
            }
            assert_eq!(black_box(&into).len(), LINES * LENGTH);
        }
    }),
    ("serve-reply-into", |times| {
        serve(times, reply_into(upper));
    }),
    ("serve-next-line", |times| serve(times, next_line)),
    ("ping-pong", ping_pong),
];

fn main() -> Result<(), &'static str> {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).ok_or("no such case")?;
    case(args.next().and_then(|times| times.parse().ok()).ok_or("usage: instructions CASE TIMES")?);
    Ok(())
}

fn lines() -> Vec<u8> {
    lines_of(b"x")
}

fn lines_of(byte: &[u8]) -> Vec<u8> {
    [&byte.repeat(LENGTH - 1)[..], b"\n"].concat().repeat(LINES)
}

fn decode<D: Decoder<Error = io::Error>>(times: usize, codec: D, count: fn(D::Item) -> usize) {
    decode_lines(times, b"x", codec, count);
}

/// Decodes lines of `byte`. `count` returns the number of lines in an item.
fn decode_lines<D: Decoder<Error = io::Error>>(
    times: usize,
    byte: &[u8],
    mut codec: D,
    count: fn(D::Item) -> usize,
) {
    let lines = lines_of(byte);
    let mut buffer = BytesMut::new();
    for _ in 0..times {
        buffer.extend_from_slice(&lines);
        let mut found = 0;
        while let Some(item) = codec.decode(&mut buffer).unwrap() {
            found += count(black_box(item));
        }
        assert_eq!(found, LINES);
    }
}

fn upper(line: &[u8], reply: &mut Reply<'_>) {
    reply.extend_from_slice(line);
    reply.make_ascii_uppercase();
}

/// Serves a peer that sends all lines before it reads the replies.
fn serve<H: Future<Output = io::Result<()>>>(times: usize, handler: impl Fn(Connection) -> H) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (mut peer, io) = tokio::io::duplex(LINES * LENGTH);
        let peer = async {
            let (sent, mut replies) = (lines(), lines());
            for _ in 0..times {
                peer.write_all(&sent).await?;
                peer.read_exact(&mut replies).await?;
                assert!(replies.starts_with(b"XX"));
            }
            drop(peer);
            Ok(())
        };
        tokio::try_join!(handler(Connection::new(io)), peer).unwrap();
    });
}

/// Runs a `Server` with its default limits and timeouts, and a peer that waits for each reply
/// before it sends the next line.
fn ping_pong(times: usize) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (mut peer, io) = tokio::io::duplex(LENGTH);
        let accepted = Accepted::new(AnyIo::new(io), Peer::Other);
        let served = tokio::spawn(Server::new().serve_one(accepted, reply_into(upper)));
        let (sent, mut reply) = ([&[b'x'; LENGTH - 1][..], b"\n"].concat(), [0; LENGTH]);
        for _ in 0..times * LINES {
            peer.write_all(&sent).await.unwrap();
            peer.read_exact(&mut reply).await.unwrap();
            assert!(reply.starts_with(b"XX"));
        }
        drop(peer);
        served.await.unwrap();
    });
}

async fn next_line(mut conn: Connection) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
            Err(bad) => conn.write_line(bad.reply()).await?,
        }
    }
    Ok(())
}
