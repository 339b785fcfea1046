//! Starts the server and the load as separate processes, each on selected cores.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The reason why a measurement failed.
pub(crate) type Failed = Box<dyn Error>;

/// A running server, killed when dropped.
pub(crate) struct Running {
    process: Child,
    pub(crate) address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Running {
    /// Starts a server that prints `listening ADDRESS` first.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut said = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        let address = said.trim().trim_start_matches("listening ").to_owned();
        Ok(Self { process, address })
    }

    /// Returns the CPU time that its threads have used so far, in ns.
    pub(crate) fn cpu(&self) -> Result<f64, Failed> {
        let mut all = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            all += stat.split(' ').next().unwrap_or_default().parse::<f64>()?;
        }
        Ok(all)
    }

    /// Returns a memory figure from `/proc/PID/status`, such as `VmRSS`, in KiB.
    pub(crate) fn memory(&self, what: &str) -> Result<f64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let figure = line.and_then(|line| line.split_whitespace().next()).ok_or("no such figure")?;
        Ok(figure.parse()?)
    }
}

/// The load that `lineframe bench` puts on a server.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Lines in flight per connection.
    pub(crate) window: usize,
    /// Bytes per line.
    pub(crate) length: usize,
    /// The load polls instead of sleeping. Otherwise the server would spend CPU time to wake it.
    /// Only useful if the load has its own cores.
    pub(crate) busy_poll: bool,
}

pub(crate) const fn load(connections: usize, window: usize, length: usize) -> Load {
    // With one line in flight, the load sleeps once per reply, whichever server it measures.
    Load { connections, window, length, busy_poll: window > 1 }
}

impl Load {
    pub(crate) fn name(&self) -> String {
        match self.window {
            1 => format!("{}, ping-pong", self.size()),
            _ => self.size(),
        }
    }

    /// `64 x 16 B`: 64 connections, lines of 16 bytes.
    pub(crate) fn size(&self) -> String {
        format!("{} x {} B", self.connections, self.length)
    }

    /// Loads a server from `cores`, with one thread per core.
    pub(crate) fn on(&self, running: &Running, cores: &[usize]) -> Result<Figures, Failed> {
        // If the machine stalls, there are too few replies to measure, so try once more.
        self.once(running, cores).or_else(|_| self.once(running, cores))
    }

    fn once(&self, running: &Running, cores: &[usize]) -> Result<Figures, Failed> {
        let output = on_cores(cores, &lineframe()?)
            .args(["bench", "--json", "--duration", "500ms", "--warm-up", "250ms"])
            .args(self.busy_poll.then_some("--busy-poll"))
            .args(["--threads", &cores.len().to_string()])
            .args(["--server-pid", &running.process.id().to_string()])
            .args(["--connections", &self.connections.to_string(), "--window", &self.window.to_string()])
            .args(["--length", &self.length.to_string(), &running.address])
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        // Exit codes for a badly framed reply and a wrong one. A second attempt must not hide them.
        assert!(!matches!(output.status.code(), Some(6 | 7)), "{complaint}");
        if !output.status.success() {
            return Err(complaint.into());
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let figure = |value: &serde_json::Value| value.as_f64().ok_or("too little to measure");
        let served = &report["replies_per_connection"];
        Ok(Figures {
            cpu: figure(&report["cpu_ns_per_line"]["server"])?,
            p99: figure(&report["latency_ns"]["raw"]["p99"])?,
            rate: figure(&report["replies_per_second"])?,
            least_share: figure(&served["min"])? / figure(&served["median"])?,
        })
    }
}

pub(crate) struct Figures {
    /// CPU time of the server in ns per line.
    pub(crate) cpu: f64,
    /// 99th percentile of the latency in ns.
    pub(crate) p99: f64,
    /// Lines per second.
    pub(crate) rate: f64,
    /// Replies to the connection with the fewest, divided by the median of all connections.
    pub(crate) least_share: f64,
}

/// Returns the path of the `lineframe` program in the same target directory.
pub(crate) fn lineframe() -> Result<PathBuf, Failed> {
    let own = std::env::current_exe()?;
    let lineframe = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("lineframe");
    match lineframe.exists() {
        true => Ok(lineframe),
        false => Err("the `lineframe` program is missing: run `cargo build --release` first".into()),
    }
}

pub(crate) fn on_cores(cores: &[usize], program: &Path) -> Command {
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores.join(",")).arg(program);
    command
}

/// Starts `lineframe serve` with these options.
pub(crate) fn serve(cores: &[usize], options: &[&str]) -> Result<Running, Failed> {
    Ok(Running::start(on_cores(cores, &lineframe()?).args(["serve", "127.0.0.1:0"]).args(options))?)
}

/// Returns a command that runs this program with other arguments.
pub(crate) fn own(cores: &[usize], arguments: &[&str]) -> Result<Command, Failed> {
    let mut command = on_cores(cores, &std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}
