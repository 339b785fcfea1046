//! Disturbs every single read and write of a connection in turn: short, pending, interrupted or
//! failing. The same lines must be read and the same bytes written or, after a failure, a prefix of
//! them.

mod script;

use std::io;

use futures::future::try_join;
use lineframe::{Connection, Delimiter, Error, LineCodec, LineReader, LineWriter};
use script::Does::{Awaits, Ends, Sends};
use script::{By, Case, Disturbance, Does, FAILURE, Halves, MANY, Script, clock, describe, run, talk, wait};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;

/// A peer, how its lines are read, and the expected result.
struct Scenario {
    name: &'static str,
    /// `None` is the default codec.
    codec: Option<fn() -> LineCodec>,
    by: &'static [By],
    peer: &'static [Does],
    /// The expected items, separated by `|`: lines, bad lines by kind, and counted bytes in
    /// parentheses.
    seen: &'static str,
    received: &'static str,
}

const ALL: &[By] = &[By::Line, By::Text, By::Batch, By::PutBack, By::Slow];
const BYTES: &[By] = &[By::Line, By::Batch, By::PutBack, By::Slow];

fn ten() -> LineCodec {
    LineCodec::builder().max_length(10).max_block_length(20).build()
}

fn strict() -> LineCodec {
    LineCodec::builder().delimiter(Delimiter::CrLf).build()
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pipelining",
        codec: None,
        by: ALL,
        peer: &[Sends(b"a\nb\r\n\nc"), Sends(b"d\ne\n"), Awaits(10), Sends(b"f\n"), Ends],
        seen: "a|b||cd|e|f|END",
        received: "A\nB\n\nCD\nE\nF\n",
    },
    Scenario {
        name: "half-close, the last line cut",
        codec: None,
        by: ALL,
        peer: &[Sends(b"a\nb\nc"), Ends],
        seen: "a|b|Unterminated(c)|END",
        received: "A\nB\nbad\n",
    },
    Scenario {
        name: "long lines, their rest skipped",
        codec: Some(ten),
        by: ALL,
        peer: &[
            Sends(b"0123456789\n0123456789a\n01234567"),
            Sends(b"89abcdef"),
            Sends(b"ghijkl\r"),
            Sends(b"\nok\n0123456789ab"),
            Ends,
        ],
        seen: "0123456789|TooLong(0123456789)|TooLong(0123456789)|ok|TooLong(0123456789)|END",
        received: "0123456789\nbad\nbad\nOK\nbad\n",
    },
    Scenario {
        name: "bare terminators",
        codec: Some(strict),
        by: ALL,
        peer: &[Sends(b"a\nb\r\nc\r\nd\re"), Sends(b"\r\n"), Ends],
        seen: r"BareTerminator(a\nb)|c|BareTerminator(d\re)|END",
        received: "bad\r\nC\r\nbad\r\n",
    },
    Scenario {
        name: "not UTF-8",
        codec: None,
        by: &[By::Text],
        peer: &[Sends(b"a\xff\n\xc3"), Sends(b"\xa9\n"), Ends],
        seen: r"NotUtf8(a\xff)|\xc3\xa9|END",
        received: "bad\né\n",
    },
    Scenario {
        name: "replies that cannot be framed",
        codec: None,
        by: ALL,
        peer: &[Sends(b"a\r\r\nb\n"), Ends],
        seen: r"a\r|b|END",
        received: "refused\nB\n",
    },
    Scenario {
        name: "counted bytes",
        codec: Some(ten),
        by: BYTES,
        peer: &[
            Sends(b"bytes 5\na\nb\nc\n\nok\nbytes 0\nbytes 3\nx"),
            Sends(b"yz\nskip 4\na\n"),
            Sends(b"b\n\nbody 6 6\n\n\n\n"),
            Sends(b"\n\n\n\nbody 9 2\na\n"),
            Sends(b"cdefghi\nbytes 21\n"),
            Sends(b"0123456789\n123456789"),
            Sends(b"\n\nbody 3 0\n123\nok\n"),
            Ends,
        ],
        seen: "bytes 5|(a\\nb\\nc)|||ok|bytes 0|()|bytes 3|(xyz)||skip 4||body 6 6|(\\n\\n\\n\\n\\n\\n)||\
            body 9 2|(a\\n)||bytes 21||body 3 0|()||ok|END",
        received: "bytes\na\nb\nc\n\n\nOK\nbytes\n\nbytes\nxyz\n\nskipped\n\nbody\n\nbody\n\n\
            too many\n\nbody\n\nOK\n",
    },
    Scenario {
        name: "counted bytes cut",
        codec: Some(ten),
        by: BYTES,
        peer: &[Sends(b"a\nbytes 5\n12"), Ends],
        seen: "a|bytes 5|Unterminated(12)|END",
        received: "A\ntoo few\nbad\n",
    },
    Scenario {
        name: "skipped bytes cut",
        codec: Some(ten),
        by: BYTES,
        peer: &[Sends(b"a\nskip 5\n12"), Ends],
        seen: "a|skip 5|END",
        received: "A\ntoo few\n",
    },
    Scenario {
        name: "requests",
        codec: None,
        by: BYTES,
        peer: &[
            Sends(b"a\nask b\n"),
            Awaits(4),
            Sends(b"yes\nflush\nask c\n"),
            Awaits(20),
            Sends(b"no\n"),
            Ends,
        ],
        seen: "a|ask b|(yes)|flush|ask c|(no)|END",
        received: "A\nb\nasked\nflushed\nc\nasked\n",
    },
    Scenario {
        name: "reading after a shutdown",
        codec: None,
        by: BYTES,
        peer: &[Sends(b"a\nshut\nb\nc"), Sends(b"\nd"), Ends],
        seen: "a|shut|b|c|Unterminated(d)|END|END",
        received: "A\n",
    },
];

