//! Where the connections of a server come back to when they are dropped.

use std::boxed::Box;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::vec::Vec;

use tokio::task::AbortHandle;

use super::draining::{Drain, Draining};
use super::inner::Inner;

/// The sessions of a server, one a seat. A seat costs less than a task's handle and a channel for the connection.
pub(crate) struct Seats<Io> {
    plan: Mutex<Plan<Io>>,
    drain: Arc<Drain>,
}

struct Plan<Io> {
    seats: Vec<Taken<Io>>,
    /// Those of them that nobody has.
    free: Vec<u32>,
    sessions: usize,
    /// Who waits for the last session to end.
    waiting: Option<Waker>,
}

struct Taken<Io> {
    /// `None` where the session has ended, or has no task of its own.
    task: Option<AbortHandle>,
    whereabouts: Whereabouts<Io>,
}

/// Where a session's connection is.
pub(crate) enum Whereabouts<Io> {
    /// Not made yet, taken by the session, or taken apart: then it is its handler's for good.
    Nowhere,
    /// With its handler, or whom that has handed it to. Who waits for it is told.
    Out(Option<Box<Waker>>),
    Home(Box<Inner<Io>>),
    /// Out, and its session has ended.
    Forsaken,
    /// Nobody has the seat.
    Free,
}

/// A session's seat, until it is dropped.
pub(crate) struct Seat<Io> {
    seats: Arc<Seats<Io>>,
    at: u32,
}

/// A connection's way home.
pub(crate) struct Home<Io> {
    seats: Arc<Seats<Io>>,
    /// `None`: it has been taken.
    at: Option<u32>,
}

impl<Io> Default for Seats<Io> {
    fn default() -> Self {
        let plan = Plan { seats: Vec::new(), free: Vec::new(), sessions: 0, waiting: None };
        Self { plan: Mutex::new(plan), drain: Arc::default() }
    }
}

impl<Io> Seats<Io> {
    pub(crate) fn take(self: &Arc<Self>) -> Seat<Io> {
        let mut plan = self.plan();
        plan.sessions += 1;
        let taken = Taken { task: None, whereabouts: Whereabouts::Nowhere };
        let at = match plan.free.pop() {
            Some(at) => {
                plan.seats[at as usize] = taken;
                at
            }
            None => {
                plan.seats.push(taken);
                (plan.seats.len() - 1) as u32
            }
        };
        Seat { seats: Arc::clone(self), at }
    }

    /// The session of the seat that was taken last is this task. It may have ended already.
    pub(crate) fn runs(&self, at: u32, task: AbortHandle) {
        let taken = &mut self.plan().seats[at as usize];
        if !matches!(taken.whereabouts, Whereabouts::Free | Whereabouts::Forsaken) {
            taken.task = Some(task);
        }
    }

    /// Tells all connections that the server is asked to stop.
    pub(crate) fn drain(&self) {
        self.drain.begin();
    }

    pub(crate) fn abort_all(&self) {
        let tasks: Vec<_> = self.plan().seats.iter_mut().filter_map(|taken| taken.task.take()).collect();
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// Done when no session is left.
    pub(crate) async fn all_left(&self) {
        poll_fn(|cx| {
            let mut plan = self.plan();
            match plan.sessions {
                0 => Poll::Ready(()),
                _ => {
                    let former = plan.waiting.replace(cx.waker().clone());
                    drop((plan, former));
                    Poll::Pending
                }
            }
        })
        .await;
    }

    fn plan(&self) -> MutexGuard<'_, Plan<Io>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Io> Plan<Io> {
    fn whereabouts(&mut self, at: u32) -> &mut Whereabouts<Io> {
        &mut self.seats[at as usize].whereabouts
    }

    fn free(&mut self, at: u32) {
        *self.whereabouts(at) = Whereabouts::Free;
        self.free.push(at);
    }
}

impl<Io> Seat<Io> {
    pub(crate) fn at(&self) -> u32 {
        self.at
    }

    pub(crate) fn draining(&self) -> Draining {
        Draining::new(Arc::clone(&self.seats.drain))
    }

    /// The way home for the connection, which is about to go out.
    pub(crate) fn home(&self) -> Home<Io> {
        *self.seats.plan().whereabouts(self.at) = Whereabouts::Out(None);
        Home { seats: Arc::clone(&self.seats), at: Some(self.at) }
    }

