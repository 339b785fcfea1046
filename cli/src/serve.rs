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
use crate::stream::{Listener, Stream, print};

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn run(addresses: &[Address]) -> Result<(), Failure> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(Listener::bind(address).await?);
    }
    for listener in &listeners {
        let address = listener.address().map_err(|error| Failure::other("no local address", error))?;
        print(format_args!("listening {address}"))?;
    }
    let mut accepting: JoinSet<_> = listeners.into_iter().map(accept).collect();
    tokio::select! {
        stop = stopped() => stop.map_err(|error| Failure::other("cannot wait for signals", error)),
        _ = accepting.join_next() => Ok(()),
    }
}

/// Answers the connections of one listener, each in a task of its own.
pub(crate) async fn accept(listener: Listener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok(stream) => _ = tokio::spawn(answer(stream)),
            Err(error) => {
                // Most likely out of file descriptors: accepting again at once would spin.
                eprintln!("lineframe: cannot accept: {error}");
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
                Err(refused) => framed.feed(format!("error: the reply is a {refused}").into()).await?,
                Ok(()) => {}
            }
        }
        framed.flush().await?;
    }
    Ok(framed.close().await?)
}

#[cfg(unix)]
async fn stopped() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn stopped() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
