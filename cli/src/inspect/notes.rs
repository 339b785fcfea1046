//! Notes on stderr: lines that are not frames.

use std::fmt::Display;
use std::io::{self, Write};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Maximum number of queued lines. Further lines are dropped.
const WAITING: usize = 64;

/// Writes lines to stderr from a separate thread, so that passing bytes on never waits for stderr.
#[derive(Clone)]
pub(super) struct Notes(mpsc::Sender<String>);

impl Notes {
    /// Returns the notes and the handle of the writer, which ends when every clone is dropped.
    pub(super) fn new() -> (Self, JoinHandle<()>) {
        let (sender, mut lines) = mpsc::channel::<String>(WAITING);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(line) = lines.blocking_recv() {
                // A single write, because stdout may go to the same terminal.
                _ = io::stderr().write_all(line.as_bytes());
            }
        });
        (Self(sender), writer)
    }

    /// Queues a line, or drops it if the queue is full.
    pub(super) fn note(&self, line: impl Display) {
        _ = self.0.try_send(format!("{line}\n"));
    }

    /// Queues the last line, which ends in LF. Waits until the queue has space.
    pub(super) async fn last(self, line: String) {
        _ = self.0.send(line).await;
    }
}
