//! Bounds on the memory of a connection: the size of its types and futures, and the heap it keeps
//! after reading and writing. `allocation_counter` provides the counting allocator.

use std::future::Future;
use std::io;
use std::mem::{size_of, size_of_val};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::{AllocationInfo, measure};
use lineframe::{
    Accepted, AnyIo, Batch, Body, Client, Connection, Draining, Error, LineCodec, LineError, LineReader,
    LineWriter, Peer, Server, reply, reply_into,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

#[test]
fn a_connection_is_one_pointer() {
    assert_eq!(size_of::<Connection>(), size_of::<usize>());
    assert_eq!(size_of::<LineReader>(), size_of::<usize>());
    assert_eq!(size_of::<LineWriter>(), size_of::<usize>());
}

#[test]
fn every_type_and_future_is_send() {
    fn goes<T: Send + Sync>() {}
    goes::<Connection>();
    goes::<LineReader>();
    goes::<LineWriter>();
    goes::<Draining>();
    goes::<Body<'_>>();
    goes::<Batch>();
    goes::<AnyIo>();
    goes::<Server>();
    goes::<Client>();
    goes::<Error>();
    fn goes_along<T: Send + Sync>(_: T) {}
    let mut conn = Connection::new(tokio::io::empty());
    goes_along(conn.next_line());
    goes_along(conn.next_batch());
    goes_along(conn.write_line("line"));
    goes_along(conn.request("line"));
    let (reader, writer) = conn.split();
    goes_along(reader);
    goes_along(writer);
}

#[test]
fn futures_are_small() {
    let mut conn = Connection::new(tokio::io::empty());
    let line = "line";
    macro_rules! sizes {
        ($($future:expr),*) => {
            [$({
                let size = size_of_val(&$future);
                (stringify!($future), size)
            }),*]
        };
    }
    let sizes = sizes![
        conn.next_line(),
        conn.next_text(),
        conn.next_batch(),
        conn.read_bytes(1),
        conn.skip_bytes(1),
        conn.write_line(line),
        conn.send_line(line),
        conn.write_bytes(line),
        conn.flush(),
        conn.shutdown(),
        conn.request(line)
    ];
    for (future, size) in sizes {
        println!("{future} {size}");
        assert!(size <= 64, "{future} {size}");
    }
}

async fn upper(mut conn: Connection) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
            Err(bad) => conn.write_line(bad.reply()).await?,
        }
    }
    Ok(())
}

#[test]
fn handlers_and_sessions_are_small() {
    let conn = Connection::new(tokio::io::empty());
    let accepted = Accepted::new(AnyIo::new(tokio::io::empty()), Peer::Other);
    let handler = size_of_val(&upper(conn));
    let session = size_of_val(&Server::new().serve_one(accepted, upper));
    println!("handler {handler}, session {session}");
    assert!(handler <= 256 && session <= 840);
}

