//! What ends a connection, or refuses what was asked of it: [`Error`].

use core::error::Error as StdError;
use core::fmt::{self, Write as _};
use std::io;

use crate::error::{EncodeError, LineError, TooManyBytes};

/// The connection is gone, or what was asked of it cannot be done. Which of the two, and what happens next, is said at
/// each variant.
///
/// A bad line is none of this: it is an item of [`next_line`](crate::Connection::next_line), and the next line comes
/// behind it. Only where one good item was promised is it an error, as [`Line`](Self::Line).
///
/// Converts into [`io::Error`] and back without loss: `Error::from(io::Error::from(error))` is `error` again. So a
/// handler may return [`io::Result`], and who gets its error can still ask which deadline it was:
///
/// ```
/// use std::io;
/// use lineframe::{Error, Timeout};
///
/// let from_a_handler = io::Error::from(Error::Timeout(Timeout::Line));
/// assert_eq!(from_a_handler.kind(), io::ErrorKind::TimedOut);
/// assert!(matches!(Error::from(from_a_handler), Error::Timeout(Timeout::Line)));
/// ```
///
/// `Display` and `Debug` are one line, and without a byte that came over the wire. What the system or the stream said
/// of an [`Io`](Self::Io) error has its control characters escaped.
#[non_exhaustive]
pub enum Error {
    /// The stream failed, or is gone already. As [`io::Error`] it is the error within, unchanged.
    Io(io::Error),
    /// A deadline is over. The connection is given up; what the peer has not taken of the output is lost. As
    /// [`io::Error`]: `TimedOut`.
    Timeout(Timeout),
    /// The peer has sent more bad lines than `max_bad_lines` allows. Output goes out, then the connection is closed. As
    /// [`io::Error`]: `InvalidData`.
    TooManyBadLines,
    /// The peer speaks HTTP or TLS, and the server was told to refuse that. It has been told so in one line; nothing that it
    /// sent was or will be handed over. As [`io::Error`]: `InvalidData`.
    NotLines,
    /// The stream was to change hands while input was left that nobody had read: commands sent in clear behind a
    /// `STARTTLS`, say. Nothing was handed over. As [`io::Error`]: `InvalidData`.
    LeftOver {
        /// How many bytes had been received and not read.
        bytes: usize,
    },
    /// Your line was refused. Nothing of it was written, and the connection goes on. As [`io::Error`]: `InvalidInput`.
    Encode(EncodeError),
    /// Your count was refused. Nothing was read, and the connection goes on. As [`io::Error`]: `InvalidInput`.
    TooManyBytes(TooManyBytes),
    /// The item is a bad line, where a good one was promised. The connection goes on behind it. As [`io::Error`]:
    /// `InvalidData`.
    Line(LineError),
    /// The stream has ended, where an item was promised. Output still goes out. As [`io::Error`]: `UnexpectedEof`.
    Eof,
}

/// Which deadline is over: part of [`Error::Timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Timeout {
    /// `idle_timeout`: nothing came, between lines or within a body of any length.
    Idle,
    /// `line_timeout`: a line, or a counted block, had begun and was not whole in time.
    Line,
    /// `write_timeout`: the peer did not take the output in time.
    Write,
    /// `handshake_timeout`: what stands between accept and handler was not over in time.
    Handshake,
    /// `connect_timeout`: no connection came about in time.
    Connect,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "nothing received in time (idle_timeout)",
            Self::Line => "line or block not whole in time (line_timeout)",
            Self::Write => "output not taken by the peer in time (write_timeout)",
            Self::Handshake => "handshake not over in time (handshake_timeout)",
            Self::Connect => "no connection in time (connect_timeout)",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{}", Escaped(error)),
            Self::Timeout(timeout) => write!(f, "{timeout}"),
            Self::TooManyBadLines => f.write_str("more bad lines than the limit (max_bad_lines)"),
            Self::NotLines => f.write_str("HTTP or TLS where lines were to come"),
            Self::LeftOver { bytes } => {
                write!(f, "{bytes} bytes of input not read when the stream was to be handed over")
            }
            Self::Encode(error) => write!(f, "{error}"),
            Self::TooManyBytes(error) => write!(f, "{error}"),
            Self::Line(error) => write!(f, "{error}"),
            Self::Eof => f.write_str("stream ended before what was to come"),
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
            Self::TooManyBytes(_) => "TooManyBytes",
            Self::Line(_) => "Line",
            Self::Eof => "Eof",
        };
        write!(f, "{kind}({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::TooManyBytes(error) => Some(error),
            Self::Line(error) => Some(error),
            Self::Timeout(_) | Self::TooManyBadLines | Self::NotLines | Self::LeftOver { .. } | Self::Eof => {
                None
            }
        }
    }
}

