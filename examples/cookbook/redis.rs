//! A client for Redis. It pipelines any number of RESP commands, with values of any bytes.
//!
//! ```sh
//! redis-server --port 6379 &
//! cargo run --example redis -- 127.0.0.1:6379 SET greeting 'hello world'
//! cargo run --example redis -- 127.0.0.1:6379 GET greeting
//! ```

use std::error::Error;
use std::{fmt, io};

use bytes::Bytes;
use lineframe::{Client, Connection, Delimiter, LineCodec, LineReader};
use tokio::io::AsyncRead;

/// The largest value that this client accepts. Redis stores values of up to 512 MiB.
const MAX_VALUE: usize = 64 << 20;
const MAX_DEPTH: usize = 8;

// region: reply
/// A reply from Redis.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A simple string, such as `OK`.
    Simple(Bytes),
    /// An error message.
    Error(Bytes),
    /// An integer.
    Integer(i64),
    /// A value of any bytes. `None` if the value does not exist.
    Bulk(Option<Bytes>),
    /// A list of replies. `None` if the array does not exist.
    Array(Option<Vec<Reply>>),
}

impl Reply {
    /// Reads one reply. The nesting depth of arrays is limited, because each level takes memory and
    /// the peer chooses the depth.
    async fn read(reader: &mut LineReader<impl AsyncRead + Unpin>, depth: usize) -> io::Result<Self> {
        let line = reader.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)??;
        let Some((kind, rest)) = line.split_first() else { return Err(invalid("an empty line")) };
        Ok(match kind {
            b'+' => Self::Simple(line.slice_ref(rest)),
            b'-' => Self::Error(line.slice_ref(rest)),
            b':' => Self::Integer(number(rest)?),
            b'$' | b'*' if rest == b"-1" => {
                if *kind == b'$' {
                    Self::Bulk(None)
                } else {
                    Self::Array(None)
                }
            }
            b'$' => {
                let value = reader.read_bytes(number(rest)?).await?;
                match reader.next_line().await? {
                    Some(Ok(end)) if end.is_empty() => Self::Bulk(Some(value)),
                    _ => return Err(invalid("value longer than its announced length")),
                }
            }
            b'*' if depth == MAX_DEPTH => return Err(invalid("arrays nested too deeply")),
            b'*' => {
                let mut replies = Vec::new(); // no capacity is reserved for an announced count
                for _ in 0..number::<u32>(rest)? {
                    replies.push(Box::pin(Self::read(reader, depth + 1)).await?);
                }
                Self::Array(Some(replies))
            }
            _ => return Err(invalid("unknown type of reply")),
        })
    }
}
// endregion

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "{}", text.escape_ascii()),
            Self::Error(text) => write!(f, "(error) {}", text.escape_ascii()),
            Self::Integer(number) => write!(f, "(integer) {number}"),
            Self::Bulk(Some(value)) => write!(f, "\"{}\"", value.escape_ascii()),
            Self::Bulk(None) | Self::Array(None) => f.write_str("(nil)"),
            Self::Array(Some(replies)) => {
                for (i, reply) in replies.iter().enumerate() {
                    write!(f, "{}{reply}", if i == 0 { "" } else { "\n" })?;
                }
                Ok(())
            }
        }
    }
}

// region: client
/// A connection to Redis.
pub struct Redis {
    conn: Connection,
    /// A pipeline has started and not finished. The next one would read its replies.
    is_busy: bool,
}

impl Redis {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_block_length(MAX_VALUE).build();
        Ok(Self { conn: Client::builder().codec(codec).build().connect(address).await?, is_busy: false })
    }

    /// Sends all commands and returns one reply for each. Writes and reads concurrently: a server
    /// that stops reading until its replies are read would otherwise cause a deadlock.
    pub async fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[&[A]]) -> io::Result<Vec<Reply>> {
        if std::mem::replace(&mut self.is_busy, true) {
            return Err(io::Error::other("an earlier pipeline did not finish: connect again"));
        }
        let (mut reader, mut writer) = self.conn.split();
        let send = async {
            for command in commands {
                writer.feed_line(format!("*{}", command.len())).await?;
                for argument in command.iter().map(AsRef::as_ref) {
                    writer.feed_line(format!("${}", argument.len())).await?;
                    writer.feed_bytes(argument).await?;
                    writer.feed_line("").await?;
                }
            }
            io::Result::Ok(writer.flush().await?)
        };
        let receive = async {
            let mut replies = Vec::new();
            for _ in commands {
                replies.push(Reply::read(&mut reader, 0).await?);
            }
            io::Result::Ok(replies)
        };
        let ((), replies) = tokio::try_join!(send, receive)?;
        self.is_busy = false;
        Ok(replies)
    }
}
// endregion

fn number<N: std::str::FromStr>(digits: &[u8]) -> io::Result<N> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| invalid("not a number"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, command @ ..] = &words[..] else {
        return Err("usage: redis ADDRESS COMMAND [ARGUMENT]..".into());
    };
    for reply in Redis::connect(address).await?.pipeline(&[command]).await? {
        println!("{reply}");
    }
    Ok(())
}
