//! A line of 256 MiB: the CPU time and the memory that a server needs to receive it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::Asked;
use crate::process::{Failed, Running, own, serve};
use crate::table::{beside_the_first, head, median};

const ROUNDS: usize = 5;

/// Length of the line in bytes.
const ALL: usize = 256 << 20;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

const SERVERS: [&str; 3] = ["raw", "read_until", "lineframe serve"];

struct Figures {
    /// CPU time of the server in ns per KiB.
    cpu: f64,
    /// Peak memory minus the memory before the line, in KiB.
    grown: f64,
}

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds.unwrap_or(ROUNDS) {
        let measured = SERVERS.map(|server| {
            let running = match server {
                "lineframe serve" => serve(&[0], &[])?,
                kind => Running::start(&mut own(&[0], &["server", kind])?)?,
            };
            let (cpu, before) = (running.cpu()?, running.memory("VmRSS")?);
            let sent = own(&[1], &["flood", server, &running.address])?.status()?;
            match sent.success() {
                true => Ok(Figures {
                    cpu: (running.cpu()? - cpu) / (ALL >> 10) as f64,
                    grown: running.memory("VmHWM")? - before,
                }),
                false => Err("a reply is wrong".into()),
            }
        });
        rounds.push(measured.into_iter().collect::<Result<Vec<Figures>, Failed>>()?);
    }
    println!("\n### A line of 256 MiB\n");
    head(&["server", "reply", "CPU time per KiB in ns", "peak memory"]);
    for (at, server) in SERVERS.iter().enumerate() {
        let (cpu, ratio) = beside_the_first(&rounds, at, |figures| figures.cpu);
        let grown = median(rounds.iter().map(|round| round[at].grown));
        let answers = match *server {
            "lineframe serve" => "an error, then the next line",
            "read_until" => "the whole line, after its end",
            _ => "the whole line, while it arrives",
        };
        println!("| {server} | {answers} | {cpu:.0} ({ratio}) | {grown:.0} KiB |");
    }
    Ok(())
}

/// Sends the long line and a short one, and checks the replies.
pub(crate) fn send(to: &str, address: &str) -> Result<(), Failed> {
    let mut server = TcpStream::connect(address)?;
    let mut replies = server.try_clone()?;
    let reading = thread::spawn(move || {
        let (mut last, mut count) = (Vec::new(), 0);
        let mut piece = vec![0; PIECE.len()];
        while let Ok(read @ 1..) = replies.read(&mut piece) {
            count += read;
            // Keep only the end. Comparing every byte could slow down the sender.
            last.extend_from_slice(&piece[..read]);
            last.drain(..last.len().saturating_sub(100));
        }
        (count, last)
    });
    for _ in 0..ALL / PIECE.len() {
        server.write_all(&PIECE)?;
    }
    server.write_all(b"\nshort\n")?;
    server.shutdown(Shutdown::Write)?;
    let (count, last) = reading.join().map_err(|_| "the replies were not read")?;
    let is_right = match to {
        "lineframe serve" => {
            count < 200
                && last.starts_with(b"error: line of more than 65536 bytes")
                && last.ends_with(b"\nSHORT\n")
        }
        _ => count == ALL + b"\nshort\n".len() && last.ends_with(b"X\nSHORT\n"),
    };
    match is_right {
        true => Ok(()),
        false => Err("a reply is wrong".into()),
    }
}
