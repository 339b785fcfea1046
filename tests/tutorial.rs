//! Checks that pages show the code of real files (see `included`) and the real output of commands.
//!
//! A `<!-- run -->` comment marks a `console` block with commands (`$ ...`) and their output. This
//! test runs the commands of each block in order, in an empty directory:
//!
//! - A program whose first output line starts with `listening` is a server. It keeps running during
//!   the commands after it. The block shows all its output below its command.
//! - `^C` marks the point at which a server receives SIGINT. A server without `^C` must exit by
//!   itself.
//! - The server listens on a free port. The block shows this port as 8083 and the ports of clients
//!   as 50001, 50002 and so on.
//!
//! `UPDATE_PAGES=1 cargo test --test tutorial` rewrites code and output in the pages. Run
//! `cargo build --examples --bins` first, because `cargo test --test` does not rebuild examples.

mod example;
mod included;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const TUTORIAL: [&str; 2] = ["docs/tutorial.md", "docs/tutorial.zh.md"];

#[test]
fn pages_show_real_programs_and_output() {
    for folder in ["docs", "docs/guides"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                included::check(&format!("{folder}/{name}"));
            }
        }
    }
    included::check("README.md");

    let mut runs: HashMap<Vec<String>, Option<String>> = HashMap::new();
    // System error messages differ on other systems.
    for page in ["README.md"].iter().chain(&TUTORIAL).filter(|_| cfg!(target_os = "linux")) {
        Page::read(page).compare(|block| {
            let typed = typed(block);
            runs.entry(commands(&typed)).or_insert_with(|| run(&typed)).clone()
        });
    }
}

#[test]
fn translations_share_code_and_show_every_program() {
    let programs = |page| {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let marked = text.lines().filter_map(|line| line.strip_prefix("<!-- code: ")?.strip_suffix(" -->"));
        marked.map(String::from).collect::<Vec<_>>()
    };
    let runs = |page| Page::read(page).blocks.iter().map(|block| commands(&typed(block))).collect::<Vec<_>>();
    let [english, chinese] = TUTORIAL;
    assert_eq!(programs(english), programs(chinese));
    assert_eq!(runs(english), runs(chinese));

    let in_folder =
        fs::read_dir(root().join("examples/tutorial")).unwrap().map(|entry| entry.unwrap().path());
    let on_page = programs(english).into_iter().map(|path| root().join(path));
    assert_eq!(on_page.collect::<BTreeSet<_>>(), in_folder.collect::<BTreeSet<_>>());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Page {
    path: PathBuf,
    /// Text before each block and after the last block.
    between: Vec<String>,
    /// Commands and output of each `run` block, without the fences.
    blocks: Vec<String>,
}

impl Page {
    fn read(path: &str) -> Self {
        let path = root().join(path);
        let mut page = Self { between: vec![String::new()], blocks: Vec::new(), path };
        let text = fs::read_to_string(&page.path).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let before = page.between.last_mut().unwrap();
            _ = writeln!(before, "{line}");
            if line == "<!-- run -->" {
                let fence = lines.next().unwrap_or_default();
                assert_eq!(fence, "```console", "{}", page.path.display());
                _ = writeln!(before, "{fence}");
                let block = lines.by_ref().take_while(|line| *line != "```");
                page.blocks.push(block.map(|line| format!("{line}\n")).collect());
                page.between.push("```\n".into());
            }
        }
        page
    }

    /// Compares each block with the block that `expect` returns, or rewrites the page if
    /// `UPDATE_PAGES` is set. A block stays unchecked if `expect` returns `None`.
    fn compare(mut self, mut expect: impl FnMut(&str) -> Option<String>) {
        let update = std::env::var_os("UPDATE_PAGES").is_some();
        for block in &mut self.blocks {
            let Some(expected) = expect(block) else { continue };
            let path = self.path.display();
            assert!(update || *block == expected, "{path} shows\n{block}\nexpected\n{expected}");
            *block = expected;
        }
        if update {
            let mut text = String::new();
            for (between, block) in self.between.iter().zip(&self.blocks) {
                text = text + between + block;
            }
            fs::write(&self.path, text + self.between.last().unwrap()).unwrap();
        }
    }
}

struct Typed {
    command: String,
    /// Number of output lines after `^C`; `None` if the block has no `^C`.
    after_interrupt: Option<usize>,
}

fn typed(block: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), typed.last_mut()) {
            (Some(command), _) => typed.push(Typed { command: command.into(), after_interrupt: None }),
            (None, Some(last)) if line == "^C" => last.after_interrupt = Some(0),
            (None, Some(last)) => last.after_interrupt = last.after_interrupt.map(|lines| lines + 1),
            (None, None) => panic!("a block must start with a command:\n{block}"),
        }
    }
    typed
}

fn commands(typed: &[Typed]) -> Vec<String> {
    typed.iter().map(|typed| typed.command.clone()).collect()
}

