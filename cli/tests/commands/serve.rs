use std::sync::{Arc, Barrier};
use std::thread;

use bytes::Bytes;

use crate::support::{Client, Server, run};

fn is_error(reply: &[u8]) -> bool {
    let printable = reply.strip_suffix(b"\n").unwrap_or_default();
    printable.starts_with(b"error: ") && printable.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// Sends `lines` to each listener, half-closes and compares all replies. `None` expects an error
/// line.
#[track_caller]
fn assert_replies(lines: &[u8], expected: &[Option<&[u8]>]) {
    let server = Server::start();
    for mut client in server.clients() {
        client.feed_all(lines);
        let replies: Vec<_> =
            client.rest().split_inclusive(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect();
        let seen: Vec<_> = replies.iter().map(|reply| (!is_error(reply)).then_some(&reply[..])).collect();
        assert_eq!(seen, expected, "{replies:?}");
    }
}

#[test]
fn serve_prints_its_addresses() {
    let server = Server::start();
    let (host, port) = server.tcp.split_once(':').unwrap();
    assert_eq!(host, "127.0.0.1");
    assert_ne!(port.parse::<u16>().unwrap(), 0);
    for mut client in server.clients() {
        client.write("there\n");
        assert_eq!(client.line(), "THERE\n");
    }
}

#[test]
fn pipelined_clients_get_their_own_replies_in_order() {
    const CLIENTS: usize = 64;

    let server = Server::start();
    let connected: Vec<_> = (0..CLIENTS).flat_map(|_| server.clients()).collect();
    let start = Arc::new(Barrier::new(connected.len()));
    let sessions = connected.into_iter().enumerate().map(|(number, client)| {
        let start = start.clone();
        thread::spawn(move || {
            start.wait();
            session(number, client)
        })
    });
    let sessions: Vec<_> = sessions.collect();
    // All clients stay connected until every client has its replies.
    let answered: Vec<_> = sessions.into_iter().filter_map(|session| session.join().ok()).collect();
    assert_eq!(answered.len(), 2 * CLIENTS);
    for mut client in answered {
        client.finish();
        assert_eq!(client.rest(), "");
    }
}

/// Pipelines lines, one of them too long, then reads all replies.
fn session(number: usize, mut client: Client) -> Client {
    let before: String = (0..50).map(|n| format!("before {number} {n}\n")).collect();
    let after: String = (0..50).map(|n| format!("after {number} {n}\n")).collect();
    client.feed([before.as_bytes(), &[b'x'; 70_000], b"\n", after.as_bytes()].concat());
    assert_eq!(client.lines(50).concat(), before.to_ascii_uppercase().as_bytes());
    let reply = client.line();
    assert!(is_error(&reply), "{reply:?}");
    assert_eq!(client.lines(50).concat(), after.to_ascii_uppercase().as_bytes());
    client
}

#[test]
fn only_ascii_letters_are_upper_cased() {
    assert_replies("héllo 世界\n".as_bytes(), &[Some("HéLLO 世界\n".as_bytes())]);
}

#[test]
fn echo_changes_nothing() {
    let mut line: Vec<_> = (0..=255).filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    let server = Server::with(|serve| _ = serve.args(["--handler", "echo"]));
    for mut client in server.clients() {
        client.write(&line);
        assert_eq!(client.line(), line);
    }
}

#[test]
fn unicode_upper_case_rejects_invalid_utf_8() {
    let server = Server::with(|serve| _ = serve.args(["--handler", "upper-unicode"]));
    for mut client in server.clients() {
        client.write("straße ŉ ΐ 世界\n");
        assert_eq!(client.line(), "STRASSE ʼN \u{399}\u{308}\u{301} 世界\n");
        client.write(b"abc\xff\n");
        assert_eq!(client.line(), "error: line of 4 bytes with invalid UTF-8 at byte 3\n");
        client.write("b\n");
        assert_eq!(client.line(), "B\n");
    }
}

/// The upper case of U+0390 is three characters, so 2 bytes grow to 6.
#[test]
fn replies_over_their_limit_become_error_lines() {
    let line = "\u{390}".repeat(32 * 1024) + "\n";
    let server = Server::with(|serve| _ = serve.args(["--handler", "upper-unicode"]));
    for mut client in server.clients() {
        client.feed([line.as_bytes(), b"b\n"].concat());
        let reply = client.line();
        assert!(is_error(&reply) && reply.len() <= 200, "{} bytes", reply.len());
        assert_eq!(client.line(), "B\n");
    }
    let options = ["--handler", "upper-unicode", "--max-encoded-length", "192k"];
    let server = Server::with(|serve| _ = serve.args(options));
    for mut client in server.clients() {
        client.feed(line.as_bytes());
        assert!(client.line() == line.to_uppercase(), "the reply is not the upper-cased line");
    }
}

#[test]
fn lines_may_contain_any_byte() {
    let mut line: Vec<_> = (0..=255).filter(|byte| *byte != b'\n').collect();
    line.push(b'\n');
    assert_replies(&line, &[Some(&line.to_ascii_uppercase())]);
}

#[test]
fn empty_lines_get_empty_replies() {
    assert_replies(b"\n\r\na\n\n", &[Some(b"\n"), Some(b"\n"), Some(b"A\n"), Some(b"\n")]);
}

#[test]
fn unframeable_replies_become_error_lines() {
    let server = Server::start();
    for mut client in server.clients() {
        client.write("a\r\r\n");
        let reply = client.line();
        assert!(is_error(&reply), "{reply:?}");
        client.write("b\n");
        assert_eq!(client.line(), "B\n");
    }
}

#[test]
fn a_cut_last_line_gets_an_error_line() {
    assert_replies(b"whole\ncut", &[Some(b"WHOLE\n"), None]);
}

#[test]
fn lines_over_the_default_limit_get_errors() {
    let line = [&[b'A'; 65_536][..], b"\n"].concat();
    let long = [&[b'A'; 65_537][..], b"\n"].concat();
    assert_replies(
        &[&line[..], &long, &line, &long, &line].concat(),
        &[Some(&line), None, Some(&line), None, Some(&line)],
    );
}

#[test]
fn half_closed_clients_get_every_reply() {
    let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let server = Server::start();
    for mut client in server.clients() {
        client.feed_all(lines.clone());
        assert!(client.rest() == lines.to_ascii_uppercase(), "replies are missing");
    }
}

#[test]
fn complete_lines_are_answered_without_more_input() {
    let server = Server::start();
    for mut client in server.clients() {
        client.feed(["a\n".repeat(10_000).as_bytes(), &[b'x'; 70_000], b"\nb\nno terminator yet"].concat());
        assert!(client.lines(10_000).iter().all(|reply| reply == "A\n"));
        assert!(is_error(&client.line()));
        assert_eq!(client.line(), "B\n");
        client.write("\n");
        assert_eq!(client.line(), "NO TERMINATOR YET\n");
    }
}

#[test]
fn clients_that_never_read_block_nobody_else() {
    let server = Server::start();
    let unread = server.clients();
    for client in &unread {
        client.feed("x\n".repeat(1_000_000));
    }
    for mut client in server.clients() {
        client.write("a\n");
        assert_eq!(client.line(), "A\n");
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let server = Server::start();
    let ended = run(["serve", &server.tcp], "");
    ended.assert_failed(1, "", &format!("cannot listen on {}", server.tcp));
}
