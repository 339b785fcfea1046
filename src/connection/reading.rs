//! Reading from the stream, through room that all connections of a thread share.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;
use std::vec::Vec;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::clock;
use super::input::{Input, WaitingFor};

/// The room for one read: twice what many peers write at once, and a byte more, since Tokio asks the system again behind a read that
/// has filled its room.
pub(super) const READ: usize = 128 * 1024 + 1;

/// And before it, for what was not handed over of the reads before.
const BEFORE: usize = 4 * 1024;

std::thread_local! {
    /// Every connection of a thread reads into this one, and keeps what it has to keep.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What has been read is buffered.
pub(super) const NOT_IN_PLACE: Option<fn(&mut Input, &[u8]) -> usize> = None;

impl Input {
    pub(super) fn poll_read<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_in_place(io, cx, NOT_IN_PLACE)
    }

    /// Shows what was not handed over, and what has been read behind it, to `in_place`, which gives how many bytes of that it has
    /// taken. The rest is buffered. Where much was not handed over, all is.
    pub(super) fn poll_read_in_place<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
        in_place: Option<impl FnOnce(&mut Self, &[u8]) -> usize>,
    ) -> Poll<io::Result<()>> {
        ROOM.with(|room| match room.try_borrow_mut() {
            Ok(mut room) => {
                if room.is_empty() {
                    // Not `resize`, which would write to all of it: so the system gives memory to what is read into.
                    *room = vec![0; BEFORE + READ];
                }
                self.poll_read_through(&mut room, io, cx, in_place)
            }
            // This very read goes through another connection.
            Err(_) => self.poll_read_through(&mut [0; BEFORE + 4096], io, cx, in_place),
        })
    }

    fn poll_read_through<Io: AsyncRead + Unpin>(
        &mut self,
        room: &mut [u8],
        io: &mut Io,
        cx: &mut Context<'_>,
        in_place: Option<impl FnOnce(&mut Self, &[u8]) -> usize>,
    ) -> Poll<io::Result<()>> {
        self.report();
        let mut read = ReadBuf::new(&mut room[BEFORE..]);
        loop {
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut read)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) => break,
            }
        }
        let end = BEFORE + read.filled().len();
        if end == BEFORE {
            self.is_at_eof = true;
            return Poll::Ready(Ok(()));
        }
        if let Some(traffic) = &self.limits.traffic {
            traffic.bytes_read.add((end - BEFORE) as u64);
        }
        let now = Instant::now();
        clock::has_read(now);
        self.read_at = Some(now);
        let is_under_way = !self.buffer.is_empty() || self.walk.is_within_long_line();
        if !is_under_way && self.waiting_for != Some(WaitingFor::Rest) {
            self.deadline.start(self.read_at);
        }
        let mut rest = BEFORE;
        if let (Some(in_place), Some(start)) = (in_place, BEFORE.checked_sub(self.buffer.len())) {
            room[start..BEFORE].copy_from_slice(&self.buffer);
            let taken = in_place(self, &room[start..end]);
            rest = BEFORE.max(start + taken);
            self.buffer.advance(taken.min(BEFORE - start));
        }
        if rest < end {
            self.buffer.append(&room[rest..end]);
        }
        Poll::Ready(Ok(()))
    }
}