/// Scenarios whose output exceeds `max_unsent`.
const MUCH: &[Scenario] = &[Scenario {
    name: "more than max_unsent",
    codec: None,
    by: BYTES,
    peer: &[Sends(b"many 3\nflush\na\n"), Awaits(3 * MANY), Sends(b"b\n"), Ends],
    seen: "many 3|flush|a|b|END",
    received: "65000 x\n65000 x\n65000 x\nflushed\nA\nB\n",
}];

/// The object that reads and writes the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Connection,
    Joined,
    Split,
    IntoSplit,
    /// One future reads and another one writes.
    PumpOverSplit,
    PumpOverIntoSplit,
}

struct Outcome {
    seen: String,
    done: Result<(), Error>,
}

impl Over {
    fn fits(self, scenario: &Scenario, by: By) -> bool {
        match self {
            Self::Connection => true,
            // Halves do not flush when a handler is slow.
            Self::Split | Self::IntoSplit => by != By::Slow,
            Self::Joined => scenario.codec.is_none(),
            Self::PumpOverSplit | Self::PumpOverIntoSplit => {
                scenario.by.contains(&By::Text) && matches!(by, By::Line | By::Text)
            }
        }
    }

    /// Runs the scenario until its end or a failure, and then checks further calls.
    fn run(self, scenario: &Scenario, by: By, script: &Script) -> Outcome {
        let mut seen = Vec::new();
        let codec = scenario.codec.map_or_else(LineCodec::new, |codec| codec());
        let mut conn = Connection::from_io(script.clone(), codec);
        let done = match self {
            Self::Connection => run(script, talk(&mut conn, by, &mut seen)),
            Self::Joined => {
                let mut conn = Connection::join(script.clone(), script.clone());
                let done = run(script, talk(&mut conn, by, &mut seen));
                check_again(&mut conn, script, done.is_err());
                return Outcome::new(seen, done);
            }
            Self::Split => {
                let mut halves = Halves::new(conn.split());
                let done = run(script, talk(&mut halves, by, &mut seen));
                check_halves_again(halves, script, done.is_err());
                done
            }
            Self::IntoSplit => {
                let mut halves = Halves::new(conn.into_split());
                let done = run(script, talk(&mut halves, by, &mut seen));
                check_halves_again(halves, script, done.is_err());
                return Outcome::new(seen, done);
            }
            Self::PumpOverSplit => run(script, pump(conn.split(), by, &mut seen)),
            Self::PumpOverIntoSplit => {
                let done = run(script, pump(conn.into_split(), by, &mut seen));
                return Outcome::new(seen, done);
            }
        };
        check_again(&mut conn, script, done.is_err());
        Outcome::new(seen, done)
    }
}

