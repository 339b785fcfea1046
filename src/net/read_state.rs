use std::boxed::Box;
use std::io;

use super::error::{Error, TimeoutKind};
use super::shutdown::DrainProgress;

/// State of the reading side of a connection.
///
/// ```text
/// Open      -- read returns 0 ------------------------> Ended(Eof)
/// Open      -- shutdown signal -----------------------> Draining
/// Draining  -- read returns 0 ------------------------> Ended(Eof)
/// Draining  -- nothing more arrived | 8 MiB | I/O error -> Ended(Drained)
/// Drained   -- read_bytes reaches the end of the stream -> Ended(Eof)
/// any       -- I/O error | deadline ------------------> Ended(Failed)
/// ```
///
/// Buffered bytes are returned in every state except `Failed`. `read_bytes`, `skip_bytes` and
/// `body` continue to read in `Draining` and `Drained`, but in `Drained` only the bytes that they
/// need.
#[derive(Debug)]
pub(super) enum ReadState {
    Open,
    Draining(Box<DrainProgress>),
    Ended(End),
}

#[derive(Debug)]
pub(super) enum End {
    /// The peer has closed its side.
    Eof,
    /// All bytes that arrived before the shutdown signal were read. An error that ended the drain
    /// is reported once.
    Drained(Option<io::Error>),
    /// The stream failed, on either side, because of this deadline if it is `Some`.
    Failed(Option<TimeoutKind>),
}

impl ReadState {
    /// Returns whether no more bytes are read for items.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    #[inline]
    pub(super) fn is_eof(&self) -> bool {
        matches!(self, Self::Ended(End::Eof))
    }

    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Ended(End::Failed(_)))
    }

    /// Returns the deadline that has passed, if any.
    pub(super) fn timed_out(&self) -> Option<TimeoutKind> {
        match self {
            Self::Ended(End::Failed(timeout)) => *timeout,
            _ => None,
        }
    }

    /// Returns whether a drain found no bytes on its last attempt and must try again before the
    /// next line is answered.
    pub(super) fn must_retry(&self) -> bool {
        matches!(self, Self::Draining(progress) if progress.must_retry())
    }

    /// Returns the error that ended the stream, if any. Returns it only once.
    pub(super) fn take_end(&mut self) -> Result<(), Error> {
        match self {
            Self::Ended(End::Drained(error)) => error.take().map_or(Ok(()), |error| Err(error.into())),
            _ => Ok(()),
        }
    }
}
