//! Around a command's stdin and stdout.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

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
    // So that a second signal ends what the command has started too.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| {
        Failure::other(format_args!("cannot run {}", show::escaped(program.as_encoded_bytes())), error)
    })?;
    let (Some(to_child), Some(from_child)) = (child.stdin.take(), child.stdout.take()) else {
        return Ok(());
    };
    let id = child.id();
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
            pass_on(id, first);
            tokio::select! {
                _ = signals.next() => {}
                () = async { exited.notified().await; sleep(LAST_WRITE).await } => {
                    kill_group(id);
                    return Failure::other("interrupted", "nobody took the rest of the output");
                }
            }
        }
        kill_group(id);
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

#[cfg(unix)]
use rustix::process::{Pid, Signal as Raw, kill_process_group};

/// To the command and to what it has started, as a terminal does.
#[cfg(unix)]
fn pass_on(id: Option<u32>, signal: Signal) {
    let signal = match signal {
        Signal::Interrupt => Raw::INT,
        Signal::Hangup => Raw::HUP,
        _ => Raw::TERM,
    };
    if let Some(group) = id.and_then(|id| Pid::from_raw(id as i32)) {
        _ = kill_process_group(group, signal);
    }
}

#[cfg(unix)]
fn kill_group(id: Option<u32>) {
    if let Some(group) = id.and_then(|id| Pid::from_raw(id as i32)) {
        _ = kill_process_group(group, Raw::KILL);
    }
}

/// Ctrl-C reaches the command by itself.
#[cfg(not(unix))]
fn pass_on(_: Option<u32>, _: Signal) {}

#[cfg(not(unix))]
fn kill_group(_: Option<u32>) {}

/// As a shell gives it: that of the command, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 | signal as u8;
    }
    status.code().map_or(1, |code| code as u8)
}
