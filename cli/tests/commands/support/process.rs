use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};

use super::Watch;

pub(crate) fn lineframe<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lineframe"));
    // What a test types is not for whoever runs it to remember.
    command.args(arguments).env("LINEFRAME_HISTORY", "none");
    command
}

/// `lineframe` with these arguments and this stdin, to its end.
pub(crate) fn run<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    input: impl AsRef<[u8]> + Send + 'static,
) -> Ended {
    let mut process = Process::start(&mut lineframe(arguments));
    process.feed(input);
    process.end()
}

/// A running command, with pipes to it, which does not outlive its test.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) out: Watch,
    pub(crate) err: Watch,
}

/// How a command has ended, and all that it has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: Bytes,
    pub(crate) err: Bytes,
}

impl Ended {
    /// Well, with this on stdout and nothing on stderr.
    pub(crate) fn well(out: impl AsRef<[u8]>) -> Self {
        Self { code: Some(0), out: Bytes::copy_from_slice(out.as_ref()), err: Bytes::new() }
    }

    /// Ended with `code` and one line on stderr that has `said` in it and nothing that steers a terminal.
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

    /// With stdin, stdout and stderr as `command` has them. Who reads stdout has enough after `limit` bytes and leaves.
    pub(crate) fn spawn(command: &mut Command, limit: u64) -> Self {
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            out: child.stdout.take().map_or_else(Watch::nothing, |out| Watch::of(out.take(limit))),
            err: child.stderr.take().map_or_else(Watch::nothing, Watch::of),
            child,
        }
    }

    /// Writes no more than a pipe holds, and leaves stdin open.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdin.as_mut().unwrap().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes all of it and closes stdin, or as much as the process takes.
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

    /// Whether it has not ended, or was not waited for.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end. What is left of stdin stays open until then.
    pub(crate) fn end(mut self) -> Ended {
        // Both end with the process: to wait for it then takes no time.
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
