//! `inspect` with signals, terminals and unread output.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, Process, Server, Terminal, lineframe, promptly};

/// Returns the reader and the writer of a full pipe.
fn full_pipe() -> (OwnedFd, File) {
    let (reader, writer) = pipe().unwrap();
    let size = fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut writer = File::from(writer);
    writer.write_all(&vec![b'.'; size]).unwrap();
    (reader, writer)
}

#[test]
fn signals_end_a_relay_with_unread_stdout() {
    let server = Server::start();
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let (_unread, full) = full_pipe();
        let mut inspect = lineframe(["inspect", "127.0.0.1:0", &server.tcp]);
        inspect.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
        let process = Process::spawn(&mut inspect, u64::MAX);
        process.err.until_contains("\n");
        let err = process.err.bytes();
        let address = std::str::from_utf8(&err).unwrap().trim().trim_start_matches("listening ");
        let mut client = Client::tcp(address);
        client.write("a\n");
        assert_eq!(client.line(), "A\n");
        process.signal(signal);
        let ended = promptly(|| process.end());
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
}

#[test]
fn unread_stderr_does_not_block_a_relay() {
    let server = Server::start();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    let (_unread, full) = full_pipe();
    let mut inspect = lineframe(["inspect", "--output", "/dev/null", "./some.sock", &server.tcp]);
    inspect.current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full);
    let mut process = Process::spawn(&mut inspect, u64::MAX);
    let mut client = (0..).find_map(|_| {
        assert!(process.is_running());
        std::thread::yield_now();
        UnixStream::connect(&path).ok().map(Client::new)
    });
    let client = client.as_mut().unwrap();
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
    process.signal(Signal::TERM);
    assert_eq!(promptly(|| process.end()).code, Some(0));
}

#[test]
fn signals_end_a_command_with_unread_stderr() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::QUIT, 1)] {
        let (_unread, full) = full_pipe();
        // `setsid` detaches the terminal. With a terminal, `inspect` does not forward SIGINT.
        let mut inspect = Command::new("setsid");
        inspect.args([env!("CARGO_BIN_EXE_lineframe"), "inspect", "--", "cat"]);
        inspect.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(full);
        let mut process = Process::spawn(&mut inspect, u64::MAX);
        process.write("a\n");
        process.out.until("a", |out| out == b"a\n");
        process.signal(signal);
        let ended = promptly(|| process.end());
        // On a busy machine the command may need more than 1 s; then the code is 1.
        assert!([Some(code), Some(1)].contains(&ended.code), "{ended:?}");
    }
}

#[test]
fn a_signal_ends_a_command_with_unread_stdout() {
    let (_unread, full) = full_pipe();
    let script = "echo reply; echo written >&2; exec sleep 1000";
    let mut inspect = lineframe(["inspect", "--output", "/dev/null", "--", "sh", "-c", script]);
    inspect.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
    let process = Process::spawn(&mut inspect, u64::MAX);
    process.err.until_contains("written");
    process.signal(Signal::TERM);
    let ended = promptly(|| process.end());
    assert_eq!(ended.code, Some(1), "{ended:?}");
}

#[test]
fn commands_of_inspect_may_use_the_terminal() {
    let script = "read x </dev/tty; echo got $x";
    let inspect = lineframe(["inspect", "--output", "/dev/null", "--", "sh", "-c", script]);
    let terminal = Terminal::with_stdin(inspect, File::open("/dev/null").unwrap());
    terminal.type_keys("hello\r");
    terminal.shown.until_contains("got hello");
    assert!(terminal.end().success());
}

#[test]
fn ctrl_c_reaches_the_command_of_inspect() {
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let inspect = lineframe(["inspect", "--output", "/dev/null", "--", "sh", "-c", script]);
    let terminal = Terminal::with_stdin(inspect, File::open("/dev/null").unwrap());
    terminal.shown.until_contains("ready");
    terminal.type_keys("\x03");
    terminal.shown.until_contains("interrupted");
    assert_eq!(terminal.end().code(), Some(3));
}
