use std::{fmt, io};

use crate::connection::{Escaped, Timeout};

/// How a connection ended.
pub(super) enum Ended {
    Done,
    Failed(io::Error),
    Refused,
    Panicked,
    TimedOut(Timeout),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "{}", Escaped(error)),
            Self::Refused => f.write_str("refused"),
            Self::Panicked => f.write_str("its handler panicked"),
            Self::TimedOut(timeout) => write!(f, "{timeout}"),
        }
    }
}
