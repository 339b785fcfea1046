//! A connection of `bench`: sends lines and checks their replies.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use lineframe::AnyIo;
use lineframe::scan::{Kind, Scanner};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{Clock, Deadline, nanoseconds};
use super::lines::{Lines, Member};
use super::measure::{Measure, Run};
use super::pace::Pace;
use crate::failure::Failure;
use crate::show;
use crate::stream::has_arrived;

/// Maximum size of a read. Tokio reads again after a read that filled its buffer, so the size is
/// one byte more than a common size of writes.
const READ: usize = 64 * 1024 + 1;

/// Space in the read buffer in front of each read, for the beginning of a reply. A longer beginning
/// is joined with the read in a separate buffer.
const BEFORE: usize = 64 * 1024;

/// Maximum number of bytes of a wrong reply in a message.
const SHOWN: usize = 30;

/// Lines due before the deadline may be sent up to this many nanoseconds after it.
const GRACE: u64 = 100_000_000;

/// Settings and buffers shared by the connections of a thread.
pub(super) struct Orders {
    pub(super) lines: Arc<Lines>,
    pub(super) scanner: Scanner,
    pub(super) window: u64,
    pub(super) clock: Clock,
    /// End of the warm-up.
    pub(super) measured_from: u64,
    pub(super) deadline: Deadline,
    pub(super) timeout: Duration,
    pub(super) read_buffer: RefCell<ReadBuffer>,
    /// Buffer for numbered lines.
    pub(super) outgoing: RefCell<Vec<u8>>,
}

pub(super) struct ReadBuffer(Vec<u8>);

impl Default for ReadBuffer {
    fn default() -> Self {
        Self(vec![0; BEFORE + READ])
    }
}

/// A connection and its progress. Always `replied <= admitted`, and `written` is at most the number
/// of bytes of the admitted lines.
pub(super) struct Connection {
    io: AnyIo,
    member: Member,
    orders: Rc<Orders>,
    measure: Rc<RefCell<Measure>>,
    pace: Option<Pace>,
    /// Number of measured lines that may still be sent.
    quota: u64,
    /// Number of lines released for sending.
    admitted: u64,
    /// Number of replies received.
    replied: u64,
    /// Number of replies to measured lines.
    counted: u64,
    /// Number of bytes written.
    written: u64,
    /// Whether all replies so far were exactly as expected, including their terminators.
    is_exact: bool,
    scanner: Scanner,
    /// Beginning of an incomplete reply.
    held: BytesMut,
    /// Lines without a reply; lines sent at the same time are one entry.
    waiting: VecDeque<Run>,
    /// Time of the last reply, or of sending if later. `None` if no reply is pending.
    waits_since: Rc<Cell<Option<u64>>>,
}

/// A connection that failed.
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// Time of the failure on the clock.
    pub(super) at: u64,
    pub(super) missing: u64,
}

impl Connection {
    pub(super) fn new(
        io: AnyIo,
        member: Member,
        orders: Rc<Orders>,
        measure: Rc<RefCell<Measure>>,
        pace: Option<Pace>,
        quota: u64,
    ) -> Self {
        Self {
            io,
            member,
            is_exact: !orders.lines.is_of_any_content() && orders.lines.stride() <= BEFORE as u64,
            scanner: orders.scanner.clone(),
            orders,
            measure,
            pace,
            quota,
            admitted: 0,
            replied: 0,
            counted: 0,
            written: 0,
            held: BytesMut::new(),
            waiting: VecDeque::new(),
            waits_since: Rc::default(),
        }
    }

