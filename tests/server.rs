//! A server over real sockets: the replies to its peers, and how their connections end.
#![cfg(unix)]

mod served;

use std::io;
use std::sync::Arc;

use lineframe::{Connection, Server, ServerCounters, reply, reply_into};
use served::{Address, AnyListener, Buffers, NEVER, Running, all_kinds, line, rest, soon, tcp, unix, upper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

/// Starts a server on each kind of socket that answers in upper case.
fn uppers() -> Vec<(Arc<Address>, Running)> {
    let start =
        |(address, listener)| (Arc::new(address), Running::start(Server::builder(), listener, reply(upper)));
    all_kinds().into_iter().map(start).collect()
}

/// Runs `what` `times` times, up to 16 at the same time.
async fn repeat<Fut>(times: usize, what: impl Fn() -> Fut)
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut running = JoinSet::new();
    for _ in 0..times {
        if running.len() == 16 {
            soon(running.join_next()).await.unwrap().unwrap();
        }
        running.spawn(what());
    }
    while let Some(done) = soon(running.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn lines_are_answered_over_tokio_listeners() {
    async fn echo(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            conn.write_line(line?).await?;
        }
        Ok(())
    }
    let (tcp_address, tcp) = tcp(Buffers::Usual);
    let (unix_address, unix) = unix(Buffers::Usual);
    let (AnyListener::Tcp(tcp), AnyListener::Unix(unix, _)) = (tcp, unix) else { unreachable!() };
    let (tcp, unix): (TcpListener, UnixListener) = (tcp, unix);
    let running =
        [Running::start(Server::builder(), tcp, echo), Running::start(Server::builder(), unix, echo)];
    for address in [&tcp_address, &unix_address] {
        let mut peer = address.connect().await.unwrap();
        for sent in ["one\n", "\n", "three\n"] {
            peer.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(soon(line(&mut peer)).await, sent);
        }
        drop(peer);
    }
    for running in running {
        let counters = soon(running.stopped()).await;
        assert_eq!((counters.accepted, counters.lines, counters.bytes_sent), (1, 3, 11));
        assert_eq!((counters.failed, counters.aborted, counters.bytes_read), (0, 0, 11));
    }
}

#[tokio::test]
async fn listeners_and_clones_share_counters() {
    let server = Server::new();
    let mut served = JoinSet::new();
    for (address, listener) in all_kinds() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        served.spawn(server.clone().serve_with_shutdown(listener, reply(upper), stopped));
        let mut peer = address.connect().await.unwrap();
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(soon(line(&mut peer)).await, "A\n");
        drop((peer, stop));
    }
    while let Some(counters) = soon(served.join_next()).await {
        counters.unwrap();
    }
    assert_eq!((server.counters().accepted, server.counters().lines), (4, 4));
}

#[tokio::test]
async fn reply_into_state_is_per_connection() {
    let (address, listener) = tcp(Buffers::Usual);
    let mut count = 0;
    let counting = reply_into(move |line, reply| {
        count += 1;
        reply.extend_from_slice(format!("{count} ").as_bytes());
        reply.extend_from_slice(line);
    });
    let running = Running::start(Server::builder(), listener, counting);
    for _ in 0..2 {
        let mut peer = address.connect().await.unwrap();
        peer.write_all(b"a\nb\r\nc").await.unwrap();
        peer.shutdown().await.unwrap();
        let expected = "1 a\n2 b\nerror: line of 1 byte cut before its terminator\n";
        assert_eq!(soon(rest(&mut peer)).await, expected);
    }
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.lines, counters.bad_lines, counters.lines_written), (4, 2, 6));
}

#[tokio::test]
async fn initial_blocks_are_answered_or_reported_incomplete() {
    let (address, listener) = tcp(Buffers::Usual);
    let mut codec = lineframe::LineCodec::new();
    codec.expect_bytes(3).unwrap();
    let running = Running::start(Server::builder().codec(codec), listener, reply(upper));
    for (sent, expected) in [
        ("a;bc\n", "A;B\nC\n"),
        ("a", "error: block of 3 bytes cut after 1 byte\n"),
        ("", "error: block of 3 bytes cut after 0 bytes\n"),
    ] {
        let mut peer = address.connect().await.unwrap();
        peer.write_all(sent.as_bytes()).await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(soon(rest(&mut peer)).await, expected);
    }
    soon(running.stopped()).await;
}

