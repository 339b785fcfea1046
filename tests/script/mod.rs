//! A stream in memory whose other end follows a script, and whose every call can be disturbed.

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

/// What the peer does, in order. After the last of it, it stays silent.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Sends bytes: those of one read, if it has room for them.
    Sends(&'static [u8]),
    /// Waits until it has received so many bytes in total.
    Awaits(usize),
    /// Goes on at once, and [`Script::signalled`] is done.
    Signals,
    /// Sends the end of the stream.
    Ends,
}

/// The same with bytes of its own.
#[derive(Debug)]
enum Step {
    Sends(Vec<u8>),
    Awaits(usize),
    Signals,
    Ends,
}

/// What happens to one call of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// One byte goes through.
    Short,
    /// It waits, and goes through later.
    Pending,
    Interrupted,
    /// It fails with [`FAILURE`]; a write may also take no byte.
    Fails,
    TakesNothing,
}

impl Disturbance {
    pub const ALL: [Self; 5] =
        [Self::Short, Self::Pending, Self::Interrupted, Self::Fails, Self::TakesNothing];
}

pub const FAILURE: io::ErrorKind = io::ErrorKind::ConnectionReset;

/// What the stream was asked for and did. A call that has to wait is none until it goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read(usize),
    Write(usize),
    Flush,
    Shutdown,
}

/// The stream, and a handle on it: clones are the same.
#[derive(Clone, Debug)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    peer: VecDeque<Step>,
    /// What is left of the bytes being sent.
    sending: Vec<u8>,
    received: Vec<u8>,
    is_shut: bool,
    calls: Vec<Call>,
    /// When each write went through, by tokio's clock.
    written_at: Vec<Instant>,
    never_shuts: bool,
    /// Every call waits once, and one byte goes through.
    drips: bool,
    /// So many bytes go through a write.
    widest_write: usize,
    /// So many more bytes the peer takes.
    takes: usize,
    disturbed: Vec<(usize, Disturbance)>,
    disturbed_a_read: bool,
    positions: usize,
    reads: Gate,
    writes: Gate,
    signal: Arc<Notify>,
    /// A reader waits for the peer, a writer for room at the peer's.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Where the calls of one direction go through.
#[derive(Debug)]
enum Gate {
    Open,
    /// A call is held up until [`Script::go_on`].
    Shut(Waker, Option<Disturbance>),
    Reopened(Option<Disturbance>),
    /// A call has failed, and there may be no further one.
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

    /// Every call waits once, and one byte goes through it.
    pub fn dripping(self) -> Self {
        self.state().drips = true;
        self
    }

    pub fn drips(&self) -> bool {
        self.state().drips
    }

    /// From now on calls go through as they are.
    pub fn flows(&self) {
        self.state().drips = false;
    }

    /// At most so many bytes go through a write.
    pub fn widest_write(self, bytes: usize) -> Self {
        self.state().widest_write = bytes;
        self
    }

    /// A shutdown never comes to its end.
    pub fn never_shutting(self) -> Self {
        self.state().never_shuts = true;
        self
    }

    /// The call at `position`, counted from 0 over all calls, is disturbed.
    pub fn disturbed(self, position: usize, how: Disturbance) -> Self {
        self.disturb(position, how);
        self
    }

    /// The same for one call more.
    pub fn disturb(&self, position: usize, how: Disturbance) {
        self.state().disturbed.push((position, how));
    }

    /// The peer takes so many bytes from now on.
    pub fn takes(&self, bytes: usize) {
        let mut state = self.state();
        state.takes = bytes;
        wake(&mut state.writer);
    }

    /// The peer goes on.
    pub fn does(&self, does: Does) {
        self.goes_on(does.into());
    }

    /// The peer sends bytes.
    pub fn sends(&self, bytes: Vec<u8>) {
        self.goes_on(Step::Sends(bytes));
    }

    fn goes_on(&self, step: Step) {
        let mut state = self.state();
        state.peer.push_back(step);
        wake(&mut state.reader);
    }

    /// Lets the calls through that were held up. Whether there was one.
    pub fn go_on(&self) -> bool {
        let mut state = self.state();
        let State { reads, writes, .. } = &mut *state;
        reads.reopen() | writes.reopen()
    }

    /// Done when the peer has come to where it [signals](Does::Signals).
    pub fn signalled(&self) -> impl Future<Output = ()> + use<> {
        let signal = Arc::clone(&self.state().signal);
        async move { signal.notified().await }
    }

    pub fn received(&self) -> Vec<u8> {
        self.state().received.clone()
    }

    /// Whether the peer has sent all, and its end.
    pub fn is_read(&self) -> bool {
        let state = self.state();
        state.sending.is_empty() && matches!(state.peer.front(), Some(Step::Ends))
    }

    pub fn disturbed_a_read(&self) -> bool {
        self.state().disturbed_a_read
    }

    /// A call has failed.
    pub fn has_failed(&self) -> bool {
        let state = self.state();
        [&state.reads, &state.writes].iter().any(|gate| matches!(gate, Gate::Failed))
    }

    pub fn is_shut(&self) -> bool {
        self.state().is_shut
    }

    /// The calls so far, and none of them from now on.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// When each write went through.
    pub fn written_at(&self) -> Vec<Instant> {
        self.state().written_at.clone()
    }

    /// How many calls there were to disturb.
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
    /// What is to happen to this call, unless it has to wait.
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
        assert!(!state.is_shut, "written behind the end");
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
