use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::support::{Client, Scripted, Terminal, lineframe};

/// Starts `connect` with this history file, waits for its first prompt, and returns it with its
/// server.
fn session(history: &Path) -> (Terminal, Scripted<()>) {
    let server = Scripted::tcp(|mut client: Client| client.wait_for_end());
    let mut command = lineframe(["connect", &server.address]);
    command.env("LINEFRAME_HISTORY", history);
    let terminal = Terminal::start(command);
    terminal.until("> _");
    (terminal, server)
}

fn type_line(terminal: &Terminal, line: &str) {
    terminal.type_keys(&format!("{line}\n"));
    terminal.until(&format!("> {line}\n> _"));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn sessions_keep_each_others_history() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("history");
    let earlier: Vec<_> = (0..2001).map(|n| format!("earlier {n}")).collect();
    fs::write(&path, &earlier[0]).unwrap();
    let (first, _server) = session(&path);
    fs::write(&path, earlier.join("\n") + "\n").unwrap();
    // The file exceeds the limit, so the second session truncates it while the first one runs.
    let (second, _server) = session(&path);
    type_line(&first, "from the first");
    type_line(&second, "from the second");
    let stored = fs::read_to_string(&path).unwrap();
    let expected = earlier[1001..].join("\n") + "\nfrom the first\nfrom the second\n";
    assert!(stored == expected, "{}", &stored[stored.len().saturating_sub(200)..]);
}

#[test]
fn existing_history_gets_mode_0600() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("history");
    fs::write(&path, "earlier\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let (terminal, _server) = session(&path);
    assert_eq!(mode(&path), 0o600);
    type_line(&terminal, "later");
    assert_eq!(fs::read_to_string(&path).unwrap(), "earlier\nlater\n");
}

#[test]
fn connect_does_not_wait_for_a_locked_history() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("history");
    let (terminal, _server) = session(&path);
    let locked = File::open(&path).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    terminal.type_keys("a\n");
    terminal.shown.until_contains("not stored in the history: another process has locked the file");
    flock(&locked, FlockOperation::Unlock).unwrap();
    terminal.type_keys("b\n");
    terminal.shown.until_contains("> b\r\n");
    terminal.type_keys("\x04");
    terminal.end();
    assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
}

#[test]
fn lines_are_remembered_and_searchable_across_runs() {
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
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));

    // Recall with Up and Ctrl-P, then search twice with Ctrl-R and edit the line that was found.
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
fn history_none_writes_nothing_to_disk() {
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
fn unusable_history_does_not_prevent_a_session() {
    let server = Scripted::tcp(|mut client| client.line());
    let terminal = Terminal::start(lineframe(["connect", "--history", "/dev/null/none", &server.address]));
    terminal.shown.until_contains("Lines are not stored: cannot use /dev/null/none: ");
    terminal.until("> _");
    terminal.type_keys("a\n");
    assert_eq!(server.result(), "a\n");
}
