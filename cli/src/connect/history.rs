use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Maximum number of lines read from the file. A file with more than twice as many is shortened.
const MAX_LINES: usize = 1000;

/// Maximum wait for the lock. Another session holds the lock only while it writes.
#[cfg(unix)]
const LONGEST_LOCK: std::time::Duration = std::time::Duration::from_secs(1);
#[cfg(unix)]
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Typed lines, oldest first, in memory and in an optional file that several sessions may share.
#[derive(Default)]
pub(super) struct History {
    lines: Vec<String>,
    /// Changed only in place and under a lock, because other sessions have the same file open.
    file: Option<File>,
}

impl History {
    /// Opens or creates the file and reads its lines. Only the owner may access the file and a
    /// directory created for it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            create_directory(directory)?;
        }
        let file = open(path)?;
        // /dev/null stores nothing, and reading a FIFO might never end.
        if !file.metadata()?.is_file() {
            return Ok(Self::default());
        }
        #[cfg(unix)]
        restrict(&file)?;
        let lines = locked(&file, |mut file| {
            let mut stored = Vec::new();
            file.read_to_end(&mut stored)?;
            let mut lines: Vec<_> = String::from_utf8_lossy(&stored).lines().map(String::from).collect();
            let is_too_long = lines.len() > 2 * MAX_LINES;
            lines.drain(..lines.len().saturating_sub(MAX_LINES));
            if is_too_long {
                let shorter = lines.join("\n") + "\n";
                // Write before truncating: a full disk or a kill in between loses no recent line.
                file.rewind()?;
                file.write_all(shorter.as_bytes())?;
                file.set_len(shorter.len() as u64)?;
            }
            Ok(lines)
        })?;
        Ok(Self { lines, file: Some(file) })
    }

    /// Adds a line, unless it is empty, begins with a space or repeats the previous line.
    pub(super) fn add(&mut self, line: &str) -> io::Result<()> {
        if line.is_empty() || line.starts_with(' ') || self.lines.last().is_some_and(|last| last == line) {
            return Ok(());
        }
        self.lines.push(line.into());
        self.file.as_ref().map_or(Ok(()), |file| {
            locked(file, |mut file| {
                file.seek(SeekFrom::End(0))?;
                file.write_all(format!("{line}\n").as_bytes())
            })
        })
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Returns the path `lineframe/history` in the XDG state directory.
pub(super) fn default_path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| absolute("LOCALAPPDATA"))?;
    Some(state.join("lineframe/history"))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Restricts an existing file, which may have any mode, to its owner.
#[cfg(unix)]
fn restrict(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    match file.metadata()?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => file.set_permissions(fs::Permissions::from_mode(0o600)),
    }
}

/// Calls `change` under an exclusive lock. If the file system does not support locks, calls
/// `change` without one.
fn locked<T>(file: &File, change: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    #[cfg(unix)]
    {
        use rustix::fs::{FlockOperation, flock};

        let start = std::time::Instant::now();
        while flock(file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            if start.elapsed() > LONGEST_LOCK {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process has locked the file"));
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        let changed = change(file);
        _ = flock(file, FlockOperation::Unlock);
        changed
    }
    #[cfg(not(unix))]
    {
        change(file)
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn long_history_file_is_shortened() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a/b/history.txt");
        let mut history = History::open(&path).unwrap();
        (0..=2 * MAX_LINES).for_each(|n| history.add(&n.to_string()).unwrap());
        drop(history);

        let mut history = History::open(&path).unwrap();
        let last: Vec<_> = (MAX_LINES + 1..=2 * MAX_LINES).map(|n| n.to_string()).collect();
        assert_eq!(history.lines(), last);
        history.add("more").unwrap();
        let kept = fs::read_to_string(&path).unwrap();
        assert_eq!(kept, last.join("\n") + "\nmore\n");
        assert_eq!(fs::read_dir(directory.path().join("a/b")).unwrap().count(), 1);
    }
}
