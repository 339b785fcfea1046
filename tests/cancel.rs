//! Polls futures a few times, drops them and starts again. The stream transfers one byte per call
//! and returns `Pending` before each byte. Reading and writing must give the same result as without
//! drops, as documented in the table at `Connection`.

mod script;

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::ops::RangeInclusive;
use std::task::Poll;

use lineframe::{AnyIo, Connection, Error, LineCodec};
use script::Does::{Awaits, Ends, Sends};
use script::{Call, Does, Halves, Line, Lines, Script, clock, describe, poll_times, run};
use tokio::io::AsyncReadExt;

/// How many times a future is polled before it is dropped.
const TIMES: RangeInclusive<usize> = 0..=20;

fn dripping(peer: &[Does], codec: LineCodec) -> (Script, Connection<Script>) {
    let script = Script::new(peer).dripping();
    (script.clone(), Connection::from_io(script, codec))
}

/// Runs the body over a connection, its borrowed halves and its owned halves.
macro_rules! over_each {
    ($peer:expr, $codec:expr, |$script:ident, $lines:ident| $body:block) => {{
        let ($script, mut conn) = dripping($peer, $codec);
        let $lines = &mut conn;
        $body
        let ($script, mut conn) = dripping($peer, $codec);
        let $lines = &mut Halves::new(conn.split());
        $body
        let ($script, conn) = dripping($peer, $codec);
        let $lines = &mut Halves::new(conn.into_split());
        $body
    }};
}

/// Recreates the future after each `times` polls until one completes. With `times` 0, the first
/// future is dropped unpolled, and each later one is polled once.
macro_rules! dropped {
    ($script:expr, $times:expr, $future:expr) => {{
        let mut done = poll_times(&$script, $times, $future);
        for _ in 0..1000 {
            if done.is_pending() {
                done = poll_times(&$script, $times.max(1), $future);
            }
        }
        match done {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("the future makes no progress"),
        }
    }};
}

fn thirty() -> LineCodec {
    LineCodec::builder().max_length(30).build()
}

const LINES: &[Does] = &[
    Sends(b"first\n\nas long as a line may be....\na line that is longer than it may be, by far\n"),
    Sends(b"\xff\xc3\r\nw\xc3\xa9\nlast\ncut"),
    Ends,
];

fn note(seen: &mut Vec<String>, line: Line) {
    seen.push(match line {
        Ok(line) => line.escape_ascii().to_string(),
        Err(bad) => describe(&bad),
    });
}

fn expected_lines(not_utf8: &'static str) -> [&'static str; 8] {
    let long = "TooLong(a line that is longer than it )";
    ["first", "", "as long as a line may be....", long, not_utf8, r"w\xc3\xa9", "last", "Unterminated(cut)"]
}

#[test]
fn reading_lines() {
    for times in TIMES {
        over_each!(LINES, thirty(), |script, lines| {
            let mut seen = Vec::new();
            while let Some(line) = dropped!(script, times, lines.next_line()).unwrap() {
                note(&mut seen, line);
                run(&script, lines.write_line(b"ok")).unwrap();
            }
            assert_eq!(seen, expected_lines(r"\xff\xc3"), "{times}");
            assert_eq!(script.received(), b"ok\n".repeat(8), "{times}");
        });
    }
}

#[test]
fn reading_text() {
    for times in TIMES {
        over_each!(LINES, thirty(), |script, lines| {
            let mut seen = Vec::new();
            while let Some(line) = dropped!(script, times, Lines::next_text(lines)).unwrap() {
                note(&mut seen, line);
                run(&script, lines.write_line(b"ok")).unwrap();
            }
            assert_eq!(seen, expected_lines(r"NotUtf8(\xff\xc3)"), "{times}");
            assert_eq!(script.received(), b"ok\n".repeat(8), "{times}");
        });
    }
}

#[test]
fn reading_batches() {
    for times in TIMES {
        over_each!(LINES, thirty(), |script, lines| {
            let mut seen = Vec::new();
            while let Some(mut batch) = dropped!(script, times, lines.next_batch()).unwrap() {
                note(&mut seen, batch.next().unwrap());
                lines.put_back(batch).unwrap();
            }
            assert_eq!(seen, expected_lines(r"\xff\xc3"), "{times}");
        });
    }
}

