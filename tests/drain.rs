//! Graceful shutdown: what a server does with its connections after it is asked to stop.
#![cfg(unix)]

mod served;

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use lineframe::{Accepted, AnyIo, Connection, Listener, Peer, Server, ServerBuilder, reply};
use served::{Address, AnyListener, Buffers, NEVER, Running, in_memory, line, rest, soon, tcp, unix, upper};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream, DuplexStream, ReadBuf, duplex,
};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::io::InspectReader;

/// The number of lines that a pipelining client sent and received.
struct Outcome {
    /// Lines that the server had received before it was asked to stop.
    received: usize,
    replies: usize,
    bytes: usize,
}

fn numbered(client: usize, lines: std::ops::Range<usize>) -> String {
    lines.map(|n| format!("client {client} line {n}\n")).collect()
}

/// Sends 16 lines at a time and reads their replies. In the last round it sends the lines and waits
/// for the other clients before it reads any reply. The server is asked to stop when all clients
/// have reached that point.
async fn pipeline(client: usize, rounds: usize, address: Arc<Address>, meet: Arc<Barrier>) -> Outcome {
    let mut io = address.connect().await.unwrap();
    let mut got = Vec::new();
    for round in 0..rounds {
        let sent = numbered(client, 16 * round..16 * (round + 1));
        io.write_all(sent.as_bytes()).await.unwrap();
        if round < rounds - 1 {
            let mut replies = vec![0; sent.len()];
            io.read_exact(&mut replies).await.unwrap();
            got.extend(replies);
        }
    }
    meet.wait().await;
    io.read_to_end(&mut got).await.expect("no reset");
    drop(io);
    let expected = numbered(client, 0..16 * rounds).to_ascii_uppercase();
    assert!(expected.as_bytes().starts_with(&got), "replies to its lines in their order");
    assert!(got.is_empty() || got.ends_with(b"\n"), "whole replies");
    let replies = got.iter().filter(|byte| **byte == b'\n').count();
    Outcome { received: 16 * rounds, replies, bytes: got.len() }
}

/// Returns a server whose own timeouts never expire, even on a busy machine. If the server waits
/// for one, `soon` fails.
fn patient() -> ServerBuilder {
    Server::builder().drain_timeout(NEVER).linger_timeout(NEVER).line_timeout(NEVER).write_timeout(NEVER)
}

async fn every_received_line_is_answered(server: ServerBuilder, (address, listener): (Address, AnyListener)) {
    let address = Arc::new(address);
    let mut running = Running::start(server, listener, reply(upper));
    let meet = Arc::new(Barrier::new(101));
    let mut clients = JoinSet::new();
    for client in 0..100 {
        clients.spawn(pipeline(client, 2 + client % 5, Arc::clone(&address), Arc::clone(&meet)));
    }
    soon(meet.wait()).await;
    running.ask_to_stop();
    let counters = soon(running.stopped()).await;
    let (mut lines, mut bytes) = (0, 0);
    while let Some(outcome) = soon(clients.join_next()).await {
        let outcome = outcome.unwrap();
        assert_eq!(outcome.replies, outcome.received);
        lines += outcome.replies as u64;
        bytes += outcome.bytes as u64;
    }
    assert_eq!((counters.accepted, counters.aborted, counters.failed), (100, 0, 0));
    assert_eq!((counters.lines, counters.lines_written), (lines, lines));
    assert_eq!((counters.bytes_read, counters.bytes_sent), (bytes, bytes));
}

#[tokio::test]
async fn every_received_line_is_answered_over_tcp() {
    for _ in 0..10 {
        every_received_line_is_answered(patient(), tcp(Buffers::Usual)).await;
    }
}

