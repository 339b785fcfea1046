use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::vec::Vec;

use super::buffer::READ_SIZE;

/// Notifies all connections of a server that it is shutting down.
///
/// Every read checks the signal. The flag makes the check lock-free.
#[derive(Default)]
pub(crate) struct ShutdownSignal {
    is_on: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    /// Indices of unused entries in `wakers`.
    free: Vec<usize>,
}

impl ShutdownSignal {
    pub(crate) fn send(&self) {
        self.is_on.store(true, SeqCst);
        // A task that registers after this line sees the flag.
        let Waiting { wakers, .. } = std::mem::take(&mut *self.waiting());
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that completes when the server of a connection starts to shut down, returned by
/// [`Connection::draining`](crate::Connection::draining). Requires the feature `net`.
///
/// It does not borrow the connection. Outside a server, it never completes.
#[must_use = "futures do nothing unless polled"]
#[derive(Default)]
pub struct Draining {
    signal: Option<Arc<ShutdownSignal>>,
    /// The index of this future in `wakers`, and the waker stored there.
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
        // The signal may have been sent, and all tasks woken, before this lock was taken.
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
        // Dropped without the lock: dropping a waker may drop its task, and with it another
        // `Draining`.
        drop(former);
        *place = Some((at, waker));
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let (Some(signal), Some((at, _own))) = (&self.signal, self.place.take()) else { return };
        let mut waiting = signal.waiting();
        // The signal has emptied `wakers`.
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

/// Maximum number of bytes read after the shutdown signal. A system buffers far less, so all bytes
/// that had arrived are read. A peer that never stops sending cannot delay the end of the drain.
const MAX_DRAINED: u64 = 8 * 1024 * 1024;

/// A round ends after this many empty reads, if bytes arrived between them and the stream cannot
/// ask the system. Two empty reads in a row end the drain.
const MAX_EMPTY_READS: u8 = 8;

/// Progress of reading the bytes that arrived before a shutdown. A drain consists of rounds of at
/// most one full read. The lines of a round are answered before the next round.
#[derive(Debug)]
pub(super) struct DrainProgress {
    /// Maximum position in the stream, in bytes.
    end: u64,
    bytes_this_round: usize,
    /// Number of reads in this round that returned no bytes.
    empty_reads: u8,
    /// `true` if the last read returned no bytes. A second empty read in a row ends the drain.
    last_read_was_empty: bool,
}

impl DrainProgress {
    /// Starts a drain at `position`, the number of bytes read from the stream so far.
    pub(super) fn new(position: u64) -> Self {
        Self { end: position + MAX_DRAINED, bytes_this_round: 0, empty_reads: 0, last_read_was_empty: false }
    }

    /// Returns whether the drain may continue at this position of the stream.
    pub(super) fn goes_on(&self, position: u64) -> bool {
        position < self.end
    }

    /// Returns whether the round is over, so that its lines are answered. Starts the next round.
    pub(super) fn ends_round(&mut self) -> bool {
        let is_over = self.bytes_this_round >= READ_SIZE || self.empty_reads >= MAX_EMPTY_READS;
        if is_over {
            (self.bytes_this_round, self.empty_reads, self.last_read_was_empty) = (0, 0, false);
        }
        is_over
    }

    /// Returns whether the last read was empty and must be repeated. Until then no line is
    /// answered, because bytes that arrive meanwhile would be too late.
    pub(super) fn must_retry(&self) -> bool {
        self.last_read_was_empty
    }

    /// Records a read that returned bytes.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes_this_round += bytes;
        self.last_read_was_empty = false;
    }

    /// Records a read that returned no bytes. `is_certain` means that the system has confirmed it.
    /// Returns whether the drain is complete. If not, let other tasks run and read again: Tokio may
    /// not have polled the socket yet.
    pub(super) fn read_was_empty(&mut self, is_certain: bool) -> bool {
        let is_done = is_certain || self.last_read_was_empty;
        if !is_done {
            self.last_read_was_empty = true;
            self.empty_reads += 1;
        }
        is_done
    }
}
