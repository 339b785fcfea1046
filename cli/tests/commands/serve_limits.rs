use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::{Client, Server, assert_faster_than, run};

/// The default of `--line-timeout` and `--write-timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

fn serve(options: &[&str]) -> Server {
    Server::with(|serve| _ = serve.args(options))
}

fn assert_answers(client: &mut Client) {
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
}

#[test]
fn max_connections_makes_the_next_client_wait() {
    let server = serve(&["--max-connections", "1"]);
    let mut first = Client::tcp(&server.tcp);
    assert_answers(&mut first);
    let mut second = Client::tcp(&server.tcp);
    second.write("b\n");
    assert_answers(&mut first);
    drop(first);
    assert_eq!(second.line(), "B\n");
}

#[test]
fn max_connections_per_ip_closes_the_next_one() {
    let server = serve(&["--max-connections-per-ip", "1"]);
    let [mut first, mut unix] = server.clients();
    assert_answers(&mut first);
    assert_eq!(Client::tcp(&server.tcp).rest(), "");
    assert_answers(&mut first);
    assert_answers(&mut unix);
}

#[test]
fn connections_close_after_max_bad_lines() {
    let server = serve(&["--max-length", "3", "--max-bad-lines", "1"]);
    for mut client in server.clients() {
        client.write("long\na\nlong\nb\n");
        let replies = client.rest();
        assert_eq!(
            replies.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"error: ")).count(),
            2
        );
        assert!(replies.windows(2).any(|line| line == b"A\n") && !replies.ends_with(b"B\n"), "{replies:?}");
    }
}

#[test]
fn silent_and_slow_clients_are_disconnected() {
    assert_faster_than(DEFAULT_TIMEOUT, || {
        // 2 s, because a busy machine may need a while between connecting and sending.
        let server = serve(&["--idle-timeout", "2s", "--line-timeout", "2s"]);
        let clients = [("", ""), ("a", ""), ("a\nb", "A\n")].map(|(sent, replies)| {
            let client = Client::tcp(&server.tcp);
            client.write(sent);
            (client, replies)
        });
        for (mut client, replies) in clients {
            assert_eq!(client.rest(), replies);
        }
    });
    let server = serve(&["--idle-timeout", "none", "--line-timeout", "off"]);
    for mut client in server.clients() {
        assert_answers(&mut client);
    }
}

#[test]
fn clients_that_never_read_are_disconnected() {
    assert_faster_than(DEFAULT_TIMEOUT, || {
        let server = serve(&["--write-timeout", "100ms", "--max-unsent", "1k"]);
        let unread = Client::tcp(&server.tcp);
        // Far more than the buffers hold, so the writer ends only when the connection is closed.
        // Without `-v`, the log is one line.
        unread.feed("some line\n".repeat(3_000_000)).join().unwrap();
        let ended = server.stop();
        let log = String::from_utf8_lossy(&ended.err);
        assert!(log.contains("write_timeouts=1"), "{log}");
    });
}

/// Returns the number of worker threads of `serve`, which start before it prints its address.
/// Excludes the two other threads: one waits for signals, one writes the log.
#[cfg(target_os = "linux")]
fn workers(options: &[&str]) -> usize {
    use crate::support::{Process, lineframe};

    let serve =
        Process::start(lineframe(["serve", "127.0.0.1:0"]).args(options).env_remove("TOKIO_WORKER_THREADS"));
    serve.out.until("address", |out| out.ends_with(b"\n"));
    std::fs::read_dir(format!("/proc/{}/task", serve.id())).unwrap().count() - 2
}

#[test]
#[cfg(target_os = "linux")]
fn workers_sets_the_number_of_threads() {
    for count in [1, 2, 5] {
        assert_eq!(workers(&["--workers", &count.to_string()]), count);
    }
    assert_eq!(workers(&[]), std::thread::available_parallelism().unwrap().get());
}

#[test]
fn clients_are_answered_by_any_number_of_workers() {
    for count in ["1", "3"] {
        for mut client in serve(&["--workers", count]).clients() {
            assert_answers(&mut client);
        }
    }
}

#[test]
fn mode_sets_unix_socket_permissions() {
    let server = serve(&["--mode", "600", "--backlog", "5"]);
    let mode = std::fs::metadata(server.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn http_refusal_can_be_disabled() {
    for (setting, reply) in [("on", "error: "), ("off", "GET / HTTP/1.1\n")] {
        let server = serve(&["--refuse-http-and-tls", setting]);
        let mut client = Client::tcp(&server.tcp);
        client.write("GET / HTTP/1.1\r\n");
        let said = client.line();
        assert!(said.starts_with(reply.as_bytes()), "{said:?}");
    }
}

#[test]
fn invalid_limits_are_exit_2() {
    for arguments in [
        ["--max-connections", "0"],
        ["--max-connections-per-ip", "x"],
        ["--max-unsent", "none"],
        ["--idle-timeout", "5"],
        ["--linger-timeout", "none"],
        ["--workers", "0"],
        ["--workers", "1025"],
        ["--workers", "99999999999999999999"],
        ["--workers", "two"],
        ["--workers", "none"],
        ["--workers", "-1"],
        ["--workers", ""],
        ["--mode", "1000"],
        ["--mode", "rw"],
        ["--refuse-http-and-tls", "maybe"],
        ["--handler", "lower"],
        ["--log-format", "xml"],
    ] {
        let ended = run([&["serve"][..], &arguments].concat(), "");
        assert!(ended.code == Some(2) && ended.out.is_empty(), "{arguments:?}: {ended:?}");
    }
}
