//! The command `serve`: a server that replies to lines.

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
use crate::show::{counted, print};
use crate::signals::{Signal, Signals};
use crate::units;

pub(crate) use self::answer::upper;

/// How long to wait at exit for killed children and closing connections.
const GONE: Duration = Duration::from_secs(1);

/// Run a server that replies to each line: in upper case, unchanged, or by a command per
/// connection.
///
/// Prints "listening ADDR" to stdout for each listener, with the actual port if the port was 0.
/// Stops at SIGINT, SIGTERM or SIGHUP: the server replies to all lines received by then, within
/// --drain-timeout. A second signal or SIGQUIT stops it immediately. SIGUSR1 logs the counters.
///
/// A line that is too long, cut or otherwise bad gets one reply that begins with "error: ". The
/// server then continues with the next line.
#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Arguments {
    /// Addresses to listen on: host:port, a path with a slash for a Unix socket, or @name
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:8083")]
    addresses: Vec<Address>,

    /// What to reply to a line
    #[arg(long, value_enum, default_value_t = Handler::Upper)]
    handler: Handler,

    /// Run CMD once for each connection, without a shell. It reads the lines from stdin and writes
    /// the replies to stdout
    ///
    /// Many programs buffer their output if it goes to a pipe. Turn this off: stdbuf -oL CMD, sed
    /// -u, python3 -u.
    ///
    /// Environment variables describe the connection: PROTO, TCPREMOTEIP, TCPREMOTEPORT, TCPLOCALIP
    /// and TCPLOCALPORT as with tcpserver, or UNIXREMOTEPID, UNIXREMOTEEUID, UNIXREMOTEEGID and
    /// UNIXLOCALPATH. Each line that the command writes to stderr is logged.
    ///
    /// Its stdin is closed after the last line of the client. It is killed if it outlives the
    /// connection. If neither the client nor the command sends anything for --idle-timeout, the
    /// connection is closed and the command killed.
    #[arg(long)]
    exec: bool,

    /// Command to run for each connection, with its arguments. Implies --exec
    #[arg(value_name = "CMD", last = true, conflicts_with = "handler")]
    command: Vec<OsString>,

    #[command(flatten)]
    framing: Framing,

    /// Longest reply [default: the value of --max-length, but at least 64k]
    #[arg(long, value_name = "SIZE", value_parser = units::size, help_heading = "Lines")]
    max_encoded_length: Option<usize>,

    /// Threads that serve connections, 1 to 1024 [default: one per CPU available to the process]
    // The upper limit exists because Tokio panics if the system runs out of threads.
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
  0  stopped by a signal, after a reply to every line received by then
  1  cannot listen or cannot run CMD; or connections were still open at
     --drain-timeout, at a second signal or at SIGQUIT
  2  usage error";

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
    // Handle signals before the process announces its address.
    let mut signals =
        Signals::with_report().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let longest_reply = max_encoded_length.unwrap_or(framing.max_length.max(64 * 1024));
    let codec = framing.builder().max_encoded_length(longest_reply).build();
    let (answer, descriptors) = match command.is_empty() {
        true if exec => return Err(Failure::usage("--exec needs a command, such as serve --exec -- CMD")),
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
    // A name lookup may take long, so a signal can interrupt it.
    let listeners = tokio::select! {
        bound = bound => bound?,
        () = async { while signals.next().await == Signal::Report {} } => {
            return Err(Failure::other("interrupted", "stopped before listening"));
        }
    };
    let mut listening = Vec::new();
    for listener in listeners {
        let address = listener
            .address()
            .map_err(|error| Failure::other("cannot get the address of the listener", error))?;
        match print(format_args!("listening {address}")) {
            Err(failure) if failure.is_error() => return Err(failure),
            // Continue if stdout is a closed pipe, as in `serve | head -1`.
            _ => info!(%address, "listening"),
        }
        listening.push((listener, Arc::new(address)));
    }

    let server = limits.apply(Server::builder(), descriptors).codec(codec).build();
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    // Each handler and each connection holds a sender. The receiver ends when all of them are gone.
    let (present, mut gone) = mpsc::channel::<Infallible>(1);
    let handlers = listening.len();
    for (listener, address) in listening {
        // A single `Arc`, because each session holds a clone of the handler.
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
    // Count the connections before the drain closes some of them.
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
    // Ends the tasks that own the listeners, which removes the files of Unix sockets.
    serving.shutdown().await;
    _ = timeout(GONE, gone.recv()).await;
    exec::kill_all();
    let counters = server.counters();
    log.stopped(&counters);
    match (is_drained, counters.aborted) {
        (false, _) => {
            let which = if signal == Signal::Quit { "SIGQUIT" } else { "a second signal" };
            Err(Failure::other("stopped", format_args!("{which} closed the remaining connections")))
        }
        (true, 0) => Ok(()),
        (true, aborted) => {
            let aborted = counted(aborted, "connection");
            let why = format!("closed {aborted} at the drain timeout; raise the limit with --drain-timeout");
            Err(Failure::other("stopped", why))
        }
    }
}

/// Waits for a signal that ends the drain. SIGHUP does not: a closing terminal may send it twice.
async fn asked_to_cut(signals: &mut Signals, server: &Server) {
    while asked_to_stop(signals, server).await == Signal::Hangup {}
}

/// Waits for a signal to stop. Logs the counters at SIGUSR1.
async fn asked_to_stop(signals: &mut Signals, server: &Server) -> Signal {
    loop {
        match signals.next().await {
            Signal::Report => log::counters("counters", &server.counters()),
            signal => return signal,
        }
    }
}