/// Lines are answered in the read buffer. A partial line is moved in front of the next read, unless
/// it is too long for that.
#[tokio::test]
async fn lines_in_three_reads_are_answered() {
    let letters: Vec<u8> = (0..20_000).map(|i| b'a' + (i % 26) as u8).collect();
    for (length, first) in
        [(5000, 0), (5000, 1), (5000, 4095), (5000, 4096), (5000, 4097), (20_000, 4095), (20_000, 9000)]
    {
        let stream = [b"first\n", &letters[..length], b"\nlast\n"].concat();
        for second in [1, 800, 4097] {
            let second = stream.len().min(6 + first + second);
            // The stream holds only the first piece, so the second one arrives in another read.
            let (peer, io) = tokio::io::duplex(6 + first.max(1));
            let answer = reply_into(|line, reply| reply.extend_from_slice(line))(Connection::new(io));
            let peer = async {
                let mut replies = vec![0; stream.len()];
                let (mut reader, mut writer) = tokio::io::split(peer);
                let write = async {
                    writer.write_all(&stream[..6 + first]).await?;
                    writer.write_all(&stream[6 + first..second]).await?;
                    writer.write_all(&stream[second..]).await
                };
                tokio::try_join!(write, reader.read_exact(&mut replies)).unwrap();
                drop((reader, writer));
                assert!(replies == stream, "{length} {first} {second}");
                Ok(())
            };
            soon(async { tokio::try_join!(answer, peer) }).await.unwrap();
        }
    }
}

/// Half-closing must not lose replies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_clients_get_every_reply() {
    for (address, running) in uppers() {
        repeat(1000, || {
            let address = Arc::clone(&address);
            async move {
                let mut peer = address.connect().await.unwrap();
                peer.write_all(b"a\nb\n").await.unwrap();
                peer.shutdown().await.unwrap();
                assert_eq!(rest(&mut peer).await, "A\nB\n", "{address:?}");
            }
        })
        .await;
        let counters = soon(running.stopped()).await;
        assert_eq!((counters.accepted, counters.lines, counters.failed), (1000, 2000, 0), "{address:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_larger_than_buffers_are_sent_before_eof() {
    for (address, running) in uppers() {
        // If both windows of a TCP connection are minimal, Linux may send only one segment per 200
        // ms (its persist timer). Fewer lines fill these buffers, too.
        let lines = if let Address::Tcp(_, Buffers::Smallest) = *address { 3_000 } else { 40_000 };
        let sent: String = (0..lines).map(|n| format!("line {n}\n")).collect();
        let expected = sent.to_ascii_uppercase();
        let peer = address.connect().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(peer);
        let write = async {
            writer.write_all(sent.as_bytes()).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let ((), got) = soon(async { tokio::join!(write, rest(&mut reader)) }).await;
        assert!(got == expected, "{} of {} bytes over {address:?}", got.len(), expected.len());
        soon(running.stopped()).await;
    }
}

/// Closing a socket with unread input resets the connection, and the reset might overtake the
/// reply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_end_of_a_session_causes_no_reset() {
    async fn one_line(mut conn: Connection) -> io::Result<()> {
        conn.next_line().await?;
        conn.write_line("enough").await?;
        Ok(())
    }
    for ((address, listener), times) in all_kinds().into_iter().zip([100, 100, 10, 10]) {
        let address = Arc::new(address);
        // On a busy machine, sending the 1 MiB may take longer than the default `linger_timeout` of
        // 2 s.
        let builder = Server::builder().linger_timeout(NEVER);
        let running = Running::start(builder, listener, one_line);
        repeat(times, || {
            let address = Arc::clone(&address);
            async move {
                let mut peer = address.connect().await.unwrap();
                peer.write_all(&b"a line\n".repeat(150_000)).await.expect("no reset while writing");
                assert_eq!(rest(&mut peer).await, "enough\n", "{address:?}");
            }
        })
        .await;
        let counters = soon(running.stopped()).await;
        let times = times as u64;
        assert_eq!(
            (counters.lines, counters.lines_written, counters.failed),
            (times, times, 0),
            "{address:?}"
        );
    }
}

#[tokio::test]
async fn connection_moved_to_a_task_is_flushed() {
    async fn delegate(conn: Connection) -> io::Result<()> {
        let (mut reader, mut writer) = conn.into_split();
        tokio::spawn(async move {
            while let Some(Ok(line)) = reader.next_line().await.unwrap() {
                writer.feed_line(upper(&line)).await.unwrap();
            }
            // The task does not flush. The server flushes when the halves are dropped.
        });
        Ok(())
    }
    for (address, listener) in all_kinds() {
        let running = Running::start(Server::builder(), listener, delegate);
        let mut peer = address.connect().await.unwrap();
        peer.write_all(b"a\nb\n").await.unwrap();
        peer.shutdown().await.unwrap();
        assert_eq!(soon(rest(&mut peer)).await, "A\nB\n");
        let counters = soon(running.stopped()).await;
        assert_eq!((counters.lines, counters.lines_written, counters.bytes_sent), (2, 2, 4));
    }
}

#[tokio::test]
async fn panicking_handler_ends_only_its_connection() {
    async fn fragile(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            let line = line?;
            assert_ne!(line, "panic", "as it was asked to");
            conn.write_line(line).await?;
        }
        Ok(())
    }
    let (address, listener) = tcp(Buffers::Usual);
    let running = Running::start(Server::builder(), listener, fragile);
    let mut other = address.connect().await.unwrap();
    for _ in 0..3 {
        let mut peer = address.connect().await.unwrap();
        peer.write_all(b"before\npanic\nafter\n").await.unwrap();
        assert_eq!(soon(rest(&mut peer)).await, "before\n");
    }
    other.write_all(b"still here\n").await.unwrap();
    assert_eq!(soon(line(&mut other)).await, "still here\n");
    drop(other);
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.accepted, counters.panicked, counters.failed), (4, 3, 0));
}

