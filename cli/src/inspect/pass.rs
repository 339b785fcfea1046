//! Bytes on their way, looked at and not touched.

use std::io;

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

/// Passes on what comes, to the byte, and then that nothing more comes. Each read is shown before it is passed on, so that
/// an answer is never shown before what it answers; while nobody takes the output, nothing passes.
pub(super) async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    place: Place,
    rules: &Rules,
    log: &Log,
) -> Result<(), Stopped> {
    let mut frames = Frames::new(rules);
    let mut count = 0;
    let mut buffer = vec![0; READ];
    loop {
        let read = match from.read(&mut buffer).await {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
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
            Err(error) => {
                entries.note(format_args!("failed after {}: {error}", counted(frames.read(), "byte")))
            }
        }
        entries.write().await?;
        if read.map_err(Stopped::Read)? == 0 {
            break;
        }
        // Where nobody takes them, those on the other side are told by what comes back from there, or does not.
        let passed = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        if let Err(error) = passed.await {
            let mut entries = log.begin(place);
            entries.note(format_args!("cannot be passed on: {error}"));
            entries.write().await?;
            return Ok(());
        }
    }
    // Who is gone needs no telling.
    _ = to.shutdown().await;
    Ok(())
}
