//! Listeners on Unix sockets, with the modes of their files and the replacement of stale files.

use std::collections::hash_map::RandomState;
use std::format;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::{Accepted, Bind, Listener};

impl Bind {
    /// Listens on a Unix socket at `path`. A client must be able to connect to the path, so on
    /// Linux it may have at most 107 bytes.
    ///
    /// The socket is created in a private directory next to `path`, with a random name that begins
    /// with a dot. There it gets its mode, and is then linked to `path`. No other program can reach
    /// the socket earlier. If two servers start at the same time, one of them fails.
    ///
    /// If a killed server has left a socket at `path`, the new socket replaces it. The old socket
    /// must belong to the same user, and no server may listen on it.
    ///
    /// # Errors
    ///
    /// - Kind `InvalidInput` if `path` is too long.
    /// - Kind `AddrInUse` if something else exists at `path`. It is left unchanged.
    ///
    /// ```
    /// # async fn run() -> std::io::Result<()> {
    /// let listener = lineframe::Bind::new().mode(0o660).unix("/run/app.sock").await?;
    /// println!("listening on {}", listener.path().display());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn unix(&self, path: impl AsRef<Path>) -> io::Result<BoundUnix> {
        let path = path.as_ref();
        check(path)?;
        let private = PrivateDir::beside(path)?;
        let made = private.file(Name::New);
        let socket = UnixSocket::new_stream()?;
        socket.bind(&made)?;
        if let Some(mode) = self.mode {
            fs::set_permissions(&made, Permissions::from_mode(mode))?;
        }
        // The system refuses connections before this call.
        let listener = socket.listen(self.backlog)?;
        let identity = Identity::of(&made)?;
        while let Err(error) = fs::hard_link(&made, path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            match private.replace_stale(path).await {
                // Another process has removed the old socket: link again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                replaced => {
                    replaced?;
                    break;
                }
            }
        }
        Ok(BoundUnix { listener, path: path.into(), identity })
    }

    /// Listens on a name in Linux's abstract namespace. An abstract name is not a file, so it has
    /// no mode and needs no removal.
    ///
    /// # Errors
    ///
    /// Kind `AddrInUse` if the name is taken. Otherwise the error of the system.
    ///
    /// ```
    /// # async fn run() -> std::io::Result<()> {
    /// let listener = lineframe::Bind::new().unix_abstract("app")?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn unix_abstract(&self, name: impl AsRef<[u8]>) -> io::Result<UnixListener> {
        let listener = std::os::unix::net::UnixListener::bind_addr(&abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(name: impl AsRef<[u8]>) -> io::Result<SocketAddr> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;

    SocketAddr::from_abstract_name(name)
}

/// Checks that `path` has a file name and that a client can connect to it.
fn check(path: &Path) -> io::Result<()> {
    let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if path.file_name().is_none() {
        return invalid("the path has no file name".into());
    }
    let Err(error) = SocketAddr::from_pathname(path) else { return Ok(()) };
    let len = path.as_os_str().len();
    let is_legal = |len: &usize| SocketAddr::from_pathname("x".repeat(*len)).is_ok();
    match (1..len).rev().find(is_legal) {
        Some(max) if !is_legal(&len) => {
            invalid(format!("the path has {len} bytes, but a Unix socket path may have at most {max}"))
        }
        _ => Err(error),
    }
}

/// A directory that only the user of this process can enter. It holds all files that [`Bind::unix`]
/// creates or moves, until their identity is known. Removed on drop.
struct PrivateDir {
    path: PathBuf,
    /// The same directory, under a name that is short enough for any socket.
    files: PathBuf,
    /// The open directory that `files` refers to.
    _dir: File,
}

/// The files in a [`PrivateDir`].
#[derive(Clone, Copy)]
enum Name {
    /// The new socket.
    New,
    /// A second link to the socket that was found at the path.
    Found,
    /// The old socket, after it was moved away.
    Moved,
}

impl Name {
    const ALL: [Self; 3] = [Self::New, Self::Found, Self::Moved];

    fn as_str(self) -> &'static str {
        match self {
            Self::New => "n",
            Self::Found => "f",
            Self::Moved => "m",
        }
    }
}

