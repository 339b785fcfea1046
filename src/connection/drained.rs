use std::boxed::Box;
use std::io;
use std::task::{Context, Poll};

use tokio::io::AsyncRead;

use super::any_io;
use super::error::Error;
use super::input::Input;
use super::reading::READ;
use super::turn;

/// How far the reading of what had come before a drain has got.
#[derive(Debug)]
pub(super) struct Drained {
    /// Where in the stream that ends at the latest.
    end: u64,
    /// How much this round of reads has brought since.
    round: usize,
    /// And how often it was looked.
    looks: u8,
    /// The last time nothing was found.
    pub(super) has_looked: bool,
    /// It was all read.
    pub(super) is_all: bool,
    /// And this is what has ended it.
    pub(super) failed: Option<io::Error>,
}

/// So much is read at most once a drain has been seen: far more than what a system buffers, so that what had come is read, and
/// a peer that never stops sending does not put off the end.
const MAX_DRAINED: u64 = 8 * 1024 * 1024;

/// So often a stream that is no socket is looked at for more before what is there is answered.
const MAX_LOOKS: u8 = 8;

impl Input {
    /// What came before the drain is still read and answered. Reads as much as one read can bring, in however many pieces the
    /// stream has it, and finds out whether that was all.
    pub(super) fn poll_drain_round<Io: AsyncRead + Unpin>(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let mut drained = self.drained.take().unwrap_or_else(|| {
            Box::new(Drained {
                end: self.bytes_read() + MAX_DRAINED,
                round: 0,
                looks: 0,
                has_looked: false,
                is_all: false,
                failed: None,
            })
        });
        let done = self.poll_drained(&mut drained, io, cx);
        self.drained = Some(drained);
        done
    }

    fn poll_drained<Io: AsyncRead + Unpin>(
        &mut self,
        drained: &mut Drained,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        while !self.is_at_eof && self.bytes_read() < drained.end {
            // What is there is answered before more is waited for.
            if drained.round >= READ || drained.looks >= MAX_LOOKS {
                (drained.round, drained.looks, drained.has_looked) = (0, 0, false);
                return Poll::Ready(Ok(()));
            }
            let before = self.buffer.len();
            match any_io::asking_the_system(|| self.poll_read(io, cx)) {
                // The lines that came before it are handed over first.
                (Poll::Ready(Err(error)), _) => {
                    drained.failed = Some(error);
                    break;
                }
                (Poll::Ready(Ok(())), _) => {
                    drained.round += self.buffer.len() - before;
                    drained.has_looked = false;
                }
                (Poll::Pending, true) => break,
                (Poll::Pending, false) if drained.has_looked => break,
                (Poll::Pending, false) => {
                    // It may only not have been this task's turn.
                    drained.has_looked = true;
                    drained.looks += 1;
                    return turn::poll_later(cx);
                }
            }
        }
        drained.is_all = true;
        Poll::Ready(Ok(()))
    }
}
