use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::show;

/// Why the command ended otherwise than well: its exit code and what is said on stderr.
pub(crate) struct Failure {
    code: u8,
    /// Empty: nothing is said.
    message: String,
}

impl Failure {
    pub(crate) fn other(what: impl Display, why: impl Display) -> Self {
        Self { code: 1, message: format!("{what}: {why}") }
    }

    /// `why` names the target and every attempt.
    pub(crate) fn cannot_connect(why: impl Display) -> Self {
        Self { code: 3, message: why.to_string() }
    }

    /// The peer's last line came without its terminator.
    pub(crate) fn cut(bytes: usize) -> Self {
        Self { code: 6, message: format!("the server's last line was cut after {bytes} bytes") }
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

    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            show::note(format_args!("lineframe: {}", show::escaped(self.message.as_bytes())));
        }
        ExitCode::from(self.code)
    }
}
