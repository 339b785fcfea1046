//! A line protocol that uses every operation of a connection, or of a pair of halves.

use std::time::Duration;

use bytes::Bytes;
use lineframe::{Batch, Connection, Error, LineError, LineReader, LineWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::pass;

pub type Line = Result<Bytes, LineError>;

/// The operations that a connection and a pair of halves have in common.
pub trait Lines {
    async fn next_line(&mut self) -> Result<Option<Line>, Error>;
    async fn next_text(&mut self) -> Result<Option<Line>, Error>;
    async fn next_batch(&mut self) -> Result<Option<Batch>, Error>;
    fn put_back(&mut self, batch: Batch) -> Result<(), Batch>;
    async fn read_bytes(&mut self, count: usize) -> Result<Bytes, Error>;
    async fn skip_bytes(&mut self, count: u64) -> Result<(), Error>;
    /// Returns `count` of the next `length` bytes and skips the rest.
    async fn body(&mut self, length: u64, count: usize) -> Result<Vec<u8>, Error>;
    async fn write_line(&mut self, line: &[u8]) -> Result<(), Error>;
    async fn send_line(&mut self, line: &[u8]) -> Result<(), Error>;
    async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Error>;
    async fn flush(&mut self) -> Result<(), Error>;
    async fn shutdown(&mut self) -> Result<(), Error>;
    async fn request(&mut self, line: &[u8]) -> Result<Bytes, Error>;
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Lines for Connection<Io> {
    async fn next_line(&mut self) -> Result<Option<Line>, Error> {
        self.next_line().await
    }

    async fn next_text(&mut self) -> Result<Option<Line>, Error> {
        Ok(self.next_text().await?.map(|line| line.map(|text| text.into_bytes())))
    }

    async fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        self.next_batch().await
    }

    fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.put_back(batch)
    }

    async fn read_bytes(&mut self, count: usize) -> Result<Bytes, Error> {
        self.read_bytes(count).await
    }

    async fn skip_bytes(&mut self, count: u64) -> Result<(), Error> {
        self.skip_bytes(count).await
    }

    async fn body(&mut self, length: u64, count: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; count];
        let mut body = self.body(length);
        if count as u64 == length {
            bytes.clear();
            body.read_to_end(&mut bytes).await?;
        } else {
            body.read_exact(&mut bytes).await?;
        }
        Ok(bytes)
    }

    async fn write_line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.write_line(line).await
    }

    async fn send_line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.send_line(line).await
    }

    async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write_bytes(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.flush().await
    }

    async fn shutdown(&mut self) -> Result<(), Error> {
        self.shutdown().await
    }

    async fn request(&mut self, line: &[u8]) -> Result<Bytes, Error> {
        self.request(line).await
    }
}

/// A pair of halves. Halves do not flush before they read, so the reading methods here do.
pub struct Halves<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> {
    pub reader: LineReader<R>,
    /// `None` after a shutdown.
    pub writer: Option<LineWriter<W>>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Halves<R, W> {
    pub fn new((reader, writer): (LineReader<R>, LineWriter<W>)) -> Self {
        Self { reader, writer: Some(writer) }
    }

    fn writer(&mut self) -> &mut LineWriter<W> {
        self.writer.as_mut().expect("written after the end")
    }

    async fn flush_if_open(&mut self) -> Result<(), Error> {
        match &mut self.writer {
            Some(writer) => writer.flush().await,
            None => Ok(()),
        }
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Lines for Halves<R, W> {
    async fn next_line(&mut self) -> Result<Option<Line>, Error> {
        self.flush_if_open().await?;
        self.reader.next_line().await
    }

    async fn next_text(&mut self) -> Result<Option<Line>, Error> {
        self.flush_if_open().await?;
        Ok(self.reader.next_text().await?.map(|line| line.map(|text| text.into_bytes())))
    }

    async fn next_batch(&mut self) -> Result<Option<Batch>, Error> {
        self.flush_if_open().await?;
        self.reader.next_batch().await
    }

    fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.reader.put_back(batch)
    }

    async fn read_bytes(&mut self, count: usize) -> Result<Bytes, Error> {
        self.flush_if_open().await?;
        self.reader.read_bytes(count).await
    }

    async fn skip_bytes(&mut self, count: u64) -> Result<(), Error> {
        self.flush_if_open().await?;
        self.reader.skip_bytes(count).await
    }

    async fn body(&mut self, length: u64, count: usize) -> Result<Vec<u8>, Error> {
        let bytes = self.read_bytes(count).await?;
        self.skip_bytes(length - count as u64).await?;
        Ok(bytes.to_vec())
    }

    async fn write_line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.writer().feed_line(line).await
    }

    async fn send_line(&mut self, line: &[u8]) -> Result<(), Error> {
        self.writer().send_line(line).await
    }

    async fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writer().feed_bytes(bytes).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        self.writer().flush().await
    }

    async fn shutdown(&mut self) -> Result<(), Error> {
        self.writer.take().expect("written after the end").shutdown().await
    }

    async fn request(&mut self, line: &[u8]) -> Result<Bytes, Error> {
        self.write_line(line).await?;
        self.next_line().await?.ok_or(Error::Eof)?.map_err(Error::from)
    }
}

