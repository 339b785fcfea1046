use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use pty_process::Size;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use vt100::Parser;

use super::Watch;

/// A command on a terminal with 24 rows and 80 columns. It is killed when dropped.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    /// Everything that the command has written to the terminal.
    pub(crate) shown: Watch,
    screen: RefCell<Screen>,
    /// Stdout, if it is a pipe instead of the terminal.
    pub(crate) piped: Option<Watch>,
}

impl Terminal {
    pub(crate) fn start(command: Command) -> Self {
        Self::open(pty_process::blocking::Command::from(command))
    }

    pub(crate) fn with_piped_stdout(command: Command) -> Self {
        Self::open(pty_process::blocking::Command::from(command).stdout(Stdio::piped()))
    }

    pub(crate) fn with_stdin(command: Command, stdin: File) -> Self {
        Self::open(pty_process::blocking::Command::from(command).stdin(stdin))
    }

    pub(crate) fn with_stdin_and_piped_stdout(command: Command, stdin: File) -> Self {
        Self::open(pty_process::blocking::Command::from(command).stdin(stdin).stdout(Stdio::piped()))
    }

    fn open(command: pty_process::blocking::Command) -> Self {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(Size::new(24, 80)).unwrap();
        let mut child = command.spawn(pts).unwrap();
        let keys = File::from(OwnedFd::from(pty));
        let shown = Watch::of(keys.try_clone().unwrap());
        Self { keys, shown, screen: RefCell::default(), piped: child.stdout.take().map(Watch::of), child }
    }

    pub(crate) fn type_keys(&self, keys: &str) {
        (&self.keys).write_all(keys.as_bytes()).unwrap();
    }

    /// Types `keys` from another thread, as fast as the command reads.
    pub(crate) fn paste(&self, keys: String) {
        let mut terminal = self.keys.try_clone().unwrap();
        thread::spawn(move || _ = terminal.write_all(keys.as_bytes()));
    }

    /// Waits until the screen, from the first prompt on, is exactly `expected`. `_` marks the
    /// cursor.
    pub(crate) fn until(&self, expected: &str) {
        let mut screen = self.screen.borrow_mut();
        self.shown.until(&format!("screen with\n{expected}\n"), |bytes| screen.dialogue(bytes) == expected);
    }

    /// Waits until the command has closed the terminal and ended.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.shown.to_end();
        self.wait()
    }

    /// Waits until the command has ended, while the terminal stays open.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the CPU time that the command has used, in ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after_name) = stat.rsplit_once(')').unwrap();
        // Fields `utime` and `stime` of proc_pid_stat(5).
        let times = after_name.split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Returns the terminal's local modes, such as echo.
    pub(crate) fn mode(&self) -> LocalModes {
        tcgetattr(&self.keys).unwrap().local_modes
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("terminal, {}", self.shown.so_far());
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[derive(Default)]
struct Screen {
    parser: Parser,
    parsed: usize,
}

impl Screen {
    /// Returns the screen from the first prompt on, after all bytes of `shown`. Parses only the
    /// bytes added since the last call.
    fn dialogue(&mut self, shown: &[u8]) -> String {
        self.parser.process(&shown[self.parsed..]);
        self.parsed = shown.len();
        let screen = self.parser.screen();
        let (cursor_row, cursor_column) = screen.cursor_position();
        let mut rows: Vec<_> = screen.rows(0, 80).map(|row| row.trim_end().to_owned()).collect();
        let cells = |columns: std::ops::Range<u16>| {
            let cells = columns.filter_map(|column| screen.cell(cursor_row, column));
            let texts = cells.filter(|cell| !cell.is_wide_continuation()).map(|cell| match cell.contents() {
                "" => " ",
                text => text,
            });
            texts.collect::<String>()
        };
        let (before, after) = (cells(0..cursor_column), cells(cursor_column..80));
        rows[usize::from(cursor_row)] = format!("{before}_{}", after.trim_end());
        let from_prompt = rows.iter().skip_while(|row| !row.starts_with("> ") && *row != ">");
        from_prompt.map(String::as_str).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}
