use std::fs::{self, FileType};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, Process, Server, lineframe};

fn file_type(path: &Path) -> Option<FileType> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn serve_in(directory: &Path) -> Process {
    Process::start(lineframe(["serve", "./some.sock"]).current_dir(directory))
}

fn assert_refused_in(directory: &Path) {
    serve_in(directory).end().assert_failed(1, "", "cannot listen on ./some.sock");
}

fn assert_answers(path: &Path) {
    let mut client = Client::unix(path);
    client.write("a\n");
    assert_eq!(client.line(), "A\n");
}

#[test]
fn socket_is_removed_when_the_server_stops() {
    for signal in [Signal::TERM, Signal::INT].repeat(10) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("some.sock");
        let server = serve_in(directory.path());
        // The signal is sent as early as possible: as soon as the address is printed.
        server.out.until("listening", |out| out.ends_with(b"sock\n"));
        assert!(file_type(&path).unwrap().is_socket());
        server.signal(signal);
        let ended = server.end();
        assert!(ended.code == Some(0) && ended.out == "listening ./some.sock\n", "{ended:?}");
        assert!(file_type(&path).is_none(), "{signal:?}");
    }
}

#[test]
fn socket_is_removed_if_another_listener_fails() {
    let other = Server::start();
    let directory = TempDir::new().unwrap();
    let ended = Process::start(lineframe(["serve", "./some.sock", &other.tcp]).current_dir(&directory)).end();
    ended.assert_failed(1, "", "cannot listen on 127.0.0.1:");
    assert!(file_type(&directory.path().join("some.sock")).is_none());
}

#[test]
fn stale_socket_of_a_killed_server_is_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    let killed = serve_in(directory.path());
    killed.out.until("listening", |out| out.ends_with(b"sock\n"));
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().code, None);
    assert!(file_type(&path).unwrap().is_socket());

    let server = serve_in(directory.path());
    server.out.until("listening", |out| out.ends_with(b"sock\n"));
    assert_answers(&path);
}

/// With this umask, even the creator of a directory cannot enter it.
#[test]
fn a_umask_may_deny_execution() {
    let directory = TempDir::new().unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 177; exec \"$0\" serve ./some.sock", env!("CARGO_BIN_EXE_lineframe")]);
    let server = Process::start(shell.current_dir(&directory));
    server.out.until("listening", |out| out.ends_with(b"sock\n"));
    let path = directory.path().join("some.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_answers(&path);
}

#[test]
fn a_path_that_clients_cannot_use_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("s".repeat(120));
    let len = path.as_os_str().len();
    let ended = Process::start(lineframe(["serve", path.to_str().unwrap()]).current_dir(&directory)).end();
    ended.assert_failed(1, "", &format!("the path has {len} bytes"));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn socket_of_a_live_server_is_kept() {
    let server = Server::start();
    let path = server.path();
    assert_refused_in(path.parent().unwrap());
    assert_answers(&path);
}

#[test]
fn regular_files_are_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    fs::write(&path, "kept").unwrap();
    assert_refused_in(directory.path());
    assert_eq!(fs::read(&path).unwrap(), b"kept");
}

#[test]
fn directories_are_kept() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("some.sock");
    fs::create_dir(&path).unwrap();
    assert_refused_in(directory.path());
    assert!(file_type(&path).unwrap().is_dir());
}

#[test]
fn symlinks_are_kept_whatever_their_target() {
    let stale = TempDir::new().unwrap();
    let killed = serve_in(stale.path());
    killed.out.until("listening", |out| out.ends_with(b"sock\n"));
    killed.signal(Signal::KILL);
    killed.end();
    let live = Server::start();
    let nowhere = stale.path().join("nowhere");

    for target in [stale.path().join("some.sock"), live.path(), nowhere] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("some.sock");
        let target_type = file_type(&target);
        symlink(&target, &path).unwrap();
        assert_refused_in(directory.path());
        assert_eq!(fs::read_link(&path).unwrap(), target);
        assert_eq!(file_type(&target), target_type);
    }
    assert_answers(&live.path());
}
