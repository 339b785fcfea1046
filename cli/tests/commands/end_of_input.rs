use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Process, lineframe};

/// The lines that each tool sends, and the replies to them.
const LINES: &str = "one\ntwo\n";
const REPLIES: &str = "ONE\nTWO\n";

/// A tool that still runs this long after the last reply is considered to hang.
const HANG_AFTER: Duration = Duration::from_secs(2);

/// A server that some tools handle wrongly.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    serve: fn(&mut BufReader<TcpStream>) -> io::Result<()>,
    /// Time from the start to the last reply.
    takes: Duration,
    /// Keeps the tool's stdin open until the end.
    stdin_stays: bool,
}

const CASES: [Case; 4] = [
    Case { name: "reads to EOF, answers 0.6s later", serve: a, takes: ms(600), stdin_stays: false },
    Case { name: "answers each line 0.3s later", serve: b, takes: ms(600), stdin_stays: false },
    Case { name: "answers 1s later, ignores FIN", serve: c, takes: ms(1000), stdin_stays: false },
    Case { name: "answers and closes, stdin open", serve: d, takes: ms(0), stdin_stays: true },
];

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn a(client: &mut BufReader<TcpStream>) -> io::Result<()> {
    client.read_to_end(&mut Vec::new())?;
    thread::sleep(ms(600));
    client.get_ref().write_all(REPLIES.as_bytes())?;
    client.get_ref().shutdown(Shutdown::Write)
}

fn b(client: &mut BufReader<TcpStream>) -> io::Result<()> {
    for reply in REPLIES.split_inclusive('\n') {
        client.read_until(b'\n', &mut Vec::new())?;
        thread::sleep(ms(300));
        client.get_ref().write_all(reply.as_bytes())?;
    }
    client.read_to_end(&mut Vec::new())?;
    client.get_ref().shutdown(Shutdown::Write)
}

fn c(client: &mut BufReader<TcpStream>) -> io::Result<()> {
    client.read_exact(&mut [0; LINES.len()])?;
    thread::sleep(ms(1000));
    client.get_ref().write_all(REPLIES.as_bytes())
}

fn d(client: &mut BufReader<TcpStream>) -> io::Result<()> {
    client.read_exact(&mut [0; LINES.len()])?;
    client.get_ref().write_all(REPLIES.as_bytes())?;
    client.get_ref().shutdown(Shutdown::Write)
}

/// The result of one tool in one case.
#[derive(Clone, Copy)]
struct Outcome {
    replies: usize,
    /// Run time, or `None` if the tool hung.
    took: Option<Duration>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replies = match self.replies {
            0 => "**none**".to_owned(),
            2 => "both".to_owned(),
            some => format!("**{some} of 2**"),
        };
        match self.took {
            Some(took) => write!(f, "{replies}, {:.1}s", took.as_secs_f64()),
            None => write!(f, "{replies}, **stays**"),
        }
    }
}

/// Runs a tool against a new server. `command` takes host and port and returns the tool's command.
fn outcome(case: Case, command: impl FnOnce(&str, &str) -> Command) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // Dropped when this function returns, which ends the server thread.
    let (_tool, to_end) = channel::<()>();
    thread::spawn(move || {
        let mut client = BufReader::new(listener.accept().unwrap().0);
        // Errors are ignored here: a tool that fails prints wrong replies.
        _ = (case.serve)(&mut client);
        // Keeps the connection open until the tool has ended or hangs.
        _ = to_end.recv();
    });
    let start = Instant::now();
    let mut process = Process::start(&mut command("127.0.0.1", &port));
    process.write(LINES);
    let stdin = process.take_stdin();
    // Closes stdin immediately, or when this function returns.
    let _stdin = case.stdin_stays.then_some(stdin);
    let ended = process.out.ends_within(case.takes + HANG_AFTER);
    let took = ended.then(|| start.elapsed());
    let replies = process.out.bytes();
    assert!(REPLIES.as_bytes().starts_with(&replies), "{replies:?}");
    Outcome { replies: replies.iter().filter(|byte| **byte == b'\n').count(), took }
}

/// Returns whether `program` exists and prints `marker` when called with `flag`.
fn is_installed(program: &str, flag: &str, marker: &str) -> bool {
    let said = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let found =
        said.is_ok_and(|said| String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).contains(marker));
    if !found {
        println!("skipped: no {program} ({marker})");
    }
    found
}

/// Returns a function that builds the command, with `HOST` and `PORT` in `arguments` replaced.
fn tool(program: &'static str, arguments: &'static str) -> impl Fn(&str, &str) -> Command + Copy + Send {
    move |host, port| {
        let arguments = arguments.replace("HOST", host).replace("PORT", port);
        let mut command = if program == "lineframe" { lineframe([""; 0]) } else { Command::new(program) };
        command.args(arguments.split(' '));
        command
    }
}

#[test]
fn send_prints_every_reply_and_ends_promptly() {
    let mut tools = vec![
        ("lineframe", "send HOST:PORT"),
        ("lineframe", "send --end half-close HOST:PORT"),
        ("lineframe", "send --end half-close --replies 2 HOST:PORT"),
    ];
    for (program, flag, marker, ways) in [
        ("nc", "-h", "OpenBSD", &["HOST PORT", "-N HOST PORT", "-q 1 HOST PORT"][..]),
        ("socat", "-V", "socat", &["- TCP:HOST:PORT", "-t 5 - TCP:HOST:PORT"]),
        ("ncat", "--version", "Ncat", &["HOST PORT", "--no-shutdown HOST PORT"]),
    ] {
        if is_installed(program, flag, marker) {
            tools.extend(ways.iter().map(|arguments| (program, *arguments)));
        }
    }
    let again = |nth: usize, case: Case| outcome(case, tool(tools[nth].0, tools[nth].1));
    let running: Vec<_> = tools
        .iter()
        .map(|&(program, arguments)| {
            CASES.map(|case| thread::spawn(move || outcome(case, tool(program, arguments))))
        })
        .collect();
    let outcomes: Vec<_> = running.into_iter().map(|row| row.map(|cell| cell.join().unwrap())).collect();

    println!("| | {} |\n|---|---|---|---|---|", CASES.map(|case| case.name).join(" | "));
    for ((program, arguments), row) in tools.iter().zip(&outcomes) {
        println!("| `{program} {arguments}` | {} |", row.each_ref().map(ToString::to_string).join(" | "));
    }
    // The first server waits for the end of the input, so plain `send` (row 0) is not expected to
    // handle it; `--end half-close` (row 1) is. With `--replies 2` as well (row 2), all four cases
    // must pass.
    let right = [(1, 0), (0, 1), (0, 2), (0, 3), (2, 0), (2, 1), (2, 2), (2, 3)];
    for (nth, case) in right {
        let (case, first) = (CASES[case], outcomes[nth][case]);
        // A busy machine delays some attempts; waiting for a timeout would delay all of them.
        let is_quick = std::iter::once(first).chain((0..10).map(|_| again(nth, case))).any(|outcome| {
            let ended = outcome.took.is_some();
            assert!(outcome.replies == 2 || !ended, "{}: {outcome}", case.name);
            outcome.took.is_some_and(|took| took < case.takes + ms(900))
        });
        assert!(is_quick, "{}: {first}", case.name);
    }
}