#[tokio::test]
async fn panicking_handshake_ends_only_its_connection() {
    let (address, listener) = tcp(Buffers::Usual);
    let is_first = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let server = Server::builder().handshake(async move |accepted| {
        assert!(!is_first.swap(false, std::sync::atomic::Ordering::SeqCst), "on purpose");
        Ok(accepted)
    });
    let running = Running::start(server, listener, reply(upper));
    let mut gone = address.connect().await.unwrap();
    let mut buffer = Vec::new();
    _ = soon(gone.read_to_end(&mut buffer)).await;
    let mut peer = address.connect().await.unwrap();
    peer.write_all(b"a\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "A\n");
    drop(peer);
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.accepted, counters.panicked, counters.aborted, counters.lines), (2, 1, 0, 1));
}

#[tokio::test]
async fn failing_handler_has_its_replies_sent() {
    async fn strict(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            conn.write_line(line?).await?;
        }
        Ok(())
    }
    let (address, listener) = tcp(Buffers::Usual);
    let running = Running::start(Server::builder(), listener, strict);
    let mut peer = address.connect().await.unwrap();
    peer.write_all(b"good\ncut").await.unwrap();
    peer.shutdown().await.unwrap();
    assert_eq!(soon(rest(&mut peer)).await, "good\n");
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.failed, counters.lines, counters.bad_lines), (1, 1, 1));
}

#[tokio::test]
async fn counters_include_live_and_dismantled_connections() {
    async fn takes_apart(mut conn: Connection) -> io::Result<()> {
        let mut batch = conn.next_batch().await?.unwrap();
        let first = batch.next().unwrap()?;
        conn.put_back(batch).unwrap();
        conn.write_line(first).await?;
        let second = conn.next_line().await?.unwrap()?;
        conn.write_line(second).await?;
        assert_eq!(conn.next_line().await?.unwrap()?, "three");
        drop(conn.into_parts());
        Ok(())
    }
    let (address, listener) = tcp(Buffers::Usual);
    let running = Running::start(Server::builder(), listener, takes_apart);
    let mut peer = address.connect().await.unwrap();
    peer.write_all(b"one\ntwo\n").await.unwrap();
    assert_eq!((line(&mut peer).await, line(&mut peer).await), ("one\n".into(), "two\n".into()));
    let ServerCounters { lines, bytes_read, lines_written, bytes_sent, .. } = running.server.counters();
    assert_eq!((lines, bytes_read, lines_written, bytes_sent), (2, 8, 2, 8));
    peer.write_all(b"three\n").await.unwrap();
    assert_eq!(rest(&mut peer).await, "");
    let ServerCounters { lines, bytes_read, lines_written, bytes_sent, .. } = soon(running.stopped()).await;
    assert_eq!((lines, bytes_read, lines_written, bytes_sent), (3, 14, 2, 8));
}

#[tokio::test]
async fn serve_one_needs_no_listener() {
    let (address, listener) = tcp(Buffers::Usual);
    let AnyListener::Tcp(mut listener) = listener else { unreachable!() };
    let server = Server::new();
    let connecting = tokio::spawn(async move { address.connect().await.unwrap() });
    let accepted = soon(lineframe::Listener::accept(&mut listener)).await.unwrap();
    let served = tokio::spawn(server.serve_one(accepted, reply(upper)));
    let mut peer = connecting.await.unwrap();
    peer.write_all(b"a\n").await.unwrap();
    peer.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(peer.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"A\n");
    soon(served).await.unwrap();
    assert_eq!((server.counters().accepted, server.counters().lines), (1, 1));
}
