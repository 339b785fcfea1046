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

/// The limit of every wait. Long, because a busy machine has to meet it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A timeout that no test reaches, because it is longer than [`PATIENCE`].
pub(crate) const NEVER: &str = "10m";

/// Asserts that `what` does not wait for a timeout. The test sets all timeouts that it could wait for to [`NEVER`].
pub(crate) fn at_once<T>(what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = what();
    let took = start.elapsed();
    assert!(took < PATIENCE, "took {took:?}");
    result
}

/// Asserts that one attempt of five takes less than `limit`, a timeout that `attempt` must not wait for. A busy machine delays
/// some attempts, a wait delays all of them.
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
