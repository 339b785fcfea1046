use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::termios::LocalModes;
use tempfile::TempDir;

use crate::support::{Client, Ended, Scripted, Terminal, lineframe, promptly, run};

fn start(address: &str) -> Terminal {
    Terminal::start(lineframe(["connect", address]))
}

fn contains(bytes: &[u8], wanted: &str) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

#[test]
fn replies_are_printed_when_received() {
    let (say, to_say) = channel::<&str>();
    let server = Scripted::unix(move |client| {
        to_say.iter().for_each(|said| client.write(said));
        client
    });
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.type_keys("\n");
    terminal.until(">\n> _");
    say.send("unasked\n").unwrap();
    terminal.until(">\nunasked\n> _");
    say.send("in pie").unwrap();
    say.send("ces\n\nand more\n").unwrap();
    terminal.until(">\nunasked\nin pieces\n\nand more\n> _");
}

#[test]
fn empty_lines_are_not_sent_by_default() {
    let server = Scripted::tcp(|mut client| {
        let first = client.line();
        client.write("1\n2\n");
        let second = client.line();
        client.write("3\n");
        [first, second, client.rest()]
    });
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.type_keys("\n");
    terminal.until(">\n> _");
    terminal.type_keys("one\n");
    terminal.until(">\n> one\n1\n2\n> _");
    terminal.type_keys("two 世界\n");
    terminal.until(">\n> one\n1\n2\n> two 世界\n3\n> _");
    terminal.type_keys("\n");
    terminal.until(">\n> one\n1\n2\n> two 世界\n3\n>\n> _");
    terminal.type_keys("\x04");
    assert!(terminal.end().success());
    assert_eq!(server.result(), ["one\n", "two 世界\n", ""]);
}

#[test]
fn replies_do_not_disturb_a_started_line() {
    let (say, to_say) = channel::<&str>();
    let server = Scripted::tcp(move |mut client| {
        client.write(to_say.recv().unwrap());
        let line = client.line();
        (client, line)
    });
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.type_keys("\n");
    terminal.until(">\n> _");
    terminal.type_keys("begun");
    terminal.until(">\n> begun_");
    say.send("me\n").unwrap();
    // The reply is printed above the prompt, and the typed text stays in the prompt.
    terminal.until(">\nme\n> begun_");
    terminal.type_keys(" and done\n");
    terminal.until(">\nme\n> begun and done\n> _");
    assert_eq!(server.result().1, "begun and done\n");
}

#[test]
fn control_characters_are_escaped_on_a_terminal() {
    let scalars = (0..0xa0).chain([0x61c, 0x200e, 0x200f]).chain(0x2028..=0x202e).chain(0x2066..=0x2069);
    let scalars = scalars.filter_map(char::from_u32).filter(|scalar| *scalar != '\n');
    let mut replies: Vec<_> = scalars.flat_map(|scalar| format!("a{scalar}z\n").into_bytes()).collect();
    replies.extend((0x80..=0xff).flat_map(|byte| [b'a', byte, b'z', b'\n']));
    replies.extend(b"\x1b]0;x\x07 \xe4\xb8\x96\nat the end\n");
    let server = Scripted::tcp(move |client| {
        client.write(replies);
        client
    });
    let terminal = start(&server.address);
    terminal.shown.until_contains("at the end\r\n");
    terminal.type_keys("\x04");
    let shown = terminal.shown.to_end();
    let shown = std::str::from_utf8(&shown).unwrap();
    assert!(shown.contains("\\x1b]0;x\\x07 世\r\n") && shown.contains("a\\xffz\r\n"), "{shown:?}");
    // Remove the sequences that `connect` itself writes: bracketed paste on and off, the prompt,
    // and line ends.
    let shown = ["\x1b[?2004h", "\x1b[?2004l", "\r\x1b[K", "\r\x1b[2C", "\r\n"]
        .iter()
        .fold(shown.to_owned(), |shown, own| shown.replace(own, ""));
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!shown.contains(steers), "{shown:?}");
}

