use std::collections::hash_map::RandomState;
use std::format;
use std::fs::{self, DirBuilder, File, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::sleep;

use super::{Accepted, Bind, Listener};

impl Bind {
    /// Listens on a Unix socket at `path`.
    ///
    /// The socket is created in a new directory beside `path` that nobody else may enter, gets its
    /// mode, and is then linked to `path`. If two servers start at the same time, one of them
    /// fails. An existing socket is replaced if it belongs to the same user and nobody listens on
    /// it: that is what a killed server leaves behind.
    ///
    /// # Errors
    ///
    /// Kind `AddrInUse` if something else exists at `path`, or a socket to which its owner may not
    /// connect: nobody can tell whether a server listens on it. It is left unchanged. Kind
    /// `InvalidInput` if the path is longer than the system allows, 107 bytes on Linux.
    pub async fn unix(&self, path: impl AsRef<Path>) -> io::Result<BoundUnix> {
        let path = path.as_ref();
        if SocketAddr::from_pathname(path).is_err() || path.file_name().is_none() {
            let length = path.as_os_str().len();
            let why =
                format!("a path of {length} bytes cannot name a Unix socket (107 bytes at most on Linux)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let private = PrivateDirectory::beside(path)?;
        let made = private.path(MADE);
        let socket = UnixSocket::new_stream()?;
        socket.bind(private.short_path(MADE))?;
        if let Some(mode) = self.mode {
            fs::set_permissions(&made, Permissions::from_mode(mode))?;
        }
        // Before this, the system refuses connections.
        let listener = socket.listen(self.backlog)?;
        while let Err(error) = fs::hard_link(&made, path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            match private.clear_stale(path).await {
                // Another server has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                cleared => cleared?,
            }
        }
        let identity = Identity::of(&made)?;
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
        let listener = bind_abstract(name.as_ref())?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_abstract(name: &[u8]) -> io::Result<std::os::unix::net::UnixListener> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;

    std::os::unix::net::UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// A directory that only this process's user may enter, beside a path of a socket. Removed on drop,
/// with its files.
struct PrivateDirectory {
    path: PathBuf,
    file: File,
}

/// The files in it: the socket that was made, and one that was taken away.
const MADE: &str = "made";
const STALE: &str = "stale";

impl PrivateDirectory {
    fn beside(path: &Path) -> io::Result<Self> {
        loop {
            // Random, so that no other program has a file of that name.
            let random = RandomState::new().build_hasher().finish();
            let path = path.with_file_name(format!(".lineframe-{random:016x}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => match File::open(&path) {
                    Ok(file) => return Ok(Self { path, file }),
                    Err(error) => {
                        _ = fs::remove_dir(&path);
                        return Err(error);
                    }
                },
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The same file by a path that is short enough for a socket, if the system has such paths.
    fn short_path(&self, name: &str) -> PathBuf {
        let short = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        if short.exists() { short.join(name) } else { self.path(name) }
    }

    /// Removes the socket at `path` if a process of the same user has left it behind. Kind
    /// `NotFound` if it no longer exists.
    async fn clear_stale(&self, path: &Path) -> io::Result<()> {
        let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
        let there = fs::symlink_metadata(path)?;
        if !there.file_type().is_socket() {
            return Err(in_use("it exists and is not a socket"));
        }
        if there.uid() != self.file.metadata()?.uid() {
            return Err(in_use("it is another user's socket"));
        }
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(in_use(
                    "its mode does not let its owner find out whether a server listens on it",
                ));
            }
            _ => return Err(in_use("a server is listening on it")),
        }
        let identity = Identity::from(&there);
        // Of several servers that replace it, one at a time: each takes away only what it has found.
        // The lock ends with its process.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _lock = {
            let Identity { device, inode } = identity;
            match bind_abstract(format!("lineframe-stale-{device}-{inode}").as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    sleep(Duration::from_millis(1)).await;
                    return Ok(());
                }
                bound => bound?,
            }
        };
        if Identity::of(path)? != identity {
            return Ok(());
        }
        let stale = self.path(STALE);
        fs::rename(path, &stale)?;
        // A server that does not see the lock may have replaced it since: put its socket back.
        if Identity::of(&stale)? != identity {
            return fs::hard_link(&stale, path);
        }
        Ok(())
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        for name in [MADE, STALE] {
            _ = fs::remove_file(self.path(name));
        }
        _ = fs::remove_dir(&self.path);
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

impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
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
