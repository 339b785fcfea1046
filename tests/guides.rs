//! Runs the programs of `docs/guides` against real peers, and checks the output on these pages.
//!
//! The programs are examples. If Cargo did not build the command line, its tests print `skipped`.

#![cfg(unix)]

mod example;
#[path = "cookbook/peer.rs"]
#[allow(dead_code)]
mod peer;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use self::peer::{Running, Talk};

/// The limit for every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line over the limit of 80 bytes between two good lines.
fn good_long_good() -> String {
    format!("one\n{}\ntwo\n", "x".repeat(100))
}

const TOO_LONG: &str = "error: line exceeds the limit of 80 bytes (max_length)\n";

/// Sends lines to the example and shows the replies and the server's own output.
fn conversation(example: &str) -> (String, String) {
    let mut server = Program::start(Command::new(example::path(example)).arg("127.0.0.1:0"));
    let address = server.line().strip_prefix("listening ").unwrap().to_owned();
    let mut talk = Talk::to(&address);
    talk.send(good_long_good() + "cut");
    talk.end();
    let replies = talk.rest();
    // The example has no handler for signals. Unlike SIGINT, SIGTERM is not ignored in background jobs.
    server.signal("TERM");
    let (log, _) = server.end();
    let shown = |who: &str, text: &str| text.lines().map(|line| format!("{who}{line}\n")).collect::<String>();
    (shown("client received: ", &replies) + &shown("server printed:  ", &log), replies)
}

#[test]
fn lines_codec_ends_the_stream_at_a_long_line() {
    let (shown, replies) = conversation("lines_codec_before");
    assert_eq!(replies, "ONE\n");
    check_output("docs/guides/lines-codec.md", "before", &shown);
}

#[test]
fn line_codec_continues_after_a_long_line() {
    let (shown, replies) = conversation("lines_codec_after");
    let cut = "error: line of 3 bytes cut before its terminator\n";
    assert_eq!(replies, format!("ONE\n{TOO_LONG}TWO\n{cut}"));
    check_output("docs/guides/lines-codec.md", "after", &shown);
}

#[test]
fn map_codec_keeps_lines_already_read() {
    let server = Running::example("map_codec", &[]);
    let mut talk = server.talk();
    talk.send(format!("ann\n{}", good_long_good()));
    talk.end();
    assert_eq!(talk.rest(), format!("hello ann\none\n{TOO_LONG}two\n"));
}

fn login(server: &Running, name: &str) -> Talk {
    let mut talk = server.talk();
    assert_eq!(talk.ask(&format!("login {name}")), "ok");
    talk
}

#[test]
fn posts_reach_all_logged_in_clients() {
    let server = Running::example("shared_state", &[]);
    let (mut ann, mut ben, mut other) = (login(&server, "ann"), login(&server, "ben"), server.talk());
    assert_eq!(other.ask("post hello"), "error: unknown command, or not logged in");
    assert_eq!(other.ask("login ann"), "error: name in use");
    assert_eq!(ann.ask("users"), "users: 2");

    // `select!` drops the read of this partial line when the post arrives.
    ben.send("post par");
    assert_eq!(ann.ask("post hello"), "ann: hello");
    assert_eq!(ben.line(), "ann: hello");
    assert_eq!(ben.ask("tial"), "ben: partial");
    assert_eq!(ann.line(), "ben: partial");

    ann.send("quit\n");
    assert_eq!(ann.rest(), "");
    assert_eq!(other.ask("login ann"), "ok");
}

#[test]
fn slow_clients_miss_posts_and_delay_nobody() {
    const POSTS: usize = 2000;
    let server = Running::example("shared_state", &[]);
    // A small receive buffer: by default the system would buffer megabytes for the slow client.
    let address: SocketAddr = server.address.parse().unwrap();
    let slow = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    slow.set_recv_buffer_size(4096).unwrap();
    slow.connect(&address.into()).unwrap();
    let mut slow = Talk::over(slow.into());
    assert_eq!(slow.ask("login slow"), "ok");

    let text = "x".repeat(10_000);
    let mut ann = login(&server, "ann");
    for number in 0..POSTS {
        assert_eq!(ann.ask(&format!("post {number} {text}")), format!("ann: {number} {text}"));
    }
    let (mut next, mut missed) = (0, 0);
    while next < POSTS {
        // On a machine so slow that this took 30 s, the server has closed the connection.
        let Some(line) = slow.try_line() else { return };
        match line.strip_prefix("missed ").and_then(|rest| rest.strip_suffix(" posts")) {
            Some(count) => {
                let count: usize = count.parse().unwrap();
                missed += count;
                next += count;
            }
            None => {
                assert_eq!(line, format!("ann: {next} {text}"));
                next += 1;
            }
        }
    }
    assert!(missed > 0, "the slow client missed nothing: raise POSTS");
}

