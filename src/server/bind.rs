use std::io;

use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

/// Binds listeners with more say than tokio's `bind`: a backlog, and for Unix sockets a mode and an orderly beginning and
/// end.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::Bind;
///
/// let listener = Bind::new().backlog(64).tcp("127.0.0.1:0").await?;
/// println!("listening {}", listener.local_addr()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Bind {
    backlog: u32,
    #[cfg(unix)]
    mode: Option<u32>,
}

impl Bind {
    /// A backlog of 1024, the mode that the process's umask gives.
    pub fn new() -> Self {
        Self {
            backlog: 1024,
            #[cfg(unix)]
            mode: None,
        }
    }

    /// How many connections may wait to be accepted; the system may have a smaller limit of its own (Linux:
    /// `net.core.somaxconn`). Default: 1024.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Who may connect to a Unix socket: its file's mode, such as `0o600`. Nobody can connect before it is set.
    #[cfg(unix)]
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Listens on the first of the addresses that can be bound; port 0 is any free port.
    ///
    /// # Errors
    ///
    /// That of the last address tried, or of the look-up.
    pub async fn tcp(&self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for addr in lookup_host(addr).await? {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A port whose last connections are still winding down can be bound again. Windows means something else by it.
            #[cfg(not(windows))]
            socket.set_reuseaddr(true)?;
            match socket.bind(addr).and_then(|()| socket.listen(self.backlog)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Default for Bind {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(unix)]
pub use self::unix::BoundUnix;

#[cfg(unix)]
mod unix {
    use std::ffi::OsString;
    use std::fs::{self, Permissions};
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::net::{UnixListener, UnixSocket, UnixStream};

    use super::Bind;
    use crate::server::{Accepted, Listener};

    impl Bind {
        /// Listens on a Unix socket at `path`.
        ///
        /// The socket is made under another name beside it, given its mode, and only then appears at `path`. Of two servers
        /// that start at once, one does. A socket that is there already is replaced where it is the same user's and nobody
        /// answers on it: what a server that was killed leaves behind.
        ///
        /// # Errors
        ///
        /// Kind `AddrInUse` where something is at `path` that is not such a socket. It is left as it is.
        pub async fn unix(&self, path: impl AsRef<Path>) -> io::Result<BoundUnix> {
            let path = path.as_ref();
            let made = Made(beside(path)?);
            let socket = UnixSocket::new_stream()?;
            socket.bind(&made.0)?;
            if let Some(mode) = self.mode {
                fs::set_permissions(&made.0, Permissions::from_mode(mode))?;
            }
            // Until now, connecting was refused.
            let listener = socket.listen(self.backlog)?;
            while let Err(error) = fs::hard_link(&made.0, path) {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(error);
                }
                match clear_stale(path, &made.0).await {
                    // Somebody else has taken it away.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    cleared => cleared?,
                }
            }
            let identity = Identity::of(&made.0)?;
            Ok(BoundUnix { listener, path: path.into(), identity })
        }

        /// Listens on a name in Linux's abstract namespace, which is no file: there is no mode, and nothing to remove.
        ///
        /// # Errors
        ///
        /// Those of the system. Kind `AddrInUse` where the name is taken.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub fn unix_abstract(&self, name: impl AsRef<[u8]>) -> io::Result<UnixListener> {
            #[cfg(target_os = "android")]
            use std::os::android::net::SocketAddrExt;
            #[cfg(target_os = "linux")]
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::{SocketAddr, UnixListener as Blocking};

            let listener = Blocking::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        }
    }

    /// A name in the directory of `path` that nobody else uses.
    fn beside(path: &Path) -> io::Result<PathBuf> {
        static NEXT: AtomicU32 = AtomicU32::new(0);

        if path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"));
        }
        let name = std::format!(".{:x}.{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(path.with_file_name(OsString::from(name)))
    }

    /// Removes the socket at `path`, if it is one that somebody with our user id has left behind. Kind `NotFound` where nothing is
    /// there any more.
    async fn clear_stale(path: &Path, made: &Path) -> io::Result<()> {
        let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
        let there = fs::symlink_metadata(path)?;
        if !there.file_type().is_socket() {
            return Err(in_use("it exists and is not a socket"));
        }
        if there.uid() != fs::symlink_metadata(made)?.uid() {
            return Err(in_use("it is another user's socket"));
        }
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            _ => return Err(in_use("a server is listening on it")),
        }
        // By now another server may have replaced it. What is taken away is looked at once more, and put back if it is not
        // what was found.
        let taken = Made(beside(path)?);
        fs::rename(path, &taken.0)?;
        if Identity::of(&taken.0)? != Identity::from(&there) {
            return fs::hard_link(&taken.0, path);
        }
        Ok(())
    }

    /// A name that is removed when it is no longer needed.
    struct Made(PathBuf);

    impl Drop for Made {
        fn drop(&mut self) {
            _ = fs::remove_file(&self.0);
        }
    }

    /// Which file it is, whatever its name.
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

    /// A listening Unix socket whose file is removed with it, if it is still its own: [`Bind::unix`].
    #[derive(Debug)]
    pub struct BoundUnix {
        listener: UnixListener,
        path: PathBuf,
        identity: Identity,
    }

    impl BoundUnix {
        /// Where it listens.
        pub fn path(&self) -> &Path {
            &self.path
        }
    }

    impl Listener for BoundUnix {
        fn accept(&mut self) -> impl Future<Output = io::Result<Accepted>> + Send {
            Listener::accept(&mut self.listener)
        }
    }

    impl Drop for BoundUnix {
        fn drop(&mut self) {
            if Identity::of(&self.path).is_ok_and(|identity| identity == self.identity) {
                _ = fs::remove_file(&self.path);
            }
        }
    }
}
