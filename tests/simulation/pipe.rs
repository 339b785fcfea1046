//! An in-memory stream between a peer and the server, with a limited capacity. Half-close and
//! resets behave as in TCP. The server's reads and writes may be short, interrupted or spuriously
//! pending.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Rng;

#[derive(Default)]
struct State {
    to_server: VecDeque<u8>,
    peer_is_done: bool,
    is_reset: bool,
    to_peer: VecDeque<u8>,
    capacity: usize,
    server_is_done: bool,
    server_is_gone: bool,
    /// The server closed with unread input, so output that the peer had not read is lost.
    was_reset_by_server: bool,
    /// The number of bytes that the server has sent.
    sent: usize,
    server: [Option<Waker>; 2],
    peer: Option<Waker>,
    /// Generates short and spurious results; `None` disables them.
    flaws: Option<Rng>,
    was_spurious: bool,
}

impl State {
    fn wake_server(&mut self) {
        self.server.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    fn wake_peer(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.wake();
        }
    }

    /// Returns how many of `most` bytes a read or write may transfer now.
    fn allowed(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(rng) = &mut self.flaws else { return Poll::Ready(Ok(most)) };
        let was_spurious = std::mem::replace(&mut self.was_spurious, true);
        match rng.below(12) {
            0 if !was_spurious => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            1 if !was_spurious => return Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
            _ => {}
        }
        self.was_spurious = false;
        let allowed = match rng.below(3) {
            0 => 1,
            1 => 1 + rng.below(16) as usize,
            _ => most,
        };
        Poll::Ready(Ok(allowed.min(most)))
    }
}

/// The peer's end. Dropping it does nothing; it resets the stream only on request.
#[derive(Clone)]
pub struct PeerEnd(Arc<Mutex<State>>);

/// The server's end.
pub struct ServerEnd(Arc<Mutex<State>>);

/// How a stream ended for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// After a FIN.
    Eof,
    /// Closed without a FIN.
    Closed,
    Reset,
}

pub fn pipe(capacity: usize, flaws: Option<Rng>) -> (PeerEnd, ServerEnd) {
    let state = Arc::new(Mutex::new(State { capacity, flaws, ..State::default() }));
    (PeerEnd(Arc::clone(&state)), ServerEnd(state))
}

impl PeerEnd {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn send(&self, bytes: &[u8]) {
        let mut state = self.state();
        if !state.server_is_gone {
            state.to_server.extend(bytes);
            state.wake_server();
        }
    }

    pub fn half_close(&self) {
        let mut state = self.state();
        state.peer_is_done = true;
        state.wake_server();
    }

    pub fn reset(&self) {
        let mut state = self.state();
        state.is_reset = true;
        state.to_server.clear();
        state.to_peer.clear();
        state.wake_server();
        state.wake_peer();
    }

    /// Returns up to `most` bytes, or `Pending` if none are available.
    pub fn poll_receive(&self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, StreamEnd>> {
        let mut state = self.state();
        if state.is_reset || state.was_reset_by_server {
            return Poll::Ready(Err(StreamEnd::Reset));
        }
        let count = most.min(state.to_peer.len());
        if count > 0 {
            let received = state.to_peer.drain(..count).collect();
            state.wake_server();
            return Poll::Ready(Ok(received));
        }
        match (state.server_is_done, state.server_is_gone) {
            (true, _) => Poll::Ready(Err(StreamEnd::Eof)),
            (false, true) => Poll::Ready(Err(StreamEnd::Closed)),
            (false, false) => {
                state.peer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub fn sent_by_server(&self) -> usize {
        self.state().sent
    }

    pub fn server_is_gone(&self) -> bool {
        self.state().server_is_gone
    }
}

impl AsyncRead for ServerEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        if state.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = buf.remaining().min(state.to_server.len());
        if most == 0 && !state.peer_is_done {
            state.server[0] = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = std::task::ready!(state.allowed(most, cx))?;
        state.to_server.drain(..count).for_each(|byte| buf.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        if state.is_reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        assert!(!state.server_is_done, "written after the end");
        let most = bytes.len().min(state.capacity - state.to_peer.len());
        if most == 0 {
            state.server[1] = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = std::task::ready!(state.allowed(most, cx))?;
        state.to_peer.extend(&bytes[..count]);
        state.sent += count;
        state.wake_peer();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        if state.is_reset {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        state.server_is_done = true;
        state.wake_peer();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap();
        state.server_is_gone = true;
        if !state.to_server.is_empty() {
            state.was_reset_by_server = true;
            state.to_peer.clear();
        }
        state.wake_peer();
    }
}
