use std::task::Poll;

use super::Input;
use super::script::{Script, poll_times, wait};

/// How far a future runs.
#[derive(Clone, Copy)]
pub enum Drive {
    /// Until it completes, or waits for something that the peer does not do.
    Fully,
    /// It is polled at most `polls` times and then dropped. Meanwhile the peer accepts `takes`
    /// bytes.
    Partly { polls: usize, takes: usize },
}

impl Drive {
    pub fn read(input: &mut Input) -> Option<Self> {
        Some(match input.byte()? {
            0..128 => Self::Fully,
            byte => {
                let takes = [0, 1, 100, usize::MAX][usize::from(byte >> 4 & 3)];
                Self::Partly { polls: usize::from(byte & 15), takes }
            }
        })
    }

    pub fn is_full(self) -> bool {
        matches!(self, Self::Fully)
    }

    /// Runs the future. Returns `None` if the future did not complete.
    pub fn run<T>(self, script: &Script, future: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::Fully => wait(script, future),
            Self::Partly { polls, takes } => {
                script.takes(takes);
                let done = poll_times(script, polls, future);
                script.takes(usize::MAX);
                match done {
                    Poll::Ready(done) => Some(done),
                    Poll::Pending => None,
                }
            }
        }
    }
}
