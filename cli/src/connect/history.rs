use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// So many lines are remembered; the file may have twice as many before it is shortened.
const MOST: usize = 1000;

/// The lines typed, the latest last, in memory and, if wanted, in a file that several processes may add to.
#[derive(Default)]
pub(super) struct History {
    lines: Vec<String>,
    file: Option<File>,
}

impl History {
    /// Of earlier sessions as well. The file and its directory are for their owner only.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let remembered = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut lines: Vec<_> = remembered.lines().map(String::from).collect();
        let is_too_long = lines.len() > 2 * MOST;
        lines.drain(..lines.len().saturating_sub(MOST));
        if let Some(directory) = path.parent() {
            create_directory(directory)?;
        }
        if is_too_long {
            let mut shorter = path.to_owned().into_os_string();
            shorter.push(".new");
            let shorter = PathBuf::from(shorter);
            let mut file = open(&shorter)?;
            file.set_len(0)?;
            file.write_all((lines.join("\n") + "\n").as_bytes())?;
            fs::rename(&shorter, path)?;
        }
        Ok(Self { lines, file: Some(open(path)?) })
    }

    /// Remembers `line`, but not what begins with a space, nor the same twice in a row.
    pub(super) fn add(&mut self, line: &str) -> io::Result<()> {
        if line.is_empty() || line.starts_with(' ') || self.lines.last().is_some_and(|last| last == line) {
            return Ok(());
        }
        self.lines.push(line.into());
        // In one write, so that lines of two processes do not mix.
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(format!("{line}\n").as_bytes()))
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// `lineframe/history` where the XDG base directories have what should outlive a restart and is no data.
pub(super) fn default_path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| absolute("LOCALAPPDATA"))?;
    Some(state.join("lineframe/history"))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
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
    fn the_file_does_not_grow_for_ever() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a/b/history.txt");
        let mut history = History::open(&path).unwrap();
        (0..=2 * MOST).for_each(|n| history.add(&n.to_string()).unwrap());
        drop(history);

        let mut history = History::open(&path).unwrap();
        let last: Vec<_> = (MOST + 1..=2 * MOST).map(|n| n.to_string()).collect();
        assert_eq!(history.lines(), last);
        history.add("more").unwrap();
        let kept = fs::read_to_string(&path).unwrap();
        assert_eq!(kept, last.join("\n") + "\nmore\n");
        assert_eq!(fs::read_dir(directory.path().join("a/b")).unwrap().count(), 1);
    }
}
