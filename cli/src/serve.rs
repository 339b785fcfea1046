//! A server for lines.

mod answer;
mod exec;
mod limits;
mod log;

use std::convert::Infallible;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use lineframe::Server;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::answer::{Answer, Handler};
use self::exec::Exec;
use self::limits::Limits;
use self::log::Log;
use crate::address::Address;
use crate::failure::Failure;
use crate::framing::Framing;
use crate::listen::Listener;
use crate::show::print;
use crate::signals::{Signal, Signals};
use crate::units;

pub(crate) use self::answer::upper;

/// How long what was ended at once may take to be gone: children killed, sockets closed.
const GONE: Duration = Duration::from_secs(1);

/// Answer lines: in upper case, as they are, or by a command for each connection.
///
/// Prints "listening ADDR" on stdout for each listener, with the port that it got in place of port 0. Serves until SIGINT,
/// SIGTERM or SIGHUP, and then until what has come by then is answered (--drain-timeout). A second signal or SIGQUIT ends it
/// at once. SIGUSR1 logs the counters.
///
/// A line that is too long, cut or otherwise bad gets one line of answer that begins with "error: ", and the next line is
/// taken as if nothing had happened.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Where to listen: host:port, a path with a slash in it for a Unix socket, or @name
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:8083")]
    addresses: Vec<Address>,

    /// What answers a line
    #[arg(long, value_enum, default_value_t = Handler::Upper)]
    handler: Handler,

    /// Answer with a command: one child for each connection, without a shell. Lines come on its stdin, its lines on stdout are
    /// the replies
    ///
    /// A program that holds its output back where that is a pipe has to be told not to: stdbuf -oL CMD, sed -u, python3 -u.
    ///
    /// Its environment says who is there: PROTO, TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALIP and TCPLOCALPORT, as tcpserver has
    /// them, or UNIXREMOTEPID, UNIXREMOTEEUID, UNIXREMOTEEGID and UNIXLOCALPATH. What it writes to stderr
    /// is logged, a record for each line.
    ///
    /// Its stdin ends with the client's lines, and it is killed where it outlives its connection. Where neither the client nor
    /// the child says anything for --idle-timeout, both are ended.
    #[arg(long)]
    exec: bool,

    /// The command for --exec, which may then be left out, and its arguments
    #[arg(value_name = "CMD", last = true, conflicts_with = "handler")]
    command: Vec<OsString>,

    #[command(flatten)]
    framing: Framing,

    /// The longest reply [default: as --max-length, and at least 64k, so that error lines fit]
    #[arg(long, value_name = "SIZE", value_parser = units::size, help_heading = "Lines")]
    max_encoded_length: Option<usize>,

    /// Threads that serve connections, 1 to 1024 [default: as many as there are CPUs for this process]
    // Tokio panics where the system has no more threads: nobody has use for more of them than this.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    #[arg(help_heading = "Limits")]
    pub(crate) workers: Option<usize>,

    #[command(flatten)]
    limits: Limits,

    #[command(flatten)]
    log: log::Options,
}

const HELP: &str = "\
Examples:
  lineframe serve 127.0.0.1:0 ./some.sock @name
  lineframe serve -v --handler upper-unicode '[::]:8083'
  lineframe serve ./calc.sock --exec -- stdbuf -oL bc

Exit codes:
  0  stopped by a signal, every line that had come was answered
  1  cannot listen, cannot run CMD; the drain has cut somebody off; a second signal
     or SIGQUIT came while there were connections left
  2  usage";

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let log = arguments.log.start()?;
    let done = serve(arguments, &log).await;
    log.end(done)
}

async fn serve(arguments: Arguments, log: &Log) -> Result<(), Failure> {
    let Arguments {
        addresses,
        handler,
        exec,
        command,
        framing,
        max_encoded_length,
        workers: _,
        limits,
        log: _,
    } = arguments;
    // Before anybody can know that there is something to stop.
    let mut signals =
        Signals::with_report().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let longest_reply = max_encoded_length.unwrap_or(framing.max_length.max(64 * 1024));
    let codec = framing.builder().max_encoded_length(longest_reply).build();
    let (answer, descriptors) = match command.is_empty() {
        true if exec => return Err(Failure::usage("--exec needs a command: serve --exec -- CMD")),
        true => (Answer::Handler(handler), 1),
        false => {
            let exec = Exec::new(command, &codec, longest_reply, &limits)?;
            (Answer::Exec(Arc::new(exec)), exec::DESCRIPTORS)
        }
    };

    let bind = limits.bind();
    let bound = async {
        let mut listeners = Vec::new();
        for address in &addresses {
            listeners.push(Listener::bind(&bind, address).await?);
        }
        Ok(listeners)
    };
    // A name lookup may take long.
    let listeners = tokio::select! {
        bound = bound => bound?,
        () = async { while signals.next().await == Signal::Report {} } => {
            return Err(Failure::other("interrupted", "before it listened"));
        }
    };
    let mut listening = Vec::new();
    for listener in listeners {
        let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
        match print(format_args!("listening {address}")) {
            Err(failure) if failure.is_error() => return Err(failure),
            // Nobody reads stdout any more: `serve | head -1`.
            _ => info!(%address, "listening"),
        }
        listening.push((listener, Arc::new(address)));
    }

    let server = limits.apply(Server::builder(), descriptors).codec(codec).build();
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    // Each handler holds one end. The other hears when the last of them is gone.
    let (present, mut gone) = mpsc::channel::<Infallible>(1);
    let handlers = listening.len();
    for (listener, address) in listening {
        // One pointer, which each session has beside what it needs.
        let own = Arc::new((answer.clone(), address, present.clone()));
        let handler = move |connection| {
            let (answer, address, present) = &*own;
            answer.to(connection, address, present.clone())
        };
        serving.spawn(server.serve_with_shutdown(listener, handler, stop.clone().cancelled_owned()));
    }
    drop(present);

    tokio::spawn(exec::reap());

    let signal = asked_to_stop(&mut signals, &server).await;
    // Each connection holds an end too. Counted before the drain ends some of them.
    let has_connections = gone.sender_strong_count() > handlers;
    stop.cancel();
    let is_drained = match signal {
        Signal::Quit => !has_connections,
        _ => tokio::select! {
            biased;
            () = async { while serving.join_next().await.is_some() {} } => true,
            () = asked_to_cut(&mut signals, &server) => false,
        },
    };
    // A Unix socket's file is removed where its listener is dropped, which is in these tasks.
    serving.shutdown().await;
    _ = timeout(GONE, gone.recv()).await;
    exec::kill_all();
    let counters = server.counters();
    log.stopped(&counters);
    match (is_drained, counters.aborted) {
        (false, _) => {
            let which = if signal == Signal::Quit { "SIGQUIT" } else { "a second signal" };
            Err(Failure::other("stopped", format_args!("{which} came while there were connections left")))
        }
        (true, 0) => Ok(()),
        (true, aborted) => {
            let why = format!("{aborted} connections were cut by the end of the drain (drain_timeout)");
            Err(Failure::other("stopped", why))
        }
    }
}

/// Waits for a signal that ends a drain. The end of a terminal, which may send SIGHUP twice, does not.
async fn asked_to_cut(signals: &mut Signals, server: &Server) {
    while asked_to_stop(signals, server).await == Signal::Hangup {}
}

/// Waits for a signal to stop. Logs the counters when asked for them.
async fn asked_to_stop(signals: &mut Signals, server: &Server) -> Signal {
    loop {
        match signals.next().await {
            Signal::Report => log::counters("counters", &server.counters()),
            signal => return signal,
        }
    }
}