/// A stream that returns scripted input, then stays pending. Accepts all output or a limited number
/// of bytes. Allocates nothing itself.
#[derive(Default)]
struct Quiet {
    /// The input, and how many more times to return it.
    gives: Mutex<(&'static [u8], usize)>,
    /// The number of bytes it still accepts; `None` is unlimited.
    takes: Option<usize>,
}

impl Quiet {
    fn gives(&self, bytes: &'static [u8], times: usize) {
        *self.gives.lock().unwrap() = (bytes, times);
    }
}

impl AsyncRead for Quiet {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (gives, times) = &mut *self.gives.lock().unwrap();
        let Some(more) = times.checked_sub(1) else { return Poll::Pending };
        // The read buffer may be shorter than the input. The next read returns the rest.
        let (first, later) = gives.split_at(gives.len().min(into.remaining()));
        into.put_slice(first);
        match later {
            [] => *times = more,
            later => {
                assert_eq!(more, 0);
                *gives = later;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let takes = bytes.len().min(self.takes.unwrap_or(usize::MAX));
        if takes == 0 {
            return Poll::Pending;
        }
        if let Some(left) = &mut self.takes {
            *left -= takes;
        }
        Poll::Ready(Ok(takes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls the future once.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    match poll_once(future) {
        Poll::Ready(ready) => ready,
        Poll::Pending => panic!("the future is pending"),
    }
}

/// Echoes line by line or batch by batch until a read would wait.
fn echo(conn: &mut Connection<Quiet>, by_batch: bool) {
    loop {
        if by_batch {
            let Poll::Ready(batch) = poll_once(conn.next_batch()) else { return };
            for line in &batch.unwrap().unwrap() {
                ready(conn.write_line(line.unwrap())).unwrap();
            }
        } else {
            let Poll::Ready(line) = poll_once(conn.next_line()) else { return };
            ready(conn.write_line(line.unwrap().unwrap().unwrap())).unwrap();
        }
    }
}

/// Allocates the read buffer that all connections of a thread share.
fn share() {
    let mut first = Connection::from_io(Quiet::default(), LineCodec::new());
    assert!(poll_once(first.next_line()).is_pending());
}

/// Measures the allocations of the connection made in `measured`, excluding the shared read buffer
/// of the thread.
fn measure_connection(measured: impl FnOnce() -> Connection<Quiet>) -> AllocationInfo {
    share();
    let mut kept = None;
    let info = measure(|| kept = Some(measured()));
    drop(kept);
    info
}

/// The size in bytes of a connection without buffers.
const IDLE: i64 = 480;

#[test]
fn an_idle_connection_holds_no_buffer() {
    static BURST: [[u8; 15]; 4000] = [*b"xxxxxxxxxxxxxx\n"; 4000];
    let burst = BURST.as_flattened();
    for by_batch in [false, true] {
        for (bytes, times) in [(&b""[..], 0), (b"one\n", 1), (b"one\ntwo\n", 100), (burst, 1), (burst, 100)] {
            let info = measure_connection(|| {
                let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
                conn.io().gives(bytes, times);
                echo(&mut conn, by_batch);
                assert_eq!(conn.counters().bytes_sent, (bytes.len() * times) as u64);
                conn
            });
            println!("{} bytes {times} times: {} bytes", bytes.len(), info.bytes_current);
            assert!(info.bytes_current <= IDLE, "{} bytes", info.bytes_current);
        }
    }
}

/// Returns how much more memory a waiting handler holds after reading `gives` than after reading
/// one line.
fn held_by<Fut>(handler: impl Fn(Connection) -> Fut, gives: &'static [u8], takes: Option<usize>) -> i64
where
    Fut: Future<Output = io::Result<()>>,
{
    let mut kept = Vec::with_capacity(2);
    let mut hold = |gives| {
        share();
        let io = Quiet { takes, ..Quiet::default() };
        io.gives(gives, 1);
        let mut handling = Box::pin(handler(Connection::new(io)));
        let info = measure(|| {
            for _ in 0..3 {
                assert!(poll_once(handling.as_mut()).is_pending());
            }
        });
        kept.push(handling);
        info.bytes_current
    };
    let idle = hold(b"one\n");
    hold(gives) - idle
}

#[test]
fn reply_waiting_for_a_line_holds_no_buffer() {
    static BURST: [u8; 60_000] = {
        let mut burst = [b'\n'; 60_000];
        burst[59_999] = b'x';
        burst
    };
    for gives in [&BURST[..59_999], &BURST] {
        let held = [
            held_by(reply(<[u8]>::to_vec), gives, None),
            held_by(reply_into(|line, reply| reply.extend_from_slice(line)), gives, None),
        ];
        assert!(held.iter().all(|held| *held <= 2 + 64), "{held:?}");
    }
}

/// A refused line must not leave memory behind if the peer does not read.
#[test]
fn memory_of_refused_lines_is_freed() {
    let giant = reply_into(|_, reply| reply.extend_from_slice(&[b'x'; 1 << 20]));
    let held = held_by(giant, b"one\ntwo\n", Some(0));
    assert!(held < 1024, "{held}");
    let info = measure_connection(|| {
        // Longer than any buffer that a connection keeps for reuse.
        let mut conn =
            Connection::from_io(Quiet::default(), LineCodec::builder().max_length(200_000).build());
        assert!(matches!(ready(conn.write_line(vec![b'\n'; 200_000])), Err(Error::Encode(_))));
        conn
    });
    assert!(info.bytes_current <= IDLE, "{} bytes", info.bytes_current);
}

/// Unsent output is not copied each time a later line is refused.
#[test]
fn refused_lines_do_not_copy_unsent_output() {
    static LINES: [[u8; 2]; 600] = [*b"x\n"; 600];
    let two_lines = reply_into(|line, reply| reply.extend([line, b"\n2"].concat()));
    let io = Quiet { takes: Some(0), ..Quiet::default() };
    io.gives(LINES.as_flattened(), 1);
    let mut handling = Box::pin(two_lines(Connection::new(io)));
    let info = measure(|| assert!(poll_once(handling.as_mut()).is_pending()));
    // 600 error lines of 98 bytes, plus the same amount for the refused replies.
    assert!((60_000..1_000_000).contains(&info.bytes_total), "{} bytes", info.bytes_total);
}

/// After the peer takes most of a line, the rest is kept in a small buffer.
#[test]
fn unsent_rest_of_long_output_takes_little_memory() {
    let info = measure_connection(|| {
        let io = Quiet { takes: Some(120_000), ..Quiet::default() };
        let mut conn = Connection::from_io(io, LineCodec::builder().max_length(120_100).build());
        assert!(poll_once(conn.send_line([b'x'; 120_100])).is_pending());
        conn
    });
    let held = info.bytes_current - IDLE;
    assert!(held <= 8 * 101 + 64, "{held} bytes for 101");
}

#[test]
fn deadlines_cost_a_timer() {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let clock = clock.unwrap();
    let _in = clock.enter();
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.set_idle_timeout(Duration::from_secs(1));
        conn.set_line_timeout(Duration::from_secs(1));
        conn.set_write_timeout(Duration::from_secs(1));
        conn.io().gives(b"one\ntw", 1);
        echo(&mut conn, false);
        conn.io().gives(b"o\n", 1);
        echo(&mut conn, false);
        conn
    });
    println!("{} bytes", info.bytes_current);
    assert!(info.bytes_current <= IDLE + 320, "{} bytes", info.bytes_current);
}

/// Of the partial line itself, at most twice its length is kept.
#[test]
fn partial_lines_take_little_more_than_their_length() {
    const PARTS: [&[u8]; 3] = [b"x", &[b'x'; 100], &[b'x'; 10_000]];
    for part in PARTS {
        let info = measure_connection(|| {
            let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
            conn.io().gives(part, 3);
            echo(&mut conn, false);
            conn
        });
        let held = info.bytes_current - IDLE;
        assert!(held <= 2 * 3 * part.len() as i64 + 64, "{held} bytes for {}", 3 * part.len());
    }
    // The read buffer of 40,000 bytes is not kept for a one-byte partial line after many whole
    // lines.
    static READ: [u8; 40_000] = {
        let mut read = [b'\n'; 40_000];
        read[39_999] = b'x';
        read
    };
    for by_batch in [false, true] {
        let info = measure_connection(|| {
            let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
            conn.io().gives(&READ, 1);
            echo(&mut conn, by_batch);
            conn
        });
        let held = info.bytes_current - IDLE;
        assert!(held <= 2 + 64, "{held} bytes for 1");
    }
}

#[test]
fn memory_of_a_giant_line_is_freed() {
    const MIB: &[u8] = &[b'x'; 1 << 20];
    const PIECE: &[u8] = MIB.split_at(64 * 1024).0;
    for by_batch in [false, true] {
        let info = measure_connection(|| {
            let codec = LineCodec::builder().max_length(8 << 20).build();
            let mut conn = Connection::from_io(Quiet::default(), codec);
            conn.io().gives(PIECE, 64);
            echo(&mut conn, by_batch);
            conn.io().gives(b"\nshort\n", 1);
            echo(&mut conn, by_batch);
            assert_eq!(conn.counters().read.lines, 2);
            conn
        });
        assert!(info.bytes_max >= 4 << 20);
        assert!(info.bytes_current <= IDLE, "{} bytes", info.bytes_current);
    }
}

/// Keeping a line keeps that line's read buffer alive, but nothing else.
#[test]
fn kept_lines_pin_only_their_own_read() {
    static LINES: [[u8; 2]; 1000] = [*b"x\n"; 1000];
    let mut kept = None;
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(LINES.as_flattened(), 1);
        kept = Some(ready(conn.next_line()).unwrap().unwrap().unwrap());
        echo(&mut conn, false);
        conn
    });
    let line = measure(|| drop(kept));
    assert!(line.bytes_current < -1000, "the line pins its read");
    assert!(info.bytes_current + line.bytes_current <= IDLE, "{} bytes", info.bytes_current);
}

const GIBIBYTE: u64 = 1 << 30;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
const PIECES: usize = GIBIBYTE as usize / PIECE.len();
/// Bytes that a connection may use: one read, its processing, and partial lines or unsent output.
const CONSTANT: u64 = 256 * 1024;

#[test]
fn a_gibibyte_is_skipped_in_constant_memory() {
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(&PIECE, PIECES);
        ready(conn.skip_bytes(GIBIBYTE)).unwrap();
        assert_eq!(conn.counters().read.skipped_bytes, GIBIBYTE);
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < CONSTANT, "{} bytes", info.bytes_max);
}

#[test]
fn gibibyte_body_is_read_in_constant_memory() {
    let mut some = vec![0; 8 * 1024];
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(&PIECE, PIECES);
        let mut body = conn.body(GIBIBYTE);
        while body.left() > 0 {
            assert!(ready(body.read(&mut some)).unwrap() > 0);
        }
        drop(body);
        assert_eq!(conn.counters().read.content_bytes, GIBIBYTE);
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < CONSTANT, "{} bytes", info.bytes_max);
}

