use lineframe::{LineCodec, LineReader, Peer};
use tokio::process::ChildStderr;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::LAST_WORDS;
use crate::serve::log;

/// Logs what a child writes to its stderr, a record for each line. Dropping it stops that.
pub(super) struct StderrLog(JoinSet<()>);

impl StderrLog {
    pub(super) fn start(peer: Peer, stderr: Option<ChildStderr>) -> Self {
        let mut task = JoinSet::new();
        if let Some(stderr) = stderr {
            task.spawn(log_lines(peer, stderr));
        }
        Self(task)
    }

    /// Waits for the last lines of a child that has ended. A process that has left its group may
    /// keep its stderr open.
    pub(super) async fn end(mut self) {
        _ = timeout(LAST_WORDS, self.0.join_next()).await;
    }
}

async fn log_lines(peer: Peer, stderr: ChildStderr) {
    // Of a longer line, the beginning is logged.
    let codec = LineCodec::builder().max_length(log::MAX_SHOWN).build();
    let mut lines = LineReader::with_codec(stderr, codec);
    while let Ok(Some(line)) = lines.next_line().await {
        match &line {
            Ok(line) => log::child_stderr(peer, line),
            Err(bad) => log::child_stderr(peer, bad.bytes()),
        }
    }
}
