use std::boxed::Box;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline counted from when something began. The timer is made when it is first waited for and kept for the next
/// time.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// What it is about has begun at `since`, or begins when it is waited for.
    pub(super) fn start(&mut self, since: Option<Instant>) {
        self.since = since;
    }

    /// Ready `after` it began, or has begun now where nobody said when. Never ready where `after` is `None`. To be asked
    /// only when there is nothing else to do but wait: who is late but has come is not late.
    pub(super) fn poll(&mut self, after: Option<Duration>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(after) = after else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        let Some(at) = since.checked_add(after) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}