/// Runs the commands and returns the block with their output, or `None` if a program is not
/// installed.
fn run(typed: &[Typed]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut address = String::from("127.0.0.1:0");
    let mut printed = Vec::new();
    let mut servers = Vec::new();
    for (position, Typed { command, after_interrupt }) in typed.iter().enumerate() {
        let mut program = Running::start(&executable(command, &address)?, directory.path());
        match program.printed.strip_prefix("listening ") {
            Some(listening) => {
                let tcp = listening.split([' ', '\n']).find(|word| word.starts_with("127.0.0.1:"));
                if let Some(tcp) = tcp {
                    address = tcp.into();
                }
                printed.push(String::new());
                servers.push((position, program, *after_interrupt));
            }
            None => printed.push(program.end()),
        }
    }
    for (position, mut server, after_interrupt) in servers {
        if after_interrupt.is_some() {
            let status =
                Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().unwrap();
            assert!(status.success());
        }
        printed[position] = server.end();
        if let Some(lines_after) = after_interrupt {
            let mut lines: Vec<_> = printed[position].lines().collect();
            let lines_before = lines.len().saturating_sub(lines_after);
            lines.insert(lines_before, "^C");
            printed[position] = lines.join("\n") + "\n";
        }
    }
    let block: String =
        typed.iter().zip(printed).map(|(typed, output)| format!("$ {}\n{output}", typed.command)).collect();
    Some(with_fixed_ports(&with_fixed_time(&block), address.strip_prefix("127.0.0.1:").unwrap()))
}

/// Returns the shell command with full program paths and the address of this run, or `None` if the
/// program is not installed.
fn executable(command: &str, address: &str) -> Option<String> {
    let address_of = |program: &str| if program.contains("unix") { "" } else { address };
    let words = command.split(' ').collect::<Vec<_>>();
    let start = words.iter().position(|word| *word == "|").map_or(0, |pipe| pipe + 1);
    let input = words[..start].join(" ");
    let (program, rest) = match words[start..] {
        ["python3", program, ..] => {
            if !has_python() {
                skip(command, "`python3 --version` fails; install Python 3.8 or later");
                return None;
            }
            let path = root().join("examples/tutorial").join(program);
            (format!("python3 -u '{}' {}", path.display(), address_of(program)), &words[start + 2..])
        }
        ["cargo", "run", "-q", "--example", example, ..] => {
            let path = example::path(example);
            (format!("'{}' {}", path.display(), address_of(example)), &words[start + 5..])
        }
        ["lineframe", ..] => (cli(command)?, &words[start + 1..]),
        ["cargo", "run", "-q", "--", ..] => (cli(command)?, &words[start + 4..]),
        _ => panic!("{command:?} is not a command that this test can run"),
    };
    let exec = if command.contains(" | ") { "" } else { "exec " };
    let rest = rest.join(" ").replace("127.0.0.1:8083", address);
    // Without --foreground, `timeout` signals its process group, and SIGINT arrives twice.
    Some(format!("{input} {exec}timeout --foreground 60 {program} {rest}"))
}

fn has_python() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|version| version.status.success())
}

/// Reports a skipped command. `eprintln!` would be hidden, because the test passes.
fn skip(command: &str, why: &str) {
    _ = writeln!(io::stderr(), "skipped `{command}`: {why}");
}

/// Returns the path of `lineframe`, which cargo builds only together with the whole workspace.
fn cli(command: &str) -> Option<String> {
    let path = example::path("recv_1024").with_file_name("../lineframe");
    if !path.exists() {
        skip(command, "`lineframe` is not built; run `cargo build` at the root first");
        return None;
    }
    Some(format!("'{}'", path.display()))
}

struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    printed: String,
}

impl Running {
    /// Starts the command in a shell and waits for its first line of output.
    fn start(command: &str, directory: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut printed = String::new();
        stdout.read_line(&mut printed).unwrap();
        Self { child, stdout, printed }
    }

    /// Waits for the exit and returns stdout, then stderr. A Python traceback is reduced to its
    /// last line.
    fn end(&mut self) -> String {
        self.stdout.read_to_string(&mut self.printed).unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        assert_ne!(status.code(), Some(124), "no exit within 60 s:\n{}{stderr}", self.printed);
        let stderr = match stderr.starts_with("Traceback") {
            true => stderr.trim_end().lines().last().map(|line| format!("{line}\n")).unwrap(),
            false => stderr,
        };
        std::mem::take(&mut self.printed) + &stderr
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Replaces the timestamps of log lines by a fixed one.
fn with_fixed_time(text: &str) -> String {
    let is_time = |word: &str| word.len() == 24 && word.ends_with('Z') && word.contains('T');
    let line = |line: &str| match line.split_once(' ') {
        Some((time, rest)) if is_time(time) => format!("2026-11-22T18:54:12.519Z {rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Replaces the server's port by 8083, and the ports of clients by 50001, 50002 and so on.
fn with_fixed_ports(text: &str, server: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut shown = String::from(parts.next().unwrap_or_default());
    let mut clients: Vec<&str> = Vec::new();
    for part in parts {
        let (port, rest) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
        let known = clients.iter().position(|client| *client == port);
        let number = match known {
            _ if port == server || port == "8083" => 8083,
            Some(index) => 50_001 + index,
            None => {
                clients.push(port);
                50_000 + clients.len()
            }
        };
        _ = write!(shown, "127.0.0.1:{number}{rest}");
    }
    shown
}
