use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Client, Ended, Process, lineframe};

/// A running `lineframe serve` on a TCP port and a Unix socket.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) tcp: String,
    directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts the server; `configure` adds arguments or environment variables.
    pub(crate) fn with(configure: impl FnOnce(&mut Command)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut serve = lineframe(["serve", "127.0.0.1:0", "./some.sock"]);
        configure(serve.current_dir(&directory));
        let process = Process::start(&mut serve);
        let mut said = String::new();
        process.out.until("line for each listener", |out| {
            said = String::from_utf8_lossy(out).into_owned();
            out.ends_with(b"sock\n")
        });
        let tcp =
            said.strip_prefix("listening ").and_then(|said| said.strip_suffix("\nlistening ./some.sock\n"));
        let tcp = tcp.unwrap_or_else(|| panic!("{said:?}")).to_owned();
        Self { process, tcp, directory }
    }

    /// Starts the server with `--exec` and this command.
    pub(crate) fn exec(options: &[&str], command: &[&str]) -> Self {
        Self::with(|serve| _ = serve.args(options).args(["--exec", "--"]).args(command))
    }

    /// Sends SIGTERM and waits for the server to end.
    pub(crate) fn stop(self) -> Ended {
        self.process.signal(Signal::TERM);
        self.process.end()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("some.sock")
    }

    /// Connects two clients: one over TCP, one over the Unix socket.
    pub(crate) fn clients(&self) -> [Client; 2] {
        [Client::tcp(&self.tcp), Client::unix(&self.path())]
    }
}
