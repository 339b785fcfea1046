//! Errors of connections, servers and clients: [`Error`].

use core::error::Error as StdError;
use core::fmt;
use std::io;
use std::task::Poll;

use crate::error::{BlockError, EncodeError, Escaped, LineError};

/// Result of one poll of a read or a write.
pub(crate) type Polled<T> = Poll<Result<T, Error>>;

/// An error of a [`Connection`](crate::Connection). Requires the feature `net`.
///
/// Either the connection has failed, or it refused one call. Each variant says which, and whether
/// the connection can still be used.
///
/// A bad line is normally not an error: [`next_line`](crate::Connection::next_line) returns it as
/// an item, and the next line follows. Methods that promise a good line, such as
/// [`request`](crate::Connection::request), return it as [`Line`](Self::Line).
///
/// The conversion into [`io::Error`] is lossless: `Error::from(io::Error::from(error))` equals
/// `error`. A handler can therefore return [`io::Result`], and the caller can still ask which
/// deadline has passed:
///
/// ```
/// use std::io;
/// use lineframe::{Error, TimeoutKind};
///
/// let from_a_handler = io::Error::from(Error::Timeout(TimeoutKind::Line));
/// assert_eq!(from_a_handler.kind(), io::ErrorKind::TimedOut);
/// assert!(matches!(Error::from(from_a_handler), Error::Timeout(TimeoutKind::Line)));
/// ```
///
/// `Display` and `Debug` print one line, without any byte from the peer. In an [`Io`](Self::Io)
/// error, control characters in the message of the system or the stream are escaped. `Display`
/// never repeats the message of `source`.
#[non_exhaustive]
pub enum Error {
    /// The stream has failed, now or earlier. Converts into the inner [`io::Error`].
    Io(io::Error),
    /// A deadline has passed. The connection has failed, and unsent output is lost. Converts into
    /// an [`io::Error`] of kind `TimedOut`.
    Timeout(TimeoutKind),
    /// The peer has sent more bad lines than `max_bad_lines`. Queued output has been sent; the
    /// server then closes the connection. Converts into an [`io::Error`] of kind `InvalidData`.
    TooManyBadLines,
    /// The peer speaks HTTP or TLS, and the server [refuses
    /// both](crate::ServerBuilder::refuse_http_and_tls). The peer has received one error line,
    /// unless the connection is split. No byte from the peer is returned to the handler. Converts
    /// into an [`io::Error`] of kind `InvalidData`.
    NotLines,
    /// The stream cannot be handed over, because bytes are unread, still to be skipped, or unsent.
    /// Unread bytes can be commands that the peer sent in clear text after `STARTTLS`. The
    /// connection can still be used. Converts into an [`io::Error`] of kind `InvalidData`.
    LeftOver {
        /// Number of unread, unskipped and unsent bytes. The unskipped rest of a long line counts
        /// as at least one byte.
        bytes: usize,
    },
    /// The line to write was refused. It was not queued, and the connection can still be used.
    /// Converts into an [`io::Error`] of kind `InvalidInput`.
    Encode(EncodeError),
    /// The requested byte count was refused. No byte was read, and the connection can still be
    /// used. Converts into an [`io::Error`] of kind `InvalidInput`.
    Block(BlockError),
    /// The received line is bad, but the call promised a good one. The connection can still be
    /// used: the next line follows. Converts into an [`io::Error`] of kind `InvalidData`.
    Line(LineError),
    /// The stream has ended, but the call promised a line or a byte count. The connection can still
    /// send. Converts into an [`io::Error`] of kind `UnexpectedEof`.
    Eof,
}

/// The deadline that has passed, as part of [`Error::Timeout`]. Requires the feature `net`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// `idle_timeout`: no byte arrived between two lines, or within a body.
    Idle,
    /// `line_timeout`: a line or a counted block has begun and is incomplete.
    Line,
    /// `write_timeout`: the peer did not accept any output.
    Write,
    /// `handshake_timeout`: the handshake between accept and handler took too long.
    Handshake,
    /// `connect_timeout`: the client could not connect in time.
    Connect,
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "no data received in time (idle_timeout)",
            Self::Line => "line or block incomplete after timeout (line_timeout)",
            Self::Write => "output not accepted by the peer in time (write_timeout)",
            Self::Handshake => "handshake not finished in time (handshake_timeout)",
            Self::Connect => "no connection in time (connect_timeout)",
        })
    }
}

/// The error of [`Connection::into_upgrade`](crate::Connection::into_upgrade), with the unchanged
/// connection. Requires the feature `net`.
pub struct UpgradeError<C> {
    /// The connection, unchanged.
    pub connection: C,
    /// The reason: always [`Error::LeftOver`].
    pub source: Error,
}

