use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::support::{Client, Ended, Process, Scripted, Server, Terminal, lineframe, promptly, run};

/// Echoes each read. Reads again only after the echo was written.
fn echo(mut client: Client) {
    loop {
        match client.chunk() {
            end if end.is_empty() => break,
            chunk => client.write(chunk),
        }
    }
}

fn start_send(address: &str) -> Process {
    Process::start(&mut lineframe(["send", address]))
}

#[test]
fn send_ends_after_the_last_reply() {
    let scripts = [Scripted::tcp(stay), Scripted::unix(stay)];
    for server in scripts {
        let mut send = start_send(&server.address);
        send.feed("a\nb\nlast");
        assert_eq!(promptly(|| send.end()), Ended::success("1\n2\n3\n"));
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
fn replies_in_pieces_are_awaited() {
    let server = Scripted::tcp(|mut client| {
        let lines = client.lines(2).concat();
        for piece in ["on", "e", "\n", "tw", "o\n"] {
            client.write(piece);
        }
        (client, lines)
    });
    assert_eq!(run(["send", &server.address], "1\n2\n"), Ended::success("one\ntwo\n"));
    assert_eq!(server.result().1, b"1\n2\n");
}

#[test]
fn replies_are_printed_before_stdin_ends() {
    let server = Server::start();
    let mut send = start_send(&server.tcp);
    for (line, replies) in [("a\n", "A\n"), ("b\n", "A\nB\n")] {
        send.write(line);
        send.out.until("reply", |out| out == replies.as_bytes());
    }
    drop(send.take_stdin());
    assert_eq!(send.end(), Ended::success("A\nB\n"));
}

#[test]
fn empty_stdin_ends_send_successfully() {
    let server = Scripted::tcp(|mut client| client.rest());
    assert_eq!(run(["send", &server.address], ""), Ended::success(""));
    assert_eq!(server.result(), "");
}

#[test]
fn bytes_pass_unchanged() {
    let all: Vec<u8> = (0..=255).collect();
    let input = [b"\r\n\0\n\xff\xfe\na\r\r\n\n\x1b]0;x\x07\n", &all[..], b"\nlast\r"].concat();
    let expected = [&input[..], b"\n"].concat();
    for server in [Scripted::tcp(echo), Scripted::unix(echo)] {
        assert_eq!(run(["send", &server.address], input.clone()), Ended::success(&expected));
    }
}

#[test]
fn fifty_megabytes_return_exactly_in_bounded_memory() {
    pass_through(50_000_000);
}

#[test]
#[ignore = "transfers 1 GiB"]
fn a_gibibyte_returns_exactly_in_bounded_memory() {
    pass_through(1 << 30);
}

/// Sends `length` bytes in lines up to the length limit to [`echo`], and prints the result.
fn pass_through(length: usize) {
    let mut input = Vec::with_capacity(length + 100_000);
    while input.len() < length {
        let text =
            if input.len() < length / 2 { input.len() % 2000 } else { 65_536 - "line 1000000000 ".len() };
        writeln!(input, "line {:10} {}", input.len(), "x".repeat(text)).unwrap();
    }
    let input = Bytes::from(input);

    let start = Instant::now();
    let server = Scripted::tcp(echo);
    let mut send = start_send(&server.address);
    let (mut stdin, written) = (send.take_stdin(), input.clone());
    let writer = thread::spawn(move || stdin.write_all(&written).map(|()| stdin));
    send.out.until("end of the replies", |out| out.len() == input.len());
    let stdin = writer.join().unwrap();
    let took = start.elapsed().as_secs_f64();
    #[cfg(target_os = "linux")]
    {
        let status = fs::read_to_string(format!("/proc/{}/status", send.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        let lines = input.iter().filter(|byte| **byte == b'\n').count();
        println!(
            "{} bytes in {lines} lines passed through send and back; peak memory of send {kib} KiB; {took:.1} s",
            input.len()
        );
        assert!(kib < 32 * 1024, "{kib} KiB");
    }
    drop(stdin);
    let ended = send.end();
    assert!(ended == Ended::success(&input), "{:?}, {} bytes, {:?}", ended.code, ended.out.len(), ended.err);
}

#[test]
fn missing_replies_are_counted_with_exit_1() {
    let leave = |mut client: Client| {
        client.lines(5);
        client.write("1\n2\n");
    };
    for server in [Scripted::tcp(leave), Scripted::unix(leave)] {
        run(["send", &server.address], "a\nb\nc\nd\ne\n").assert_failed(1, "1\n2\n", " 2 of 5 ");
    }
}

#[test]
fn reset_with_unread_lines_is_exit_1() {
    // Closing a socket with unread bytes resets the connection.
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
fn server_close_ends_send_with_open_stdin() {
    for (lines, replies, code, said) in [("", "", 0, ""), ("a\n", "1\n", 0, ""), ("a\n", "", 1, " 0 of 1 ")] {
        let server = Scripted::tcp(move |mut client| {
            client.lines(lines.len() / 2);
            client.write(replies);
        });
        let mut send = start_send(&server.address);
        send.write(lines);
        // The script has closed the connection. Stdin of `send` is still open.
        server.result();
        let ended = promptly(|| send.end());
        match code {
            0 => assert_eq!(ended, Ended::success(replies)),
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
        run(["send", &server.address], "1\n2\n").assert_failed(
            6,
            "one\ntw",
            "the server closed the connection after 2 bytes of a line",
        );
    }
}

#[test]
fn partial_extra_reply_is_not_an_error() {
    let server = Scripted::tcp(|mut client| {
        client.line();
        client.write("one\nmore");
        client
    });
    let mut send = start_send(&server.address);
    send.write("1\n");
    send.out.until("reply", |out| out.starts_with(b"one\n"));
    drop(send.take_stdin());
    let ended = send.end();
    assert!(ended.code == Some(0) && ended.err.is_empty(), "{ended:?}");
}

#[test]
fn no_server_is_exit_3() {
    // The socket is bound, so that no other process gets the port, but does not listen.
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
fn send_ends_quietly_when_stdout_closes() {
    let server = Server::start();
    let mut command = lineframe(["send", &server.tcp]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut send = Process::spawn(&mut command, 2);
    send.feed("a\n".repeat(10_000_000));
    assert_eq!(send.end(), Ended::success("A\n"));
}

#[cfg(target_os = "linux")]
#[test]
fn full_stdout_is_exit_1() {
    let server = Server::start();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = lineframe(["send", &server.tcp]);
    let mut send = Process::spawn(command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()), 0);
    send.feed("a\n");
    send.end().assert_failed(1, "", "cannot write to stdout");
}

#[test]
fn unreadable_stdin_is_exit_1() {
    let server = Server::start();
    let directory = File::open(server.path().parent().unwrap()).unwrap();
    let mut command = lineframe(["send", &server.tcp]);
    let send =
        Process::spawn(command.stdin(directory).stdout(Stdio::piped()).stderr(Stdio::piped()), u64::MAX);
    send.end().assert_failed(1, "", "cannot read stdin");
}

#[test]
fn unread_stderr_does_not_change_the_exit_code() {
    let (stderr, reader) = UnixStream::pair().unwrap();
    drop(reader);
    let mut command = lineframe(["send", "./none/none.sock"]);
    let send = Process::spawn(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(OwnedFd::from(stderr)),
        u64::MAX,
    );
    assert_eq!(send.end().code, Some(3));
}

#[test]
fn end_half_close_waits_for_the_server() {
    // The server answers only after the end of the input, with more replies than lines.
    let script = |mut client: Client| {
        let lines = client.rest();
        client.write("1\n2\n3\n");
        lines
    };
    let server = Scripted::tcp(script);
    assert_eq!(run(["send", "--end", "half-close", &server.address], "a\nb"), Ended::success("1\n2\n3\n"));
    assert_eq!(server.result(), "a\nb\n");
}

#[test]
fn replies_option_sets_the_awaited_count() {
    // The server sends a greeting, and one reply to two lines.
    let server = Scripted::tcp(|mut client| {
        client.write("hello\n");
        client.lines(2);
        client.write("ok\nmore\n");
        client
    });
    let mut send = Process::start(&mut lineframe(["send", "--replies", "2", &server.address]));
    send.feed("a\nb\n");
    assert_eq!(promptly(|| send.end()), Ended::success("hello\nok\n"));

    let server = Scripted::tcp(|mut client| {
        client.rest();
        client.write("1\n2\n");
    });
    let ended = run(["send", "--end", "half-close", "--replies", "3", &server.address], "a\n");
    ended.assert_failed(1, "1\n2\n", " 2 of 3 ");
}

#[test]
fn end_close_waits_for_no_reply() {
    let server = Scripted::tcp(|mut client| {
        let lines = client.rest();
        (client, lines)
    });
    let mut send = Process::start(&mut lineframe(["send", "--end", "close", &server.address]));
    send.feed("a\nb");
    assert_eq!(promptly(|| send.end()), Ended::success(""));
    assert_eq!(server.result().1, "a\nb\n");
}

#[test]
fn options_that_conflict_with_close_are_exit_2() {
    for more in [["--replies", "1"], ["--expect", "a"]] {
        let mut arguments = vec!["send", "--end", "close", "127.0.0.1:1"];
        arguments.extend(more);
        run(arguments, "").assert_failed(2, "", "--end close");
    }
}

#[test]
fn silent_server_is_exit_4_after_timeout() {
    let silent = |mut client: Client| {
        client.line();
        client.write("1\nand ");
        client
    };
    for server in [Scripted::tcp(silent), Scripted::unix(silent)] {
        // 3 s is long enough for the first reply on a busy machine.
        let ended = run(["send", "--timeout", "3s", &server.address], "a\nb\n");
        // The partial reply is printed, because it may explain the silence.
        ended.assert_failed(
            4,
            "1\nand ",
            "the server neither accepted nor sent a byte for 3s, after 1 of 2 replies",
        );
    }
    // A server that reads nothing.
    for end in ["replies", "half-close", "close"] {
        let server = Scripted::unix(|client| client);
        let ended =
            run(["send", "--end", end, "--timeout", "300ms", &server.address], "a\n".repeat(1_000_000));
        ended.assert_failed(4, "", "the server neither accepted nor sent a byte for 300ms, after 0 ");
    }
    // A server that does not answer, while stdin stays open.
    let server = Scripted::unix(|client| client);
    let mut send = Process::start(&mut lineframe(["send", "--timeout", "300ms", &server.address]));
    send.write("a\n");
    send.end().assert_failed(
        4,
        "",
        "the server neither accepted nor sent a byte for 300ms, after 0 of 1 reply; ",
    );
}

#[test]
fn slow_replies_and_paused_stdin_are_not_timeouts() {
    let server = Scripted::tcp(|mut client| {
        client.line();
        // Each pause is far shorter than the timeout, but their sum is longer.
        for byte in b"1234567890\n" {
            thread::sleep(Duration::from_millis(300));
            client.write([*byte]);
        }
        client.line();
        client.write("2\n");
    });
    let mut send = Process::start(&mut lineframe(["send", "--timeout", "3s", &server.address]));
    send.write("a\n");
    send.out.until("first reply", |out| out == b"1234567890\n");
    // While no reply is outstanding, the timeout does not run.
    thread::sleep(Duration::from_millis(3500));
    send.write("b\n");
    drop(send.take_stdin());
    assert_eq!(send.end(), Ended::success("1234567890\n2\n"));
}

#[test]
fn unexpected_reply_is_exit_7() {
    let script = |mut client: Client| {
        client.lines(3);
        client.write("ok 1\nerr \x1b[2J\nok 3\n");
        client
    };
    let server = Scripted::tcp(script);
    let ended = run(["send", "--expect", "^ok", &server.address], "a\nb\nc\n");
    ended.assert_failed(7, "ok 1\nerr \x1b[2J\n", r"reply 2 does not match ^ok: err \x1b[2J");
    let server = Scripted::tcp(script);
    let ended = run(["send", "--expect", "^(ok|err) ", &server.address], "a\nb\nc\n");
    assert_eq!(ended, Ended::success("ok 1\nerr \x1b[2J\nok 3\n"));
}

#[test]
fn expect_without_any_reply_is_exit_7() {
    let server = Scripted::tcp(|mut client| client.rest());
    let ended = run(["send", "--end", "half-close", "--expect", "", &server.address], "a\n");
    ended.assert_failed(7, "", "no reply; --expect needs one");
}

#[test]
fn a_reply_over_the_limit_is_exit_6() {
    let script = |mut client: Client| {
        client.lines(3);
        client.write("1234\n12345\n1\n");
        client
    };
    let server = Scripted::tcp(script);
    let ended = run(["send", "--max-length", "4", &server.address], "a\nb\nc\n");
    ended.assert_failed(6, "1234\n", "reply 2: longer than the limit of 4 bytes (--max-length)");
}

#[test]
fn oversized_line_is_exit_6_after_earlier_replies() {
    let server = Server::start();
    let ended = run(["send", "--max-length", "4", &server.tcp], "abcd\nabcde\nabc\n");
    ended.assert_failed(6, "ABCD\n", "line 2 of stdin: longer than the limit of 4 bytes (--max-length)");
}

#[test]
fn other_delimiters_are_sent_and_read() {
    for (arguments, input, sent) in [
        (&["--delimiter", "nul"][..], "a\nb\0c", "a\nb\0c\0"),
        (&["--delimiter", "crlf"], "a\r\nb", "a\r\nb\r\n"),
        (&["--delimiter", "sequence:2e0a"], "a\n.b.\nc", "a\n.b.\nc.\n"),
        (&["--crlf"], "a\nb\r\nc", "a\r\nb\r\nc\r\n"),
    ] {
        let server = Scripted::tcp(echo);
        let mut all = vec!["send", &server.address];
        all.extend(arguments);
        assert_eq!(run(all, input), Ended::success(sent), "{arguments:?}");
    }
}

#[test]
fn lone_lf_is_refused_with_crlf_delimiter() {
    let server = Scripted::tcp(echo);
    let ended = run(["send", "--delimiter", "crlf", &server.address], "a\r\nb\nc\r\n");
    ended.assert_failed(6, "a\r\n", "line 2 of stdin: contains a CR or LF");
}

#[test]
fn retry_connects_to_a_late_server() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("late.sock");
    let address = path.to_str().unwrap().to_owned();
    let mut send = Process::start(&mut lineframe(["send", "--retry", "20", &address]));
    send.feed("a\n");
    // Long enough for the first attempt to fail. If it has not failed yet, the test passes anyway.
    thread::sleep(Duration::from_millis(150));
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = Client::new(listener.accept().unwrap().0);
    assert_eq!(client.line(), "a\n");
    client.write("A\n");
    assert_eq!(send.end(), Ended::success("A\n"));
}

#[test]
fn failed_retries_are_counted_in_the_error() {
    let directory = TempDir::new().unwrap();
    let absent = directory.path().join("absent.sock");
    let ended = run(["send", "--retry", "2", absent.to_str().unwrap()], "a\n");
    ended.assert_failed(3, "", "3 times");
}

#[test]
fn replies_are_escaped_on_terminals_or_on_request() {
    let script = |mut client: Client| {
        client.line();
        client.write("\x1b]0;x\x07\u{9b}\u{202e} 世\n");
        client
    };
    let server = Scripted::tcp(script);
    let ended = run(["send", "--escape", "always", &server.address], "a\n");
    assert_eq!(ended, Ended::success("\\x1b]0;x\\x07\\u{9b}\\u{202e} 世\n"));

    let with_stdin = |escape| {
        let server = Scripted::tcp(script);
        let input = TempDir::new().unwrap();
        let path = input.path().join("lines");
        fs::write(&path, "a\n").unwrap();
        let command = lineframe(["send", "--escape", escape, &server.address]);
        let terminal = Terminal::with_stdin(command, File::open(path).unwrap());
        String::from_utf8_lossy(&terminal.shown.to_end()).into_owned()
    };
    assert_eq!(with_stdin("auto"), "\\x1b]0;x\\x07\\u{9b}\\u{202e} 世\r\n");
    assert_eq!(with_stdin("never"), "\x1b]0;x\x07\u{9b}\u{202e} 世\r\n");
}

#[test]
fn long_input_shows_a_progress_bar() {
    let input = TempDir::new().unwrap();
    let path = input.path().join("lines");
    fs::write(&path, "a\n".repeat(500_000)).unwrap();
    let (go_on, to_go_on) = channel::<()>();
    let server = Scripted::unix(move |mut client| {
        client.lines(100_000);
        client.write("A\n".repeat(100_000));
        _ = to_go_on.recv();
    });
    let command = lineframe(["send", &server.address]);
    let terminal = Terminal::with_stdin_and_piped_stdout(command, File::open(path).unwrap());
    terminal.shown.until("bar", |shown| {
        let shown = String::from_utf8_lossy(shown);
        shown.contains("##-") && shown.contains("%, ") && shown.contains(" left, 100,000 of ")
    });
    drop(go_on);
    assert_eq!(terminal.end().code(), Some(1));
}

#[test]
fn connect_timeout_is_exit_3() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("full.sock");
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // This connection fills the accept queue.
    let _waiting = UnixStream::connect(&path).unwrap();
    let ended = run(["send", "--connect-timeout", "200ms", path.to_str().unwrap()], "a\n");
    ended.assert_failed(3, "", "no answer in time (connect_timeout)");
}

/// Sends `said`, then resets the connection.
fn reset(client: Client, said: &str) {
    client.write(said);
    let socket = TcpStream::from(OwnedFd::from(client.into_inner()));
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_reset_is_no_end() {
    for (said, end, code, why) in [
        ("a\nb\nc\n", "half-close", 1, "connection reset"),
        ("", "half-close", 1, "connection reset"),
        ("a\nb\nc\n", "replies", 1, "connection reset"),
        ("a\nb", "half-close", 6, "after 1 byte of a line"),
    ] {
        let server = Scripted::tcp(move |mut client| {
            match end {
                "half-close" => _ = client.rest(),
                _ => _ = client.lines(4),
            }
            reset(client, said);
        });
        let mut send = Process::start(&mut lineframe(["send", "--end", end, &server.address]));
        send.feed("1\n2\n3\n4\n");
        let ended = send.end();
        let err = String::from_utf8_lossy(&ended.err);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(err.contains(why) && err.contains("connection reset"), "{ended:?}");
        assert!(said.as_bytes().starts_with(&ended.out), "{ended:?}");
    }
}

#[test]
fn a_client_without_any_reply_was_refused() {
    let server = Server::with(|serve| _ = serve.args(["--max-connections-per-ip", "1"]));
    let _first = Client::tcp(&server.tcp);
    let ended = run(["send", "--end", "half-close", &server.tcp], "a\n");
    assert!(ended.code == Some(1) && ended.out.is_empty() && !ended.err.is_empty(), "{ended:?}");
    // A server that reads everything and then closes.
    let server = Scripted::tcp(|mut client| client.rest());
    let ended = run(["send", "--end", "half-close", &server.address], "a\nb\n");
    ended.assert_failed(1, "", "no reply to 2 lines: the server closed the connection");
    let server = Scripted::tcp(|mut client| client.rest());
    assert_eq!(run(["send", "--end", "half-close", &server.address], ""), Ended::success(""));
}

#[test]
fn stopping_send_does_not_expire_its_timeout() {
    let (taken, is_taken) = channel::<()>();
    let (go_on, to_go_on) = channel::<()>();
    let server = Scripted::tcp(move |mut client| {
        client.line();
        taken.send(()).unwrap();
        _ = to_go_on.recv();
        client.write("1\n");
        client
    });
    let mut send = Process::start(&mut lineframe(["send", "--timeout", "3s", &server.address]));
    send.write("a\n");
    drop(send.take_stdin());
    is_taken.recv().unwrap();
    send.signal(Signal::STOP);
    go_on.send(()).unwrap();
    // The stopped process sleeps past its own 3 s timeout.
    thread::sleep(Duration::from_millis(3500));
    send.signal(Signal::CONT);
    assert_eq!(send.end(), Ended::success("1\n"));
}

#[test]
fn the_longest_timeouts_are_accepted() {
    let server = Server::start();
    let longest = "292277026596y";
    for option in ["--timeout", "--connect-timeout"] {
        assert_eq!(run(["send", option, longest, &server.tcp], "a\n"), Ended::success("A\n"), "{option}");
    }
    let bench = ["bench", "--count", "1", "--warm-up", "0s", "--connections", "1"];
    for option in ["--timeout", "--duration", "--connect-timeout"] {
        let ended = run([&bench[..], &[option, longest, &server.tcp]].concat(), "");
        assert_eq!(ended.code, Some(0), "{option}: {ended:?}");
    }
}
