//! Signals that stop a command, and SIGUSR1, which requests a report.

use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "only Ctrl-C is supported"))]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
    Hangup,
    /// SIGQUIT: stops without a drain.
    Quit,
    /// SIGUSR1: the command writes a report and continues.
    Report,
}

/// Receives the signals that arrive after its creation. On other systems than Unix, only Ctrl-C.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    /// `None` if the process was started with SIGHUP ignored, as by nohup(1).
    hangup: Option<tokio::signal::unix::Signal>,
    /// `None` if SIGUSR1 keeps its default action.
    report: Option<tokio::signal::unix::Signal>,
    was_received: bool,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: match is_ignored(SignalKind::hangup().as_raw_value()) {
                true => None,
                false => Some(signal(SignalKind::hangup())?),
            },
            report: None,
            was_received: false,
        })
    }

    /// Receives SIGUSR1 as well.
    pub(crate) fn with_report() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self { report: Some(signal(SignalKind::user_defined1())?), ..Self::new()? })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        let signal = tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.quit.recv() => Signal::Quit,
            () = next_if_any(&mut self.hangup) => Signal::Hangup,
            () = next_if_any(&mut self.report) => Signal::Report,
        };
        self.was_received = true;
        signal
    }
}

#[cfg(unix)]
async fn next_if_any(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Returns whether the process was started with this signal ignored: proc_pid_status(5).
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(not(unix))]
pub(crate) struct Signals {
    was_received: bool,
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { was_received: false })
    }

    pub(crate) fn with_report() -> io::Result<Self> {
        Self::new()
    }

    pub(crate) async fn next(&mut self) -> Signal {
        _ = tokio::signal::ctrl_c().await;
        self.was_received = true;
        Signal::Interrupt
    }
}

impl Signals {
    /// Returns whether `next` has returned a signal.
    pub(crate) fn was_received(&self) -> bool {
        self.was_received
    }
}
