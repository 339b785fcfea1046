//! How the command ends: the one place that knows the exit codes.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::show;

/// The exit codes as the help texts say them. A test reaches each of them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  well
  1  anything else: cannot listen, replies are missing, a drain cut someone off
  2  usage
  3  cannot connect
  4  timed out
  6  framing: a line too long or cut, not UTF-8 where that was asked for
  7  an expectation was not met";

/// Why the command ended otherwise than well: its exit code and what is said on stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Empty: nothing is said.
    message: String,
}

// Some of them are for commands that are still to come.
#[allow(dead_code)]
impl Failure {
    pub(crate) fn other(what: impl Display, why: impl Display) -> Self {
        Self { code: 1, message: format!("{what}: {why}") }
    }

    /// What was asked for cannot be, and that shows only after the arguments were read.
    pub(crate) fn usage(why: impl Display) -> Self {
        Self { code: 2, message: why.to_string() }
    }

    /// `why` names the target and every attempt.
    pub(crate) fn cannot_connect(why: impl Display) -> Self {
        Self { code: 3, message: why.to_string() }
    }

    /// `why` names the limit and how to raise it.
    pub(crate) fn timed_out(why: impl Display) -> Self {
        Self { code: 4, message: why.to_string() }
    }

    /// A line that is too long, cut, or not UTF-8 where that was asked for.
    pub(crate) fn framing(why: impl Display) -> Self {
        Self { code: 6, message: why.to_string() }
    }

    /// The peer's last line came without its terminator.
    pub(crate) fn cut(bytes: usize) -> Self {
        Self::framing(format_args!("the server's last line was cut after {}", show::bytes(bytes)))
    }

    /// What was to be seen was not.
    pub(crate) fn expectation(why: impl Display) -> Self {
        Self { code: 7, message: why.to_string() }
    }

    /// Nothing to say of one's own: what was run has ended so.
    pub(crate) fn passed_on(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// The server has left before it answered every line.
    pub(crate) fn missing(received: u64, of: u64) -> Self {
        Self { code: 1, message: format!("the server left after {received} of {of} replies") }
    }

    /// Writing to stdout failed. That nobody reads it any more is no failure.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new() },
            _ => Self::other("cannot write to stdout", error),
        }
    }

    /// The same, with more to say.
    pub(crate) fn and(mut self, more: impl Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// What is said on stderr, without what a terminal must not be given.
    pub(crate) fn message(&self) -> String {
        show::escaped(self.message.as_bytes())
    }

    /// What is said on stderr, with its LF, and the failure without it.
    pub(crate) fn into_line(self) -> (String, Self) {
        let line = match self.message.is_empty() {
            true => String::new(),
            false => format!("lineframe: {}\n", self.message()),
        };
        (line, Self::passed_on(self.code))
    }

    /// Whether the exit code is not 0.
    pub(crate) fn is_error(&self) -> bool {
        self.code != 0
    }

    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            show::note(format_args!("lineframe: {}", self.message()));
        }
        ExitCode::from(self.code)
    }
}
