//! A thread of `bench` with its share of the connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use lineframe::AnyIo;
use lineframe::scan::Scanner;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet, spawn_local, yield_now};

use super::clock::{Clock, Deadline};
use super::connection::{Broken, Connection, Orders};
use super::lines::{Lines, Member};
use super::measure::Measure;
use super::pace::Pace;
use crate::address::Address;
use crate::failure::Failure;
use crate::stream::Connecting;

/// Maximum number of concurrent connection attempts per thread.
const CONNECTING: usize = 64;

/// Settings shared by all threads.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) server: Address,
    pub(super) connecting: Connecting,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) lines: Arc<Lines>,
    pub(super) scanner: Scanner,
    pub(super) window: u64,
    /// Lines per second, over all connections.
    pub(super) rate: Option<f64>,
    /// Number of measured lines, over all connections.
    pub(super) count: Option<u64>,
    pub(super) timeout: Duration,
    /// Whether the threads poll instead of sleeping.
    pub(super) busy_poll: bool,
}

/// Start and end of the measurement.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) clock: Clock,
    pub(super) measured_from: u64,
    pub(super) deadline: Deadline,
}

/// Results of the connections of a thread.
pub(super) struct Outcome {
    pub(super) measure: Measure,
    pub(super) broken: Vec<Broken>,
    /// Number of lines that were due but not sent.
    pub(super) unsent: u64,
    pub(super) effort: Effort,
}

/// Work of a thread during the measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) cpu: Option<Duration>,
    /// Share of the time in which the thread was not waiting for I/O, from 0 to 1. Includes the
    /// time it waited for a CPU, which affects the latencies in the same way.
    pub(super) busy: f64,
}

/// Messages of a thread, in this order.
pub(super) struct Started {
    /// Id of the server process if the system reports it, or why connecting failed.
    pub(super) connected: oneshot::Receiver<Result<Option<u32>, Failure>>,
    pub(super) outcome: oneshot::Receiver<Result<Outcome, Failure>>,
}

/// Starts the thread with this `number`, counted from 0. The thread connects, and begins when it
/// receives the schedule.
pub(super) fn start(
    task: Task,
    number: usize,
    go: watch::Receiver<Option<Schedule>>,
) -> Result<Started, Failure> {
    let (connected_sender, connected) = oneshot::channel();
    let (outcome_sender, outcome) = oneshot::channel();
    let run = move || {
        let outcome = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => LocalSet::new().block_on(&runtime, run(task, number, go, connected_sender)),
            Err(error) => {
                _ = connected_sender.send(Err(Failure::other("cannot start a thread", error)));
                return;
            }
        };
        // Sending fails only if the main thread has already stopped.
        _ = outcome_sender.send(outcome);
    };
    match thread::Builder::new().spawn(run) {
        Ok(_) => Ok(Started { connected, outcome }),
        Err(error) => Err(Failure::other("cannot start a thread", error)),
    }
}

async fn run(
    task: Task,
    number: usize,
    mut go: watch::Receiver<Option<Schedule>>,
    connected_sender: oneshot::Sender<Result<Option<u32>, Failure>>,
) -> Result<Outcome, Failure> {
    let numbers: Vec<_> = (number..task.connections).step_by(task.threads).collect();
    let connecting = stream::iter(&numbers).map(|_| task.connecting.connect(&task.server));
    let connected: Result<Vec<AnyIo>, Failure> = connecting.buffer_unordered(CONNECTING).try_collect().await;
    let connections = match connected {
        Ok(connections) => {
            _ = connected_sender.send(Ok(connections.first().and_then(peer)));
            connections
        }
        Err(failure) => {
            _ = connected_sender.send(Err(failure));
            return Err(Failure::other("stopped", "no connection"));
        }
    };
    let schedule = match go.wait_for(Option::is_some).await.map(|schedule| schedule.clone()) {
        Ok(Some(schedule)) => schedule,
        Ok(None) | Err(_) => return Err(Failure::other("stopped", "no measurement")),
    };
    load(task, schedule, numbers.into_iter().zip(connections)).await
}

