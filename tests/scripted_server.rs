//! Like `scripted.rs`, for the connections of a server: every read and write is disturbed in turn,
//! up to the end of the session, with several kinds of handler, and during a shutdown.

mod script;

use std::future::pending;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use lineframe::{
    Accepted, AnyIo, Connection, Error, LineCodec, Listener, Peer, Server, ServerCounters, reply,
};
use script::Does::{Awaits, Ends, Sends, Signals};
use script::{By, Case, Disturbance, Does, Halves, Script, answer, clock, run_in_time};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, duplex, join, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

/// The ways in which a handler uses its connection.
#[derive(Clone, Copy, Debug)]
enum Handler {
    Answers(By),
    AnswersOverSplit,
    AnswersOverIntoSplit,
    /// Runs each half in its own task.
    HandsOutHalves,
    /// Lets another task answer, and returns immediately.
    HandsOn,
    IsReply,
    ForgetsItsType,
    AnswersOneLine,
}

impl Handler {
    async fn run(self, mut conn: Connection) -> io::Result<()> {
        let seen = &mut Vec::new();
        match self {
            Self::Answers(by) => _ = answer(&mut conn, by, seen).await?,
            Self::AnswersOverSplit => _ = answer(&mut Halves::new(conn.split()), By::Line, seen).await?,
            Self::AnswersOverIntoSplit => {
                _ = answer(&mut Halves::new(conn.into_split()), By::Line, seen).await?;
            }
            Self::HandsOutHalves => hand_out_halves(conn),
            Self::HandsOn => {
                tokio::spawn(reply(<[u8]>::to_ascii_uppercase)(conn));
            }
            Self::IsReply => reply(<[u8]>::to_ascii_uppercase)(conn).await?,
            Self::ForgetsItsType => _ = answer(&mut conn.into_any(), By::Line, seen).await?,
            Self::AnswersOneLine => {
                let line = conn.next_line().await?.unwrap()?;
                conn.write_line(line.to_ascii_uppercase()).await?;
            }
        }
        Ok(())
    }
}

/// Neither task flushes at the end. The server must send what is still queued.
fn hand_out_halves(conn: Connection) {
    let (mut reader, mut writer) = conn.into_split();
    let (to_writer, mut replies) = mpsc::channel(2);
    tokio::spawn(async move {
        // If the writer has failed, the peer may never send its next line.
        while let Either::Left((Ok(Some(Ok(line))), _)) =
            select(pin!(reader.next_line()), pin!(to_writer.closed())).await
        {
            _ = to_writer.send(line.to_ascii_uppercase()).await;
        }
    });
    tokio::spawn(async move {
        while let Some(reply) = replies.recv().await {
            writer.feed_line(reply).await?;
            if replies.is_empty() && !replies.is_closed() {
                writer.flush().await?;
            }
        }
        Ok::<_, Error>(())
    });
}

struct Session {
    handler: Handler,
    peer: &'static [Does],
    received: &'static str,
}

const PIPELINING: &[Does] = &[Sends(b"a\nb\nc"), Sends(b"d\ne\n"), Awaits(9), Sends(b"f\ng\n"), Ends];
const HALF_CLOSE: &[Does] = &[Sends(b"a\nb\n"), Ends];
const COUNTED: &[Does] = &[Sends(b"bytes 3\na\nb\nskip 4\n\n"), Sends(b"\n\n\nbody 4 2\n1234c\n"), Ends];
const UNREAD: &[Does] = &[Sends(b"a\nb\nc"), Sends(b"d\ne"), Sends(b"f\n"), Ends];

const SESSIONS: &[Session] = &[
    Session { handler: Handler::Answers(By::Line), peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::Answers(By::Batch), peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::AnswersOverSplit, peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::AnswersOverIntoSplit, peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::HandsOutHalves, peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::HandsOn, peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::IsReply, peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::ForgetsItsType, peer: PIPELINING, received: "A\nB\nCD\nE\nF\nG\n" },
    Session { handler: Handler::Answers(By::Line), peer: HALF_CLOSE, received: "A\nB\n" },
    Session { handler: Handler::HandsOutHalves, peer: HALF_CLOSE, received: "A\nB\n" },
    Session { handler: Handler::IsReply, peer: HALF_CLOSE, received: "A\nB\n" },
    Session {
        handler: Handler::Answers(By::PutBack),
        peer: COUNTED,
        received: "bytes\na\nb\n\nskipped\nbody\nC\n",
    },
    Session { handler: Handler::AnswersOneLine, peer: UNREAD, received: "A\n" },
];

