//! Line framing for Tokio: codecs, connections, a server and a client.
//!
//! A read from a stream returns the bytes that have arrived: half a line, or seven lines. This
//! crate splits such a stream into lines and writes lines to it. It works with every Tokio stream:
//! TCP, Unix sockets, TLS, pipes and files.
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
let stream = &b"hello\r\nfar too long a line\nworld\nby"[..]; // or a TcpStream
let codec = LineCodec::builder().max_length(10).build();
let mut lines = FramedRead::new(stream, codec);

# let mut seen = Vec::new();
while let Some(line) = lines.try_next().await? {
    # seen.push(line.as_ref().map_or_else(ToString::to_string, |line| format!("{line:?}")));
    match line {
        Ok(line) => println!("{line:?}"),
        Err(bad) => println!("{bad}"), // only this line is bad; the next one follows
    }
}
// b"hello"
// line exceeds the limit of 10 bytes (max_length)
// b"world"
// line of 2 bytes cut before its terminator
# assert_eq!(seen, [
#     "b\"hello\"",
#     "line exceeds the limit of 10 bytes (max_length)",
#     "b\"world\"",
#     "line of 2 bytes cut before its terminator",
# ]);
# Ok(())
# }
```
"#
)]
#![cfg_attr(
    feature = "net",
    doc = r#"
A server and a client, which need the feature `net`:

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

drop((conn, stop)); // the server answers the lines that it has received, then stops
assert_eq!(server.await?.lines, 1);
# Ok(())
# }
```
"#
)]
//! # Which type to choose
//!
//! For a network program, start with [`Server`] or [`Client`]. Both use [`Connection`]. If you use
//! [`Framed`] or a stream of your own, choose a codec:
//!
//! | type | use it for |
//! |---|---|
//! | [`LineCodec`] | most protocols; returns lines as `Bytes`, and blocks of counted bytes |
//! | [`TextCodec`] | lines that must be UTF-8; returns lines as `ByteString` |
//! | [`BatchCodec`] | many short lines; returns all whole lines of a read as one [`Batch`] |
//! | [`FragmentCodec`] | lines longer than memory, and relays; returns lines in pieces |
//! | [`LineEncoder`] | writing only, or replying from slices inside `Framed` |
//! | [`Scanner`] | your own I/O; finds lines in a `&[u8]`, without Tokio |
//! | [`Connection`] | lines over one stream, with flushing, limits and timeouts |
//! | [`Server`] | many connections, with limits and graceful shutdown |
//! | [`Client`] | connecting to a server; the connection it returns can send requests |
//!
//! All codecs share one builder, [`LineCodecBuilder`]. A codec converts into another in the middle
//! of a stream: `framed.map_codec(BatchCodec::from)`. [`Delimiter`] selects what ends a line: LF
//! with or without CR, strict CRLF, a byte, a set of bytes, or a sequence of bytes.
//!
//! # Guarantees
//!
//! - **The same lines, however they arrive.** The way that reads cut the stream changes nothing. A
//!   line is returned as soon as its last byte arrives.
//! - **A bad line is an item, not an error.** [`LineError`] reports the reason, and the next line
//!   follows.
//! - **A line without a terminator is not a line.** The end of the stream reports it as
//!   `Unterminated`. [`Unterminated::Deliver`] makes it a line, for files.
//! - **One line stays one line.** The encoder refuses content that would be read back as two lines.
//! - **Lines are not copied.** [`LineCodec`] decodes a line without an allocation. Each byte is
//!   searched once, and counters account for every byte.
//!
//! The [framing contract] states every rule and names the tests for it.
//!
//! # Limits
//!
//! | limit | default | if exceeded |
//! |---|---|---|
//! | `max_length`: content of a line | 65,536 bytes | the line is a bad line; its rest is skipped |
//! | `max_encoded_length`: content of a written line | `max_length` | [`EncodeError::TooLong`] |
//! | `max_block_length`: counted bytes | 1 MiB | [`BlockError::TooLong`] |
//! | `max_unsent`: queued output of a connection | 64 KiB | the writer waits |
//!
//! A [`Server`] also limits connections, bad lines and time; [`ServerBuilder`] lists its defaults.
//! Outside a server, a [`Connection`] has no timeouts unless you set them.
//!
//! # Features
//!
//! | feature | adds | dependencies in total |
//! |---|---|---|
//! | `codec` (default) | the codecs for tokio-util | 8 |
//! | `text` | [`TextCodec`], `Batch::text` | 10 |
//! | `net` | [`Connection`] and its halves, [`Server`], [`Client`] | 10 |
//! | `tracing` | spans and events for the connections of a server | 13 |
//! | none | [`scan`] only; needs `core` and `alloc` | 1 |
//!
//! The crate needs Rust 1.85 or later and contains no `unsafe` code.
//!
//! [framing contract]: https://docs.rs/crate/lineframe/latest/source/docs/framing.md
//! [`Framed`]: https://docs.rs/tokio-util/latest/tokio_util/codec/struct.Framed.html
//! [`Scanner`]: scan::Scanner
#![cfg_attr(
    not(feature = "text"),
    doc = "[`TextCodec`]: https://docs.rs/lineframe/latest/lineframe/struct.TextCodec.html"
)]
#![cfg_attr(
    not(feature = "net"),
    doc = "[`Connection`]: https://docs.rs/lineframe/latest/lineframe/struct.Connection.html
[`Client`]: https://docs.rs/lineframe/latest/lineframe/struct.Client.html
[`Server`]: https://docs.rs/lineframe/latest/lineframe/struct.Server.html
[`ServerBuilder`]: https://docs.rs/lineframe/latest/lineframe/struct.ServerBuilder.html"
)]
#![cfg_attr(
    not(feature = "codec"),
    doc = "[`Batch`]: https://docs.rs/lineframe/latest/lineframe/struct.Batch.html
[`BatchCodec`]: https://docs.rs/lineframe/latest/lineframe/struct.BatchCodec.html
[`BlockError::TooLong`]: https://docs.rs/lineframe/latest/lineframe/enum.BlockError.html
[`EncodeError::TooLong`]: https://docs.rs/lineframe/latest/lineframe/enum.EncodeError.html
[`FragmentCodec`]: https://docs.rs/lineframe/latest/lineframe/struct.FragmentCodec.html
[`LineCodec`]: https://docs.rs/lineframe/latest/lineframe/struct.LineCodec.html
[`LineCodecBuilder`]: https://docs.rs/lineframe/latest/lineframe/struct.LineCodecBuilder.html
[`LineEncoder`]: https://docs.rs/lineframe/latest/lineframe/struct.LineEncoder.html
[`LineError`]: https://docs.rs/lineframe/latest/lineframe/enum.LineError.html"
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

/// Compiles and runs the programs in README.md as doctests.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../README.md")]
struct Readme;
