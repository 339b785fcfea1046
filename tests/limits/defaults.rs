//! The default limits of a server.

use std::future::pending;
use std::io;
use std::time::Duration;

use lineframe::{Accepted, Bind, Connection, Error, LineCodec, Server, ServerBuilder, TimeoutKind, reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout};

use crate::durations::{assert_took, drip, one};
use crate::served::{Running, in_memory, rest, upper};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(count: u32) -> Duration {
    count * SECOND
}

async fn stays(conn: Connection) -> io::Result<()> {
    let _conn = conn;
    pending().await
}

async fn ends_after(expected: Duration, mut peer: DuplexStream) {
    let since = Instant::now();
    assert_eq!(rest(&mut peer).await, "");
    assert_took(since, expected);
}

#[tokio::test(start_paused = true)]
async fn default_deadlines() {
    let (idle, _running) = one(Server::builder(), 64, reply(upper));
    ends_after(seconds(300), idle).await;

    let (dripping, _running) = one(Server::builder(), 64, reply(upper));
    let since = Instant::now();
    assert_eq!(drip(dripping).await, "");
    assert_took(since, seconds(30));

    let (sent, mut events) = unbounded_channel();
    let since = Instant::now();
    let (_never_reads, _running) = one(Server::builder(), 1, async move |mut conn: Connection| {
        let line = conn.send_line("more than the stream holds").await;
        _ = sent.send((since.elapsed(), line));
        Ok(())
    });
    let (after, line) = events.recv().await.unwrap();
    assert!(matches!(line, Err(Error::Timeout(TimeoutKind::Write))), "{line:?}");
    assert_eq!(after.as_secs(), 30);

    let silent = Server::builder().handshake(async |accepted: Accepted| {
        let _accepted = accepted;
        pending().await
    });
    let (shaking, _running) = one(silent, 64, reply(upper));
    ends_after(seconds(10), shaking).await;

    let (stubborn, mut running) = one(Server::builder(), 64, stays);
    while running.server.counters().accepted == 0 {
        tokio::task::yield_now().await;
    }
    running.ask_to_stop();
    ends_after(seconds(10), stubborn).await;

    let (mut lingering, running) = one(Server::builder(), 64, async |mut conn: Connection| {
        conn.write_line("bye").await?;
        Ok(())
    });
    assert_eq!(rest(&mut lingering).await, "bye\n");
    let since = Instant::now();
    running.stopped().await;
    assert_took(since, seconds(2));
}

#[tokio::test(start_paused = true)]
async fn default_counts_and_sizes() {
    let (mut peer, running) = one(bad_lines(), 1 << 16, reply(upper));
    peer.write_all(&b"bad\n".repeat(200)).await.unwrap();
    assert_eq!(
        rest(&mut peer).await.lines().count(),
        101,
        "the line over the limit is answered and is the last"
    );
    assert_eq!(running.stopped().await.bad_lines, 101);

    let (written, mut events) = unbounded_channel();
    let (mut peer, _running) =
        one(Server::builder().write_timeout(None), 1, async move |mut conn: Connection| {
            conn.write_bytes(vec![b'x'; 64 * 1024]).await?;
            conn.write_line("").await?;
            _ = written.send(());
            conn.write_line("").await.map_err(Into::into)
        });
    assert!(timeout(SECOND, events.recv()).await.is_ok(), "65,536 bytes may be unsent");
    assert_eq!(peer.read(&mut [0; 64]).await.unwrap(), 1);

    assert!(format!("{:?}", Bind::new()).contains("backlog: 1024"));
}

/// Returns a server that treats every non-empty line as too long, with the default `max_bad_lines`.
fn bad_lines() -> ServerBuilder {
    Server::builder().codec(LineCodec::builder().max_length(0).max_encoded_length(200).build())
}

#[tokio::test]
async fn default_max_connections() {
    let (dialer, listener) = in_memory();
    let running = Running::start(Server::builder(), listener, stays);
    let _peers: Vec<_> = (0..10_010).map(|_| dialer.connect(1)).collect();
    while running.server.counters().accepted < 10_000 {
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.server.counters().accepted, 10_000);
}