/// Serves the script until the end of the session.
fn serve_one(clock: &Runtime, session: &Session, script: &Script) -> ServerCounters {
    // With `max_unsent` 0, every write that may wait does wait.
    let server = Server::builder().max_unsent(0).build();
    let handler = session.handler;
    let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
    let served = server.serve_one(accepted, move |conn| handler.run(conn));
    run_in_time(clock, script, served);
    server.counters()
}

#[test]
fn sessions_survive_any_single_disturbed_call() {
    let clock = clock();
    let mut runs = 0;
    for session in SESSIONS {
        for drips in [false, true] {
            let script =
                || if drips { Script::new(session.peer).dripping() } else { Script::new(session.peer) };
            let undisturbed = script();
            let _case = Case(format!("{:?}, {drips}", session.handler));
            let counters = serve_one(&clock, session, &undisturbed);
            check_whole(session, &undisturbed, counters);
            for how in Disturbance::ALL {
                for position in 0.. {
                    let disturbed = script().disturbed(position, how);
                    let _case = Case(format!("{how:?} at {position}"));
                    let counters = serve_one(&clock, session, &disturbed);
                    runs += 1;
                    if disturbed.positions() <= position {
                        break;
                    }
                    match how {
                        Disturbance::Fails | Disturbance::TakesNothing => {
                            check_begun(session.received, &disturbed, counters);
                        }
                        _ => check_whole(session, &disturbed, counters),
                    }
                }
            }
        }
    }
    println!("{runs} runs");
}

fn check_whole(session: &Session, script: &Script, counters: ServerCounters) {
    assert_eq!(script.received().escape_ascii().to_string(), session.received.escape_default().to_string());
    // The server must read all input, even if the handler did not use it. Otherwise a reset could
    // destroy the replies.
    assert!(script.is_shut() && script.is_read());
    assert_eq!((counters.accepted, counters.failed, counters.panicked), (1, 0, 0));
    assert_eq!(counters.bytes_sent, session.received.len() as u64);
}

/// After a failure, the peer has received a prefix of the replies, and the counters match it.
fn check_begun(all: &str, script: &Script, counters: ServerCounters) {
    let received = script.received();
    assert!(all.as_bytes().starts_with(&received), "{}", received.escape_ascii());
    assert_eq!((counters.accepted, counters.panicked), (1, 0));
    assert_eq!(counters.bytes_sent, received.len() as u64);
}

/// A listener that accepts one stream.
struct Once(Option<AnyIo>);

impl Listener for Once {
    async fn accept(&mut self) -> io::Result<Accepted> {
        match self.0.take() {
            Some(io) => Ok(Accepted::new(io, Peer::Other)),
            None => pending().await,
        }
    }
}

const LINGER: Duration = Duration::from_millis(20);

fn serve_and_drain(
    clock: &Runtime,
    handler: Handler,
    max_unsent: usize,
    script: &Script,
) -> (ServerCounters, Duration) {
    let server = Server::builder().max_unsent(max_unsent).linger_timeout(LINGER).build();
    let listener = Once(Some(AnyIo::new(script.clone())));
    run_in_time(clock, script, async {
        // After a failure, the peer may never reach its signal.
        let shutdown = timeout(Duration::from_secs(1), script.signalled());
        let begun = Instant::now();
        let counters = server.serve_with_shutdown(listener, move |conn| handler.run(conn), shutdown).await;
        (counters, begun.elapsed())
    })
}

/// Sends lines before and after the shutdown signal, the last one incomplete, and then nothing
/// more.
const DRAINED: &[Does] =
    &[Sends(b"a\n"), Sends(b"b\nc"), Signals, Sends(b"d\n"), Sends(b"e\nf\n"), Sends(b"g\nh")];

#[test]
fn shutdown_survives_any_single_disturbed_call() {
    let clock = clock();
    let all = "A\nB\nCD\nE\nF\nG\n";
    let handlers = [
        Handler::Answers(By::Line),
        Handler::Answers(By::Batch),
        Handler::AnswersOverSplit,
        Handler::AnswersOverIntoSplit,
        Handler::HandsOutHalves,
        Handler::HandsOn,
        Handler::IsReply,
    ];
    for (handler, max_unsent) in handlers.into_iter().flat_map(|handler| [(handler, 0), (handler, 64 * 1024)])
    {
        for how in Disturbance::ALL {
            for position in 0.. {
                let script = Script::new(DRAINED).disturbed(position, how);
                let _case = Case(format!("{handler:?} {max_unsent}, {how:?} at {position}"));
                let (counters, took) = serve_and_drain(&clock, handler, max_unsent, &script);
                let is_disturbed = position < script.positions();
                check_begun(all, &script, counters);
                assert_eq!(counters.aborted, 0);
                match how {
                    Disturbance::Fails | Disturbance::TakesNothing if is_disturbed => {}
                    // A pending read means that no input is available, so the server need not
                    // answer more.
                    Disturbance::Pending if script.disturbed_a_read() => {
                        assert_eq!(counters.lines, counters.lines_written);
                        assert!(script.is_shut());
                    }
                    _ => {
                        let received = script.received().escape_ascii().to_string();
                        assert_eq!(received, all.escape_default().to_string());
                        assert!(script.is_shut() && took < 2 * LINGER);
                    }
                }
                if !is_disturbed {
                    break;
                }
            }
        }
    }
}

