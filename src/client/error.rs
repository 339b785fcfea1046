use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use std::io;

use super::Attempt;
use crate::error::Escaped;
use crate::net::{Error, TimeoutKind};

/// The error of a [`Client`](crate::Client) that could not connect. Requires the feature `net`.
///
/// `Display` and `Debug` print one line: the target, each attempt and its error. Unprintable
/// characters are escaped. Example: `cannot connect to "localhost:7000": [::1]:7000: Connection
/// refused (os error 111); 127.0.0.1:7000: Connection refused (os error 111)`.
///
/// Converts into an [`io::Error`] with the kind of the last attempt's error and the same message.
/// Converts into [`Error::Timeout`] with [`TimeoutKind::Connect`] if the last attempt has timed
/// out, and otherwise into [`Error::Io`].
pub struct ConnectError {
    /// The target as its `Debug` prints it.
    pub(super) target: String,
    pub(super) failed: Vec<Attempt>,
}

impl ConnectError {
    /// Returns each address that was tried with its error, the last attempt last. An address is an
    /// IP address with a port, such as `10.0.0.7:7000`, a Unix path, or `name lookup` if the lookup
    /// failed. If an address failed in the same way in several rounds, it occurs once, with the
    /// latest error.
    ///
    /// ```
    /// # async fn run() -> std::io::Result<()> {
    /// # use lineframe::Client;
    /// if let Err(error) = Client::new().connect("localhost:7000").await {
    ///     for (address, reason) in error.tried() {
    ///         println!("{address}: {reason}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn tried(&self) -> impl Iterator<Item = (&str, &io::Error)> {
        self.failed.iter().map(|attempt| (attempt.at.as_str(), &attempt.error))
    }

    fn last(&self) -> Option<&io::Error> {
        self.failed.last().map(|attempt| &attempt.error)
    }

    fn kind(&self) -> io::ErrorKind {
        self.last().map_or(io::ErrorKind::Other, io::Error::kind)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", Escaped(&self.target))?;
        for (index, Attempt { at, error, times }) in self.failed.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            let at = Escaped(at).to_string();
            // Do not repeat the target. `Debug` of a string has quotes.
            if self.target.trim_matches('"') != at {
                write!(f, "{at}: ")?;
            }
            write!(f, "{}", Escaped(error))?;
            if *times > 1 {
                write!(f, ", {times} times")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectError({self})")
    }
}

/// Has no source, because `Display` contains all errors.
impl core::error::Error for ConnectError {}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout(TimeoutKind::Connect),
            _ => Self::Io(error.into()),
        }
    }
}
