use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Client, Ended, PATIENCE, Process, Server, assert_faster_than, lineframe, promptly, run,
};

/// Prints its process ID, then becomes the command named in the first line.
pub(crate) const ANY_COMMAND: [&str; 3] = ["sh", "-c", "echo $$; read command; exec $command"];

/// Long enough for a child to start on a busy machine.
pub(crate) const IDLE_TIMEOUT: &str = "3s";

fn is_error(line: &[u8]) -> bool {
    line.starts_with(b"error: ") && line.ends_with(b"\n")
}

/// Connects to a server that runs [`ANY_COMMAND`]. Returns the client and the ID of its process.
pub(crate) fn client_of(server: &Server, command: &str) -> (Client, String) {
    let mut client = Client::tcp(&server.tcp);
    let id = String::from_utf8(client.line().to_vec()).unwrap();
    client.write(format!("{command}\n"));
    (client, id.trim_end().to_owned())
}

fn assert_serves(server: &Server) {
    let (mut client, _) = client_of(server, "cat");
    client.write("still here\n");
    assert_eq!(client.line(), "still here\n");
}

/// Waits until the process has ended and was reaped.
pub(crate) fn assert_ends(process: &str) {
    let start = Instant::now();
    while Path::new("/proc").join(process).exists() {
        assert!(start.elapsed() < PATIENCE, "process {process} is still there");
        thread::sleep(Duration::from_millis(5));
    }
}

fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_million_lines_return_unchanged_in_order() {
    let server = Server::exec(&[], &["cat"]);
    let lines: String = (0..1_000_000).map(|n| format!("line number {n}\n")).collect();
    let ended = run(["send", &server.tcp], lines.clone());
    assert!(ended == Ended::success(&lines), "{:?}, {} bytes, {:?}", ended.code, ended.out.len(), ended.err);
}

#[test]
fn each_child_gets_its_connection_in_the_environment() {
    let environment = ["env", "-u", "PATH", "sh", "-c", "env; exec cat"];
    let server = Server::with(|serve| {
        // Variables inherited from an outer server, which must not reach the child.
        serve.env("TCPREMOTEHOST", "nowhere").env("UNIXREMOTEPID", "1");
        serve.args(["--exec", "--"]).args(environment);
    });
    let (ip, port) = server.tcp.split_once(':').unwrap();
    let variables = |mut client: Client, family: &str| {
        client.finish();
        let said = String::from_utf8(client.rest().to_vec()).unwrap();
        let is_ours = |line: &&str| line.starts_with(family) || line.starts_with("PROTO");
        let mut variables: Vec<_> = said.lines().filter(is_ours).map(str::to_owned).collect();
        assert!(!said.contains("nowhere"), "{said}");
        variables.sort();
        variables
    };

    let client = Client::tcp(&server.tcp);
    let remote = client.port();
    let expected = [
        "PROTO=TCP".to_owned(),
        format!("TCPLOCALIP={ip}"),
        format!("TCPLOCALPORT={port}"),
        "TCPREMOTEIP=127.0.0.1".to_owned(),
        format!("TCPREMOTEPORT={remote}"),
    ];
    assert_eq!(variables(client, "TCP"), expected);

    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let expected = [
        "PROTO=UNIX".to_owned(),
        format!("UNIXLOCALGID={group}"),
        "UNIXLOCALPATH=./some.sock".to_owned(),
        format!("UNIXLOCALPID={}", server.process.id()),
        format!("UNIXLOCALUID={user}"),
        format!("UNIXREMOTEEGID={group}"),
        format!("UNIXREMOTEEUID={user}"),
        format!("UNIXREMOTEPID={}", std::process::id()),
    ];
    assert_eq!(variables(Client::unix(&server.path()), "UNIX"), expected);
}

#[test]
fn no_shell_reads_its_arguments() {
    let server = Server::exec(&[], &["printf", "%s\\n", "$HOME; exit", "*"]);
    for mut client in server.clients() {
        assert_eq!(client.rest(), "$HOME; exit\n*\n");
    }
}

