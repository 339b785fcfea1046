use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::Connection;
use crate::codec::LineCodec;
use crate::net::duplex::Duplex;
use crate::net::error::{Error, UpgradeError};
use crate::net::halves::{LineReader, LineWriter};
use crate::net::split::{self, BorrowedRead, BorrowedWrite, ReuniteError};

/// The stream, codec and buffers of a [`Connection`], returned by [`Connection::into_parts`].
/// Requires the feature `net`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<Io> {
    /// The stream.
    pub io: Io,
    /// The codec, with its state in the middle of the stream: decoding continues with `read`.
    pub codec: LineCodec,
    /// Bytes that were read from the stream and not returned to the caller.
    pub read: BytesMut,
    /// Bytes that were queued and not sent.
    pub unsent: BytesMut,
}

/// Taking a connection apart.
impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    /// Borrows the connection as two halves, to read and write concurrently in one task. When the
    /// halves are dropped, their unread and unsent bytes return to the connection.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// let (mut reader, mut writer) = conn.split();
    /// let (line, sent) = tokio::join!(reader.next_line(), writer.send_line("hello"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn split(&mut self) -> (LineReader<BorrowedRead<'_, Io>>, LineWriter<BorrowedWrite<'_, Io>>) {
        split::borrow_halves(self.duplex_mut())
    }

    /// Splits the connection into two halves for two tasks. When both halves of a server's
    /// connection are dropped, the server ends the connection as usual.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (mut reader, mut writer) = conn.into_split();
    /// tokio::spawn(async move { writer.send_line("hello").await });
    /// while let Some(line) = reader.next_line().await? {
    ///     println!("received {} bytes", line?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_split(self) -> (LineReader<ReadHalf<Io>>, LineWriter<WriteHalf<Io>>)
    where
        Io: Send + 'static,
    {
        split::into_halves(*self.into_duplex())
    }

    /// Reunites the two halves that [`into_split`](Self::into_split) returned. The connection keeps
    /// their unread and unsent bytes.
    ///
    /// # Errors
    ///
    /// Returns [`ReuniteError`] with both halves, unchanged, if they belong to different
    /// connections.
    ///
    /// # Panics
    ///
    /// Panics if the stream has panicked.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let (reader, writer) = conn.into_split();
    /// let conn = Connection::reunite(reader, writer).expect("both are halves of `conn`");
    /// # Ok(())
    /// # }
    /// ```
    pub fn reunite(
        reader: LineReader<ReadHalf<Io>>,
        writer: LineWriter<WriteHalf<Io>>,
    ) -> Result<Self, ReuniteError<Io>>
    where
        Io: 'static,
    {
        split::reunite(reader, writer).map(Self::from_duplex)
    }

    /// Returns the stream, the codec and both buffers. No byte is lost.
    ///
    /// ```
    /// # use lineframe::Connection;
    /// # async fn run(conn: Connection) -> std::io::Result<()> {
    /// let parts = conn.into_parts();
    /// println!("{} bytes unread, {} unsent", parts.read.len(), parts.unsent.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_parts(self) -> Parts<Io> {
        let mut duplex = self.into_duplex();
        duplex.report();
        let Duplex { io, reader, writer, .. } = *duplex;
        let ((decoder, read), (encoder, unsent)) = (reader.into_parts(), writer.into_parts());
        Parts { io, codec: LineCodec::from_sides(decoder, encoder), read, unsent }
    }

    /// Returns the stream, to continue with another protocol.
    ///
    /// # Errors
    ///
    /// Returns [`UpgradeError`] with the unchanged connection if received bytes are unread or still
    /// to be skipped, or if queued output is unsent. [`into_parts`](Self::into_parts) returns these
    /// bytes together with the stream.
    ///
    /// ```
    /// # use lineframe::{Connection, Error};
    /// # async fn run(mut conn: Connection) -> Result<(), Error> {
    /// conn.flush().await?;
    /// let stream = conn.into_upgrade()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_upgrade(self) -> Result<Io, UpgradeError<Self>> {
        match self.duplex().reader.left_over().saturating_add(self.duplex().writer.unsent()) {
            0 => Ok(self.into_parts().io),
            bytes => Err(UpgradeError { connection: self, source: Error::LeftOver { bytes } }),
        }
    }
}