const BLOCK: &[Does] = &[Sends(b"put\n12\n456\n8\r\nget\nend\n"), Ends];

/// A dropped read consumes nothing until all bytes have been received.
#[test]
fn reading_counted_bytes() {
    for times in TIMES {
        over_each!(BLOCK, thirty(), |script, lines| {
            assert_eq!(run(&script, lines.next_line()).unwrap().unwrap().unwrap(), "put");
            let bytes = dropped!(script, times, lines.read_bytes(8)).unwrap();
            assert_eq!(bytes, "12\n456\n8", "{times}");
            assert_eq!(run(&script, lines.next_line()).unwrap().unwrap().unwrap(), "");
            // After the read of 20 bytes is dropped, its bytes are read as lines.
            assert!(poll_times(&script, times.min(3), lines.read_bytes(20)).is_pending());
            assert_eq!(run(&script, lines.next_line()).unwrap().unwrap().unwrap(), "get");
            assert_eq!(run(&script, lines.next_line()).unwrap().unwrap().unwrap(), "end");
        });
    }
}

/// If the future is dropped, the next read skips the remaining bytes first.
#[test]
fn skipping_bytes() {
    for times in TIMES {
        let (script, mut conn) = dripping(BLOCK, thirty());
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "put");
        let _ = poll_times(&script, times, conn.skip_bytes(8));
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "", "{times}");
        let _ = poll_times(&script, times, conn.skip_bytes(2));
        assert_eq!(run(&script, conn.read_bytes(3)).unwrap(), "t\ne", "{times}");
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "nd", "{times}");

        let (script, mut conn) = dripping(BLOCK, thirty());
        let (mut reader, _writer) = conn.split();
        assert_eq!(run(&script, reader.next_line()).unwrap().unwrap().unwrap(), "put");
        let _ = poll_times(&script, times, reader.skip_bytes(8));
        assert_eq!(run(&script, reader.next_line()).unwrap().unwrap().unwrap(), "", "{times}");
    }
}

#[test]
fn reading_a_body() {
    for times in TIMES {
        // A reader that resumes after a drop loses nothing.
        let (script, mut conn) = dripping(BLOCK, thirty());
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "put");
        let mut body = conn.body(8);
        let (mut all, mut some) = (Vec::new(), [0; 3]);
        while body.left() > 0 {
            let count = dropped!(script, times, body.read(&mut some)).unwrap();
            all.extend_from_slice(&some[..count]);
        }
        drop(body);
        assert_eq!(all, b"12\n456\n8", "{times}");
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "", "{times}");

        // The next read skips the rest of a body that was dropped before its end.
        let (script, mut conn) = dripping(BLOCK, thirty());
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "put");
        let _ = poll_times(&script, times, conn.body(8).read_exact(&mut [0; 5]));
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "", "{times}");
    }
}

/// Queues 10 bytes more than `max_unsent` and returns them.
fn fill(script: &Script, lines: &mut impl Lines) -> Vec<u8> {
    let filling = vec![b'x'; 64 * 1024 + 10];
    run(script, lines.write_bytes(&filling[..64 * 1024])).unwrap();
    run(script, lines.write_bytes(&filling[64 * 1024..])).unwrap();
    filling
}

fn finish(script: &Script, lines: &mut impl Lines) -> Vec<u8> {
    script.flows();
    run(script, lines.send_line(b"end")).unwrap();
    script.received()
}