#[test]
fn half_close_closes_stdin_and_keeps_output() {
    let server = Server::exec(&[], &["wc", "-l"]);
    for mut client in server.clients() {
        client.feed_all("a\n".repeat(20_000));
        assert_eq!(client.rest(), "20000\n");
    }
}

#[test]
fn each_stderr_line_is_one_log_record() {
    let said = "printf 'one\\ntwo peer=9.9.9.9:1 \\033[31m\\nlast' >&2";
    let server = Server::exec(&["--log-format", "json"], &["sh", "-c", said]);
    assert_eq!(Client::tcp(&server.tcp).rest(), "");
    let mut lines = Vec::new();
    server.process.err.until("stderr of the child", |err| {
        let whole = err.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let records = whole.map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
        lines = records.filter_map(|record| record["line"].as_str().map(str::to_owned)).collect();
        lines.len() == 3
    });
    assert_eq!(lines, ["one", "two peer=9.9.9.9:1 \\x1b[31m", "last"]);
}

#[test]
fn child_exit_closes_only_its_connection() {
    let server = Server::exec(&[], &ANY_COMMAND);
    let (mut other, _) = client_of(&server, "cat");
    let (mut client, id) = client_of(&server, "false");
    assert_eq!(client.rest(), "");
    assert_ends(&id);
    other.write("a\n");
    assert_eq!(other.line(), "a\n");
    server.process.err.until_contains("exit status: 1");
}

#[test]
fn children_end_when_their_client_disconnects() {
    let server = Server::exec(&[], &ANY_COMMAND);
    for command in ["cat", "yes"] {
        let (client, id) = client_of(&server, command);
        drop(client);
        assert_ends(&id);
    }
}

#[test]
fn flooding_children_use_bounded_memory() {
    let server = Server::exec(&[], &ANY_COMMAND);
    let (mut client, id) = client_of(&server, "yes");
    let (mut endless, _) = client_of(&server, "cat /dev/zero");
    // No client reads the output of `yes`. The endless line is answered with one error line, and
    // the server drops the rest of the line.
    assert!(is_error(&endless.line()));
    for _ in 0..20 {
        assert_serves(&server);
    }
    assert!(resident_kib(server.process.id()) < 32 * 1024, "{} KiB", resident_kib(server.process.id()));
    assert_eq!(client.line(), "y\n");
    drop(client);
    assert_ends(&id);
}

#[test]
fn idle_timeout_ends_children_that_never_read() {
    let server = Server::exec(&["--idle-timeout", IDLE_TIMEOUT], &ANY_COMMAND);
    let (mut client, id) = client_of(&server, "sleep 1000");
    client.feed("x".repeat(999).repeat(1000) + &"\nabc".repeat(1_000_000));
    // A reset is accepted too, because the child has left bytes of the client unread.
    client.wait_for_end();
    assert_ends(&id);
    assert!(resident_kib(server.process.id()) < 32 * 1024);
}

#[test]
fn idle_timeout_ends_children_after_half_close() {
    let server = Server::exec(&["--idle-timeout", IDLE_TIMEOUT], &ANY_COMMAND);
    let (mut client, id) = client_of(&server, "sleep 1000");
    client.finish();
    assert_eq!(promptly(|| client.rest()), "");
    assert_ends(&id);
}

#[test]
fn child_output_resets_the_idle_timeout() {
    // Each pause is far shorter than the timeout, but their sum is longer.
    let talks = ["sh", "-c", "for n in 1 2 3 4 5 6 7 8; do sleep 0.5; echo $n; done"];
    let server = Server::exec(&["--idle-timeout", IDLE_TIMEOUT], &talks);
    assert_eq!(Client::tcp(&server.tcp).rest(), "1\n2\n3\n4\n5\n6\n7\n8\n");
}

