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

/// What a person sees: replies on stdout, and below them, on the terminal, the line that they type. The terminal is in raw
/// mode from its making to its drop.
pub(super) struct Screen {
    /// Where the line is: stderr, or another way to the terminal where that leads elsewhere.
    terminal: Box<dyn Write + Send>,
    /// Where stdout goes to a terminal too, and the line has to make room.
    replies_are_on_it: bool,
    escapes: bool,
    /// What stands on the row of the line; empty where nothing does.
    drawn: String,
}

/// Takes away what is on the row.
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

    /// Prints these lines, with all their bytes where nothing else is asked for.
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

    /// Says something on stderr.
    pub(super) fn note(&mut self, note: fmt::Arguments<'_>) {
        self.make_room();
        match io::stderr().is_terminal() {
            true => _ = write!(io::stderr(), "{}\r\n", note.to_string().replace('\n', "\r\n")),
            false => show::note(note),
        }
    }

    /// Leaves a line that was entered where it stands, in full.
    pub(super) fn leave(&mut self, line: &str) {
        let line = show::escaped(line.as_bytes());
        self.write(&format!("{CLEAR}> {line}\r\n"));
        self.drawn.clear();
    }

    /// Brings the row up to date: as much of the line as there is room for, with the cursor in it.
    pub(super) fn draw(&mut self, editor: &Editor) {
        let columns = size().map_or(80, |(columns, _)| usize::from(columns));
        // Each character needs a column, except combining ones.
        let most = 4 * columns;
        let (before, behind) = editor.line();
        let before = show::escaped(last_characters(before, most).as_bytes());
        let behind = show::escaped(first_characters(behind, most).as_bytes());
        let prompt = editor.prompt();
        let prompt = show::escaped(last_characters(&prompt, most).as_bytes());
        let prompt = last(&prompt, (columns / 2).max("> ".len()));
        // One column stays free for the cursor.
        let room = columns.saturating_sub(prompt.width() + 1);
        let before = last(&before, room - behind.width().min(room / 4));
        let behind = first(&behind, room.saturating_sub(before.width()));
        let cursor = prompt.width() + before.width();
        let drawn = format!("{CLEAR}{prompt}{before}{behind}\r\x1b[{cursor}C");
        if drawn != self.drawn {
            self.write(&drawn);
            self.drawn = drawn;
        }
    }

    /// Empties the whole screen.
    pub(super) fn clear_all(&mut self) {
        self.write("\x1b[H\x1b[2J");
        self.drawn.clear();
    }

    /// Takes the line away, until it is drawn anew.
    fn clear(&mut self) {
        if !self.drawn.is_empty() {
            self.write(CLEAR);
            self.drawn.clear();
        }
    }

    /// Leaves the line where it stands.
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

    /// Who sees nothing of it has no line to see either.
    fn write(&mut self, text: &str) {
        _ = self.terminal.write_all(text.as_bytes()).and_then(|()| self.terminal.flush());
    }

    /// Stops the process until it is told to go on, with the terminal as it was before.
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

/// At most so many of its last characters.
fn last_characters(text: &str, most: usize) -> &str {
    text.char_indices().rev().take(most).last().map_or("", |(start, _)| &text[start..])
}

/// At most so many of its first characters.
fn first_characters(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// As much of the end of `text` as there is room for.
fn last(text: &str, room: usize) -> &str {
    let mut width = 0;
    let start = text.char_indices().rev().take_while(|(_, c)| {
        width += c.width().unwrap_or(0);
        width <= room
    });
    start.last().map_or("", |(start, _)| &text[start..])
}

/// As much of its beginning.
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
    fn what_has_no_room_is_left_out_at_the_far_end() {
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
