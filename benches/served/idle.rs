//! Busy connections, with and without 10,000 idle ones. Idle connections must not make a line more
//! expensive.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use crate::Asked;
use crate::process::{Failed, Load, load, own, serve};
use crate::table::{beside_the_first, head};

/// Rounds per case. The idle connections last for all rounds, so these must take less than the
/// server's `idle_timeout`.
const PAIRS: usize = 9;

/// Number of idle connections.
const IDLE: &str = "10000";

const CASES: [Load; 2] = [load(64, 1, 64), load(64, 256, 64)];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    println!("\n### 64 busy connections and 10,000 idle ones\n");
    head(&["busy", "idle", "CPU time per line in ns", "99th percentile", "memory per idle connection"]);
    for case in CASES.iter().filter(|case| asked.takes(&case.name())) {
        let room = ["--max-connections", "20000"];
        let (alone, beside) = (serve(&[0], &room)?, serve(&[0], &room)?);
        let before = beside.memory("VmRSS")?;
        let idle = Idle::connect(&beside.address)?;
        let each = (beside.memory("VmRSS")? - before) * 1024.0 / IDLE.parse::<f64>()?;
        let mut pairs = Vec::new();
        for nth in 0..asked.rounds.unwrap_or(PAIRS) {
            // Alternate the order, so that neither server always runs first.
            let pair = match nth % 2 {
                0 => {
                    let first = case.on(&alone, &[1])?;
                    vec![first, case.on(&beside, &[1])?]
                }
                _ => {
                    let first = case.on(&beside, &[1])?;
                    vec![case.on(&alone, &[1])?, first]
                }
            };
            pairs.push(pair);
        }
        idle.ask()?;
        for (at, (beside, memory)) in
            [("0", "-".into()), ("10,000", format!("{each:.0} B"))].iter().enumerate()
        {
            let (cpu, cpu_ratio) = beside_the_first(&pairs, at, |f| f.cpu);
            let (p99, p99_ratio) = beside_the_first(&pairs, at, |f| f.p99);
            println!(
                "| {} | {beside} | {cpu:.0} ({cpu_ratio}) | {:.2} ms ({p99_ratio}) | {memory} |",
                case.name(),
                p99 / 1e6
            );
        }
    }
    Ok(())
}

/// A process that holds idle connections. Each has received a reply before it became idle.
struct Idle(Child);

impl Idle {
    fn connect(address: &str) -> Result<Self, Failed> {
        let mut holder = own(&[1], &["idle-connections", IDLE, address])?;
        let mut idle = Self(holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        idle.wait()?;
        Ok(idle)
    }

    /// Checks that every idle connection is still served.
    fn ask(mut self) -> Result<(), Failed> {
        drop(self.0.stdin.take());
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Failed> {
        let stdout = self.0.stdout.as_mut().ok_or("no pipe")?;
        let mut said = [0; "served\n".len()];
        stdout.read_exact(&mut said).map_err(|_| "an idle connection is gone")?;
        Ok(())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Opens `count` connections, checks a reply on each and prints `served`. Does the same again after
/// stdin has ended.
pub(crate) fn hold(count: &str, address: &str) -> Result<(), Failed> {
    let mut idle = Vec::new();
    for _ in 0..count.parse()? {
        let mut connection = TcpStream::connect(address)?;
        ask(&mut connection)?;
        idle.push(connection);
    }
    println!("served");
    for line in io::stdin().lines() {
        line?;
    }
    idle.iter_mut().try_for_each(ask)?;
    println!("served");
    Ok(())
}

fn ask(connection: &mut TcpStream) -> Result<(), Failed> {
    connection.write_all(b"line\n")?;
    let mut reply = String::new();
    BufReader::new(connection).read_line(&mut reply)?;
    match reply == "LINE\n" {
        true => Ok(()),
        false => Err("a reply is wrong".into()),
    }
}
