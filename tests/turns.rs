//! A connection with a lot to do yields to other tasks, and its replies are sent meanwhile.

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

/// Advances the clock without yielding to other tasks.
fn block_thread(time: Duration) {
    _ = tokio::time::advance(time).now_or_never();
}

async fn serve<H, Fut>(io: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static, handler: H)
where
    H: FnOnce(Connection) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    Server::new().serve_one(Accepted::new(AnyIo::new(io), Peer::Other), handler).await;
}

/// A reply function that takes 2 ms per empty reply and records how many earlier replies were not
/// written yet.
#[derive(Clone, Default)]
struct Slow {
    answered: Arc<AtomicUsize>,
    written: Arc<AtomicUsize>,
    late: Arc<AtomicUsize>,
}

impl Slow {
    fn answer(&self) -> &'static str {
        block_thread(Duration::from_millis(2));
        let before = self.answered.fetch_add(1, SeqCst);
        self.late.fetch_max(before - self.written.load(SeqCst), SeqCst);
        ""
    }
}

/// Each reply takes its own write. Tokio's budget lets a task make at most 128 before it must
/// yield.
async fn check_prompt_replies<H, Fut>(lines: usize, most: usize, handler: impl FnOnce(Slow) -> H)
where
    H: FnOnce(Connection) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let (mut peer, stream) = duplex(1 << 16);
    peer.write_all(&vec![b'\n'; lines]).await.unwrap();
    peer.shutdown().await.unwrap();
    let slow = Slow::default();
    let written = Arc::clone(&slow.written);
    // A stream of Tokio, which becomes pending when the task has used up its budget.
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
async fn slow_handlers_send_each_reply_immediately() {
    check_prompt_replies(1000, 0, |slow| reply(move |_| slow.answer())).await;
    check_prompt_replies(1000, 0, |slow| {
        async move |mut conn: Connection| {
            while let Some(line) = conn.next_line().await? {
                line?;
                conn.write_line(slow.answer()).await?;
            }
            Ok(())
        }
    })
    .await;
    // The handler writes all replies for the first line and none for the second. Each reply is
    // computed before the previous write can be awaited.
    check_prompt_replies(2, 1, |slow| {
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

/// A stream that always has more lines: this many in each read.
struct Endless(usize);

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        into.put_slice(&b"a\n".repeat(self.0.min(into.remaining() / 2)));
        Poll::Ready(Ok(()))
    }
}

/// Returns how many lines of 300 µs are answered between the yields of another task, for 100
/// yields.
async fn lines_per_turn(lines_per_read: usize, reads_itself: bool) -> Vec<usize> {
    let lines = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&lines);
    let see = move || {
        block_thread(Duration::from_micros(300));
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
async fn flooded_connection_yields_every_millisecond() {
    for lines_per_read in [1, 2, 10, usize::MAX] {
        for reads_itself in [false, true] {
            let turns = lines_per_turn(lines_per_read, reads_itself).await;
            let most = *turns.iter().max().unwrap();
            // The scheduler may run the connection twice between two turns of the other task.
            assert!(most <= 12, "{most} lines in a turn, with {lines_per_read} a read, {reads_itself}");
            // The connection must not yield too often either.
            let lines: usize = turns.iter().sum();
            assert!(lines >= 3 * 90, "{lines} lines, with {lines_per_read} a read, {reads_itself}");
        }
    }
}

/// A stream whose reads take 1 ms each and never wait.
#[derive(Default)]
struct Slowly(Arc<AtomicUsize>);

impl AsyncRead for Slowly {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.fetch_add(1, SeqCst) < 10_000 {
            block_thread(Duration::from_millis(1));
            into.put_slice(b"one\n");
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn skipping_yields_every_millisecond() {
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

/// The handler never returns `Pending`, like a handler that blocks on the future.
#[tokio::test(start_paused = true)]
async fn immediate_repoll_continues_after_a_yield() {
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
async fn late_input_is_dropped_until_linger_timeout() {
    let reads = Arc::new(AtomicUsize::new(0));
    serve(join(Slowly(Arc::clone(&reads)), sink()), async |_| Ok(())).await;
    // 2 s is the default `linger_timeout`.
    let reads = reads.load(SeqCst);
    assert!((2000..2030).contains(&reads), "{reads}");
}
