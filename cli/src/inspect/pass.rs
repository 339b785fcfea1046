//! Passes bytes on unchanged and logs their frames.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{Frames, Rules};
use super::log::{Closed, Log, Place};
use crate::show::counted;

/// Maximum size of a read.
const READ: usize = 64 * 1024;

/// Why passing bytes on stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    Read(io::Error),
    Output,
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Self {
        Self::Output
    }
}

/// How a direction ended.
#[derive(Debug)]
pub(super) enum Passed {
    /// The stream ended, and the end was passed on.
    All,
    /// Bytes could not be written to the other side.
    NotTaken(io::Error),
}

/// State shared by the two directions between the same peers.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Whether a write failed because the connection was reset. The system reports a reset only
    /// once: the other direction, which reads from the same peer, sees a normal end.
    is_reset: AtomicBool,
}

/// Passes on all bytes and then the end of the stream.
///
/// Logs each read before passing it on, so that a reply never appears before its request. While
/// nobody reads the output, no bytes are passed on.
pub(super) async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    place: Place,
    shared: &Shared,
    rules: &Rules,
    log: &Log,
) -> Result<Passed, Stopped> {
    let mut frames = Frames::new(rules);
    let mut count = 0;
    let mut buffer = vec![0; READ];
    loop {
        let read = match from.read(&mut buffer).await {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) if shared.is_reset.load(Relaxed) => Err(io::ErrorKind::ConnectionReset.into()),
            read => read,
        };
        let mut entries = log.begin(place);
        let bytes = match &read {
            Ok(length) => &buffer[..*length],
            Err(_) => &[],
        };
        frames.push(bytes);
        while let Some(frame) = frames.next(bytes.is_empty()) {
            count += 1;
            entries.frame(&frame);
            entries.write_full().await?;
        }
        match &read {
            Ok(0) => {
                let (bytes, frames) = (counted(frames.read(), "byte"), counted(count, "frame"));
                entries.note(format_args!("EOF after {bytes}, {frames}"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                entries.note(format_args!("reset after {}", counted(frames.read(), "byte")))
            }
            Err(error) => {
                entries.note(format_args!("failed after {}: {error}", counted(frames.read(), "byte")))
            }
        }
        entries.write().await?;
        if read.map_err(Stopped::Read)? == 0 {
            break;
        }
        let passed = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        if let Err(error) = passed.await {
            let mut entries = log.begin(place);
            entries.note(format_args!("cannot write to the other side: {error}"));
            entries.write().await?;
            if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
                shared.is_reset.store(true, Relaxed);
            }
            return Ok(Passed::NotTaken(error));
        }
    }
    // An error means that the other side has already closed the connection.
    _ = to.shutdown().await;
    Ok(Passed::All)
}