#[tokio::test]
async fn every_received_line_is_answered_over_unix_sockets() {
    for _ in 0..10 {
        every_received_line_is_answered(patient(), unix(Buffers::Usual)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_received_line_is_answered_by_several_workers() {
    for _ in 0..10 {
        every_received_line_is_answered(patient(), tcp(Buffers::Usual)).await;
        every_received_line_is_answered(patient(), unix(Buffers::Usual)).await;
    }
}

/// The socket is wrapped in another stream, as with TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_received_line_is_answered_through_another_stream() {
    for _ in 0..10 {
        let server = patient().handshake(async |accepted: Accepted| {
            Ok(Accepted::new(AnyIo::new(BufStream::new(accepted.io)), accepted.peer))
        });
        every_received_line_is_answered(server, tcp(Buffers::Usual)).await;
    }
}

/// Sends lines and reads replies at full speed until the server ends the stream. Waits at `meet`
/// after the first replies.
async fn fire_hose(address: Arc<Address>, meet: Arc<Barrier>) {
    let (mut reader, mut writer) = tokio::io::split(address.connect().await.unwrap());
    let sent = b"a line of thirty-two bytes, CRLF\n".repeat(1000);
    let write = async {
        loop {
            writer.write_all(&sent).await.expect("no reset while writing");
        }
    };
    let read = async {
        let mut replies = vec![0; 16 * 1024];
        reader.read_exact(&mut replies).await.unwrap();
        meet.wait().await;
        while reader.read(&mut replies).await.expect("no reset while reading") > 0 {}
    };
    tokio::select! {
        () = read => {}
        () = write => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_senders_are_closed_without_a_reset() {
    for (address, listener) in [tcp(Buffers::Usual), unix(Buffers::Usual)] {
        let address = Arc::new(address);
        let mut running = Running::start(patient(), listener, reply(upper));
        let meet = Arc::new(Barrier::new(5));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            clients.spawn(fire_hose(Arc::clone(&address), Arc::clone(&meet)));
        }
        soon(meet.wait()).await;
        running.ask_to_stop();
        while let Some(client) = soon(clients.join_next()).await {
            client.unwrap();
        }
        let counters = soon(running.stopped()).await;
        assert_eq!((counters.accepted, counters.aborted, counters.failed), (4, 0, 0), "{address:?}");
    }
}

/// The handler is so slow that there is always more input to read.
#[tokio::test(start_paused = true)]
async fn shutdown_ignores_senders_outrunning_a_slow_handler() {
    async fn slow(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            tokio::task::yield_now().await;
            conn.write_line(line?).await?;
        }
        Ok(())
    }
    let (dialer, listener) = in_memory();
    let (mut reader, mut writer) = tokio::io::split(dialer.connect(4096));
    let mut running = Running::start(Server::builder(), listener, slow);
    let sending = tokio::spawn(async move {
        while writer.write_all(&b"a line of thirty-two bytes, CRLF\n".repeat(100)).await.is_ok() {}
    });
    line(&mut reader).await;
    running.ask_to_stop();
    rest(&mut reader).await;
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled(), "its lines are taken until the end");
    drop(reader);
    assert_eq!(running.stopped().await.aborted, 0);
}

/// Sends 20,000 lines, asks the server to stop, then reads `at_a_time` bytes at a time, and checks
/// that every line is answered. The server reads at most 64 KiB at once, so most lines are still in
/// the stream when it is asked to stop.
async fn check_answered_at_shutdown(at_a_time: usize) {
    let (dialer, listener) = in_memory();
    let mut peer = dialer.connect(200_000);
    let wide = |line: &[u8]| format!("{:>100}", String::from_utf8_lossy(line));
    let mut running = Running::start(Server::builder().drain_timeout(None), listener, reply(wide));
    let sent: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    peer.write_all(sent.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.ask_to_stop();
    let mut got = Vec::new();
    while (&mut peer).take(at_a_time as u64).read_to_end(&mut got).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let expected: String = (0..20_000).map(|n| format!("{n:>100}\n")).collect();
    assert!(got == expected.as_bytes(), "{} of {} bytes", got.len(), expected.len());
    let counters = running.stopped().await;
    assert_eq!((counters.lines, counters.aborted), (20_000, 0));
}

#[tokio::test(start_paused = true)]
async fn received_lines_are_answered_to_slow_readers() {
    // 101 bytes are one reply.
    check_answered_at_shutdown(101).await;
}

/// Tokio's cooperative budget makes a task yield after a number of reads, even if more input is
/// available.
#[tokio::test(start_paused = true)]
async fn received_lines_are_answered_over_several_polls() {
    check_answered_at_shutdown(usize::MAX).await;
}

#[tokio::test(start_paused = true)]
async fn partial_lines_are_not_run_at_shutdown() {
    let (dialer, listener) = in_memory();
    let mut peer = dialer.connect(64);
    let mut running = Running::start(Server::builder(), listener, reply(upper));
    peer.write_all(b"a\nhal").await.unwrap();
    assert_eq!(line(&mut peer).await, "A\n");
    running.ask_to_stop();
    assert_eq!(rest(&mut peer).await, "");
    // The server still reads the late rest of the line, so it does not reset the connection.
    peer.write_all(b"f\nb\n").await.unwrap();
    drop(peer);
    let counters = running.stopped().await;
    assert_eq!((counters.lines, counters.bad_lines, counters.aborted, counters.failed), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn blocks_are_completed_during_shutdown() {
    async fn put(mut conn: Connection) -> io::Result<()> {
        conn.next_line().await?;
        let block = conn.read_bytes(4).await?;
        assert!(conn.is_draining());
        conn.write_line(block).await?;
        assert!(conn.next_line().await?.is_none());
        Ok(())
    }
    let (dialer, listener) = in_memory();
    let mut peer = dialer.connect(64);
    let mut running = Running::start(Server::builder(), listener, put);
    peer.write_all(b"put 4\nab").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.ask_to_stop();
    tokio::time::sleep(Duration::from_secs(1)).await;
    peer.write_all(b"cd").await.unwrap();
    assert_eq!(rest(&mut peer).await, "abcd\n");
    drop(peer);
    let counters = running.stopped().await;
    assert_eq!((counters.panicked, counters.failed, counters.aborted), (0, 0, 0));
}

/// Answers `put 4` and `body 4` with the next 4 bytes, skips 4 bytes for `skip 4`, and echoes any
/// other line.
async fn puts(mut conn: Connection) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match &line?[..] {
            b"put 4" => {
                let block = conn.read_bytes(4).await?;
                conn.write_line(block).await?;
            }
            b"body 4" => {
                let mut body = [0; 4];
                conn.body(4).read_exact(&mut body).await?;
                conn.write_line(body).await?;
            }
            b"skip 4" => conn.skip_bytes(4).await?,
            other => conn.write_line(other).await?,
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn lines_after_a_late_block_are_not_run() {
    for (sent, said) in [("put 4\nab", "abcd\n"), ("body 4\nab", "abcd\n"), ("skip 4\nab", "")] {
        let (dialer, listener) = in_memory();
        let mut peer = dialer.connect(64);
        let mut running = Running::start(Server::builder(), listener, puts);
        peer.write_all(sent.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.ask_to_stop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.write_all(b"cdlate\nput 4\nabcd").await.unwrap();
        assert_eq!(rest(&mut peer).await, said, "{sent:?}");
        drop(peer);
        let counters = running.stopped().await;
        assert_eq!((counters.lines, counters.failed, counters.aborted), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn lines_received_with_a_block_are_run() {
    let (dialer, listener) = in_memory();
    let mut peer = dialer.connect(8);
    let mut running = Running::start(Server::builder(), listener, puts);
    let (mut reader, mut writer) = tokio::io::split(&mut peer);
    writer.write_all(b"put 4\nab").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    writer.write_all(b"cdlast\n").await.unwrap();
    running.ask_to_stop();
    assert_eq!(rest(&mut reader).await, "abcd\nlast\n");
    drop(peer);
    assert_eq!(running.stopped().await.lines, 2);
}

/// Returns a whole line, then an incomplete block, then a reset, then EOF.
struct Resets(usize);

impl AsyncRead for Resets {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0 += 1;
        match self.0 {
            1 => buf.put_slice(b"wait\n"),
            2 => buf.put_slice(b"put 4\nab"),
            3 => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_report_read_errors_during_shutdown() {
    async fn reads(mut conn: Connection) -> io::Result<()> {
        assert_eq!(conn.next_line().await?.unwrap().unwrap(), "wait");
        conn.draining().await;
        assert_eq!(conn.next_line().await?.unwrap().unwrap(), "put 4");
        conn.read_bytes(4).await?;
        Ok(())
    }
    let (errors, mut reported) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::builder().on_error(move |_, error| _ = errors.send(error.kind())).handshake(
        async |accepted: Accepted| {
            let io = tokio::io::join(Resets(0), tokio::io::sink());
            Ok(Accepted::new(AnyIo::new(io), accepted.peer))
        },
    );
    let (dialer, listener) = in_memory();
    let _peer = dialer.connect(64);
    let mut running = Running::start(server, listener, reads);
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.ask_to_stop();
    running.stopped().await;
    assert_eq!(reported.recv().await, Some(io::ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn waiting_handlers_are_notified_of_shutdown() {
    async fn says_why(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            match &line?[..] {
                b"wait" => conn.draining().await,
                other => conn.write_line(other).await?,
            }
        }
        conn.write_line(if conn.is_draining() { "421 going down" } else { "221 bye" }).await?;
        Ok(())
    }
    let (dialer, listener) = in_memory();
    let mut running = Running::start(Server::builder(), listener, says_why);
    let mut peers = [dialer.connect(64), dialer.connect(64), dialer.connect(64)];
    peers[0].write_all(b"wait\n").await.unwrap();
    peers[2].write_all(b"a\n").await.unwrap();
    peers[2].shutdown().await.unwrap();
    assert_eq!(rest(&mut peers[2]).await, "a\n221 bye\n");
    running.ask_to_stop();
    assert_eq!(rest(&mut peers[0]).await, "421 going down\n");
    assert_eq!(rest(&mut peers[1]).await, "421 going down\n");
    drop(peers);
    assert_eq!(running.stopped().await.failed, 0);
}

#[tokio::test]
async fn split_halves_are_notified_of_shutdown() {
    async fn says_when(conn: Connection) -> io::Result<()> {
        let (mut reader, mut writer) = conn.into_split();
        assert!(!reader.is_draining());
        let draining = reader.draining();
        reader.next_line().await?;
        writer.send_line("waiting").await?;
        draining.await;
        assert!(reader.is_draining());
        writer.send_line("draining").await?;
        Ok(())
    }
    let (dialer, listener) = in_memory();
    let mut running = Running::start(Server::builder(), listener, says_when);
    let mut peer = dialer.connect(64);
    peer.write_all(b"wait\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "waiting\n");
    running.ask_to_stop();
    assert_eq!(rest(&mut peer).await, "draining\n");
    drop(peer);
    let counters = running.stopped().await;
    assert_eq!((counters.panicked, counters.failed), (0, 0));
}

#[tokio::test]
async fn dropping_the_serve_future_closes_connections() {
    let (dialer, listener) = in_memory();
    let server = Server::new();
    let serving = tokio::spawn(server.serve(listener, reply(upper)));
    let mut peers = [dialer.connect(64), dialer.connect(64)];
    for peer in &mut peers {
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(line(peer).await, "A\n");
    }
    serving.abort();
    for peer in &mut peers {
        assert_eq!(soon(rest(peer)).await, "");
    }
    assert_eq!((server.counters().accepted, server.counters().aborted), (2, 2));
}

/// The handler had returned, but its replies had not been sent.
#[tokio::test(start_paused = true)]
async fn peers_that_never_read_are_aborted_and_counted() {
    let (dialer, listener) = in_memory();
    let answers = async |mut conn: Connection| conn.write_bytes([b'-'; 100]).await.map_err(Into::into);
    let mut running = Running::start(Server::builder().write_timeout(None), listener, answers);
    let mut peer = dialer.connect(16);
    peer.read_exact(&mut [0]).await.unwrap();
    running.ask_to_stop();
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.accepted, counters.aborted), (1, 1));
}

/// Otherwise every `draining()` future created in a `select!` loop would keep its waker until the
/// server stops.
#[tokio::test]
async fn dropped_draining_futures_release_their_waker() {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    async fn waits_in_vain(conn: Connection) -> io::Result<()> {
        let nobody = Arc::new(Nobody);
        let waker = Waker::from(Arc::clone(&nobody));
        let mut draining = conn.draining();
        assert!(Pin::new(&mut draining).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert!(Arc::strong_count(&nobody) > 1);
        drop(draining);
        assert_eq!(Arc::strong_count(&nobody), 1);
        Ok(())
    }
    let (dialer, listener) = in_memory();
    let running = Running::start(Server::builder(), listener, waits_in_vain);
    assert_eq!(rest(&mut dialer.connect(64)).await, "");
    assert_eq!(running.stopped().await.panicked, 0);
}

/// Otherwise a shutdown would need memory for everything that all peers have sent.
#[tokio::test]
async fn buffered_input_is_read_in_pieces_during_shutdown() {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let server = Server::builder().handshake(async move |accepted: Accepted| {
        let count = move |bytes: &[u8]| _ = counted.fetch_add(bytes.len(), Relaxed);
        Ok(Accepted::new(AnyIo::new(InspectReader::new(accepted.io, count)), accepted.peer))
    });
    let notes = async move |mut conn: Connection| {
        let mut answered = "wait\n".len();
        conn.next_line().await?;
        conn.send_line("waiting").await?;
        conn.draining().await;
        while let Some(line) = conn.next_line().await? {
            answered += line?.len() + 1;
            assert!(
                read.load(Relaxed) - answered < 3 * 65_536,
                "{} read, {answered} answered",
                read.load(Relaxed)
            );
        }
        assert_eq!(answered, 5 + (1 << 20));
        conn.write_line("all").await?;
        Ok(())
    };
    let (dialer, listener) = in_memory();
    let mut running = Running::start(server, listener, notes);
    let mut peer = dialer.connect(2 << 20);
    peer.write_all(b"wait\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "waiting\n");
    peer.write_all(&b"sixteen bytes a\n".repeat(1 << 16)).await.unwrap();
    running.ask_to_stop();
    assert_eq!(rest(&mut peer).await, "all\n");
    drop(peer);
    assert_eq!(running.stopped().await.panicked, 0);
}

#[tokio::test(start_paused = true)]
async fn handlers_ignoring_shutdown_are_aborted_and_counted() {
    async fn stubborn(mut conn: Connection) -> io::Result<()> {
        while let Some(line) = conn.next_line().await? {
            if line? == "never mind" {
                conn.send_line("ok").await?;
                pending::<()>().await;
            }
        }
        Ok(())
    }
    let (dialer, listener) = in_memory();
    let mut running = Running::start(Server::builder(), listener, stubborn);
    let mut peers = [dialer.connect(64), dialer.connect(64), dialer.connect(64)];
    for peer in &mut peers[..2] {
        peer.write_all(b"never mind\n").await.unwrap();
        assert_eq!(line(peer).await, "ok\n");
    }
    let asked = Instant::now();
    running.ask_to_stop();
    for peer in &mut peers {
        assert_eq!(rest(peer).await, "");
    }
    let counters = running.stopped().await;
    assert_eq!(asked.elapsed().as_secs(), 10);
    assert_eq!((counters.accepted, counters.aborted, counters.failed), (3, 2, 0));
    // The traffic of aborted connections is counted.
    assert_eq!((counters.lines, counters.lines_written, counters.bytes_sent), (2, 2, 6));
}

#[tokio::test(start_paused = true)]
async fn lingering_peers_are_not_counted_as_aborted() {
    let (dialer, listener) = in_memory();
    let server = Server::builder().drain_timeout(Duration::from_millis(200));
    let mut running = Running::start(server, listener, reply(upper));
    let mut peer = dialer.connect(64);
    peer.write_all(b"a\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "A\n");
    let asked = Instant::now();
    running.ask_to_stop();
    assert_eq!(rest(&mut peer).await, "");
    let counters = running.stopped().await;
    assert_eq!(asked.elapsed().as_millis(), 200);
    assert_eq!((counters.lines, counters.aborted, counters.failed), (1, 0, 0));
}

#[tokio::test]
async fn shutdown_accepts_exactly_the_queued_connections() {
    let (dialer, listener) = in_memory();
    let mut waiting = dialer.connect(64);
    waiting.write_all(b"a\n").await.unwrap();
    waiting.shutdown().await.unwrap();
    let running = Running::start(patient(), listener, reply(upper));
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.accepted, counters.lines), (1, 1));
    assert_eq!(rest(&mut waiting).await, "A\n");

    for (address, listener) in [tcp(Buffers::Usual), unix(Buffers::Usual)] {
        let running = Running::start(patient(), listener, reply(upper));
        // Neither Tokio nor the server has polled the listener since the clients connected.
        let mut clients: Vec<_> = (0..20).map(|_| connected(&address)).collect();
        let counters = soon(running.stopped()).await;
        assert_eq!((counters.accepted, counters.lines, counters.aborted), (20, 20, 0));
        for client in &mut clients {
            assert_eq!(read_all(client), "A\n");
        }
        let refused = address.connect().await.expect_err("the listener is closed");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}

/// Connects a blocking client, which sends one line and half-closes.
fn connected(address: &Address) -> Socket {
    let (domain, address) = match address {
        Address::Tcp(address, _) => (Domain::IPV4, SockAddr::from(*address)),
        Address::Unix(path, _) => (Domain::UNIX, SockAddr::unix(path).unwrap()),
    };
    let mut client = Socket::new(domain, Type::STREAM, None).unwrap();
    client.connect(&address).unwrap();
    client.write_all(b"a\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    client
}

fn read_all(client: &mut Socket) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).expect("no reset");
    all
}

#[tokio::test]
async fn queued_connections_wait_for_a_slot_during_shutdown() {
    let (address, listener) = tcp(Buffers::Usual);
    let mut running = Running::start(patient().max_connections(1), listener, reply(upper));
    let mut first = address.connect().await.unwrap();
    first.write_all(b"first\n").await.unwrap();
    assert_eq!(soon(line(&mut first)).await, "FIRST\n");
    let mut clients: Vec<_> = (0..20).map(|_| connected(&address)).collect();
    running.ask_to_stop();
    drop(first);
    let counters = soon(running.stopped()).await;
    assert_eq!((counters.accepted, counters.lines, counters.aborted), (21, 21, 0));
    for client in &mut clients {
        assert_eq!(read_all(client), "A\n");
    }
}

#[tokio::test(start_paused = true)]
async fn queued_connections_without_a_slot_are_aborted() {
    let (dialer, listener) = in_memory();
    let server = patient().max_connections(1).drain_timeout(Duration::from_secs(1));
    let mut running = Running::start(server, listener, async |_conn| pending().await);
    let _first = dialer.connect(64);
    while running.server.counters().open == 0 {
        tokio::task::yield_now().await;
    }
    let mut queued = dialer.connect(64);
    running.ask_to_stop();
    let counters = running.stopped().await;
    assert_eq!((counters.accepted, counters.aborted, counters.open), (2, 2, 0));
    assert_eq!(rest(&mut queued).await, "");
}

#[tokio::test(start_paused = true)]
async fn silent_handshakes_do_not_delay_shutdown() {
    let (dialer, listener) = in_memory();
    let server = patient().handshake_timeout(None).handshake(async |_: Accepted| pending().await);
    let mut running = Running::start(server, listener, reply(upper));
    let mut peer = dialer.connect(64);
    while running.server.counters().open == 0 {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    running.ask_to_stop();
    let counters = running.stopped().await;
    assert!((1000..1010).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
    assert_eq!((counters.handshake_timeouts, counters.aborted), (1, 0));
    assert_eq!(rest(&mut peer).await, "");
}

#[tokio::test(start_paused = true)]
async fn running_handshakes_complete_during_shutdown() {
    let (dialer, listener) = in_memory();
    let server = patient().handshake(async |accepted: Accepted| {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok(accepted)
    });
    let mut running = Running::start(server, listener, reply(upper));
    let mut peer = dialer.connect(64);
    peer.write_all(b"a\n").await.unwrap();
    while running.server.counters().open == 0 {
        tokio::task::yield_now().await;
    }
    running.ask_to_stop();
    assert_eq!(running.stopped().await.lines, 1);
    assert_eq!(rest(&mut peer).await, "A\n");
}

/// A listener over in-memory streams with `free` descriptors. Each connection takes one until it is
/// dropped.
struct FewDescriptors {
    waiting: VecDeque<DuplexStream>,
    free: Arc<AtomicUsize>,
}

struct Descriptor(DuplexStream, Arc<AtomicUsize>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.1.fetch_add(1, Relaxed);
    }
}

impl AsyncRead for Descriptor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Listener for FewDescriptors {
    async fn accept(&mut self) -> io::Result<Accepted> {
        pending().await
    }

    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.free.load(Relaxed) == 0 {
            // Stands for EMFILE, for which Rust has no `ErrorKind`.
            return Some(Err(io::ErrorKind::Other.into()));
        }
        self.free.fetch_sub(1, Relaxed);
        let io = AnyIo::new(Descriptor(self.waiting.pop_front()?, Arc::clone(&self.free)));
        Some(Ok(Accepted::new(io, Peer::Other)))
    }
}

#[tokio::test(start_paused = true)]
async fn accept_queue_is_emptied_despite_few_descriptors() {
    let (mut peers, mut waiting) = (Vec::new(), VecDeque::new());
    for _ in 0..100 {
        let (mut peer, io) = duplex(64);
        peer.write_all(b"a\n").await.unwrap();
        peer.shutdown().await.unwrap();
        peers.push(peer);
        waiting.push_back(io);
    }
    let listener = FewDescriptors { waiting, free: Arc::new(AtomicUsize::new(7)) };
    let counters = Running::start(patient(), listener, reply(upper)).stopped().await;
    assert_eq!((counters.accepted, counters.lines, counters.aborted), (100, 100, 0));
    assert!(counters.accept_errors > 0);
    for peer in &mut peers {
        assert_eq!(rest(peer).await, "A\n");
    }
}

#[tokio::test]
async fn custom_listeners_are_emptied_at_shutdown() {
    let (dialer, listener) = in_memory();
    // 500 connections exceed Tokio's cooperative budget for one poll.
    let mut peers: Vec<_> = (0..500).map(|_| dialer.connect(64)).collect();
    for peer in &mut peers {
        peer.write_all(b"a\n").await.unwrap();
        peer.shutdown().await.unwrap();
    }
    let counters = soon(Running::start(patient(), listener, reply(upper)).stopped()).await;
    assert_eq!((counters.accepted, counters.lines), (500, 500));
}

#[tokio::test(start_paused = true)]
async fn handshakes_run_concurrently_during_shutdown() {
    let (dialer, listener) = in_memory();
    let hook = async |mut accepted: Accepted| {
        accepted.io.read_u8().await?;
        Ok(accepted)
    };
    let mut running = Running::start(patient().max_handshakes(1).handshake(hook), listener, reply(upper));
    let _silent: Vec<_> = (0..6).map(|_| dialer.connect(64)).collect();
    let mut peer = dialer.connect(64);
    peer.write_all(b"!a\n").await.unwrap();
    peer.shutdown().await.unwrap();
    while running.server.counters().open < 7 {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    running.ask_to_stop();
    assert_eq!(rest(&mut peer).await, "A\n");
    let counters = running.stopped().await;
    assert!(asked.elapsed() < Duration::from_millis(1100), "{:?}", asked.elapsed());
    assert_eq!((counters.lines, counters.handshake_timeouts, counters.aborted), (1, 6, 0));
}
