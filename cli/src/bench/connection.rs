//! One connection under load.

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

/// The largest read: a byte more than many servers send at once. Tokio asks the system again behind a read that has filled its room.
const READ: usize = 64 * 1024 + 1;

/// The beginning of a reply is read on behind where it is no longer than this, and else copied together.
const BEFORE: usize = 64 * 1024;

/// So much of a wrong reply is shown.
const SHOWN: usize = 30;

/// In nanoseconds: what is due just before the end may be sent so long after it.
const GRACE: u64 = 100_000_000;

/// What every connection of a thread is given.
pub(super) struct Orders {
    pub(super) lines: Arc<Lines>,
    pub(super) scanner: Scanner,
    pub(super) window: u64,
    pub(super) clock: Clock,
    /// When what is sent begins to count.
    pub(super) measured_from: u64,
    pub(super) deadline: Deadline,
    pub(super) timeout: Duration,
    /// What all of them read through.
    pub(super) room: RefCell<Room>,
    /// What all of them write from, if their lines are numbered.
    pub(super) outgoing: RefCell<Vec<u8>>,
}

pub(super) struct Room(Vec<u8>);

impl Default for Room {
    fn default() -> Self {
        Self(vec![0; BEFORE + READ])
    }
}

/// A connection and how far it is: `replied <= admitted`, and `written` is of the bytes of those admitted.
pub(super) struct Connection {
    io: AnyIo,
    member: Member,
    orders: Rc<Orders>,
    measure: Rc<RefCell<Measure>>,
    pace: Option<Pace>,
    /// How many more lines that count may be sent.
    quota: u64,
    admitted: u64,
    replied: u64,
    /// How many of the replies count.
    counted: u64,
    written: u64,
    /// So far each reply was the expected one to the byte, with its terminator.
    is_exact: bool,
    scanner: Scanner,
    /// The beginning of a reply whose end has not come.
    held: BytesMut,
    /// The lines without a reply, those sent together as one.
    waiting: VecDeque<Run>,
    /// Where something is to be answered: since when nothing was.
    waits_since: Rc<Cell<Option<u64>>>,
}

/// How a connection ended before its time.
pub(super) struct Broken {
    pub(super) failure: Failure,
    /// On the clock.
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

    /// Sends and receives until its lines or its time are over and everything is answered. How many lines were due by then
    /// and not sent.
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
            // If this process was stopped, the reply of a punctual server may still be unread.
            if !has_arrived(&self.io) {
                let timeout = humantime::format_duration(orders.timeout);
                break Err(Failure::timed_out(format_args!("no reply within {timeout} (--timeout)")));
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
                // What the server has said before it left tells more.
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

    /// Lets as many lines go as are due and the window has room for.
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
        let room = &mut *self.orders.outgoing.borrow_mut();
        while self.written < to {
            let bytes = self.orders.lines.bytes(self.member, self.written, to, room);
            self.written += ready!(Pin::new(&mut self.io).poll_write(cx, bytes))? as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready where something has come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        let orders = self.orders.clone();
        let Room(room) = &mut *orders.room.borrow_mut();
        let mut buffer = ReadBuf::new(&mut room[BEFORE..]);
        let count = match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(())) => buffer.filled().len(),
            Poll::Ready(Err(error)) if is_gone(&error) => 0,
            Poll::Ready(Err(error)) => return Err(Failure::other("cannot receive", error)),
        };
        if count == 0 {
            return Err(self.left());
        }
        let end = BEFORE + count;
        match BEFORE.checked_sub(self.held.len()) {
            Some(start) => {
                room[start..BEFORE].copy_from_slice(&self.held);
                let taken = self.replies(&room[start..end])?;
                self.held.clear();
                self.held.extend_from_slice(&room[start + taken..end]);
            }
            None => {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(&room[BEFORE..end]);
                let taken = self.replies(&held)?;
                held.advance(taken);
                self.held = held;
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Takes the replies at the front of `bytes` and tells how many bytes they are.
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

    /// The same where nothing but what was expected has come, many of them at once. None: they have to be looked at one by one, and from
    /// then on.
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
                return Err(Failure::expectation(format_args!(
                    "a line that is no reply, after {} replies: {}",
                    self.replied,
                    shown(reply)
                )));
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
                format!("reply {nth} is longer than {limit}, the limit (--max-length)")
            }
            _ => format!("reply {nth} has a CR or LF in it that is not part of a CRLF"),
        })
    }

    fn wrong(&self, reply: &[u8]) -> Failure {
        let lines = &self.orders.lines;
        let (nth, expected) = (self.replied + 1, lines.expected(self.member, self.replied));
        let is_not = format!(
            "reply {nth} is not {}: {}, not {}",
            lines.expectation(),
            show::bytes(reply.len()),
            expected.len()
        );
        if lines.is_of_any_content() {
            return Failure::expectation(is_not);
        }
        let same = reply.iter().zip(&expected).take_while(|(reply, expected)| reply == expected).count();
        Failure::expectation(format_args!(
            "{is_not}; from byte {same} on {} and not {}",
            shown(&reply[same..]),
            shown(&expected[same..])
        ))
    }
}

/// When the next line may go.
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
