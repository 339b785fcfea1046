//! Runs a server for tests, over real sockets and in memory.

#![allow(dead_code, unused_imports, unreachable_pub)]

mod in_memory;
mod sockets;

use std::future::Future;
use std::io;
use std::time::Duration;

use lineframe::{Connection, Listener, Server, ServerBuilder, ServerCounters};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use in_memory::*;
pub use sockets::*;

/// The limit of every wait in real time. It is long, so that busy machines meet it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server timeout that no test reaches in real time, because it is longer than [`PATIENCE`].
pub const NEVER: Duration = Duration::from_secs(600);

/// Waits for `event` and fails after [`PATIENCE`].
pub async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("the event did not happen within PATIENCE")
}

/// A server that serves one listener in a task.
pub struct Running {
    pub server: Server,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<ServerCounters>,
}

impl Running {
    pub fn start<H, Fut>(builder: ServerBuilder, listener: impl Listener, handler: H) -> Self
    where
        H: FnOnce(Connection) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = io::Result<()>> + Send + 'static,
    {
        let server = builder.build();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(server.serve_with_shutdown(listener, handler, stopped));
        Self { server, stop: Some(stop), served }
    }

    pub fn ask_to_stop(&mut self) {
        self.stop.take().expect("asked to stop only once").send(()).unwrap();
    }

    /// Waits until the server has stopped, without asking it to.
    pub async fn stopped_by_itself(self) -> ServerCounters {
        self.served.await.unwrap()
    }

    /// Asks the server to stop, unless it was asked before, and waits for it.
    pub async fn stopped(mut self) -> ServerCounters {
        drop(self.stop.take());
        self.served.await.unwrap()
    }
}

/// Returns the next line from the server, with its terminator, or the rest at the end of the
/// stream.
pub async fn line(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && io.read(&mut byte).await.unwrap() > 0 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Returns everything that the server sends until it ends the stream. Fails on a reset.
pub async fn rest(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.expect("no reset");
    String::from_utf8(rest).unwrap()
}

/// Returns the line in upper case; the handler of most tests.
pub fn upper(line: &[u8]) -> Vec<u8> {
    line.to_ascii_uppercase()
}
