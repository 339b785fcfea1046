use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// A side of a connection that is used as a `Stream` and as a `Sink`.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Stream,
    Sink,
}

/// The tasks that use a connection as a `Stream` and as a `Sink`, such as the two of
/// `StreamExt::split`. Both sides read and write, and a stream keeps one waker for each direction:
/// it gets one that wakes both tasks.
///
/// `None`: it is not used as either.
#[derive(Debug, Default)]
pub(super) struct Tasks(Option<Arc<Both>>);

#[derive(Debug, Default)]
struct Both(Mutex<[Option<Waker>; 2]>);

impl Tasks {
    /// The waker for a poll of `side`; `None` if that of `cx` is the only one.
    pub(super) fn waker(&mut self, side: Side, cx: &Context<'_>) -> Option<Waker> {
        let both = self.0.get_or_insert_default();
        let mut wakers = both.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [own, other] = match side {
            Side::Stream => [0, 1],
            Side::Sink => [1, 0],
        };
        if !wakers[own].as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            wakers[own] = Some(cx.waker().clone());
        }
        let is_shared = wakers[other].as_ref().is_some_and(|waker| !waker.will_wake(cx.waker()));
        is_shared.then(|| Arc::clone(both).into())
    }
}

impl Wake for Both {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
