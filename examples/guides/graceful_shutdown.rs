//! A server that drains on SIGINT and SIGTERM, and stops immediately on a second signal.
//!
//! ```sh
//! cargo run --example graceful_shutdown -- 127.0.0.1:8083
//! ```

use std::io;
use std::time::Duration;

use lineframe::{Bind, Connection, Server};
use tokio::sync::oneshot;
use tokio::time::sleep;

// region: program
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Self { interrupt: interrupt?, terminate: terminate? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

async fn run(address: &str, drain_timeout: Duration) -> io::Result<ExitCode> {
    // Before the first line of output: a supervisor may send a signal as soon as it reads it.
    let mut signals = Signals::new()?;
    let listener = Bind::new().tcp(address).await?;
    println!("listening {}", listener.local_addr()?);

    let server = Server::builder().drain_timeout(drain_timeout).build();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(server.serve_with_shutdown(listener, session, stopped));

    println!("{}: draining", signals.next().await);
    drop(stop); // completes `stopped`
    tokio::select! {
        counters = &mut serving => {
            let counters = counters?;
            println!("stopped: lines={} aborted={}", counters.lines, counters.aborted);
            Ok(if counters.aborted == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        second = signals.next() => {
            println!("{second}: not waiting any longer");
            serving.abort();
            Ok(ExitCode::FAILURE)
        }
    }
}
// endregion

/// Answers a line such as `300` after 300 ms of work.
async fn session(mut conn: Connection) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        let milliseconds = line.ok().and_then(|line| std::str::from_utf8(&line).ok()?.parse().ok());
        match milliseconds {
            Some(milliseconds) => {
                sleep(Duration::from_millis(milliseconds)).await;
                conn.send_line(format!("worked {milliseconds} ms")).await?;
            }
            None => conn.send_line("error: not a number").await?,
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8083".into());
    let seconds = words.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(8);
    run(&address, Duration::from_secs(seconds)).await
}
