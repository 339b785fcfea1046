use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{Scripted, Terminal, lineframe};

#[test]
fn lines_are_remembered_across_runs_and_found_again() {
    let state = TempDir::new().unwrap();
    let run = |keys: &[(&str, &str)]| {
        let server = Scripted::tcp(|mut client| client.rest());
        let mut command = lineframe(["connect", &server.address]);
        command.env_remove("LINEFRAME_HISTORY").env("XDG_STATE_HOME", state.path());
        let terminal = Terminal::start(command);
        terminal.until("> _");
        for (typed, shown) in keys {
            terminal.type_keys(typed);
            terminal.until(shown);
        }
        terminal.type_keys("\x04");
        assert!(terminal.end().success());
        server.result()
    };
    assert_eq!(
        run(&[("get a\nget b\n secret\n", "> get a\n> get b\n>  secret\n> _")]),
        "get a\nget b\n secret\n"
    );

    let directory = state.path().join("lineframe");
    let file = directory.join("history");
    assert_eq!(fs::read_to_string(&file).unwrap(), "get a\nget b\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));

    // Up, up; then a search, once more back, and what it found is edited.
    let sent = run(&[
        ("\x1b[A", "> get b_"),
        ("\x10\n", "> get a\n> _"),
        ("\x12ge", "> get a\nsearch \"ge\": get a_"),
        ("\x12", "> get a\nsearch \"ge\": get b_"),
        ("\x05!\n", "> get a\n> get b!\n> _"),
    ]);
    assert_eq!(sent, "get a\nget b!\n");
}

#[test]
fn nothing_is_remembered_where_that_is_not_wanted() {
    let state = TempDir::new().unwrap();
    let server = Scripted::tcp(|mut client| client.rest());
    let mut command = lineframe(["connect", "--history", "none", &server.address]);
    command.env_remove("LINEFRAME_HISTORY").env("XDG_STATE_HOME", state.path());
    let terminal = Terminal::start(command);
    terminal.until("> _");
    terminal.type_keys("a\n");
    terminal.until("> a\n> _");
    terminal.type_keys("\x1b[A");
    terminal.until("> a\n> a_");
    terminal.type_keys("\x03");
    terminal.end();
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
}

#[test]
fn a_history_that_cannot_be_kept_is_no_reason_not_to_talk() {
    let server = Scripted::tcp(|mut client| client.line());
    let terminal = Terminal::start(lineframe(["connect", "--history", "/dev/null/none", &server.address]));
    terminal.shown.until_contains("Lines are not remembered: /dev/null/none: ");
    terminal.until("> _");
    terminal.type_keys("a\n");
    assert_eq!(server.result(), "a\n");
}
