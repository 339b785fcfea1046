//! Why a connection ended, or why it refused a call: [`Error`].

use core::error::Error as StdError;
use core::fmt;
use std::io;
use std::task::Poll;

use crate::error::{BlockError, EncodeError, Escaped, LineError};

/// What a step of reading or writing comes to.
pub(crate) type Polled<T> = Poll<Result<T, Error>>;

/// The connection has failed, or it refuses a call. Each variant says which, and what happens next.
///
/// A bad line is neither: it is an item of [`next_line`](crate::Connection::next_line), and the
/// next line follows. Only where a good item was promised is it an error, [`Line`](Self::Line).
///
/// Converts into [`io::Error`] and back without loss: `Error::from(io::Error::from(error))` is
/// `error` again. So a handler may return
/// [`io::Result`], and a caller that gets its error can still ask which deadline it was:
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
/// `Display` and `Debug` are one line, and contain no byte that came over the wire. Control
/// characters in the system's or the stream's message of an [`Io`](Self::Io) error are escaped.
/// `source` never returns what `Display` already says.
#[non_exhaustive]
pub enum Error {
    /// The stream has failed, now or earlier. As [`io::Error`]: the error within, unchanged.
    Io(io::Error),
    /// A deadline has passed. The connection is given up, and output that the peer has not taken is
    /// lost. As [`io::Error`]: `TimedOut`.
    Timeout(TimeoutKind),
    /// The peer has sent more bad lines than `max_bad_lines` allows. Output is sent, then the
    /// connection is closed. As [`io::Error`]: `InvalidData`.
    TooManyBadLines,
    /// The peer speaks HTTP or TLS, which the server refuses. The peer was told in one line, unless
    /// the connection is split; nothing that it sent was or will be handed out. As [`io::Error`]:
    /// `InvalidData`.
    NotLines,
    /// The stream cannot be handed over, since bytes were received and not read, such as commands
    /// sent in clear after a `STARTTLS`, are still to be skipped, or were written and not sent. As [`io::Error`]: `InvalidData`.
    LeftOver {
        /// How many bytes. The rest of a long line counts as at least one.
        bytes: usize,
    },
    /// Your line was refused. Nothing of it was written, and the connection goes on. As
    /// [`io::Error`]: `InvalidInput`.
    Encode(EncodeError),
    /// Your count was refused. Nothing was read, and the connection goes on. As [`io::Error`]:
    /// `InvalidInput`.
    Block(BlockError),
    /// The item is a bad line, where a good one was promised. The connection goes on after it. As
    /// [`io::Error`]: `InvalidData`.
    Line(LineError),
    /// The stream has ended, where an item was promised. Output is still sent. As [`io::Error`]:
    /// `UnexpectedEof`.
    Eof,
}

/// Which deadline has passed: part of [`Error::Timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// `idle_timeout`: nothing arrived between lines, or within a body of any length.
    Idle,
    /// `line_timeout`: a line or a counted block had begun and was incomplete.
    Line,
    /// `write_timeout`: the peer did not take the output.
    Write,
    /// `handshake_timeout`: the handshake between accept and handler took too long.
    Handshake,
    /// `connect_timeout`: no connection was made.
    Connect,
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "nothing received in time (idle_timeout)",
            Self::Line => "line or block incomplete after timeout (line_timeout)",
            Self::Write => "output not taken by the peer in time (write_timeout)",
            Self::Handshake => "handshake not finished in time (handshake_timeout)",
            Self::Connect => "no connection in time (connect_timeout)",
        })
    }
}

/// A stream that [`Connection::into_upgrade`](crate::Connection::into_upgrade) could not hand over,
/// with the connection.
pub struct UpgradeError<C> {
    /// The connection, unchanged.
    pub connection: C,
    /// Why.
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
            Self::TooManyBadLines => f.write_str("more bad lines than the limit (max_bad_lines)"),
            Self::NotLines => f.write_str("peer sent HTTP or TLS, not lines"),
            Self::LeftOver { bytes } => {
                let unit = if *bytes == 1 { "byte" } else { "bytes" };
                write!(f, "{bytes} {unit} not read or not sent before the stream was handed over")
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

/// Finds an [`Error`], [`LineError`], [`EncodeError`] or [`BlockError`] inside the [`io::Error`].
/// Any other is [`Error::Io`].
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

/// The [`io::Error`] of `Line`, `Encode` and `Block` holds the error within, as that one's own
/// conversion does. The others, except `Io`, hold the [`Error`].
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

    /// One of each variant, with the kind that it has as an `io::Error`.
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
        // Whoever adds a variant is sent here by the compiler.
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
    fn there_and_back_through_an_io_error() {
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
    fn an_error_of_the_codec_is_found_in_an_io_error_and_other_ones_are_left_as_they_are() {
        assert!(matches!(Error::from(io::Error::from(bad_line())), Error::Line(_)));
        assert!(matches!(Error::from(io::Error::from(refused_line())), Error::Encode(_)));
        assert!(matches!(Error::from(io::Error::from(refused_count())), Error::Block(_)));
        // Whichever way it went in, who holds the `io::Error` finds the error of the line.
        assert!(io::Error::from(Error::from(bad_line())).downcast::<LineError>().is_ok());
        assert!(io::Error::from(Error::from(refused_line())).downcast::<EncodeError>().is_ok());
        // Said to be of another kind, or not to be ours.
        assert!(matches!(Error::from(io::Error::other(Error::Eof)), Error::Eof));
        let Error::Io(other) = Error::from(io::Error::other("not ours")) else { panic!() };
        assert_eq!((other.kind(), other.to_string()), (io::ErrorKind::Other, String::from("not ours")));
        let Error::Io(system) = Error::from(io::Error::from_raw_os_error(2)) else { panic!() };
        assert_eq!(system.raw_os_error(), Some(2));
    }

    #[test]
    fn source_is_never_what_display_says() {
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
    fn one_line_without_a_byte_of_the_wire() {
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
    fn nothing_unprintable_comes_through() {
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
    fn bytes_of_a_line_are_in_the_error_to_be_asked_for() {
        let Error::Line(line) = Error::from(io::Error::from(bad_line())) else { panic!() };
        assert_eq!(line.bytes(), &Bytes::from_static(b"\x1bz~\n"));
    }
}
