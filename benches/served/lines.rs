//! A served line, beside the peers that build with cargo.

use crate::process::{Failed, Figures, Load, Running, load, own, serve};
use crate::table::{beside_the_first, head};
use crate::{Asked, servers};

const ROUNDS: usize = 15;
const SERVE: &str = "lineframe serve";

const CASES: [Load; 12] = [
    load(8, 256, 16),
    load(8, 256, 64),
    load(8, 256, 256),
    load(8, 256, 1024),
    load(64, 256, 16),
    load(64, 256, 64),
    load(64, 256, 256),
    load(64, 256, 1024),
    load(64, 16, 16 * 1024),
    load(1, 1, 64),
    load(64, 1, 64),
    load(512, 1, 64),
];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    let kinds: Vec<&str> = servers::KINDS.into_iter().chain([SERVE]).collect();
    for case in CASES.iter().filter(|case| asked.takes(&case.name())) {
        let rounds = take_turns(&kinds, case, asked.rounds.unwrap_or(ROUNDS))?;
        println!("\n### {}\n", case.name());
        head(&["server", "ns of CPU a line", "99 % of replies within"]);
        for (at, kind) in kinds.iter().enumerate() {
            let (cpu, cpu_ratio) = beside_the_first(&rounds, at, |f| f.cpu);
            let (p99, p99_ratio) = beside_the_first(&rounds, at, |f| f.p99);
            println!("| {kind} | {cpu:.0} ({cpu_ratio}) | {:.2} ms ({p99_ratio}) |", p99 / 1e6);
        }
    }
    Ok(())
}

/// Measures each server once per round. Every round begins with another one, so that no server always
/// runs after the same other.
pub(crate) fn take_turns(kinds: &[&str], case: &Load, rounds: usize) -> Result<Vec<Vec<Figures>>, Failed> {
    let mut measured = Vec::new();
    for round in 0..rounds {
        let mut figures: Vec<Option<Figures>> = kinds.iter().map(|_| None).collect();
        for place in 0..kinds.len() {
            let at = (place + round) % kinds.len();
            let of_one = start(kinds[at]).and_then(|running| case.on(&running, &[1]));
            figures[at] = Some(of_one.map_err(|error| format!("{}: {error}", kinds[at]))?);
        }
        measured.push(figures.into_iter().flatten().collect());
    }
    Ok(measured)
}

fn start(kind: &str) -> Result<Running, Failed> {
    match kind {
        SERVE => serve(&[0], &[]),
        kind => Ok(Running::start(&mut own(&[0], &["server", kind])?)?),
    }
}
