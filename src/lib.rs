//! Whole lines out of a byte stream, and back, for Tokio.
//!
//! A stream has no messages in it: a read hands over whatever has arrived, half a line or seven of
//! them. This crate makes lines of it, and keeps to this:
//!
//! - **The same lines, however the bytes arrive**, and each as soon as its last byte is there.
//! - **A bad line is an item**, with the limit, the length and the bytes in it; the stream goes on
//!   behind it.
//! - **One limit**, 64 KiB unless told otherwise, that counts content only and holds on every path.
//!   A line over it is skipped in constant memory.
//! - **A line whose terminator never came is not a line**, unless you say so.
//! - **The encoder refuses what would not be read back**: nobody writes a second line into yours.
//! - **No copy and no allocation per line**, each byte looked at once, every byte counted.
//!
#![cfg_attr(
    feature = "codec",
    doc = r#"
```
use futures::TryStreamExt;
use lineframe::LineCodec;
use tokio_util::codec::FramedRead;

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> std::io::Result<()> {
let stream = &b"hello\r\nfar too long a line\nworld\nby"[..]; // a TcpStream, a child's stdout
let codec = LineCodec::builder().max_length(10).build();
let mut lines = FramedRead::new(stream, codec);

let mut seen = Vec::new();
while let Some(line) = lines.try_next().await? {
    match line {
        Ok(line) => seen.push(line.escape_ascii().to_string()),
        Err(bad) => seen.push(bad.to_string()), // this line only: the next one comes
    }
}
assert_eq!(seen, [
    "hello",
    "line of more than 10 bytes, the limit (max_length)",
    "world",
    "line of 2 bytes cut before its terminator",
]);
# Ok(())
# }
```
"#
)]
//! The whole contract, rule by rule with the tests that hold it, is in `docs/framing.md`. What ends
//! a line is for
//! [`Delimiter`] to say: newline with or without CR, strict CRLF, a byte, a set, a sequence.
//!
#![cfg_attr(
    feature = "net",
    doc = r#"
# A server and a client

Both have a [`Connection`]: lines with flushing, limits and deadlines, over TCP, Unix sockets and any other stream.

```
use lineframe::{Client, Connection, Server};
use tokio::net::TcpListener;

async fn upper(mut conn: Connection) -> std::io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
            Err(bad) => conn.write_line(bad.reply()).await?,
        }
    }
    Ok(())
}

# #[tokio::main]
# async fn main() -> std::io::Result<()> {
let listener = TcpListener::bind("127.0.0.1:0").await?;
let address = listener.local_addr()?;
let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
let server = tokio::spawn(Server::new().serve_with_shutdown(listener, upper, stopped));

let mut conn = Client::new().connect(address).await?;
assert_eq!(conn.request("hello").await?, "HELLO");

drop((conn, stop)); // the server answers what has come, and ends
assert_eq!(server.await?.lines, 1);
# Ok(())
# }
```
"#
)]
#![cfg_attr(
    feature = "codec",
    doc = r"
# Which codec

| codec | item | for |
|---|---|---|
| [`LineCodec`] | `Result<Bytes, LineError>` | most protocols; lines and counted bytes mixed |
| [`BatchCodec`] | [`Batch`]: all whole lines of a read | many short lines; one write for all the replies |
| [`TextCodec`] | `Result<ByteString, LineError>` | lines that have to be UTF-8 |
| [`FragmentCodec`] | [`Fragment`]: a piece of a line | lines longer than memory, relays |

One configuration serves all of them, and they convert into each other in the middle of a stream:
`framed.map_codec(BatchCodec::from)`. To answer from slices inside `Framed`, use a [`LineEncoder`].
"
)]
//! [`scan`] is the core below them: where lines end in a `&[u8]`, without tokio.
//!
//! # Features
//!
//! | feature | brings | crates beside this one |
//! |---|---|---|
//! | `codec` (default) | the codecs for tokio-util | 8 |
//! | `text` | [`TextCodec`], `Batch::text` | 10 |
//! | `net` | [`Connection`] and its halves, [`Server`], [`Client`] | 10 |
//! | `tracing` | the server's connections as spans and events | 13 |
//! | none | [`scan`], with `core` and `alloc` only | 1 |
//!
//! Rust 1.85 or later. No `unsafe`.
//!
#![cfg_attr(
    not(feature = "text"),
    doc = "[`TextCodec`]: https://docs.rs/lineframe/latest/lineframe/struct.TextCodec.html"
)]
#![cfg_attr(
    not(feature = "net"),
    doc = "[`Connection`]: https://docs.rs/lineframe/latest/lineframe/struct.Connection.html
[`Client`]: https://docs.rs/lineframe/latest/lineframe/struct.Client.html
[`Server`]: https://docs.rs/lineframe/latest/lineframe/struct.Server.html"
)]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "codec")]
extern crate std;

#[cfg(feature = "net")]
mod client;
#[cfg(feature = "codec")]
mod codec;
#[cfg(feature = "codec")]
mod error;
#[cfg(feature = "net")]
mod net;
pub mod scan;
#[cfg(feature = "net")]
mod server;

#[cfg(feature = "net")]
pub use client::{Client, ClientBuilder, ConnectError};
#[cfg(feature = "text")]
pub use codec::TextCodec;
#[cfg(feature = "codec")]
pub use codec::{
    Batch, BatchCodec, BatchIter, CodecCounters, Fragment, FragmentCodec, LineCodec, LineCodecBuilder,
    LineEncoder,
};
#[cfg(feature = "codec")]
pub use error::{BlockError, EncodeError, LineError};
#[cfg(feature = "net")]
pub use net::{
    AnyIo, Body, BorrowedRead, BorrowedWrite, Connection, ConnectionCounters, Draining, Error, Keepalive,
    LineReader, LineWriter, Parts, Peer, ReuniteError, TimeoutKind, UpgradeError,
};
#[doc(inline)]
pub use scan::{Delimiter, InvalidDelimiter, Unterminated};
#[cfg(all(unix, feature = "net"))]
pub use server::BoundUnix;
#[cfg(feature = "net")]
pub use server::{
    Accepted, Answer, Bind, Listener, Replies, Reply, Returned, Server, ServerBuilder, ServerCounters, reply,
    reply_into,
};

/// The programs in README compile and run.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../README.md")]
struct Readme;
