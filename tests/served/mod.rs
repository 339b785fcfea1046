//! A server under test and its peers, over real sockets and in memory.

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

/// The limit of every wait in real time. Long, because a busy machine has to meet it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A timeout of a server that no test reaches in real time, because it is longer than [`PATIENCE`].
pub const NEVER: Duration = Duration::from_secs(600);

/// Asserts that `event` happens within [`PATIENCE`].
pub async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("nothing within the limit")
}

/// A server that serves one listener.
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
        self.stop.take().expect("asked once").send(()).unwrap();
    }

    /// Waits until it has stopped, which nobody asks it to.
    pub async fn stopped_by_itself(self) -> ServerCounters {
        self.served.await.unwrap()
    }

    /// Asks it to stop, if nobody has, and waits until it has.
    pub async fn stopped(mut self) -> ServerCounters {
        drop(self.stop.take());
        self.served.await.unwrap()
    }
}

/// The next line that a server sends, its terminator with it; less at the end of the stream.
pub async fn line(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && io.read(&mut byte).await.unwrap() > 0 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// All that a server sends, up to the end of the stream. A reset fails the test.
pub async fn rest(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.expect("no reset");
    String::from_utf8(rest).unwrap()
}

/// Its bytes in upper case: the handler of most tests.
pub fn upper(line: &[u8]) -> Vec<u8> {
    line.to_ascii_uppercase()
}
