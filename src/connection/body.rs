use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{AnyIo, Connection};

/// Counted bytes that follow a line, as a reader: [`Connection::body`]. What is not read of them is skipped.
#[derive(Debug)]
#[must_use = "what is not read is skipped"]
pub struct Body<'a, Io = AnyIo>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) connection: &'a mut Connection<Io>,
    pub(super) left: u64,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Body<'_, Io> {
    /// How many bytes are still to be read.
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// # Errors
///
/// Kind `UnexpectedEof` where the stream ends before the last byte.
impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for Body<'_, Io> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, left } = self.get_mut();
        if *left == 0 || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let count =
            ready!(connection.poll_in(|input, output, io| input.poll_body(*left, buf, io, output, cx)))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        *left -= count as u64;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Drop for Body<'_, Io> {
    fn drop(&mut self) {
        self.connection.skip_later(self.left);
    }
}
