//! Line readers of other languages as programs. Each answers every line of its input, a question, with a line:
//!
//! ```text
//! read LIMIT READ READ ..     LIMIT: a number or -; each READ in hexadecimal
//! write LINE                  LINE in hexadecimal
//! next                        what it cannot do
//! ```
//!
//! The answer is words, or `-` alone where the program has no such thing: `line=HEX`, `wrote=HEX`, `error`, `end` (the
//! reader says that it is done before the stream is), `held=N` (so many bytes are kept after the last read), `eof` (what
//! follows came only with the end of the stream).

#![allow(dead_code, unreachable_pub)]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of this folder and what runs it.
pub struct Program {
    command: Command,
    /// What the language is asked for to see whether it is there.
    version: &'static [&'static str],
}

/// A line for each question.
pub struct Answers {
    /// Of the language.
    pub version: String,
    pub answers: Vec<String>,
}

impl Program {
    pub fn go(file: &str) -> Self {
        let mut command = Command::new("go");
        // Away from the home directory, which may be missing, and from the network.
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
        // A runtime without the compiler cannot run a source file.
        Self { command, version: &["--describe-module", "jdk.compiler"] }
    }

    /// Asks one run of it everything. `None`: its language is not installed, which is said.
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
        // It answers while it is asked.
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

/// Past the test harness, which shows what passing tests print to nobody.
pub fn skipped(what: &str) {
    _ = writeln!(io::stderr(), "skipped: no {what} on this machine");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