/// Finds an [`Error`], [`LineError`], [`EncodeError`] or [`TooManyBytes`] that went into the [`io::Error`]; any other
/// is [`Error::Io`] as it is.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        error
            .downcast()
            .or_else(|error| error.downcast().map(Self::Line))
            .or_else(|error| error.downcast::<EncodeError>().map(Self::from))
            .or_else(|error| error.downcast().map(Self::TooManyBytes))
            .unwrap_or_else(Self::Io)
    }
}

impl From<LineError> for Error {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

/// [`EncodeError::Io`] is the stream's failure, so [`Error::Io`].
impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Io(error) => Self::from(error),
            refused => Self::Encode(refused),
        }
    }
}

impl From<TooManyBytes> for Error {
    fn from(error: TooManyBytes) -> Self {
        Self::TooManyBytes(error)
    }
}

/// What stands in the [`io::Error`] of `Line`, `Encode` and `TooManyBytes` is the error within, as where that one is
/// converted itself; in that of the others, but for `Io`, it is the [`Error`].
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Io(error) => return error,
            Error::Encode(error) => return error.into(),
            Error::TooManyBytes(error) => return error.into(),
            Error::Line(error) => return error.into(),
            Error::Timeout(_) => io::ErrorKind::TimedOut,
            Error::TooManyBadLines | Error::NotLines | Error::LeftOver { .. } => io::ErrorKind::InvalidData,
            Error::Eof => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// What the system or a caller said, as one line that steers no terminal: whatever is not printable is written out, as
/// `\n` or `\u{202e}`.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        EscapedTo(f).write_fmt(format_args!("{}", self.0))
    }
}

struct EscapedTo<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for EscapedTo<'_, '_> {
    fn write_str(&mut self, said: &str) -> fmt::Result {
        said.chars().try_for_each(|character| match character {
            '"' | '\'' | '\\' => self.0.write_char(character),
            character => write!(self.0, "{}", character.escape_debug()),
        })
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

    const TIMEOUTS: [Timeout; 5] =
        [Timeout::Idle, Timeout::Line, Timeout::Write, Timeout::Handshake, Timeout::Connect];

    fn bad_line() -> LineError {
        let mut codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(9).build();
        codec.decode(&mut BytesMut::from("\x1bz~\n\r\n")).unwrap().unwrap().unwrap_err()
    }

    fn refused_line() -> EncodeError {
        LineCodec::new().encode_line(b"z\n~", &mut BytesMut::new()).unwrap_err()
    }

    fn refused_count() -> TooManyBytes {
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
            (Error::TooManyBytes(refused_count()), InvalidInput),
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
                Error::Encode(_) | Error::TooManyBytes(_) | Error::Line(_) | Error::Eof => {}
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
        let Error::TooManyBytes(count) = Error::from(io::Error::from(refused_count())) else { panic!() };
        assert_eq!(count, refused_count());
    }

    #[test]
    fn an_error_of_the_codec_is_found_in_an_io_error_and_other_ones_are_left_as_they_are() {
        assert!(matches!(Error::from(io::Error::from(bad_line())), Error::Line(_)));
        assert!(matches!(Error::from(io::Error::from(refused_line())), Error::Encode(_)));
        assert!(matches!(Error::from(io::Error::from(refused_count())), Error::TooManyBytes(_)));
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
    fn a_stream_that_fails_below_the_encoder_is_the_streams_error() {
        let failed = || EncodeError::Io(io::ErrorKind::BrokenPipe.into());
        assert!(
            matches!(Error::from(failed()), Error::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
        );
        assert!(matches!(Error::from(EncodeError::Io(Error::Eof.into())), Error::Eof));
        let as_io = io::Error::from(Error::Encode(failed()));
        assert_eq!(as_io.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_source_is_the_error_within() {
        for (error, _) in errors() {
            let within =
                matches!(error, Error::Io(_) | Error::Encode(_) | Error::TooManyBytes(_) | Error::Line(_));
            assert_eq!(error.source().is_some(), within, "{error:?}");
        }
        assert!(Error::from(bad_line()).source().is_some_and(|source| source.is::<LineError>()));
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
