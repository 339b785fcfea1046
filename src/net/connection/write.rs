use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::net::error::{Error, Polled};
use crate::net::poll::Inlined;
use crate::net::writer::Writer;

/// Writing.
impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// Queues a line; see [when output is sent](Self#when-output-is-sent). If more than 64 KiB (a
    /// server's `max_unsent`) are unsent, first waits until the stream has accepted enough of them.
    ///
    /// # Errors
    ///
    /// - [`Error::Encode`] if the bytes [cannot be one line](crate::EncodeError). The line
    ///   is not queued, and the connection can still be used.
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// for number in 0..3 {
    ///     conn.write_line(format!("item {number}")).await?;
    /// }
    /// conn.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        Inlined(move |cx: &mut Context<'_>| {
            let duplex = self.duplex_mut();
            if !duplex.queue_now(line.as_ref()) {
                ready!(duplex.poll_write_line(line.as_ref(), cx))?;
            }
            match duplex.is_send_due() {
                true => duplex.send_now(cx),
                false => Poll::Ready(Ok(())),
            }
        })
    }

    /// Queues a line and sends all queued output.
    ///
    /// # Errors
    ///
    /// The errors of [`write_line`](Self::write_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the line is queued whole or not at all. Queued output is sent later.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.send_line("ready").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_line<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| {
            self.duplex_mut().poll_writer(|writer, io| writer.poll_send_line(&mut line, io, cx))
        })
    }

    /// Queues bytes without a terminator and without any check, such as a block after a line. Waits
    /// as [`write_line`](Self::write_line) does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may be queued.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.write_line("VALUE k 0 5").await?;
    /// conn.write_bytes("hello\r\n").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_bytes<B: AsRef<[u8]>>(
        &mut self,
        bytes: B,
    ) -> impl Future<Output = Result<(), Error>> + use<'_, Io, B> {
        let mut queued = 0;
        poll_fn(move |cx| {
            self.duplex_mut().poll_writer(|writer, io| writer.poll_bytes(bytes.as_ref(), &mut queued, io, cx))
        })
    }

    /// Sends all queued output.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: unsent output is sent later.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.write_line("working").await?;
    /// conn.flush().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_writer(|writer, io| writer.poll_flush(io, cx)))
    }

    /// Sends all queued output, then closes the writing side (half-close). The connection can still
    /// read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: call `shutdown` again to continue.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.shutdown().await?;
    /// while conn.next_line().await?.is_some() {}
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&mut self) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_writer(|writer, io| writer.poll_shutdown(io, cx)))
    }

    /// Sends one line and returns the next line as its reply.
    ///
    /// # Errors
    ///
    /// - [`Error::Line`] if the reply is a bad line, [`Error::Eof`] if the stream ends without a
    ///   reply.
    /// - [`Error::Io`] if the future of an earlier `request` was dropped before its reply arrived.
    ///   Replies can then no longer be matched to requests.
    /// - The errors of [`write_line`](Self::write_line) and [`next_line`](Self::next_line).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: every later `request` fails. [`next_line`](Self::next_line) still returns
    /// the reply.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// let reply = conn.request("PING").await?;
    /// assert_eq!(reply, "PONG");
    /// # Ok(())
    /// # }
    /// ```
    pub fn request<L: AsRef<[u8]>>(
        &mut self,
        line: L,
    ) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io, L> {
        let mut line = Some(line);
        poll_fn(move |cx| self.duplex_mut().poll_request(&mut line, cx))
    }
}

/// Writes lines: `feed` queues a line, `send` is [`send_line`](Connection::send_line), and `close`
/// is [`shutdown`](Connection::shutdown).
impl<Io: AsyncRead + AsyncWrite + Unpin> Sink<Bytes> for Connection<Io> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.duplex_mut().poll_sink(cx, Writer::poll_ready)
    }

    fn start_send(mut self: Pin<&mut Self>, line: Bytes) -> Result<(), Error> {
        self.duplex_mut().writer.queue(&line).map_err(Error::Encode)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.duplex_mut().poll_sink(cx, Writer::poll_flush)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.duplex_mut().poll_sink(cx, Writer::poll_shutdown)
    }
}
