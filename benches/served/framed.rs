//! Typical programs that use `Framed`, with tokio-util's `LinesCodec` and with the codecs of this
//! crate.

use std::error::Error;
use std::io;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt, TryStreamExt};
use lineframe::{BatchCodec, LineCodec, LineError};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LinesCodec};

use crate::Asked;
use crate::lines::take_turns;
use crate::process::{Failed, load};
use crate::servers::Served;
use crate::table::{beside_the_first, head};

const ROUNDS: usize = 9;
const CONNECTIONS: usize = 64;
const LENGTHS: [usize; 4] = [16, 64, 256, 1024];

type Program = fn(TcpStream) -> BoxFuture<'static, Served>;

/// Programs by name. The ratios are relative to the first.
const PROGRAMS: [(&str, Program); 8] = [
    ("LinesCodec, `feed`", |io| feed(text_lines(io), text_reply).boxed()),
    ("LinesCodec, `forward`", |io| forward(text_lines(io), text_reply).boxed()),
    ("LinesCodec, `send`", text_send),
    ("**LineCodec**, `feed`", |io| feed(Framed::new(io, LineCodec::new()), reply).boxed()),
    ("**LineCodec**, `forward`", |io| forward(Framed::new(io, LineCodec::new()), reply).boxed()),
    ("**LineCodec**, `send`", |io| send(Framed::new(io, LineCodec::new()), reply).boxed()),
    ("**BatchCodec**, `feed`", |io| batch_feed(io).boxed()),
    ("**BatchCodec**, encoded into the write buffer", |io| batch_encode(io).boxed()),
];

pub(crate) fn measure(asked: &Asked<'_>) -> Result<(), Failed> {
    let names = PROGRAMS.map(|(name, _)| name);
    let rounds = asked.rounds.unwrap_or(ROUNDS);
    let (mut columns, mut cases) = (vec!["program".to_owned()], Vec::new());
    for case in LENGTHS.map(|length| load(CONNECTIONS, 256, length)) {
        if asked.takes(&case.name()) {
            columns.push(case.name());
            cases.push(take_turns(&names, &case, rounds)?);
        }
    }
    println!("\n### CPU time per line in ns, by program\n");
    head(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    for (at, name) in names.iter().enumerate() {
        let cells = cases.iter().map(|rounds| {
            let (cpu, ratio) = beside_the_first(rounds, at, |figures| figures.cpu);
            format!("{cpu:.0} ({ratio})")
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

pub(crate) fn program(name: &str) -> io::Result<Program> {
    let found = PROGRAMS.iter().find(|(known, _)| *known == name);
    found.map(|(_, program)| *program).ok_or_else(|| io::Error::other("no such server"))
}

pub(crate) fn text_send(io: TcpStream) -> BoxFuture<'static, Served> {
    send(text_lines(io), text_reply).boxed()
}

fn text_lines(io: TcpStream) -> Framed<TcpStream, LinesCodec> {
    Framed::new(io, LinesCodec::new_with_max_length(64 * 1024))
}

/// Every reply is a new allocation, as most real replies are.
fn text_reply(line: String) -> String {
    line.to_ascii_uppercase()
}

fn reply(line: Result<Bytes, LineError>) -> Bytes {
    match line {
        Ok(line) => line.to_ascii_uppercase().into(),
        Err(bad) => bad.reply().into(),
    }
}

/// Flushes every reply.
async fn send<F, L, R, D, E>(mut framed: F, reply: impl Fn(L) -> R) -> Served
where
    F: Stream<Item = Result<L, D>> + Sink<R, Error = E> + Unpin,
    Box<dyn Error + Send + Sync>: From<D> + From<E>,
{
    while let Some(line) = framed.try_next().await? {
        framed.send(reply(line)).await?;
    }
    Ok(())
}

/// Flushes only if the next line is not ready.
async fn feed<F, L, R, D, E>(mut framed: F, reply: impl Fn(L) -> R) -> Served
where
    F: Stream<Item = Result<L, D>> + Sink<R, Error = E> + Unpin,
    Box<dyn Error + Send + Sync>: From<D> + From<E>,
{
    loop {
        let line = match framed.try_next().now_or_never() {
            Some(ready) => ready?,
            None => {
                framed.flush().await?;
                framed.try_next().await?
            }
        };
        match line {
            Some(line) => framed.feed(reply(line)).await?,
            None => return Ok(framed.close().await?),
        }
    }
}

/// Uses `forward`, which flushes if the next line is not ready.
async fn forward<F, L, R, D, E>(framed: F, reply: impl Fn(L) -> R) -> Served
where
    F: Stream<Item = Result<L, D>> + Sink<R, Error = E>,
    Box<dyn Error + Send + Sync>: From<D> + From<E>,
{
    let (replies, lines) = framed.split();
    lines.map(|line| Ok(reply(line?))).forward(replies.sink_err_into()).await
}

async fn batch_feed(io: TcpStream) -> Served {
    let mut framed = Framed::new(io, BatchCodec::new());
    while let Some(batch) = framed.try_next().await? {
        for line in batch {
            framed.feed(reply(line)).await?;
        }
        framed.flush().await?;
    }
    Ok(())
}

/// The fastest variant, the same as `examples/framed.rs`.
async fn batch_encode(io: TcpStream) -> Served {
    let mut framed = Framed::new(io, BatchCodec::new());
    let encoder = framed.codec().encoder();
    let mut reply = Vec::new();
    while let Some(batch) = framed.try_next().await? {
        for line in &batch {
            reply.clear();
            match line {
                Ok(line) => reply.extend(line.iter().map(u8::to_ascii_uppercase)),
                Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()),
            }
            encoder.encode_line(&reply, framed.write_buffer_mut())?;
        }
        framed.flush().await?;
    }
    Ok(())
}
