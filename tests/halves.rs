//! Settings and queries of the halves of a connection, and of a connection while its halves are
//! borrowed. `cancel.rs` and `scripted.rs` test reading and writing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use lineframe::{
    Accepted, AnyIo, Connection, Delimiter, EncodeError, Error, LineCodec, LineError, LineReader, LineWriter,
    Peer, Server, TimeoutKind,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, duplex};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn reader_and_writer_work_on_separate_streams() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let (reader, writer) = tokio::io::split(io);
    let semicolon = || LineCodec::builder().delimiter(Delimiter::Byte(b';')).build();
    let mut reader = LineReader::with_codec(reader, semicolon());
    let mut writer = LineWriter::with_codec(writer, semicolon());
    peer.write_all(b"a\nb;").await?;
    assert_eq!(reader.next_line().await?.unwrap(), Ok("a\nb".into()));
    writer.send_line("c\nd").await?;
    let mut got = [0; 4];
    peer.read_exact(&mut got).await?;
    assert_eq!(&got, b"c\nd;");
    assert_eq!((reader.counters().lines, reader.counters().content_bytes), (1, 3));

    // The default delimiter is a newline.
    let mut reader = LineReader::new(&b"a;\r\nb"[..]);
    assert_eq!(reader.next_line().await?.unwrap(), Ok("a;".into()));
    assert!(matches!(reader.next_line().await?, Some(Err(LineError::Unterminated { .. }))));
    assert!(reader.next_line().await?.is_none());
    // A reader outside a server is never draining.
    assert!(!reader.is_draining());
    assert!(is_waiting(reader.draining()));
    Ok(())
}

fn is_waiting(future: impl Future) -> bool {
    std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test]
async fn set_max_length_applies_to_each_half() -> io::Result<()> {
    let mut reader = LineReader::new(&b"four\nfour\n"[..]);
    reader.set_max_length(4);
    assert_eq!(reader.next_line().await?.unwrap(), Ok("four".into()));
    reader.set_max_length(3);
    assert!(matches!(reader.next_line().await?, Some(Err(LineError::TooLong { max_length: 3, .. }))));

    let mut writer = LineWriter::new(Vec::new());
    writer.set_max_length(3);
    writer.feed_line("abc").await?;
    let refused = writer.feed_line("four").await;
    assert!(matches!(refused, Err(Error::Encode(EncodeError::TooLong { length: 4, max_length: 3, .. }))));

    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    conn.set_max_length(3);
    peer.write_all(b"four\n").await?;
    assert!(matches!(conn.next_line().await?, Some(Err(LineError::TooLong { max_length: 3, .. }))));
    assert!(matches!(conn.write_line("four").await, Err(Error::Encode(_))));
    conn.send_line("abc").await?;
    Ok(())
}

