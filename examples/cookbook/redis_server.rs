//! A server for redis-cli, redis-benchmark and netcat. A command is a line of words, or an array of
//! counted values of any bytes.
//!
//! ```sh
//! cargo run --example redis_server -- 127.0.0.1:6379
//! redis-cli -p 6379 set greeting 'hello world'
//! printf 'get greeting\r\n' | nc -N 127.0.0.1 6379
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lineframe::{Bind, Connection, Error, LineCodec, Server};

const MAX_ARGUMENTS: usize = 64;
const MAX_KEYS: usize = 100_000;

type Values = Arc<Mutex<HashMap<Bytes, Bytes>>>;

// region: session
async fn session(mut conn: Connection, values: Values) -> io::Result<()> {
    while let Some(line) = conn.next_line().await? {
        let command = match line {
            Ok(line) => match line.strip_prefix(b"*") {
                Some(count) => match counted(&mut conn, count).await? {
                    Some(command) => command,
                    // The following bytes may be lengths, values or commands, so the session ends
                    // here.
                    None => return Ok(conn.write_line("-ERR Protocol error").await?),
                },
                None => words(&line),
            },
            Err(bad) => {
                conn.write_line(format!("-ERR {bad}")).await?;
                continue;
            }
        };
        if !answer(&mut conn, &command, &values).await? {
            break;
        }
    }
    Ok(())
}

/// Splits an inline command into words.
fn words(line: &Bytes) -> Vec<Bytes> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| line.slice_ref(word))
        .collect()
}

/// Reads a command that is an array: `$length` lines, each followed by `length` bytes and a line
/// end. Returns `None` if the input is not such an array.
async fn counted(conn: &mut Connection, count: &[u8]) -> Result<Option<Vec<Bytes>>, Error> {
    let Some(count) = number(count).filter(|count| *count <= MAX_ARGUMENTS) else { return Ok(None) };
    let mut command = Vec::new();
    for _ in 0..count {
        let Some(Ok(line)) = conn.next_line().await? else { return Ok(None) };
        let Some(length) = line.strip_prefix(b"$").and_then(number) else { return Ok(None) };
        match conn.read_bytes(length).await {
            Ok(argument) => command.push(argument),
            Err(Error::Block(_)) => return Ok(None),
            Err(gone) => return Err(gone),
        }
        // The line end after the bytes arrives as an empty line. If it is not empty, the length was
        // wrong.
        match conn.next_line().await? {
            Some(Ok(end)) if end.is_empty() => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(command))
}
// endregion

// region: answer
/// Runs a command and writes the reply. Returns false if the session ends with this command.
async fn answer(conn: &mut Connection, command: &[Bytes], values: &Values) -> Result<bool, Error> {
    let Some((name, arguments)) = command.split_first() else { return Ok(true) };
    let values = || values.lock().unwrap_or_else(PoisonError::into_inner);
    match (&name.to_ascii_uppercase()[..], arguments) {
        (b"GET", [key]) => {
            let value = values().get(key).cloned(); // releases the lock before the reply is written
            bulk(conn, value.as_ref()).await?;
        }
        (b"SET", [key, value]) => {
            // Copies: a slice would keep its whole read buffer in memory.
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            let is_full = {
                let mut values = values();
                let is_full = values.len() == MAX_KEYS && !values.contains_key(&key);
                if !is_full {
                    values.insert(key, value);
                }
                is_full
            };
            conn.write_line(if is_full { "-OOM too many keys" } else { "+OK" }).await?;
        }
        (b"DEL", keys) => {
            let deleted = keys.iter().filter(|key| values().remove(*key).is_some()).count();
            conn.write_line(format!(":{deleted}")).await?;
        }
        (b"PING", []) => conn.write_line("+PONG").await?,
        (b"PING" | b"ECHO", [value]) => bulk(conn, Some(value)).await?,
        (b"COMMAND" | b"CONFIG", _) => conn.write_line("*0").await?, // sent by clients at startup
        (b"QUIT", _) => {
            conn.write_line("+OK").await?;
            return Ok(false);
        }
        // The message does not quote the command, because a quoted line end would forge a reply.
        _ => conn.write_line("-ERR unknown command, or wrong number of arguments").await?,
    }
    Ok(true)
}
// endregion

async fn bulk(conn: &mut Connection, value: Option<&Bytes>) -> Result<(), Error> {
    let Some(value) = value else { return conn.write_line("$-1").await };
    conn.write_line(format!("${}", value.len())).await?;
    conn.write_bytes(value).await?;
    conn.write_line("").await
}

/// Accepts digits only: `parse` also accepts `+5`, which other servers refuse.
fn number(digits: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:6379".into());
    let listener = Bind::new().tcp(&address).await?;
    println!("listening {}", listener.local_addr()?);
    // Reads LF (netcat) and CRLF (clients), and writes CRLF.
    let codec = LineCodec::builder().write_crlf(true).max_block_length(16 << 20).build();
    let server = Server::builder().codec(codec).refuse_http_and_tls(true).build();
    let values = Values::default();
    let session = async move |conn| session(conn, values).await;
    println!("{:?}", server.serve_with_shutdown(listener, session, tokio::signal::ctrl_c()).await);
    Ok(())
}
