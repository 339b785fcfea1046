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
    /// A call has started and not finished. The next call would read the rest of its reply.
    is_busy: bool,
}

/// An item stored in memcached.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// The key.
    pub key: String,
    /// An application-defined number stored with the value, such as its format.
    pub flags: u32,
    /// The version of the value, which changes with every write. Only `gets` returns it.
    pub cas: Option<u64>,
    /// Any bytes, by default up to 1 MiB (memcached's option `-I`).
    pub value: Bytes,
}

impl Memcached {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> io::Result<Self> {
        let codec = LineCodec::builder().delimiter(Delimiter::CrLf).max_length(2048).build();
        Ok(Self { conn: Client::builder().codec(codec).build().connect(address).await?, is_busy: false })
    }

    /// Returns the items that exist, in no particular order.
    pub async fn get(&mut self, keys: &[&str]) -> io::Result<Vec<Found>> {
        self.retrieve("get", keys).await
    }

    /// Like [`get`](Self::get), and also returns the version that [`cas`](Self::cas) takes.
    pub async fn gets(&mut self, keys: &[&str]) -> io::Result<Vec<Found>> {
        self.retrieve("gets", keys).await
    }

    /// Stores a value. Returns `STORED`.
    pub async fn set(&mut self, key: &str, flags: u32, value: &[u8]) -> io::Result<Bytes> {
        check(key)?;
        self.store(&format!("set {key} {flags} 0 {}", value.len()), value).await
    }

    /// Stores a value if its version is still `cas`. Returns `STORED`, `EXISTS` if the value has
    /// changed, or `NOT_FOUND`.
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
        self.conn.write_line("").await?; // the CRLF after the block
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
            // `VALUE key flags length [cas]`, followed by `length` bytes and CRLF.
            let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
            let words: Vec<&str> = text.split(' ').collect();
            let (["VALUE", key, flags, length], cas) = words.split_at(words.len().min(4)) else {
                return Err(refused(&line));
            };
            let value = self.conn.read_bytes(number(length)?).await?;
            if !self.line().await?.is_empty() {
                return Err(io::Error::other("value longer than its announced length"));
            }
            let cas = cas.first().map(|cas| number(cas)).transpose()?;
            found.push(Found { key: (*key).into(), flags: number(flags)?, cas, value });
        }
    }
    // endregion

    async fn line(&mut self) -> io::Result<Bytes> {
        Ok(self.conn.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)??)
    }

    /// Marks the connection as busy. After a dropped call, or an error within a reply, it stays
    /// busy, because the rest of that reply may still arrive.
    fn begin(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.is_busy, true) {
            false => Ok(()),
            true => Err(io::Error::other("an earlier call did not finish: connect again")),
        }
    }
}

// region: check
/// Checks a key. A key with a space would change the meaning of the rest of the command.
fn check(key: &str) -> io::Result<()> {
    match key.len() {
        1..=250 if !key.contains(|c: char| c.is_whitespace() || c.is_control()) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a key must be 1 to 250 bytes without spaces")),
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