#[test]
fn replies_are_not_escaped_on_piped_stdout() {
    let replies = b"\x1b]0;x\x07\n\xff\0\n\r\n\n";
    let server = Scripted::tcp(move |client| {
        client.write(replies);
        client
    });
    let terminal = Terminal::with_piped_stdout(lineframe(["connect", &server.address]));
    let piped = terminal.piped.as_ref().unwrap();
    piped.until("replies", |out| out == replies);
    terminal.type_keys("\x04");
    assert!(terminal.end().success());
}

#[test]
fn connect_ends_when_the_server_closes() {
    let (leave, to_leave) = channel();
    let server = Scripted::tcp(move |client| {
        to_leave.recv().unwrap();
        client.write("bye\n");
    });
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.type_keys("half a line");
    terminal.until("> half a line_");
    leave.send(()).unwrap();
    server.result();
    promptly(|| terminal.shown.until_contains("the server closed the connection\r\n"));
    terminal.shown.until_contains("bye\r\n");
    assert!(promptly(|| terminal.end()).success());
}

#[test]
fn cut_last_reply_is_printed_with_exit_6() {
    let server = Scripted::tcp(|client| client.write("whole\nlogin: "));
    let terminal = start(&server.address);
    terminal.shown.until_contains("Klogin: \r\n");
    terminal.shown.until_contains("the server closed the connection after 7 bytes of a line\r\n");
    assert_eq!(terminal.end().code(), Some(6));
}

#[test]
fn lines_typed_before_ctrl_d_are_sent() {
    for _ in 0..20 {
        let server = Scripted::tcp(|mut client| client.rest());
        let terminal = start(&server.address);
        terminal.until("> _");
        terminal.type_keys("a\nb\nc\n\x04");
        assert!(terminal.end().success());
        assert_eq!(server.result(), "a\nb\nc\n");
    }
}

#[test]
fn ctrl_d_works_while_the_server_floods() {
    let server = Scripted::unix(|client| client.feed("flood\n".repeat(2_000_000)).join());
    let terminal = start(&server.address);
    terminal.shown.until_contains("flood\r\n");
    promptly(|| {
        terminal.type_keys("\x04");
        terminal.end()
    });
}

#[test]
fn ctrl_d_and_ctrl_c_end_connect() {
    for key in ["\x04", "\x03"] {
        let server = Scripted::tcp(|mut client| client.rest());
        let terminal = start(&server.address);
        terminal.until("> _");
        promptly(|| {
            terminal.type_keys(key);
            terminal.end()
        });
        assert_eq!(server.result(), "");
    }
}

#[test]
fn replies_are_printed_while_the_server_reads_nothing() {
    let (say, to_say) = channel::<String>();
    let server = Scripted::unix(move |client| {
        to_say.iter().for_each(|said| client.write(said));
        client
    });
    let terminal = start(&server.address);
    terminal.until("> _");
    // Far more than the socket buffers hold.
    terminal.paste(format!("{}\n", "x".repeat(4000)).repeat(1000));
    let mut searched = 0;
    for n in 0..500 {
        let reply = format!("<{n}>");
        say.send(format!("{reply}\n")).unwrap();
        terminal.shown.until(&reply, |shown| {
            let is_shown = contains(&shown[searched..], &reply);
            searched = shown.len() - reply.len().min(shown.len());
            is_shown
        });
    }
}

#[test]
fn connect_without_a_terminal_behaves_like_send() {
    let script = |mut client: Client| {
        let lines = client.lines(2).concat();
        client.write(b"\x1b[1m\n\xff\n");
        (client, lines)
    };
    let server = Scripted::tcp(script);
    assert_eq!(run(["connect", &server.address], "a\nlast"), Ended::success(b"\x1b[1m\n\xff\n"));
    assert_eq!(server.result().1, b"a\nlast\n");
}

