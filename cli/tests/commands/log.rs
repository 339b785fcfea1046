use crate::support::{Client, Server, Terminal, lineframe};

/// Every scalar that may steer a terminal and every byte that is not UTF-8, a line each.
fn steering_lines() -> Vec<u8> {
    let scalars = (0..0xa0).chain([0x61c, 0x200e, 0x200f]).chain(0x2028..=0x202e).chain(0x2066..=0x2069);
    let scalars = scalars.filter_map(char::from_u32).filter(|scalar| *scalar != '\n');
    let mut lines: Vec<_> = scalars.flat_map(|scalar| format!("a{scalar}z\n").into_bytes()).collect();
    lines.extend((0x80..=0xff).flat_map(|byte| [b'a', byte, b'z', b'\n']));
    lines.extend(b"\x1b]0;x\x07 \xe4\xb8\x96\nat the end\n");
    lines
}

fn assert_steers_nothing(log: &str) {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!log.replace(['\r', '\n'], "").contains(steers), "{log:?}");
}

#[test]
fn what_clients_send_is_shown_and_steers_nothing_in_a_pipe() {
    for format in ["text", "json"] {
        let server = Server::with(|serve| _ = serve.args(["-v", "--log-format", format]));
        for mut client in server.clients() {
            client.feed_all(steering_lines());
            client.rest();
        }
        let log = server.stop().err;
        let log = std::str::from_utf8(&log).unwrap();
        assert_steers_nothing(log);
        let shown =
            if format == "json" { r#""line":"\\x1b]0;x\\x07 世""# } else { r"line=\x1b]0;x\x07 世" };
        for said in [shown, "127.0.0.1:", "unix pid", "at the end", "connection ended", "stopped"] {
            assert!(log.contains(said), "{said}: {log}");
        }
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}

#[test]
fn what_clients_send_is_shown_and_steers_nothing_on_a_terminal() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    let mut serve = lineframe(["serve", "./some.sock", "-v"]);
    serve.current_dir(&directory);
    let terminal = Terminal::start(serve);
    terminal.shown.until("listening", |shown| shown.ends_with(b"some.sock\r\n"));
    let mut client = Client::unix(&path);
    client.feed_all(steering_lines());
    client.rest();
    terminal.shown.until_contains("connection ended");
    terminal.type_keys("\x03");
    let shown = terminal.shown.to_end();
    let shown = std::str::from_utf8(&shown).unwrap();
    assert_steers_nothing(&shown.replace("^C", ""));
    assert!(shown.contains(r"\x1b]0;x\x07 世"), "{shown}");
    assert!(terminal.end().success());
}

#[test]
fn nothing_is_said_of_clients_unless_asked_for() {
    let server = Server::start();
    for mut client in server.clients() {
        client.feed_all("a\n");
        assert_eq!(client.rest(), "A\n");
    }
    let log = server.stop().err;
    let log = String::from_utf8_lossy(&log);
    assert!(log.lines().count() == 1 && log.contains("stopped accepted=2 lines=2"), "{log}");
}
