//! Runs futures over scripts without a runtime, so that no time passes.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::runtime::{Handle, Runtime};
use tokio::time::sleep;

use super::Script;

/// Returns a runtime with a paused clock. Code inside `clock().enter()` sees no time pass.
pub fn clock() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Advances the clock that was entered.
pub fn pass(time: Duration) {
    Handle::current().block_on(tokio::time::advance(time));
}

/// Prints its text if the test fails while the value is alive.
pub struct Case(pub String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Runs a future to completion. The script continues only when the future waits, and the future is
/// polled again only after it was woken. A future that forgets to register its waker fails here.
pub fn run<T>(script: &Script, future: impl Future<Output = T>) -> T {
    wait(script, future).expect("the future waits forever")
}

/// Like [`run`], but returns `None` if the future waits for something that the script does not do.
pub fn wait<T>(script: &Script, future: impl Future<Output = T>) -> Option<T> {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return Some(done);
        }
        while !flag.0.swap(false, Relaxed) {
            if !script.go_on() {
                return None;
            }
        }
    }
}

/// Runs a future on a clock that advances when everything waits. The script continues every
/// millisecond. Fails after a minute.
pub fn run_in_time<T>(clock: &Runtime, script: &Script, future: impl Future<Output = T>) -> T {
    clock.block_on(async {
        let going_on = async {
            for _ in 0..60_000 {
                sleep(Duration::from_millis(1)).await;
                script.go_on();
            }
        };
        match select(pin!(future), pin!(going_on)).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => panic!("the future did not complete within a minute"),
        }
    })
}

/// Polls a future up to `times` times while the script continues, then drops it.
pub fn poll_times<T>(script: &Script, times: usize, future: impl Future<Output = T>) -> Poll<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(done) = poll_once(future.as_mut()) {
            return Poll::Ready(done);
        }
        script.go_on();
    }
    Poll::Pending
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
