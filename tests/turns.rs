//! A connection with much to do lets others have their turns, and its replies go out meanwhile.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use lineframe::{Accepted, AnyIo, Connection, Peer, Server, reply};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex, join, sink};
use tokio::task::yield_now;
use tokio_util::io::InspectWriter;

/// Nobody else has a turn meanwhile.
fn hold_up(time: Duration) {
    _ = tokio::time::advance(time).now_or_never();
}

async fn serve<H, Fut>(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static, handler: H)
where
    H: FnOnce(Connection) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    Server::new().serve_one(Accepted::new(AnyIo::new(io), Peer::Other), handler).await;
}

/// What takes long for each of a thousand replies, all of them empty.
#[derive(Clone, Default)]
struct Slow {
    answered: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
}

impl Slow {
    fn answer(&self) -> &'static str {
        hold_up(Duration::from_millis(2));
        let before = self.answered.fetch_add(1, SeqCst);
        self.late.fetch_max(before - self.written.load(SeqCst), SeqCst);
        ""
    }
}

/// Each reply is then a write of its own, of which Tokio lets a task make 128 or less before others have had their turns.
async fn answers_each_when_it_is_done<H, Fut>(lines: usize, most: usize, handler: impl FnOnce(Slow) -> H)
where
    H: FnOnce(Connection) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let (mut peer, stream) = duplex(1 << 16);
    peer.write_all(&vec![b'\n'; lines]).await.unwrap();
    peer.shutdown().await.unwrap();
    let slow = Slow::default();
    let written = Arc::clone(&slow.written);
    // A stream of Tokio's, which neither reads nor writes once a task has had its turn.
    let (reader, writer) = tokio::io::split(stream);
    let writer = InspectWriter::new(writer, move |bytes| _ = written.fetch_add(bytes.len(), SeqCst));
    serve(join(reader, writer), handler(slow.clone())).await;
    let mut received = Vec::new();
    peer.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 1000);
    let late = slow.late.load(SeqCst);
    assert!(late <= most, "{late} replies were late");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_slow_for_many_lines_answers_each_when_it_is_done() {
    answers_each_when_it_is_done(1000, 0, |slow| reply(move |_| slow.answer())).await;
    answers_each_when_it_is_done(1000, 0, |slow| {
        async move |mut conn: Connection| {
            while let Some(line) = conn.next_line().await? {
                line?;
                conn.write_line(slow.answer()).await?;
            }
            Ok(())
        }
    })
    .await;
    // All of them for the first line, and none for the second. Each is made before the one before it can be waited for.
    answers_each_when_it_is_done(2, 1, |slow| {
        async move |mut conn: Connection| {
            conn.next_line().await?;
            for _ in 0..1000 {
                conn.write_line(slow.answer()).await?;
            }
            Ok(())
        }
    })
    .await;
}

/// There are always more lines, so many in each read.
struct Endless(usize);

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        into.put_slice(&b"a\n".repeat(self.0.min(into.remaining() / 2)));
        Poll::Ready(Ok(()))
    }
}

/// How many lines of 300 us are answered in each of a hundred turns.
async fn lines_per_turn(lines_per_read: usize, reads_itself: bool) -> Vec<usize> {
    let lines = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&lines);
    let see = move || {
        hold_up(Duration::from_micros(300));
        assert!(seen.fetch_add(1, SeqCst) < 10_000, "nobody else has a turn");
        ""
    };
    let served = async {
        let io = join(Endless(lines_per_read), sink());
        if !reads_itself {
            return serve(io, reply(move |_| see())).await;
        }
        serve(io, async move |mut conn: Connection| {
            while conn.next_line().await?.is_some() {
                conn.write_line(see()).await?;
            }
            Ok(())
        })
        .await;
    };
    let mut turns = Vec::new();
    let others = async {
        for _ in 0..100 {
            yield_now().await;
            turns.push(lines.swap(0, SeqCst));
        }
    };
    tokio::select! {
        () = served => unreachable!(),
        () = others => {}
    }
    turns
}

#[tokio::test(start_paused = true)]
async fn a_flooder_leaves_a_turn_to_others_every_millisecond() {
    for lines_per_read in [1, 2, 10, usize::MAX] {
        for reads_itself in [false, true] {
            let turns = lines_per_turn(lines_per_read, reads_itself).await;
            let most = *turns.iter().max().unwrap();
            // Two turns, if they do not alternate.
            assert!(most <= 12, "{most} lines in a turn, with {lines_per_read} a read, {reads_itself}");
            // Nor does it yield for nothing.
            let lines: usize = turns.iter().sum();
            assert!(lines >= 3 * 90, "{lines} lines, with {lines_per_read} a read, {reads_itself}");
        }
    }
}

/// Each read takes a millisecond, and none has to wait.
#[derive(Default)]
struct Slowly(Arc<AtomicUsize>);

impl AsyncRead for Slowly {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.fetch_add(1, SeqCst) < 10_000 {
            hold_up(Duration::from_millis(1));
            into.put_slice(b"one\n");
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn skipping_leaves_a_turn_to_others_every_millisecond() {
    let reads = Arc::new(AtomicUsize::new(0));
    let skips = async |mut conn: Connection| Ok(conn.skip_bytes(u64::MAX).await?);
    let served = serve(join(Slowly(Arc::clone(&reads)), sink()), skips);
    tokio::select! {
        () = served => unreachable!(),
        () = async { for _ in 0..100 { yield_now().await } } => {}
    }
    let reads = reads.load(SeqCst);
    assert!((90..300).contains(&reads), "{reads}");
}

/// Within one poll of the handler, as where it blocks on what it waits for.
#[tokio::test(start_paused = true)]
async fn who_polls_again_at_once_has_had_its_turn() {
    let pending = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pending);
    serve(join(Slowly::default(), sink()), async move |mut conn: Connection| {
        let mut lines = 0;
        while lines < 100 && count.load(SeqCst) < 1000 {
            match conn.next_line().now_or_never() {
                Some(_) => lines += 1,
                None => _ = count.fetch_add(1, SeqCst),
            }
        }
        Ok(())
    })
    .await;
    let pending = pending.load(SeqCst);
    assert!((40..=100).contains(&pending), "{pending} times in 100 ms");
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_the_last_reply_is_dropped_for_linger_timeout_and_no_longer() {
    let reads = Arc::new(AtomicUsize::new(0));
    serve(join(Slowly(Arc::clone(&reads)), sink()), async |_| Ok(())).await;
    // 2 s.
    let reads = reads.load(SeqCst);
    assert!((2000..2030).contains(&reads), "{reads}");
}
