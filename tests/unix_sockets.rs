//! How a Unix socket begins and ends: who may connect, what is replaced, what is left alone, what is removed.

#![cfg(unix)]

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream as Blocking;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lineframe::{Bind, BoundUnix, Client, Listener, Server, reply};
use tempfile::{TempDir, tempdir};
use tokio::net::UnixStream;
use tokio::sync::{Barrier, oneshot};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

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
async fn of_two_that_start_at_once_one_does() {
    let dir = tempdir().unwrap();
    for round in 0..300 {
        let path = if round % 2 == 0 { stale(&dir) } else { dir.path().join("socket") };
        let barrier = Arc::new(Barrier::new(2));
        let start = || {
            let (path, barrier) = (path.clone(), barrier.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                bind(&path).await
            })
        };
        let (one, other) = tokio::join!(start(), start());
        let mut started = [one.unwrap(), other.unwrap()].into_iter().filter_map(Result::ok);
        let winner = started.next().expect("one of them");
        assert!(started.next().is_none(), "both, in round {round}");
        Blocking::connect(&path).expect("the winner answers");
        assert_eq!(only(&dir), ["socket"]);
        drop(winner);
        assert!(only(&dir).is_empty());
    }
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

/// A directory whose path is so long that one of its files of `name_len` bytes has a path of `len`.
fn deep(dir: &TempDir, len: usize, name_len: usize) -> std::path::PathBuf {
    let mut parent = dir.path().to_owned();
    let missing = (len - name_len - 1).checked_sub(parent.as_os_str().len() + 1).expect("a short path");
    parent.push("d".repeat(missing));
    fs::create_dir_all(&parent).unwrap();
    let path = parent.join("s".repeat(name_len));
    assert_eq!(path.as_os_str().len(), len);
    path
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_path_that_clients_can_use_is_bound() {
    let dir = tempdir().unwrap();
    for len in 90..=107 {
        for name_len in [1, 2, 30] {
            let path = deep(&dir, len, name_len);
            let _listener = bind(&path).await.unwrap_or_else(|error| panic!("{len} {name_len}: {error}"));
            Blocking::connect(&path).unwrap();
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn paths_that_no_client_can_use_are_refused() {
    let dir = tempdir().unwrap();
    for (len, name_len) in [(108, 1), (108, 60), (120, 40), (300, 100)] {
        let path = deep(&dir, len, name_len);
        let error = bind(&path).await.unwrap_err();
        let expected = format!("the path has {len} bytes, but a Unix socket path may have at most 107");
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidInput, expected));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn files_with_foreign_names_are_kept() {
    let dir = tempdir().unwrap();
    let names: Vec<_> = (0..64).map(|n| format!(".{:x}.{n:x}", std::process::id())).collect();
    names.iter().for_each(|name| fs::write(dir.path().join(name), "kept").unwrap());
    for _ in 0..3 {
        drop(bind(&stale(&dir)).await);
        _ = fs::remove_file(dir.path().join("socket"));
        assert_eq!(only(&dir).len(), names.len());
    }
}

/// Whoever may write to the directory could put a link in the place of a file there before its mode
/// is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_can_replace_a_new_socket() {
    let dir = tempdir().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (done, dir) = (done.clone(), dir.path().to_owned());
        move || {
            let mut wrong = None;
            let mut found = 0;
            while found < 20 && wrong.is_none() && !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&dir).unwrap().flatten() {
                    let Ok(metadata) = entry.metadata() else { continue };
                    if entry.file_name() == "socket" {
                        continue;
                    }
                    found += 1;
                    if !metadata.is_dir() || metadata.mode() & 0o077 != 0 {
                        wrong = Some(format!("{:?} of mode {:o}", entry.file_name(), metadata.mode()));
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
            (found, wrong)
        }
    });
    let since = Instant::now();
    while !done.load(Ordering::Relaxed) && since.elapsed() < PATIENCE {
        drop(bind(&dir.path().join("socket")).await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    let (found, wrong) = watcher.join().unwrap();
    assert_eq!(wrong, None);
    assert!(found >= 20, "found {found} times");
}

#[tokio::test]
async fn stale_sockets_of_any_mode_are_replaced() {
    let dir = tempdir().unwrap();
    for mode in [0o000, 0o060, 0o400, 0o600] {
        let path = stale(&dir);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let _listener = bind(&path).await.unwrap_or_else(|error| panic!("{mode:o}: {error}"));
        Blocking::connect(&path).unwrap();
    }
}

#[tokio::test]
async fn live_sockets_keep_their_mode() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let _listener = Bind::new().mode(0o060).unix(&path).await.unwrap();
    assert_eq!(bind(&path).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o060);
}

/// The one that finds another's new socket in the place of the stale one must not move it away.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_replace_one_is_reachable() {
    let dir = tempdir().unwrap();
    for round in 0..300 {
        let path = stale(&dir);
        let barrier = Arc::new(Barrier::new(6));
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let (path, barrier) = (path.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    bind(&path).await
                })
            })
            .collect();
        let mut started = Vec::new();
        for start in starts {
            started.extend(start.await.unwrap());
        }
        assert_eq!(started.len(), 1, "round {round}");
        Blocking::connect(&path).expect("the winner answers");
        assert_eq!(only(&dir), ["socket"]);
    }
}
