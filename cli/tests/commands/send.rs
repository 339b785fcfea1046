use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::thread;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::support::{Client, Ended, Process, Scripted, Server, at_once, lineframe, run};

/// Gives back what comes, as it comes, and reads nothing that it has not given back yet.
fn echo(mut client: Client) {
    loop {
        match client.chunk() {
            end if end.is_empty() => break,
            chunk => client.write(chunk),
        }
    }
}

fn start(address: &str) -> Process {
    Process::start(&mut lineframe(["send", address]))
}

#[test]
fn it_ends_with_the_last_reply_though_the_server_stays() {
    let scripts = [Scripted::tcp(stay), Scripted::unix(stay)];
    for server in scripts {
        let mut send = start(&server.address);
        send.feed("a\nb\nlast");
        assert_eq!(at_once(|| send.end()), Ended::well("1\n2\n3\n"));
        let (mut client, lines) = server.result();
        assert_eq!(lines, "a\nb\nlast\n");
        assert_eq!(client.rest(), "");
    }
}

fn stay(mut client: Client) -> (Client, Bytes) {
    let lines = client.lines(3).concat();
    client.write("1\n2\n3\n");
    (client, lines.into())
}

#[test]
fn it_waits_for_a_reply_that_comes_in_pieces() {
    let server = Scripted::tcp(|mut client| {
        let lines = client.lines(2).concat();
        for piece in ["on", "e", "\n", "tw", "o\n"] {
            client.write(piece);
        }
        (client, lines)
    });
    assert_eq!(run(["send", &server.address], "1\n2\n"), Ended::well("one\ntwo\n"));
    assert_eq!(server.result().1, b"1\n2\n");
}

#[test]
fn replies_are_printed_while_lines_still_come() {
    let server = Server::start();
    let mut send = start(&server.tcp);
    for (line, replies) in [("a\n", "A\n"), ("b\n", "A\nB\n")] {
        send.write(line);
        send.out.until("reply", |out| out == replies.as_bytes());
    }
    drop(send.take_stdin());
    assert_eq!(send.end(), Ended::well("A\nB\n"));
}

#[test]
fn nothing_to_send_is_nothing_to_wait_for() {
    let server = Scripted::tcp(|mut client| client.rest());
    assert_eq!(run(["send", &server.address], ""), Ended::well(""));
    assert_eq!(server.result(), "");
}

#[test]
fn bytes_pass_as_they_are() {
    let all: Vec<u8> = (0..=255).collect();
    let input = [b"\r\n\0\n\xff\xfe\na\r\r\n\n\x1b]0;x\x07\n", &all[..], b"\nlast\r"].concat();
    let expected = [&input[..], b"\n"].concat();
    for server in [Scripted::tcp(echo), Scripted::unix(echo)] {
        assert_eq!(run(["send", &server.address], input.clone()), Ended::well(&expected));
    }
}

#[test]
fn fifty_megabytes_go_both_ways_in_little_memory() {
    let mut input = Vec::with_capacity(50_000_000);
    while input.len() < 50_000_000 {
        // Up to the longest line that is let through.
        let length =
            if input.len() < 25_000_000 { input.len() % 2000 } else { 65_536 - "line 25000000 ".len() };
        writeln!(input, "line {:8} {}", input.len(), "x".repeat(length)).unwrap();
    }
    let input = Bytes::from(input);

    let server = Scripted::tcp(echo);
    let mut send = start(&server.address);
    let (mut stdin, written) = (send.take_stdin(), input.clone());
    let writer = thread::spawn(move || stdin.write_all(&written).map(|()| stdin));
    send.out.until("end of the replies", |out| out.len() == input.len());
    let stdin = writer.join().unwrap();
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{}/status", send.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 32 * 1024, "{kib} KiB");
    }
    drop(stdin);
    let ended = send.end();
    assert!(ended == Ended::well(&input), "{:?}, {} bytes, {:?}", ended.code, ended.out.len(), ended.err);
}