/// The way lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Line,
    Text,
    /// By batch. The batch is put back before a command reads from the stream itself.
    Batch,
    /// By batch. The rest of the batch is put back after each line.
    PutBack,
    /// By line; each line takes 2 ms.
    Slow,
}

/// Answers lines until the end of the stream, then shuts down. Records everything that was read.
pub async fn talk(lines: &mut impl Lines, by: By, seen: &mut Vec<String>) -> Result<(), Error> {
    match answer(lines, by, seen).await? {
        Shut(true) => Ok(()),
        Shut(false) => lines.shutdown().await,
    }
}

/// `true` if the output is already shut down.
pub struct Shut(pub bool);

/// Like [`talk`], without the shutdown.
pub async fn answer(lines: &mut impl Lines, by: By, seen: &mut Vec<String>) -> Result<Shut, Error> {
    let mut talk = Talk { lines, by, batch: None, is_shut: false, seen };
    while let Some(line) = talk.next().await? {
        match line {
            Ok(line) => talk.obey(&line).await?,
            Err(_) => talk.lines.write_line(b"bad").await?,
        }
    }
    Ok(Shut(talk.is_shut))
}

struct Talk<'a, L> {
    lines: &'a mut L,
    by: By,
    batch: Option<Batch>,
    is_shut: bool,
    seen: &'a mut Vec<String>,
}

impl<L: Lines> Talk<'_, L> {
    async fn next(&mut self) -> Result<Option<Line>, Error> {
        let line = match self.by {
            By::Line | By::Slow => self.lines.next_line().await?,
            By::Text => self.lines.next_text().await?,
            By::Batch | By::PutBack => self.next_of_batch().await?,
        };
        self.seen.push(match &line {
            Some(Ok(line)) => line.escape_ascii().to_string(),
            Some(Err(bad)) => describe(bad),
            None => "END".into(),
        });
        if self.by == By::Slow {
            pass(Duration::from_millis(2));
        }
        Ok(line)
    }

    async fn next_of_batch(&mut self) -> Result<Option<Line>, Error> {
        loop {
            if let Some(line) = self.batch.as_mut().and_then(Batch::next) {
                if self.by == By::PutBack {
                    self.put_back();
                }
                return Ok(Some(line));
            }
            self.batch = self.lines.next_batch().await?;
            if self.batch.is_none() {
                return Ok(None);
            }
        }
    }

    /// Puts the rest of the batch back, so that it can be read in another way.
    fn put_back(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.lines.put_back(batch).unwrap();
        }
    }

    /// Runs the command in a line. Other lines are answered in upper case.
    async fn obey(&mut self, line: &Bytes) -> Result<(), Error> {
        let text = String::from_utf8_lossy(line);
        let words: Vec<_> = text.split(' ').collect();
        let count = |at: usize| words[at].parse::<usize>().unwrap();
        match words[0] {
            "bytes" => self.bytes(count(1)).await,
            "skip" => {
                self.put_back();
                let reply = match self.lines.skip_bytes(count(1) as u64).await {
                    Err(Error::Eof) => "too few",
                    skipped => skipped.map(|()| "skipped")?,
                };
                self.lines.write_line(reply.as_bytes()).await
            }
            "body" => {
                self.put_back();
                let body = self.lines.body(count(1) as u64, count(2)).await?;
                self.seen.push(format!("({})", body.escape_ascii()));
                self.lines.write_line(b"body").await
            }
            "ask" => {
                self.put_back();
                let reply = self.lines.request(words[1].as_bytes()).await?;
                self.seen.push(format!("({})", reply.escape_ascii()));
                self.lines.send_line(b"asked").await
            }
            "flush" => {
                self.lines.write_line(b"flushed").await?;
                self.lines.flush().await
            }
            "many" => {
                for _ in 0..count(1) {
                    self.lines.write_line(&[b'x'; MANY]).await?;
                }
                Ok(())
            }
            "shut" => {
                self.is_shut = true;
                self.lines.shutdown().await?;
                while self.next().await?.is_some() {}
                Ok(())
            }
            _ => match self.lines.write_line(&line.to_ascii_uppercase()).await {
                Err(Error::Encode(_)) => self.lines.write_line(b"refused").await,
                written => written,
            },
        }
    }

    async fn bytes(&mut self, count: usize) -> Result<(), Error> {
        self.put_back();
        match self.lines.read_bytes(count).await {
            Ok(bytes) => {
                self.seen.push(format!("({})", bytes.escape_ascii()));
                self.lines.write_line(b"bytes").await?;
                self.lines.write_bytes(&bytes).await?;
                self.lines.write_line(b"").await
            }
            Err(Error::Eof) => self.lines.write_line(b"too few").await,
            Err(Error::Block(_)) => {
                self.lines.skip_bytes(count as u64).await?;
                self.lines.write_line(b"too many").await
            }
            Err(gone) => Err(gone),
        }
    }
}

/// The length of each line that `many` writes. One such line fits into `max_unsent`, two do not.
pub const MANY: usize = 65_000;

pub fn describe(bad: &LineError) -> String {
    let kind = match bad {
        LineError::TooLong { .. } => "TooLong",
        LineError::Unterminated { .. } => "Unterminated",
        LineError::BareTerminator { .. } => "BareTerminator",
        LineError::NotUtf8 { .. } => "NotUtf8",
        _ => "other",
    };
    format!("{kind}({})", bad.bytes().escape_ascii())
}
