//! Around a command's stdin and stdout.

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

/// Runs the command, with what comes on stdin for it and its answers to stdout, until it has ended and all that it has
/// said is out. Its exit code becomes ours.
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
    // A second signal then ends what the command has started too. A terminal stops the processes
    // of another group that use it, so with one there is no group.
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
        // The command decides when it is over.
        std::future::pending().await
    };
    let exited = Notify::new();
    let waiting = async {
        let code = child.wait().await.map(code);
        target.exited();
        exited.notify_one();
        Ok(code)
    };
    // An error ends both.
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
    let telling = async {
        let first = signals.next().await;
        if first != Signal::Quit {
            target.pass_on(first);
            tokio::select! {
                _ = signals.next() => {}
                () = async { exited.notified().await; sleep(LAST_WRITE).await } => {
                    target.kill();
                    return Failure::other("interrupted", "nobody took the rest of the output");
                }
            }
        }
        target.kill();
        Failure::other("interrupted", "the command was killed")
    };
    tokio::select! {
        () = asking => Ok(()),
        failure = telling => Err(failure),
        answered = answering => answered,
    }
}

/// Says to whoever reads it that nothing more comes, while the command may still be at work.
fn close_stdout() {
    #[cfg(unix)]
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        _ = rustix::stdio::dup2_stdout(null);
    }
}

/// Whether there is a controlling terminal.
#[cfg(unix)]
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// What signals are sent to: the command's group, or the command alone if it has none.
#[cfg(unix)]
struct Target {
    /// `None` if the command has ended and has no group.
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
            // Of the terminal: the command has it too.
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

    /// Ctrl-C reaches the command by itself.
    fn pass_on(&self, _: Signal) {}

    fn kill(&self) {}
}

/// As a shell gives it: that of the command, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 | signal as u8;
    }
    status.code().map_or(1, |code| code as u8)
}
