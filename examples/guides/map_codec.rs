//! A connection that begins with `LinesCodec` and continues with `LineCodec`.
//!
//! ```sh
//! cargo run --example map_codec -- 127.0.0.1:8083
//! ```

use std::io;

use futures::{SinkExt, StreamExt, TryStreamExt};
use lineframe::LineCodec;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::{Framed, LinesCodec};

/// Code of a library that is not migrated yet: its signature has `LinesCodec`.
async fn greet(lines: &mut Framed<TcpStream, LinesCodec>) -> io::Result<()> {
    let name = lines.next().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
    lines.send(format!("hello {name}")).await.map_err(io::Error::other)
}

// region: session
async fn session(stream: TcpStream) -> io::Result<()> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(80));
    greet(&mut lines).await?;

    // Keeps the stream and both buffers, so lines that were already read are not lost.
    let mut lines = lines.map_codec(|_| LineCodec::builder().max_length(80).max_encoded_length(200).build());
    while let Some(line) = lines.try_next().await? {
        let reply = line.unwrap_or_else(|bad| bad.reply().into());
        lines.send(reply).await?;
    }
    Ok(())
}
// endregion

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8083".into());
    let listener = TcpListener::bind(address).await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(session(stream));
    }
}