impl PrivateDir {
    fn beside(path: &Path) -> io::Result<Self> {
        let private = loop {
            let name = format!(".{:x}", RandomState::new().build_hasher().finish());
            let private = path.with_file_name(name);
            match DirBuilder::new().mode(0o700).create(&private) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => {
                    created?;
                    break private;
                }
            }
        };
        match Self::open(&private) {
            Ok((dir, files)) => Ok(Self { path: private, files, _dir: dir }),
            Err(error) => {
                _ = fs::remove_dir(&private);
                Err(error)
            }
        }
    }

    fn open(path: &Path) -> io::Result<(File, PathBuf)> {
        let dir = File::open(path)?;
        let metadata = dir.metadata()?;
        if !metadata.is_dir() || Identity::of(path)? != Identity::from(&metadata) {
            return Err(io::Error::other(
                "another program has replaced the private directory of the new socket",
            ));
        }
        // The umask may have removed the right to enter the directory. A set-group-ID bit,
        // inherited from the parent directory, is kept: it gives the socket its group.
        dir.set_permissions(Permissions::from_mode(metadata.mode() & 0o2000 | 0o700))?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        // /proc does not exist on all systems and may not be mounted. A long path then fails.
        let is_same =
            fs::metadata(&short).is_ok_and(|found| Identity::from(&found) == Identity::from(&metadata));
        Ok((dir, if is_same { short } else { path.into() }))
    }

    fn file(&self, name: Name) -> PathBuf {
        self.files.join(name.as_str())
    }

    fn remove(&self, name: Name) {
        _ = fs::remove_file(self.file(name));
    }

    /// Replaces the socket at `path` with the new one, if a process of the same user has left it
    /// there. Returns kind `NotFound` if the old socket no longer exists.
    async fn replace_stale(&self, path: &Path) -> io::Result<()> {
        let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
        let there = fs::symlink_metadata(path)?;
        if !there.file_type().is_socket() {
            return Err(in_use("a file that is not a socket exists at this path"));
        }
        if there.uid() != fs::symlink_metadata(self.file(Name::New))?.uid() {
            return Err(in_use("the socket at this path belongs to another user"));
        }
        // The private link identifies the file from here on.
        self.remove(Name::Found);
        fs::hard_link(path, self.file(Name::Found))?;
        let found = fs::symlink_metadata(self.file(Name::Found))?;
        if Identity::from(&found) != Identity::from(&there) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !self.is_stale(&found).await? {
            return Err(in_use("another server is listening on this socket"));
        }
        let _lock = Lock::of_directory(path).await;
        // Without a lock, another server may have replaced the socket by now.
        if Identity::of(path)? != Identity::from(&found) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.remove(Name::Moved);
        fs::rename(path, self.file(Name::Moved))?;
        if Identity::of(&self.file(Name::Moved))? != Identity::from(&found) {
            fs::hard_link(self.file(Name::Moved), path)?;
            return Err(in_use("another server has just replaced it"));
        }
        match fs::hard_link(self.file(Name::New), path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(in_use("another server has just replaced it"))
            }
            linked => linked,
        }
    }

    /// Connects to the socket that was found, to check whether a server listens on it.
    async fn is_stale(&self, found: &Metadata) -> io::Result<bool> {
        let path = self.file(Name::Found);
        let mut connected = UnixStream::connect(&path).await;
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            // The mode of the socket excludes its owner, but the owner may change the mode.
            let mode = found.mode() & 0o7777;
            fs::set_permissions(&path, Permissions::from_mode(mode | 0o600))?;
            connected = UnixStream::connect(&path).await;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        Name::ALL.into_iter().for_each(|name| self.remove(name));
        _ = fs::remove_dir(&self.path);
    }
}

/// A lock that is held while a stale socket is replaced. Without it, a server could move away the
/// socket of another server that has just replaced the stale one.
///
/// The lock is a name in Linux's abstract namespace, which the system frees even if the process
/// dies. Other systems have no such lock, and other network namespaces do not share it.
struct Lock(
    #[allow(dead_code, reason = "held until it is dropped")] Option<std::os::unix::net::UnixListener>,
);

impl Lock {
    /// Waits for the lock for at most 1 s, because another user may hold its name.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    async fn of_directory(path: &Path) -> Self {
        use std::time::{Duration, Instant};

        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let Ok(metadata) = fs::metadata(directory) else { return Self(None) };
        let Identity { device, inode } = Identity::from(&metadata);
        let Ok(name) = abstract_name(format!("lineframe.{device:x}.{inode:x}")) else { return Self(None) };
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            match std::os::unix::net::UnixListener::bind_addr(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                    tokio::task::yield_now().await;
                }
                held => return Self(held.ok()),
            }
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    async fn of_directory(_: &Path) -> Self {
        Self(None)
    }
}

/// The identity of a file, independent of its name.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A listening Unix socket, returned by [`Bind::unix`]. Requires the feature `net`.
///
/// On drop, the listener removes its socket file, unless another file has replaced it.
#[derive(Debug)]
pub struct BoundUnix {
    listener: UnixListener,
    path: PathBuf,
    identity: Identity,
}

impl BoundUnix {
    /// Returns the path of the socket.
    ///
    /// ```
    /// # async fn run() -> std::io::Result<()> {
    /// let listener = lineframe::Bind::new().unix("/run/app.sock").await?;
    /// println!("listening on {}", listener.path().display());
    /// # Ok(())
    /// # }
    /// ```
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Listener for BoundUnix {
    fn accept(&mut self) -> impl Future<Output = io::Result<Accepted>> + Send {
        Listener::accept(&mut self.listener)
    }

    fn accept_queued(&mut self) -> Option<io::Result<Accepted>> {
        self.listener.accept_queued()
    }
}

impl Drop for BoundUnix {
    fn drop(&mut self) {
        if Identity::of(&self.path).is_ok_and(|identity| identity == self.identity) {
            _ = fs::remove_file(&self.path);
        }
    }
}