impl<C> fmt::Display for UpgradeError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl<C> fmt::Debug for UpgradeError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpgradeError({})", self.source)
    }
}

impl<C> StdError for UpgradeError<C> {}

impl<C> From<UpgradeError<C>> for Error {
    fn from(error: UpgradeError<C>) -> Self {
        error.source
    }
}

impl<C> From<UpgradeError<C>> for io::Error {
    fn from(error: UpgradeError<C>) -> Self {
        error.source.into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{}", Escaped(error)),
            Self::Timeout(timeout) => write!(f, "{timeout}"),
            Self::TooManyBadLines => f.write_str("peer sent more bad lines than allowed (max_bad_lines)"),
            Self::NotLines => f.write_str("peer sent HTTP or TLS, not lines"),
            Self::LeftOver { bytes } => {
                let unit = if *bytes == 1 { "byte" } else { "bytes" };
                write!(f, "cannot hand over the stream: {bytes} {unit} unread or unsent")
            }
            Self::Encode(error) => write!(f, "{error}"),
            Self::Block(error) => write!(f, "{error}"),
            Self::Line(error) => write!(f, "{error}"),
            Self::Eof => f.write_str("unexpected end of stream"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Io(error) => return write!(f, "Io({:?}: {self})", error.kind()),
            Self::Timeout(_) => "Timeout",
            Self::TooManyBadLines => "TooManyBadLines",
            Self::NotLines => "NotLines",
            Self::LeftOver { .. } => "LeftOver",
            Self::Encode(_) => "Encode",
            Self::Block(_) => "Block",
            Self::Line(_) => "Line",
            Self::Eof => "Eof",
        };
        write!(f, "{kind}({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Io(error) => error.source(),
            _ => None,
        }
    }
}

/// Returns the [`Error`], [`LineError`], [`EncodeError`] or [`BlockError`] inside the
/// [`io::Error`]. Converts any other error into [`Error::Io`].
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        error
            .downcast()
            .or_else(|error| error.downcast().map(Self::Line))
            .or_else(|error| error.downcast().map(Self::Encode))
            .or_else(|error| error.downcast().map(Self::Block))
            .unwrap_or_else(Self::Io)
    }
}

impl From<LineError> for Error {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<BlockError> for Error {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

/// Converts `Io`, `Line`, `Encode` and `Block` into the [`io::Error`] of the inner error. The
/// [`io::Error`] of any other variant contains the [`Error`].
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Io(error) => return error,
            Error::Encode(error) => return error.into(),
            Error::Block(error) => return error.into(),
            Error::Line(error) => return error.into(),
            Error::Timeout(_) => io::ErrorKind::TimedOut,
            Error::TooManyBadLines | Error::NotLines | Error::LeftOver { .. } => io::ErrorKind::InvalidData,
            Error::Eof => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;
    use alloc::{format, vec};
    use core::error::Error as _;
    use core::mem::discriminant;

    use bytes::{Bytes, BytesMut};
    use tokio_util::codec::Decoder;

    use super::*;
    use crate::{Delimiter, LineCodec};

    const TIMEOUTS: [TimeoutKind; 5] = [
        TimeoutKind::Idle,
        TimeoutKind::Line,
        TimeoutKind::Write,
        TimeoutKind::Handshake,
        TimeoutKind::Connect,
    ];

    fn bad_line() -> LineError {
        let mut codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(9).build();
        codec.decode(&mut BytesMut::from("\x1bz~\n\r\n")).unwrap().unwrap().unwrap_err()
    }

    fn refused_line() -> EncodeError {
        LineCodec::new().encode_line(b"z\n~", &mut BytesMut::new()).unwrap_err()
    }

    fn refused_count() -> BlockError {
        LineCodec::new().expect_bytes(usize::MAX).unwrap_err()
    }

    /// One error of each variant, with its kind as an `io::Error`.
    fn errors() -> Vec<(Error, io::ErrorKind)> {
        use io::ErrorKind::*;

        let mut errors = vec![
            (Error::Io(io::Error::from(ConnectionReset)), ConnectionReset),
            (Error::Io(io::Error::new(BrokenPipe, "two\nlines")), BrokenPipe),
            (Error::TooManyBadLines, InvalidData),
            (Error::NotLines, InvalidData),
            (Error::LeftOver { bytes: 7 }, InvalidData),
            (Error::Encode(refused_line()), InvalidInput),
            (Error::Block(refused_count()), InvalidInput),
            (Error::Line(bad_line()), InvalidData),
            (Error::Eof, UnexpectedEof),
        ];
        errors.extend(TIMEOUTS.map(|timeout| (Error::Timeout(timeout), TimedOut)));
        // Fails to compile if a new variant is missing from the list above.
        for (error, _) in &errors {
            match error {
                Error::Io(_)
                | Error::Timeout(_)
                | Error::TooManyBadLines
                | Error::NotLines
                | Error::LeftOver { .. } => {}
                Error::Encode(_) | Error::Block(_) | Error::Line(_) | Error::Eof => {}
            }
        }
        errors
    }

