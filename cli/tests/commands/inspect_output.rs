use std::fs;
use std::process::Stdio;

use rustix::process::Signal;

use super::inspect::start_relay;
use crate::support::{Client, Process, Scripted, Terminal, lineframe, run};

#[test]
fn full_log_does_not_end_the_command() {
    for (command_code, code) in [(0, 1), (9, 9)] {
        let script = format!("while read line; do echo $line; done; exit {command_code}");
        let mut process =
            Process::start(&mut lineframe(["inspect", "--output", "/dev/full", "--", "sh", "-c", &script]));
        process.write("a\n");
        process.out.until("first line", |out| out == b"a\n");
        process.err.until_contains("\n");
        process.write("b\n");
        process.out.until("second line", |out| out == b"a\nb\n");
        drop(process.take_stdin());
        let ended = process.end();
        ended.assert_failed(code, "a\nb\n", "cannot write to /dev/full: ");
    }
}

#[test]
fn full_log_does_not_end_connections() {
    let server = Scripted::tcp(|mut client| {
        for _ in 0..2 {
            let line = client.line();
            client.write(line);
        }
        client.wait_for_end();
    });
    let (process, address) = start_relay(&["--output", "/dev/full"], &server.address);
    let mut client = Client::tcp(&address);
    for line in ["a\n", "b\n"] {
        client.write(line);
        assert_eq!(client.line(), line);
        process.err.until_contains("lineframe: cannot write to /dev/full: ");
    }
    process.signal(Signal::TERM);
    let ended = process.end();
    assert_eq!(ended.code, Some(1));
    assert_eq!(String::from_utf8_lossy(&ended.err).lines().count(), 2, "{ended:?}");
}

#[test]
fn one_byte_is_singular() {
    let ended = run(["inspect", "--max-length", "1"], "ab\n");
    assert!(
        String::from_utf8_lossy(&ended.out).contains("longer than the limit of 1 byte (--max-length)"),
        "{ended:?}"
    );

    let server = Scripted::tcp(|client| client.write("a"));
    let terminal = Terminal::start(lineframe(["connect", "--reconnect", &server.address]));
    terminal.shown.until_contains("the server closed the connection after 1 byte of a line");
}

/// Stdout carries the command's output, so `inspect` must not ignore a failed write to it.
#[test]
fn full_stdout_is_exit_1_around_a_command() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = lineframe(["inspect", "--", "echo", "a"]);
    let process = Process::spawn(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()), 0);
    let ended = process.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.err).contains("cannot write to stdout"), "{ended:?}");
}
