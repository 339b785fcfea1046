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

/// How long anything is waited for. Never reached where things are well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What has to come without waiting for anything comes within this, on a machine with better things to do as well.
const AT_ONCE: Duration = Duration::from_secs(2);

pub(crate) fn at_once<T>(what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = what();
    let took = start.elapsed();
    assert!(took < AT_ONCE, "took {took:?}");
    result
}
