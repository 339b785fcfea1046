use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::codec::Batch;
use crate::error::LineError;
use crate::net::duplex::Body;
use crate::net::error::Error;
use crate::net::poll::Inlined;

/// Reading.
impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// Returns the next line, or a description of a bad line.
    ///
    /// Returns `None` if the peer has closed its side of the stream, or if the server [is
    /// draining](Self::is_draining). All queued output has then been sent.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    /// - [`Error::TooManyBadLines`] if the peer has sent more bad lines than the server's
    ///   `max_bad_lines`.
    /// - [`Error::NotLines`] if the server refuses HTTP and TLS, and the peer speaks one of them.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// while let Some(line) = conn.next_line().await? {
    ///     match line {
    ///         Ok(line) => println!("received {} bytes", line.len()),
    ///         Err(bad) => println!("skipped a bad line: {bad}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_line(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<Bytes, LineError>>, Error>> + use<'_, Io> {
        Inlined(|cx: &mut Context<'_>| match self.duplex_mut().next_good_line() {
            Some(line) => Poll::Ready(Ok(Some(Ok(line)))),
            None => self.duplex_mut().poll_line(cx),
        })
    }

    /// Returns the next line as text. Requires the feature `text`. A line that is not UTF-8 is a
    /// [`LineError::NotUtf8`]. Otherwise the same as [`next_line`](Self::next_line), including its
    /// errors and cancel safety.
    ///
    /// # Errors
    ///
    /// The errors of [`next_line`](Self::next_line).
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// if let Some(line) = conn.next_text().await?.transpose()? {
    ///     println!("{}", line.trim());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "text")]
    pub fn next_text(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<bytestring::ByteString, LineError>>, Error>> + use<'_, Io>
    {
        poll_fn(|cx| self.duplex_mut().poll_text(cx))
    }

    /// Returns all complete lines that are available, in order, including bad ones. Waits until at
    /// least one line is available. Returns `None` at the end, as [`next_line`](Self::next_line)
    /// does.
    ///
    /// # Errors
    ///
    /// The errors of [`next_line`](Self::next_line).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no line is lost.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// while let Some(batch) = conn.next_batch().await? {
    ///     for line in &batch {
    ///         println!("received {} bytes", line?.len());
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn next_batch(&mut self) -> impl Future<Output = Result<Option<Batch>, Error>> + use<'_, Io> {
        poll_fn(|cx| self.duplex_mut().poll_batch(cx))
    }

    /// Puts the unread lines of the last batch back into the connection. The bytes are then decoded
    /// again, as lines or as something else, such as the block after the memcached command `set k 0
    /// 0 5`.
    ///
    /// # Errors
    ///
    /// Returns the batch unchanged if it belongs to another connection, or if anything was read
    /// after the batch.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// if let Some(mut batch) = conn.next_batch().await? {
    ///     let first = batch.next();
    ///     conn.put_back(batch).expect("nothing was read after this batch");
    ///     let block = conn.read_bytes(5).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_back(&mut self, batch: Batch) -> Result<(), Batch> {
        self.duplex_mut().reader.put_back(batch)
    }

    /// Returns exactly `count` bytes, starting after the last line that was returned. A graceful
    /// shutdown does not interrupt the block. The line timeout applies to each call, so a handler
    /// that reads a line byte by byte loses that protection.
    ///
    /// # Errors
    ///
    /// - [`Error::Block`] if `count` exceeds the codec's
    ///   [`max_block_length`](crate::LineCodecBuilder::max_block_length). No byte is consumed.
    ///   [`body`](Self::body) and [`skip_bytes`](Self::skip_bytes) have no limit.
    /// - [`Error::Eof`] if the peer closes the stream before `count` bytes have arrived.
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no byte is consumed before the block is complete.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// let block = conn.read_bytes(512).await?;
    /// assert_eq!(block.len(), 512);
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_bytes(&mut self, count: usize) -> impl Future<Output = Result<Bytes, Error>> + use<'_, Io> {
        poll_fn(move |cx| self.duplex_mut().poll_block(count, cx))
    }

    /// Discards the next `count` bytes as they arrive, in constant memory. The skip starts with
    /// this call, even if the returned future is never polled.
    ///
    /// Only the idle timeout applies, and it restarts with each read, so a slow peer may take any
    /// time.
    ///
    /// # Errors
    ///
    /// - [`Error::Eof`] if the peer closes the stream before `count` bytes have arrived.
    /// - [`Error::Io`] or [`Error::Timeout`] if the connection has failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next read skips the remaining bytes.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.skip_bytes(1 << 30).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn skip_bytes(&mut self, count: u64) -> impl Future<Output = Result<(), Error>> + use<'_, Io> {
        self.duplex_mut().reader.skip_bytes(count);
        poll_fn(|cx| self.duplex_mut().poll_skipped(cx))
    }

    /// Returns a reader for the next `count` bytes. It uses constant memory, and the connection
    /// skips the bytes that you do not read.
    ///
    /// Only the idle timeout applies, and it restarts with each read, so a slow peer may take any
    /// time. Dropping the reader is safe: the next read of the connection continues after the body.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(mut conn: Connection) -> std::io::Result<()> {
    /// let mut file = tokio::fs::File::create("upload").await?;
    /// tokio::io::copy(&mut conn.body(1 << 20), &mut file).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn body(&mut self, count: u64) -> Body<'_, Io> {
        Body::new(self.duplex_mut(), count)
    }
}

/// Yields the items of [`next_line`](Connection::next_line). Ends after an error.
impl<Io: AsyncRead + AsyncWrite + Unpin> Stream for Connection<Io> {
    type Item = Result<Result<Bytes, LineError>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.duplex_mut().poll_stream(cx)
    }
}
