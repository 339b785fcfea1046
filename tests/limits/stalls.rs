//! Deadlines of sockets for which the system has data that Tokio has not noticed. The clock is
//! paused, so the tests do not depend on the speed of the machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lineframe::{Accepted, AnyIo, Connection, Peer, ServerBuilder, ServerCounters, reply};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, BufStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::durations::{LIMIT, MS, assert_took, no_deadlines};
use crate::served::{Address, AnyListener, Buffers, Running, soon, tcp, unix, upper};

trait Socket: Read + Write + Send {}
impl<S: Read + Write + Send> Socket for S {}

/// Both ends of a TCP connection or Unix socket. The server's end belongs to a runtime that never
/// polls the system, so Tokio never learns that data is available.
struct Unseen {
    /// Taken in `drop`, because a runtime cannot be dropped inside another runtime.
    runtime: Option<Runtime>,
    peer: Box<dyn Socket>,
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Unseen {
    fn new(is_tcp: bool) -> (Self, AnyIo) {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        let entered = runtime.enter();
        let (peer, io): (Box<dyn Socket>, _) = if is_tcp {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (io, _) = listener.accept().unwrap();
            io.set_nonblocking(true).unwrap();
            (Box::new(peer), AnyIo::new(tokio::net::TcpStream::from_std(io).unwrap()))
        } else {
            let (peer, io) = UnixStream::pair().unwrap();
            io.set_nonblocking(true).unwrap();
            (Box::new(peer), AnyIo::new(tokio::net::UnixStream::from_std(io).unwrap()))
        };
        drop(entered);
        (Self { runtime: Some(runtime), peer }, io)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).unwrap();
    }

    fn received(&mut self) -> String {
        let mut bytes = String::new();
        self.peer.read_to_string(&mut bytes).unwrap();
        bytes
    }
}

/// Returns each kind of socket, both directly and wrapped in another stream.
fn each_kind() -> impl Iterator<Item = (Unseen, AnyIo)> {
    [(true, false), (true, true), (false, false), (false, true)].into_iter().map(|(is_tcp, is_wrapped)| {
        let (unseen, io) = Unseen::new(is_tcp);
        (unseen, if is_wrapped { AnyIo::new(BufStream::new(io)) } else { io })
    })
}

fn serve(builder: ServerBuilder, io: AnyIo) -> JoinHandle<ServerCounters> {
    let server = builder.build();
    tokio::spawn(async move {
        server.serve_one(Accepted::new(io, Peer::Other), reply(upper)).await;
        server.counters()
    })
}

#[tokio::test(start_paused = true)]
async fn timely_bytes_are_read_after_a_stall() {
    for (mut peer, io) in each_kind() {
        peer.send(b"a\n");
        let counters = serve(no_deadlines().idle_timeout(LIMIT).write_timeout(LIMIT), io).await.unwrap();
        assert_eq!((counters.lines, counters.idle_timeouts, counters.write_timeouts), (1, 1, 0));
        assert_eq!(peer.received(), "A\n");
    }
}

#[tokio::test(start_paused = true)]
async fn complete_lines_are_read_after_a_stall() {
    let builder = || no_deadlines().idle_timeout(LIMIT).line_timeout(LIMIT).write_timeout(LIMIT);
    for (mut peer, io) in each_kind() {
        peer.send(b"a");
        let since = Instant::now();
        let served = serve(builder(), io);
        sleep(2 * LIMIT - 5 * MS).await;
        peer.send(b"\n");
        let counters = served.await.unwrap();
        assert_eq!((counters.lines, counters.line_timeouts, counters.idle_timeouts), (1, 0, 1));
        assert_eq!(peer.received(), "A\n");
        assert_took(since, 3 * LIMIT);
    }
    for (mut peer, io) in each_kind() {
        peer.send(b"a");
        let since = Instant::now();
        let served = serve(builder(), io);
        sleep(2 * LIMIT - 5 * MS).await;
        peer.send(b"b");
        let counters = served.await.unwrap();
        assert_eq!((counters.lines, counters.line_timeouts), (0, 1));
        assert_took(since, 2 * LIMIT);
    }
}

/// Bytes that the server sends in total. The socket buffers hold a little more than 1 MiB.
const SENT: usize = 4 << 20;

/// In this time the peer reads 240 KiB. That frees less than a third of the server's send buffer,
/// so Linux does not report the socket as writable.
const TIMEOUT: Duration = Duration::from_millis(600);

/// Runs a server that sends `SENT` bytes. The peer reads `most` of them in small pieces and then
/// stops.
async fn reads_slowly(
    (address, listener): (Address, AnyListener),
    wraps: bool,
    most: usize,
) -> ServerCounters {
    fn limit_buffers(io: &AnyIo) {
        let tcp = io.downcast_ref::<tokio::net::TcpStream>().map(SockRef::from);
        let unix = io.downcast_ref::<tokio::net::UnixStream>().map(SockRef::from);
        let socket = tcp.or(unix).unwrap();
        socket.set_send_buffer_size(512 * 1024).unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
    }
    let sends = async |mut conn: Connection| {
        conn.write_bytes(vec![b'x'; SENT]).await?;
        conn.flush().await?;
        Ok(())
    };
    let builder = no_deadlines().write_timeout(TIMEOUT).handshake(async move |accepted: Accepted| {
        limit_buffers(&accepted.io);
        let io = if wraps { AnyIo::new(BufStream::new(accepted.io)) } else { accepted.io };
        Ok(Accepted::new(io, accepted.peer))
    });
    let running = Running::start(builder, listener, sends);
    let mut peer = address.connect().await.unwrap();
    limit_buffers(&peer);
    let (mut piece, mut read) = (vec![0; 32 * 1024], 0);
    while read < most {
        match soon(peer.read(&mut piece)).await.unwrap_or(0) {
            0 => break,
            count => read += count,
        }
        // TCP does not use the paused clock.
        std::thread::sleep(Duration::from_millis(2));
        sleep(Duration::from_millis(80)).await;
    }
    assert!(read >= most, "{address:?} {wraps}: cut after {read} bytes");
    sleep(4 * TIMEOUT).await;
    drop(peer);
    running.stopped().await
}

#[tokio::test(start_paused = true)]
async fn steady_slow_readers_stay_connected() {
    for wraps in [false, true] {
        for socket in [tcp(Buffers::Usual), unix(Buffers::Usual)] {
            assert_eq!(reads_slowly(socket, wraps, SENT).await.write_timeouts, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stopped_readers_are_closed_at_write_timeout() {
    for wraps in [false, true] {
        for socket in [tcp(Buffers::Usual), unix(Buffers::Usual)] {
            assert_eq!(reads_slowly(socket, wraps, SENT / 8).await.write_timeouts, 1);
        }
    }
}
