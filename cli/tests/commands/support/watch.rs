use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::PATIENCE;

/// The output of a reader, collected by a thread, so that each wait for it has a limit.
pub(crate) struct Watch(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    ended: bool,
}

impl Watch {
    pub(crate) fn of(mut reader: impl Read + Send + 'static) -> Self {
        let shared = Arc::<(Mutex<Seen>, Condvar)>::default();
        let theirs = shared.clone();
        thread::spawn(move || {
            let (seen, changed) = &*theirs;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = match reader.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    // On Linux, the end of a terminal is reported as an error.
                    read => read.unwrap_or(0),
                };
                let mut seen = seen.lock().unwrap();
                seen.bytes.extend_from_slice(&buffer[..count]);
                seen.ended = count == 0;
                changed.notify_all();
                if seen.ended {
                    break;
                }
            }
        });
        Self(shared)
    }

    pub(crate) fn nothing() -> Self {
        Self::of(io::empty())
    }

    /// Waits until the output contains `pattern`. Searches each byte once.
    pub(crate) fn until_contains(&self, pattern: &str) {
        let mut searched = 0;
        self.until(&format!("{pattern:?}"), |bytes| {
            // A pattern may begin in one read and end in the next.
            let from = searched - (pattern.len() - 1).min(searched);
            searched = bytes.len();
            bytes[from..].windows(pattern.len()).any(|window| window == pattern.as_bytes())
        });
    }

    /// Waits until `matches` accepts the output so far. Each read calls it with all of the output,
    /// so it should examine only the length or the end. To search, use `until_contains`.
    pub(crate) fn until(&self, what: &str, mut matches: impl FnMut(&[u8]) -> bool) {
        let mut is_found = false;
        let seen = self.wait_while(|seen| {
            is_found = matches(&seen.bytes);
            !is_found
        });
        // Release the lock: `so_far` below takes it again.
        let ended = seen.ended;
        drop(seen);
        assert!(is_found, "no {what}, ended: {ended}, {}", self.so_far());
    }

    /// Waits for the end and takes all output.
    pub(crate) fn to_end(&self) -> Bytes {
        let mut seen = self.wait_while(|_| true);
        if seen.ended {
            return std::mem::take(&mut seen.bytes).into();
        }
        drop(seen);
        panic!("no end, {}", self.so_far());
    }

    /// Returns whether the output ends within `time`.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let (seen, changed) = &*self.0;
        changed.wait_timeout_while(seen.lock().unwrap(), time, |seen| !seen.ended).unwrap().0.ended
    }

    /// Returns the output so far.
    pub(crate) fn bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.0.lock().unwrap().bytes)
    }

    /// Describes the output so far for a failure message, at most its last 2000 bytes.
    pub(crate) fn so_far(&self) -> String {
        let bytes = &self.0.0.lock().unwrap().bytes;
        let end = &bytes[bytes.len().saturating_sub(2000)..];
        format!("so far {} bytes: {}", bytes.len(), end.escape_ascii())
    }

    fn wait_while(&self, mut is_waiting: impl FnMut(&mut Seen) -> bool) -> MutexGuard<'_, Seen> {
        let (seen, changed) = &*self.0;
        let is_waiting = |seen: &mut Seen| is_waiting(seen) && !seen.ended;
        changed.wait_timeout_while(seen.lock().unwrap(), PATIENCE, is_waiting).unwrap().0
    }
}

/// Returns one byte per read.
struct Bytewise(&'static [u8]);

impl Read for Bytewise {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut into[..1])
    }
}

#[test]
fn patterns_across_reads_are_found() {
    for pattern in ["a", "ab", "bcd", "abcde"] {
        Watch::of(Bytewise(b"abcde")).until_contains(pattern);
    }
}

#[test]
#[should_panic(expected = "no \"abd\", ended: true")]
fn missing_patterns_are_not_found() {
    Watch::of(Bytewise(b"abcde")).until_contains("abd");
}
