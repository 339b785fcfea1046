//! Line readers in other languages, run as programs. Each line of input is a question, and the
//! program answers each with one line:
//!
//! ```text
//! read LIMIT READ READ ..     LIMIT: a number or -; each READ in hexadecimal
//! write LINE                  LINE in hexadecimal
//! next                        a question that no program supports
//! ```
//!
//! An answer is a list of words, or `-` if the program does not support the question:
//!
//! - `line=HEX`: a line that was read.
//! - `wrote=HEX`: the bytes that were written.
//! - `error`: the reader reported an error.
//! - `end`: the reader stopped before the end of the stream.
//! - `held=N`: the reader holds N bytes after the last read.
//! - `eof`: everything after this word came only at the end of the stream.

#![allow(dead_code, unreachable_pub)]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program in this folder and the command that runs it.
pub struct Program {
    command: Command,
    /// Arguments that show if the language is installed.
    version: &'static [&'static str],
}

/// The answers of a program, one for each question.
pub struct Answers {
    /// The version of the language.
    pub version: String,
    pub answers: Vec<String>,
}

impl Program {
    pub fn go(file: &str) -> Self {
        let mut command = Command::new("go");
        // Keeps Go's caches out of the home directory, which may not exist, and disables network
        // access.
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        command.env("GOCACHE", scratch.join("go-cache")).env("GOPATH", scratch.join("go-path"));
        command.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
        command.arg("run").arg(path(file));
        Self { command, version: &["version"] }
    }

    pub fn python(file: &str) -> Self {
        let mut command = Command::new("python3");
        command.arg(path(file));
        Self { command, version: &["--version"] }
    }

    pub fn java(class_path: &str, file: &str) -> Self {
        let mut command = Command::new("java");
        command.args(["-cp", class_path]).arg(path(file));
        // A Java runtime without the compiler cannot run a source file.
        Self { command, version: &["--describe-module", "jdk.compiler"] }
    }

    /// Runs the program once with all questions. If its language is not installed, prints that and
    /// returns `None`.
    pub fn ask(mut self, questions: impl Iterator<Item = String>) -> Option<Answers> {
        let name = self.command.get_program().to_string_lossy().into_owned();
        let version = match Command::new(&name).args(self.version).output() {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
            _ => {
                skipped(&name);
                return None;
            }
        };
        let input: String = questions.map(|question| question + "\n").collect();
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let asked = input.lines().count();
        // Writes the questions in another thread, because the program answers before it has read
        // them all.
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input.as_bytes()));
            child.wait_with_output().unwrap()
        });
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let answers = String::from_utf8(output.stdout).unwrap();
        let answers: Vec<String> = answers.lines().map(String::from).collect();
        assert_eq!(answers.len(), asked, "{name}");
        Some(Answers { version: version.trim().lines().next().unwrap_or(&name).into(), answers })
    }
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file)
}

/// Writes to stderr directly, because the test harness hides the output of passing tests.
pub fn skipped(what: &str) {
    _ = writeln!(io::stderr(), "skipped: {what} is not installed");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
