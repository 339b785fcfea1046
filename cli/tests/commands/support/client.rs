use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::PATIENCE;

/// One end of a TCP or Unix connection, with timeouts on all reads and writes.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    pub(crate) fn tcp(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        // Without this, the system may hold back a line until earlier ones are acknowledged.
        socket.set_nodelay(true).unwrap();
        Self::new(socket)
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    /// Accepts a TCP or Unix socket: the calls made here work on both through `UnixStream`.
    pub(crate) fn new(socket: impl Into<OwnedFd>) -> Self {
        let socket = UnixStream::from(socket.into());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(socket))
    }

    /// Returns the local port of a TCP connection.
    pub(crate) fn port(&self) -> u16 {
        let socket = OwnedFd::from(self.0.get_ref().try_clone().unwrap());
        TcpStream::from(socket).local_addr().unwrap().port()
    }

    /// Writes `bytes`. Returns `false` if the connection no longer accepts them.
    pub(crate) fn try_write(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.get_ref().write_all(bytes.as_ref()).is_ok()
    }

    /// Returns the socket. Panics if received bytes are still buffered.
    pub(crate) fn into_inner(self) -> UnixStream {
        assert!(self.0.buffer().is_empty());
        self.0.into_inner()
    }

    pub(crate) fn write(&self, bytes: impl AsRef<[u8]>) {
        self.0.get_ref().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes `bytes` from another thread.
    pub(crate) fn feed(&self, bytes: impl Into<Vec<u8>>) -> JoinHandle<()> {
        let (mut socket, bytes) = (self.0.get_ref().try_clone().unwrap(), bytes.into());
        // Errors are ignored: if the peer does not receive everything, its replies show that.
        thread::spawn(move || _ = socket.write_all(&bytes))
    }

    /// Writes `bytes` from another thread, then half-closes.
    pub(crate) fn feed_all(&self, bytes: impl Into<Vec<u8>>) {
        let (socket, fed) = (self.0.get_ref().try_clone().unwrap(), self.feed(bytes));
        thread::spawn(move || fed.join().map(|()| socket.shutdown(Shutdown::Write)));
    }

    /// Half-closes the connection: the peer reads EOF.
    pub(crate) fn finish(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Returns the next line with its LF. At the end of the stream, returns the rest, which may be
    /// empty.
    pub(crate) fn line(&mut self) -> Bytes {
        let mut line = Vec::new();
        let read = self.0.read_until(b'\n', &mut line);
        assert!(read.is_ok(), "{read:?}, so far: {}", line.escape_ascii());
        line.into()
    }

    /// Waits for the end of the stream, or a reset.
    pub(crate) fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                panic!("{error}, {}", rest.escape_ascii())
            }
            _ => {}
        }
    }

    pub(crate) fn lines(&mut self, count: usize) -> Vec<Bytes> {
        (0..count).map(|_| self.line()).collect()
    }

    /// Returns everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> Bytes {
        let mut rest = Vec::new();
        let read = self.0.read_to_end(&mut rest);
        assert!(read.is_ok(), "{read:?}, so far: {}", rest.escape_ascii());
        rest.into()
    }

    /// Returns the bytes of the next read, or none at the end of the stream.
    pub(crate) fn chunk(&mut self) -> Bytes {
        let chunk = Bytes::copy_from_slice(self.0.fill_buf().unwrap());
        self.0.consume(chunk.len());
        chunk
    }
}
