//! Clients, listeners and streams that would block a server without limits.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use lineframe::{Accepted, AnyIo, Listener, Peer, Server, reply};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::{Instant, sleep};

use crate::served::{Running, in_memory, line, soon, upper};

#[tokio::test(start_paused = true)]
async fn slow_clients_release_slots_at_line_timeout() {
    let (dialer, listener) = in_memory();
    let running = Running::start(Server::builder().max_connections(1000), listener, reply(upper));
    let since = Instant::now();
    for _ in 0..1000 {
        let mut peer = dialer.connect(64);
        tokio::spawn(async move {
            while peer.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    sleep(Duration::from_secs(1)).await;
    let mut peer = dialer.connect(64);
    peer.write_all(b"a\n").await.unwrap();
    assert_eq!(line(&mut peer).await, "A\n");
    let took = since.elapsed();
    assert!(Duration::from_secs(30) <= took && took < Duration::from_secs(31), "{took:?}");
    assert_eq!(running.server.counters().line_timeouts, 1000);
}

/// A listener that follows a script of failures and connections, and records the time of each call.
struct Scripted {
    script: VecDeque<io::Result<Accepted>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Listener for Scripted {
    async fn accept(&mut self) -> io::Result<Accepted> {
        self.asked.lock().unwrap().push(Instant::now());
        match self.script.pop_front() {
            Some(accepted) => accepted,
            None => pending().await,
        }
    }
}

/// Lets `accept` fail as often as the script says, then succeed, and so on. Returns the pauses
/// before each call of `accept` in milliseconds.
async fn calls(script: &[(u32, io::ErrorKind)]) -> (Vec<u128>, Running) {
    let asked = Arc::default();
    let mut peers: Vec<DuplexStream> = Vec::new();
    let mut results = VecDeque::new();
    for (times, kind) in script {
        results.extend((0..*times).map(|_| Err(io::Error::from(*kind))));
        let (peer, io) = duplex(64);
        results.push_back(Ok(Accepted::new(AnyIo::new(io), Peer::Other)));
        peers.push(peer);
    }
    let since = Instant::now();
    let running = Running::start(
        Server::builder(),
        Scripted { script: results, asked: Arc::clone(&asked) },
        reply(upper),
    );
    for peer in &mut peers {
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(line(peer).await, "A\n", "no error is fatal");
    }
    let asked = asked.lock().unwrap();
    let before = std::iter::once(&since).chain(&*asked);
    (asked.iter().zip(before).map(|(at, before)| (*at - *before).as_millis()).collect(), running)
}

/// Rust has no `ErrorKind` for `EMFILE` and `ENFILE`, so the test uses `Other`.
#[tokio::test(start_paused = true)]
async fn resource_errors_are_retried_with_growing_pauses() {
    let (calls, running) = calls(&[(10, io::ErrorKind::Other), (3, io::ErrorKind::OutOfMemory)]).await;
    // The last call of `accept` stays pending.
    let expected = [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 0, 10, 20, 40, 0];
    let differ = calls.iter().zip(expected).any(|(ms, expected)| ms.abs_diff(expected) > 2);
    assert!(calls.len() == expected.len() && !differ, "{calls:?}");
    let counters = running.stopped().await;
    assert_eq!((counters.accept_errors, counters.accepted, counters.lines), (13, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn errors_of_one_connection_are_skipped_without_pause() {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    let script =
        [ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable];
    let (calls, running) = calls(&script.map(|kind| (100, kind))).await;
    assert_eq!(calls, [0; 607]);
    assert_eq!(running.stopped().await.accept_errors, 600);
}

#[tokio::test(start_paused = true)]
async fn shutdown_interrupts_the_accept_backoff() {
    let (dialer, listener) = in_memory();
    for _ in 0..100 {
        dialer.fail(io::ErrorKind::Other.into());
    }
    let mut running = Running::start(Server::builder(), listener, reply(upper));
    sleep(Duration::from_secs(10)).await;
    let since = Instant::now();
    running.ask_to_stop();
    let counters = running.stopped().await;
    assert_eq!(since.elapsed().as_millis(), 0);
    assert!((10..=20).contains(&counters.accept_errors), "{}", counters.accept_errors);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_always_fails_is_paused() {
    struct Aborts;

    impl Listener for Aborts {
        async fn accept(&mut self) -> io::Result<Accepted> {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }

    let running = Running::start(Server::builder(), Aborts, reply(upper));
    // Without a pause, neither this task nor the shutdown would ever be polled.
    sleep(Duration::from_secs(60)).await;
    let errors = running.server.counters().accept_errors;
    assert!((1000..1100).contains(&errors), "{errors}");
    running.stopped().await;
}

#[tokio::test]
async fn panicking_stream_frees_its_slot() {
    /// Panics in `poll_shutdown` or, if the flag is set, on drop.
    struct Panics(DuplexStream, bool);

    impl AsyncRead for Panics {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Panics {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            assert!(self.1, "when it is closed");
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            assert!(!self.1, "when it is dropped");
        }
    }

    let server = Server::builder().max_connections(1).max_connections_per_ip(1).build();
    for panics_when_dropped in [false, true, false] {
        let (mut peer, io) = duplex(64);
        let io = AnyIo::new(Panics(io, panics_when_dropped));
        let accepted = Accepted::new(io, Peer::Tcp(([127, 0, 0, 1], 1024).into()));
        let session = tokio::spawn(server.serve_one(accepted, reply(upper)));
        peer.write_all(b"a\n").await.unwrap();
        assert_eq!(soon(line(&mut peer)).await, "A\n");
        drop(peer);
        assert!(soon(session).await.unwrap_err().is_panic());
    }
    assert_eq!((server.counters().open, server.counters().panicked), (0, 2));
}