/// A task that reads a lot is made to yield by the runtime. The yield must not be taken for the end
/// of the received input.
#[test]
fn shutdown_answers_received_lines_over_many_reads() {
    // 6 MB, less than the 8 MiB that a server reads at most after a shutdown starts.
    const LINES: usize = 100;
    let (mut peer, io) = duplex(LINES * 60_000);
    let counters = clock().block_on(async move {
        for _ in 0..LINES {
            peer.write_all(&[&[b'x'; 59_999][..], b"\n"].concat()).await.unwrap();
        }
        let accepted = Arc::new(Notify::new());
        let shutdown = Arc::clone(&accepted);
        let listener = Once(Some(AnyIo::new(io)));
        let handler = async move |mut conn: Connection| {
            accepted.notify_one();
            conn.draining().await;
            while let Some(line) = conn.next_line().await? {
                conn.write_line(line?.len().to_string()).await?;
            }
            Ok(())
        };
        Server::new().serve_with_shutdown(listener, handler, async move { shutdown.notified().await }).await
    });
    assert_eq!((counters.lines, counters.lines_written), (LINES as u64, LINES as u64));
}

/// A peer that always has another line must not delay the end.
#[test]
fn shutdown_ends_although_the_peer_keeps_sending() {
    let (peer, io) = duplex(64);
    let (mut replies, mut lines) = tokio::io::split(peer);
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let talking = async move {
        let sending = async {
            // 20 MB, more than the server reads during a shutdown.
            for _ in 0..4_000_000 {
                _ = lines.write_all(b"line\n").await;
                stop.notify_one();
            }
        };
        let mut all = Vec::new();
        _ = select(pin!(sending), pin!(replies.read_to_end(&mut all))).await;
        all
    };
    let (counters, replies) = clock().block_on(async move {
        let talking = tokio::spawn(talking);
        let listener = Once(Some(AnyIo::new(io)));
        let shutdown = async move { stopped.notified().await };
        let counters = Server::new().serve_with_shutdown(listener, reply(|_| "ok"), shutdown).await;
        (counters, talking.await.unwrap())
    });
    assert_eq!(replies.len() as u64, 3 * counters.lines);
    assert_eq!((counters.failed, counters.aborted), (0, 0));
}

/// A stream that returns one line per successful read and is pending before each. Fails after
/// `lines` lines. Counts the lines that were read.
struct DrippingLines {
    lines: usize,
    read: Arc<AtomicUsize>,
    has_to_wait: bool,
}

impl AsyncRead for DrippingLines {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.has_to_wait = !self.has_to_wait;
        if self.has_to_wait {
            return Poll::Pending;
        }
        if self.read.load(SeqCst) == self.lines {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        self.read.fetch_add(1, SeqCst);
        into.put_slice(b"line\n");
        Poll::Ready(Ok(()))
    }
}

/// Shuts down a server immediately after it has accepted a connection. Returns the counters, and
/// how many lines had been read before the handler saw the first one. The handler either reads
/// lines itself or is a `reply`.
fn shut_down_dripping(lines: usize, reads_itself: bool) -> (ServerCounters, usize) {
    let read = Arc::new(AtomicUsize::new(0));
    let before_first = Arc::new(AtomicUsize::new(0));
    let listener = Once(Some(AnyIo::new(join(
        DrippingLines { lines, read: Arc::clone(&read), has_to_wait: false },
        sink(),
    ))));
    let accepted = Arc::new(Notify::new());
    let shutdown = Arc::clone(&accepted);
    let first = Arc::clone(&before_first);
    let answer = move |line: &[u8]| {
        _ = first.compare_exchange(0, read.load(SeqCst), SeqCst, SeqCst);
        line.to_ascii_uppercase()
    };
    let handler = async move |mut conn: Connection| {
        accepted.notify_one();
        conn.draining().await;
        if !reads_itself {
            return reply(answer.clone())(conn).await;
        }
        while let Some(line) = conn.next_line().await? {
            conn.write_line(answer(&line?)).await?;
        }
        Ok(())
    };
    let served =
        Server::new().serve_with_shutdown(listener, handler, async move { shutdown.notified().await });
    (clock().block_on(served), before_first.load(SeqCst))
}

