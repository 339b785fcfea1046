//! A served line: `cargo build --release && cargo bench --bench served`. In parts, each of which can be asked for by its name:
//!
//! | part | |
//! |---|---|
//! | `lines` | a served line beside the peers that build with cargo |
//! | `framed` | the programs that users of `Framed` write |
//! | `runtimes` | which Tokio runtime serves it, on one core and on two |
//! | `drip` | a line that comes a byte at a time |
//! | `flood` | a line that never ends |
//! | `idle` | busy connections with and without 10,000 idle ones beside them |
//! | `shares` | how evenly busy connections are served |
//!
//! A server is a process, and `lineframe bench`, another one, loads it and checks every reply; where nothing else is said, the
//! server has the first core and the load the second. Contenders take turns within a round, since other work on a machine
//! comes and goes: what counts is the ratio to the first of them in the same round. Shown are the median over the rounds and,
//! in brackets, the median of that ratio and how far it went up and down. Needs Linux.
//!
//! Any other word chooses the cases whose names contain it, and `rounds=1` is for a quick look. `benches/served/run` also puts
//! the tables into docs/performance.md and draws the picture.

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

/// What was asked for.
struct Asked<'a> {
    parts: Vec<&'a str>,
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
