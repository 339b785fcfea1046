use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use lineframe::{
    Accepted, AnyIo, Connection, Error, LineCodec, Peer, Server, ServerBuilder, TimeoutKind, reply,
};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};

use crate::served::{Running, in_memory, line, rest, upper};

pub(crate) const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Connects one peer to a server.
pub(crate) fn one<H, Fut>(builder: ServerBuilder, capacity: usize, handler: H) -> (DuplexStream, Running)
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let (dialer, listener) = in_memory();
    let running = Running::start(builder, listener, handler);
    (dialer.connect(capacity), running)
}

/// Returns a server without deadlines, so that a test sets the one it needs.
pub(crate) fn no_deadlines() -> ServerBuilder {
    let builder = Server::builder().idle_timeout(None).line_timeout(None).write_timeout(None);
    builder.handshake_timeout(None).drain_timeout(None).linger_timeout(Duration::ZERO)
}

/// Allows 3 ms of delay. Tokio's timers have a resolution of 1 ms.
#[track_caller]
pub(crate) fn assert_took(since: Instant, expected: Duration) {
    let took = since.elapsed();
    assert!(expected <= took && took <= expected + 3 * MS, "{took:?} instead of {expected:?}");
}

/// Sends one byte per second until the server ends the stream. Returns what the server sent.
/// Detects the end within a second.
pub(crate) async fn drip(peer: DuplexStream) -> String {
    let (mut reader, mut writer) = tokio::io::split(peer);
    let drip = async {
        loop {
            _ = writer.write_all(b"x").await;
            sleep(SECOND).await;
        }
    };
    tokio::select! {
        said = rest(&mut reader) => said,
        () = drip => unreachable!(),
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn idle_timeout() {
    let (mut peer, running) = one(no_deadlines().idle_timeout(LIMIT), 64, reply(upper));
    for _ in 0..3 {
        sleep(LIMIT - MS).await;
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(line(&mut peer).await, "A\n");
    }
    let since = Instant::now();
    assert_eq!(rest(&mut peer).await, "");
    assert_took(since, LIMIT);
    let counters = running.stopped().await;
    assert_eq!((counters.idle_timeouts, counters.line_timeouts, counters.failed), (1, 0, 0));

    let (mut peer, _running) = one(no_deadlines().idle_timeout(LIMIT), 64, reply(upper));
    sleep(LIMIT + 2 * MS).await;
    assert!(peer.write_all(b"a\n").await.is_err());
}

#[tokio::test(start_paused = true)]
pub(crate) async fn idle_timeout_applies_to_bodies() {
    async fn skips(mut conn: Connection) -> io::Result<()> {
        conn.skip_bytes(5).await?;
        conn.body(5).read_exact(&mut [0; 5]).await?;
        // The next read skips the rest of a dropped body.
        conn.body(5).read_exact(&mut [0; 1]).await?;
        while let Some(line) = conn.next_line().await? {
            conn.write_line(line?).await?;
        }
        Ok(())
    }
    let builder = || no_deadlines().idle_timeout(LIMIT).line_timeout(LIMIT);
    for stalls_at in 0..=15 {
        let (mut peer, running) = one(builder(), 64, skips);
        for _ in 0..stalls_at {
            sleep(LIMIT - MS).await;
            peer.write_all(b"x").await.expect("each byte is in time");
        }
        if stalls_at < 15 {
            let since = Instant::now();
            assert_eq!(rest(&mut peer).await, "");
            assert_took(since, LIMIT);
            assert_eq!(running.stopped().await.idle_timeouts, 1, "{stalls_at}");
        } else {
            peer.write_all(b"a\n").await.unwrap();
            assert_eq!(line(&mut peer).await, "a\n");
        }
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn line_timeout() {
    let builder = || no_deadlines().line_timeout(LIMIT);
    let (mut peer, running) = one(builder(), 64, reply(upper));
    for _ in 0..3 {
        sleep(10 * LIMIT).await;
        peer.write_all(b"a").await.unwrap();
        sleep(LIMIT - MS).await;
        peer.write_all(b"\n").await.unwrap();
        assert_eq!(line(&mut peer).await, "A\n");
    }
    let since = Instant::now();
    assert_eq!(drip(peer).await, "");
    assert_took(since, LIMIT);
    let counters = running.stopped().await;
    assert_eq!((counters.line_timeouts, counters.lines, counters.failed), (1, 3, 0));

    let (mut peer, _running) = one(builder(), 64, reply(upper));
    peer.write_all(b"a").await.unwrap();
    sleep(LIMIT + 2 * MS).await;
    assert!(peer.write_all(b"\n").await.is_err());
}

/// A line that starts in the same read as the end of the previous line has its own deadline.
#[tokio::test(start_paused = true)]
async fn line_timeout_counts_from_the_first_byte() {
    let codec = LineCodec::builder().max_length(4).max_encoded_length(100).build();
    for sent in ["abc", "too long", "too long and skipped"] {
        let (mut peer, _running) =
            one(no_deadlines().line_timeout(LIMIT).codec(codec.clone()), 64, reply(upper));
        peer.write_all(sent.as_bytes()).await.unwrap();
        sleep(LIMIT * 2 / 3).await;
        peer.write_all(b"\nb").await.unwrap();
        line(&mut peer).await;
        sleep(LIMIT * 2 / 3).await;
        peer.write_all(b"\n").await.expect("in time");
        assert_eq!(line(&mut peer).await, "B\n", "after {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn line_timeout_applies_to_long_lines() {
    let codec = LineCodec::builder().max_length(4).max_encoded_length(100).build();
    let (peer, running) = one(no_deadlines().line_timeout(LIMIT).codec(codec), 64, reply(upper));
    let since = Instant::now();
    assert_eq!(drip(peer).await, "error: line exceeds the limit of 4 bytes (max_length)\n");
    assert_took(since, LIMIT);
    let counters = running.stopped().await;
    assert_eq!((counters.line_timeouts, counters.bad_lines, counters.lines), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
pub(crate) async fn line_timeout_applies_to_blocks() {
    async fn block(mut conn: Connection) -> io::Result<()> {
        conn.next_line().await?;
        // The peer waits for `go ahead`, which may take any time.
        sleep(2 * LIMIT).await;
        conn.send_line("go ahead").await?;
        let block = conn.read_bytes(40).await?;
        conn.write_line(block.len().to_string()).await?;
        Ok(())
    }
    let builder = || no_deadlines().line_timeout(LIMIT);
    let (mut peer, running) = one(builder(), 64, block);
    peer.write_all(b"put\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "go ahead\n");
    let since = Instant::now();
    assert_eq!(drip(peer).await, "");
    assert_took(since, LIMIT);
    assert_eq!(running.stopped().await.line_timeouts, 1);

    let (mut peer, _running) = one(builder(), 64, block);
    peer.write_all(b"put\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "go ahead\n");
    peer.write_all(&[0; 39]).await.unwrap();
    sleep(LIMIT - MS).await;
    peer.write_all(&[0]).await.unwrap();
    assert_eq!(line(&mut peer).await, "40\n");
}

/// Waiting for a block must not start the deadline of a line.
#[tokio::test(start_paused = true)]
async fn dropped_block_read_leaves_no_deadline() {
    async fn gives_up(mut conn: Connection) -> io::Result<()> {
        assert!(timeout(LIMIT * 2 / 3, conn.read_bytes(10)).await.is_err());
        while let Some(line) = conn.next_line().await? {
            conn.write_line(line?).await?;
        }
        Ok(())
    }
    for first in ["", "a"] {
        let (mut peer, running) = one(no_deadlines().line_timeout(LIMIT), 64, gives_up);
        sleep(LIMIT / 2).await;
        peer.write_all(first.as_bytes()).await.unwrap();
        sleep(LIMIT / 4).await;
        peer.write_all(b"b").await.unwrap();
        sleep(LIMIT / 2).await;
        peer.write_all(b"c\n").await.expect("in time");
        assert_eq!(line(&mut peer).await, format!("{first}bc\n"));
        drop(peer);
        assert_eq!(running.stopped().await.line_timeouts, 0);
    }
}

/// A stream that always has more bytes of a line without an end. Each read takes 100 ms.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        _ = tokio::time::advance(SECOND / 10).now_or_never();
        buf.put_slice(&[b'x'; 64 * 1024]);
        Poll::Ready(Ok(()))
    }
}

/// Received bytes are read before a deadline is checked, but not without end.
#[tokio::test(start_paused = true)]
async fn endless_input_is_closed_at_line_timeout() {
    async fn block(mut conn: Connection) -> io::Result<()> {
        conn.read_bytes(1 << 30).await?;
        Ok(())
    }
    async fn lines(mut conn: Connection) -> io::Result<()> {
        while conn.next_line().await?.is_some() {}
        Ok(())
    }
    for handles_block in [false, true] {
        let codec = LineCodec::builder().max_block_length(1 << 30).build();
        let server = no_deadlines().line_timeout(LIMIT).codec(codec).build();
        let since = Instant::now();
        let accepted = Accepted::new(AnyIo::new(tokio::io::join(Endless, tokio::io::sink())), Peer::Other);
        let served = async {
            match handles_block {
                true => server.serve_one(accepted, block).await,
                false => server.serve_one(accepted, lines).await,
            }
        };
        tokio::select! {
            () = served => {}
            () = sleep(3 * LIMIT) => panic!("the line timeout did not expire"),
        }
        assert_eq!(server.counters().line_timeouts, 1);
        assert!((LIMIT..2 * LIMIT).contains(&since.elapsed()), "{:?}", since.elapsed());
    }
}

/// Receives when, and with what result, a handler finished an `Op` after writing 1000 bytes. The
/// stream holds 10 bytes.
type Done = UnboundedReceiver<(Instant, Result<(), Error>)>;

#[derive(Clone, Copy, Debug)]
enum Op {
    WriteLine,
    NextLine,
    Flush,
    SendLine,
    Shutdown,
}

fn writing(op: Op) -> (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>, Done) {
    let (done, events) = unbounded_channel();
    let handler = async move |mut conn: Connection| {
        conn.write_bytes([b'-'; 1000]).await?;
        let result = match op {
            Op::WriteLine => conn.write_line("").await,
            Op::NextLine => conn.next_line().await.map(|_| ()),
            Op::Flush => conn.flush().await,
            Op::SendLine => conn.send_line("").await,
            Op::Shutdown => conn.shutdown().await,
        };
        _ = done.send((Instant::now(), result));
        Ok(())
    };
    let (peer, running) = one(no_deadlines().write_timeout(LIMIT).max_unsent(100), 10, handler);
    tokio::spawn(running.stopped_by_itself());
    let (reader, writer) = tokio::io::split(peer);
    (reader, writer, events)
}

const OPS: [Op; 5] = [Op::WriteLine, Op::NextLine, Op::Flush, Op::SendLine, Op::Shutdown];

#[tokio::test(start_paused = true)]
pub(crate) async fn write_timeout() {
    for op in OPS {
        let since = Instant::now();
        let (_reader, _writer, mut done) = writing(op);
        let (at, result) = done.recv().await.unwrap();
        assert!(matches!(result, Err(Error::Timeout(TimeoutKind::Write))), "{op:?}: {result:?}");
        assert_eq!((at - since).as_secs(), LIMIT.as_secs(), "{op:?}");

        let (mut reader, mut writer, mut done) = writing(op);
        writer.write_all(b"a\n").await.unwrap();
        sleep(LIMIT - 2 * MS).await;
        reader.read_exact(&mut [0; 1000]).await.unwrap();
        assert!(done.recv().await.unwrap().1.is_ok(), "{op:?}");
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn write_timeout_restarts_with_each_byte_taken() {
    for op in OPS {
        let (mut reader, _writer, mut done) = writing(op);
        for _ in 0..100 {
            reader.read_exact(&mut [0]).await.expect("in time");
            sleep(SECOND).await;
        }
        let since = Instant::now();
        reader.read_exact(&mut [0]).await.expect("in time");
        let (at, result) = done.recv().await.unwrap();
        assert!(matches!(result, Err(Error::Timeout(TimeoutKind::Write))), "{op:?}: {result:?}");
        assert_eq!((at - since).as_secs(), LIMIT.as_secs(), "{op:?}");
    }
}

/// At most `max_unsent` bytes are queued, so the server continues reading. The deadline applies all
/// the same.
#[tokio::test(start_paused = true)]
pub(crate) async fn write_timeout_applies_below_max_unsent() {
    async fn waits(mut conn: Connection) -> io::Result<()> {
        conn.write_bytes([b'-'; 100]).await?;
        while conn.next_line().await?.is_some() {}
        Ok(())
    }
    for reads in [0, 1] {
        let since = Instant::now();
        let (peer, running) = one(no_deadlines().write_timeout(LIMIT).max_unsent(100), 10, waits);
        let (mut reader, mut writer) = tokio::io::split(peer);
        sleep(LIMIT / 2).await;
        reader.read_exact(&mut vec![0; reads]).await.unwrap();
        while writer.write_all(b"a\n").await.is_ok() {
            assert!(since.elapsed() < 2 * LIMIT, "the connection is not closed");
            sleep(SECOND).await;
        }
        let after = LIMIT + LIMIT / 2 * reads as u32;
        assert!((after..after + 2 * SECOND).contains(&since.elapsed()), "{:?}", since.elapsed());
        let counters = running.stopped().await;
        assert_eq!((counters.write_timeouts, counters.failed), (1, 0));
    }

    // A peer that takes all output is idle, and `write_timeout` does not apply.
    let (mut peer, running) = one(no_deadlines().write_timeout(LIMIT).max_unsent(100), 10, waits);
    peer.read_exact(&mut [0; 100]).await.unwrap();
    sleep(3 * LIMIT).await;
    peer.write_all(b"a\n").await.unwrap();
    drop(peer);
    assert_eq!(running.stopped().await.lines, 1);
}

/// Each time the output exceeds `max_unsent` again, a new deadline starts. The peer is slow but
/// drops below the limit in between.
#[tokio::test(start_paused = true)]
async fn write_timeout_restarts_after_dropping_below_max_unsent() {
    async fn wide(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            conn.write_line(line?.repeat(100)).await?;
        }
        Ok(())
    }
    let (peer, running) = one(no_deadlines().write_timeout(LIMIT).max_unsent(100), 10, wide);
    let (mut reader, mut writer) = tokio::io::split(peer);
    writer.write_all(b"ab\n").await.unwrap();
    for _ in 0..5 {
        writer.write_all(b"ab\n").await.unwrap();
        sleep(LIMIT * 2 / 3).await;
        // The peer never reads everything, so some output is always queued.
        reader.read_exact(&mut [0; 201]).await.expect("in time");
    }
    writer.shutdown().await.unwrap();
    rest(&mut reader).await;
    let counters = running.stopped().await;
    assert_eq!((counters.write_timeouts, counters.lines), (0, 6));
}

#[tokio::test(start_paused = true)]
pub(crate) async fn write_timeout_applies_to_the_last_flush() {
    async fn leaves(mut conn: Connection) -> io::Result<()> {
        conn.write_bytes([b'-'; 100]).await?;
        Ok(())
    }
    let (mut peer, running) = one(no_deadlines().write_timeout(LIMIT), 10, leaves);
    for _ in 0..40 {
        peer.read_exact(&mut [0]).await.expect("in time");
        sleep(SECOND).await;
    }
    let since = Instant::now();
    peer.read_exact(&mut [0]).await.expect("in time");
    let counters = running.stopped().await;
    assert_took(since, LIMIT);
    assert_eq!((counters.write_timeouts, counters.failed), (1, 0));

    let (mut peer, running) = one(no_deadlines().write_timeout(LIMIT), 10, leaves);
    peer.read_exact(&mut [0]).await.unwrap();
    sleep(LIMIT - 2 * MS).await;
    assert_eq!(rest(&mut peer).await.len(), 99);
    assert_eq!(running.stopped().await.write_timeouts, 0);
}

/// A stream whose shutdown never completes, such as TLS if the peer does not read.
struct NeverShut(DuplexStream);

impl AsyncRead for NeverShut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for NeverShut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn write_timeout_applies_to_shutdown() {
    let (mut peer, io) = tokio::io::duplex(64);
    let server = no_deadlines().write_timeout(LIMIT).build();
    let since = Instant::now();
    let accepted = Accepted::new(AnyIo::new(NeverShut(io)), Peer::Other);
    let served = tokio::spawn(server.serve_one(accepted, reply(upper)));
    peer.write_all(b"a\n").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(line(&mut peer).await, "A\n");
    timeout(2 * LIMIT, served).await.expect("the session ends").unwrap();
    assert_took(since, LIMIT);
    assert_eq!(server.counters().write_timeouts, 1);
}

#[tokio::test(start_paused = true)]
pub(crate) async fn handshake_timeout() {
    for (takes, is_served) in [(LIMIT - MS, true), (LIMIT + 2 * MS, false)] {
        let builder = no_deadlines().handshake_timeout(LIMIT).handshake(async move |accepted: Accepted| {
            sleep(takes).await;
            Ok(accepted)
        });
        let since = Instant::now();
        let (mut peer, running) = one(builder, 64, reply(upper));
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(line(&mut peer).await, if is_served { "A\n" } else { "" });
        assert_took(since, takes.min(LIMIT));
        drop(peer);
        let counters = running.stopped().await;
        let expected = (u64::from(!is_served), u64::from(is_served), 0);
        assert_eq!((counters.handshake_timeouts, counters.lines, counters.failed), expected);
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn drain_timeout() {
    for (takes, aborted) in [(LIMIT - 20 * MS, 0), (LIMIT + 2 * MS, 1)] {
        let handler = async move |mut conn: Connection| {
            conn.draining().await;
            sleep(takes).await;
            conn.write_line("done").await?;
            Ok(())
        };
        let (mut peer, mut running) = one(no_deadlines().drain_timeout(LIMIT), 64, handler);
        peer.write_all(b"a\n").await.unwrap();
        tokio::task::yield_now().await;
        sleep(SECOND).await;
        let since = Instant::now();
        running.ask_to_stop();
        assert_eq!(rest(&mut peer).await, if aborted == 0 { "done\n" } else { "" });
        drop(peer);
        let counters = running.stopped().await;
        assert_took(since, takes.min(LIMIT));
        assert_eq!((counters.aborted, counters.failed, counters.accepted), (aborted, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
pub(crate) async fn linger_timeout() {
    async fn leaves(mut conn: Connection) -> io::Result<()> {
        conn.write_line("bye").await?;
        Ok(())
    }
    let (mut peer, running) = one(no_deadlines().linger_timeout(LIMIT), 64, leaves);
    assert_eq!(rest(&mut peer).await, "bye\n");
    let since = Instant::now();
    for _ in 0..29 {
        sleep(SECOND).await;
        peer.write_all(&[b'x'; 1000]).await.expect("the server still reads");
    }
    sleep(SECOND + 2 * MS).await;
    assert!(peer.write_all(b"x").await.is_err(), "not after {:?}", since.elapsed());
    assert_eq!(running.stopped().await.failed, 0);

    // The server does not wait for a peer that closes the connection.
    let since = Instant::now();
    let (mut peer, running) = one(no_deadlines().linger_timeout(LIMIT), 64, leaves);
    assert_eq!(rest(&mut peer).await, "bye\n");
    drop(peer);
    running.stopped().await;
    assert_took(since, Duration::ZERO);
}
