use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::Signal;

use crate::support::{Client, PATIENCE, Process, Server, Terminal, lineframe};

/// Returns one line for each character that may control a terminal, and for each non-UTF-8 byte.
fn control_lines() -> Vec<u8> {
    let scalars = (0..0xa0).chain([0x61c, 0x200e, 0x200f]).chain(0x2028..=0x202e).chain(0x2066..=0x2069);
    let scalars = scalars.filter_map(char::from_u32).filter(|scalar| *scalar != '\n');
    let mut lines: Vec<_> = scalars.flat_map(|scalar| format!("a{scalar}z\n").into_bytes()).collect();
    lines.extend((0x80..=0xff).flat_map(|byte| [b'a', byte, b'z', b'\n']));
    lines.extend(b"\x1b]0;x\x07 \xe4\xb8\x96\nat the end\n");
    lines
}

fn assert_escaped(log: &str) {
    let is_control = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!log.replace(['\r', '\n'], "").contains(is_control), "{log:?}");
}

#[test]
fn client_text_is_escaped_in_piped_logs() {
    for format in ["text", "json"] {
        let server = Server::with(|serve| _ = serve.args(["-vv", "--log-format", format]));
        for mut client in server.clients() {
            client.feed_all(control_lines());
            client.rest();
        }
        let log = server.stop().err;
        let log = std::str::from_utf8(&log).unwrap();
        assert_escaped(log);
        let shown =
            if format == "json" { r#""line":"\\x1b]0;x\\x07 世""# } else { r#"line="\\x1b]0;x\\x07 世""# };
        for said in
            [shown, "127.0.0.1:", "unix pid", "at the end", "connection began", "connection ended", "stopped"]
        {
            assert!(log.contains(said), "{said}: {log}");
        }
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}

#[test]
fn client_text_is_escaped_on_a_terminal() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    let mut serve = lineframe(["serve", "./some.sock", "-vv"]);
    serve.current_dir(&directory);
    let terminal = Terminal::start(serve);
    terminal.shown.until("listening", |shown| shown.ends_with(b"some.sock\r\n"));
    let mut client = Client::unix(&path);
    client.feed_all(control_lines());
    client.rest();
    terminal.shown.until_contains("connection ended");
    terminal.type_keys("\x03");
    let shown = terminal.shown.to_end();
    let shown = std::str::from_utf8(&shown).unwrap();
    assert_escaped(&shown.replace("^C", ""));
    assert!(shown.contains(r"\\x1b]0;x\\x07 世"), "{shown}");
    assert!(terminal.end().success());
}

#[test]
fn connections_are_not_logged_by_default() {
    let server = Server::start();
    for mut client in server.clients() {
        client.feed_all("a\n");
        assert_eq!(client.rest(), "A\n");
    }
    let log = server.stop().err;
    let log = String::from_utf8_lossy(&log);
    assert!(log.lines().count() == 1 && log.contains("stopped accepted=2 lines=2"), "{log}");
}

/// Reads the reply to one line, then resets the connection.
fn reset(address: &str) {
    let mut client = Client::tcp(address);
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
    set_socket_linger(client.into_inner(), Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_full_log_pipe_stops_nothing() {
    let (_unread, full) = pipe().unwrap();
    let size = fcntl_setpipe_size(&full, 4096).unwrap();
    let mut full = std::fs::File::from(full);
    full.write_all(&vec![b'.'; size]).unwrap();
    let mut serve = lineframe(["serve", "127.0.0.1:0", "-v"]);
    serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full);
    let process = Process::spawn(&mut serve, u64::MAX);
    let mut said = String::new();
    process.out.until("address", |out| {
        said = String::from_utf8_lossy(out).into_owned();
        out.ends_with(b"\n")
    });
    let address = said.trim_start_matches("listening ").trim_end();
    let mut honest = Client::tcp(address);
    for _ in 0..300 {
        reset(address);
        honest.write("hello\n");
        assert_eq!(honest.line(), "HELLO\n");
    }
    process.signal(Signal::TERM);
    assert_eq!(honest.rest(), "");
    assert_eq!(process.end().code, Some(0));
}

/// Returns the records with this reason as (level, number of events that the record stands for).
fn records(log: &[u8], reason: &str) -> Vec<(String, u64)> {
    let objects = std::str::from_utf8(log).unwrap().lines().map(serde_json::from_str::<serde_json::Value>);
    let objects = objects.map(Result::unwrap).filter(|object| object["reason"] == reason);
    let record = |object: serde_json::Value| {
        let suppressed = object["suppressed"].as_u64().unwrap_or(0);
        (object["level"].as_str().unwrap().to_owned(), 1 + suppressed)
    };
    objects.map(record).collect()
}

#[test]
fn resets_are_logged_once_a_second() {
    const RESETS: u64 = 2000;
    let server = Server::with(|serve| _ = serve.args(["--log-format", "json"]));
    let begun = std::time::Instant::now();
    for _ in 0..RESETS {
        reset(&server.tcp);
    }
    // Wait for all resets first: a graceful shutdown would close a connection normally if the
    // server has not seen its reset yet.
    let failed = format!("failed\\\":{RESETS}");
    while !server.process.err.so_far().contains(&failed) {
        assert!(begun.elapsed() < PATIENCE, "not all resets are seen");
        server.process.signal(Signal::USR1);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = server.stop();
    let seconds = begun.elapsed().as_secs();
    let records = records(&ended.err, "reset");
    // One immediately, one per second, and one at shutdown.
    assert!((2..=seconds + 3).contains(&(records.len() as u64)), "{seconds} s: {records:?}");
    assert!(records.iter().all(|(level, _)| level == "WARN"));
    assert_eq!(records.iter().map(|(_, count)| count).sum::<u64>(), RESETS, "{records:?}");
}

#[test]
fn held_records_follow_within_a_second() {
    let server = Server::with(|serve| _ = serve.args(["--log-format", "json"]));
    reset(&server.tcp);
    reset(&server.tcp);
    reset(&server.tcp);
    // The records appear while the server runs, without further events.
    server.process.err.until("three resets", |log| {
        let log = &log[..log.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)];
        records(log, "reset").iter().map(|(_, count)| count).sum::<u64>() == 3
    });
    server.stop();
}

#[test]
fn counters_are_the_last_record() {
    let server = Server::with(|serve| _ = serve.args(["--log-format", "json"]));
    for _ in 0..3 {
        reset(&server.tcp);
    }
    let log = server.stop().err;
    let last = std::str::from_utf8(&log).unwrap().lines().last().unwrap();
    assert!(last.contains(r#""message":"stopped""#), "{log:?}");
}

#[test]
fn connections_without_a_byte_are_logged_at_debug() {
    for (verbosity, is_logged) in [("-v", false), ("-vv", true)] {
        let server = Server::with(|serve| _ = serve.args([verbosity, "--log-format", "json"]));
        let client = Client::tcp(&server.tcp);
        set_socket_linger(client.into_inner(), Some(Duration::ZERO)).unwrap();
        // The server accepts this client after the one above.
        let mut next = Client::tcp(&server.tcp);
        next.write("a\n");
        assert_eq!(next.line(), "A\n");
        drop(next);
        let log = server.stop().err;
        let resets = records(&log, "reset");
        assert_eq!(resets, if is_logged { vec![("DEBUG".to_owned(), 1)] } else { vec![] }, "{log:?}");
    }
}

#[test]
fn contents_are_logged_with_two_v_only() {
    let server = Server::with(|serve| _ = serve.arg("-v"));
    let [mut client, _] = server.clients();
    client.feed_all("secret\n");
    client.rest();
    let log = server.stop().err;
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("connection began") && log.contains("connection ended"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn clients_cannot_forge_fields() {
    let server = Server::with(|serve| _ = serve.arg("-vv"));
    let [mut client, _] = server.clients();
    client.feed_all("x peer=9.9.9.9:1 line=admin\n");
    client.rest();
    let log = server.stop().err;
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains(" line=\"x peer=9.9.9.9:1 line=admin\"\n"), "{log}");
}

#[test]
fn line_timeouts_say_what_was_pending() {
    let server = Server::with(|serve| _ = serve.args(["--line-timeout", "10ms"]));
    let [mut client, _] = server.clients();
    client.write("hello");
    client.wait_for_end();
    let log = server.stop().err;
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("reason=line_timeout detail=\"5 bytes without a newline\""), "{log}");
}

#[test]
fn mapped_addresses_are_logged_as_ipv4() {
    let mut serve = lineframe(["serve", "[::]:0", "-v"]);
    let process = Process::start(&mut serve);
    let mut said = String::new();
    process.out.until("address", |out| {
        said = String::from_utf8_lossy(out).into_owned();
        out.ends_with(b"\n")
    });
    let port = said.trim_end().rsplit_once(':').unwrap().1;
    Client::tcp(&format!("127.0.0.1:{port}")).finish();
    process.err.until_contains("connection began peer=127.0.0.1:");
}

#[test]
fn closed_stdout_and_stderr_stop_nothing() {
    let (unread, stderr) = pipe().unwrap();
    drop(unread);
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    let mut serve = lineframe(["serve", "-v", "127.0.0.1:0", "./some.sock"]);
    serve.current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    // The reader closes the pipe after 1 byte, like `head -c 1`.
    let mut process = Process::spawn(&mut serve, 1);
    process.out.to_end();
    let mut client = (0..).find_map(|_| {
        assert!(process.is_running());
        std::thread::yield_now();
        std::os::unix::net::UnixStream::connect(&path).ok().map(Client::new)
    });
    let client = client.as_mut().unwrap();
    client.write("hello\n");
    assert_eq!(client.line(), "HELLO\n");
    process.signal(Signal::TERM);
    assert_eq!(process.end().code, Some(0));
}

#[test]
fn stderr_lines_of_children_are_records() {
    let script = r#"echo "first peer=x" >&2; printf 'cut \033[m' >&2; cat"#;
    let server = Server::exec(&["--log-format", "json"], &["sh", "-c", script]);
    let [mut client, _] = server.clients();
    client.feed_all("a\n");
    assert_eq!(client.rest(), "a\n");
    let log = server.stop().err;
    let log = std::str::from_utf8(&log).unwrap();
    let records: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in ["first peer=x", r"cut \x1b[m"] {
        let of_client =
            |peer: &serde_json::Value| peer.as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:"));
        assert!(records.iter().any(|record| record["line"] == line && of_client(&record["peer"])), "{log}");
    }
}
