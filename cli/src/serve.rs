use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use lineframe::{BatchCodec, EncodeError};
use tokio::task::JoinSet;
use tokio_util::codec::Framed;

use crate::address::Address;
use crate::failure::Failure;
use crate::show;
use crate::stream::{Listener, Stream, print};

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn run(addresses: &[Address]) -> Result<(), Failure> {
    // Before anybody can know that there is something to stop.
    let stopped = stopped().map_err(|error| Failure::other("cannot wait for signals", error))?;
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(Listener::bind(address).await?);
    }
    for listener in &listeners {
        let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
        print(format_args!("listening {address}"))?;
    }
    let mut accepting: JoinSet<_> = listeners.into_iter().map(accept).collect();
    let done = tokio::select! {
        () = stopped => Ok(()),
        Some(Err(error)) = accepting.join_next() => Err(Failure::other("cannot go on accepting", error)),
    };
    // A Unix socket's file is removed where its listener is dropped, which is in these tasks.
    accepting.shutdown().await;
    done
}

/// Answers the connections of one listener, each in a task of its own.
pub(crate) async fn accept(listener: Listener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok(stream) => _ = tokio::spawn(answer(stream)),
            Err(error) => {
                // Most likely out of file descriptors: accepting again at once would spin.
                show::note(format_args!("lineframe: cannot accept: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers each line with its ASCII upper case, as Python's `bytes.upper` does, and all whole lines of a read with one
/// write. A line that cannot be taken or answered gets an error line; the next one still comes.
async fn answer(stream: Stream) -> io::Result<()> {
    let mut framed = Framed::new(stream, BatchCodec::new());
    while let Some(batch) = framed.try_next().await? {
        for line in &batch {
            let reply = match line {
                Ok(line) => Bytes::from(line.to_ascii_uppercase()),
                Err(bad) => bad.reply().into(),
            };
            match framed.feed(reply).await {
                Err(EncodeError::Io(error)) => return Err(error),
                Err(refused) => framed.feed(format!("error: reply not sent: {refused}").into()).await?,
                Ok(()) => {}
            }
        }
        framed.flush().await?;
    }
    Ok(framed.close().await?)
}

/// Ready at the first SIGINT or SIGTERM from now on.
#[cfg(unix)]
fn stopped() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stopped() -> io::Result<impl Future<Output = ()>> {
    Ok(async { _ = tokio::signal::ctrl_c().await })
}
