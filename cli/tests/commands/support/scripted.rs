use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use tempfile::TempDir;

use super::{Client, PATIENCE};

/// A server that runs a script for its only client.
pub(crate) struct Scripted<T> {
    pub(crate) address: String,
    result: Receiver<T>,
    _directory: Option<TempDir>,
}

impl<T: Send + 'static> Scripted<T> {
    pub(crate) fn tcp(script: impl FnOnce(Client) -> T + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accept = move || Client::new(listener.accept().unwrap().0);
        Self { address, result: play(accept, script), _directory: None }
    }

    pub(crate) fn unix(script: impl FnOnce(Client) -> T + Send + 'static) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("scripted.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let accept = move || Client::new(listener.accept().unwrap().0);
        let address = path.to_str().unwrap().to_owned();
        Self { address, result: play(accept, script), _directory: Some(directory) }
    }

    /// Waits for the script and returns its result. A script can return its client to keep it
    /// connected until this call.
    pub(crate) fn result(self) -> T {
        self.result.recv_timeout(PATIENCE).expect("the script should end")
    }
}

fn play<T: Send + 'static>(
    accept: impl FnOnce() -> Client + Send + 'static,
    script: impl FnOnce(Client) -> T + Send + 'static,
) -> Receiver<T> {
    let (send, result) = channel();
    thread::spawn(move || send.send(script(accept())));
    result
}
