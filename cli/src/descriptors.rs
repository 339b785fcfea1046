//! The limit for open files (RLIMIT_NOFILE), and a check that threads and descriptors suffice.

use std::fs::File;
use std::io;
use std::sync::mpsc;
use std::thread;

/// Descriptors reserved for listeners, the runtime, and children that are being started.
const RESERVED: u64 = 64;

/// Descriptors needed to start any subcommand.
const TO_START: usize = 12;

#[cfg(unix)]
mod limit {
    use std::sync::OnceLock;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    static AT_START: OnceLock<Rlimit> = OnceLock::new();

    /// Returns the limit that was in effect before `raise`.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    pub(crate) fn at_start() -> Option<Rlimit> {
        AT_START.get().copied()
    }

    /// Raises the soft limit to the hard limit, and returns the limit in effect.
    pub(crate) fn raise() -> Option<u64> {
        let limit = getrlimit(Resource::Nofile);
        let limit = *AT_START.get_or_init(|| limit);
        match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        }
    }
}

#[cfg(not(unix))]
mod limit {
    pub(crate) fn raise() -> Option<u64> {
        None
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use limit::at_start;
pub(crate) use limit::raise;

/// Returns how many connections with `each` descriptors fit into the limit, from 1 to `most`.
pub(crate) fn connections(limit: Option<u64>, each: u64, most: usize) -> usize {
    let allowed = limit.map(|limit| (limit.saturating_sub(RESERVED) / each).max(1));
    allowed.and_then(|allowed| usize::try_from(allowed).ok()).map_or(most, |allowed| allowed.min(most))
}

/// Checks that the system has `threads` more threads and a few more descriptors.
///
/// Without them Tokio panics or hangs.
pub(crate) fn check(threads: usize) -> io::Result<()> {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let started: io::Result<Vec<_>> = (0..threads)
        .map(|_| {
            let held = held.clone();
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || _ = held.lock().map(|held| held.recv()))
        })
        .collect();
    drop(release);
    let context = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    for thread in started.map_err(|error| context(&format!("needs {threads} more threads"), error))? {
        _ = thread.join();
    }
    #[cfg(unix)]
    {
        let opened: io::Result<Vec<_>> = (0..TO_START).map(|_| File::open("/dev/null")).collect();
        opened
            .map_err(|error| context(&format!("needs {TO_START} more open files (see ulimit -n)"), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::connections;

    #[test]
    fn descriptor_limit_bounds_connections() {
        assert_eq!(connections(None, 5, 10_000), 10_000);
        assert_eq!(connections(Some(1024), 1, 10_000), 960);
        assert_eq!(connections(Some(1024), 5, 10_000), 192);
        assert_eq!(connections(Some(1 << 20), 5, 10_000), 10_000);
        assert_eq!(connections(Some(10), 1, 10_000), 1);
    }
}