    /// The connection, once it is dropped by whoever has it. `None` where there is none any more.
    pub(crate) fn poll_home(&self, cx: &mut Context<'_>) -> Poll<Option<Box<Inner<Io>>>> {
        let mut plan = self.seats.plan();
        let whereabouts = plan.whereabouts(self.at);
        match whereabouts {
            Whereabouts::Out(waiting) => {
                let former = waiting.replace(Box::new(cx.waker().clone()));
                drop((plan, former));
                Poll::Pending
            }
            _ => match core::mem::replace(whereabouts, Whereabouts::Nowhere) {
                Whereabouts::Home(connection) => Poll::Ready(Some(connection)),
                _ => Poll::Ready(None),
            },
        }
    }

    /// Where the connection is, whose session does not wait for it any longer.
    pub(crate) fn forsake(&self) -> Whereabouts<Io> {
        let mut plan = self.seats.plan();
        let whereabouts = plan.whereabouts(self.at);
        let left = match whereabouts {
            Whereabouts::Out(_) | Whereabouts::Forsaken => Whereabouts::Forsaken,
            _ => Whereabouts::Nowhere,
        };
        core::mem::replace(whereabouts, left)
    }
}

impl<Io> Drop for Seat<Io> {
    fn drop(&mut self) {
        let last = self.forsake();
        let mut plan = self.seats.plan();
        let task = plan.seats[self.at as usize].task.take();
        if !matches!(plan.whereabouts(self.at), Whereabouts::Forsaken) {
            plan.free(self.at);
        }
        plan.sessions -= 1;
        let waiting = if plan.sessions == 0 { plan.waiting.take() } else { None };
        drop(plan);
        // These may hold others of their kind: dropped without the lock.
        drop((last, task));
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl<Io> Home<Io> {
    /// Gives the connection back where nobody waits for it any longer.
    pub(super) fn send(mut self, connection: Box<Inner<Io>>) -> Result<(), Box<Inner<Io>>> {
        match self.arrive(Whereabouts::Home(connection)) {
            Some(Whereabouts::Home(connection)) => Err(connection),
            _ => Ok(()),
        }
    }

    /// Tells the session `how` its connection has come home; gives that back where there is no session any more.
    fn arrive(&mut self, how: Whereabouts<Io>) -> Option<Whereabouts<Io>> {
        let at = self.at.take()?;
        let mut plan = self.seats.plan();
        let whereabouts = plan.whereabouts(at);
        if let Whereabouts::Forsaken = whereabouts {
            plan.free(at);
            return Some(how);
        }
        let before = core::mem::replace(whereabouts, how);
        drop(plan);
        if let Whereabouts::Out(Some(waiting)) = before {
            waiting.wake();
        }
        None
    }
}

impl<Io> Drop for Home<Io> {
    fn drop(&mut self) {
        self.arrive(Whereabouts::Nowhere);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::LineCodec;
    use crate::connection::{AnyIo, Connection};

    fn connection() -> Box<Inner<AnyIo>> {
        Connection::with_codec(tokio::io::empty(), LineCodec::new()).into_inner()
    }

    #[test]
    fn a_seat_is_free_when_neither_its_session_nor_its_connection_is_left() {
        let seats = Arc::new(Seats::default());
        let (first, second) = (seats.take(), seats.take());
        let (late, home) = (first.home(), second.home());
        // Told before, when the session asks where the connection is.
        assert!(matches!(first.forsake(), Whereabouts::Out(_)));
        drop((first, second));
        assert_eq!(seats.plan().sessions, 0);
        assert_eq!(seats.take().at(), 2, "both connections are out");
        assert!(late.send(connection()).is_err(), "nobody waits for it");
        assert_eq!(seats.take().at(), 0);
        drop(home);
        assert_eq!(seats.take().at(), 1);
    }

    #[test]
    fn a_connection_that_comes_home_is_there_once() {
        let seats = Arc::new(Seats::default());
        let seat = seats.take();
        assert!(seat.home().send(connection()).is_ok());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(seat.poll_home(&mut cx), Poll::Ready(Some(_))));
        assert!(matches!(seat.poll_home(&mut cx), Poll::Ready(None)));
        let taken_apart = seat.home();
        assert!(seat.poll_home(&mut cx).is_pending());
        drop(taken_apart);
        assert!(matches!(seat.poll_home(&mut cx), Poll::Ready(None)));
    }
}
