//! Exit codes, and the failures that produce them.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::show;

/// Exit codes as listed in the help texts.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  any other failure: cannot listen, replies missing, drain timeout exceeded
  2  usage error
  3  cannot connect
  4  timed out
  6  framing error: a line is too long, cut or badly terminated
  7  expectation not met: --expect, --check, or a wrong reply in bench";

/// A failure of the command: exit code and message for stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Printed to stderr unless empty.
    message: String,
}

impl Failure {
    pub(crate) fn other(what: impl Display, why: impl Display) -> Self {
        Self { code: 1, message: format!("{what}: {why}") }
    }

    /// Returns a usage error that clap cannot detect.
    pub(crate) fn usage(why: impl Display) -> Self {
        Self { code: 2, message: why.to_string() }
    }

    /// Returns a failure to connect; `why` names the target and every attempt.
    pub(crate) fn cannot_connect(why: impl Display) -> Self {
        Self { code: 3, message: why.to_string() }
    }

    /// Returns a timeout; `why` names the limit and how to raise it.
    pub(crate) fn timed_out(why: impl Display) -> Self {
        Self { code: 4, message: why.to_string() }
    }

    /// Returns a framing error: a line is too long, cut or badly terminated.
    pub(crate) fn framing(why: impl Display) -> Self {
        Self { code: 6, message: why.to_string() }
    }

    /// Returns the failure for a connection that ended within a line.
    pub(crate) fn cut(bytes: usize) -> Self {
        let bytes = show::bytes(bytes);
        Self::framing(format_args!("the server closed the connection after {bytes} of a line"))
    }

    /// Returns the failure for a reply or line that does not match the expectation.
    pub(crate) fn expectation(why: impl Display) -> Self {
        Self { code: 7, message: why.to_string() }
    }

    /// Returns a failure with this exit code and no message.
    pub(crate) fn passed_on(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// Returns the failure for a server that closed the connection before it answered every line.
    pub(crate) fn missing(received: u64, of: u64) -> Self {
        let replies = show::counted(of, "reply");
        Self { code: 1, message: format!("the server closed the connection after {received} of {replies}") }
    }

    /// Returns the failure for a failed write to stdout. A closed pipe counts as success.
    pub(crate) fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new() },
            _ => Self::other("cannot write to stdout", error),
        }
    }

    /// Appends `more` to the message.
    pub(crate) fn and(mut self, more: impl Display) -> Self {
        self.message = format!("{}; {more}", self.message);
        self
    }

    /// Returns the message for stderr, escaped.
    pub(crate) fn message(&self) -> String {
        show::escaped(self.message.as_bytes())
    }

    /// Splits off the line for stderr, with its LF; empty if there is no message.
    pub(crate) fn into_line(self) -> (String, Self) {
        let line = match self.message.is_empty() {
            true => String::new(),
            false => format!("lineframe: {}\n", self.message()),
        };
        (line, Self::passed_on(self.code))
    }

    /// Returns whether the exit code is not 0.
    pub(crate) fn is_error(&self) -> bool {
        self.code != 0
    }

    /// Prints the message and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            show::note(format_args!("lineframe: {}", self.message()));
        }
        ExitCode::from(self.code)
    }
}
