//! What a line is: the options that every command has which reads or writes lines.

use std::str::FromStr;

use lineframe::scan::Scanner;
use lineframe::{Delimiter, LineCodec, LineCodecBuilder, Unterminated};

use crate::units;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Lines")]
pub(crate) struct Framing {
    /// What ends a line: newline (LF or CRLF), lf, crlf (nothing else), nul, byte:HEX, any:HEX (each byte of a set) or
    /// sequence:HEX
    #[arg(long, value_name = "DELIMITER", default_value = "newline")]
    delimiter: Ending,

    /// Write CRLF, where the delimiter is newline. It reads both
    #[arg(long)]
    crlf: bool,

    /// The longest line, its terminator not counted
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64k")]
    pub(crate) max_length: usize,
}

impl Default for Framing {
    fn default() -> Self {
        Self { delimiter: Ending(Delimiter::Newline), crlf: false, max_length: 64 << 10 }
    }
}

impl Framing {
    /// At the start of a stream.
    #[allow(dead_code, reason = "used by the commands to come")]
    pub(crate) fn codec(&self) -> LineCodec {
        self.builder().build()
    }

    /// For who passes on the terminators too.
    pub(crate) fn scanner(&self, unterminated: Unterminated) -> Scanner {
        Scanner::new(self.delimiter.0.clone(), self.max_length, unterminated)
    }

    /// What a line without a terminator is given.
    pub(crate) fn terminator(&self) -> &[u8] {
        if self.rewrites() { b"\r\n" } else { self.delimiter.0.written() }
    }

    /// Whether each line is given that, whatever it came with.
    pub(crate) fn rewrites(&self) -> bool {
        self.crlf && self.delimiter.0 == Delimiter::Newline
    }

    /// The same, for who sets more than that.
    pub(crate) fn builder(&self) -> LineCodecBuilder {
        let builder = LineCodec::builder().delimiter(self.delimiter.0.clone());
        builder.write_crlf(self.crlf).max_length(self.max_length)
    }
}

/// A delimiter as it is written on the command line.
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
                let bytes = bytes(digits).ok_or("HEX is two digits for each byte, such as 0d0a")?;
                match (kind, &bytes[..]) {
                    ("byte", [byte]) => Delimiter::Byte(*byte),
                    ("byte", _) => return Err("byte:HEX is one byte: two digits".into()),
                    ("any", set) => Delimiter::any_of(set).map_err(|error| error.to_string())?,
                    ("sequence", bytes) => Delimiter::sequence(bytes).map_err(|error| error.to_string())?,
                    _ => return Err(NONE.into()),
                }
            }
        };
        Ok(Self(delimiter))
    }
}

const NONE: &str = "a delimiter is newline, lf, crlf, nul, byte:HEX, any:HEX or sequence:HEX";

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
    fn each_kind_of_delimiter_can_be_named() {
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