/// A line is queued completely or not at all. It is not queued while it waits for `max_unsent`.
#[test]
fn writing_a_line() {
    for times in TIMES {
        over_each!(&[], thirty(), |script, lines| {
            let queued = poll_times(&script, times, lines.write_line(b"line"));
            assert_eq!(queued.is_ready(), times > 0);
            let expected = if times > 0 { "line\nend\n" } else { "end\n" };
            assert_eq!(finish(&script, lines), expected.as_bytes(), "{times}");
        });
        over_each!(&[], thirty(), |script, lines| {
            let mut expected = fill(&script, lines);
            let queued = poll_times(&script, times, lines.write_line(b"line"));
            // Each poll except the first sends one byte.
            assert_eq!(queued.is_ready(), times > 10);
            expected.extend_from_slice(if times > 10 { b"line\nend\n" } else { b"end\n" });
            assert!(finish(&script, lines) == expected, "{times}");
        });
    }
}

#[test]
fn sending_a_line() {
    for times in TIMES {
        over_each!(&[], thirty(), |script, lines| {
            let sent = poll_times(&script, times, lines.send_line(b"line"));
            // The first poll returns `Pending`; then one poll per byte and one for the flush.
            assert_eq!(sent.is_ready(), times >= 7, "{times}");
            let expected = if times > 0 { "line\nend\n" } else { "end\n" };
            assert_eq!(finish(&script, lines), expected.as_bytes(), "{times}");
        });
        over_each!(&[], thirty(), |script, lines| {
            let filling = fill(&script, lines);
            assert!(poll_times(&script, times, lines.send_line(b"line")).is_pending());
            let received = finish(&script, lines);
            let (before, behind) = received.split_at(filling.len());
            assert!(before == filling);
            // The line is queued as soon as 10 bytes have been sent.
            let expected = if times > 10 { "line\nend\n" } else { "end\n" };
            assert_eq!(behind, expected.as_bytes(), "{times}");
        });
    }
}

/// A dropped write may have queued a prefix that consists of whole pieces.
#[test]
fn writing_bytes() {
    let bytes: Vec<u8> = (0..200_000).map(|n| (n / 1000) as u8).collect();
    for times in TIMES {
        over_each!(&[], thirty(), |script, lines| {
            let queued = poll_times(&script, times, lines.write_bytes(&bytes)).is_ready();
            let mut received = finish(&script, lines);
            assert_eq!(received.split_off(received.len() - 4), b"end\n");
            assert!(bytes.starts_with(&received) && received.len() % (64 * 1024) == 0, "{times}");
            assert!(!queued && (times == 0) == received.is_empty(), "{times}");
        });
    }
}

#[test]
fn flushing() {
    for times in TIMES {
        over_each!(&[], thirty(), |script, lines| {
            run(&script, lines.write_line(b"one")).unwrap();
            run(&script, lines.write_line(b"two")).unwrap();
            dropped!(script, times, lines.flush()).unwrap();
            assert_eq!(script.received(), b"one\ntwo\n", "{times}");
            assert_eq!(script.calls().last(), Some(&Call::Flush), "{times}");
        });
    }
}

#[test]
fn shutting_down() {
    for times in TIMES {
        let (script, mut conn) = dripping(LINES, thirty());
        run(&script, conn.write_line("one")).unwrap();
        dropped!(script, times, conn.shutdown()).unwrap();
        assert_eq!(script.received(), b"one\n", "{times}");
        assert_eq!(script.calls().iter().filter(|call| **call == Call::Shutdown).count(), 1, "{times}");
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "first", "{times}");

        // The connection sends what a borrowed half has queued but not sent.
        let (script, mut conn) = dripping(LINES, thirty());
        let (_, mut writer) = conn.split();
        run(&script, writer.feed_line("one")).unwrap();
        let _ = poll_times(&script, times, writer.shutdown());
        drop(writer);
        if !script.is_shut() {
            run(&script, conn.shutdown()).unwrap();
        }
        assert_eq!(script.received(), b"one\n", "{times}");
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "first", "{times}");
    }
}

