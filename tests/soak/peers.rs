//! The clients of a soak. Each one runs until it is stopped and reports every deviation.

use std::io::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::server::Server;

/// State shared by all clients.
pub(crate) struct Soak {
    pub(crate) server: Server,
    pub(crate) is_over: AtomicBool,
    pub(crate) idle_lines: AtomicU64,
    pub(crate) busy_lines: AtomicU64,
    pub(crate) busy_streams: AtomicU64,
    pub(crate) hostile: [AtomicU64; HOSTILE.len()],
    pub(crate) wrong: Mutex<Vec<String>>,
}

/// The actions of the hostile clients, distributed in turn.
pub(crate) const HOSTILE: [&str; 6] = [
    "drip a line until closed",
    "leave within a line",
    "send a line of 1 MiB",
    "never read until closed",
    "reset the connection",
    "send garbage",
];

impl Soak {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            is_over: AtomicBool::new(false),
            idle_lines: AtomicU64::new(0),
            busy_lines: AtomicU64::new(0),
            busy_streams: AtomicU64::new(0),
            hostile: Default::default(),
            wrong: Mutex::new(Vec::new()),
        }
    }

    fn is_running(&self) -> bool {
        !self.is_over.load(Relaxed)
    }

    fn record(&self, who: &str, what: io::Result<()>) {
        if let (Err(error), Ok(mut wrong)) = (what, self.wrong.lock()) {
            wrong.push(format!("{who}: {error}"));
        }
    }

    /// Waits for a time in milliseconds or until the end of the soak.
    async fn pause(&self, mut milliseconds: u64) {
        while milliseconds > 0 && self.is_running() {
            let part = milliseconds.min(1000);
            sleep(Duration::from_millis(part)).await;
            milliseconds -= part;
        }
    }

    /// Keeps one connection open for the whole soak, and sends a line every one to four minutes.
    pub(crate) async fn idle(&self, mut random: Random) {
        let result = async {
            let mut peer = self.server.connect().await?;
            self.pause(random.below(240_000)).await;
            let mut line = Vec::new();
            while self.is_running() {
                line.clear();
                random.line(40, &mut line);
                peer.write_all(&line).await?;
                expect(&mut peer, line.to_ascii_uppercase()).await?;
                self.idle_lines.fetch_add(1, Relaxed);
                self.pause(60_000 + random.below(180_000)).await;
            }
            Ok(())
        };
        let result = result.await;
        self.record("idle", result);
    }

    /// Sends bursts of 1 to 20 lines twice a second, sometimes with a line of the maximum length.
    /// Half-closes after 100 bursts and reconnects.
    pub(crate) async fn busy(&self, mut random: Random) {
        while self.is_running() {
            let result = self.busy_stream(&mut random).await;
            self.record("busy", result);
        }
    }

    async fn busy_stream(&self, random: &mut Random) -> io::Result<()> {
        let mut peer = self.server.connect().await?;
        let mut lines = Vec::new();
        for _ in 0..100 {
            lines.clear();
            let count = 1 + random.below(20);
            for _ in 0..count {
                let longest = if random.below(500) == 0 { 65_536 } else { 400 };
                random.line(longest, &mut lines);
            }
            let (mut reader, mut writer) = peer.split();
            let replies = lines.to_ascii_uppercase();
            tokio::try_join!(writer.write_all(&lines), expect(&mut reader, replies))?;
            self.busy_lines.fetch_add(count, Relaxed);
            self.pause(250 + random.below(500)).await;
            if !self.is_running() {
                break;
            }
        }
        // The lines that are sent last must be answered too, before the server ends the stream.
        lines.truncate(lines.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1));
        let last = exchange(&mut peer, &lines).await?;
        same(&last, &lines.to_ascii_uppercase())?;
        self.busy_streams.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Repeats entry `at` of [`HOSTILE`].
    pub(crate) async fn hostile(&self, at: usize, mut random: Random) {
        while self.is_running() {
            let result = match at {
                0 => self.drip().await,
                1 => self.half_line(&mut random).await,
                2 => self.giant_line().await,
                3 => self.never_read().await,
                4 => self.reset(&mut random).await,
                _ => self.garbage(&mut random).await,
            };
            self.record(HOSTILE[at], result);
            self.hostile[at].fetch_add(1, Relaxed);
            self.pause(500 + random.below(1000)).await;
        }
    }

    async fn drip(&self) -> io::Result<()> {
        let mut peer = self.server.connect().await?;
        while self.is_running() {
            if peer.write_all(b"x").await.is_err() {
                break;
            }
            tokio::select! {
                said = peer.read_u8() => match said {
                    Ok(byte) => return Err(io::Error::other(format!("a partial line was answered: {byte}"))),
                    Err(_) => break,
                },
                () = sleep(Duration::from_millis(200)) => {}
            }
        }
        Ok(())
    }

    async fn half_line(&self, random: &mut Random) -> io::Result<()> {
        let length = 2 + random.below(999) as usize;
        let said = exchange(&mut self.server.connect().await?, &vec![b'x'; length]).await?;
        same(&said, format!("error: line of {length} bytes cut before its terminator\n").as_bytes())
    }

    async fn giant_line(&self) -> io::Result<()> {
        let mut lines = vec![b'x'; 1 << 20];
        lines.extend_from_slice(b"\nafter it\n");
        let said = exchange(&mut self.server.connect().await?, &lines).await?;
        same(&said, b"error: line exceeds the limit of 65536 bytes (max_length)\nAFTER IT\n")
    }

    async fn never_read(&self) -> io::Result<()> {
        let mut peer = self.server.connect().await?;
        let mut lines = vec![b'x'; 16 << 10];
        lines[(16 << 10) - 1] = b'\n';
        while self.is_running() {
            tokio::select! {
                written = peer.write_all(&lines) => if written.is_err() { break },
                () = self.pause(10_000) => {}
            }
        }
        Ok(())
    }

    async fn reset(&self, random: &mut Random) -> io::Result<()> {
        let mut peer = self.server.connect().await?;
        let mut lines = Vec::new();
        for _ in 0..random.below(100) {
            random.line(200, &mut lines);
        }
        lines.extend_from_slice(b"and half a");
        peer.write_all(&lines).await?;
        if random.below(2) == 0 {
            peer.readable().await?;
        }
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO))
    }

    async fn garbage(&self, random: &mut Random) -> io::Result<()> {
        // The first byte must not look like a TLS handshake.
        let mut bytes = vec![b'.'];
        for _ in 0..4096 {
            bytes.extend_from_slice(&random.next().to_le_bytes());
        }
        let said = exchange(&mut self.server.connect().await?, &bytes).await?;
        let mut expected = Vec::new();
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let cut = lines.next_back().unwrap_or_default();
        for line in lines {
            let content = line.strip_suffix(b"\r").unwrap_or(line);
            match content.last() {
                Some(b'\r') => writeln!(
                    expected,
                    "error: reply refused: line contains a terminator, or part of one, at byte {}; remove or escape it",
                    content.len() - 1
                )?,
                _ => {
                    expected.extend_from_slice(&content.to_ascii_uppercase());
                    expected.push(b'\n');
                }
            }
        }
        if !cut.is_empty() {
            let bytes = if cut.len() == 1 { "byte" } else { "bytes" };
            writeln!(expected, "error: line of {} {bytes} cut before its terminator", cut.len())?;
        }
        same(&said, &expected)
    }
}

