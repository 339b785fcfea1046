//! Passes values to the parsers of the command line.
//!
//! A parser must accept what a naive parser accepts. A printed value must parse to the same value.
//! An error about a bad value must be one line that cannot control a terminal.
//!
//! The crate that includes this file must have the command line's modules at its root. The tests of
//! the command line and the fuzz target do so.

use std::fmt::Debug;

use clap::{Args, Command, FromArgMatches};

use crate::address::Address;
use crate::framing::Framing;
use crate::units::Limit;
use crate::{show, units};

/// Words that bytes of 128 and above stand for, so that one input byte can be worth a word.
const WORDS: &[&str] = &[
    "k",
    "M",
    "G",
    "K",
    "0",
    "1024",
    "18446744073709551615",
    "99999999999999999999",
    "ms",
    "s",
    "m",
    "h",
    "us",
    "days",
    "y",
    " ",
    "none",
    "off",
    "newline",
    "lf",
    "crlf",
    "nul",
    "byte:",
    "any:",
    "sequence:",
    "0d0a",
    "0d",
    "0a",
    "ff",
    "[::1]",
    "localhost",
    "127.0.0.1",
    ":",
    ":0",
    ":65535",
    ":65536",
    "/",
    "./",
    "@",
    "://",
    "tls://",
    "sd-listen",
    "+",
    "-",
    "世",
    "\u{202e}",
    "\u{85}",
    "\u{1b}[31m",
    "\\x1b",
    "\n",
    "\r",
];

pub(crate) fn run(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let text: String = data
        .iter()
        .map(|byte| match byte {
            0..128 => char::from(*byte).to_string(),
            _ => WORDS[usize::from(byte - 128) % WORDS.len()].to_owned(),
        })
        .collect();
    match which % 6 {
        0 => size(&text),
        1 => duration(&text),
        2 => limit(&text),
        3 => address(&text),
        4 => delimiter(&text, which & 8 != 0),
        _ => escapes(data, &text),
    }
}

/// Checks the errors of a parser. The command line escapes a value before it prints an error about
/// the value, so the error for the escaped value must need no escapes.
fn check_error<T: Debug, E: ToString>(text: &str, parse: impl Fn(&str) -> Result<T, E>) {
    if let Err(error) = parse(&show::escaped(text.as_bytes())) {
        let said = error.to_string();
        assert!(!said.is_empty() && !said.contains(show::needs_escape), "{said:?}");
    }
    if let Err(error) = parse(text) {
        assert!(!error.to_string().contains(['\n', '\r']), "{:?}", error.to_string());
    }
}

/// Parses a number of ASCII digits. Returns `None` if it has 30 or more digits after leading zeros.
fn number(text: &str) -> Option<u128> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number with more digits is larger than any limit.
    let digits = text.trim_start_matches('0');
    (is_number && digits.len() < 30)
        .then(|| digits.bytes().fold(0, |all, digit| all * 10 + u128::from(digit - b'0')))
}

fn naive_size(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits).and_then(|number| usize::try_from(number << shift).ok())
}

fn size(text: &str) {
    let size = units::size(text);
    assert_eq!(size.as_ref().ok(), naive_size(text).as_ref(), "{text:?}");
    if let Ok(size) = size {
        assert_eq!(units::size(&size.to_string()), Ok(size));
    }
    check_error(text, units::size);
}

fn duration(text: &str) {
    if let Ok(duration) = units::duration(text) {
        let printed = humantime::format_duration(duration).to_string();
        assert_eq!(units::duration(&printed), Ok(duration), "{text:?} is printed as {printed:?}");
    }
    check_error(text, units::duration);
}

fn limit(text: &str) {
    let size = units::limit(units::size);
    let expected = match text {
        "none" | "off" => Some(Limit(None)),
        _ => naive_size(text).map(|size| Limit(Some(size))),
    };
    assert_eq!(size(text).ok(), expected, "{text:?}");
    check_error(text, size);
}

