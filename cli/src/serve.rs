use std::io;

use lineframe::{Counters, Server, reply_into};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::failure::Failure;
use crate::stream::{Listener, print};

/// Serves until SIGINT or SIGTERM, and then until what has come by then is answered, for 10 s at the most. A second signal
/// ends it at once.
pub(crate) async fn run(addresses: &[Address]) -> Result<(), Failure> {
    // Before anybody can know that there is something to stop.
    let mut signals = Signals::new().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(Listener::bind(address).await?);
    }
    for listener in &listeners {
        let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
        print(format_args!("listening {address}"))?;
    }
    let server = Server::builder().refuse_http_and_tls(true).build();
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    for listener in listeners {
        serving.spawn(serve(&server, listener, stop.clone().cancelled_owned()));
    }
    signals.next().await;
    stop.cancel();
    tokio::select! {
        () = async { while serving.join_next().await.is_some() {} } => {}
        () = signals.next() => {}
    }
    // A Unix socket's file is removed where its listener is dropped, which is in these tasks.
    serving.shutdown().await;
    match server.counters().aborted {
        0 => Ok(()),
        aborted => Err(Failure::other("stopped", format_args!("{aborted} connections were cut"))),
    }
}

/// Answers each line with its ASCII upper case, as Python's `bytes.upper` does. A line that cannot be taken or answered gets an
/// error line; the next one still comes.
pub(crate) fn serve<S: Future + Send + 'static>(
    server: &Server,
    listener: Listener,
    stop: S,
) -> impl Future<Output = Counters> + Send + use<S> {
    let upper = reply_into(|line, reply| {
        reply.extend_from_slice(line);
        reply.make_ascii_uppercase();
    });
    server.serve(listener, upper, stop)
}

/// SIGINT and SIGTERM, from when it is made.
#[cfg(unix)]
struct Signals {
    interrupted: tokio::signal::unix::Signal,
    terminated: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let (interrupted, terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupted, terminated })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        _ = tokio::signal::ctrl_c().await;
    }
}
