use std::boxed::Box;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_sink::Sink;
use tokio::io::{AsyncWrite, WriteHalf};

use super::{Joint, Parts, TAKEN};
use crate::codec::LineCodec;
use crate::net::error::{Error, Polled};
use crate::net::io::AnyIo;
use crate::net::writer::{WriteIo, Writer};

/// A writer of lines: the writing half of a connection, or a writer to a file, a pipe or stdout.
/// Requires the feature `net`.
///
/// A half has no read that could send queued output, so it has no `write_line`.
/// [`feed_line`](Self::feed_line) queues a line, [`flush`](Self::flush) sends queued output, and
/// [`send_line`](Self::send_line) does both.
///
/// Dropping the writer loses queued output, with two exceptions: a half of a server's connection
/// and a borrowed half return their queued output to the connection.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use lineframe::LineWriter;
///
/// let mut output = Vec::new();
/// let mut lines = LineWriter::new(&mut output);
/// lines.feed_line("one").await?;
/// lines.send_line("two").await?;
/// drop(lines);
/// assert_eq!(output, b"one\ntwo\n");
/// # Ok(())
/// # }
/// ```
pub struct LineWriter<W: AsyncWrite + Unpin = WriteHalf<AnyIo>>(Option<Box<WriteSide<W>>>);

struct WriteSide<W> {
    io: W,
    writer: Writer,
    joint: Option<Arc<dyn Joint<W, Writer>>>,
}

