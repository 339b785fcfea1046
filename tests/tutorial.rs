//! The pages show programs as they are (see `included`), and what they really print.
//!
//! ```text
//! <!-- run -->          the block behind it is what was typed, `$ ..`, and what was printed
//! ```
//!
//! A program that prints `listening ..` first is a server: it stays there for what is typed behind it, and all that it prints
//! stands below its command; `^C` is where it is interrupted, and without one it has to end by itself. Each is given a free
//! port or an empty directory, and where the pages have 127.0.0.1:8083, that was the port; 50001 and so on are those that
//! clients got.
//!
//! `UPDATE_PAGES=1 cargo test --test tutorial` writes what is the case into the pages.

mod example;
mod included;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const TUTORIAL: [&str; 2] = ["docs/tutorial.md", "docs/tutorial.zh.md"];

#[test]
fn the_pages_have_the_programs_and_what_they_print() {
    // Code on any page is that of a file which is compiled or run.
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            included::check(&format!("docs/{name}"));
        }
    }
    included::check("README.md");

    let mut printed: HashMap<Vec<String>, Option<String>> = HashMap::new();
    // Other systems have other words.
    for page in ["README.md"].iter().chain(&TUTORIAL).filter(|_| cfg!(target_os = "linux")) {
        Page::read(page).compare(|block| {
            let typed = typed(block);
            printed.entry(commands(&typed)).or_insert_with(|| run(&typed)).clone()
        });
    }
}

#[test]
fn the_tutorial_is_the_same_in_both_languages_and_has_every_program() {
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
    /// What stands before each block, and behind the last.
    between: Vec<String>,
    /// What was typed and printed.
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

    /// Each block with what it has to be, or with itself.
    fn compare(mut self, mut has_to_be: impl FnMut(&str) -> Option<String>) {
        let update = std::env::var_os("UPDATE_PAGES").is_some();
        for block in &mut self.blocks {
            let Some(expected) = has_to_be(block) else { continue };
            let path = self.path.display();
            assert!(update || *block == expected, "{path} has\n{block}\nand it is\n{expected}");
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
    /// It is interrupted, and then prints so many lines.
    after_interrupt: Option<usize>,
}

fn typed(block: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), typed.last_mut()) {
            (Some(command), _) => typed.push(Typed { command: command.into(), after_interrupt: None }),
            (None, Some(last)) if line == "^C" => last.after_interrupt = Some(0),
            (None, Some(last)) => last.after_interrupt = last.after_interrupt.map(|lines| lines + 1),
            (None, None) => panic!("a block has to begin with a command:\n{block}"),
        }
    }
    typed
}

fn commands(typed: &[Typed]) -> Vec<String> {
    typed.iter().map(|typed| typed.command.clone()).collect()
}

/// The block as it has to be. `None` where something that it needs is not installed.
fn run(typed: &[Typed]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let mut address = String::from("127.0.0.1:0");
    let mut printed = Vec::new();
    let mut servers = Vec::new();
    for (place, Typed { command, after_interrupt }) in typed.iter().enumerate() {
        let mut program = Running::start(&executable(command, &address)?, directory.path());
        match program.printed.strip_prefix("listening ") {
            Some(at) => {
                // With a Unix socket it stays what it is.
                if let Some(at) = at.split([' ', '\n']).find(|word| word.starts_with("127.0.0.1:")) {
                    address = at.into();
                }
                printed.push(String::new());
                servers.push((place, program, *after_interrupt));
            }
            None => printed.push(program.end()),
        }
    }
    for (place, mut server, after_interrupt) in servers {
        if after_interrupt.is_some() {
            let status =
                Command::new("kill").args(["-INT", &server.child.id().to_string()]).status().unwrap();
            assert!(status.success());
        }
        printed[place] = server.end();
        if let Some(lines_behind) = after_interrupt {
            let mut lines: Vec<_> = printed[place].lines().collect();
            let lines_before = lines.len().saturating_sub(lines_behind);
            lines.insert(lines_before, "^C");
            printed[place] = lines.join("\n") + "\n";
        }
    }
    let block: String =
        typed.iter().zip(printed).map(|(typed, it)| format!("$ {}\n{it}", typed.command)).collect();
    Some(with_pages_ports(&with_pages_time(&block), address.strip_prefix("127.0.0.1:").unwrap()))
}

