//! The fastest way to answer lines inside `Framed`: one batch of lines per read, and one write for all
//! replies to the batch.
//!
//! ```sh
//! cargo run --example framed
//! ```

use std::io;

use futures::{SinkExt, TryStreamExt};
use lineframe::BatchCodec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut framed = Framed::new(stream, BatchCodec::new());
    let encoder = framed.codec().encoder();
    let mut reply = Vec::new();
    while let Some(batch) = framed.try_next().await? {
        for line in &batch {
            reply.clear(); // keeps its capacity: no allocation per line
            match line {
                Ok(line) => reply.extend(line.iter().map(u8::to_ascii_uppercase)),
                Err(bad) => reply.extend_from_slice(bad.reply().as_bytes()), // the connection continues
            }
            encoder.encode_line(&reply, framed.write_buffer_mut())?;
        }
        framed.flush().await?;
    }
    Ok(())
}

/// Sends three lines, the last one without its terminator, and prints the replies.
async fn talk(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"hello\nhow are you?\nby").await?;
    stream.shutdown().await?;
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await?;
    print!("{replies}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    tokio::try_join!(serve(server), talk(client))?;
    Ok(())
}
