use std::boxed::Box;
use std::io;

use super::error::{Error, TimeoutKind};
use super::shutdown::DrainProgress;

/// How far the reading side of a connection has got.
///
/// ```text
/// Open      -- read returns 0 ------------------------> Ended(Eof)
/// Open      -- shutdown signal -----------------------> Draining
/// Draining  -- read returns 0 ------------------------> Ended(Eof)
/// Draining  -- nothing more arrived | 8 MiB | I/O error -> Ended(Drained)
/// Drained   -- read_bytes meets the end of the stream -> Ended(Eof)
/// any       -- I/O error | deadline ------------------> Ended(Failed)
/// ```
///
/// Bytes that are buffered are handed out in every state but `Failed`. `read_bytes`, `skip_bytes`
/// and `body` read on in `Draining` and `Drained`: in `Drained` only their own bytes.
#[derive(Debug)]
pub(super) enum ReadState {
    Open,
    Draining(Box<DrainProgress>),
    Ended(End),
}

#[derive(Debug)]
pub(super) enum End {
    /// The peer has sent everything.
    Eof,
    /// Everything that arrived before the shutdown signal has been read. An error that ended it is
    /// reported once.
    Drained(Option<io::Error>),
    /// The stream failed, on either side, or this deadline has passed.
    Failed(Option<TimeoutKind>),
}

impl ReadState {
    /// Whether items end here.
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

    /// The deadline that has passed, if one has.
    pub(super) fn timed_out(&self) -> Option<TimeoutKind> {
        match self {
            Self::Ended(End::Failed(timeout)) => *timeout,
            _ => None,
        }
    }

    /// Whether the last look for bytes that arrived before the shutdown signal found none and has
    /// to be repeated, before a line is answered.
    pub(super) fn must_look_again(&self) -> bool {
        matches!(self, Self::Draining(progress) if progress.must_look_again())
    }

    /// What ended the stream. An error is returned once.
    pub(super) fn take_end(&mut self) -> Result<(), Error> {
        match self {
            Self::Ended(End::Drained(error)) => error.take().map_or(Ok(()), |error| Err(error.into())),
            _ => Ok(()),
        }
    }
}
