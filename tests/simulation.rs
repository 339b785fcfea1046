//! Simulates a server under a paused clock. In-memory peers send pieces, stall, drip, half-close,
//! reset, read slowly or never read. For each of thousands of seeds, the outcome of every
//! connection is compared with a forecast, to the millisecond.
//!
//! `LINEFRAME_SEED=123 cargo test --test simulation` runs one seed and prints its plan.

#![allow(unreachable_pub)]

#[path = "simulation/expected.rs"]
mod expected;
#[path = "simulation/handlers.rs"]
mod handlers;
mod model;
#[path = "simulation/pipe.rs"]
mod pipe;
#[path = "simulation/plan.rs"]
mod plan;

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use expected::{End, Expected, Undecided, expect};
use handlers::{Context, Seen};
use lineframe::{Accepted, AnyIo, Listener, Server, ServerCounters, TimeoutKind};
use pipe::{PeerEnd, ServerEnd, StreamEnd};
use plan::{Config, Handler, Ms, NEVER, Peer, Plan, Reads, Rng, Step};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const SEEDS: u64 = 10_000;

/// Parts run in parallel. Four is a little more than the cores of a small machine.
const PARTS: u64 = 4;

macro_rules! parts {
    ($($name:ident $part:literal),*) => {
        $(#[test]
        fn $name() {
            run_part($part);
        })*
    };
}

parts!(seeds_0_of_4 0, seeds_1_of_4 1, seeds_2_of_4 2, seeds_3_of_4 3);

fn run_part(part: u64) {
    if let Ok(seed) = std::env::var("LINEFRAME_SEED") {
        let seed = seed.parse().expect("LINEFRAME_SEED is a number");
        if seed % PARTS == part {
            run_seed(seed, true);
        }
        return;
    }
    let mut failed = 0;
    for seed in (part..SEEDS).step_by(PARTS as usize) {
        if std::panic::catch_unwind(|| run_seed(seed, false)).is_err() {
            eprintln!("reproduce: LINEFRAME_SEED={seed} cargo test --test simulation -- --nocapture\n");
            failed += 1;
            assert!(failed < 10, "too many seeds failed; stopping");
        }
    }
    assert_eq!(failed, 0, "seeds failed");
}

