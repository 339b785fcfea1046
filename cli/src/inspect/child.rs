//! Inspects the stdin and stdout of a command.

#[cfg(unix)]
use std::cell::Cell;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

#[cfg(unix)]
use rustix::process::{Pid, Signal as Raw, kill_process, kill_process_group};
#[cfg(unix)]
use tokio::process::Child;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::LAST_WRITE;
use super::frames::Rules;
use super::log::{Direction, Log, Place};
use super::notes::Notes;
use super::pass::{Passed, Shared, Stopped, pass};
use crate::failure::Failure;
use crate::show;
use crate::signals::{Signal, Signals};

/// Runs the command and passes on stdin and stdout. Returns after the command has exited and all
/// its output is written, with its exit code.
pub(super) async fn run(
    command: &[OsString],
    rules: &Rules,
    log: &Log,
    signals: &mut Option<Signals>,
    notes: &Notes,
) -> Result<(), Failure> {
    let [program, arguments @ ..] = command else { return Ok(()) };
    let signals = Signals::new().map(|new| signals.insert(new));
    let signals = signals.map_err(|error| Failure::other("cannot wait for signals", error))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    // With a process group, a second signal also kills the descendants of the command. With a
    // controlling terminal there is no group, because the terminal would stop a background group.
    #[cfg(unix)]
    let has_group = !has_terminal();
    #[cfg(unix)]
    if has_group {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| {
        Failure::other(format_args!("cannot run {}", show::escaped(program.as_encoded_bytes())), error)
    })?;
    let (Some(to_child), Some(from_child)) = (child.stdin.take(), child.stdout.take()) else {
        return Ok(());
    };
    #[cfg(unix)]
    let target = Target::of(&child, has_group);
    #[cfg(not(unix))]
    let target = Target;
    let place = |direction| Place { connection: 1, direction };
    let shared = Shared::default();
    let asking = async {
        match pass(tokio::io::stdin(), to_child, place(Direction::ToServer), &shared, rules, log).await {
            Err(Stopped::Output) => return,
            Err(Stopped::Read(error)) => notes.note(format_args!("lineframe: cannot read stdin: {error}")),
            Ok(_) => {}
        }
        // The end of stdin does not end the inspection; the exit of the command does.
        std::future::pending().await
    };
    let exited = Notify::new();
    let waiting = async {
        let code = child.wait().await.map(code);
        target.exited();
        exited.notify_one();
        Ok(code)
    };
    // `try_join!` below stops both futures when this one fails.
    let passing = async {
        match pass(from_child, tokio::io::stdout(), place(Direction::ToClient), &shared, rules, log).await {
            Err(Stopped::Output) => Err(Ok(())),
            Err(Stopped::Read(error)) => Err(Err(Failure::other("cannot read from the command", error))),
            Ok(Passed::All) => {
                close_stdout();
                Ok(None)
            }
            Ok(Passed::NotTaken(error)) => Ok(Some(Failure::stdout(error))),
        }
    };
    let answering = async {
        let (not_taken, code) = match tokio::try_join!(passing, waiting) {
            Ok(both) => both,
            Err(ended) => return ended,
        };
        match code {
            Ok(0) => not_taken.map_or(Ok(()), Err),
            Ok(code) => Err(Failure::passed_on(code)),
            Err(error) => Err(Failure::other("cannot wait for the command", error)),
        }
    };
    let signalling = async {
        let first = signals.next().await;
        if first != Signal::Quit {
            target.pass_on(first);
            tokio::select! {
                _ = signals.next() => {}
                () = async { exited.notified().await; sleep(LAST_WRITE).await } => {
                    target.kill();
                    return Failure::other("interrupted", "nobody read the rest of the output");
                }
            }
        }
        target.kill();
        Failure::other("interrupted", "killed the command")
    };
    tokio::select! {
        () = asking => Ok(()),
        failure = signalling => Err(failure),
        answered = answering => answered,
    }
}

/// Closes stdout, so that its reader sees the end while the command may still be running.
fn close_stdout() {
    #[cfg(unix)]
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        _ = rustix::stdio::dup2_stdout(null);
    }
}

/// Returns whether there is a controlling terminal.
#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Target of signals: the command's process group, or the command alone if it has no group.
#[cfg(unix)]
struct Target {
    /// `None` after the exit of a command without a group.
    id: Cell<Option<Pid>>,
    has_group: bool,
}

#[cfg(unix)]
impl Target {
    fn of(child: &Child, has_group: bool) -> Self {
        Self { id: Cell::new(child.id().and_then(|id| Pid::from_raw(id as i32))), has_group }
    }

    fn exited(&self) {
        if !self.has_group {
            self.id.set(None);
        }
    }

    fn pass_on(&self, signal: Signal) {
        match signal {
            // The terminal has sent Ctrl-C to the command as well.
            Signal::Interrupt if !self.has_group => {}
            Signal::Interrupt => self.send(Raw::INT),
            Signal::Hangup => self.send(Raw::HUP),
            _ => self.send(Raw::TERM),
        }
    }

    fn kill(&self) {
        self.send(Raw::KILL);
    }

    fn send(&self, signal: Raw) {
        _ = match (self.id.get(), self.has_group) {
            (None, _) => Ok(()),
            (Some(id), true) => kill_process_group(id, signal),
            (Some(id), false) => kill_process(id, signal),
        };
    }
}

#[cfg(not(unix))]
struct Target;

#[cfg(not(unix))]
impl Target {
    fn exited(&self) {}

    /// Does nothing, because Ctrl-C reaches the command as well.
    fn pass_on(&self, _: Signal) {}

    fn kill(&self) {}
}

/// Returns the exit code as a shell does: the code of the command, or 128 plus the fatal signal.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 | signal as u8;
    }
    status.code().map_or(1, |code| code as u8)
}
