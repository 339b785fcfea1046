//! A store for values of any bytes: lines announce how many bytes follow.
//!
//! ```sh
//! cargo run --example counted_bytes -- 127.0.0.1:8083
//! printf 'put greeting 12\nhello\nworld!\nget greeting\n' | nc -N 127.0.0.1 8083
//! ```

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use lineframe::{Bind, BlockError, Connection, Error, LineCodec, Server};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

const MAX_VALUE: usize = 64 << 10;
const MAX_UPLOAD: u64 = 1 << 30;
const UPLOAD_TIME: Duration = Duration::from_secs(600);

// region: session
async fn session(mut conn: Connection) -> io::Result<()> {
    let mut values: HashMap<Vec<u8>, Bytes> = HashMap::new();
    while let Some(line) = conn.next_line().await? {
        let line = match line {
            Ok(line) => line,
            Err(bad) => {
                conn.write_line(bad.reply()).await?;
                continue;
            }
        };
        match *line.split(|byte| *byte == b' ').collect::<Vec<_>>() {
            [b"put", key, length] => match number(length) {
                Some(length) => put(&mut conn, &mut values, key, length).await?,
                None => break, // it is unknown where the next line begins
            },
            [b"get", key] => match values.get(key) {
                Some(value) => {
                    conn.write_line(format!("value {}", value.len())).await?;
                    conn.write_bytes(value).await?; // the encoder would refuse line ends
                    conn.write_line("").await?;
                }
                None => conn.write_line("none").await?,
            },
            [b"sum", length] => match number(length) {
                Some(length) if length <= MAX_UPLOAD => sum(&mut conn, length).await?,
                _ => break,
            },
            _ => conn.write_line("error: unknown command").await?,
        }
    }
    Ok(())
}
// endregion

// region: put
async fn put(
    conn: &mut Connection,
    values: &mut HashMap<Vec<u8>, Bytes>,
    key: &[u8],
    length: u64,
) -> Result<(), Error> {
    match conn.read_bytes(length.try_into().unwrap_or(usize::MAX)).await {
        Ok(value) => {
            // Copies: a slice would keep its whole read buffer in memory.
            values.insert(key.to_vec(), Bytes::copy_from_slice(&value));
            conn.write_line("stored").await?;
        }
        // The bytes still arrive. Without the skip they would be read as lines.
        Err(Error::Block(refused @ BlockError::TooLong { .. })) => {
            conn.skip_bytes(length).await?;
            conn.write_line(format!("error: {refused}")).await?;
        }
        Err(error) => return Err(error),
    }
    end_of_block(conn).await
}

/// Reads the line end after a block. Anything else means that the length was wrong.
async fn end_of_block(conn: &mut Connection) -> Result<(), Error> {
    match conn.next_line().await?.transpose()? {
        Some(rest) if rest.is_empty() => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "block longer than announced").into()),
        None => Err(Error::Eof),
    }
}
// endregion

// region: sum
/// Adds up the bytes of an upload of any length, in constant memory.
async fn sum(conn: &mut Connection, length: u64) -> io::Result<()> {
    let mut sum = 0u64;
    let add_all = async {
        let mut body = conn.body(length);
        let mut buffer = [0; 8192];
        loop {
            match body.read(&mut buffer).await? {
                0 => return io::Result::Ok(()),
                count => sum += buffer[..count].iter().map(|byte| u64::from(*byte)).sum::<u64>(),
            }
        }
    };
    timeout(UPLOAD_TIME, add_all).await??; // `body` has no total deadline of its own
    end_of_block(conn).await?;
    Ok(conn.write_line(format!("sum {sum}")).await?)
}
// endregion

/// Accepts digits only: `parse` also accepts a sign.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8083".into());
    let listener = Bind::new().tcp(&address).await?;
    println!("listening {}", listener.local_addr()?);
    let codec = LineCodec::builder().max_length(256).max_block_length(MAX_VALUE).build();
    let server = Server::builder().codec(codec).build();
    server.serve_with_shutdown(listener, session, tokio::signal::ctrl_c()).await;
    Ok(())
}
