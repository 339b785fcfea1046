//! After `kill -9` of a client, a command or a log reader, the server continues without
//! intervention.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Client, Process, Server, lineframe};

#[test]
fn a_killed_client_frees_its_connection_slot() {
    let server = Server::with(|serve| _ = serve.args(["--max-connections", "1"]));
    for _ in 0..3 {
        let mut sending = Process::start(&mut lineframe(["send", &server.tcp, "--timeout", "none"]));
        sending.write("a\n");
        sending.out.until("the reply", |out| out == b"A\n");
        sending.signal(Signal::KILL);
        assert_eq!(sending.end().code, None);
    }
    let mut client = Client::tcp(&server.tcp);
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
    drop(client);
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn a_killed_command_ends_its_connection_only() {
    let server = Server::exec(&[], &["sh", "-c", "echo $$; exec cat"]);
    let [mut other, mut client] = server.clients();
    assert!(!other.line().is_empty());
    let child = String::from_utf8(client.line().to_vec()).unwrap();
    let child = Pid::from_raw(child.trim_end().parse().unwrap()).unwrap();
    kill_process(child, Signal::KILL).unwrap();
    assert_eq!(client.rest(), "");
    other.write("still here\n");
    assert_eq!(other.line(), "still here\n");
    for mut client in server.clients() {
        assert!(!client.line().is_empty());
        client.write("a\n");
        assert_eq!(client.line(), "a\n");
    }
}

#[test]
fn a_killed_log_reader_stops_nothing() {
    // A separate process reads the log, so killing it closes the read end of the pipe.
    let mut reader =
        std::process::Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let log = reader.stdin.take().unwrap();
    let mut serve = lineframe(["serve", "127.0.0.1:0", "-v"]);
    let serving = Process::spawn(serve.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log), u64::MAX);
    drop(serve);
    let mut address = String::new();
    serving.out.until("an address", |out| {
        address = String::from_utf8_lossy(out).into_owned();
        out.ends_with(b"\n")
    });
    let address = address.trim_end().strip_prefix("listening ").unwrap();
    let ask = || {
        let mut client = Client::tcp(address);
        client.write("a\n");
        assert_eq!(client.line(), "A\n");
    };
    ask();
    let mut logged = String::new();
    BufReader::new(reader.stdout.take().unwrap()).read_line(&mut logged).unwrap();
    assert!(!logged.is_empty());
    reader.kill().unwrap();
    reader.wait().unwrap();
    for _ in 0..100 {
        ask();
    }
    serving.signal(Signal::TERM);
    assert_eq!(serving.end().code, Some(0));
}