#[test]
fn the_line_is_edited_with_the_usual_keys() {
    let server = Scripted::tcp(|mut client| client.lines(2).concat());
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.type_keys("wrld\x01hello \x1b[C\x1b[Co");
    terminal.until("> hello wro_ld");
    terminal.type_keys("\x7f\x1b[Do\x1b[C\x1b[C\x1b[3~d\x05!");
    terminal.until("> hello world!_");
    // The prompt scrolls a long line. Enter prints all of it.
    terminal.type_keys("\x15");
    terminal.until("> _");
    terminal.type_keys(&"0123456789".repeat(9));
    terminal.until(&format!("> {}_", &"0123456789".repeat(9)[90 - 77..]));
    terminal.type_keys("\x01\x0b");
    terminal.until("> _");
    terminal.type_keys("\x19\n");
    terminal.until(&format!(
        "> {}\n{}\n> _",
        "0123456789".repeat(8)[..78].to_owned(),
        &"0123456789".repeat(9)[78..]
    ));
    terminal.type_keys("tab\there\n");
    assert_eq!(server.result(), format!("{}\ntab\there\n", "0123456789".repeat(9)).into_bytes());
}

#[test]
fn pasted_text_is_sent_line_by_line() {
    let server = Scripted::tcp(|mut client| client.lines(3).concat());
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.type_keys("\x1b[200~one\rtwo\r\nthr\x1b[201~");
    terminal.until("> one\n> two\n> thr_");
    terminal.type_keys("ee\n");
    assert_eq!(server.result(), b"one\ntwo\nthree\n");
}

#[test]
fn unbracketed_pastes_are_sent_completely() {
    let lines: String = (0..2000).map(|n| format!("line {n} of many in one paste\n")).collect();
    let length = lines.len();
    let server = Scripted::tcp(move |mut client| {
        let mut pasted = Vec::new();
        while pasted.len() < length {
            pasted.extend(client.chunk());
        }
        pasted
    });
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.paste(lines.clone());
    assert!(server.result() == lines.as_bytes());
}

#[test]
fn long_lines_cost_no_more_than_short_ones() {
    let ticks = |line: &str| {
        let typed = line.repeat(200_000 / line.len());
        let length = typed.len();
        let server = Scripted::tcp(move |mut client| {
            let mut sent = Vec::new();
            while sent.len() < length {
                sent.extend(client.chunk());
            }
            sent
        });
        let terminal = Terminal::start(lineframe(["connect", "--max-length", "1M", &server.address]));
        terminal.until("> _");
        terminal.paste(typed.clone());
        assert!(server.result() == typed.as_bytes());
        terminal.cpu_ticks()
    };
    let short = ticks(&("x".repeat(99) + "\n"));
    let long = ticks(&("x".repeat(199_999) + "\n"));
    assert!(long <= 10 * short.max(10), "{long} ticks of CPU time, and {short} for short lines");
}

#[test]
fn long_searches_print_what_fits() {
    let server = Scripted::tcp(|mut client| client.line());
    let terminal = start(&server.address);
    terminal.until("> _");
    // Enter accepts the search result, which is empty.
    terminal.paste(format!("\x12{}\nfound\n", "x".repeat(200_000)));
    assert_eq!(server.result(), "found\n");
    terminal.type_keys("\x04");
    let shown = terminal.shown.to_end().len();
    assert!(shown < 400_000, "{shown} bytes shown");
}

#[test]
fn send_empty_sends_empty_lines() {
    let server = Scripted::tcp(|mut client| client.lines(2).concat());
    let terminal = Terminal::start(lineframe(["connect", "--send-empty", "--crlf", &server.address]));
    terminal.until("> _");
    terminal.type_keys("\na\n");
    assert_eq!(server.result(), b"\r\na\r\n");
}

#[test]
fn unsendable_lines_are_reported_and_skipped() {
    let server = Scripted::tcp(|mut client| client.line());
    let terminal = Terminal::start(lineframe(["connect", "--max-length", "3", &server.address]));
    terminal.until("> _");
    terminal.type_keys("abcd\n");
    terminal
        .until("> abcd\nnot sent: line of 4 bytes exceeds the limit of 3 bytes (max_encoded_length)\n> _");
    terminal.type_keys("abc\n");
    assert_eq!(server.result(), "abc\n");
}

