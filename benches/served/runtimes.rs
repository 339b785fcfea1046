//! Compares Tokio runtimes, each serving with `reply_into`.

use std::io;
use std::thread;

use lineframe::{Accepted, AnyIo, Listener, Peer, Server, reply_into};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::Asked;
use crate::process::{Failed, Figures, Load, Running, load, own};
use crate::servers::upper;
use crate::table::{beside_the_first, head};

const ROUNDS: usize = 9;

/// A runtime to measure.
struct Runtime {
    name: &'static str,
    kind: Kind,
    /// Tokio's `event_interval`: the number of task polls before the runtime checks for I/O events.
    interval: u32,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A multi-thread runtime with this number of workers.
    MultiThread(usize),
    CurrentThread,
    /// This number of current-thread runtimes, each on its own thread. Another thread accepts
    /// connections and distributes them in turn.
    HandedOver(usize),
}

use Kind::{CurrentThread, HandedOver, MultiThread};

const fn runtime(name: &'static str, kind: Kind, interval: u32) -> Runtime {
    Runtime { name, kind, interval }
}

/// Runtimes to compare on one core.
const ONE: [Runtime; 4] = [
    runtime("multi-thread, 1 worker, 1024", MultiThread(1), 1024),
    runtime("multi-thread, 1 worker, 61", MultiThread(1), 61),
    runtime("current-thread, 1024", CurrentThread, 1024),
    runtime("current-thread, 61", CurrentThread, 61),
];

/// Runtimes to compare on two cores, which they share with the load.
const TWO: [Runtime; 4] = [
    runtime("multi-thread, 2 workers, 1024", MultiThread(2), 1024),
    runtime("multi-thread, 1 worker, 1024", MultiThread(1), 1024),
    runtime("current-thread, 1024", CurrentThread, 1024),
    runtime("2 current-thread, handed over, 1024", HandedOver(2), 1024),
];

const CASES: [Load; 4] = [load(64, 256, 64), load(1, 1, 64), load(64, 1, 64), load(512, 1, 64)];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    compare(asked, "A runtime on one core", &ONE, &[0], &[1])?;
    compare(asked, "A runtime on two cores", &TWO, &[0, 1], &[0, 1])
}

fn compare(
    asked: &Asked<'_>,
    title: &str,
    runtimes: &[Runtime],
    server: &[usize],
    client: &[usize],
) -> Result<(), Failed> {
    println!("\n### {title}\n");
    head(&[
        "load",
        "runtime, its `event_interval`",
        "CPU time per line in ns",
        "lines per second",
        "99th percentile",
    ]);
    for case in CASES.iter().filter(|case| asked.takes(&case.name())) {
        let mut rounds = Vec::new();
        for _ in 0..asked.rounds.unwrap_or(ROUNDS) {
            let figures = runtimes.iter().map(|runtime| {
                let running = Running::start(&mut own(server, &["runtime", runtime.name])?)?;
                // The load may share its cores with the server, so it must not poll busily.
                let case = Load { busy_poll: false, ..*case };
                // A single connection cannot use a second thread.
                case.on(&running, &client[..client.len().min(case.connections)])
                    .map_err(|error| format!("{}: {error}", runtime.name).into())
            });
            rounds.push(figures.collect::<Result<Vec<Figures>, Failed>>()?);
        }
        for (at, runtime) in runtimes.iter().enumerate() {
            let (cpu, cpu_ratio) = beside_the_first(&rounds, at, |f| f.cpu);
            let (rate, rate_ratio) = beside_the_first(&rounds, at, |f| f.rate);
            let (p99, p99_ratio) = beside_the_first(&rounds, at, |f| f.p99);
            println!(
                "| {} | {} | {cpu:.0} ({cpu_ratio}) | {rate:.0} ({rate_ratio}) | {:.2} ms ({p99_ratio}) |",
                case.name(),
                runtime.name,
                p99 / 1e6
            );
        }
    }
    Ok(())
}

/// Prints the address, then serves forever in the runtime with this name.
pub(crate) fn serve(name: &str) -> Result<(), Failed> {
    let known = ONE.iter().chain(&TWO).find(|runtime| runtime.name == name);
    let &Runtime { kind, interval, .. } = known.ok_or("no such runtime")?;
    let mut builder = match kind {
        MultiThread(workers) => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
        CurrentThread | HandedOver(_) => Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().event_interval(interval).build()?;
    let server = Server::new();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening {}", listener.local_addr()?);
        match kind {
            HandedOver(count) => {
                let threads: Vec<_> = (0..count).map(|_| start_thread(&server, interval)).collect();
                for nth in 0.. {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    threads[nth % count].send(stream.into_std()?)?;
                }
            }
            _ => _ = server.serve(listener, reply_into(upper)).await,
        }
        Ok(())
    })
}

/// Starts a thread that serves the connections sent to it.
fn start_thread(server: &Server, interval: u32) -> mpsc::UnboundedSender<std::net::TcpStream> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = server.clone();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().event_interval(interval).build()?;
        runtime.block_on(server.serve(Handed(receiver), reply_into(upper)));
        io::Result::Ok(())
    });
    sender
}

/// A listener that receives the connections accepted by another thread.
struct Handed(mpsc::UnboundedReceiver<std::net::TcpStream>);

impl Listener for Handed {
    async fn accept(&mut self) -> io::Result<Accepted> {
        let Some(stream) = self.0.recv().await else { return std::future::pending().await };
        let peer = Peer::Tcp(stream.peer_addr()?);
        Ok(Accepted::new(AnyIo::new(TcpStream::from_std(stream)?), peer))
    }
}
