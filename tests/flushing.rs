//! When output is sent: at most about one write per read, no late reply, and a bounded queue.

mod script;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use lineframe::{
    Accepted, AnyIo, Connection, Error, LineCodec, LineWriter, Peer, Server, TimeoutKind, reply,
};
use script::Does::{Awaits, Ends, Sends};
use script::{Call, Does, Script, clock, pass, run, run_in_time, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep, timeout};

const MAX_UNSENT: usize = 64 * 1024;

fn connect(peer: &[Does]) -> (Script, Connection<Script>) {
    let script = Script::new(peer);
    (script.clone(), Connection::from_io(script, LineCodec::new()))
}

fn writes(calls: &[Call]) -> usize {
    calls.iter().filter(|call| matches!(call, Call::Write(_))).count()
}

async fn echo_lines(conn: &mut Connection<Script>) -> Result<(), Error> {
    while let Some(line) = conn.next_line().await?.transpose()? {
        conn.write_line(line).await?;
    }
    Ok(())
}

async fn echo_batches(conn: &mut Connection<Script>) -> Result<(), Error> {
    while let Some(batch) = conn.next_batch().await? {
        for line in &batch {
            conn.write_line(line?).await?;
        }
    }
    Ok(())
}

/// Uses one read, reads of 16 KiB, and a server.
#[test]
fn thousand_pipelined_lines_take_twenty_writes() {
    let clock = clock();
    let lines: &'static [u8] = format!("{}\n", "x".repeat(63)).repeat(1000).into_bytes().leak();
    for read in [lines.len(), 16 * 1024] {
        let mut peer: Vec<_> = lines.chunks(read).map(Sends).collect();
        peer.push(Ends);
        let check = |script: Script| {
            assert!(script.received() == lines);
            let writes = writes(&script.calls());
            // One write per read, except that the last may be split in two.
            assert!(writes <= peer.len() && writes <= 20, "{writes}");
        };
        {
            let _in = clock.enter();
            let (script, mut conn) = connect(&peer);
            run(&script, echo_lines(&mut conn)).unwrap();
            check(script);
            let (script, mut conn) = connect(&peer);
            run(&script, echo_batches(&mut conn)).unwrap();
            check(script);
        }
        let script = Script::new(&peer);
        let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
        let served = Server::new().serve_one(accepted, reply(<[u8]>::to_vec));
        run_in_time(&clock, &script, served);
        check(script);
    }
}

/// The reply is sent before the next read.
#[test]
fn single_line_is_answered_with_one_write() {
    let clock = clock();
    let _in = clock.enter();
    let (script, mut conn) = connect(&[Sends(b"a\n"), Awaits(2), Sends(b"b\n"), Awaits(4), Sends(b"c\n")]);
    assert!(wait(&script, echo_lines(&mut conn)).is_none());
    let one = [Call::Read(2), Call::Write(2), Call::Flush];
    assert_eq!(script.calls(), [one, one, one].concat());

    let (script, mut conn) = connect(&[Sends(b"a\n"), Awaits(2), Sends(b"b\n")]);
    assert!(wait(&script, echo_batches(&mut conn)).is_none());
    assert_eq!(script.calls(), [one, one].concat());
}

/// The buffer holds no further complete line, so the next read would wait.
#[test]
fn partial_next_line_does_not_delay_the_reply() {
    let clock = clock();
    let _in = clock.enter();
    let (script, mut conn) = connect(&[Sends(b"a\nb")]);
    assert!(wait(&script, echo_lines(&mut conn)).is_none());
    assert_eq!(script.calls(), [Call::Read(3), Call::Write(2), Call::Flush]);

    let (script, mut conn) = connect(&[Sends(b"a\nb")]);
    assert!(wait(&script, echo_batches(&mut conn)).is_none());
    assert_eq!(script.calls(), [Call::Read(3), Call::Write(2), Call::Flush]);
}