#[test]
fn oversized_replies_are_reported_and_skipped() {
    let server = Scripted::tcp(|client| {
        client.write("a\nabcdef\nb\n");
        client
    });
    let terminal = Terminal::start(lineframe(["connect", "--max-length", "3", &server.address]));
    terminal.shown.until("replies", |shown| {
        let shown = String::from_utf8_lossy(shown).replace("\r\x1b[K", "").replace("> \r\x1b[2C", "");
        shown.contains("a\r\nbad reply: longer than the limit of 3 bytes (--max-length)\r\nb\r\n")
    });
}

#[test]
fn reconnect_connects_again_after_a_close() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("again.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let terminal = Terminal::start(lineframe(["connect", "--reconnect", path.to_str().unwrap()]));
    drop(listener.accept().unwrap());
    let gone = "the server closed the connection; reconnecting";
    terminal.shown.until_contains(gone);
    // Lines entered while disconnected are sent on the next connection.
    terminal.type_keys("a\n");
    let mut client = Client::new(listener.accept().unwrap().0);
    assert_eq!(client.line(), "a\n");
    terminal.shown.until_contains("reconnected");
    client.write("A\n");
    terminal.shown.until_contains("A\r\n");
    terminal.type_keys("\x04");
    assert!(terminal.end().success());
    assert_eq!(client.rest(), "");
}

#[test]
fn ctrl_c_ends_connect_while_it_reconnects() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("gone.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let terminal = Terminal::start(lineframe(["connect", "--reconnect", path.to_str().unwrap()]));
    let client = listener.accept().unwrap();
    drop(listener);
    fs::remove_file(&path).unwrap();
    drop(client);
    terminal.shown.until_contains("reconnecting");
    promptly(|| {
        terminal.type_keys("\x03");
        terminal.end()
    });
}

/// Checks that echo, line editing and signals are on again, and that bracketed paste is off.
#[test]
fn terminal_mode_is_restored_after_every_ending() {
    for end in ["\x04", "\x03", "server", "signal"] {
        let (leave, to_leave) = channel::<()>();
        let server = Scripted::tcp(move |client| {
            _ = to_leave.recv();
            drop(client);
        });
        let mut terminal = start(&server.address);
        terminal.until("> _");
        assert!(!terminal.mode().intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG));
        match end {
            "server" => drop(leave),
            "signal" => terminal.signal(Signal::TERM),
            keys => terminal.type_keys(keys),
        }
        terminal.shown.until_contains("\x1b[?2004l");
        assert!(terminal.wait().success(), "{end}");
        assert!(terminal.mode().contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG), "{end}");
    }
}

/// Requires that at least one of 10 attempts ends within 100 ms, because a busy machine delays
/// some.
#[test]
fn connect_ends_within_100_ms() {
    for end in ["\x04", "\x03", "server"] {
        let mut took = (0..10).map(|_| {
            let (leave, to_leave) = channel::<()>();
            let server = Scripted::tcp(move |client| {
                _ = to_leave.recv();
                drop(client);
            });
            let terminal = start(&server.address);
            terminal.until("> _");
            terminal.type_keys("half");
            terminal.until("> half_");
            if end == "\x04" {
                terminal.type_keys("\x15");
                terminal.until("> _");
            }
            let start = Instant::now();
            if end == "server" {
                drop(leave)
            } else {
                terminal.type_keys(end)
            }
            terminal.end();
            start.elapsed()
        });
        assert!(took.any(|took| took < Duration::from_millis(100)), "{end:?}");
    }
}

#[test]
fn unsent_bytes_are_reported_at_the_end() {
    let server = Scripted::unix(|client| client);
    let terminal = start(&server.address);
    terminal.until("> _");
    terminal.paste(format!("{}\n", "x".repeat(500)).repeat(1000) + "\x04");
    terminal.shown.until_contains(" bytes not sent: the server did not read them in time");
    assert!(terminal.end().success());
}