    #[test]
    fn io_error_conversion_is_lossless() {
        for (error, kind) in errors() {
            let (variant, said, debug) = (discriminant(&error), error.to_string(), format!("{error:?}"));
            let through = io::Error::from(error);
            assert_eq!(through.kind(), kind, "{said}");
            let back = Error::from(through);
            assert_eq!(discriminant(&back), variant, "{said}");
            assert_eq!((back.to_string(), format!("{back:?}")), (said, debug));
        }
        for timeout in TIMEOUTS {
            let back = Error::from(io::Error::from(Error::Timeout(timeout)));
            assert!(matches!(back, Error::Timeout(same) if same == timeout), "{back:?}");
        }
        let left = Error::from(io::Error::from(Error::LeftOver { bytes: 7 }));
        assert!(matches!(left, Error::LeftOver { bytes: 7 }), "{left:?}");
        let Error::Line(line) = Error::from(io::Error::from(Error::Line(bad_line()))) else { panic!() };
        assert_eq!(line, bad_line());
        let Error::Block(count) = Error::from(io::Error::from(refused_count())) else { panic!() };
        assert_eq!(count, refused_count());
    }

    #[test]
    fn codec_errors_are_found_inside_io_errors() {
        assert!(matches!(Error::from(io::Error::from(bad_line())), Error::Line(_)));
        assert!(matches!(Error::from(io::Error::from(refused_line())), Error::Encode(_)));
        assert!(matches!(Error::from(io::Error::from(refused_count())), Error::Block(_)));
        // The `io::Error` contains the inner error, not the `Error` around it.
        assert!(io::Error::from(Error::from(bad_line())).downcast::<LineError>().is_ok());
        assert!(io::Error::from(Error::from(refused_line())).downcast::<EncodeError>().is_ok());
        // The kind of the `io::Error` does not matter, and foreign errors stay unchanged.
        assert!(matches!(Error::from(io::Error::other(Error::Eof)), Error::Eof));
        let Error::Io(other) = Error::from(io::Error::other("not ours")) else { panic!() };
        assert_eq!((other.kind(), other.to_string()), (io::ErrorKind::Other, String::from("not ours")));
        let Error::Io(system) = Error::from(io::Error::from_raw_os_error(2)) else { panic!() };
        assert_eq!(system.raw_os_error(), Some(2));
    }

    #[test]
    fn display_does_not_repeat_source() {
        let within = || io::Error::other("within");
        let outer = Error::Io(io::Error::other(Outer(within())));
        assert_eq!(outer.source().map(ToString::to_string), Some("within".into()));
        for (error, _) in errors() {
            let said = error.to_string();
            assert!(error.source().is_none_or(|source| !said.contains(&source.to_string())), "{error:?}");
        }
    }

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn messages_contain_no_bytes_from_the_peer() {
        for (error, _) in errors() {
            for said in [format!("{error}"), format!("{error:?}"), format!("{error:#?}")] {
                assert!(!said.is_empty() && !said.contains(|c: char| c.is_control()), "{said:?}");
                assert!(!said.contains(['z', '~']) || matches!(error, Error::Io(_)), "{said:?}");
            }
        }
        let said = Error::Io(io::Error::other("a\r\n\x1b]0;x\x07\u{9b}\u{202e}\u{2028}\"é'\\")).to_string();
        assert_eq!(said, "a\\r\\n\\u{1b}]0;x\\u{7}\\u{9b}\\u{202e}\\u{2028}\"é'\\");
    }

    #[test]
    fn control_characters_are_escaped() {
        let all: String = (0..=0x2fff).filter_map(char::from_u32).collect();
        let said = Error::Io(io::Error::other(all)).to_string();
        let steers = |c: char| {
            c.is_control()
                || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!said.contains(steers));
        assert!(said.contains("世界") || said.contains("é"), "letters stay letters");
    }

    #[test]
    fn bad_line_bytes_are_in_the_error() {
        let Error::Line(line) = Error::from(io::Error::from(bad_line())) else { panic!() };
        assert_eq!(line.bytes(), &Bytes::from_static(b"\x1bz~\n"));
    }
}
