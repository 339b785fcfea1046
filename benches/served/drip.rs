//! Lines that arrive one byte at a time. A long line must not cost more per byte than a short one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::Asked;
use crate::process::{Failed, Running, own, serve};
use crate::table::{beside_the_first, head};

const ROUNDS: usize = 5;

/// Bytes sent per case.
const ALL: usize = 1 << 20;
/// Bytes per line.
const LENGTHS: [usize; 2] = [64 << 10, 1 << 20];

/// Servers and line lengths. `raw` answers each byte.
const CASES: [(&str, usize); 3] =
    [("lineframe serve", LENGTHS[0]), ("lineframe serve", LENGTHS[1]), ("raw", LENGTHS[1])];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    let mut rounds = Vec::new();
    for _ in 0..asked.rounds.unwrap_or(ROUNDS) {
        let measured = CASES.map(|(server, length)| {
            let running = match server {
                "raw" => Running::start(&mut own(&[0], &["server", server])?)?,
                _ => serve(&[0], &["--max-length", "2M", "--line-timeout", "none"])?,
            };
            let cpu = running.cpu()?;
            let sent = own(&[1], &["drip", &length.to_string(), &running.address])?.status()?;
            match sent.success() {
                true => Ok((running.cpu()? - cpu) / ALL as f64),
                false => Err("a reply is wrong".into()),
            }
        });
        rounds.push(measured.into_iter().collect::<Result<Vec<f64>, Failed>>()?);
    }
    println!("\n### One byte at a time\n");
    head(&["server", "line length", "CPU time per byte in ns"]);
    for (at, (server, length)) in CASES.iter().enumerate() {
        let (cpu, ratio) = beside_the_first(&rounds, at, |cpu| *cpu);
        println!("| {server} | {} KiB | {cpu:.0} ({ratio}) |", length >> 10);
    }
    Ok(())
}

/// Time between two bytes. It is long enough for a read per byte: a slow server that reads two
/// bytes together would appear cheaper.
const PACE: Duration = Duration::from_micros(20);

/// Sends lines of `length` bytes to `address`, one byte at a time, and checks all replies.
pub(crate) fn send(length: &str, address: &str) -> Result<(), Failed> {
    let length: usize = length.parse()?;
    let mut server = TcpStream::connect(address)?;
    server.set_nodelay(true)?;
    let mut line: Vec<u8> = (b'a'..=b'z').cycle().take(length - 1).collect();
    line.push(b'\n');
    let lines = line.repeat(ALL / length);
    let mut replies = server.try_clone()?;
    let expected = lines.to_ascii_uppercase();
    let reading = thread::spawn(move || {
        let mut reply = vec![0; expected.len()];
        replies.read_exact(&mut reply).is_ok() && reply == expected
    });
    for byte in &lines {
        let since = Instant::now();
        while since.elapsed() < PACE {
            std::hint::spin_loop();
        }
        server.write_all(std::slice::from_ref(byte))?;
    }
    match reading.join() {
        Ok(true) => Ok(()),
        _ => Err("a reply is wrong".into()),
    }
}
