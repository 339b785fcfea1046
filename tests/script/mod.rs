//! An in-memory stream whose peer follows a script, and whose calls can be disturbed.

#![allow(dead_code, unreachable_pub, unused_imports)]

mod run;
mod talk;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

pub use run::{Case, clock, pass, poll_times, run, run_in_time, wait};
pub use talk::{By, Halves, Line, Lines, MANY, Shut, answer, describe, talk};

/// A step of the peer. After its last step, the peer stays connected and silent.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Sends bytes. One read returns all of them if its buffer is large enough.
    Sends(&'static [u8]),
    /// Waits until the peer has received this many bytes in total.
    Awaits(usize),
    /// Completes [`Script::signalled`] and continues immediately.
    Signals,
    /// Ends the peer's output.
    Ends,
}

/// Like [`Does`], but owns its bytes.
#[derive(Debug)]
enum Step {
    Sends(Vec<u8>),
    Awaits(usize),
    Signals,
    Ends,
}

/// A fault in one call of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Transfers one byte.
    Short,
    /// Returns `Pending` once before the call completes.
    Pending,
    Interrupted,
    /// Fails with [`FAILURE`].
    Fails,
    /// A write takes no byte. Reads are not affected.
    TakesNothing,
}

impl Disturbance {
    pub const ALL: [Self; 5] =
        [Self::Short, Self::Pending, Self::Interrupted, Self::Fails, Self::TakesNothing];
}

pub const FAILURE: io::ErrorKind = io::ErrorKind::ConnectionReset;

/// A completed call. Calls that returned `Pending` are not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read(usize),
    Write(usize),
    Flush,
    Shutdown,
}

/// The stream and its control handle. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    peer: VecDeque<Step>,
    /// Bytes of the current step that were not read yet.
    sending: Vec<u8>,
    received: Vec<u8>,
    is_shut: bool,
    calls: Vec<Call>,
    /// The time of each completed write on Tokio's clock.
    written_at: Vec<Instant>,
    never_shuts: bool,
    /// If set, each call is pending once and then transfers one byte.
    drips: bool,
    /// The most bytes that one write takes.
    widest_write: usize,
    /// The number of bytes that the peer still takes.
    takes: usize,
    disturbed: Vec<(usize, Disturbance)>,
    disturbed_a_read: bool,
    positions: usize,
    reads: Gate,
    writes: Gate,
    signal: Arc<Notify>,
    /// The waker of a read that waits for the peer, and of a write that waits for the peer to take
    /// bytes.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The state of the calls in one direction.
#[derive(Debug)]
enum Gate {
    Open,
    /// A call waits until [`Script::go_on`].
    Shut(Waker, Option<Disturbance>),
    Reopened(Option<Disturbance>),
    /// A call has failed. Another call is an error of the caller.
    Failed,
}

impl Script {
    pub fn new(peer: &[Does]) -> Self {
        Self(Arc::new(Mutex::new(State {
            peer: peer.iter().copied().map(Step::from).collect(),
            sending: Vec::new(),
            received: Vec::new(),
            is_shut: false,
            calls: Vec::new(),
            written_at: Vec::new(),
            never_shuts: false,
            drips: false,
            widest_write: usize::MAX,
            takes: usize::MAX,
            disturbed: Vec::new(),
            disturbed_a_read: false,
            positions: 0,
            reads: Gate::Open,
            writes: Gate::Open,
            signal: Arc::default(),
            reader: None,
            writer: None,
        })))
    }

    /// Makes each call pending once and then transfer one byte.
    pub fn dripping(self) -> Self {
        self.state().drips = true;
        self
    }

    pub fn drips(&self) -> bool {
        self.state().drips
    }

    /// Ends the effect of [`Script::dripping`].
    pub fn flows(&self) {
        self.state().drips = false;
    }

    /// Limits each write to this many bytes.
    pub fn widest_write(self, bytes: usize) -> Self {
        self.state().widest_write = bytes;
        self
    }

    /// Makes a shutdown stay pending.
    pub fn never_shutting(self) -> Self {
        self.state().never_shuts = true;
        self
    }

    /// Disturbs the call at `position`, counted from 0 over all calls.
    pub fn disturbed(self, position: usize, how: Disturbance) -> Self {
        self.disturb(position, how);
        self
    }

    /// Like [`Script::disturbed`], by reference.
    pub fn disturb(&self, position: usize, how: Disturbance) {
        self.state().disturbed.push((position, how));
    }

    /// Makes the peer take this many more bytes.
    pub fn takes(&self, bytes: usize) {
        let mut state = self.state();
        state.takes = bytes;
        wake(&mut state.writer);
    }

    /// Appends a step.
    pub fn does(&self, does: Does) {
        self.goes_on(does.into());
    }

    /// Appends a step that sends bytes.
    pub fn sends(&self, bytes: Vec<u8>) {
        self.goes_on(Step::Sends(bytes));
    }

    fn goes_on(&self, step: Step) {
        let mut state = self.state();
        state.peer.push_back(step);
        wake(&mut state.reader);
    }

    /// Lets waiting calls continue. Returns `true` if there was one.
    pub fn go_on(&self) -> bool {
        let mut state = self.state();
        let State { reads, writes, .. } = &mut *state;
        reads.reopen() | writes.reopen()
    }

    /// Completes when the peer reaches [`Does::Signals`].
    pub fn signalled(&self) -> impl Future<Output = ()> + use<> {
        let signal = Arc::clone(&self.state().signal);
        async move { signal.notified().await }
    }

    pub fn received(&self) -> Vec<u8> {
        self.state().received.clone()
    }

