//! The cost of a served line, compared with other servers written in Rust.

use crate::process::{Failed, Figures, Load, Running, load, own, serve};
use crate::table::{beside_the_first, head};
use crate::{Asked, servers};

const ROUNDS: usize = 15;
const SERVE: &str = "lineframe serve";

/// The loads of a table.
struct Group {
    title: &'static str,
    loads: &'static [Load],
}

const GROUPS: [Group; 3] = [
    Group {
        title: "8 connections",
        loads: &[load(8, 256, 16), load(8, 256, 64), load(8, 256, 256), load(8, 256, 1024)],
    },
    Group {
        title: "64 connections",
        loads: &[
            load(64, 256, 16),
            load(64, 256, 64),
            load(64, 256, 256),
            load(64, 256, 1024),
            load(64, 16, 16 * 1024),
        ],
    },
    Group { title: "one line in flight", loads: &[load(1, 1, 64), load(64, 1, 64), load(512, 1, 64)] },
];

/// A figure that is shown in one table per group.
type Figure = (&'static str, fn(&Figures) -> f64, usize);

const FIGURES: [Figure; 2] = [
    ("CPU time per line in ns", |figures| figures.cpu, 0),
    ("99th percentile of the reply time in ms", |figures| figures.p99 / 1e6, 2),
];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    let kinds: Vec<&str> = servers::KINDS.into_iter().chain([SERVE]).collect();
    let mut measured = Vec::new();
    for group in &GROUPS {
        let loads: Vec<&Load> = group.loads.iter().filter(|load| asked.takes(&load.name())).collect();
        let mut rounds = Vec::new();
        for load in &loads {
            rounds.push(take_turns(&kinds, load, asked.rounds.unwrap_or(ROUNDS))?);
        }
        measured.push((group.title, loads, rounds));
    }
    for (title, figure, digits) in FIGURES {
        for (group, loads, rounds) in measured.iter().filter(|(_, loads, _)| !loads.is_empty()) {
            println!("\n### {title}, {group}\n");
            let columns: Vec<String> = loads.iter().map(|load| load.size()).collect();
            head(&[&["server"], &columns.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
            for (at, kind) in kinds.iter().enumerate() {
                let cells = rounds.iter().map(|rounds| {
                    let (median, ratio) = beside_the_first(rounds, at, figure);
                    format!("{median:.digits$} ({ratio})")
                });
                println!("| {kind} | {} |", cells.collect::<Vec<_>>().join(" | "));
            }
        }
    }
    Ok(())
}

/// Measures each server once per round. Each round begins with a different server, so that no
/// server is always first or last.
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