#[test]
fn bad_lines_and_replies_become_error_lines() {
    let server = Server::exec(&["--max-length", "10"], &["sed", "-u", "s/^grow/&xxxxxxxxxxxxxxxxxxxx/"]);
    for mut client in server.clients() {
        client.write("good\n");
        assert_eq!(client.line(), "good\n");
        client.write("more than ten bytes\n");
        assert!(is_error(&client.line()));
        client.write("grow\n");
        assert_eq!(client.line(), "growxxxxxxxxxxxxxxxxxxxx\n");
    }
    let server =
        Server::exec(&["--max-encoded-length", "70"], &["sed", "-u", &format!("s/^grow/&{:x>80}/", "")]);
    for mut client in server.clients() {
        client.write("grow\n");
        assert_eq!(
            client.line(),
            "error: reply longer than the limit of 70 bytes (--max-encoded-length)\n"[..]
        );
        client.write("good\n");
        assert_eq!(client.line(), "good\n");
    }
}

#[test]
fn max_bad_lines_sends_pending_output_before_closing() {
    let server = Server::exec(&["--max-length", "3", "--max-bad-lines", "1"], &["cat"]);
    for mut client in server.clients() {
        client.write("a\ntoo long\nb\nlong\nc\n");
        let said = client.rest();
        let (errors, lines): (Vec<_>, Vec<_>) =
            said.split_inclusive(|byte| *byte == b'\n').partition(|line| is_error(line));
        assert_eq!((errors.len(), lines.concat()), (2, b"a\nb\n".to_vec()), "{said:?}");
    }
}

#[test]
fn closed_stdout_ends_the_connection_and_child() {
    let server = Server::exec(&[], &["sh", "-c", "echo $$; exec >&-; sleep 1000"]);
    // The child has 2 s to end by itself; the client must not wait for that.
    assert_faster_than(Duration::from_secs(2), || _ = Client::tcp(&server.tcp).rest());
    let said = Client::tcp(&server.tcp).rest();
    assert_ends(String::from_utf8_lossy(&said).trim_end());
}

#[test]
fn delimiters_are_translated_for_children() {
    for (delimiter, lines, said) in [
        ("crlf", &b"a\r\nb\r\n"[..], "61 0a 62 0a"),
        ("newline", b"a\r\nb\n", "61 0a 62 0a"),
        ("nul", b"a\nb\0", "61 0a 62 00"),
    ] {
        let server = Server::exec(&["--delimiter", delimiter], &["sh", "-c", "od -An -tx1 >&2"]);
        let mut client = Client::tcp(&server.tcp);
        client.write(lines);
        client.finish();
        assert_eq!(client.rest(), "", "{delimiter}");
        server.process.err.until_contains(&format!("line=\" {said}\""));
    }
    let server = Server::exec(&["--delimiter", "crlf"], &["cat"]);
    let mut client = Client::tcp(&server.tcp);
    client.feed_all("a\r\nb\r\n");
    assert_eq!(client.rest(), "a\r\nb\r\n");
}

#[test]
fn http_is_refused_before_the_child_sees_it() {
    let server = Server::exec(&[], &["cat"]);
    let mut client = Client::tcp(&server.tcp);
    client.write("POST / HTTP/1.1\r\nHost: x\r\n\r\nlines\n");
    let said = client.rest();
    assert!(is_error(&said) && !said.windows(4).any(|word| word == b"Host"), "{said:?}");
}

#[test]
fn missing_command_is_exit_1_at_start() {
    let ended =
        Process::start(&mut lineframe(["serve", "127.0.0.1:0", "--exec", "--", "no-such-\x1b"])).end();
    ended.assert_failed(1, "", r"cannot run no-such-\x1b");
}

#[test]
fn a_second_signal_ends_all_children_and_theirs() {
    let family = ["sh", "-c", "echo $$; sleep 1000 & echo $!; wait"];
    let server = Server::exec(&[], &family);
    let mut clients: Vec<_> = (0..20).flat_map(|_| server.clients()).collect();
    let ids: Vec<_> = clients.iter_mut().flat_map(|client| client.lines(2)).collect();
    server.process.signal(Signal::TERM);
    server.process.signal(Signal::INT);
    let ended = server.process.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for id in ids {
        assert_ends(String::from_utf8_lossy(&id).trim_end());
    }
}