impl<W: AsyncWrite + Unpin> LineWriter<W> {
    /// Writes lines of at most 64 KiB, terminated by `\n`.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use lineframe::LineWriter;
    ///
    /// let mut lines = LineWriter::new(tokio::io::stdout());
    /// lines.send_line("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(writer: W) -> Self {
        Self::with_codec(writer, LineCodec::new())
    }

    /// Writes lines with the given codec.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use lineframe::{Delimiter, LineCodec, LineWriter};
    ///
    /// let codec = LineCodec::builder().delimiter(Delimiter::CrLf).build();
    /// let mut output = Vec::new();
    /// LineWriter::with_codec(&mut output, codec).send_line("one").await?;
    /// assert_eq!(output, b"one\r\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_codec(writer: W, codec: LineCodec) -> Self {
        Self::from_side(writer, Writer::new(codec.into_sides().1), None)
    }

    pub(in crate::net) fn from_side(io: W, writer: Writer, joint: Option<Arc<dyn Joint<W, Writer>>>) -> Self {
        Self(Some(Box::new(WriteSide { io, writer, joint })))
    }

    /// Queues a line. If more than 64 KiB (a server's `max_unsent`) are unsent, first waits until
    /// the stream has accepted enough of them.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::write_line`](crate::Connection::write_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// let mut lines = LineWriter::new(&mut output);
    /// lines.feed_line("one").await?;
    /// lines.feed_line("two").await?;
    /// lines.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn feed_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_line(line.as_ref(), io, cx)))
    }

    /// Queues bytes without a terminator and without any check. Waits as
    /// [`feed_line`](Self::feed_line) does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the stream has failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may be queued.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// let mut lines = LineWriter::new(&mut output);
    /// lines.feed_line("put 4").await?;
    /// lines.feed_bytes("body").await?;
    /// lines.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn feed_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, B> {
        let mut queued = 0;
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_bytes(bytes.as_ref(), &mut queued, io, cx)))
    }

    /// Queues a line and sends all queued output.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::write_line`](crate::Connection::write_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all. Queued output is sent later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// LineWriter::new(&mut output).send_line("one").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, W, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.poll_step(|writer, io| writer.poll_send_line(&mut line, io, cx)))
    }

    /// Sends all queued output.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the stream has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: unsent output is sent later.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// # use lineframe::LineWriter;
    /// # let mut output = Vec::new();
    /// let mut lines = LineWriter::new(&mut output);
    /// lines.feed_line("one").await?;
    /// lines.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.poll_step(|writer, io| writer.poll_flush(io, cx)))
    }

    /// Sends all queued output, then closes the stream for writing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the stream has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: call `shutdown` again to continue.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (reader, mut writer) = conn.into_split();
    /// writer.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, W> {
        poll_fn(|cx| self.poll_step(|writer, io| writer.poll_shutdown(io, cx)))
    }

    /// Sets the length limit for lines, in bytes of content. `None` means no limit. Default: 64
    /// KiB, from the codec. Has no effect if the codec sets `max_encoded_length`.
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// let mut lines = LineWriter::new(tokio::io::sink());
    /// lines.set_max_length(1024);
    /// ```
    pub fn set_max_length(&mut self, content_bytes: impl Into<Option<usize>>) {
        self.writer_mut().encoder_mut().set_max_length(content_bytes.into().unwrap_or(usize::MAX));
    }

    /// Sets how long output may wait until the peer accepts at least one byte. `None`, the default
    /// outside a server, means no limit. See
    /// [`Connection::set_write_timeout`](crate::Connection::set_write_timeout).
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// use std::time::Duration;
    ///
    /// let mut lines = LineWriter::new(tokio::io::sink());
    /// lines.set_write_timeout(Duration::from_secs(10));
    /// ```
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.writer_mut().limits_mut().write_timeout = timeout.into();
    }

    /// Returns the stream.
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// let lines = LineWriter::new(tokio::io::sink());
    /// let stream: &tokio::io::Sink = lines.get_ref();
    /// ```
    pub fn get_ref(&self) -> &W {
        &self.0.as_ref().expect(TAKEN).io
    }

    /// Returns the stream. Queued output is lost. The halves of a server's connection then do not
    /// return to the server.
    ///
    /// ```
    /// # use lineframe::LineWriter;
    /// let stream = LineWriter::new(tokio::io::sink()).into_inner();
    /// ```
    pub fn into_inner(mut self) -> W {
        self.writer_mut().report();
        self.take().0
    }

    /// Runs one step of writing. An I/O error or a passed deadline ends this half for good.
    fn poll_step<T>(&mut self, step: impl FnOnce(&mut Writer, WriteIo<'_>) -> Polled<T>) -> Polled<T> {
        let WriteSide { io, writer, .. } = &mut **self.0.as_mut().expect(TAKEN);
        if writer.has_failed() {
            return Poll::Ready(Err(Error::Io(io::ErrorKind::NotConnected.into())));
        }
        let polled = step(writer, io);
        if matches!(polled, Poll::Ready(Err(Error::Io(_)))) {
            writer.fail(None);
        }
        polled
    }

    /// Returns the parts of the half and leaves `None`.
    pub(in crate::net) fn take(&mut self) -> Parts<W, Writer> {
        let WriteSide { io, writer, joint } = *self.0.take().expect(TAKEN);
        (io, writer, joint)
    }

    fn writer_mut(&mut self) -> &mut Writer {
        &mut self.0.as_mut().expect(TAKEN).writer
    }
}

impl<W: AsyncWrite + Unpin> Drop for LineWriter<W> {
    fn drop(&mut self) {
        if self.0.is_some() {
            let (half, side, joint) = self.take();
            if let Some(joint) = joint {
                joint.leave(half, side);
            }
        }
    }
}

/// Writes lines: `feed` is [`feed_line`](LineWriter::feed_line), `send` is
/// [`send_line`](LineWriter::send_line), and `close` is [`shutdown`](LineWriter::shutdown).
impl<W: AsyncWrite + Unpin> Sink<Bytes> for LineWriter<W> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|writer, io| writer.poll_ready(io, cx))
    }

    fn start_send(mut self: Pin<&mut Self>, line: Bytes) -> Result<(), Error> {
        self.writer_mut().queue(&line).map_err(Error::Encode)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|writer, io| writer.poll_flush(io, cx))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_step(|writer, io| writer.poll_shutdown(io, cx))
    }
}

impl<W: AsyncWrite + Unpin> fmt::Debug for LineWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter").finish_non_exhaustive()
    }
}