async fn load(
    task: Task,
    schedule: Schedule,
    connections: impl Iterator<Item = (usize, AnyIo)>,
) -> Result<Outcome, Failure> {
    let Schedule { clock, measured_from, deadline } = schedule;
    let measure = Rc::new(RefCell::new(Measure::new(measured_from)));
    let orders = Rc::new(Orders {
        lines: task.lines,
        scanner: task.scanner,
        window: task.window,
        clock,
        measured_from,
        deadline: deadline.clone(),
        timeout: task.timeout,
        read_buffer: RefCell::default(),
        outgoing: RefCell::default(),
    });
    let mut running = JoinSet::new();
    for (number, io) in connections {
        let pace = task.rate.map(|rate| Pace::new(rate, number, task.connections)).transpose();
        let pace = pace.map_err(|error| Failure::other("cannot create a timer", error))?;
        let quota = task.count.map_or(u64::MAX, |count| share(count, number, task.connections));
        let member = Member { number: number as u64, of: task.connections as u64 };
        let connection = Connection::new(io, member, orders.clone(), measure.clone(), pace, quota);
        running.spawn_local(connection.run());
    }
    if task.busy_poll {
        // While a task is ready to run, the runtime polls for I/O without waiting.
        spawn_local(async {
            loop {
                yield_now().await;
            }
        });
    }
    let (mut broken, mut unsent) = (Vec::new(), 0);
    let mut all_done = async || {
        while let Some(done) = running.join_next().await {
            match done {
                Ok(Ok(late)) => unsent += late,
                Ok(Err(failed)) => broken.push(failed),
                Err(error) => return Err(Failure::other("internal error in a connection", error)),
            }
        }
        Ok(())
    };
    // The effort covers the measurement, but not the wait for the last replies.
    let begin = async {
        tokio::time::sleep_until(clock.instant(measured_from)).await;
        Snapshot::take(clock)
    };
    let mut is_done = false;
    let before = tokio::select! {
        before = begin => before,
        done = all_done() => { done?; is_done = true; Snapshot::take(clock) }
    };
    if !is_done {
        let until = clock.instant(deadline.at());
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            done = all_done() => { done?; is_done = true }
        }
    }
    let effort = before.until(Snapshot::take(clock));
    if !is_done {
        all_done().await?;
    }
    drop(running);
    let measure = Rc::try_unwrap(measure)
        .map_err(|_| Failure::other("internal error", "a connection is still running"))?;
    Ok(Outcome { measure: measure.into_inner(), broken, unsent, effort })
}

/// Returns the process that listens on a Unix socket.
fn peer(io: &AnyIo) -> Option<u32> {
    #[cfg(unix)]
    if let Some(io) = io.downcast_ref::<tokio::net::UnixStream>() {
        return io.peer_cred().ok()?.pid()?.try_into().ok();
    }
    _ = io;
    None
}

/// Returns the part of `count` for connection `number` out of `of`.
fn share(count: u64, number: usize, of: usize) -> u64 {
    let (number, of) = (number as u64, of as u64);
    count / of + u64::from(number < count % of)
}

struct Snapshot {
    cpu: Option<Duration>,
    busy: Duration,
    at: u64,
}

impl Snapshot {
    fn take(clock: Clock) -> Self {
        Self {
            cpu: thread_cpu(),
            busy: Handle::current().metrics().worker_total_busy_duration(0),
            at: clock.now(),
        }
    }

    fn until(self, later: Self) -> Effort {
        let passed = Duration::from_nanos(later.at.saturating_sub(self.at)).as_secs_f64();
        let busy = later.busy.saturating_sub(self.busy).as_secs_f64();
        Effort {
            cpu: later.cpu.zip(self.cpu).map(|(later, earlier)| later.saturating_sub(earlier)),
            busy: if passed > 0.0 { (busy / passed).min(1.0) } else { 0.0 },
        }
    }
}

#[cfg(unix)]
fn thread_cpu() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(unix))]
fn thread_cpu() -> Option<Duration> {
    None
}
