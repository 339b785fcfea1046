//! `LineCodec` inside `Framed`: a small cache with a protocol like memcached's, which mixes lines and
//! counted bytes in one stream. The client prints the dialogue and checks every reply.
//!
//! ```sh
//! cargo run --example embed
//! ```

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use lineframe::{Delimiter, LineCodec};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;

type Lines = Framed<TcpStream, LineCodec>;
type Values = HashMap<Bytes, Bytes>;

async fn serve(io: TcpStream) -> io::Result<()> {
    let codec = LineCodec::builder()
        .delimiter(Delimiter::CrLf)
        .max_length(80)
        .max_encoded_length(200) // room for the error lines
        .max_block_length(1000);
    let mut lines = Framed::new(io, codec.build());
    let mut values = Values::new();
    while let Some(line) = lines.try_next().await? {
        match line {
            Ok(line) => answer(&mut lines, &mut values, &line).await?,
            Err(bad) => lines.feed(bad.reply().into()).await?, // the connection continues
        }
        lines.flush().await?;
    }
    lines.close().await
}

async fn answer(lines: &mut Lines, values: &mut Values, line: &[u8]) -> io::Result<()> {
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    match words[..] {
        [b"set", key, length] => match number(length) {
            Some(length) => match block(lines, length).await? {
                Ok(value) => {
                    // Copy, because a slice would keep the whole read buffer in memory.
                    values.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(&value));
                    lines.feed("STORED".into()).await?;
                }
                Err(refused) => lines.feed(refused.into()).await?,
            },
            None => lines.feed("CLIENT_ERROR bad length".into()).await?,
        },
        [b"get", key] => {
            if let Some(value) = values.get(key) {
                lines.feed(format!("VALUE {}", value.len()).into()).await?;
                // Bypass the encoder, which refuses line ends. A value may contain them.
                lines.write_buffer_mut().extend_from_slice(value);
                lines.feed(Bytes::new()).await?;
            }
            lines.feed("END".into()).await?;
        }
        [b"show", key] => {
            let value = values.get(key).map(Bytes::as_ref).unwrap_or_default();
            let encoder = lines.codec().encoder();
            if let Err(refused) = encoder.encode_line(value, lines.write_buffer_mut()) {
                // The encoder has written nothing, and the client waits for a line.
                lines.feed(format!("SERVER_ERROR {refused}").into()).await?;
            }
        }
        _ => lines.feed("ERROR".into()).await?,
    }
    Ok(())
}

/// Reads the counted bytes after the line. Returns them, or an error line for the client.
async fn block(lines: &mut Lines, length: usize) -> io::Result<Result<Bytes, String>> {
    let block = match lines.codec_mut().expect_bytes(length) {
        Ok(()) => Ok(next(lines).await?),
        Err(too_many) => {
            lines.codec_mut().skip_bytes(length as u64);
            Err(format!("SERVER_ERROR {too_many}"))
        }
    };
    // The terminator after the block arrives as an empty line. If not, the length was wrong.
    match lines.try_next().await? {
        Some(Ok(end)) if end.is_empty() => Ok(block),
        _ => Ok(Err("CLIENT_ERROR bad data chunk".into())),
    }
}

/// Returns the next line or block. A bad line or the end of the stream is an error.
async fn next(lines: &mut Lines) -> io::Result<Bytes> {
    Ok(lines.try_next().await?.ok_or(io::ErrorKind::UnexpectedEof)??)
}

/// Parses digits only, because `parse` alone also accepts a sign.
fn number(digits: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

async fn talk(io: TcpStream) -> io::Result<()> {
    let long = "x".repeat(2000);
    let too_large = format!("set big 2000\r\n{long}");
    let value: &[&str] = &["VALUE 5", "a\r\nbc", "", "END"];
    let dialogue: [(&str, &[&str]); 9] = [
        ("set k 5\r\na\r\nbc", &["STORED"]),
        ("get k", value),
        (
            "show k",
            &["SERVER_ERROR line contains a terminator, or part of one, at byte 1; remove or escape it"],
        ),
        (
            &too_large,
            &["SERVER_ERROR block of 2000 bytes exceeds the limit of 1000 bytes (max_block_length)"],
        ),
        ("set k 3\r\nabcdef", &["CLIENT_ERROR bad data chunk"]),
        (&long, &["error: line exceeds the limit of 80 bytes (max_length)"]),
        ("get\nk", &["error: line of 5 bytes with a CR or LF that is not part of a CRLF"]),
        ("hello?", &["ERROR"]),
        ("get k", value),
    ];

    let mut lines = Framed::new(io, LineCodec::builder().delimiter(Delimiter::CrLf).build());
    for (request, replies) in dialogue {
        let shown = request.escape_default().to_string();
        println!("> {shown:.40}{}", if shown.len() > 40 { "..." } else { "" });
        lines.write_buffer_mut().extend_from_slice(format!("{request}\r\n").as_bytes());
        lines.flush().await?;
        for expected in replies {
            let reply = next(&mut lines).await?;
            println!("< {}", reply.escape_ascii());
            assert_eq!(reply, expected);
            if let Some(length) = reply.strip_prefix(b"VALUE ").and_then(number) {
                lines.codec_mut().expect_bytes(length)?;
            }
        }
    }
    lines.close().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    // A missing reply fails the example instead of hanging it.
    timeout(Duration::from_secs(60), async { tokio::try_join!(serve(server), talk(client)) }).await??;
    Ok(())
}