impl Outcome {
    fn new(seen: Vec<String>, done: Result<(), Error>) -> Self {
        Self { seen: seen.join("|"), done }
    }
}

/// Formats the received bytes as in a [`Scenario`].
fn shown(received: &[u8]) -> String {
    let text = String::from_utf8_lossy(received);
    if text.len() < MANY {
        return text.into();
    }
    text.replace(&"x".repeat(MANY), &format!("{MANY} x"))
}

/// Answers lines until the end of the stream. Reads and writes concurrently.
async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    (mut reader, mut writer): (LineReader<R>, LineWriter<W>),
    by: By,
    seen: &mut Vec<String>,
) -> Result<(), Error> {
    let (to_writer, mut replies) = mpsc::channel(2);
    let reading = async move {
        loop {
            let line = match by {
                By::Text => reader.next_text().await?.map(|line| line.map(|text| text.into_bytes())),
                _ => reader.next_line().await?,
            };
            seen.push(match &line {
                Some(Ok(line)) => line.escape_ascii().to_string(),
                Some(Err(bad)) => describe(bad),
                None => "END".into(),
            });
            let reply = match line {
                Some(Ok(line)) => line.to_ascii_uppercase(),
                Some(Err(_)) => b"bad".to_vec(),
                None => return Ok::<_, Error>(()),
            };
            if to_writer.send(reply).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some(reply) = replies.recv().await {
            match writer.feed_line(reply).await {
                Err(Error::Encode(_)) => writer.feed_line("refused").await?,
                fed => fed?,
            }
            if replies.is_empty() {
                writer.flush().await?;
            }
        }
        writer.shutdown().await
    };
    try_join(reading, writing).await?;
    Ok(())
}

/// After a failure, every call must report that the connection is gone. After the end, the next
/// read must report the end.
fn check_again<Io: AsyncRead + AsyncWrite + Unpin>(
    conn: &mut Connection<Io>,
    script: &Script,
    has_failed: bool,
) {
    if !has_failed {
        return assert!(matches!(run(script, conn.next_line()), Ok(None)));
    }
    assert!(is_gone(run(script, conn.next_line())));
    assert!(is_gone(run(script, conn.next_text())));
    assert!(is_gone(run(script, conn.next_batch())));
    assert!(is_gone(run(script, conn.read_bytes(1))));
    assert!(is_gone(run(script, conn.skip_bytes(1))));
    assert!(is_gone(run(script, async { Ok(conn.body(1).read_u8().await?) })));
    assert!(is_gone(run(script, conn.write_line("x"))));
    assert!(is_gone(run(script, conn.send_line("x"))));
    assert!(is_gone(run(script, conn.write_bytes("x"))));
    assert!(is_gone(run(script, conn.flush())));
    assert!(is_gone(run(script, conn.shutdown())));
    assert!(matches!(run(script, conn.request("x")), Err(Error::Io(_))));
}

/// Like `check_again`, for the half that has failed.
fn check_halves_again<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    halves: Halves<R, W>,
    script: &Script,
    has_failed: bool,
) {
    let Halves { mut reader, writer } = halves;
    let again = wait(script, reader.next_line());
    if !has_failed {
        return assert!(matches!(again, Some(Ok(None))) && writer.is_none());
    }
    let is_reader_gone = again.is_some_and(is_gone);
    if is_reader_gone {
        assert!(is_gone(run(script, reader.next_text())));
        assert!(is_gone(run(script, reader.next_batch())));
        assert!(is_gone(run(script, reader.read_bytes(1))));
        assert!(is_gone(run(script, reader.skip_bytes(1))));
    }
    let Some(mut writer) = writer else { return };
    if is_gone(run(script, writer.flush())) {
        assert!(is_gone(run(script, writer.feed_line("x"))));
        assert!(is_gone(run(script, writer.send_line("x"))));
        assert!(is_gone(run(script, writer.feed_bytes("x"))));
        assert!(is_gone(run(script, writer.shutdown())));
    } else {
        assert!(is_reader_gone);
    }
}

