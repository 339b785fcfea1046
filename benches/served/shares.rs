//! Measures how evenly busy connections are served.

use crate::Asked;
use crate::process::{Failed, Load, load, serve};
use crate::table::{head, median, spread};

const ROUNDS: usize = 9;

const CASES: [Load; 4] = [load(64, 1, 64), load(512, 1, 64), load(64, 256, 64), load(512, 256, 64)];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    println!("\n### The slowest connection\n");
    head(&["connections", "replies of the slowest, per median", "99th percentile"]);
    for case in CASES.iter().filter(|case| asked.takes(&case.name())) {
        let (mut shares, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..asked.rounds.unwrap_or(ROUNDS) {
            let figures = case.on(&serve(&[0], &[])?, &[1])?;
            shares.push(figures.least_share);
            p99.push(figures.p99);
        }
        println!("| {} | {} | {:.2} ms |", case.name(), spread(&shares), median(p99) / 1e6);
    }
    Ok(())
}