/// Sends all bytes and half-closes. Returns everything that the server sends until its end.
async fn exchange(peer: &mut TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = peer.split();
    let mut said = Vec::new();
    tokio::try_join!(
        async {
            writer.write_all(bytes).await?;
            writer.shutdown().await
        },
        reader.read_to_end(&mut said)
    )?;
    Ok(said)
}

async fn expect(peer: &mut (impl tokio::io::AsyncRead + Unpin), expected: Vec<u8>) -> io::Result<()> {
    let mut said = vec![0; expected.len()];
    peer.read_exact(&mut said).await?;
    same(&said, &expected)
}

fn same(said: &[u8], expected: &[u8]) -> io::Result<()> {
    if said == expected {
        return Ok(());
    }
    let at = said.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around =
        |bytes: &[u8]| bytes[at.saturating_sub(10)..bytes.len().min(at + 30)].escape_ascii().to_string();
    let (got, wanted) = (around(said), around(expected));
    Err(io::Error::other(format!("from byte {at}: received {got:?}, expected {wanted:?}")))
}

/// The splitmix64 generator, which needs a seed and no dependency.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Appends a unique line of 20 to `longest` bytes.
    fn line(&mut self, longest: usize, lines: &mut Vec<u8>) {
        let length = 20 + self.below(longest as u64 - 19) as usize;
        let end = lines.len() + length;
        lines.extend_from_slice(format!("{:020}", self.next()).as_bytes());
        let filler = b'a' + self.below(26) as u8;
        lines.resize(end, filler);
        lines.push(b'\n');
    }
}
