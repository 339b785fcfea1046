//! Unix sockets: their files, modes, and what dead servers leave behind.

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
    /// Listens on a Unix socket at `path`, which a client must be able to connect to: on Linux it
    /// has at most 107 bytes.
    ///
    /// The socket is created in a directory of its own beside `path`, with a random name that
    /// begins with a dot. It gets its mode there, and is then linked to `path`. No other program
    /// can reach it before. If two servers start at the same time, one of them fails. An existing
    /// socket is replaced if it belongs to the same user and nobody listens on it: that is what a
    /// killed server leaves behind.
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput` if `path` is too long. Kind `AddrInUse` if something else exists at
    /// `path`. It is left unchanged.
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
        // Before this, the system refuses connections.
        let listener = socket.listen(self.backlog)?;
        let identity = Identity::of(&made)?;
        while let Err(error) = fs::hard_link(&made, path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            match private.replace_stale(path).await {
                // Another server has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                replaced => {
                    replaced?;
                    break;
                }
            }
        }
        Ok(BoundUnix { listener, path: path.into(), identity })
    }

    /// Listens on a name in Linux's abstract namespace. It is not a file, so it has no mode and
    /// needs no removal.
    ///
    /// # Errors
    ///
    /// Those of the system. Kind `AddrInUse` if the name is taken.
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
            invalid(format!("the path has {len} bytes, and that of a Unix socket at most {max}"))
        }
        _ => Err(error),
    }
}

/// A directory that only this process's user can enter, with everything that [`Bind::unix`]
/// creates or moves before it is known to be what it should be. Removed on drop.
struct PrivateDir {
    path: PathBuf,
    /// Where its files are: the same directory, by a name that is short enough for any socket.
    files: PathBuf,
    /// What `files` leads to.
    _dir: File,
}

/// The files in a [`PrivateDir`].
#[derive(Clone, Copy)]
enum Name {
    /// The socket that is to be linked.
    New,
    /// Another name of the socket that was found.
    Found,
    /// What was moved away.
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
            return Err(io::Error::other("another program has replaced the directory of the new socket"));
        }
        // The umask may have taken the right to enter it. A set-group-ID bit that it has from the
        // directory of the socket gives the socket its group.
        dir.set_permissions(Permissions::from_mode(metadata.mode() & 0o2000 | 0o700))?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        // Not on all systems, and not where /proc is not mounted. A long path is refused there.
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

    /// Puts the new socket in the place of the one at `path`, if a process of the same user has
    /// left that behind. Kind `NotFound` if it no longer exists.
    async fn replace_stale(&self, path: &Path) -> io::Result<()> {
        let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
        let there = fs::symlink_metadata(path)?;
        if !there.file_type().is_socket() {
            return Err(in_use("it exists and is not a socket"));
        }
        if there.uid() != fs::symlink_metadata(self.file(Name::New))?.uid() {
            return Err(in_use("it is another user's socket"));
        }
        // A name of our own for it: from here on it is certain which file is meant.
        self.remove(Name::Found);
        fs::hard_link(path, self.file(Name::Found))?;
        let found = fs::symlink_metadata(self.file(Name::Found))?;
        if Identity::from(&found) != Identity::from(&there) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !self.is_stale(&found).await? {
            return Err(in_use("a server is listening on it"));
        }
        let _lock = Lock::of_directory(path).await;
        // Another server may have replaced it by now, if there is no lock.
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

    /// Connects to the socket that was found, to see whether a server listens.
    async fn is_stale(&self, found: &Metadata) -> io::Result<bool> {
        let path = self.file(Name::Found);
        let mut connected = UnixStream::connect(&path).await;
        if connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            // Its mode keeps its own user out, who may change that.
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

/// Held while a stale socket is replaced, so that nobody moves away the socket of a server that has
/// just replaced it: a name in Linux's abstract namespace, which the system frees whatever becomes
/// of the process. Other systems, and other network namespaces, have no such lock.
struct Lock(
    #[allow(dead_code, reason = "held until it is dropped")] Option<std::os::unix::net::UnixListener>,
);

impl Lock {
    /// Waits for the lock, but not for ever: another user may hold its name.
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

/// Identifies a file whatever its name is.
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

/// A listening Unix socket: [`Bind::unix`]. On drop it removes its file, if that is still the one
/// it created.
#[derive(Debug)]
pub struct BoundUnix {
    listener: UnixListener,
    path: PathBuf,
    identity: Identity,
}

impl BoundUnix {
    /// Returns the path on which it listens.
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