/// Every reading method sends queued output first.
#[test]
fn output_is_sent_before_waiting_and_at_eof() {
    let clock = clock();
    let _in = clock.enter();
    macro_rules! sends_first {
        ($peer:expr, |$conn:ident| $read:expr) => {{
            let (script, mut $conn) = connect($peer);
            run(&script, $conn.write_line("a")).unwrap();
            assert!(script.received().is_empty());
            let _ = wait(&script, $read);
            assert!(script.received().starts_with(b"a\n"));
        }};
    }
    for peer in [&[][..], &[Ends]] {
        sends_first!(peer, |conn| conn.next_line());
        sends_first!(peer, |conn| conn.next_text());
        sends_first!(peer, |conn| conn.next_batch());
        sends_first!(peer, |conn| conn.read_bytes(1));
        sends_first!(peer, |conn| conn.skip_bytes(1));
        sends_first!(peer, |conn| tokio::io::AsyncReadExt::read_u8(&mut conn.body(1)));
        sends_first!(peer, |conn| conn.flush());
        sends_first!(peer, |conn| conn.send_line(""));
        sends_first!(peer, |conn| conn.shutdown());
    }
}

#[test]
fn eof_is_reported_after_all_output_is_sent() {
    let clock = clock();
    let _in = clock.enter();
    let (script, mut conn) = connect(&[Sends(b"a\n"), Ends]);
    script.takes(0);
    let line = run(&script, conn.next_line()).unwrap().unwrap().unwrap();
    run(&script, conn.write_line(line)).unwrap();
    for _ in 0..2 {
        assert!(wait(&script, conn.next_line()).is_none());
        assert!(wait(&script, conn.next_batch()).is_none());
        assert!(wait(&script, conn.read_bytes(1)).is_none());
    }
    script.takes(2);
    assert!(run(&script, conn.next_line()).unwrap().is_none());
    assert_eq!(script.received(), b"a\n");
}