/// What is typed, with the programs where they are and the address of this run.
fn executable(command: &str, address: &str) -> Option<String> {
    let address_of = |program: &str| if program.contains("unix") { "" } else { address };
    let words = command.split(' ').collect::<Vec<_>>();
    let at = words.iter().position(|word| *word == "|").map_or(0, |pipe| pipe + 1);
    let before = words[..at].join(" ");
    let (program, rest) = match words[at..] {
        ["python3", program, ..] => {
            if Command::new("python3").arg("--version").output().is_err() {
                eprintln!("skipped: no python3 for `{command}`");
                return None;
            }
            let path = root().join("examples/tutorial").join(program);
            (format!("python3 -u '{}' {}", path.display(), address_of(program)), &words[at + 2..])
        }
        ["cargo", "run", "-q", "--example", example, ..] => {
            let path = example::path(example);
            (format!("'{}' {}", path.display(), address_of(example)), &words[at + 5..])
        }
        ["lineframe", ..] => (cli(command)?, &words[at + 1..]),
        ["cargo", "run", "-q", "--", ..] => (cli(command)?, &words[at + 4..]),
        _ => panic!("{command:?} is nothing that can be run here"),
    };
    let exec = if command.contains(" | ") { "" } else { "exec " };
    let rest = rest.join(" ").replace("127.0.0.1:8083", address);
    // In the foreground: otherwise it hands on a signal to its group as well, so that the program may get it twice.
    Some(format!("{before} {exec}timeout --foreground 60 {program} {rest}"))
}

/// The command line's program: cargo builds it along with the examples where it builds all of the workspace.
fn cli(command: &str) -> Option<String> {
    let path = example::path("recv_1024").with_file_name("../lineframe");
    if !path.exists() {
        eprintln!("skipped: `cargo test` at the root builds what `{command}` needs");
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
    /// Until it has printed its first line.
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

    /// All that it has printed. Of a traceback, the last line.
    fn end(&mut self) -> String {
        self.stdout.read_to_string(&mut self.printed).unwrap();
        let mut complaint = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        let status = self.child.wait().unwrap();
        assert_ne!(status.code(), Some(124), "it did not end:\n{}{complaint}", self.printed);
        let complaint = match complaint.starts_with("Traceback") {
            true => complaint.trim_end().lines().last().map(|line| format!("{line}\n")).unwrap(),
            false => complaint,
        };
        std::mem::take(&mut self.printed) + &complaint
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The log of `lineframe serve` begins with the time.
fn with_pages_time(text: &str) -> String {
    let is_time = |word: &str| word.len() == 24 && word.ends_with('Z') && word.contains('T');
    let line = |line: &str| match line.split_once(' ') {
        Some((time, rest)) if is_time(time) => format!("2026-11-22T18:54:12.519Z {rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The server's port is 8083 on the pages, and those of clients, which the system chooses, are numbered.
fn with_pages_ports(text: &str, server: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let mut shown = String::from(parts.next().unwrap_or_default());
    let mut clients: Vec<&str> = Vec::new();
    for part in parts {
        let (port, rest) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
        let known = clients.iter().position(|client| *client == port);
        let number = match known {
            _ if port == server || port == "8083" => 8083,
            Some(place) => 50_001 + place,
            None => {
                clients.push(port);
                50_000 + clients.len()
            }
        };
        _ = write!(shown, "127.0.0.1:{number}{rest}");
    }
    shown
}