/// A program whose output is read line by line.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Starts `graceful_shutdown`. Returns it with its address.
    fn graceful_shutdown(drain_seconds: u32) -> (Self, String) {
        let mut command = Command::new(example::path("graceful_shutdown"));
        let mut program = Self::start(command.args(["127.0.0.1:0", &drain_seconds.to_string()]));
        let address = program.line().strip_prefix("listening ").unwrap().to_owned();
        (program, address)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end. Returns the rest of the output and the exit code.
    fn end(&mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn both_signals_drain() {
    for signal in ["INT", "TERM"] {
        let (mut server, address) = Program::graceful_shutdown(60);
        let mut talk = Talk::to(&address);
        // The server has received all of it when it replies to the first line.
        talk.send("0\n300\n1\nunfinis");
        assert_eq!(talk.line(), "worked 0 ms");
        server.signal(signal);
        assert_eq!(talk.rest(), "worked 300 ms\nworked 1 ms\n");
        drop(talk);
        let expected = format!("SIG{signal}: draining\nstopped: lines=3 aborted=0\n");
        assert_eq!(server.end(), (expected, Some(0)));
        assert!(TcpStream::connect(&address).is_err());
    }
}

#[test]
fn second_signal_ends_the_drain() {
    for (first, second) in [("INT", "TERM"), ("TERM", "TERM"), ("INT", "INT")] {
        let (mut server, address) = Program::graceful_shutdown(600);
        let mut talk = Talk::to(&address);
        talk.send("0\n600000\n");
        assert_eq!(talk.line(), "worked 0 ms");
        server.signal(first);
        assert_eq!(server.line(), format!("SIG{first}: draining"));
        server.signal(second);
        assert_eq!(server.end(), (format!("SIG{second}: not waiting any longer\n"), Some(1)));
        assert_eq!(talk.rest(), "");
    }
}

#[test]
fn drain_timeout_aborts_late_connections() {
    let (mut server, address) = Program::graceful_shutdown(1);
    let mut talk = Talk::to(&address);
    talk.send("0\n600000\n");
    assert_eq!(talk.line(), "worked 0 ms");
    server.signal("TERM");
    let expected = "SIGTERM: draining\nstopped: lines=2 aborted=1\n";
    assert_eq!(server.end(), (expected.into(), Some(1)));
    assert_eq!(talk.rest(), "");
}

#[test]
fn counted_bytes_may_contain_line_ends() {
    let server = Running::example("counted_bytes", &[]);
    let mut talk = server.talk();
    talk.send("put k 11\nget k\r\n\nend\nget k\nget none\n");
    assert_eq!(talk.line(), "stored");
    assert_eq!([(); 5].map(|()| talk.line()), ["value 11", "get k", "", "end", "none"]);
}

#[test]
fn refused_blocks_are_skipped() {
    let server = Running::example("counted_bytes", &[]);
    let mut talk = server.talk();
    talk.send(format!("put k 65537\n{}\nget k\n", "get k\n".repeat(10_923).split_off(1)));
    let refused = "error: block of 65537 bytes exceeds the limit of 65536 bytes (max_block_length)";
    assert_eq!([talk.line(), talk.line()], [refused, "none"]);
    // An upload may be longer than any line or block.
    talk.send("sum 5000000\n");
    talk.send(vec![b'\n'; 5_000_000]);
    talk.send("\nget k\n");
    assert_eq!([talk.line(), talk.line()], ["sum 50000000", "none"]);
}

#[test]
fn wrong_lengths_end_the_session() {
    let server = Running::example("counted_bytes", &[]);
    for wrong in ["put k 3\nabcd\n", "put k +3\nabc\n", "put k x\n", "sum 3\nabcd\n"] {
        let mut talk = server.talk();
        talk.send(format!("{wrong}get k\n"));
        let replies = talk.rest();
        assert!(!replies.contains("none") && !replies.contains("value"), "{wrong:?}: {replies}");
    }
}

#[test]
fn all_ways_to_reply_are_equivalent() {
    let long = "x".repeat(70_000);
    let lines = format!("hello\n{long}\n") + &"again\n".repeat(1000);
    let too_long = "error: line exceeds the limit of 65536 bytes (max_length)\n";
    for way in ["send", "feed", "forward", "batch"] {
        let server = Running::example("fast_replies", &[way.as_ref()]);
        let mut talk = server.talk();
        // A single line gets its reply although the client sends no more.
        assert_eq!(talk.ask("first"), "FIRST", "{way}");
        talk.send(&lines);
        talk.end();
        assert_eq!(talk.rest(), format!("HELLO\n{too_long}{}", "AGAIN\n".repeat(1000)), "{way}");
    }
}

#[test]
fn only_send_writes_for_each_line() {
    let counted = Command::new(example::path("fast_replies")).output().unwrap();
    check_output("docs/guides/fast-replies.md", "writes", &String::from_utf8(counted.stdout).unwrap());
}

/// Returns the path of the `lineframe` program, or `None` if it was not built.
fn cli() -> Option<PathBuf> {
    let path = example::path("fast_replies").with_file_name("../lineframe");
    if !path.exists() {
        eprintln!("skipped: no `lineframe`; `cargo test` at the root of the workspace builds it");
        return None;
    }
    Some(path.canonicalize().unwrap())
}

/// Runs a shell command with `lineframe` in its path.
fn shell(cli: &Path, command: &str) -> Output {
    let path = format!("{}:{}", cli.parent().unwrap().display(), std::env::var("PATH").unwrap());
    Command::new("sh").args(["-c", command]).env("PATH", path).output().unwrap()
}

/// Starts a server that reads once from each connection, then sends `reply` and closes. `None`: it never
/// replies.
fn server(reply: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                _ = client.read(&mut [0; 1024]);
                match reply {
                    Some(reply) => _ = client.write_all(reply.as_bytes()),
                    None => thread::park(),
                }
            });
        }
    });
    address
}