#[test]
fn a_server_that_leaves_early_is_exit_1_and_says_how_many_are_missing() {
    let leave = |mut client: Client| {
        client.lines(5);
        client.write("1\n2\n");
    };
    for server in [Scripted::tcp(leave), Scripted::unix(leave)] {
        run(["send", &server.address], "a\nb\nc\nd\ne\n").assert_failed(1, "1\n2\n", " 2 of 5 ");
    }
}

#[test]
fn a_server_that_breaks_off_is_exit_1_too() {
    // What it has not read makes its close a reset.
    let break_off = |mut client: Client| {
        client.line();
        client.write("1\n");
    };
    for server in [Scripted::tcp(break_off), Scripted::unix(break_off)] {
        let ended = run(["send", &server.address], "a\n".repeat(1_000_000));
        let out = if ended.out.is_empty() { "" } else { "1\n" };
        ended.assert_failed(1, out, " replies");
    }
}

#[test]
fn a_server_that_leaves_first_ends_it_at_once() {
    for (lines, replies, code, said) in [("", "", 0, ""), ("a\n", "1\n", 0, ""), ("a\n", "", 1, " 0 of 1 ")] {
        let server = Scripted::tcp(move |mut client| {
            client.lines(lines.len() / 2);
            client.write(replies);
        });
        let mut send = start(&server.address);
        send.write(lines);
        // The script ends with the connection, and stdin stays open.
        server.result();
        let ended = at_once(|| send.end());
        match code {
            0 => assert_eq!(ended, Ended::well(replies)),
            code => ended.assert_failed(code, replies, said),
        }
    }
}

#[test]
fn a_cut_last_reply_is_exit_6() {
    let cut = |mut client: Client| {
        client.lines(2);
        client.write("one\ntw");
    };
    for server in [Scripted::tcp(cut), Scripted::unix(cut)] {
        run(["send", &server.address], "1\n2\n").assert_failed(6, "one\ntw", "cut after 2 bytes");
    }
}

#[test]
fn what_the_server_has_begun_to_say_beyond_the_last_reply_is_no_failure() {
    let server = Scripted::tcp(|mut client| {
        client.line();
        client.write("one\nmore");
        client
    });
    let mut send = start(&server.address);
    send.write("1\n");
    send.out.until("reply", |out| out.starts_with(b"one\n"));
    drop(send.take_stdin());
    let ended = send.end();
    assert!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
}

#[test]
fn no_server_is_exit_3() {
    // Bound, so that nobody else gets the port, and not listening.
    let bound = TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let directory = TempDir::new().unwrap();
    let stale = directory.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let absent = directory.path().join("absent.sock");
    let address = bound.local_addr().unwrap().to_string();
    for to in [address.as_str(), stale.to_str().unwrap(), absent.to_str().unwrap()] {
        run(["send", to], "a\n").assert_failed(3, "", &format!("cannot connect to {to:?}"));
    }
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let server = Server::start();
    let mut command = lineframe(["send", &server.tcp]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut send = Process::spawn(&mut command, 2);
    send.feed("a\n".repeat(10_000_000));
    assert_eq!(send.end(), Ended::well("A\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_stdout_that_is_full_is_exit_1() {
    let server = Server::start();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = lineframe(["send", &server.tcp]);
    let mut send = Process::spawn(command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()), 0);
    send.feed("a\n");
    send.end().assert_failed(1, "", "cannot write to stdout");
}

#[test]
fn a_stdin_that_cannot_be_read_is_exit_1() {
    let server = Server::start();
    let directory = File::open(server.path().parent().unwrap()).unwrap();
    let mut command = lineframe(["send", &server.tcp]);
    let send =
        Process::spawn(command.stdin(directory).stdout(Stdio::piped()).stderr(Stdio::piped()), u64::MAX);
    send.end().assert_failed(1, "", "cannot read stdin");
}

#[test]
fn a_stderr_that_nobody_reads_does_not_change_the_exit_code() {
    let (stderr, reader) = UnixStream::pair().unwrap();
    drop(reader);
    let mut command = lineframe(["send", "./none/none.sock"]);
    let send = Process::spawn(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(OwnedFd::from(stderr)),
        u64::MAX,
    );
    assert_eq!(send.end().code, Some(3));
}
