//! How a Unix socket begins and ends: who may connect, what is replaced, what is left alone, what is removed.

#![cfg(unix)]

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream as Blocking;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lineframe::{Bind, BoundUnix, Client, Listener, Server, reply};
use tempfile::{TempDir, tempdir};
use tokio::net::UnixStream;
use tokio::sync::{Barrier, oneshot};

async fn bind(path: &Path) -> io::Result<BoundUnix> {
    Bind::new().mode(0o600).unix(path).await
}

/// A socket that a server has left behind: its file is there and nobody listens.
fn stale(dir: &TempDir) -> std::path::PathBuf {
    let path = dir.path().join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(Blocking::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    path
}

fn only(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn lines_are_served_and_the_file_goes_with_the_server() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = bind(&path).await.unwrap();
    assert_eq!((listener.path(), only(&dir)), (&*path, vec!["socket".to_owned()]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(Server::new().serve_with_shutdown(
        listener,
        reply(|line| line.to_ascii_uppercase()),
        stopped,
    ));
    let mut conn = Client::new().connect_unix(&path).await.unwrap();
    assert_eq!(conn.request("hello").await.unwrap(), "HELLO");
    drop((conn, stop));
    serving.await.unwrap();
    assert!(only(&dir).is_empty());
}

#[tokio::test]
async fn the_peer_is_known_by_its_credentials() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let mut listener = bind(&path).await.unwrap();
    let (accepted, _client) = tokio::join!(listener.accept(), UnixStream::connect(&path));
    let own = fs::metadata(&path).unwrap();
    match accepted.unwrap().peer {
        lineframe::Peer::Unix { uid, gid, .. } => assert_eq!((uid, gid), (own.uid(), own.gid())),
        peer => panic!("{peer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_connect_before_the_mode_is_set() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (done, dir) = (done.clone(), dir.path().to_owned());
        move || {
            // Whatever name it has at the time: a socket that others may write to must refuse connections.
            let (mut looks, mut sockets) = (0_u32, 0_u32);
            while !done.load(Ordering::Relaxed) || looks < 1000 {
                looks += 1;
                for entry in fs::read_dir(&dir).unwrap().flatten() {
                    let Ok(metadata) = entry.metadata() else { continue };
                    if !metadata.file_type().is_socket() {
                        continue;
                    }
                    sockets += 1;
                    if metadata.mode() & 0o077 != 0 && entry.file_name() == "socket" {
                        return Err(format!("mode {:o} at its own name", metadata.mode()));
                    }
                }
            }
            if sockets == 0 { Err("never seen".to_owned()) } else { Ok(()) }
        }
    });
    for _ in 0..300 {
        let listener = bind(&path).await.unwrap();
        Blocking::connect(&path).unwrap();
        drop(listener);
    }
    let listener = bind(&path).await.unwrap();
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap().unwrap();
    drop(listener);
}

#[tokio::test]
async fn what_is_not_a_stale_socket_is_left_as_it_is() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("there");
    let refused = async || bind(&path).await.unwrap_err().kind();

    fs::write(&path, "text").unwrap();
    assert_eq!(refused().await, ErrorKind::AddrInUse);
    assert_eq!(fs::read(&path).unwrap(), b"text");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    assert_eq!(refused().await, ErrorKind::AddrInUse);
    fs::remove_dir(&path).unwrap();

    // Even one that leads to a stale socket.
    let target = stale(&dir);
    symlink(&target, &path).unwrap();
    assert_eq!(refused().await, ErrorKind::AddrInUse);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && target.exists());
    fs::remove_file(&path).unwrap();
    fs::remove_file(&target).unwrap();

    let live = bind(&path).await.unwrap();
    assert_eq!(refused().await, ErrorKind::AddrInUse);
    Blocking::connect(&path).unwrap();
    drop(live);
    assert!(only(&dir).is_empty());
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced() {
    let dir = tempdir().unwrap();
    let path = stale(&dir);
    let _listener = bind(&path).await.unwrap();
    Blocking::connect(&path).unwrap();
    assert_eq!(only(&dir), ["socket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_that_start_at_once_one_does() {
    let dir = tempdir().unwrap();
    for round in 0..300 {
        let path = if round % 2 == 0 { stale(&dir) } else { dir.path().join("socket") };
        let barrier = Arc::new(Barrier::new(4));
        let starting: Vec<_> = (0..4)
            .map(|_| {
                let (path, barrier) = (path.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    bind(&path).await
                })
            })
            .collect();
        let mut started = Vec::new();
        for starting in starting {
            started.extend(starting.await.unwrap().ok());
        }
        assert_eq!(started.len(), 1, "in round {round}");
        Blocking::connect(&path).expect("the winner answers");
        assert_eq!(only(&dir), ["socket"]);
        drop(started);
        assert!(only(&dir).is_empty());
    }
}

#[tokio::test]
async fn foreign_files_are_left_alone() {
    let dir = tempdir().unwrap();
    // As another server in a container might name its own.
    let foreign: Vec<_> =
        (0..100).flat_map(|n| [format!(".1.{n:x}"), format!(".{:x}.{n:x}", std::process::id())]).collect();
    for name in &foreign {
        fs::write(dir.path().join(name), "foreign").unwrap();
    }
    let path = dir.path().join("socket");
    let listener = bind(&path).await.unwrap();
    assert!(only(&dir).contains(&"socket".to_owned()));
    drop(listener);
    let mut expected = foreign;
    expected.sort();
    assert_eq!(only(&dir), expected);
}

#[tokio::test]
async fn a_path_may_have_any_legal_length() {
    let dir = tempdir().unwrap();
    let name_of = |length: usize| {
        // The directory takes most of it, so no other name in it is much longer.
        let directory = dir.path().join("d".repeat(length - dir.path().as_os_str().len() - 4));
        fs::create_dir(&directory).unwrap();
        directory.join("ss")
    };
    let longest = if cfg!(target_os = "linux") { 107 } else { 103 };
    for length in longest - 30..=longest {
        let path = name_of(length);
        let listener = bind(&path).await.unwrap_or_else(|error| panic!("{length}: {error}"));
        Blocking::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }
    for length in [longest + 1, longest + 13, 200] {
        let refused = bind(&name_of(length)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(refused.to_string().contains(&format!("{length} bytes")), "{refused}");
    }
    let short = dir.path().join("s");
    drop(bind(&short).await.unwrap());
}

#[tokio::test]
async fn a_file_that_is_no_longer_ours_is_not_removed() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let first = bind(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let second = bind(&path).await.unwrap();
    drop(first);
    Blocking::connect(&path).expect("the second one's file is still there");
    drop(second);
    assert!(only(&dir).is_empty());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_name_in_the_abstract_namespace_is_no_file() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let name = format!("lineframe-test-{}", std::process::id());
    let mut listener = Bind::new().unix_abstract(&name).unwrap();
    assert_eq!(Bind::new().unix_abstract(&name).unwrap_err().kind(), ErrorKind::AddrInUse);
    let _client = Blocking::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    Listener::accept(&mut listener).await.unwrap();
}

/// Linux says so where a backlog is full.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_backlog_is_as_asked_for_and_who_has_no_room_in_it_is_still_there() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = Bind::new().backlog(2).unix(&path).await.unwrap();
    let mut waiting = Vec::new();
    while let Ok(client) = UnixStream::connect(&path).await {
        waiting.push(client);
        assert!(waiting.len() <= 3, "Linux takes one more than asked for");
    }
    assert_eq!(waiting.len(), 3);
    let error = Bind::new().unix(&path).await.unwrap_err();
    assert_eq!((error.kind(), path.exists()), (ErrorKind::AddrInUse, true), "{error}");
    drop(listener);
}

#[tokio::test]
async fn a_tcp_port_is_bound_with_its_backlog() {
    let listener = Bind::new().backlog(1).tcp("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(Bind::new().tcp(address).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    Client::new().connect(address).await.unwrap();
}
