//! Lines on stderr that are not frames.

use std::fmt::Display;
use std::io::{self, Write};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How many lines may wait for the reader of stderr.
const WAITING: usize = 64;

/// Writes lines to stderr in a thread of its own, so that passing bytes never waits for it.
#[derive(Clone)]
pub(super) struct Notes(mpsc::Sender<String>);

impl Notes {
    /// Returns the end of the writer too: when every clone is dropped.
    pub(super) fn new() -> (Self, JoinHandle<()>) {
        let (sender, mut lines) = mpsc::channel::<String>(WAITING);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(line) = lines.blocking_recv() {
                // In one write: stdout may go to the same terminal.
                _ = io::stderr().write_all(line.as_bytes());
            }
        });
        (Self(sender), writer)
    }

    /// Drops the line if too many wait.
    pub(super) fn note(&self, line: impl Display) {
        _ = self.0.try_send(format!("{line}\n"));
    }

    /// Waits until there is space for `line`, which has its LF.
    pub(super) async fn last(self, line: String) {
        _ = self.0.send(line).await;
    }
}
