use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};

use super::Watch;

pub(crate) fn lineframe<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lineframe"));
    // Tests must not write to the history of the user who runs them.
    command.args(arguments).env("LINEFRAME_HISTORY", "none");
    command
}

/// Runs `lineframe` with these arguments and this stdin until it ends.
pub(crate) fn run<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    input: impl AsRef<[u8]> + Send + 'static,
) -> Ended {
    let mut process = Process::start(&mut lineframe(arguments));
    process.feed(input);
    process.end()
}

/// A running command with pipes. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) out: Watch,
    pub(crate) err: Watch,
}

/// Exit code and complete output of a command. The code is `None` after a signal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Bytes,
    pub(crate) err: Bytes,
}

impl Ended {
    /// Exit code 0, with `out` on stdout and nothing on stderr.
    pub(crate) fn success(out: impl AsRef<[u8]>) -> Self {
        Self { code: Some(0), out: Bytes::copy_from_slice(out.as_ref()), err: Bytes::new() }
    }

    /// Asserts this exit code and stdout, and one line on stderr that contains `said` and no
    /// control characters.
    pub(crate) fn assert_failed(&self, code: i32, out: impl AsRef<[u8]>, said: &str) {
        assert_eq!((self.code, &self.out[..]), (Some(code), out.as_ref()), "{self:?}");
        let err = std::str::from_utf8(&self.err).unwrap();
        assert!(err.starts_with("lineframe: ") && err.contains(said), "{self:?}");
        assert_eq!(err.find(char::is_control), Some(err.len() - 1), "{self:?}");
    }
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()), u64::MAX)
    }

    /// Starts `command` with its own stdin, stdout and stderr. Piped stdout is closed after `limit`
    /// bytes.
    pub(crate) fn spawn(command: &mut Command, limit: u64) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            out: child.stdout.take().map_or_else(Watch::nothing, |out| Watch::of(out.take(limit))),
            err: child.stderr.take().map_or_else(Watch::nothing, Watch::of),
            child,
        }
    }

    /// Writes to stdin and leaves it open. Blocks if `bytes` does not fit into the pipe.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdin.as_mut().unwrap().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes `bytes` from another thread and closes stdin. Stops early if the process does not
    /// read on.
    pub(crate) fn feed(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) {
        let mut stdin = self.stdin.take().unwrap();
        thread::spawn(move || _ = stdin.write_all(bytes.as_ref()));
    }

    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the process to end. Stdin, unless taken or fed, stays open until then.
    pub(crate) fn end(mut self) -> Ended {
        // Both streams end with the process, so `wait` returns immediately after them.
        let (out, err) = (self.out.to_end(), self.err.to_end());
        let status = self.child.wait().unwrap();
        Ended { code: status.code(), out, err }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("stdout, {}\nstderr, {}", self.out.so_far(), self.err.so_far());
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