/// A late reply must not be taken for the reply to the next request.
#[test]
fn requests() {
    let peer = [Awaits(4), Sends(b"yes\n"), Awaits(8), Sends(b"no\n"), Ends];
    for times in TIMES {
        let (script, mut conn) = dripping(&peer, thirty());
        let answered = poll_times(&script, times, conn.request("one"));
        if times == 0 {
            // The dropped future had queued nothing.
            assert_eq!(run(&script, conn.request("one")).unwrap(), "yes");
            continue;
        }
        if let Poll::Ready(reply) = answered {
            assert!(reply.unwrap() == "yes" && times > 8);
            assert_eq!(run(&script, conn.request("two")).unwrap(), "no");
            continue;
        }
        assert!(times < 20);
        for _ in 0..2 {
            let Err(Error::Io(refused)) = run(&script, conn.request("two")) else { panic!() };
            assert_eq!(refused.kind(), io::ErrorKind::Other);
        }
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "yes", "{times}");
        assert!(matches!(run(&script, conn.request("two")), Err(Error::Io(_))));
        assert_eq!(script.received(), b"one\n", "{times}");
        // The connection still works for a caller that counts the replies.
        run(&script, conn.write_line("two")).unwrap();
        assert_eq!(run(&script, conn.next_line()).unwrap().unwrap().unwrap(), "no", "{times}");
    }
}

/// Dropping the future while the closure runs also drops the stream.
#[test]
fn upgrading() {
    for times in TIMES {
        let script = Script::new(LINES).dripping();
        let mut conn = Connection::new(script.clone());
        run(&script, conn.write_line("go ahead")).unwrap();
        let has_begun = Cell::new(false);
        let upgrading = conn.upgrade(async |_| {
            has_begun.set(true);
            pending::<io::Result<AnyIo>>().await
        });
        assert!(poll_times(&script, times, upgrading).is_pending());
        match (has_begun.get(), run(&script, conn.next_line())) {
            (false, Ok(Some(Ok(line)))) => assert_eq!(line, "first"),
            (true, Err(Error::Io(error))) => assert_eq!(error.kind(), io::ErrorKind::NotConnected),
            (has_begun, line) => panic!("{has_begun} {line:?}"),
        }
        assert!(script.received().starts_with(&b"go ahead\n"[..script.received().len()]));
    }
}

/// Takes the connection apart after every read. A new connection continues with the parts.
#[test]
fn taking_apart() {
    for times in TIMES {
        let script = Script::new(LINES).dripping();
        let mut conn = Connection::with_codec(script.clone(), thirty());
        let mut seen = Vec::new();
        loop {
            match poll_times(&script, times.max(1), conn.next_line()) {
                Poll::Ready(Ok(Some(line))) => {
                    note(&mut seen, line);
                    run(&script, conn.write_line("ok")).unwrap();
                }
                Poll::Ready(end) => break assert!(end.unwrap().is_none()),
                Poll::Pending => {}
            }
            let parts = conn.into_parts();
            conn = Connection::with_codec(AnyIo::with_prefix(parts.read, parts.io), parts.codec);
            run(&script, conn.write_bytes(parts.unsent)).unwrap();
        }
        assert_eq!(seen, expected_lines(r"\xff\xc3"), "{times}");
        assert_eq!(script.received(), b"ok\n".repeat(8), "{times}");
    }
}

/// Splits and rejoins the connection in the middle of lines read and lines sent.
#[test]
fn splitting_and_rejoining() {
    let clock = clock();
    let _in = clock.enter();
    for times in TIMES {
        let (script, mut conn) = dripping(LINES, thirty());
        let mut seen = Vec::new();
        let mut is_split = false;
        loop {
            is_split = !is_split;
            let line = if is_split {
                let (mut reader, mut writer) = conn.split();
                let _ = poll_times(&script, times, writer.flush());
                poll_times(&script, times.max(1), reader.next_line())
            } else {
                poll_times(&script, times.max(1), conn.next_line())
            };
            match line {
                Poll::Ready(Ok(Some(line))) => {
                    note(&mut seen, line);
                    run(&script, conn.write_line("ok")).unwrap();
                }
                Poll::Ready(end) => break assert!(end.unwrap().is_none()),
                Poll::Pending => {}
            }
        }
        run(&script, conn.flush()).unwrap();
        assert_eq!(seen, expected_lines(r"\xff\xc3"), "{times}");
        assert_eq!(script.received(), b"ok\n".repeat(8), "{times}");
    }
}