/// The server first reads all available input, then the handler answers it. Input that arrives
/// after that is too late.
#[test]
fn shutdown_answers_input_arriving_while_it_reads() {
    for reads_itself in [false, true] {
        let (counters, before_first) = shut_down_dripping(10_000, reads_itself);
        assert!((2..20).contains(&before_first), "{before_first}");
        assert_eq!((counters.lines, counters.lines_written), (10_000, 10_000));
    }
}

#[test]
fn shutdown_returns_lines_received_before_a_reset() {
    for reads_itself in [false, true] {
        let (counters, _) = shut_down_dripping(3, reads_itself);
        assert_eq!((counters.lines, counters.lines_written, counters.failed), (3, 3, 1));
    }
}

/// A stream that returns 1000 empty lines per read, and never waits.
struct Flood(usize);

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 > 0 {
            self.0 -= 1;
            into.put_slice(&[b'\n'; 1000]);
        }
        Poll::Ready(Ok(()))
    }
}

/// During a shutdown a connection reads up to 8 MiB, but must not block other tasks.
#[test]
fn shutdown_of_an_endless_sender_yields() {
    let listener = Once(Some(AnyIo::new(join(Flood(20_000), sink()))));
    let accepted = Arc::new(Notify::new());
    let shutdown = Arc::clone(&accepted);
    let handler = async move |mut conn: Connection| {
        accepted.notify_one();
        conn.draining().await;
        while conn.next_line().await?.is_some() {
            _ = tokio::time::advance(Duration::from_millis(1)).now_or_never();
        }
        Ok(())
    };
    let counters = clock().block_on(
        Server::new().serve_with_shutdown(listener, handler, async move { shutdown.notified().await }),
    );
    // The drain timeout of 10 s expires after a few reads.
    assert!(counters.lines < 1 << 19, "{}", counters.lines);
    assert_eq!(counters.aborted, 1);
}

/// Tokio learns of received data only when it polls the system, which it does when all tasks are
/// idle.
#[tokio::test]
async fn shutdown_answers_lines_in_the_socket_buffer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let handler = reply(<[u8]>::to_ascii_uppercase);
    let served =
        Server::new().serve_with_shutdown(listener, handler, async move { stopped.notified().await });
    let served = tokio::spawn(served);

    let mut peer = TcpStream::connect(address).await.unwrap();
    let mut replies = [0; 4];
    peer.write_all(b"a\n").await.unwrap();
    peer.read_exact(&mut replies[..2]).await.unwrap();
    // Both happen before any other task runs.
    assert_eq!(peer.try_write(b"b\n").unwrap(), 2);
    stop.notify_one();
    peer.read_exact(&mut replies[2..]).await.unwrap();
    assert_eq!(&replies, b"A\nB\n");
    drop(peer);
    assert_eq!(served.await.unwrap().lines, 2);
}

/// The request is also a line over the limit. The guard must run before bad lines are counted.
#[test]
fn long_http_request_is_not_a_bad_line() {
    let clock = clock();
    for position in 0.. {
        let script =
            Script::new(&[Sends(b"GET /xxxxxxxxxx"), Ends]).disturbed(position, Disturbance::Pending);
        let codec = LineCodec::builder().max_length(8).max_encoded_length(100).build();
        let server = Server::builder().codec(codec).max_bad_lines(0).refuse_http_and_tls(true).build();
        let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
        let handler = |conn| Handler::Answers(By::Line).run(conn);
        run_in_time(&clock, &script, server.serve_one(accepted, handler));
        let ServerCounters { refused, failed, .. } = server.counters();
        assert_eq!((refused, failed), (1, 0), "{position}");
        if position >= script.positions() {
            break;
        }
    }
}

/// For every way of reading lines, the bad line over the limit is answered and no later line is
/// run.
#[test]
fn bad_line_over_the_limit_is_last() {
    let clock = clock();
    for handler in [Handler::Answers(By::Line), Handler::Answers(By::Batch), Handler::IsReply] {
        for most in 0..4 {
            let script = Script::new(&[Sends(b"xxxx\na\nxxxx\nb\nxxxx\nc\nxxxx\nd\nxx"), Ends]);
            let codec = LineCodec::builder().max_length(3).max_encoded_length(100).build();
            let server = Server::builder().codec(codec).max_bad_lines(most).build();
            let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
            run_in_time(&clock, &script, server.serve_one(accepted, move |conn| handler.run(conn)));
            let _case = Case(format!("{handler:?} {most}"));
            let received = String::from_utf8(script.received()).unwrap();
            assert_eq!(received.lines().count() as u64, 2 * most + 1);
            let ServerCounters { lines, bad_lines, failed, .. } = server.counters();
            assert_eq!((lines, bad_lines, failed), (most, most + 1, 1));
        }
    }
}
