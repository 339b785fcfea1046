use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::vec::Vec;

use super::buffer::READ_SIZE;

/// Tells all connections of a server that it has been asked to stop.
///
/// Every read checks it, hence the flag: a check takes no lock.
#[derive(Default)]
pub(crate) struct ShutdownSignal {
    is_on: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    /// Places in `wakers` that are unused.
    free: Vec<usize>,
}

impl ShutdownSignal {
    pub(crate) fn send(&self) {
        self.is_on.store(true, SeqCst);
        // A task that registers later sees the flag.
        let Waiting { wakers, .. } = std::mem::take(&mut *self.waiting());
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Completes when the connection's server is asked to stop:
/// [`Connection::draining`](crate::Connection::draining). Outside a server it never completes.
///
/// It does not borrow the connection.
#[must_use = "futures do nothing unless polled"]
#[derive(Default)]
pub struct Draining {
    signal: Option<Arc<ShutdownSignal>>,
    /// Its place among the waiting tasks, and the waker that is there.
    place: Option<(usize, Waker)>,
}

impl Draining {
    pub(crate) fn new(signal: Arc<ShutdownSignal>) -> Self {
        Self { signal: Some(signal), place: None }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.signal.as_ref().is_some_and(|signal| signal.is_on.load(SeqCst))
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { signal: Some(signal), place } = &mut *self else { return Poll::Pending };
        if signal.is_on.load(SeqCst) {
            return Poll::Ready(());
        }
        if place.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let waker = cx.waker().clone();
        let mut waiting = signal.waiting();
        // It may have been sent before the lock was taken, and woken everybody already.
        if signal.is_on.load(SeqCst) {
            return Poll::Ready(());
        }
        let Waiting { wakers, free } = &mut *waiting;
        let at = place.as_ref().map(|(at, _)| *at).or_else(|| free.pop()).unwrap_or_else(|| {
            wakers.push(None);
            wakers.len() - 1
        });
        let former = wakers[at].replace(waker.clone());
        drop(waiting);
        // Dropping a waker may drop its task, and with that another of these: not under the lock.
        drop(former);
        *place = Some((at, waker));
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let (Some(signal), Some((at, _own))) = (&self.signal, self.place.take()) else { return };
        let mut waiting = signal.waiting();
        // After the signal there are no places any more.
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
        Self { signal: self.signal.clone(), place: None }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining").field("is_draining", &self.is_draining()).finish_non_exhaustive()
    }
}

/// At most this many bytes are read after the shutdown signal: far more than a system buffers, so
/// everything that had arrived is read, and a peer that never stops sending cannot delay the end.
const MAX_DRAINED: u64 = 8 * 1024 * 1024;

/// A round ends after this many looks at a stream that cannot ask the system have found nothing, if
/// bytes arrived between them. Two such looks in a row end the drain.
const MAX_LOOKS: u8 = 8;

/// How far the reading of what arrived before a shutdown has come. It goes in rounds, each of at
/// most one full read, and what a round has found is answered before the next.
#[derive(Debug)]
pub(super) struct DrainProgress {
    /// Position in the stream up to which it reads at most.
    end: u64,
    bytes_this_round: usize,
    /// How often this round has looked for bytes and found none.
    looks: u8,
    /// A second one in a row ends the drain.
    last_look_was_empty: bool,
}

impl DrainProgress {
    /// `position`: bytes of the stream read so far.
    pub(super) fn new(position: u64) -> Self {
        Self { end: position + MAX_DRAINED, bytes_this_round: 0, looks: 0, last_look_was_empty: false }
    }

    /// Whether it may read on at this position of the stream.
    pub(super) fn goes_on(&self, position: u64) -> bool {
        position < self.end
    }

    /// Whether the round is over and its bytes are to be answered. Starts the next round.
    pub(super) fn ends_round(&mut self) -> bool {
        let is_over = self.bytes_this_round >= READ_SIZE || self.looks >= MAX_LOOKS;
        if is_over {
            (self.bytes_this_round, self.looks, self.last_look_was_empty) = (0, 0, false);
        }
        is_over
    }

    /// Whether the last look was empty and has to be repeated. No line is answered before: bytes
    /// that arrive meanwhile would be too late.
    pub(super) fn must_look_again(&self) -> bool {
        self.last_look_was_empty
    }

    /// A look has found bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes_this_round += bytes;
        self.last_look_was_empty = false;
    }

    /// A look has found nothing. `is_certain`: the system has confirmed it. Returns whether nothing
    /// more had arrived. If not, let other tasks run and look again: it may only not have been this
    /// task's turn.
    pub(super) fn look_was_empty(&mut self, is_certain: bool) -> bool {
        let is_done = is_certain || self.last_look_was_empty;
        if !is_done {
            self.last_look_was_empty = true;
            self.looks += 1;
        }
        is_done
    }
}
