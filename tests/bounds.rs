//! What a connection costs: the size of what a handler holds, and what is left in memory behind what went through. The
//! allocator that counts comes from a crate.

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
fn everything_goes_to_other_threads() {
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
fn a_handler_and_a_session_are_small() {
    let conn = Connection::new(tokio::io::empty());
    let accepted = Accepted::new(AnyIo::new(tokio::io::empty()), Peer::Other);
    let handler = size_of_val(&upper(conn));
    let session = size_of_val(&Server::new().serve_one(accepted, upper));
    println!("handler {handler}, session {session}");
    assert!(handler <= 256 && session <= 840);
}

/// Gives what it was told to and then nothing, takes everything or so much, and allocates nothing.
#[derive(Default)]
struct Quiet {
    /// And how many times.
    gives: Mutex<(&'static [u8], usize)>,
    /// It takes so many bytes more.
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
        // The rest of it is given once, next.
        let (now, later) = gives.split_at(gives.len().min(into.remaining()));
        into.put_slice(now);
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

/// What the future has come to without anybody going on.
fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn done<T>(future: impl Future<Output = T>) -> T {
    match now(future) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("waits"),
    }
}

/// Echoes until there is nothing to read, by line or by batch.
fn echo(conn: &mut Connection<Quiet>, by_batch: bool) {
    loop {
        if by_batch {
            let Poll::Ready(batch) = now(conn.next_batch()) else { return };
            for line in &batch.unwrap().unwrap() {
                done(conn.write_line(line.unwrap())).unwrap();
            }
        } else {
            let Poll::Ready(line) = now(conn.next_line()) else { return };
            done(conn.write_line(line.unwrap().unwrap().unwrap())).unwrap();
        }
    }
}

/// Allocates the buffer that all connections of a thread read through.
fn share() {
    let mut first = Connection::from_io(Quiet::default(), LineCodec::new());
    assert!(now(first.next_line()).is_pending());
}

/// What the connection costs that is made in `measured`, beside what all connections of a thread share.
fn measure_connection(measured: impl FnOnce() -> Connection<Quiet>) -> AllocationInfo {
    share();
    let mut kept = None;
    let info = measure(|| kept = Some(measured()));
    drop(kept);
    info
}

/// The connection itself, without a buffer for reading or for writing.
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

/// What a handler holds that waits, beside what one holds to which nothing was sent.
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
                assert!(now(handling.as_mut()).is_pending());
            }
        });
        kept.push(handling);
        info.bytes_current
    };
    let idle = hold(b"one\n");
    hold(gives) - idle
}

