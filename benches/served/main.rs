//! A served line, beside the peers that build with cargo: `cargo build --release && cargo bench --bench served`.
//!
//! Each server is a process on the first core, and `lineframe bench`, which checks every reply, loads it from the second. Servers
//! take turns within a round, since other work on a machine comes and goes: what counts is the ratio to the raw loop in the
//! same round. Shown are the median of the server's CPU time for a line and, in brackets, the median of that ratio and how far
//! it went up and down. For many connections with one line on its way there is also the 99th percentile of the latency.
//! Needs Linux. Any word that is given chooses the cases whose names contain it.

mod servers;

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

const ROUNDS: usize = 5;
const SERVE: &str = "lineframe serve";

struct Case {
    connections: usize,
    window: usize,
    length: usize,
}

const fn case(connections: usize, window: usize, length: usize) -> Case {
    Case { connections, window, length }
}

const CASES: [Case; 9] = [
    case(8, 256, 16),
    case(8, 256, 64),
    case(64, 256, 16),
    case(64, 256, 64),
    case(64, 256, 256),
    case(64, 256, 1024),
    case(1, 1, 64),
    case(64, 1, 64),
    case(512, 1, 64),
];

impl Case {
    fn name(&self) -> String {
        let Self { connections, window, length } = self;
        match window {
            1 => format!("{connections} x {length} B, ping-pong"),
            _ => format!("{connections} x {length} B"),
        }
    }
}

/// A process that ends with this.
struct Running {
    process: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

struct Figures {
    cpu: f64,
    p99: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", kind] => servers::serve(kind).map_err(Into::into),
        ref words => compare(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let lineframe = binary()?;
    let kinds: Vec<&str> = servers::KINDS.into_iter().chain([SERVE]).collect();
    for case in CASES.iter().filter(|case| words.iter().all(|word| case.name().contains(word))) {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            // A machine that stalls leaves too little to measure.
            let again = |kind| measure(&lineframe, kind, case).or_else(|_| measure(&lineframe, kind, case));
            let figures = kinds.iter().map(|kind| again(kind));
            rounds.push(figures.collect::<Result<Vec<_>, _>>()?);
        }
        println!(
            "\n{}\n\n| server | ns of CPU a line | 99 % of replies within |\n|---|---|---|",
            case.name()
        );
        for (at, kind) in kinds.iter().enumerate() {
            let column = |of: fn(&Figures) -> f64| {
                let median = median(rounds.iter().map(|round| of(&round[at])));
                let ratios: Vec<f64> = rounds.iter().map(|round| of(&round[at]) / of(&round[0])).collect();
                let (least, most) =
                    ratios.iter().fold((f64::MAX, 0.0_f64), |(l, m), r| (l.min(*r), m.max(*r)));
                (median, format!("{:.2}, {least:.2}-{most:.2}", self::median(ratios.iter().copied())))
            };
            let ((cpu, cpu_ratio), (p99, p99_ratio)) = (column(|f| f.cpu), column(|f| f.p99));
            println!("| {kind} | {cpu:.0} ({cpu_ratio}) | {:.2} ms ({p99_ratio}) |", p99 / 1e6);
        }
    }
    Ok(())
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The command line, which is built beside this.
fn binary() -> Result<PathBuf, Box<dyn Error>> {
    let own = std::env::current_exe()?;
    let lineframe = own.ancestors().nth(2).unwrap_or(Path::new(".")).join("lineframe");
    match lineframe.exists() {
        true => Ok(lineframe),
        false => Err("there is no `lineframe` beside this: cargo build --release".into()),
    }
}

/// On one core.
fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

fn start(lineframe: &Path, kind: &str) -> io::Result<Running> {
    let mut command = match kind {
        SERVE => on_core(0, lineframe),
        _ => on_core(0, &std::env::current_exe()?),
    };
    match kind {
        SERVE => command.args(["serve", "127.0.0.1:0"]),
        kind => command.args(["server", kind]),
    };
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut said = String::new();
    if let Some(stdout) = process.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    let address = said.trim().trim_start_matches("listening ").to_owned();
    Ok(Running { process, address })
}

fn measure(lineframe: &Path, kind: &str, case: &Case) -> Result<Figures, Box<dyn Error>> {
    let running = start(lineframe, kind)?;
    let Case { connections, window, length } = case;
    let output = on_core(1, lineframe)
        .args(["bench", "--json", "--threads", "1", "--duration", "2s", "--warm-up", "300ms"])
        .args(["--server-pid", &running.process.id().to_string()])
        .args(["--connections", &connections.to_string(), "--window", &window.to_string()])
        .args(["--length", &length.to_string(), &running.address])
        .output()?;
    if !output.status.success() {
        return Err(format!("{kind}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let figure = |value: &serde_json::Value| value.as_f64().ok_or(format!("{kind}: too little to measure"));
    Ok(Figures {
        cpu: figure(&report["cpu_ns_per_line"]["server"])?,
        p99: figure(&report["latency_ns"]["raw"]["p99"])?,
    })
}
