//! Framing options, shared by all commands that read or write lines.

use std::str::FromStr;

use lineframe::scan::Scanner;
use lineframe::{Delimiter, LineCodec, LineCodecBuilder, Unterminated};

use crate::units;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Lines")]
pub(crate) struct Framing {
    /// Line delimiter: newline (LF or CRLF), lf, crlf (a lone CR or LF is an error), nul, byte:HEX,
    /// any:HEX (any byte of the set) or sequence:HEX
    #[arg(long, value_name = "DELIMITER", default_value = "newline")]
    delimiter: Ending,

    /// Write CRLF if the delimiter is newline. Reading accepts LF and CRLF
    #[arg(long)]
    crlf: bool,

    /// Longest line, without its terminator
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64k")]
    pub(crate) max_length: usize,
}

impl Default for Framing {
    fn default() -> Self {
        Self { delimiter: Ending(Delimiter::Newline), crlf: false, max_length: 64 << 10 }
    }
}

impl Framing {
    /// Returns a codec for the start of a stream.
    pub(crate) fn codec(&self) -> LineCodec {
        self.builder().build()
    }

    /// Returns a scanner for commands that keep the original terminators.
    pub(crate) fn scanner(&self, unterminated: Unterminated) -> Scanner {
        Scanner::new(self.delimiter.0.clone(), self.max_length, unterminated)
    }

    /// Returns the terminator to write after a line that has none.
    pub(crate) fn terminator(&self) -> &[u8] {
        if self.rewrites() { b"\r\n" } else { self.delimiter.0.written() }
    }

    /// Returns whether every terminator is replaced by CRLF.
    pub(crate) fn rewrites(&self) -> bool {
        self.crlf && self.delimiter.0 == Delimiter::Newline
    }

    /// Returns a codec builder with the framing options applied.
    pub(crate) fn builder(&self) -> LineCodecBuilder {
        let builder = LineCodec::builder().delimiter(self.delimiter.0.clone());
        builder.write_crlf(self.crlf).max_length(self.max_length)
    }
}

/// Delimiter as parsed from the command line.
#[derive(Clone, Debug)]
struct Ending(Delimiter);

impl FromStr for Ending {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let delimiter = match text.split_once(':') {
            None => match text {
                "newline" => Delimiter::Newline,
                "lf" => Delimiter::Lf,
                "crlf" => Delimiter::CrLf,
                "nul" => Delimiter::Byte(0),
                _ => return Err(NONE.into()),
            },
            Some((kind, digits)) => {
                let bytes = bytes(digits).ok_or("HEX must have two digits per byte, such as 0d0a")?;
                match (kind, &bytes[..]) {
                    ("byte", [byte]) => Delimiter::Byte(*byte),
                    ("byte", _) => return Err("byte:HEX takes one byte (two digits), such as byte:1e".into()),
                    ("any", set) => Delimiter::any_of(set).map_err(|error| error.to_string())?,
                    ("sequence", bytes) => Delimiter::sequence(bytes).map_err(|error| error.to_string())?,
                    _ => return Err(NONE.into()),
                }
            }
        };
        Ok(Self(delimiter))
    }
}

const NONE: &str = "expected newline, lf, crlf, nul, byte:HEX, any:HEX or sequence:HEX";

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    });
    pairs.collect()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_parsed_by_name() {
        for (text, expected) in [
            ("newline", Some(Delimiter::Newline)),
            ("lf", Some(Delimiter::Lf)),
            ("crlf", Some(Delimiter::CrLf)),
            ("nul", Some(Delimiter::Byte(0))),
            ("byte:1e", Some(Delimiter::Byte(0x1e))),
            ("any:0D0a", Delimiter::any_of(b"\r\n").ok()),
            ("sequence:2e0d0a", Delimiter::sequence(b".\r\n").ok()),
            ("", None),
            ("LF", None),
            ("byte:", None),
            ("byte:0d0a", None),
            ("byte:d", None),
            ("byte:+1", None),
            ("any:", None),
            ("sequence:", None),
            ("sequence:世", None),
            ("other:00", None),
        ] {
            assert_eq!(text.parse::<Ending>().ok().map(|ending| ending.0), expected, "{text}");
        }
    }
}
