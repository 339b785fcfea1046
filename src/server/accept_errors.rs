use std::io;
use std::time::Duration;

use super::trace;

/// Bounds of the pause between two attempts to accept.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Number of consecutive errors that each concern one connection, after which the server pauses.
const MAX_IN_A_ROW: u32 = 1000;

/// The consecutive errors of a listener since its last accepted connection.
#[derive(Default)]
pub(super) struct AcceptErrors {
    in_a_row: u32,
    last_pause: Duration,
    reports: trace::AcceptErrors,
}

impl AcceptErrors {
    pub(super) fn accepted(&mut self) {
        (self.in_a_row, self.last_pause) = (0, Duration::ZERO);
    }

    /// Reports an error of `accept`. Returns how long to pause before the next attempt.
    pub(super) fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        self.reports.report(error);
        self.in_a_row = self.in_a_row.saturating_add(1);
        if concerns_one_connection(error) && self.in_a_row < MAX_IN_A_ROW {
            return None;
        }
        self.last_pause = (self.last_pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        Some(self.last_pause)
    }
}

/// Returns whether `accept` has reported an error of the connection that it would have returned.
/// See accept(2), section "Error handling".
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}
