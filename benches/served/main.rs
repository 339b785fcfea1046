//! Measures servers under load: `cargo build --release && cargo bench --bench served [-- PART
//! ...]`.
//!
//! | part | measures |
//! |---|---|
//! | `lines` | a served line, compared with other servers written in Rust |
//! | `framed` | typical programs that use `Framed` |
//! | `runtimes` | Tokio runtimes, on one core and on two |
//! | `drip` | lines that arrive one byte at a time |
//! | `flood` | a line of 256 MiB |
//! | `idle` | busy connections, with and without 10,000 idle ones |
//! | `shares` | how evenly busy connections are served |
//!
//! Without a part, all parts run. Other words select the cases whose names contain them. `rounds=1`
//! gives quick, rough results.
//!
//! Each server is a process. `lineframe bench` is another process, which loads the server and
//! checks every reply. Unless stated otherwise, the server has the first core and the load the
//! second.
//!
//! Each round measures all contenders once, because other work on the machine changes over time.
//! Compare the ratios to the first contender in the same round. A cell shows the median over all
//! rounds and, in brackets, the median ratio and its range.
//!
//! Linux only. `benches/served/run` also writes the tables into docs/performance.md and draws the
//! picture.

mod drip;
mod flood;
mod framed;
mod idle;
mod lines;
mod process;
mod runtimes;
mod servers;
mod shares;
mod table;

use std::process::ExitCode;

use process::Failed;

/// The selected parts, cases and rounds.
struct Asked<'a> {
    /// Names of parts. Empty: all.
    parts: Vec<&'a str>,
    /// A case runs if its name contains all of these words.
    words: Vec<&'a str>,
    rounds: Option<usize>,
}

type Part = fn(&Asked<'_>) -> Result<(), Failed>;

const PARTS: [(&str, Part); 7] = [
    ("lines", lines::measure),
    ("framed", framed::measure),
    ("runtimes", runtimes::measure),
    ("drip", drip::measure),
    ("flood", flood::measure),
    ("idle", idle::measure),
    ("shares", shares::measure),
];

impl<'a> Asked<'a> {
    fn of(words: &[&'a str]) -> Result<Self, Failed> {
        let mut asked = Self { parts: Vec::new(), words: Vec::new(), rounds: None };
        for word in words {
            match word.strip_prefix("rounds=") {
                Some(rounds) => asked.rounds = Some(rounds.parse::<usize>()?.max(1)),
                None if PARTS.iter().any(|(name, _)| name == word) => asked.parts.push(word),
                None => asked.words.push(word),
            }
        }
        Ok(asked)
    }

    fn takes(&self, case: &str) -> bool {
        self.words.iter().all(|word| case.contains(word))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", kind] => servers::serve(kind).map_err(Into::into),
        ["runtime", runtime] => runtimes::serve(runtime),
        ["drip", length, address] => drip::send(length, address),
        ["flood", to, address] => flood::send(to, address),
        ["idle-connections", count, address] => idle::hold(count, address),
        ref words => measure(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: &[&str]) -> Result<(), Failed> {
    let asked = Asked::of(words)?;
    for (name, part) in PARTS {
        if asked.parts.is_empty() || asked.parts.contains(&name) {
            part(&asked)?;
        }
    }
    Ok(())
}
