use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::PATIENCE;

/// One end of a connection.
pub(crate) struct Client(BufReader<UnixStream>);

impl Client {
    pub(crate) fn tcp(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        // What is written is on its way, and not kept back until more is.
        socket.set_nodelay(true).unwrap();
        Self::new(socket)
    }

    pub(crate) fn unix(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    /// Of either kind: what is done with it here, `UnixStream` does with any socket.
    pub(crate) fn new(socket: impl Into<OwnedFd>) -> Self {
        let socket = UnixStream::from(socket.into());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(socket))
    }

    /// The port that it comes from, where it is a TCP connection.
    pub(crate) fn port(&self) -> u16 {
        let socket = OwnedFd::from(self.0.get_ref().try_clone().unwrap());
        TcpStream::from(socket).local_addr().unwrap().port()
    }

    /// Whether the peer may still take it.
    pub(crate) fn try_write(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.get_ref().write_all(bytes.as_ref()).is_ok()
    }

    /// The socket, where nothing that it has brought waits here to be taken.
    pub(crate) fn into_inner(self) -> UnixStream {
        assert!(self.0.buffer().is_empty());
        self.0.into_inner()
    }

    pub(crate) fn write(&self, bytes: impl AsRef<[u8]>) {
        self.0.get_ref().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends all of it, as the peer takes it, beside whatever else is done here.
    pub(crate) fn feed(&self, bytes: impl Into<Vec<u8>>) -> JoinHandle<()> {
        let (mut socket, bytes) = (self.0.get_ref().try_clone().unwrap(), bytes.into());
        // Who does not get it all shows in what is answered.
        thread::spawn(move || _ = socket.write_all(&bytes))
    }

    /// The same, and then says that nothing more comes.
    pub(crate) fn feed_all(&self, bytes: impl Into<Vec<u8>>) {
        let (socket, fed) = (self.0.get_ref().try_clone().unwrap(), self.feed(bytes));
        thread::spawn(move || fed.join().map(|()| socket.shutdown(Shutdown::Write)));
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self) {
        self.0.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// The next line, with its LF; without, or empty, where the peer has ended.
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

    /// Everything up to the peer's end.
    pub(crate) fn rest(&mut self) -> Bytes {
        let mut rest = Vec::new();
        let read = self.0.read_to_end(&mut rest);
        assert!(read.is_ok(), "{read:?}, so far: {}", rest.escape_ascii());
        rest.into()
    }

    /// What is there, as it comes; none at the end.
    pub(crate) fn chunk(&mut self) -> Bytes {
        let chunk = Bytes::copy_from_slice(self.0.fill_buf().unwrap());
        self.0.consume(chunk.len());
        chunk
    }
}