#[test]
fn a_reply_that_waits_for_a_line_holds_no_buffer() {
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

/// Who does not take it is not to cost what was never sent.
#[test]
fn what_was_refused_is_given_back() {
    let giant = reply_into(|_, reply| reply.extend_from_slice(&[b'x'; 1 << 20]));
    let held = held_by(giant, b"one\ntwo\n", Some(0));
    assert!(held < 1024, "{held}");
    let info = measure_connection(|| {
        // More than what is left for others.
        let mut conn =
            Connection::from_io(Quiet::default(), LineCodec::builder().max_length(200_000).build());
        assert!(matches!(done(conn.write_line(vec![b'\n'; 200_000])), Err(Error::Encode(_))));
        conn
    });
    assert!(info.bytes_current <= IDLE, "{} bytes", info.bytes_current);
}

/// What waits is not copied whenever something behind it is refused.
#[test]
fn what_is_refused_leaves_what_waits_where_it_is() {
    static LINES: [[u8; 2]; 600] = [*b"x\n"; 600];
    let two_lines = reply_into(|line, reply| reply.extend([line, b"\n2"].concat()));
    let io = Quiet { takes: Some(0), ..Quiet::default() };
    io.gives(LINES.as_flattened(), 1);
    let mut handling = Box::pin(two_lines(Connection::new(io)));
    let info = measure(|| assert!(now(handling.as_mut()).is_pending()));
    // 600 error lines of 98 bytes, and as much again for each of them.
    assert!((60_000..1_000_000).contains(&info.bytes_total), "{} bytes", info.bytes_total);
}

/// If the peer takes most of it, the rest waits in little memory.
#[test]
fn what_waits_behind_much_that_was_sent_takes_little_memory() {
    let info = measure_connection(|| {
        let io = Quiet { takes: Some(120_000), ..Quiet::default() };
        let mut conn = Connection::from_io(io, LineCodec::builder().max_length(120_100).build());
        assert!(now(conn.send_line([b'x'; 120_100])).is_pending());
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

/// Of a line under way, its bytes and not much more.
#[test]
fn the_beginning_of_a_line_is_kept_in_little_more_than_its_length() {
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
    // Nor of the read that it came with, behind many lines.
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
fn the_memory_of_a_giant_line_is_given_back() {
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

/// Behind a line that is kept, only that is kept.
#[test]
fn a_line_that_is_kept_does_not_keep_the_connection_from_giving_back() {
    static LINES: [[u8; 2]; 1000] = [*b"x\n"; 1000];
    let mut kept = None;
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(LINES.as_flattened(), 1);
        kept = Some(done(conn.next_line()).unwrap().unwrap().unwrap());
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
/// A read, what becomes of it, and what was unsent or begun.
const CONSTANT: u64 = 256 * 1024;

#[test]
fn a_gibibyte_is_skipped_in_constant_memory() {
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(&PIECE, PIECES);
        done(conn.skip_bytes(GIBIBYTE)).unwrap();
        assert_eq!(conn.counters().read.skipped_bytes, GIBIBYTE);
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < CONSTANT, "{} bytes", info.bytes_max);
}

#[test]
fn a_gibibyte_of_body_is_read_in_constant_memory() {
    let mut some = vec![0; 8 * 1024];
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(&PIECE, PIECES);
        let mut body = conn.body(GIBIBYTE);
        while body.left() > 0 {
            assert!(done(body.read(&mut some)).unwrap() > 0);
        }
        drop(body);
        assert_eq!(conn.counters().read.content_bytes, GIBIBYTE);
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < CONSTANT, "{} bytes", info.bytes_max);
}

#[test]
fn a_gibibyte_without_a_terminator_is_skipped_in_constant_memory() {
    let info = measure_connection(|| {
        let mut conn = Connection::from_io(Quiet::default(), LineCodec::new());
        conn.io().gives(&PIECE, PIECES);
        let line = done(conn.next_line()).unwrap().unwrap();
        assert!(matches!(line, Err(LineError::TooLong { .. })));
        drop(line);
        assert!(now(conn.next_line()).is_pending());
        assert_eq!(conn.counters().read.skipped_bytes, GIBIBYTE - 64 * 1024);
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < CONSTANT, "{} bytes", info.bytes_max);
    // With the counters of bad lines.
    assert!(info.bytes_current <= IDLE + 144, "{} bytes", info.bytes_current);
}

/// A peer that sends without end and reads nothing is no longer read.
#[test]
fn lines_for_a_peer_that_never_reads_do_not_pile_up() {
    static LINES: [[u8; 64]; 1024] =
        [*b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"; 1024];
    let info = measure_connection(|| {
        let io = Quiet { takes: Some(0), ..Quiet::default() };
        let mut conn = Connection::from_io(io, LineCodec::new());
        conn.io().gives(LINES.as_flattened(), PIECES);
        while let Poll::Ready(line) = now(conn.next_line()) {
            if now(conn.write_line(line.unwrap().unwrap().unwrap())).is_pending() {
                break;
            }
        }
        conn
    });
    println!("at most {} bytes", info.bytes_max);
    assert!(info.bytes_max < 2 * CONSTANT, "{} bytes", info.bytes_max);
}

/// Whoever has many addresses would else take as much memory as they like.
#[test]
fn an_address_that_has_gone_leaves_nothing() {
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

/// A server that was busy once is as small as before.
#[test]
fn ended_sessions_give_their_memory_back() {
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
            // What ended in this turn is cleared up in the next.
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
