use lineframe::{LineCodec, LineReader, Peer};
use tokio::process::ChildStderr;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::EXIT_TIMEOUT;
use crate::serve::log;

/// Logs each line that a child writes to stderr, until dropped.
pub(super) struct StderrLog(JoinSet<()>);

impl StderrLog {
    pub(super) fn start(peer: Peer, stderr: Option<ChildStderr>) -> Self {
        let mut task = JoinSet::new();
        if let Some(stderr) = stderr {
            task.spawn(log_lines(peer, stderr));
        }
        Self(task)
    }

    /// Waits up to `EXIT_TIMEOUT` for the last lines of a child that exited. A process that left
    /// the group may keep stderr open longer.
    pub(super) async fn end(mut self) {
        _ = timeout(EXIT_TIMEOUT, self.0.join_next()).await;
    }
}

async fn log_lines(peer: Peer, stderr: ChildStderr) {
    // Only the beginning of a longer line is logged.
    let codec = LineCodec::builder().max_length(log::MAX_SHOWN).build();
    let mut lines = LineReader::with_codec(stderr, codec);
    while let Ok(Some(line)) = lines.next_line().await {
        match &line {
            Ok(line) => log::child_stderr(peer, line),
            Err(bad) => log::child_stderr(peer, bad.bytes()),
        }
    }
}
