use std::any::Any;
use std::boxed::Box;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};

use super::duplex::{Duplex, ReturnTo};
use super::halves::{Joint, LineReader, LineWriter};
use super::io::Peer;
use super::reader::Reader;
use super::writer::Writer;
use crate::codec::LineCodec;

/// The stream of a borrowed reading half, as returned by
/// [`Connection::split`](crate::Connection::split). Requires the feature `net`.
pub struct BorrowedRead<'a, Io> {
    io: ReadHalf<&'a mut Io>,
    /// The connection's field that receives the side when the half is dropped.
    origin: &'a mut Reader,
}

/// The stream of a borrowed writing half, as returned by
/// [`Connection::split`](crate::Connection::split). Requires the feature `net`.
pub struct BorrowedWrite<'a, Io> {
    io: WriteHalf<&'a mut Io>,
    /// The connection's field that receives the side when the half is dropped.
    origin: &'a mut Writer,
}

/// The error of [`Connection::reunite`](crate::Connection::reunite): two halves of different
/// connections. Requires the feature `net`.
pub struct ReuniteError<Io: AsyncRead + AsyncWrite + Unpin>(
    /// The reading half.
    pub LineReader<ReadHalf<Io>>,
    /// The writing half.
    pub LineWriter<WriteHalf<Io>>,
);

/// The sides of the halves that were dropped so far.
struct Halves<Io> {
    reader: Option<(ReadHalf<Io>, Reader)>,
    writer: Option<(WriteHalf<Io>, Writer)>,
    peer: Peer,
    owner: Option<ReturnTo<Io>>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Halves<Io> {
    /// Returns the connection if both halves were dropped. Drops the connection if its stream has
    /// panicked.
    fn take_whole(&mut self) -> Option<Box<Duplex<Io>>> {
        if self.reader.is_none() || self.writer.is_none() {
            return None;
        }
        let ((read_half, mut reader), (write_half, mut writer)) =
            self.reader.take().zip(self.writer.take())?;
        // `unsplit` panics if the stream has panicked. In a `Drop`, a second panic would abort the
        // process.
        let Ok(io) = catch_unwind(AssertUnwindSafe(|| read_half.unsplit(write_half))) else {
            reader.report();
            writer.report();
            return None;
        };
        Some(Box::new(Duplex::from_sides(io, reader, writer, self.peer, self.owner.take())))
    }
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> Joint<ReadHalf<Io>, Reader> for Mutex<Halves<Io>> {
    fn leave(&self, half: ReadHalf<Io>, side: Reader) {
        leave(self, |halves| halves.reader = Some((half, side)));
    }

    fn take_owner(&self) -> (Peer, Box<dyn Any>) {
        let mut halves = self.lock().unwrap_or_else(PoisonError::into_inner);
        (halves.peer, Box::new(halves.owner.take()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> Joint<WriteHalf<Io>, Writer> for Mutex<Halves<Io>> {
    fn leave(&self, half: WriteHalf<Io>, side: Writer) {
        leave(self, |halves| halves.writer = Some((half, side)));
    }
}

/// Stores the side of a dropped half. The second side completes the connection, which returns to
/// its server.
fn leave<Io: AsyncRead + AsyncWrite + Unpin>(shared: &Mutex<Halves<Io>>, side: impl FnOnce(&mut Halves<Io>)) {
    let mut halves = shared.lock().unwrap_or_else(PoisonError::into_inner);
    side(&mut halves);
    let whole = halves.take_whole();
    drop(halves);
    if let Some(duplex) = whole {
        duplex.give_back();
    }
}

/// Splits a connection into two owned halves.
pub(super) fn into_halves<Io>(duplex: Duplex<Io>) -> (LineReader<ReadHalf<Io>>, LineWriter<WriteHalf<Io>>)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Duplex { io, reader, writer, peer, owner, .. } = duplex;
    let (read_half, write_half) = tokio::io::split(io);
    let shared = Arc::new(Mutex::new(Halves { reader: None, writer: None, peer, owner }));
    let reader = LineReader::from_side(read_half, reader, Some(shared.clone()));
    (reader, LineWriter::from_side(write_half, writer, Some(shared)))
}

/// A borrowed half returns its side itself.
impl<Io> Joint<BorrowedRead<'_, Io>, Reader> for () {
    fn leave(&self, half: BorrowedRead<'_, Io>, side: Reader) {
        *half.origin = side;
    }
}

impl<Io> Joint<BorrowedWrite<'_, Io>, Writer> for () {
    fn leave(&self, half: BorrowedWrite<'_, Io>, side: Writer) {
        *half.origin = side;
    }
}

/// Splits a connection into two borrowed halves.
pub(super) fn borrow_halves<Io>(
    duplex: &mut Duplex<Io>,
) -> (LineReader<BorrowedRead<'_, Io>>, LineWriter<BorrowedWrite<'_, Io>>)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let Duplex { io, reader, writer, .. } = duplex;
    let (read_half, write_half) = tokio::io::split(io);
    // If a half is leaked, its side is lost. The connection then keeps these sides, which have
    // failed.
    let (decoder, encoder) = LineCodec::new().into_sides();
    let (mut no_reader, mut no_writer) = (Reader::new(decoder), Writer::new(encoder));
    no_reader.fail(None);
    no_writer.fail(None);
    let reader_side = core::mem::replace(reader, no_reader);
    let writer_side = core::mem::replace(writer, no_writer);
    let (reader, writer) =
        (BorrowedRead { io: read_half, origin: reader }, BorrowedWrite { io: write_half, origin: writer });
    (
        LineReader::from_side(reader, reader_side, Some(Arc::new(()))),
        LineWriter::from_side(writer, writer_side, Some(Arc::new(()))),
    )
}

impl<Io: AsyncRead + Unpin> AsyncRead for BorrowedRead<'_, Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for BorrowedWrite<'_, Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl<Io> fmt::Debug for BorrowedRead<'_, Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BorrowedRead").finish_non_exhaustive()
    }
}

impl<Io> fmt::Debug for BorrowedWrite<'_, Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BorrowedWrite").finish_non_exhaustive()
    }
}

/// Reunites two halves into a connection.
pub(super) fn reunite<Io: AsyncRead + AsyncWrite + Unpin + 'static>(
    mut reader: LineReader<ReadHalf<Io>>,
    mut writer: LineWriter<WriteHalf<Io>>,
) -> Result<Box<Duplex<Io>>, ReuniteError<Io>> {
    if !reader.get_ref().is_pair_of(writer.get_ref()) {
        return Err(ReuniteError(reader, writer));
    }
    let ((read_half, reader, joint), (write_half, writer, _)) = (reader.take(), writer.take());
    let (peer, owner) = joint.map_or((Peer::Other, Box::new(()) as Box<dyn Any>), |joint| joint.take_owner());
    let owner = owner.downcast().map_or(None, |owner| *owner);
    Ok(Box::new(Duplex::from_sides(read_half.unsplit(write_half), reader, writer, peer, owner)))
}

impl<Io: AsyncRead + AsyncWrite + Unpin> fmt::Debug for ReuniteError<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReuniteError").field(&self.0).field(&self.1).finish()
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> fmt::Display for ReuniteError<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves belong to different connections")
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> core::error::Error for ReuniteError<Io> {}
