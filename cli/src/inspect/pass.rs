//! Bytes on their way, looked at and not touched.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{Frames, Rules};
use super::log::{Closed, Log, Place};
use crate::show::counted;

/// The largest read.
const READ: usize = 64 * 1024;

/// Why bytes no longer pass.
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
    /// With the end of what came, which was passed on too.
    All,
    /// What came could not be passed on.
    NotTaken(io::Error),
}

/// What both directions between the same two peers have to know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// A write found the connection reset. The system reports that once: the other direction, which
    /// reads from the same peer, sees only an end.
    is_reset: AtomicBool,
}

/// Passes on what comes, to the byte, and then that nothing more comes. Each read is shown before it is passed on, so that
/// an answer is never shown before what it answers; while nobody takes the output, nothing passes.
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
            entries.note(format_args!("cannot be passed on: {error}"));
            entries.write().await?;
            if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
                shared.is_reset.store(true, Relaxed);
            }
            return Ok(Passed::NotTaken(error));
        }
    }
    // Who is gone needs no telling.
    _ = to.shutdown().await;
    Ok(Passed::All)
}