fn is_gone<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Io(error)) if error.kind() == io::ErrorKind::NotConnected)
}

/// Runs each scenario undisturbed, and then with every disturbance at every position. Returns the
/// number of disturbed runs.
fn disturb_everywhere(scenarios: &[Scenario], script: fn(&Scenario) -> Script, over: &[Over]) -> usize {
    let clock = clock();
    let _in = clock.enter();
    let mut runs = 0;
    for (scenario, over) in
        scenarios.iter().flat_map(|scenario| over.iter().map(move |over| (scenario, *over)))
    {
        for by in scenario.by.iter().copied().filter(|by| over.fits(scenario, *by)) {
            let undisturbed = script(scenario);
            let _case = Case(format!("{}, {by:?}, {over:?}", scenario.name));
            let Outcome { seen, done } = over.run(scenario, by, &undisturbed);
            assert_eq!((seen.as_str(), &*shown(&undisturbed.received())), (scenario.seen, scenario.received));
            assert!(done.is_ok() && undisturbed.is_shut());
            for how in Disturbance::ALL {
                if undisturbed.drips() && matches!(how, Disturbance::Short | Disturbance::Pending) {
                    // With a dripping script, every call is short and pending anyway.
                    continue;
                }
                for position in 0.. {
                    let disturbed = script(scenario).disturbed(position, how);
                    let _case = Case(format!("{how:?} at {position}"));
                    let outcome = over.run(scenario, by, &disturbed);
                    runs += 1;
                    if disturbed.positions() <= position {
                        break;
                    }
                    check(scenario, how, &outcome, &disturbed);
                }
            }
        }
    }
    runs
}

fn check(scenario: &Scenario, how: Disturbance, outcome: &Outcome, script: &Script) {
    let Outcome { seen, done } = outcome;
    let received = shown(&script.received());
    match done {
        Ok(()) => {
            assert_eq!((seen.as_str(), received.as_str()), (scenario.seen, scenario.received));
            assert!(script.is_shut() && how != Disturbance::Fails);
        }
        Err(Error::Io(error)) => {
            let expected = match how {
                Disturbance::Fails => FAILURE,
                Disturbance::TakesNothing => io::ErrorKind::WriteZero,
                harmless => panic!("{error} after {harmless:?}"),
            };
            assert_eq!(error.kind(), expected);
            assert!(scenario.seen.starts_with(seen), "{seen}");
            let all = scenario.received.replace(&format!("{MANY} x"), &"x".repeat(MANY));
            assert!(all.as_bytes().starts_with(&script.received()), "{received}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn whole_reads_and_writes() {
    let over = [Over::Connection, Over::Joined, Over::Split, Over::IntoSplit];
    println!("{} runs", disturb_everywhere(SCENARIOS, |scenario| Script::new(scenario.peer), &over));
}

#[test]
fn reads_and_writes_of_one_byte() {
    let over = [Over::Connection, Over::Split, Over::IntoSplit];
    println!(
        "{} runs",
        disturb_everywhere(SCENARIOS, |scenario| Script::new(scenario.peer).dripping(), &over)
    );
}

#[test]
fn reading_while_writing() {
    let over = [Over::PumpOverSplit, Over::PumpOverIntoSplit];
    println!("{} runs", disturb_everywhere(SCENARIOS, |scenario| Script::new(scenario.peer), &over));
    println!(
        "{} runs",
        disturb_everywhere(SCENARIOS, |scenario| Script::new(scenario.peer).dripping(), &over)
    );
}

#[test]
fn more_output_than_may_be_unsent() {
    let over = [Over::Connection, Over::Joined, Over::Split, Over::IntoSplit];
    let script = |scenario: &Scenario| Script::new(scenario.peer).widest_write(10_000);
    println!("{} runs", disturb_everywhere(MUCH, script, &over));
}