fn address(text: &str) {
    let address: Result<Address, String> = text.parse();
    match &address {
        Ok(Address::Abstract(name)) => {
            assert_eq!(Some(&name[..]), text.strip_prefix('@').map(str::as_bytes));
            assert!(!name.is_empty());
        }
        Ok(Address::Unix(path)) => {
            assert_eq!(path.to_str(), Some(text));
            assert!(text.contains('/') && !text.starts_with('@'));
        }
        Ok(Address::Tcp(address)) => {
            assert_eq!(address, text);
            let (host, port) = text.rsplit_once(':').expect("a port");
            assert!(number(port).is_some_and(|port| port <= 65535), "{text:?}");
            assert!(!host.is_empty() && !text.contains('/'), "{text:?}");
            assert!(!host.contains(':') || host.starts_with('[') && host.ends_with(']'), "{text:?}");
        }
        Err(_) => {
            // Text that starts with `./` or `/` is always a path. A host name with `:8083` is
            // always an address.
            assert!(!text.starts_with("./") && !text.starts_with('/'), "{text:?}");
            let host = text.strip_suffix(":8083").unwrap_or_default();
            assert!(!host.bytes().all(|byte| byte.is_ascii_lowercase()) || host.is_empty(), "{text:?}");
        }
    }
    if let Ok(address) = address {
        let printed = address.to_string();
        assert!(!printed.contains(show::needs_escape));
        if printed == text {
            assert_eq!(printed.parse(), Ok(address));
        } else {
            assert!(text.contains(show::needs_escape), "{text:?} is printed as {printed:?}");
            assert_eq!(printed.parse::<Address>().map(|address| address.to_string()), Ok(printed));
        }
    }
    check_error(text, str::parse::<Address>);
}

/// Returns the terminator that the delimiter writes, or `None` if `text` is not a delimiter.
fn naive_delimiter(text: &str) -> Option<Vec<u8>> {
    let (kind, digits) = text.split_once(':').unwrap_or((text, ""));
    let is_hex = digits.len() % 2 == 0 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let bytes = |most: usize| {
        let all: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16))
            .collect::<Result<_, _>>()
            .ok()?;
        (1..=most).contains(&all.len()).then_some(all)
    };
    match (kind, text.contains(':')) {
        ("newline" | "lf", false) => Some(b"\n".to_vec()),
        ("crlf", false) => Some(b"\r\n".to_vec()),
        ("nul", false) => Some(b"\0".to_vec()),
        ("byte", true) if is_hex => bytes(1),
        ("any", true) if is_hex => bytes(usize::MAX).map(|set| set[..1].to_vec()),
        ("sequence", true) if is_hex => bytes(64),
        _ => None,
    }
}

fn delimiter(text: &str, crlf: bool) {
    let parse = |text: &str| {
        let mut words = vec!["lines".to_owned(), format!("--delimiter={text}")];
        words.extend(crlf.then(|| "--crlf".to_owned()));
        let matches = Framing::augment_args(Command::new("lines")).try_get_matches_from(words)?;
        Framing::from_arg_matches(&matches)
    };
    let given = parse(text).map(|framing| framing.terminator().to_vec()).ok();
    let expected = match naive_delimiter(text) {
        Some(_) if crlf && text == "newline" => Some(b"\r\n".to_vec()),
        expected => expected,
    };
    assert_eq!(given, expected, "{text:?}");
    // clap adds lines of its own before and after the parser's error.
    if let Err(error) = parse(&show::escaped(text.as_bytes())) {
        let said = error.to_string();
        assert!(
            said.starts_with("error: ") && !said.replace('\n', "").contains(show::needs_escape),
            "{said:?}"
        );
    }
}

fn escapes(bytes: &[u8], text: &str) {
    for bytes in [bytes, text.as_bytes()] {
        let shown = show::escaped(bytes);
        assert!(!shown.contains(show::needs_escape), "{shown:?}");
        assert_eq!(show::escaped(shown.as_bytes()), shown);
        assert!(shown.len() <= 10 * bytes.len());
        let steers = std::str::from_utf8(bytes).map_or(true, |text| text.contains(show::needs_escape));
        assert_eq!(shown.as_bytes() != bytes, steers, "{bytes:?}");
        let shown = show::escaped_except(bytes, "\t\n");
        assert!(!shown.contains(|character| show::needs_escape(character) && !"\t\n".contains(character)));
    }
}
