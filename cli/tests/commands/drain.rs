use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Ended, NEVER, PATIENCE, Server, assert_faster_than, promptly};

/// Returns the counters: the last line of a JSON log.
fn counters(ended: &Ended) -> Value {
    let last = ended.err.split(|byte| *byte == b'\n').rev().find(|line| line.starts_with(b"{")).unwrap();
    serde_json::from_slice(last).unwrap()
}

/// A running client that pipelines lines.
struct Pipeline {
    /// Lines written so far.
    written: Arc<AtomicUsize>,
    /// Returns the number of replies at the end of the connection.
    session: thread::JoinHandle<usize>,
}

/// Lines that a client keeps in flight. Each line is one TCP segment. The system may hold back more
/// than 10 segments until earlier ones are acknowledged (RFC 6928; RFC 2861 after a pause). The
/// server has not received a line that is held back, so it need not answer it.
const IN_FLIGHT: usize = 10;

/// Keeps lines in flight until the server ends the connection. Sends on `ready` after 1000 replies.
fn pipeline(mut client: Client, ready: Sender<()>) -> Pipeline {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let session = thread::spawn(move || {
        let line = |n: usize| format!("line {n}\n");
        let mut is_open = true;
        for n in 0..IN_FLIGHT {
            client.write(line(n));
            counted.store(n + 1, SeqCst);
        }
        let mut replies = 0;
        loop {
            // `line` panics if the connection is reset.
            let reply = client.line();
            if reply.is_empty() {
                return replies;
            }
            assert_eq!(reply, line(replies).to_ascii_uppercase());
            replies += 1;
            if replies == 1000 {
                ready.send(()).unwrap();
            }
            let next = counted.load(SeqCst);
            is_open = is_open && client.try_write(line(next));
            if is_open {
                counted.store(next + 1, SeqCst);
            }
        }
    });
    Pipeline { written, session }
}

const PATIENT: [&str; 6] = ["--log-format", "json", "--drain-timeout", NEVER, "--linger-timeout", NEVER];

fn a_hundred_pipelining_clients(server: Server) {
    let (ready, to_be_ready) = channel();
    let clients: Vec<_> =
        (0..50).flat_map(|_| server.clients()).map(|client| pipeline(client, ready.clone())).collect();
    for _ in &clients {
        to_be_ready.recv_timeout(PATIENCE).expect("1000 replies for each client");
    }
    let received: Vec<_> = clients.iter().map(|client| client.written.load(SeqCst)).collect();
    // Shutdown must not depend on a timeout: all timeouts are longer than the test.
    let ended = promptly(|| server.stop());
    assert_eq!(ended.code, Some(0), "{:?}", String::from_utf8_lossy(&ended.err));
    let mut answered = 0;
    for (client, received) in clients.into_iter().zip(received) {
        let replies = client.session.join().unwrap();
        assert!(replies >= received, "{replies} replies to {received} lines received before the signal");
        answered += replies;
    }
    let counters = counters(&ended);
    assert_eq!(
        (&counters["lines"], &counters["lines_written"]),
        (&answered.into(), &answered.into()),
        "{counters}"
    );
}

#[test]
fn received_lines_are_answered_without_resets() {
    a_hundred_pipelining_clients(Server::with(|serve| _ = serve.args(PATIENT)));
}

#[test]
fn received_lines_are_answered_by_exec_commands() {
    let upper = ["sed", "-u", "s/.*/\\U&/"];
    a_hundred_pipelining_clients(Server::exec(&PATIENT, &upper));
}

#[test]
fn idle_clients_delay_shutdown_by_linger_timeout_only() {
    // More than the default of 2 s, so that the test notices if the option is ignored.
    let options = ["--linger-timeout", "3s", "--drain-timeout", NEVER];
    let server = Server::with(|serve| _ = serve.args(options));
    let mut clients = server.clients();
    for client in &mut clients {
        client.write("a\n");
        assert_eq!(client.line(), "A\n");
    }
    let start = Instant::now();
    let ended = promptly(|| server.stop());
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for mut client in clients {
        assert_eq!(client.rest(), "");
    }
}

/// Starts a server whose command ignores the end of its stdin, and a client that has read its
/// greeting.
fn stubborn(options: &[&str]) -> (Server, Client) {
    let server = Server::exec(options, &["sh", "-c", "echo ready; exec sleep 1000"]);
    let mut client = Client::tcp(&server.tcp);
    assert_eq!(client.line(), "ready\n");
    (server, client)
}

#[test]
fn closing_connections_at_drain_timeout_is_exit_1() {
    // The default drain timeout is 10 s.
    assert_faster_than(Duration::from_secs(10), || {
        let (server, _client) = stubborn(&["--drain-timeout", "200ms"]);
        let ended = server.stop();
        let err = String::from_utf8_lossy(&ended.err);
        assert_eq!(ended.code, Some(1), "{err}");
        assert!(
            err.contains("closed 1 connection at the drain timeout; raise the limit with --drain-timeout"),
            "{err}"
        );
    });
}

#[test]
fn second_signal_ends_the_drain_with_exit_1() {
    let (server, _client) = stubborn(&["--drain-timeout", NEVER]);
    server.process.signal(Signal::TERM);
    let tcp = server.tcp.clone();
    // The server accepts no connections after the first signal.
    let start = Instant::now();
    while std::net::TcpStream::connect(&tcp).is_ok() {
        assert!(start.elapsed() < PATIENCE, "connections are still accepted");
        thread::sleep(Duration::from_millis(5));
    }
    let ended = promptly(|| {
        server.process.signal(Signal::TERM);
        server.process.end()
    });
    let err = String::from_utf8_lossy(&ended.err);
    assert_eq!(ended.code, Some(1), "{err}");
    assert!(err.contains("a second signal"), "{err}");
}

#[test]
fn final_log_record_has_the_counters() {
    let server = Server::with(|serve| _ = serve.args(["--log-format", "json", "--max-length", "3"]));
    let seen = AtomicBool::new(false);
    for mut client in server.clients() {
        client.feed_all("a\ntoo long\nb\n");
        seen.store(!client.rest().is_empty(), SeqCst);
    }
    let counters = counters(&server.stop());
    for (counter, expected) in
        [("accepted", 2), ("lines", 4), ("bad_lines", 2), ("lines_written", 6), ("bytes_read", 26)]
    {
        assert_eq!(counters[counter], expected, "{counter}: {counters}");
    }
    assert_eq!(counters.get("aborted"), None, "{counters}");
}
