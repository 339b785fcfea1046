use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::traffic::Traffic;

/// How long a connection waits, how much it puts up with, and who else counts it. Shared by all connections of a server, until
/// one is told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) line_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    /// So many bad lines are handed over; then the connection is at its end.
    pub(crate) max_bad_lines: Option<u64>,
    pub(crate) max_unsent: usize,
    #[cfg(feature = "server")]
    pub(crate) refuse_http_and_tls: bool,
    /// Where it is counted as well.
    pub(crate) traffic: Option<Arc<Traffic>>,
}

impl Limits {
    pub(super) fn max_bad_lines(&self) -> u64 {
        self.max_bad_lines.unwrap_or(u64::MAX)
    }

    /// Those of a connection outside a server.
    pub(super) fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Limits>> = LazyLock::new(|| {
            Arc::new(Limits {
                idle_timeout: None,
                line_timeout: None,
                write_timeout: None,
                max_bad_lines: None,
                max_unsent: 64 * 1024,
                #[cfg(feature = "server")]
                refuse_http_and_tls: false,
                traffic: None,
            })
        });
        Arc::clone(&NONE)
    }
}
