//! Four ways to answer lines inside `Framed`, and how often each one writes.
//!
//! ```sh
//! cargo run --example fast_replies                           # counts writes, without a network
//! cargo run --example fast_replies -- 127.0.0.1:8083 batch   # a server: send, feed, forward, batch
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use lineframe::{BatchCodec, LineCodec, LineError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

fn answer(line: Result<Bytes, LineError>) -> Bytes {
    match line {
        Ok(line) => line.to_ascii_uppercase().into(),
        Err(bad) => bad.reply().into(),
    }
}

// region: send
async fn send(io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut lines = Framed::new(io, LineCodec::new());
    while let Some(line) = lines.try_next().await? {
        lines.send(answer(line)).await?; // `send` is `feed` and `flush`: one write per line
    }
    Ok(())
}
// endregion

// region: feed
async fn feed(io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut lines = Framed::new(io, LineCodec::new());
    loop {
        let line = match lines.try_next().now_or_never() {
            Some(buffered) => buffered?,
            None => {
                lines.flush().await?; // no line is ready: the peer may be waiting for these replies
                lines.try_next().await?
            }
        };
        let Some(line) = line else { break };
        lines.feed(answer(line)).await?;
    }
    lines.close().await
}
// endregion

// region: forward
async fn forward(io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (replies, lines) = Framed::new(io, LineCodec::new()).split();
    lines.map_ok(answer).forward(replies).await
}
// endregion

// region: batch
async fn batch(io: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut batches = Framed::new(io, BatchCodec::new());
    let encoder = batches.codec().encoder();
    let mut reply = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        for line in &batch {
            reply.clear(); // keeps its capacity: no allocation per line
            match line {
                Ok(line) => reply.extend(line.iter().map(u8::to_ascii_uppercase)),
                Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()),
            }
            encoder.encode_line(&reply, batches.write_buffer_mut())?;
        }
        batches.flush().await?; // once for all lines of a read
    }
    Ok(())
}
// endregion

/// Accepts everything written to it, and counts the writes.
#[derive(Default)]
struct CountWrites(usize);

impl AsyncWrite for CountWrites {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0 += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

async fn count_writes() -> io::Result<()> {
    let input = "hello\n".repeat(1000);
    println!("writes for the replies to 1000 lines that arrive together:");
    for way in ["send", "feed", "forward", "batch"] {
        let mut output = CountWrites::default();
        let io = tokio::io::join(input.as_bytes(), &mut output);
        match way {
            "send" => send(io).await?,
            "feed" => feed(io).await?,
            "forward" => forward(io).await?,
            _ => batch(io).await?,
        }
        println!("{way:8}{:5}", output.0);
    }
    Ok(())
}

async fn session(stream: TcpStream, way: String) -> io::Result<()> {
    match &*way {
        "send" => send(stream).await,
        "feed" => feed(stream).await,
        "forward" => forward(stream).await,
        _ => batch(stream).await,
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, way] = &words[..] else { return count_writes().await };
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(session(stream, way.clone()));
    }
}
