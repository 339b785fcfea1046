//! Creation and removal of Unix sockets: who may connect, which files are replaced, kept and
//! removed.

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

/// Far longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn bind(path: &Path) -> io::Result<BoundUnix> {
    Bind::new().mode(0o600).unix(path).await
}

/// Returns the path of a socket file without a listener, as left behind by a killed server.
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
async fn socket_file_is_removed_with_the_server() {
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
async fn unix_peers_are_identified_by_credentials() {
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
async fn sockets_are_unreachable_until_their_mode_is_set() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (done, dir) = (done.clone(), dir.path().to_owned());
        move || {
            // Under its final name, the socket must never be accessible to others.
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
                        return Err(format!("mode {:o} under its final name", metadata.mode()));
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
async fn other_files_at_the_path_are_kept() {
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

    // A symlink is kept, even if it points to a stale socket.
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
async fn stale_sockets_are_replaced() {
    let dir = tempdir().unwrap();
    let path = stale(&dir);
    let _listener = bind(&path).await.unwrap();
    Blocking::connect(&path).unwrap();
    assert_eq!(only(&dir), ["socket"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_two_servers_starts() {
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
        let winner = started.next().expect("one server starts");
        assert!(started.next().is_none(), "both started in round {round}");
        Blocking::connect(&path).expect("the winner accepts");
        assert_eq!(only(&dir), ["socket"]);
        drop(winner);
        assert!(only(&dir).is_empty());
    }
}

#[tokio::test]
async fn replaced_socket_files_are_not_removed() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("socket");
    let first = bind(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let second = bind(&path).await.unwrap();
    drop(first);
    Blocking::connect(&path).expect("the file of the second server still exists");
    drop(second);
    assert!(only(&dir).is_empty());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn abstract_names_create_no_file() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let name = format!("lineframe-test-{}", std::process::id());
    let mut listener = Bind::new().unix_abstract(&name).unwrap();
    assert_eq!(Bind::new().unix_abstract(&name).unwrap_err().kind(), ErrorKind::AddrInUse);
    let _client = Blocking::connect_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    Listener::accept(&mut listener).await.unwrap();
}

/// Linux reports an error if the accept queue is full; other systems differ.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_backlog_does_not_make_sockets_stale() {
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
async fn tcp_ports_are_bound_with_a_backlog() {
    let listener = Bind::new().backlog(1).tcp("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(Bind::new().tcp(address).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    Client::new().connect(address).await.unwrap();
}

/// Returns a path of `len` bytes whose last component has `name_len` bytes. Creates its directory.
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
async fn every_path_usable_by_clients_is_bound() {
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
async fn paths_too_long_for_clients_are_refused() {
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

/// Otherwise anyone who can write to the directory could replace the socket with a link before its
/// mode is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_cannot_replace_a_new_socket() {
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

/// A server that finds another server's new socket instead of the stale one must not move it away.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_one_of_many_servers_replaces_a_socket() {
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
        Blocking::connect(&path).expect("the winner accepts");
        assert_eq!(only(&dir), ["socket"]);
    }
}
