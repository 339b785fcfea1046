//! Runs a server for half an hour with idle, busy and hostile clients. Run it with
//! `tests/soak/run`; `cargo test` does not run it. The server runs in a second process of this
//! program.

mod peers;
#[path = "../acceptance/server.rs"]
mod server;
mod slope;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use peers::{HOSTILE, Random, Soak};
use server::Server;

const IDLE: usize = 5000;
const BUSY: usize = 50;
const HOSTILES: usize = 50;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_good = match asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", fault] => serve(fault).await.map(|()| true)?,
        [minutes] => soak(minutes, "none").await?,
        [minutes, fault @ ("leak" | "wrong")] => soak(minutes, fault).await?,
        _ => {
            return Err(
                "expected arguments: the minutes, then optionally `leak` or `wrong` for a faulty server"
                    .into(),
            );
        }
    };
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the server with default limits, except that two deadlines are 5 s instead of 30 s, so that
/// clients meet them more often.
async fn serve(fault: &str) -> io::Result<()> {
    let deadline = Duration::from_secs(5);
    let server = lineframe::Server::builder().line_timeout(deadline).write_timeout(deadline).build();
    let (leaks, errs) = (fault == "leak", fault == "wrong");
    let lines = Arc::new(AtomicU64::new(0));
    let answer = move |line: &[u8]| {
        let mut reply = line.to_ascii_uppercase();
        let at = lines.fetch_add(1, Relaxed);
        if leaks && at % 10 == 0 {
            std::hint::black_box(reply.clone().leak());
        }
        if errs && at % 10_000 == 9999 {
            reply.pop();
        }
        reply
    };
    server::serve(server, answer).await
}

async fn soak(minutes: &str, fault: &str) -> Result<bool, Box<dyn Error>> {
    let length = Duration::from_secs_f64(60.0 * minutes.parse::<f64>()?);
    let warm_up = length / 5;
    let server = Server::start(&format!("exec \"$0\" serve {fault}"))?;
    let descriptors_alone = server.descriptors()?;
    let soak = Arc::new(Soak::new(server));

    let mut peers = JoinSet::new();
    for at in 0..(IDLE + BUSY + HOSTILES) as u64 {
        let (soak, random) = (Arc::clone(&soak), Random(at << 32));
        match at as usize {
            at if at < IDLE => peers.spawn(async move { soak.idle(random).await }),
            at if at < IDLE + BUSY => peers.spawn(async move { soak.busy(random).await }),
            at => peers.spawn(async move { soak.hostile(at % HOSTILE.len(), random).await }),
        };
        if at % 100 == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    // Memory samples, one per 10 s, as minutes and KiB.
    let (since, cpu_before) = (Instant::now(), soak.server.cpu()?);
    let every = Duration::from_secs(10).min(length / 60);
    let mut samples = Vec::new();
    while since.elapsed() < length {
        sleep(every).await;
        samples.push((since.elapsed().as_secs_f64() / 60.0, soak.server.memory()? / 1024.0));
        if samples.len() % 30 == 0 {
            let wrong = soak.wrong.lock().map_or(0, |wrong| wrong.len());
            eprintln!(
                "{:6.1} min {:8.0} KiB, {wrong} wrong",
                samples[samples.len() - 1].0,
                samples[samples.len() - 1].1
            );
        }
    }
    let cpu = (soak.server.cpu()? - cpu_before).as_secs_f64() / since.elapsed().as_secs_f64();

    soak.is_over.store(true, Relaxed);
    while let Some(ended) = peers.join_next().await {
        ended?;
    }
    let left = descriptors_left(&soak.server, descriptors_alone).await?;
    report(&soak, &samples, warm_up, cpu, left)
}

/// Returns how many descriptors of ended connections the server has not closed after 15 s.
async fn descriptors_left(server: &Server, alone: usize) -> io::Result<usize> {
    let since = Instant::now();
    loop {
        let left = server.descriptors()?.saturating_sub(alone);
        if left == 0 || since.elapsed() > Duration::from_secs(15) {
            return Ok(left);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn report(
    soak: &Soak,
    samples: &[(f64, f64)],
    warm_up: Duration,
    cpu: f64,
    left: usize,
) -> Result<bool, Box<dyn Error>> {
    let count = |count: &AtomicU64| count.load(Relaxed);
    let length = samples.last().map_or(0.0, |sample| sample.0);
    println!(
        "{length:.0} min: {IDLE} idle, {BUSY} busy and {HOSTILES} hostile connections; the server used {:.0} % of a core",
        100.0 * cpu
    );
    println!("  lines of idle connections, all answered correctly       {:>10}", count(&soak.idle_lines));
    println!("  lines of busy connections, all answered correctly       {:>10}", count(&soak.busy_lines));
    println!("  busy streams that ended after all replies               {:>10}", count(&soak.busy_streams));
    for (what, times) in HOSTILE.iter().zip(&soak.hostile) {
        println!("  times that hostile clients {what:<29}{:>10}", count(times));
    }
    let counters = soak.server.counters()?;
    for name in [
        "accepted",
        "lines",
        "bad_lines",
        "line_timeouts",
        "write_timeouts",
        "failed",
        "idle_timeouts",
        "panicked",
        "accept_errors",
    ] {
        println!("  the server's {name:<42} {:>10}", counters.count(name));
    }

    println!(
        "memory of the server, for each tenth of the time after {:.0} min of warm-up",
        warm_up.as_secs_f64() / 60.0
    );
    let after: Vec<(f64, f64)> =
        samples.iter().copied().filter(|sample| sample.0 * 60.0 >= warm_up.as_secs_f64()).collect();
    for tenth in after.chunks(after.len().div_ceil(10).max(1)) {
        let mean = tenth.iter().map(|sample| sample.1).sum::<f64>() / tenth.len() as f64;
        let most = tenth.iter().map(|sample| sample.1).fold(0.0, f64::max);
        println!(
            "  to minute {:>5.1}: {mean:>9.0} KiB on average, {most:>9.0} KiB at most",
            tenth[tenth.len() - 1].0
        );
    }
    let slope = slope::slope(&after).ok_or("too few samples for a slope")?;
    println!(
        "  slope {:+.2} KiB per minute, 95 % confidence interval {:+.2} to {:+.2} ({} samples, equivalent to {:.0} independent ones)",
        slope.slope,
        slope.slope - slope.half,
        slope.slope + slope.half,
        after.len(),
        slope.worth
    );

    let wrong = soak.wrong.lock().map_err(|_| "poisoned")?;
    for wrong in wrong.iter().take(10) {
        println!("WRONG {wrong}");
    }
    let mut good = true;
    for (is_good, what) in [
        (wrong.is_empty(), format!("wrong replies, missing replies and broken connections: {}", wrong.len())),
        (slope.slope <= slope.half, "memory does not grow: the interval is not above 0".to_owned()),
        (left == 0, format!("open descriptors of ended connections: {left}")),
        (counters.count("panicked") == 0.0, "no handler panicked".to_owned()),
        (counters.count("idle_timeouts") == 0.0, "no well-behaved connection was closed".to_owned()),
    ] {
        println!("{} {what}", if is_good { "ok    " } else { "FAILED" });
        good &= is_good;
    }
    Ok(good)
}