#[test]
fn unterminated_gibibyte_is_skipped_in_constant_memory() {
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(&PIECE, PIECES);
        let line = ready(conn.next_line()).unwrap().unwrap();
        assert!(matches!(line, Err(LineError::TooLong { .. })));
        drop(line);
        assert!(poll_once(conn.next_line()).is_pending());
        assert_eq!(conn.counters().read.skipped_bytes, GIBIBYTE - 64 * 1024);
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < CONSTANT, "{} bytes", info.bytes_max);
    // The 144 bytes are the counters of bad lines.
    assert!(info.bytes_current <= IDLE + 144, "{} bytes", info.bytes_current);
}

/// The connection stops reading from a peer that sends without end and reads nothing.
#[test]
fn lines_for_peers_that_never_read_are_bounded() {
    static LINES: [[u8; 64]; 1024] =
        [*b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"; 1024];
    let info = measure_connection(|| {
        let io = Quiet { takes: Some(0), ..Quiet::default() };
        let mut conn = Connection::from_io(io, LineCodec::new());
        conn.io().gives(LINES.as_flattened(), PIECES);
        while let Poll::Ready(line) = poll_once(conn.next_line()) {
            if poll_once(conn.write_line(line.unwrap().unwrap().unwrap())).is_pending() {
                break;
            }
        }
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < 2 * CONSTANT, "{} bytes", info.bytes_max);
}

/// Otherwise a client with many addresses could use an unlimited amount of memory.
#[test]
fn closed_addresses_leave_no_memory() {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let server = Server::builder().max_connections_per_ip(1).build();
    let connect = |address: u32| {
        let peer = Peer::Tcp((std::net::Ipv4Addr::from(address), 1).into());
        let accepted = Accepted::new(AnyIo::new(tokio::io::empty()), peer);
        clock.block_on(server.serve_one(accepted, upper));
    };
    connect(0);
    let info = measure(|| (1..=10_000).for_each(connect));
    assert!(info.bytes_current < 1000, "{} bytes", info.bytes_current);
    assert_eq!((server.counters().accepted, server.counters().refused), (10_001, 0));
}

/// A server frees the memory of sessions that have ended.
#[test]
fn memory_of_ended_sessions_is_freed() {
    use lineframe::Listener;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Handed(UnboundedReceiver<AnyIo>);

    impl Listener for Handed {
        async fn accept(&mut self) -> io::Result<Accepted> {
            match self.0.recv().await {
                Some(io) => Ok(Accepted::new(io, Peer::Other)),
                None => std::future::pending().await,
            }
        }
    }

    const MANY: u64 = 1000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (hand, handed) = unbounded_channel();
    let server = Server::new();
    let serving = server.serve(Handed(handed), reply(<[u8]>::to_vec));
    let until_open = |count| {
        let server = server.clone();
        async move {
            while server.counters().open != count {
                tokio::task::yield_now().await;
            }
            // The server frees ended sessions in later polls.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    };
    let crowd = || {
        let mut peers = Vec::new();
        runtime.block_on(async {
            for _ in 0..MANY {
                let (peer, io) = tokio::io::duplex(64);
                hand.send(AnyIo::new(io)).unwrap();
                peers.push(peer);
            }
            until_open(MANY).await;
            drop(peers);
            until_open(0).await;
        });
    };
    runtime.spawn(serving);
    crowd();
    let left = measure(crowd).bytes_current;
    assert!(left < 1024, "{left} bytes for {MANY} connections");
}