fn run_seed(seed: u64, is_verbose: bool) {
    let mut rng = Rng(seed);
    let (plan, expected) = loop {
        let mut plan = Plan::new(&mut rng);
        if let Ok(expected) = Forecast::new(&mut plan) {
            break (plan, expected);
        }
    };
    if is_verbose {
        eprintln!("{plan:#?}\n{expected:#?}");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // If no timer is left, the paused clock jumps to this timeout and the test fails.
    let days = Duration::from_secs(100 * 24 * 60 * 60);
    runtime.block_on(async { timeout(days, simulate(plan, expected)).await.expect("the simulation ends") });
}

/// The expected outcome of a plan.
#[derive(Debug)]
struct Forecast {
    drain_at: Ms,
    /// The expected outcome of each peer, or `None` if it is not accepted.
    connections: Vec<Option<Expected>>,
    accept_errors: u64,
    returns_at: Ms,
}

impl Forecast {
    fn new(plan: &mut Plan) -> Result<Self, Undecided> {
        let Some(drain_at) = plan.drain_at else {
            // Without a shutdown in the plan, everything must end by itself. Other plans are
            // discarded.
            plan.drain_at = Some(NEVER / 2);
            let ended = Self::new(plan)?;
            if ended.returns_at >= NEVER / 2 || ended.connections.iter().any(Option::is_none) {
                return Err(Undecided);
            }
            let last = ended.expected().map(|expected| expected.ended_at).max();
            plan.drain_at = Some(last.unwrap_or(0) + 1);
            return Self::new(plan);
        };
        let Config { drain_timeout, max_connections, .. } = plan.config;
        let horizon = drain_timeout.map_or(NEVER, |after| drain_at + after);
        let mut forecast = Self { drain_at, connections: Vec::new(), accept_errors: 0, returns_at: drain_at };
        let mut ends = Vec::new();
        let mut accepted_at = 0;
        // The state of emptying the accept queue during the shutdown.
        let (mut queue_at, mut queue_pause, mut queue_has_failed) = (drain_at, 10, false);
        for peer in &plan.peers {
            // The server takes a slot of `max_connections` before it accepts.
            ends.sort_unstable_by(|a: &Ms, b| b.cmp(a));
            let permit_at = ends.get(max_connections - 1).copied().unwrap_or(0);
            let mut at = peer.connect.max(accepted_at).max(permit_at);
            let mut errors = peer.accept_errors.iter();
            let mut pause = 10;
            while at < drain_at {
                let Some(is_about_one) = errors.next() else { break };
                forecast.accept_errors += 1;
                if !is_about_one {
                    at = at.saturating_add(pause);
                    pause *= 2;
                }
            }
            if at == drain_at || peer.connect == drain_at || permit_at == drain_at {
                return Err(Undecided);
            }
            accepted_at = at;
            if at > drain_at {
                // The peer is in the accept queue, unless it connects too late.
                if peer.connect == queue_at {
                    return Err(Undecided);
                }
                let is_queued = peer.connect < queue_at && !queue_has_failed;
                while let Some(is_about_one) = errors.next().filter(|_| is_queued && !queue_has_failed) {
                    forecast.accept_errors += 1;
                    if *is_about_one {
                        continue;
                    }
                    if ends.contains(&queue_at) {
                        return Err(Undecided);
                    }
                    // The server retries while open connections may still end and free resources.
                    match ends.iter().any(|end| *end > queue_at) {
                        true => queue_at += queue_pause,
                        false => queue_has_failed = true,
                    }
                    queue_pause *= 2;
                }
                if queue_at >= horizon || permit_at == queue_at {
                    return Err(Undecided);
                }
                forecast.returns_at = forecast.returns_at.max(queue_at);
                if !is_queued || queue_has_failed {
                    forecast.connections.push(None);
                    continue;
                }
                queue_pause = 10;
                at = queue_at.max(permit_at);
            }
            let expected = expect(&plan.config, peer, at, drain_at, horizon)?;
            ends.push(expected.ended_at);
            forecast.returns_at = forecast.returns_at.max(expected.ended_at);
            forecast.connections.push(Some(expected));
        }
        Ok(forecast)
    }

    fn expected(&self) -> impl Iterator<Item = &Expected> {
        self.connections.iter().flatten()
    }
}

/// The bytes that a peer received, and when.
#[derive(Debug)]
struct Received {
    bytes: Vec<u8>,
    times: Vec<(Ms, usize)>,
    end: Option<(StreamEnd, Ms)>,
}

struct Arriving {
    io: ServerEnd,
    index: usize,
    errors: Vec<bool>,
}

struct Arrivals {
    connecting: mpsc::UnboundedReceiver<Arriving>,
    first: Option<Arriving>,
}

impl Listener for Arrivals {
    async fn accept(&mut self) -> io::Result<Accepted> {
        if self.first.is_none() {
            self.first = self.connecting.recv().await;
        }
        let Some(first) = &mut self.first else { return std::future::pending().await };
        if !first.errors.is_empty() {
            let is_about_one = first.errors.remove(0);
            let kind = if is_about_one { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::Other };
            return Err(kind.into());
        }
        let Arriving { io, index, .. } = self.first.take().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, index as u16));
        Ok(Accepted::new(AnyIo::new(io), lineframe::Peer::Tcp(address)))
    }
}

