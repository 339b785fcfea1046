//! The servers to compare. Each answers a line with its ASCII upper case and runs in its own
//! process.

use std::error::Error;
use std::io;

use lineframe::{Connection, Reply, Server, reply_into};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};

use crate::framed;

/// The result of a connection.
pub(crate) type Served = Result<(), Box<dyn Error + Send + Sync>>;

/// Servers by name. The ratios are relative to the first. `lineframe serve` is a separate program.
pub(crate) const KINDS: [&str; 6] = [
    "raw",
    "raw, current-thread",
    "read_until",
    "Framed + LinesCodec, `send`",
    "Server, reply_into",
    "Server, next_line",
];

/// Prints the address, then serves forever.
pub(crate) fn serve(kind: &str) -> io::Result<()> {
    let mut runtime = match kind {
        "raw, current-thread" => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening {}", listener.local_addr()?);
        match kind {
            "Server, reply_into" => {
                Server::new().serve(listener, reply_into(upper)).await;
                Ok(())
            }
            "Server, next_line" => {
                Server::new().serve(listener, next_line).await;
                Ok(())
            }
            _ => loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                match kind {
                    "raw" | "raw, current-thread" => tokio::spawn(raw(stream)),
                    "read_until" => tokio::spawn(read_until(stream)),
                    "Framed + LinesCodec, `send`" => tokio::spawn(framed::text_send(stream)),
                    _ => tokio::spawn(framed::program(kind)?(stream)),
                };
            },
        }
    })
}

pub(crate) fn upper(line: &[u8], reply: &mut Reply<'_>) {
    reply.extend_from_slice(line);
    reply.make_ascii_uppercase();
}

async fn next_line(mut conn: Connection) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        match line {
            Ok(line) => conn.write_line(line.to_ascii_uppercase()).await?,
            Err(bad) => conn.write_line(bad.reply()).await?,
        }
    }
    Ok(())
}

/// Does no framing: sends the bytes of each read back in upper case.
async fn raw(mut stream: TcpStream) -> Served {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                buffer[..count].make_ascii_uppercase();
                stream.write_all(&buffer[..count]).await?;
            }
        }
    }
}

async fn read_until(mut stream: TcpStream) -> Served {
    let (reader, writer) = stream.split();
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let mut writer = BufWriter::with_capacity(64 * 1024, writer);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        line.make_ascii_uppercase();
        writer.write_all(&line).await?;
        if !reader.buffer().contains(&b'\n') {
            writer.flush().await?;
        }
    }
}
