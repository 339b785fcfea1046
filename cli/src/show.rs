//! Output for people, escaped so that it cannot control the terminal.

use std::fmt::{Arguments, Display, Write as _};
use std::io::{self, IsTerminal, Write as _};

use crate::failure::Failure;

/// Writes a line to stderr. Ignores write errors, because there is no other place to report them.
pub(crate) fn note(line: Arguments<'_>) {
    // A single write, because stdout may go to the same terminal.
    _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Prints a line of data to stdout and flushes it.
pub(crate) fn print(line: impl Display) -> Result<(), Failure> {
    print_all(format!("{line}\n").as_bytes())
}

/// Prints data to stdout and flushes it.
pub(crate) fn print_all(data: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(Failure::stdout)
}

/// Escapes untrusted bytes for a terminal.
///
/// Control characters (C0, DEL, C1), bidirectional controls, invisible characters and bytes that
/// are not UTF-8 become `\x1b`, `\u{202e}`, `\u{200b}`, `\xff`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    escaped_except(bytes, "")
}

/// Escapes like [`escaped`], but keeps the characters in `allowed`.
pub(crate) fn escaped_except(bytes: &[u8], allowed: &str) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                ' '..='~' => shown.push(character),
                _ if allowed.contains(character) => shown.push(character),
                _ if !needs_escape(character) => shown.push(character),
                '\0'..='\x7f' => _ = write!(shown, "\\x{:02x}", u32::from(character)),
                _ => shown.extend(character.escape_unicode()),
            }
        }
        for byte in chunk.invalid() {
            _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Returns the count with its noun in singular or plural: `1 line`, `2 lines`, `2 replies`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

/// Returns `1 byte`, `2 bytes` and so on.
pub(crate) fn bytes(count: usize) -> String {
    counted(count as u64, "byte")
}

/// Returns whether a terminal would interpret or hide the character.
///
/// These are control characters, line and paragraph separators, the no-break space, and the Unicode
/// property Default_Ignorable_Code_Point: soft hyphen, zero width, bidirectional controls, fillers,
/// variation selectors, tags.
pub(crate) fn needs_escape(character: char) -> bool {
    matches!(
        character,
        '\0'..'\x20'
            | '\x7f'..='\u{a0}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The option `--escape`, for commands that print bytes received from a peer.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Escaping {
    /// Escape control characters, bidirectional controls and invalid UTF-8 in printed lines; auto
    /// escapes if stdout is a terminal
    #[arg(long = "escape", value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    when: When,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum When {
    #[default]
    Auto,
    Always,
    Never,
}

impl Escaping {
    /// Returns whether output to `stream` must be escaped.
    pub(crate) fn is_on(self, stream: &impl IsTerminal) -> bool {
        match self.when {
            When::Auto => stream.is_terminal(),
            When::Always => true,
            When::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{escaped, escaped_except};

    #[test]
    fn control_characters_and_invalid_utf8_are_escaped() {
        let controls = (0..0xa0).chain(0x2028..=0x202e).chain(0x2066..=0x2069).filter_map(char::from_u32);
        for character in controls.filter(|c| !(' '..='~').contains(c)) {
            let shown = escaped(character.to_string().as_bytes());
            assert!(shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{shown:?}");
        }
        for byte in 0x80..=0xff {
            assert_eq!(escaped(&[b'a', byte, b'z']), format!("a\\x{byte:02x}z"));
        }
    }

    #[test]
    fn invisible_characters_are_escaped() {
        let ranges = [0xa0..=0xa0, 0xad..=0xad, 0x200b..=0x200f, 0x2060..=0x2064, 0xfeff..=0xfeff];
        let ranges = ranges.into_iter().chain([0xfe00..=0xfe0f, 0xe0000..=0xe007f]);
        for character in ranges.flatten().filter_map(char::from_u32) {
            assert_eq!(escaped(character.to_string().as_bytes()), character.escape_unicode().to_string());
        }
    }

    #[test]
    fn allowed_characters_are_kept() {
        assert_eq!(escaped_except(b"a\tb\n\x1b", "\t\n"), "a\tb\n\\x1b");
    }

    #[test]
    fn printable_text_is_unchanged() {
        assert_eq!(escaped("HéLLO 世界 ~".as_bytes()), "HéLLO 世界 ~");
    }
}