async fn simulate(plan: Plan, forecast: Forecast) {
    let Plan { config, peers, .. } = plan;
    let config = Arc::new(config);
    let start = Instant::now();
    let seen = Arc::new(Mutex::new(vec![Seen::default(); peers.len()]));
    let context = Context { config: Arc::clone(&config), start, seen: Arc::clone(&seen) };
    let (connect, connecting) = mpsc::unbounded_channel();
    let mut pipes = Vec::new();
    let mut running = Vec::new();
    for (index, peer) in peers.iter().cloned().enumerate() {
        let (end, io) = pipe::pipe(peer.capacity, peer.flaws.clone());
        pipes.push(end.clone());
        let connect = connect.clone();
        let arriving = Arriving { io, index, errors: peer.accept_errors.clone() };
        running.push(tokio::spawn(async move {
            sleep_until(at(start, peer.connect)).await;
            // If the server no longer listens, dropping `arriving` closes the connection.
            _ = connect.send(arriving);
            live(peer, end, start).await
        }));
    }

    let server = server(&config);
    let listener = Arrivals { connecting, first: None };
    let serving = server.serve_with_shutdown(
        listener,
        handlers::handler(context.clone()),
        sleep_until(at(start, forecast.drain_at)),
    );
    let counters = serving.await;
    let returned_at = context.now();
    for (pipe, connection) in pipes.iter().zip(&forecast.connections) {
        let Some(expected) = connection else { continue };
        if !lives_on(&config, expected) {
            assert!(pipe.server_is_gone(), "a stream is still held");
        } else {
            // The reset ends the task that still owns the connection.
            pipe.reset();
        }
    }
    let mut received = Vec::new();
    for peer in running {
        received.push(peer.await.unwrap());
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "a task is left");
    assert_eq!(returned_at, forecast.returns_at, "serve() returned");

    let seen = seen.lock().unwrap();
    for (index, peer) in peers.iter().enumerate() {
        let connection = forecast.connections[index].as_ref();
        check_connection(index, &config, peer, connection, &seen[index], &received[index]);
        if let Some(expected) = connection.filter(|expected| !lives_on(&config, expected)) {
            assert_eq!(pipes[index].sent_by_server(), expected.sent, "sent to peer {index}");
        }
    }
    check_counters(&config, &forecast, counters);
}

fn at(start: Instant, ms: Ms) -> Instant {
    start + Duration::from_millis(ms)
}

fn server(config: &Config) -> Server {
    let ms = |timeout: Option<Ms>| timeout.map(Duration::from_millis);
    let builder = match config.handshake.map(Duration::from_millis) {
        None => Server::builder(),
        Some(takes) => Server::builder().handshake(async move |accepted: Accepted| {
            sleep(takes).await;
            Ok(accepted)
        }),
    };
    builder
        .codec(expected::codec(config))
        .max_connections(config.max_connections)
        .max_bad_lines(config.max_bad_lines)
        .max_unsent(config.max_unsent)
        .idle_timeout(ms(config.idle_timeout))
        .line_timeout(ms(config.line_timeout))
        .write_timeout(ms(config.write_timeout))
        .drain_timeout(ms(config.drain_timeout))
        .linger_timeout(Duration::from_millis(config.linger_timeout))
        .handshake_timeout(ms(config.handshake_timeout))
        .build()
}

/// Runs a peer from connect to end.
async fn live(peer: Peer, pipe: PeerEnd, start: Instant) -> Received {
    let acts = async {
        for (when, step) in &peer.steps {
            sleep_until(at(start, *when)).await;
            match step {
                Step::Send(bytes) => pipe.send(bytes),
                Step::HalfClose => pipe.half_close(),
                Step::Reset => pipe.reset(),
            }
        }
    };
    let mut received = Received { bytes: Vec::new(), times: Vec::new(), end: None };
    let reads = async {
        let most = match peer.reads {
            Reads::Eagerly { .. } => usize::MAX,
            Reads::Slowly { most, .. } => most,
            Reads::Never => return,
        };
        for tick in 0.. {
            if let Reads::Slowly { every, .. } = peer.reads {
                sleep_until(at(start, peer.connect + 1 + tick * every)).await;
            }
            let now = || start.elapsed().as_millis() as Ms;
            let some = poll_fn(|cx| match (pipe.poll_receive(most, cx), peer.reads) {
                // A slow reader polls again at its next read time.
                (Poll::Pending, Reads::Slowly { .. }) => Poll::Ready(Ok(Vec::new())),
                (some, _) => some,
            });
            match some.await {
                Ok(bytes) => {
                    received.bytes.extend_from_slice(&bytes);
                    received.times.push((now(), received.bytes.len()));
                }
                Err(end) => {
                    received.end = Some((end, now()));
                    return;
                }
            }
        }
    };
    if let Reads::Eagerly { closes_at_end: true } = peer.reads {
        tokio::select! {
            () = reads => pipe.half_close(),
            () = async { acts.await; std::future::pending().await } => {}
        }
    } else {
        tokio::join!(acts, reads);
    }
    received
}

/// Returns `true` if the connection was aborted while a task of the handler owned it. The server
/// cannot stop that task.
fn lives_on(config: &Config, expected: &Expected) -> bool {
    matches!(config.handler, Handler::Spawned | Handler::Tasks) && !expected.has_returned
}

