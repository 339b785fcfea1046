use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::vec::Vec;

/// Tells the connections of a server that it is asked to stop.
///
/// Each of them asks at each of its reads: that takes one look and no lock, where a general signal of many waiters takes one.
#[derive(Default)]
pub(crate) struct Drain {
    is_on: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    /// The places among them that nobody has.
    free: Vec<usize>,
}

impl Drain {
    #[cfg(feature = "server")]
    pub(crate) fn begin(&self) {
        self.is_on.store(true, SeqCst);
        // Who comes later sees that it is on.
        let Waiting { wakers, .. } = std::mem::take(&mut *self.waiting());
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Done when the server that the connection belongs to is asked to stop; never, where it belongs to none:
/// [`Connection::draining`](crate::Connection::draining).
///
/// It is independent of the connection, which stays free for other things.
#[must_use = "futures do nothing unless polled"]
#[derive(Default)]
pub struct Draining {
    drain: Option<Arc<Drain>>,
    /// Its place among those that wait, and whom it wakes there.
    place: Option<(usize, Waker)>,
}

impl Draining {
    #[cfg(feature = "server")]
    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        Self { drain: Some(drain), place: None }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.is_on.load(SeqCst))
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { drain: Some(drain), place } = &mut *self else { return Poll::Pending };
        if drain.is_on.load(SeqCst) {
            return Poll::Ready(());
        }
        if place.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let mut waiting = drain.waiting();
        // It may have begun before the lock was had, and then has woken all that it will.
        if drain.is_on.load(SeqCst) {
            return Poll::Ready(());
        }
        let Waiting { wakers, free } = &mut *waiting;
        let at = place.as_ref().map(|(at, _)| *at).or_else(|| free.pop()).unwrap_or_else(|| {
            wakers.push(None);
            wakers.len() - 1
        });
        let former = wakers[at].replace(waker.clone());
        drop(waiting);
        // A waker may be all that holds a task, and that may hold another of these: dropped without the lock.
        drop(former);
        *place = Some((at, waker));
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let (Some(drain), Some((at, _own))) = (&self.drain, self.place.take()) else { return };
        let mut waiting = drain.waiting();
        // Once it has begun, there are no places any more.
        let waker = waiting.wakers.get_mut(at).map(Option::take);
        if waker.is_some() {
            waiting.free.push(at);
        }
        drop(waiting);
        drop(waker);
    }
}

impl Clone for Draining {
    fn clone(&self) -> Self {
        Self { drain: self.drain.clone(), place: None }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("is_draining", &self.is_draining()).finish_non_exhaustive()
    }
}