    /// Sends lines until the quota or the time is used up, and waits for all replies. Returns the
    /// number of lines that were due but not sent.
    pub(super) async fn run(mut self) -> Result<u64, Broken> {
        let (waits_since, orders) = (self.waits_since.clone(), self.orders.clone());
        let late = async || {
            let timeout = nanoseconds(orders.timeout);
            loop {
                let now = orders.clock.now();
                let until = waits_since.get().unwrap_or(now).saturating_add(timeout);
                if now >= until {
                    break;
                }
                tokio::time::sleep_until(orders.clock.instant(until)).await;
            }
        };
        let ended = loop {
            tokio::select! {
                biased;
                ended = poll_fn(|cx| self.poll(cx)) => break ended,
                () = late() => {}
            }
            // If this process was stopped, a reply that arrived in time may still be unread.
            if !has_arrived(&self.io) {
                let timeout = humantime::format_duration(orders.timeout);
                break Err(Failure::timed_out(format_args!(
                    "no reply within the limit of {timeout} (--timeout)"
                )));
            }
            self.waits_since.set(Some(orders.clock.now()));
        };
        self.measure.borrow_mut().of_connections.push(self.counted);
        match ended {
            Ok(()) => Ok(self
                .pace
                .map_or(0, |pace| pace.due_by(orders.deadline.at()).saturating_sub(self.admitted))),
            Err(failure) => {
                Err(Broken { failure, at: orders.clock.now(), missing: self.admitted - self.replied })
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let due = self.admit();
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                // If the server closed the connection, read its last replies before failing.
                if !is_gone(&error) {
                    return Poll::Ready(Err(Failure::other("cannot send", error)));
                }
            }
            if self.replied == self.admitted && due == Due::Never {
                return Poll::Ready(Ok(()));
            }
            if self.poll_read(cx)?.is_ready() {
                continue;
            }
            let (Due::At(at), Some(pace)) = (due, &mut self.pace) else { return Poll::Pending };
            let waited = ready!(pace.poll_until(at, self.orders.clock, cx));
            waited.map_err(|error| Failure::other("cannot set a timer", error))?;
        }
    }