fn check_connection(
    index: usize,
    config: &Config,
    peer: &Peer,
    connection: Option<&Expected>,
    seen: &Seen,
    received: &Received,
) {
    let Some(expected) = connection else {
        assert_eq!(seen.began_at, None, "peer {index} connected too late");
        assert_eq!(received.bytes, b"");
        return;
    };
    assert_eq!(seen.began_at, expected.began_at, "the handler of peer {index} began");
    if !matches!(config.handler, Handler::Reply | Handler::ReplyInto) {
        assert_eq!(seen.items, expected.items, "given to the handler of peer {index}");
    }
    if lives_on(config, expected) {
        assert!(expected.written.starts_with(&received.bytes), "received by peer {index}");
        return;
    }
    assert_eq!(received.bytes.len(), expected.received, "bytes received by peer {index}");
    assert_eq!(received.bytes, expected.written[..expected.received], "received by peer {index}");
    if let Reads::Eagerly { .. } = peer.reads {
        assert_eq!(by_time(&received.times), by_time(&expected.times), "when peer {index} received");
        if let Some((end, when)) = received.end {
            let expected_end = match (expected.fin_at, expected.ended_at) {
                (Some(fin), _) => (StreamEnd::Eof, fin),
                (None, ended_at) if end == StreamEnd::Reset => (StreamEnd::Reset, ended_at),
                (None, ended_at) => (StreamEnd::Closed, ended_at),
            };
            assert_eq!((end, when), expected_end, "how it ended for peer {index}");
        }
    }
}

/// Reduces the times to the total at the end of each millisecond.
fn by_time(times: &[(Ms, usize)]) -> Vec<(Ms, usize)> {
    let mut by_time: Vec<(Ms, usize)> = Vec::new();
    for (at, total) in times {
        match by_time.last_mut() {
            Some(last) if last.0 == *at => last.1 = *total,
            _ => by_time.push((*at, *total)),
        }
    }
    by_time
}

fn check_counters(config: &Config, forecast: &Forecast, counters: ServerCounters) {
    let count = |is: &dyn Fn(&Expected) -> bool| forecast.expected().filter(|e| is(e)).count() as u64;
    let ended = |end: End| count(&|expected| expected.end == end);
    assert_eq!(counters.accepted, count(&|_| true), "accepted");
    assert_eq!(counters.accept_errors, forecast.accept_errors, "accept_errors");
    assert_eq!(counters.refused, 0);
    assert_eq!(counters.failed, ended(End::Failed), "failed");
    assert_eq!(counters.panicked, ended(End::Panicked), "panicked");
    assert_eq!(counters.aborted, ended(End::Aborted), "aborted");
    assert_eq!(counters.idle_timeouts, ended(End::TimedOut(TimeoutKind::Idle)), "idle_timeouts");
    assert_eq!(counters.line_timeouts, ended(End::TimedOut(TimeoutKind::Line)), "line_timeouts");
    assert_eq!(counters.write_timeouts, ended(End::TimedOut(TimeoutKind::Write)), "write_timeouts");
    assert_eq!(counters.handshake_timeouts, ended(End::TimedOut(TimeoutKind::Handshake)), "handshakes");

    let counted = || forecast.expected().filter(|expected| !lives_on(config, expected));
    let sum = |of: &dyn Fn(&Expected) -> u64| counted().map(of).sum::<u64>();
    let items = |is: fn(&model::Item) -> bool| {
        sum(&|expected| expected.counted.iter().filter(|item| is(item)).count() as u64)
    };
    // A connection that lives on was counted only up to some moment.
    let is_exact = !forecast.expected().any(|expected| lives_on(config, expected));
    let check = |what: &str, counted: u64, expected: u64| {
        assert!(counted == expected || !is_exact && counted > expected, "{what}: {counted} {expected}");
    };
    check("lines", counters.lines, items(Result::is_ok));
    check("bad_lines", counters.bad_lines, items(Result::is_err));
    check("lines_written", counters.lines_written, sum(&|expected| expected.lines_written));
    check("bytes_sent", counters.bytes_sent, sum(&|expected| expected.sent as u64));
    if forecast.expected().all(|expected| expected.bytes_read.is_some()) {
        let read = sum(&|expected| expected.bytes_read.unwrap() as u64);
        check("bytes_read", counters.bytes_read, read);
    }
}
