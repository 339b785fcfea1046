use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The `Stream` or the `Sink` of a connection.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Stream,
    Sink,
}

/// The tasks that use a connection as a `Stream` and as a `Sink`, such as the two tasks of
/// `StreamExt::split`. `None` if no task uses the connection as either.
///
/// The `Stream` and the `Sink` both read and write, but the underlying stream stores only one waker
/// per direction. It therefore receives a waker that wakes shared tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks(Option<Arc<Wakers>>);

#[derive(Debug, Default)]
struct Wakers(Mutex<[Option<Waker>; 2]>);

impl Tasks {
    /// Returns the waker for a poll of `side`. Returns `None` if no other task uses the connection.
    pub(super) fn waker(&mut self, side: Side, cx: &Context<'_>) -> Option<Waker> {
        let shared = self.0.get_or_insert_default();
        let mut wakers = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [own, other] = match side {
            Side::Stream => [0, 1],
            Side::Sink => [1, 0],
        };
        if !wakers[own].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            wakers[own] = Some(cx.waker().clone());
        }
        let is_shared = wakers[other].as_ref().is_some_and(|waker| !waker.will_wake(cx.waker()));
        is_shared.then(|| Arc::clone(shared).into())
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
