use std::sync::mpsc::channel;

use crate::support::{Client, Ended, Scripted, Terminal, at_once, lineframe, run};

fn start(address: &str) -> Terminal {
    Terminal::start(lineframe(["connect", address]))
}

fn contains(bytes: &[u8], wanted: &str) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

#[test]
fn replies_are_printed_as_they_come() {
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
fn only_lines_with_something_in_them_are_sent() {
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
fn a_line_that_is_begun_is_sent_whole_though_a_reply_comes_between() {
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
    // What was typed makes room for the reply, and stays.
    terminal.until(">\nme\n> begun_");
    terminal.type_keys(" and done\n");
    terminal.until(">\nme\n> begun and done\n> _");
    assert_eq!(server.result().1, "begun and done\n");
}

#[test]
fn what_steers_a_terminal_is_written_out_on_one() {
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
    terminal.shown.until("last reply", |shown| contains(shown, "at the end\r\n"));
    terminal.type_keys("\x04");
    let shown = terminal.shown.to_end();
    let shown = std::str::from_utf8(&shown).unwrap();
    assert!(shown.contains("\\x1b]0;x\\x07 世\r\n") && shown.contains("a\\xffz\r\n"), "{shown:?}");
    // Its own: how it takes the prompt away and sets it, ends a line, and has what is pasted told from what is typed.
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
fn bytes_pass_as_they_are_where_stdout_is_no_terminal() {
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
fn the_server_s_end_ends_it_at_once() {
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
    at_once(|| {
        terminal.shown.until("end", |shown| contains(shown, "the server has closed the connection\r\n"))
    });
    terminal.shown.until("last reply", |shown| contains(shown, "bye\r\n"));
    assert!(at_once(|| terminal.end()).success());
}

#[test]
fn a_cut_last_reply_is_shown_and_is_exit_6() {
    let server = Scripted::tcp(|client| client.write("whole\nlogin: "));
    let terminal = start(&server.address);
    terminal.shown.until("cut reply", |shown| contains(shown, "Klogin: \r\n"));
    terminal.shown.until("reason", |shown| contains(shown, "cut after 7 bytes\r\n"));
    assert_eq!(terminal.end().code(), Some(6));
}

#[test]
fn what_was_typed_before_ctrl_d_is_sent() {
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
fn a_server_that_never_pauses_does_not_hold_up_ctrl_d() {
    let server = Scripted::unix(|client| client.feed("flood\n".repeat(2_000_000)).join());
    let terminal = start(&server.address);
    terminal.shown.until("flood", |shown| contains(shown, "flood\r\n"));
    at_once(|| {
        terminal.type_keys("\x04");
        terminal.end()
    });
}

#[test]
fn ctrl_d_and_ctrl_c_end_it_at_once() {
    for key in ["\x04", "\x03"] {
        let server = Scripted::tcp(|mut client| client.rest());
        let terminal = start(&server.address);
        terminal.until("> _");
        at_once(|| {
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
    // Far more than a socket holds.
    terminal.paste(format!("{}\n", "x".repeat(4000)).repeat(1000));
    let mut looked_at = 0;
    for n in 0..500 {
        let reply = format!("<{n}>");
        say.send(format!("{reply}\n")).unwrap();
        terminal.shown.until(&reply, |shown| {
            let is_there = contains(&shown[looked_at..], &reply);
            looked_at = shown.len() - reply.len().min(shown.len());
            is_there
        });
    }
}

#[test]
fn where_stdin_is_no_terminal_it_is_send() {
    let script = |mut client: Client| {
        let lines = client.lines(2).concat();
        client.write(b"\x1b[1m\n\xff\n");
        (client, lines)
    };
    let server = Scripted::tcp(script);
    assert_eq!(run(["connect", &server.address], "a\nlast"), Ended::well(b"\x1b[1m\n\xff\n"));
    assert_eq!(server.result().1, b"a\nlast\n");
}
