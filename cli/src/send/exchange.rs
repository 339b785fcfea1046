use std::cell::Cell;
use std::future::pending;
use std::io;

use bytes::{Bytes, BytesMut};
use lineframe::Unterminated;
use lineframe::scan::Kind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::{End, Options};
use crate::failure::Failure;
use crate::lines::{Batch, Line, Lines};
use crate::show::{self, counted};
use crate::stream::Arrived;
use crate::units::later;

const RESET: &str = "connection reset";

/// What has become of both directions so far, and whether that is enough. Each has a future of its own, so that neither
/// waits for the other.
pub(super) struct Exchange<'a> {
    options: &'a Options,
    escapes: bool,
    /// Lines taken from stdin to be sent.
    lines: Cell<u64>,
    /// Bytes sent.
    sent: Cell<u64>,
    /// Whole replies printed.
    received: Cell<u64>,
    is_all_sent: Cell<bool>,
    /// The server has left before it took everything.
    is_refused: Cell<bool>,
    /// The server has reset the connection.
    is_reset: Cell<bool>,
    /// Why stdin ended, if not with its end.
    input_failed: Cell<Option<Failure>>,
    waits_for_room: Cell<bool>,
    waits_for_reply: Cell<bool>,
    /// When something last went on.
    last: Cell<Instant>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            options,
            escapes: options.escaping.is_on(&io::stdout()),
            lines: Cell::new(0),
            sent: Cell::new(0),
            received: Cell::new(0),
            is_all_sent: Cell::new(false),
            is_refused: Cell::new(false),
            is_reset: Cell::new(false),
            input_failed: Cell::new(None),
            waits_for_room: Cell::new(false),
            waits_for_reply: Cell::new(false),
            last: Cell::new(Instant::now()),
        }
    }

    /// Sends the lines of `input`. What is wrong with `input` ends that, and is told when the replies to the lines before
    /// have come.
    pub(super) async fn send(
        &self,
        input: impl AsyncRead + Unpin,
        mut to_server: impl AsyncWrite + Unpin,
    ) -> Result<(), Failure> {
        let mut input = Lines::new(input, self.options.framing.scanner(Unterminated::Deliver));
        let mut done = Ok(());
        let mut input_failed = None;
        while done.is_ok() && input_failed.is_none() {
            match input.next().await {
                Ok(Some(batch)) => {
                    let good = batch.lines.iter().take_while(|line| line.kind == Kind::Line).count();
                    let lines = self.lines.get() + good as u64;
                    self.lines.set(lines);
                    if let Some(fault) = batch.lines.get(good).and_then(|line| input.fault(line.kind)) {
                        let why = format!("line {} of stdin: {fault}", lines + 1);
                        input_failed = Some(Failure::framing(why));
                    }
                    self.waits_for_room.set(true);
                    done = to_server.write_all(&self.as_sent(&batch, &batch.lines[..good])).await;
                    self.waits_for_room.set(false);
                }
                Ok(None) => break,
                Err(error) => input_failed = Some(Failure::other("cannot read stdin", error)),
            }
        }
        self.input_failed.set(input_failed);
        if done.is_ok() && self.options.end != End::Replies {
            done = to_server.shutdown().await;
        }
        self.goes_on();
        self.is_all_sent.set(true);
        match done {
            // What it has said before it left tells the rest.
            Err(error) if is_gone(&error) => self.is_refused.set(true),
            Err(error) => return Err(Failure::other("cannot send", error)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// The bytes of these lines, each with a terminator.
    fn as_sent(&self, batch: &Batch, lines: &[Line]) -> Bytes {
        let terminator = self.options.framing.terminator();
        let Some(last) = lines.last() else { return Bytes::new() };
        if self.options.framing.rewrites() {
            let mut bytes = BytesMut::with_capacity(batch.bytes.len() + lines.len());
            for line in lines {
                bytes.extend_from_slice(&batch.bytes[line.content.clone()]);
                bytes.extend_from_slice(terminator);
            }
            return bytes.freeze();
        }
        match last.content.end == last.whole.end {
            true => [&batch.bytes[..last.whole.end], terminator].concat().into(),
            false => batch.bytes.slice(..last.whole.end),
        }
    }

    /// Prints the replies until they are enough, or the server leaves.
    pub(super) async fn receive(&self, replies: &mut Lines<impl AsyncRead + Unpin>) -> Result<(), Failure> {
        while !self.is_over() {
            self.waits_for_reply.set(true);
            let batch = replies.next().await;
            self.waits_for_reply.set(false);
            match batch {
                Ok(Some(batch)) => self.take(&batch, replies).await?,
                Ok(None) => break,
                // What came before it is shown. It is no end, and `judge` says so.
                Err(error) if is_gone(&error) => {
                    self.is_reset.set(true);
                    replies.end();
                }
                Err(error) => return Err(Failure::other("cannot receive", error)),
            }
            // Who reads them may take as long as they like.
            self.goes_on();
        }
        Ok(())
    }

    async fn take<R: AsyncRead + Unpin>(&self, batch: &Batch, replies: &Lines<R>) -> Result<(), Failure> {
        let mut failed = None;
        let mut printed = Vec::new();
        let mut received = self.received.get();
        for line in &batch.lines {
            // What comes unasked goes with the rest while lines are sent, and not after them.
            let is_beyond = self.options.replies.is_some_and(|wanted| received >= wanted);
            if failed.is_some() || is_beyond || self.is_enough(received) {
                break;
            }
            let content = &batch.bytes[line.content.clone()];
            match line.kind {
                Kind::Line => {
                    received += 1;
                    failed = self.mismatch(received, content);
                }
                Kind::Unterminated => failed = Some(Failure::cut(content.len())),
                kind => {
                    let (reply, fault) = (received + 1, replies.fault(kind).unwrap_or_default());
                    failed = Some(Failure::framing(format_args!("reply {reply}: {fault}")));
                    // Its beginning is no reply.
                    break;
                }
            }
            match self.escapes {
                true => printed.extend_from_slice((show::escaped(content) + "\n").as_bytes()),
                false => printed.extend_from_slice(&batch.bytes[line.whole.clone()]),
            }
        }
        print(&printed).await?;
        self.received.set(received);
        failed.map_or(Ok(()), Err)
    }

    /// What has come of a reply that is not waited for any more.
    pub(super) async fn print_begun(&self, begun: &[u8]) -> Result<(), Failure> {
        match self.escapes {
            true if !begun.is_empty() => print((show::escaped(begun) + "\n").as_bytes()).await,
            _ => print(begun).await,
        }
    }

    fn mismatch(&self, reply: u64, content: &[u8]) -> Option<Failure> {
        let expected = self.options.expect.as_ref().filter(|regex| !regex.is_match(content))?;
        let (shown, more) = match content.len() {
            0..=100 => (content, ""),
            _ => (&content[..100], " ..."),
        };
        let shown = show::escaped(shown);
        Some(Failure::expectation(format_args!("reply {reply} does not match {expected}: {shown}{more}")))
    }

    /// How many replies are waited for, where that is known before the server's end.
    fn wanted(&self) -> Option<u64> {
        self.options.replies.or_else(|| (self.options.end == End::Replies).then(|| self.lines.get()))
    }

    fn is_enough(&self, received: u64) -> bool {
        self.is_all_sent.get() && self.wanted().is_some_and(|wanted| received >= wanted)
    }

    /// Whether nothing more is waited for.
    pub(super) fn is_over(&self) -> bool {
        let is_close = self.options.end == End::Close && self.is_all_sent.get();
        is_close || self.is_enough(self.received.get())
    }

    /// How it went, where it went to an end.
    pub(super) fn judge(&self) -> Result<(), Failure> {
        let (lines, received) = (self.lines.get(), self.received.get());
        if let Some(wanted) = self.wanted().filter(|wanted| received < *wanted) {
            return Err(Failure::missing(received, wanted));
        }
        if self.is_reset.get() {
            return Err(Failure::other(RESET, format_args!("after {}", counted(received, "reply"))));
        }
        if self.is_refused.get() {
            return Err(Failure::other("cannot send everything", "the server has left"));
        }
        if let Some(failure) = self.input_failed.take() {
            return Err(failure);
        }
        match &self.options.expect {
            Some(expected) if received == 0 => {
                Err(Failure::expectation(format_args!("no reply has come that could match {expected}")))
            }
            // A server that refuses a client closes the connection without a word.
            None if self.is_unanswered() => Err(Failure::other(
                format_args!("no reply to {}", counted(lines, "line")),
                "the server closed the connection; --replies 0 expects none",
            )),
            _ => Ok(()),
        }
    }

    /// Whether the server's end was waited for, and came before any reply to lines that were sent or
    /// still to come.
    fn is_unanswered(&self) -> bool {
        let is_asked = self.lines.get() > 0 || !self.is_all_sent.get();
        self.options.end == End::HalfClose && self.wanted().is_none() && self.received.get() == 0 && is_asked
    }

    /// Adds to a failure that the connection was reset, if it does not say so itself.
    pub(super) fn name_reset(&self, failure: Failure) -> Failure {
        match self.is_reset.get() && !failure.message().contains(RESET) {
            true => failure.and(RESET),
            false => failure,
        }
    }

    pub(super) fn goes_on(&self) {
        self.last.set(Instant::now());
    }

    pub(super) fn has_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.goes_on();
    }

    /// Lines taken, bytes sent, replies received.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.lines.get(), self.sent.get(), self.received.get())
    }

    /// Waits until the server has kept it waiting for too long. The time that stdin or stdout takes is not the server's.
    pub(super) async fn stalls(&self, arrived: &Arrived) -> Failure {
        let Some(timeout) = self.options.timeout.0 else { return pending().await };
        loop {
            sleep_until(later(self.last.get(), timeout)).await;
            if later(self.last.get(), timeout) <= Instant::now() {
                // If this process was stopped, the bytes of a punctual server may still be unread.
                if self.waits_for_server() && !arrived.has_some() {
                    break;
                }
                self.goes_on();
            }
        }
        let (timeout, received) = (humantime::format_duration(timeout), self.received.get());
        let of = self.wanted().map(|wanted| format!(" of {wanted}")).unwrap_or_default();
        Failure::timed_out(format_args!(
            "nothing from the server for {timeout}, after {received}{of} replies; --timeout sets the limit"
        ))
    }

    fn waits_for_server(&self) -> bool {
        let asked = self.options.end == End::Replies && self.received.get() < self.lines.get();
        self.waits_for_room.get() || (self.waits_for_reply.get() && (asked || self.is_all_sent.get()))
    }
}

async fn print(bytes: &[u8]) -> Result<(), Failure> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut stdout = tokio::io::stdout();
    stdout.write_all(bytes).await.map_err(Failure::stdout)?;
    stdout.flush().await.map_err(Failure::stdout)
}

/// Whether this is how it shows that the server has left.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};

    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}