    /// Releases the lines that are due and fit into the window.
    fn admit(&mut self) -> Due {
        let orders = &self.orders;
        let now = orders.clock.now();
        loop {
            let intended = self.pace.as_ref().map_or(now, |pace| pace.due(self.admitted));
            let deadline = orders.deadline.at();
            let is_over = match self.pace {
                None => now >= deadline,
                Some(_) => intended >= deadline || now >= deadline.saturating_add(GRACE),
            };
            if self.quota == 0 || is_over {
                return Due::Never;
            }
            let room = orders.window - (self.admitted - self.replied);
            if room == 0 {
                return Due::WithReply;
            }
            if intended > now {
                return Due::At(intended);
            }
            let mut count = if self.pace.is_some() { 1 } else { room };
            if now >= orders.measured_from {
                count = count.min(self.quota);
                self.quota -= count;
            }
            self.waiting.push_back(Run { intended, sent: now, count });
            self.admitted += count;
            self.waits_since.set(self.waits_since.get().or(Some(now)));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let to = self.admitted * self.orders.lines.stride();
        let buffer = &mut *self.orders.outgoing.borrow_mut();
        while self.written < to {
            let bytes = self.orders.lines.bytes(self.member, self.written, to, buffer);
            self.written += ready!(Pin::new(&mut self.io).poll_write(cx, bytes))? as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and checks the replies.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        let orders = self.orders.clone();
        let ReadBuffer(buffer) = &mut *orders.read_buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer[BEFORE..]);
        let count = match Pin::new(&mut self.io).poll_read(cx, &mut read) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(())) => read.filled().len(),
            Poll::Ready(Err(error)) if is_gone(&error) => 0,
            Poll::Ready(Err(error)) => return Err(Failure::other("cannot receive", error)),
        };
        if count == 0 {
            return Err(self.left());
        }
        let end = BEFORE + count;
        match BEFORE.checked_sub(self.held.len()) {
            Some(start) => {
                buffer[start..BEFORE].copy_from_slice(&self.held);
                let taken = self.replies(&buffer[start..end])?;
                self.held.clear();
                self.held.extend_from_slice(&buffer[start + taken..end]);
            }
            None => {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(&buffer[BEFORE..end]);
                let taken = self.replies(&held)?;
                held.advance(taken);
                self.held = held;
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Checks and records the replies at the front of `bytes`. Returns their length in bytes.
    fn replies(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let before = self.replied;
        let taken = match self.expected_replies(bytes) {
            Some(taken) => taken,
            None => self.any_replies(bytes)?,
        };
        let mut count = self.replied - before;
        if count > 0 {
            let now = self.orders.clock.now();
            self.waits_since.set((self.replied < self.admitted).then_some(now));
            let mut measure = self.measure.borrow_mut();
            let counted = measure.replies;
            while let (Some(run), true) = (self.waiting.front_mut(), count > 0) {
                let answered = run.count.min(count);
                measure.record(Run { count: answered, ..*run }, now);
                run.count -= answered;
                count -= answered;
                if run.count == 0 {
                    self.waiting.pop_front();
                }
            }
            self.counted += measure.replies - counted;
        }
        Ok(taken)
    }

    /// Fast path: compares a batch of replies with the expected bytes. Returns `None` after the
    /// first difference; from then on, replies are checked one by one.
    fn expected_replies(&mut self, bytes: &[u8]) -> Option<usize> {
        let lines = &self.orders.lines;
        let most = (self.admitted - self.replied) * lines.stride();
        self.is_exact &= bytes.len() as u64 <= most && lines.are_answers(self.member, self.replied, bytes);
        let count = self.is_exact.then(|| bytes.len() as u64 / lines.stride())?;
        self.replied += count;
        Some((count * lines.stride()) as usize)
    }

    fn any_replies(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let mut taken = 0;
        while let Some(verdict) = self.scanner.scan(&bytes[taken..]) {
            let reply = &bytes[taken..taken + verdict.content.end];
            if verdict.kind != Kind::Line {
                return Err(self.badly_framed(verdict.kind));
            }
            if self.replied == self.admitted {
                let replies = show::counted(self.replied, "reply");
                let line = shown(reply);
                return Err(Failure::expectation(format_args!("unexpected line after {replies}: {line}")));
            }
            if !self.orders.lines.is_answer(self.member, self.replied, reply) {
                return Err(self.wrong(reply));
            }
            self.replied += 1;
            taken += verdict.consumed;
        }
        Ok(taken)
    }

    fn left(&mut self) -> Failure {
        let cut = self.held.len();
        match self.scanner.scan_eof(&self.held) {
            Some(_) => Failure::cut(cut),
            None => Failure::missing(self.replied, self.admitted),
        }
    }

    fn badly_framed(&self, kind: Kind) -> Failure {
        let nth = self.replied + 1;
        Failure::framing(match kind {
            Kind::TooLong => {
                let limit = show::bytes(self.scanner.max_length().unwrap_or(usize::MAX));
                format!("reply {nth} is longer than the limit of {limit} (--max-length)")
            }
            _ => format!("reply {nth} contains a CR or LF that is not part of a CRLF"),
        })
    }

    fn wrong(&self, reply: &[u8]) -> Failure {
        let lines = &self.orders.lines;
        let (nth, expected) = (self.replied + 1, lines.expected(self.member, self.replied));
        let is_not = format!(
            "reply {nth} is not {}: got {}, expected {}",
            lines.expectation(),
            show::bytes(reply.len()),
            expected.len()
        );
        if lines.is_of_any_content() {
            return Failure::expectation(is_not);
        }
        let same = reply.iter().zip(&expected).take_while(|(reply, expected)| reply == expected).count();
        Failure::expectation(format_args!(
            "{is_not}; from byte {same} on, got {}, expected {}",
            shown(&reply[same..]),
            shown(&expected[same..])
        ))
    }
}

/// When the next line may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    At(u64),
    WithReply,
    Never,
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};

    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

fn shown(bytes: &[u8]) -> String {
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("\"{}{more}\"", show::escaped(&bytes[..bytes.len().min(SHOWN)]))
}
