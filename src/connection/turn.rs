//! When a task lets others have their turns: a thread polls one after the other, and none may keep it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

/// Pending where this task has done as much in this poll as [Tokio lets it](tokio::task::coop): its streams neither read nor write any
/// more. It is polled again.
pub(super) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(cx)
}

/// Pending. The task is polled again, once it is its turn.
pub(super) fn poll_later<T>(cx: &mut Context<'_>) -> Poll<T> {
    _ = pin!(tokio::task::yield_now()).poll(cx);
    Poll::Pending
}