const TEN_LINES: &[Does] = &[Sends(b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"), Ends];
const WORK: Duration = Duration::from_millis(300);

/// Checks that the ten replies were written 300 ms apart.
fn check_steady(script: &Script, begun: Instant) {
    let written_at = script.written_at();
    assert_eq!(script.received(), b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    assert_eq!(written_at.len(), 10);
    for (line, at) in written_at.iter().enumerate() {
        // Tokio's timers have a resolution of 1 ms.
        let late = *at - begun - WORK * (line as u32 + 1);
        assert!(late < Duration::from_millis(20), "line {line} {late:?} late");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_handler_sends_each_pipelined_reply_immediately() {
    let begun = Instant::now();
    let (script, mut conn) = connect(TEN_LINES);
    while let Some(line) = conn.next_line().await.unwrap() {
        sleep(WORK).await;
        conn.write_line(line.unwrap()).await.unwrap();
    }
    check_steady(&script, begun);

    let begun = Instant::now();
    let (script, mut conn) = connect(TEN_LINES);
    while let Some(batch) = conn.next_batch().await.unwrap() {
        for line in &batch {
            sleep(WORK).await;
            conn.write_line(line.unwrap()).await.unwrap();
        }
    }
    check_steady(&script, begun);
}

/// The function blocks its thread, but each reply is sent as soon as it is ready.
#[test]
fn blocking_reply_function_sends_each_reply_immediately() {
    let clock = clock();
    let _in = clock.enter();
    let begun = Instant::now();
    let script = Script::new(TEN_LINES);
    let slow = reply(|line| {
        pass(WORK);
        line.to_vec()
    });
    let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
    run(&script, Server::new().serve_one(accepted, slow));
    check_steady(&script, begun);
}

/// After a line that was answered quickly, the clock is not checked for a few lines.
#[test]
fn slowing_reply_function_delays_few_replies() {
    let clock = clock();
    let _in = clock.enter();
    let script = Script::new(&[Sends(&[b'\n'; 100]), Ends]);
    let seen = Arc::new(AtomicUsize::new(0));
    let received = script.clone();
    let slow = reply(move |_| {
        let line = seen.fetch_add(1, Relaxed);
        assert!(received.received().len() + 8 >= line, "{line}");
        if line > 0 {
            pass(WORK);
        }
        ""
    });
    let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
    run(&script, Server::new().serve_one(accepted, slow));
    assert_eq!(script.received().len(), 100);
}

/// Answers 50 lines quickly and then calls `slow` before each reply. Fails if more than `most`
/// replies are queued after that.
async fn gets_slow(
    mut conn: Connection,
    received: Script,
    most: usize,
    slow: impl AsyncFn(),
) -> io::Result<()> {
    let mut answered = 0;
    while let Some(line) = conn.next_line().await? {
        if answered >= 50 {
            slow().await;
        }
        conn.write_line(line?).await?;
        answered += 1;
        assert!(answered <= 50 + most || received.received().len() == answered, "{answered}");
    }
    Ok(())
}

/// A handler that awaits something is noticed immediately.
#[tokio::test(start_paused = true)]
async fn slowing_async_handler_sends_each_reply_immediately() {
    let script = Script::new(&[Sends(&[b'\n'; 100]), Ends]);
    let received = script.clone();
    let handler = move |conn| gets_slow(conn, received, 0, async || sleep(WORK).await);
    Server::new().serve_one(Accepted::new(AnyIo::new(script.clone()), Peer::Other), handler).await;
    assert_eq!(script.received().len(), 100);
}

#[test]
fn slowing_blocking_handler_delays_few_replies() {
    let clock = clock();
    let _in = clock.enter();
    let script = Script::new(&[Sends(&[b'\n'; 100]), Ends]);
    let received = script.clone();
    let handler = move |conn| gets_slow(conn, received, 31, async || pass(WORK));
    let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
    run(&script, Server::new().serve_one(accepted, handler));
    assert_eq!(script.received().len(), 100);
}

/// Lines that are not replies are not flushed one by one, even if the last read was long ago.
#[test]
fn pipelining_client_does_not_flush_each_line() {
    let clock = clock();
    let _in = clock.enter();
    for by_batch in [false, true] {
        let (script, mut conn) = connect(&[Sends(b"hello\nwelcome\n"), Awaits(2000), Sends(b"ok\n"), Ends]);
        if by_batch {
            assert_eq!(run(&script, conn.next_batch()).unwrap().unwrap().count(), 2);
        } else {
            run(&script, conn.next_line()).unwrap();
            run(&script, conn.next_line()).unwrap();
        }
        pass(Duration::from_secs(1));
        for _ in 0..1000 {
            run(&script, conn.write_line("x")).unwrap();
        }
        assert_eq!(writes(&script.calls()), 0, "{by_batch}");
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "ok");
        assert_eq!(script.calls(), [Call::Write(2000), Call::Flush, Call::Read(3)], "{by_batch}");
    }
}

/// The peer takes no output. Lines of 1 KiB are queued up to `max_unsent`; the next one waits.
#[test]
fn lines_above_max_unsent_wait_for_the_peer() {
    let clock = clock();
    let _in = clock.enter();
    let line = vec![b'x'; 1023];
    let (script, mut conn) = connect(&[Sends(b"in\n")]);
    script.takes(0);
    let mut queued = 0;
    while queued < 1000 && wait(&script, conn.write_line(&line)).is_some() {
        queued += 1;
    }
    // Fills `max_unsent`, plus the line that exceeds it.
    assert_eq!(queued, MAX_UNSENT / 1024 + 1);
    // The connection does not read while more than `max_unsent` is queued.
    assert!(wait(&script, conn.next_line()).is_none());
    assert!(script.calls().is_empty());

    script.takes(1023);
    assert!(wait(&script, conn.write_line(&line)).is_none());
    script.takes(1);
    run(&script, conn.write_line(&line)).unwrap();
    assert!(wait(&script, conn.write_line(&line)).is_none());
    script.takes(1024);
    // The queue is down to `max_unsent`, so the connection reads again.
    assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "in");

    script.takes(usize::MAX);
    run(&script, conn.flush()).unwrap();
    assert_eq!(script.received().len(), (queued + 1) * 1024);
    assert_eq!(conn.counters().lines_written, queued as u64 + 1);
}

/// A handler may write a lot and then wait for something other than its peer.
#[test]
fn output_above_max_unsent_is_sent_immediately() {
    let clock = clock();
    let _in = clock.enter();
    let (script, mut conn) = connect(&[]);
    for _ in 0..MAX_UNSENT / 1024 {
        run(&script, conn.write_line([b'x'; 1023])).unwrap();
    }
    assert!(script.calls().is_empty());
    run(&script, conn.write_line("")).unwrap();
    assert_eq!(script.calls(), [Call::Write(MAX_UNSENT + 1), Call::Flush]);
}

#[test]
fn bytes_and_fed_lines_respect_max_unsent() {
    let clock = clock();
    let _in = clock.enter();
    let (script, mut conn) = connect(&[]);
    script.takes(0);
    assert!(wait(&script, conn.write_bytes(vec![b'x'; 10 * MAX_UNSENT])).is_none());
    let unsent = conn.into_parts().unsent.len();
    assert_eq!(unsent, 2 * MAX_UNSENT);

    let script = Script::new(&[]);
    let mut writer = LineWriter::new(script.clone());
    script.takes(0);
    let mut queued = 0;
    while queued < 1000 && wait(&script, writer.feed_line([b'x'; 1023])).is_some() {
        queued += 1;
    }
    assert_eq!(queued, MAX_UNSENT / 1024 + 1);
}

/// Tests settings just below, at and just above multiples of the line length, which is 100 bytes.
#[test]
fn server_setting_bounds_unsent_output() {
    for (max_unsent, expected) in [(0, 1), (99, 1), (100, 2), (101, 2), (199, 2), (200, 3)] {
        let script = Script::new(&[]);
        script.takes(0);
        let queued = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&queued);
        let handler = async move |mut conn: Connection| {
            while counted.load(Relaxed) < 1000 {
                conn.write_line([b'x'; 99]).await?;
                counted.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let server = Server::builder().max_unsent(max_unsent).write_timeout(Duration::from_secs(1)).build();
        let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
        run_in_time(&clock(), &script, server.serve_one(accepted, handler));
        assert_eq!(server.counters().write_timeouts, 1);
        assert_eq!(queued.load(Relaxed), expected, "{max_unsent}");

        let answered = answered_without_reading(max_unsent, reply(<[u8]>::to_vec));
        assert_eq!(answered, expected as u64, "{max_unsent}");
    }
}

/// Sends 1000 lines in one read but reads no replies. Returns the number of lines answered.
fn answered_without_reading<H, Fut>(max_unsent: usize, handler: H) -> u64
where
    H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut line = [b'x'; 100];
    line[99] = b'\n';
    let script = Script::new(&[Sends(line.repeat(1000).leak())]);
    script.takes(0);
    let server = Server::builder().max_unsent(max_unsent).write_timeout(Duration::from_secs(1)).build();
    let accepted = Accepted::new(AnyIo::new(script.clone()), Peer::Other);
    run_in_time(&clock(), &script, server.serve_one(accepted, handler));
    assert_eq!(server.counters().write_timeouts, 1);
    server.counters().lines_written
}

/// Covers streams that have sent everything but cannot shut down, such as TLS if the peer reads
/// nothing.
#[tokio::test(start_paused = true)]
async fn hanging_shutdown_fails_at_write_timeout() {
    let script = Script::new(&[]).never_shutting();
    let mut conn = Connection::from_io(script.clone(), LineCodec::new());
    conn.set_write_timeout(Duration::from_secs(30));
    conn.write_line("bye").await.unwrap();
    let begun = Instant::now();
    let shut = timeout(Duration::from_secs(60), conn.shutdown()).await.expect("the shutdown hangs");
    assert!(matches!(shut, Err(Error::Timeout(TimeoutKind::Write))));
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(script.received(), b"bye\n");
}

/// The lines are short and the replies long. Lines of one read are answered only while there is
/// room for the replies.
#[tokio::test(start_paused = true)]
async fn reply_function_runs_only_while_output_fits() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let (mut peer, io) = duplex(64 * 1024);
    let kibibyte = move |_: &[u8]| {
        count.fetch_add(1, Relaxed);
        [b'x'; 1023]
    };
    let session = tokio::spawn(reply(kibibyte)(Connection::new(io)));
    peer.write_all(&[b'\n'; 10_000]).await.unwrap();
    // The paused clock advances only when all tasks are idle.
    sleep(Duration::from_millis(1)).await;
    // The capacity of the stream, `max_unsent`, and one more reply.
    assert_eq!(answered.load(Relaxed), (64 * 1024 + MAX_UNSENT) / 1024 + 1);
    let mut replies = vec![0; 10_000 * 1024];
    peer.read_exact(&mut replies).await.unwrap();
    drop(peer);
    session.await.unwrap().unwrap();
    assert_eq!(answered.load(Relaxed), 10_000);
}
