use std::time::{Duration, Instant};

mod client;
mod process;
mod scripted;
mod server;
mod terminal;
mod watch;

pub(crate) use client::Client;
pub(crate) use process::{Ended, Process, lineframe, run};
pub(crate) use scripted::Scripted;
pub(crate) use server::Server;
pub(crate) use terminal::Terminal;
pub(crate) use watch::Watch;

/// Limit of every wait. It is long, so that a busy machine can meet it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A timeout that no test reaches, because it is longer than [`PATIENCE`].
pub(crate) const NEVER: &str = "10m";

/// Asserts that `action` does not wait for a timeout. The test sets all timeouts that could apply
/// to [`NEVER`].
pub(crate) fn promptly<T>(action: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = action();
    let took = start.elapsed();
    assert!(took < PATIENCE, "took {took:?}");
    result
}

/// Asserts that one of five attempts takes less than `limit`, a timeout that `attempt` must not
/// wait for. A busy machine delays some attempts; waiting for the timeout would delay all of them.
pub(crate) fn assert_faster_than(limit: Duration, mut attempt: impl FnMut()) {
    let took = (0..5).map(|_| {
        let start = Instant::now();
        attempt();
        start.elapsed()
    });
    let mut late = Vec::new();
    for took in took {
        if took < limit {
            return;
        }
        late.push(took);
    }
    panic!("never in less than {limit:?}: {late:?}");
}