async fn ends_after<T>(
    expected: Duration,
    timeout: TimeoutKind,
    call: impl Future<Output = Result<T, Error>>,
) {
    let since = Instant::now();
    let ended = tokio::time::timeout(60 * SECOND, call).await.expect("no timeout").map(drop);
    assert!(matches!(ended, Err(Error::Timeout(of)) if of == timeout), "{ended:?}");
    // Tokio's timers have a resolution of 1 ms.
    let took = since.elapsed();
    assert!((expected..=expected + Duration::from_millis(3)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn each_half_has_its_own_deadlines() {
    let (mut peer, io) = duplex(4);
    let (mut reader, mut writer) = Connection::new(io).into_split();
    writer.set_write_timeout(3 * SECOND);
    ends_after(3 * SECOND, TimeoutKind::Write, writer.send_line("longer than the pipe")).await;
    reader.set_line_timeout(2 * SECOND);
    peer.write_all(b"x").await.unwrap();
    ends_after(2 * SECOND, TimeoutKind::Line, reader.next_line()).await;

    let (_peer, io) = duplex(4);
    let (mut reader, _writer) = Connection::new(io).into_split();
    reader.set_idle_timeout(SECOND);
    ends_after(SECOND, TimeoutKind::Idle, reader.next_line()).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_its_deadlines() {
    let (mut peer, io) = duplex(4);
    let mut conn = Connection::new(io);
    conn.set_line_timeout(2 * SECOND);
    peer.write_all(b"x").await.unwrap();
    ends_after(2 * SECOND, TimeoutKind::Line, conn.next_line()).await;

    let (_peer, io) = duplex(4);
    let mut conn = Connection::new(io);
    conn.set_idle_timeout(SECOND);
    ends_after(SECOND, TimeoutKind::Idle, conn.next_line()).await;

    let (_peer, io) = duplex(4);
    let mut conn = Connection::new(io);
    conn.set_write_timeout(3 * SECOND);
    ends_after(3 * SECOND, TimeoutKind::Write, conn.send_line("longer than the pipe")).await;
}

/// The deadline counts from the first byte, even if the line is requested later or in another
/// batch.
#[tokio::test(start_paused = true)]
async fn line_timeout_starts_at_the_first_byte() {
    let connection = || {
        let (peer, io) = duplex(64);
        let mut conn = Connection::with_codec(io, LineCodec::builder().max_length(4).build());
        conn.set_line_timeout(10 * SECOND);
        (peer, conn)
    };
    // The partial line was received together with the line before it.
    let (mut peer, mut conn) = connection();
    peer.write_all(b"a\nb").await.unwrap();
    assert_eq!(conn.next_line().await.unwrap().unwrap(), Ok("a".into()));
    sleep(6 * SECOND).await;
    ends_after(4 * SECOND, TimeoutKind::Line, conn.next_line()).await;

    // A line over the limit is reported before its terminator arrives. The deadline still counts
    // from its first byte.
    let (mut peer, mut conn) = connection();
    peer.write_all(b"l").await.unwrap();
    let rest = async {
        sleep(6 * SECOND).await;
        peer.write_all(b"onger").await.unwrap();
    };
    let (batch, ()) = tokio::join!(conn.next_batch(), rest);
    assert_eq!(batch.unwrap().unwrap().len(), 1);
    ends_after(4 * SECOND, TimeoutKind::Line, conn.next_batch()).await;

    // The partial line after the terminator is a new line with its own deadline.
    let (mut peer, mut conn) = connection();
    peer.write_all(b"a").await.unwrap();
    let rest = async {
        sleep(6 * SECOND).await;
        peer.write_all(b"\nlonger").await.unwrap();
    };
    let (batch, ()) = tokio::join!(conn.next_batch(), rest);
    assert_eq!(batch.unwrap().unwrap().len(), 2);
    ends_after(10 * SECOND, TimeoutKind::Line, conn.next_batch()).await;
}

#[tokio::test]
async fn borrowed_halves_update_the_connection_counters() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    peer.write_all(b"one\ntwo\nthree\n").await?;
    {
        let (mut reader, mut writer) = conn.split();
        reader.next_line().await?;
        reader.next_line().await?;
        writer.send_line("reply").await?;
    }
    // The counters are correct before any other call rejoins the halves.
    let counters = conn.counters();
    assert_eq!((counters.read.lines, counters.lines_written, counters.bytes_sent), (2, 1, 6));
    assert_eq!(conn.next_line().await?.unwrap(), Ok("three".into()));
    assert_eq!(conn.counters().read.lines, 3);
    Ok(())
}

/// A leaked half keeps the bytes that it has buffered, so the connection cannot continue.
#[tokio::test]
async fn leaked_half_disconnects_the_connection() -> io::Result<()> {
    let (_peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    let (reader, writer) = conn.split();
    drop(writer);
    std::mem::forget(reader);
    let gone = conn.next_line().await.unwrap_err();
    assert!(matches!(gone, Error::Io(error) if error.kind() == io::ErrorKind::NotConnected));
    Ok(())
}

#[tokio::test]
async fn into_any_keeps_the_state_of_a_connection() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let mut conn = Connection::from_io(io, LineCodec::new());
    peer.write_all(b"one\ntwo\n").await?;
    assert_eq!(conn.next_line().await?.unwrap(), Ok("one".into()));
    let request = conn.request("dropped before its reply");
    assert!(matches!(poll_once(request), Poll::Ready(Ok(_))), "the second line is taken for its reply");
    assert!(is_waiting(conn.request("never answered")));
    let mut conn: Connection = conn.into_any();
    assert_eq!(conn.counters().read.lines, 2);
    assert!(conn.request("too early").await.is_err(), "a reply is pending");
    // `into_any` on a `Connection` that is already type-erased changes nothing.
    let mut conn = conn.into_any();
    peer.write_all(b"three\n").await?;
    assert_eq!(conn.next_line().await?.unwrap(), Ok("three".into()));

    let (peer, io) = duplex(64);
    let mut conn = Connection::from_io(io, LineCodec::new());
    conn.set_idle_timeout(Duration::ZERO);
    assert!(conn.next_line().await.is_err());
    let mut conn = conn.into_any();
    let gone = conn.next_line().await.unwrap_err();
    assert!(matches!(gone, Error::Io(error) if error.kind() == io::ErrorKind::NotConnected));
    drop(peer);
    Ok(())
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn buffered_writer_of_a_join_is_flushed() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let (reader, writer) = tokio::io::split(io);
    let mut conn = Connection::join(reader, tokio::io::BufWriter::new(writer));
    conn.send_line("a").await?;
    let mut got = [0; 2];
    assert!(!is_waiting(peer.read_exact(&mut got)));
    assert_eq!(&got, b"a\n");
    Ok(())
}

/// A stream of the lines that another connection reads.
struct Through(Connection<tokio::io::DuplexStream>);

impl AsyncRead for Through {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(line) = ready!(std::pin::pin!(self.0.next_line()).poll(cx))? {
            into.put_slice(&line?);
            into.put_slice(b"\n");
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn connection_can_read_through_another_connection() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    peer.write_all(b"one\r\ntwo\r\n").await?;
    drop(peer);
    let mut reader = LineReader::new(Through(Connection::from_io(io, LineCodec::new())));
    assert_eq!(reader.next_line().await?.unwrap(), Ok("one".into()));
    assert_eq!(reader.next_line().await?.unwrap(), Ok("two".into()));
    assert!(reader.next_line().await?.is_none());
    Ok(())
}

/// Each method rejoins dropped halves before it looks at their state.
#[tokio::test]
async fn dropped_halves_rejoin_before_the_next_call() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    peer.write_all(b"STARTTLS\nnot yet secret\n").await?;
    let (mut reader, writer) = conn.split();
    assert_eq!(reader.next_line().await?.unwrap(), Ok("STARTTLS".into()));
    drop((reader, writer));
    let upgraded = conn.upgrade(async |io| Ok(io)).await;
    assert!(matches!(upgraded, Err(Error::LeftOver { bytes: 15, .. })), "{upgraded:?}");
    assert_eq!(conn.next_line().await?.unwrap(), Ok("not yet secret".into()));

    assert!(is_waiting(conn.request("a")));
    drop(conn.split());
    let refused = timeout(SECOND, conn.request("b")).await;
    assert!(matches!(refused, Ok(Err(Error::Io(_)))), "the reply to the first request is pending");
    peer.write_all(b"A\n").await?;
    assert_eq!(conn.next_line().await?.unwrap(), Ok("A".into()));
    Ok(())
}

#[tokio::test]
async fn reunited_halves_restore_the_connection() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    peer.write_all(b"one\ntwo\n").await?;
    assert_eq!(conn.next_line().await?.unwrap(), Ok("one".into()));
    let (reader, mut writer) = conn.into_split();
    writer.feed_line("queued").await?;
    let (_, stranger) = Connection::new(duplex(64).1).into_split();
    let refused = Connection::reunite(reader, stranger).unwrap_err();
    let mut conn = Connection::reunite(refused.0, writer).unwrap();
    assert_eq!(conn.next_line().await?.unwrap(), Ok("two".into()));
    conn.flush().await?;
    let mut got = [0; 7];
    peer.read_exact(&mut got).await?;
    assert_eq!(&got, b"queued\n");
    assert_eq!(conn.counters().read.lines, 2);
    Ok(())
}

#[tokio::test]
async fn a_connection_is_a_stream_and_a_sink() -> io::Result<()> {
    use futures::{SinkExt, StreamExt};

    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    peer.write_all(b"one\ntwo\n").await?;
    assert_eq!(conn.next().await.unwrap()?, Ok("one".into()));
    assert_eq!(conn.next().await.unwrap()?, Ok("two".into()));
    conn.feed("three".into()).await?;
    assert!(matches!(conn.feed("two\nlines".into()).await, Err(Error::Encode(_))));
    conn.close().await?;
    let mut got = String::new();
    drop(conn);
    peer.read_to_string(&mut got).await?;
    assert_eq!(got, "three\n");

    // Relaying lines needs no error adapter.
    let lines = LineReader::new(&b"a\nb\n"[..]).map(|line| Ok(line??));
    let mut output = Vec::new();
    lines.forward(LineWriter::new(&mut output)).await?;
    assert_eq!(output, b"a\nb\n");
    Ok(())
}

#[tokio::test]
async fn batch_returns_only_to_its_own_connection() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    peer.write_all(b"one\ntwo\n").await?;
    let batch = conn.next_batch().await?.unwrap();
    let batch = Connection::new(duplex(64).1).put_back(batch).unwrap_err();
    assert_eq!(batch.len(), 2);
    let copy = batch.clone();
    conn.put_back(batch).unwrap();
    assert!(conn.put_back(copy).is_err(), "the batch was put back before");
    let batch = conn.next_batch().await?.unwrap();
    peer.write_all(b"three\n").await?;
    assert_eq!(conn.next_line().await?.unwrap(), Ok("three".into()));
    assert!(conn.put_back(batch).is_err(), "a line was read after the batch");
    Ok(())
}

/// The skip applies to bytes after the batch. If the batch were put back, its lines would be
/// skipped instead.
#[tokio::test]
async fn batch_cannot_be_put_back_after_skip() -> io::Result<()> {
    let (mut peer, io) = duplex(64);
    let mut conn = Connection::new(io);
    peer.write_all(b"one\ntwo\n").await?;
    let batch = conn.next_batch().await?.unwrap();
    assert!(is_waiting(conn.skip_bytes(4)));
    assert!(conn.put_back(batch).is_err());
    Ok(())
}

#[tokio::test]
async fn stream_of_lines_ends_after_an_error() {
    use futures::StreamExt;

    let failing = one_line_then_an_error();
    let items: Vec<_> = LineReader::new(failing).take(10).collect().await;
    assert_eq!(items.len(), 2);
    assert!(items[0].is_ok() && items[1].is_err());
}

fn one_line_then_an_error() -> impl AsyncRead + Unpin {
    struct Failing;

    impl AsyncRead for Failing {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    AsyncReadExt::chain(&b"one\n"[..], Failing)
}

/// A stream that panics when it is read.
struct Panics;

impl AsyncRead for Panics {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        panic!("this stream panics");
    }
}

/// The halves are dropped while the thread unwinds. A second panic in `Drop` would abort the
/// process.
#[tokio::test]
async fn panicking_stream_ends_only_its_connection() {
    let server = Server::new();
    for in_a_task in [false, true] {
        let accepted = Accepted::new(AnyIo::new(tokio::io::join(Panics, tokio::io::sink())), Peer::Other);
        let handler = async move |conn: Connection| {
            let (mut reader, mut writer) = conn.into_split();
            writer.feed_line("a").await?;
            if !in_a_task {
                _ = reader.next_line().await;
                unreachable!();
            }
            let reading = tokio::spawn(async move { _ = reader.next_line().await });
            assert!(reading.await.unwrap_err().is_panic());
            drop(writer);
            Ok(())
        };
        server.serve_one(accepted, handler).await;
    }
    let counters = server.counters();
    assert_eq!((counters.accepted, counters.panicked, counters.lines_written), (2, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn stream_and_sink_wake_each_other() {
    // Imported here only, because `StreamExt::split` conflicts with `Connection::split` in the
    // other tests.
    use futures::{SinkExt, StreamExt};

    let (mut peer, io) = duplex(64);
    let (mut sink, mut stream) = StreamExt::split(Connection::new(io));
    let writing = tokio::spawn(async move {
        for _ in 0..1000 {
            sink.send(Bytes::from(vec![b'x'; 1000])).await.unwrap();
        }
        sink
    });
    let reading = tokio::spawn(async move {
        let mut lines = 0;
        while let Some(line) = stream.next().await {
            line.unwrap().unwrap();
            lines += 1;
        }
        lines
    });
    let mut received = vec![0; 1001];
    for n in 0..1000 {
        // The paused clock advances only when all tasks are idle, so a task that is not woken
        // causes this timeout.
        let read = timeout(SECOND, peer.read_exact(&mut received));
        read.await.unwrap_or_else(|_| panic!("a task was not woken before line {n}")).unwrap();
        if n % 10 == 0 {
            peer.write_all(b"a\n").await.unwrap();
        }
    }
    drop(writing.await.unwrap());
    drop(peer);
    assert_eq!(reading.await.unwrap(), 100);
}