    /// Returns `true` if all bytes of the peer were read, and EOF is next.
    pub fn is_read(&self) -> bool {
        let state = self.state();
        state.sending.is_empty() && matches!(state.peer.front(), Some(Step::Ends))
    }

    pub fn disturbed_a_read(&self) -> bool {
        self.state().disturbed_a_read
    }

    /// Returns `true` if a call has failed.
    pub fn has_failed(&self) -> bool {
        let state = self.state();
        [&state.reads, &state.writes].iter().any(|gate| matches!(gate, Gate::Failed))
    }

    pub fn is_shut(&self) -> bool {
        self.state().is_shut
    }

    /// Returns and clears the recorded calls.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// Returns the time of each write.
    pub fn written_at(&self) -> Vec<Instant> {
        self.state().written_at.clone()
    }

    /// Returns the number of calls so far, which are the positions that can be disturbed.
    pub fn positions(&self) -> usize {
        self.state().positions
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl From<Does> for Step {
    fn from(does: Does) -> Self {
        match does {
            Does::Sends(bytes) => Self::Sends(bytes.to_vec()),
            Does::Awaits(count) => Self::Awaits(count),
            Does::Signals => Self::Signals,
            Does::Ends => Self::Ends,
        }
    }
}

fn wake(waiting: &mut Option<Waker>) {
    waiting.take().into_iter().for_each(Waker::wake);
}

impl Gate {
    fn reopen(&mut self) -> bool {
        match std::mem::replace(self, Self::Open) {
            Self::Shut(waker, disturbance) => {
                *self = Self::Reopened(disturbance);
                waker.wake();
                true
            }
            gate => {
                *self = gate;
                false
            }
        }
    }
}

impl State {
    /// Returns the disturbance of this call, an injected error, or `Pending`.
    fn enter(
        &mut self,
        gate: fn(&mut Self) -> &mut Gate,
        cx: &Context<'_>,
    ) -> Poll<io::Result<Option<Disturbance>>> {
        let disturbance = match std::mem::replace(gate(self), Gate::Open) {
            Gate::Failed => panic!("called again after a failure"),
            Gate::Reopened(disturbance) => disturbance,
            Gate::Shut(_, disturbance) => {
                *gate(self) = Gate::Shut(cx.waker().clone(), disturbance);
                return Poll::Pending;
            }
            Gate::Open => {
                let position = self.positions;
                self.positions += 1;
                let disturbance = self.disturbance(position);
                if self.drips || disturbance == Some(Disturbance::Pending) {
                    *gate(self) = Gate::Shut(cx.waker().clone(), disturbance);
                    return Poll::Pending;
                }
                disturbance
            }
        };
        Poll::Ready(match disturbance {
            Some(Disturbance::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            Some(Disturbance::Fails) => {
                *gate(self) = Gate::Failed;
                Err(FAILURE.into())
            }
            disturbance => Ok(disturbance),
        })
    }

    fn disturbance(&self, position: usize) -> Option<Disturbance> {
        self.disturbed.iter().find(|(at, _)| *at == position).map(|(_, how)| *how)
    }

    fn widest(&self, disturbance: Option<Disturbance>) -> usize {
        match disturbance {
            Some(Disturbance::Short) => 1,
            _ if self.drips => 1,
            _ => usize::MAX,
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let disturbed = state.disturbance(state.positions).is_some();
        state.disturbed_a_read |= disturbed && matches!(state.reads, Gate::Open);
        let disturbance = match state.enter(|state| &mut state.reads, cx) {
            Poll::Ready(entered) => entered?,
            Poll::Pending => return Poll::Pending,
        };
        while state.sending.is_empty() {
            let state = &mut *state;
            match state.peer.front_mut() {
                Some(Step::Sends(bytes)) => state.sending = std::mem::take(bytes),
                Some(Step::Signals) => state.signal.notify_one(),
                Some(Step::Awaits(count)) if state.received.len() >= *count => {}
                Some(Step::Ends) => {
                    state.calls.push(Call::Read(0));
                    return Poll::Ready(Ok(()));
                }
                Some(Step::Awaits(_)) | None => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
            state.peer.pop_front();
        }
        let most = state.widest(disturbance).min(into.remaining()).min(state.sending.len());
        into.put_slice(&state.sending[..most]);
        state.sending.drain(..most);
        state.calls.push(Call::Read(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        assert!(!state.is_shut, "written after the end");
        if state.takes == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let disturbance = match state.enter(|state| &mut state.writes, cx) {
            Poll::Ready(entered) => entered?,
            Poll::Pending => return Poll::Pending,
        };
        if disturbance == Some(Disturbance::TakesNothing) {
            state.writes = Gate::Failed;
            return Poll::Ready(Ok(0));
        }
        let most = state.widest(disturbance).min(state.widest_write).min(state.takes).min(bytes.len());
        state.received.extend_from_slice(&bytes[..most]);
        state.takes = state.takes.saturating_sub(if state.takes == usize::MAX { 0 } else { most });
        state.calls.push(Call::Write(most));
        state.written_at.push(Instant::now());
        wake(&mut state.reader);
        Poll::Ready(Ok(most))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        match state.enter(|state| &mut state.writes, cx) {
            Poll::Ready(entered) => _ = entered?,
            Poll::Pending => return Poll::Pending,
        }
        state.calls.push(Call::Flush);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        match state.enter(|state| &mut state.writes, cx) {
            Poll::Ready(entered) => _ = entered?,
            Poll::Pending => return Poll::Pending,
        }
        if state.never_shuts {
            return Poll::Pending;
        }
        state.is_shut = true;
        state.calls.push(Call::Shutdown);
        Poll::Ready(Ok(()))
    }
}
