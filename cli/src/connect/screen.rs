use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};

use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode, size};
use crossterm::{Command, queue};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::editor::Editor;
use crate::lines::Line;
use crate::show;

/// The screen: replies on stdout and, below them, the input line on the terminal. The terminal is
/// in raw mode while a `Screen` exists.
pub(super) struct Screen {
    /// Terminal with the input line: stderr, otherwise stdout or the controlling terminal.
    terminal: Box<dyn Write + Send>,
    /// Whether stdout is a terminal. If so, the input line is cleared before replies are printed.
    replies_are_on_it: bool,
    escapes: bool,
    /// Text in the row of the input line; empty if the row is clear.
    drawn: String,
}

/// Clears the current row.
const CLEAR: &str = "\r\x1b[K";

impl Screen {
    pub(super) fn new(escapes: bool) -> io::Result<Self> {
        let terminal: Box<dyn Write + Send> = match () {
            () if io::stderr().is_terminal() => Box::new(io::stderr()),
            () if io::stdout().is_terminal() => Box::new(io::stdout()),
            () => Box::new(OpenOptions::new().write(true).open(TERMINAL)?),
        };
        let replies_are_on_it = io::stdout().is_terminal();
        let mut screen = Self { terminal, replies_are_on_it, escapes, drawn: String::new() };
        screen.take_over().map(|()| screen)
    }

    fn take_over(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        self.steer(EnableBracketedPaste)
    }

    fn give_back(&mut self) {
        self.clear();
        _ = self.steer(DisableBracketedPaste);
        _ = disable_raw_mode();
    }

    fn steer(&mut self, command: impl Command) -> io::Result<()> {
        queue!(self.terminal, command)?;
        self.terminal.flush()
    }

    /// Prints these lines, unchanged if stdout is not a terminal and escaping is off.
    pub(super) fn replies(&mut self, bytes: &[u8], lines: &[Line]) -> io::Result<()> {
        let mut printed = Vec::new();
        for line in lines {
            let content = &bytes[line.content.clone()];
            match self.escapes {
                true => printed.extend_from_slice(show::escaped(content).as_bytes()),
                false if self.replies_are_on_it => printed.extend_from_slice(content),
                false => printed.extend_from_slice(&bytes[line.whole.clone()]),
            }
            if self.replies_are_on_it {
                printed.extend_from_slice(b"\r\n");
            } else if self.escapes {
                printed.push(b'\n');
            }
        }
        self.make_room();
        let mut stdout = io::stdout().lock();
        stdout.write_all(&printed)?;
        stdout.flush()
    }

    /// Prints a note to stderr, above the input line.
    pub(super) fn note(&mut self, note: fmt::Arguments<'_>) {
        self.make_room();
        match io::stderr().is_terminal() {
            true => _ = write!(io::stderr(), "{}\r\n", note.to_string().replace('\n', "\r\n")),
            false => show::note(note),
        }
    }

    /// Prints an entered line in full; it stays on the screen.
    pub(super) fn leave(&mut self, line: &str) {
        let line = show::escaped(line.as_bytes());
        self.write(&format!("{CLEAR}> {line}\r\n"));
        self.drawn.clear();
    }

    /// Redraws the input line: the part around the cursor that fits into the row.
    pub(super) fn draw(&mut self, editor: &Editor) {
        let columns = size().map_or(80, |(columns, _)| usize::from(columns));
        // Limits the work for long lines. Combining characters take no column, hence the factor.
        let most = 4 * columns;
        let (before, after) = editor.line();
        let before = show::escaped(last_characters(before, most).as_bytes());
        let after = show::escaped(first_characters(after, most).as_bytes());
        let prompt = editor.prompt();
        let prompt = show::escaped(last_characters(&prompt, most).as_bytes());
        let prompt = last(&prompt, (columns / 2).max("> ".len()));
        // Reserve one column for the cursor.
        let room = columns.saturating_sub(prompt.width() + 1);
        let before = last(&before, room - after.width().min(room / 4));
        let after = first(&after, room.saturating_sub(before.width()));
        let cursor = prompt.width() + before.width();
        let drawn = format!("{CLEAR}{prompt}{before}{after}\r\x1b[{cursor}C");
        if drawn != self.drawn {
            self.write(&drawn);
            self.drawn = drawn;
        }
    }

    /// Clears the whole screen.
    pub(super) fn clear_all(&mut self) {
        self.write("\x1b[H\x1b[2J");
        self.drawn.clear();
    }

    /// Clears the input line until the next `draw`.
    fn clear(&mut self) {
        if !self.drawn.is_empty() {
            self.write(CLEAR);
            self.drawn.clear();
        }
    }

    /// Moves below the input line, which stays on the screen.
    pub(super) fn end(&mut self) {
        if !self.drawn.is_empty() {
            self.write("\r\n");
            self.drawn.clear();
        }
    }

    fn make_room(&mut self) {
        if self.replies_are_on_it || io::stderr().is_terminal() {
            self.clear();
        }
    }

    /// Writes to the terminal. Ignores errors: only the input line is lost.
    fn write(&mut self, text: &str) {
        _ = self.terminal.write_all(text.as_bytes()).and_then(|()| self.terminal.flush());
    }

    /// Restores the terminal and suspends the process, like Ctrl-Z. Takes the terminal over again
    /// when the process continues.
    #[cfg(unix)]
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.end();
        self.give_back();
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        self.take_over()
    }

    #[cfg(not(unix))]
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(unix)]
const TERMINAL: &str = "/dev/tty";
#[cfg(not(unix))]
const TERMINAL: &str = "CONOUT$";

/// Returns at most the last `most` characters.
fn last_characters(text: &str, most: usize) -> &str {
    text.char_indices().rev().take(most).last().map_or("", |(start, _)| &text[start..])
}

/// Returns at most the first `most` characters.
fn first_characters(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// Returns the longest end of `text` that fits into `room` columns.
fn last(text: &str, room: usize) -> &str {
    let mut width = 0;
    let start = text.char_indices().rev().take_while(|(_, c)| {
        width += c.width().unwrap_or(0);
        width <= room
    });
    start.last().map_or("", |(start, _)| &text[start..])
}

/// Returns the longest beginning of `text` that fits into `room` columns.
fn first(text: &str, room: usize) -> &str {
    let mut width = 0;
    let end = text.char_indices().find(|(_, c)| {
        width += c.width().unwrap_or(0);
        width > room
    });
    end.map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::{first, last};

    #[test]
    fn text_is_cut_to_width() {
        for (text, room, at_the_end, at_the_start) in [
            ("abc", 3, "abc", "abc"),
            ("abc", 2, "bc", "ab"),
            ("abc", 0, "", ""),
            ("世界", 3, "界", "世"),
            ("", 3, "", ""),
        ] {
            assert_eq!((last(text, room), first(text, room)), (at_the_end, at_the_start), "{text} {room}");
        }
    }
}
