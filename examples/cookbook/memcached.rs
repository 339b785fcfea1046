//! A client for memcached's text protocol: counted blocks between lines, and compare-and-swap.
//!
//! ```sh
//! memcached -l 127.0.0.1 -p 11211 &
//! cargo run --example memcached -- 127.0.0.1:11211 set greeting 'hello world'
//! cargo run --example memcached -- 127.0.0.1:11211 gets greeting nothing
//! cargo run --example memcached -- 127.0.0.1:11211 cas greeting 1 'hello again'
//! ```

use std::error::Error;
use std::io;

use bytes::Bytes;
use lineframe::{Client, Connection, Delimiter, LineCodec};

// region: client
/// A connection to memcached.
pub struct Memcached {
    conn: Connection,
    /// A call has begun and not ended: its reply would be taken for the next one's.
    is_busy: bool,
}

/// What memcached has for a key.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// The key.
    pub key: String,
    /// A number that is kept with the value, for clients to say what it is.
    pub flags: u32,
    /// Changes with every change of the value. From `gets` only.
    pub cas: Option<u64>,
    /// Any bytes, up to 1 MiB unless memcached was told otherwise (`-I`).
    pub value: Bytes,
}

impl Memcached {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(2048).build();
        Ok(Self { conn: Client::builder().codec(codec).build().connect(address).await?, is_busy: false })
    }

    /// What there is of the keys, in no order to rely on.
    pub async fn get(&mut self, keys: &[&str]) -> io::Result<Vec<Found>> {
        self.retrieve("get", keys).await
    }

    /// The same with what [`cas`](Self::cas) asks for.
    pub async fn gets(&mut self, keys: &[&str]) -> io::Result<Vec<Found>> {
        self.retrieve("gets", keys).await
    }

    /// `STORED`.
    pub async fn set(&mut self, key: &str, flags: u32, value: &[u8]) -> io::Result<Bytes> {
        check(key)?;
        self.store(&format!("set {key} {flags} 0 {}", value.len()), value).await
    }

    /// `STORED`, or `EXISTS` where the value is another by now, or `NOT_FOUND`.
    pub async fn cas(&mut self, key: &str, flags: u32, cas: u64, value: &[u8]) -> io::Result<Bytes> {
        check(key)?;
        self.store(&format!("cas {key} {flags} 0 {} {cas}", value.len()), value).await
    }
    // endregion

    // region: store
    async fn store(&mut self, command: &str, value: &[u8]) -> io::Result<Bytes> {
        self.begin()?;
        self.conn.write_line(command).await?;
        self.conn.write_bytes(value).await?;
        self.conn.write_line("").await?; // the block's own terminator
        let reply = self.line().await?;
        self.is_busy = false;
        match &reply[..] {
            b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" => Ok(reply),
            refusal => Err(refused(refusal)),
        }
    }
    // endregion

    // region: retrieve
    async fn retrieve(&mut self, command: &str, keys: &[&str]) -> io::Result<Vec<Found>> {
        keys.iter().try_for_each(|key| check(key))?;
        self.begin()?;
        self.conn.write_line(format!("{command} {}", keys.join(" "))).await?;
        let mut found = Vec::new();
        loop {
            let line = self.line().await?;
            if line == "END" {
                self.is_busy = false;
                return Ok(found);
            }
            // `VALUE key flags length [cas]`, and behind it so many bytes and CRLF.
            let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
            let words: Vec<&str> = text.split(' ').collect();
            let (["VALUE", key, flags, length], cas) = words.split_at(words.len().min(4)) else {
                return Err(refused(&line));
            };
            let value = self.conn.read_bytes(number(length)?).await?;
            if !self.line().await?.is_empty() {
                return Err(io::Error::other("a value is longer than its length"));
            }
            let cas = cas.first().map(|cas| number(cas)).transpose()?;
            found.push(Found { key: (*key).into(), flags: number(flags)?, cas, value });
        }
    }
    // endregion

    async fn line(&mut self) -> io::Result<Bytes> {
        Ok(self.conn.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)??)
    }

    /// After an error in the middle of a reply, and where a call was dropped, the connection is of no use any more.
    fn begin(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.is_busy, true) {
            false => Ok(()),
            true => Err(io::Error::other("a call before this one did not come to its end: connect again")),
        }
    }
}

// region: check
/// A key with a space in it would be two words, and the rest of the command would be what the key says.
fn check(key: &str) -> io::Result<()> {
    match key.len() {
        1..=250 if !key.contains(|c: char| c.is_whitespace() || c.is_control()) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a key is 1 to 250 bytes without spaces")),
    }
}
// endregion

fn number<N: std::str::FromStr>(word: &str) -> io::Result<N> {
    word.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a number"))
}

fn refused(line: &[u8]) -> io::Error {
    io::Error::other(format!("memcached answered: {}", line.escape_ascii()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [address, command, ref rest @ ..] = words[..] else {
        return Err(
            "usage: memcached ADDRESS get KEY.. | gets KEY.. | set KEY VALUE | cas KEY CAS VALUE".into()
        );
    };
    let mut memcached = Memcached::connect(address).await?;
    let found = match (command, rest) {
        ("get", keys) => memcached.get(keys).await?,
        ("gets", keys) => memcached.gets(keys).await?,
        ("set", [key, value]) => return say(memcached.set(key, 0, value.as_bytes()).await?),
        ("cas", [key, cas, value]) => {
            return say(memcached.cas(key, 0, number(cas)?, value.as_bytes()).await?);
        }
        _ => return Err("no such command".into()),
    };
    for Found { key, cas, value, .. } in found {
        let cas = cas.map_or(String::new(), |cas| format!(" ({cas})"));
        println!("{key}{cas}: {}", value.escape_ascii());
    }
    Ok(())
}

fn say(reply: Bytes) -> Result<(), Box<dyn Error>> {
    println!("{}", reply.escape_ascii());
    Ok(())
}