#[test]
fn health_checks_exit_as_the_page_says() {
    let Some(cli) = cli() else { return };
    let healthy = Running::example("redis_server", &[]);
    let refusing = {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        unused.local_addr().unwrap().to_string()
    };
    let cases = [
        (healthy.address.clone(), 0),
        (server(Some("")), 1),
        (refusing, 3),
        (server(None), 4),
        (server(Some(&LONG_REPLY)), 6),
        (server(Some("-LOADING dataset\n")), 7),
    ];
    let command = "echo PING | lineframe send --connect-timeout 1s --timeout 1s --expect '^\\+PONG$' ADDRESS";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/guides");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let script = format!("sh '{}' ADDRESS", folder.join("healthcheck.sh").display());
    let dockerfile = read("Dockerfile");
    let docker = dockerfile.split_once(" CMD \\\n").unwrap().1.trim();
    let pod = read("pod.yaml");
    let probe = pod.lines().last().unwrap().trim().strip_prefix("- ").unwrap();

    for (address, code) in &cases {
        let run = |command: &str| {
            let output =
                shell(&cli, &command.replace("127.0.0.1:6379", "ADDRESS").replace("ADDRESS", address));
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let (exit, complaint) = run(command);
        assert_eq!(exit, Some(*code), "{complaint}");
        assert_eq!(complaint.is_empty(), *code == 0, "{complaint}");
        assert_eq!(run(probe).0, Some(*code));
        for container in [&*script, docker] {
            assert_eq!(run(container).0, Some((*code).min(1)), "{container}");
        }
    }
}

/// Longer than the limit of the client.
static LONG_REPLY: LazyLock<String> = LazyLock::new(|| "x".repeat(70_000) + "\n");

#[test]
fn timeout_does_not_limit_a_dripping_server() {
    let Some(cli) = cli() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        while client.write_all(b".").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let started = Instant::now();
    let output = shell(&cli, &format!("echo PING | timeout 2 lineframe send --timeout 1s {address}"));
    // GNU timeout exits with 124.
    assert_eq!(output.status.code(), Some(124));
    assert!(started.elapsed() >= Duration::from_secs(2));
}

static PAGES: Mutex<()> = Mutex::new(());

/// Compares the output with the block after `<!-- output: NAME -->`. If the environment has
/// `UPDATE_PAGES=1`, updates the page instead.
fn check_output(page: &str, name: &str, output: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    // Tests of one page may update it at the same time.
    let _guard = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(&path).unwrap();
    let mark = format!("<!-- output: {name} -->\n```text\n");
    let (before, rest) = text.split_once(&mark).unwrap_or_else(|| panic!("no {mark}"));
    let (block, after) = rest.split_once("```\n").unwrap();
    if std::env::var_os("UPDATE_PAGES").is_some_and(|set| set == "1") {
        fs::write(&path, format!("{before}{mark}{output}```\n{after}")).unwrap();
    } else {
        assert_eq!(block, output, "{page}: UPDATE_PAGES=1 updates the page");
    }
}

/// Replaces times and ports, which differ in every run.
fn with_fixed_times(line: &str) -> String {
    let is_time = |word: &str| word.len() == 15 && word.matches(':').count() == 2;
    let line = match line.split_once(' ') {
        Some((time, rest)) if is_time(time) => format!("18:54:12.519000 {rest}"),
        _ => line.to_owned(),
    };
    match line.split_once("from 127.0.0.1:") {
        Some((before, _)) => format!("{before}from 127.0.0.1:50001"),
        None => line,
    }
}

#[test]
fn inspect_shows_cuts_terminators_and_ends() {
    let Some(cli) = cli() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(cli);
    command.args(["inspect", "127.0.0.1:0", &listener.local_addr().unwrap().to_string()]);
    let mut inspect = Program::start(command.stderr(Stdio::piped()));
    let mut notes = BufReader::new(inspect.child.stderr.take().unwrap());
    let mut listening = String::new();
    notes.read_line(&mut listening).unwrap();
    let address = listening.trim_end().strip_prefix("listening ").unwrap();

    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    // Each step waits until the other side has received the bytes, so they are separate reads.
    let pass = |from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]| {
        from.write_all(bytes).unwrap();
        let mut received = vec![0; bytes.len()];
        to.read_exact(&mut received).unwrap();
        assert_eq!(received, bytes);
    };
    pass(&mut client, &mut server, b"hel");
    pass(&mut client, &mut server, b"lo\r\n");
    pass(&mut server, &mut client, b"HELLO\n");
    pass(&mut client, &mut server, b"one\ntwo\n");
    pass(&mut server, &mut client, b"ONE");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);

    let mut shown = String::new();
    // The header, the client, five frames, the reason for one of them, two ends.
    for _ in 0..10 {
        shown += &(with_fixed_times(&inspect.line()) + "\n");
    }
    inspect.signal("INT");
    let (rest, code) = inspect.end();
    let mut complaint = String::new();
    notes.read_to_string(&mut complaint).unwrap();
    assert_eq!((&*rest, code), ("", Some(6)), "{shown}{complaint}");
    check_output("docs/guides/inspect.md", "relay", &format!("{shown}{complaint}"));
}

#[test]
fn inspect_shows_invisible_bytes() {
    let Some(cli) = cli() else { return };
    let mut shown = String::new();
    for (input, options) in [
        (r#"\357\273\277{"id":1}\n{"id":\302\2402}\r\n{"id":3}"#, " --check json"),
        (r"caf\351\na\000b\none\rtwo\n", ""),
    ] {
        let command = format!("printf '{input}' | lineframe inspect{options}");
        let output = shell(&cli, &command);
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        shown += &format!("$ {command}\n");
        shown.extend(text.lines().map(|line| with_fixed_times(line) + "\n"));
    }
    check_output("docs/guides/inspect.md", "bytes", &shown);
}
