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

const RESET: &str = "connection reset by the server";

/// Shared state of the sending and the receiving future. Two futures, so that neither direction
/// waits for the other.
pub(super) struct Exchange<'a> {
    options: &'a Options,
    escapes: bool,
    /// Lines read from stdin, without a bad one.
    lines: Cell<u64>,
    /// Bytes sent.
    sent: Cell<u64>,
    /// Complete replies printed.
    received: Cell<u64>,
    is_all_sent: Cell<bool>,
    /// The server closed the connection before it accepted all lines.
    is_refused: Cell<bool>,
    /// The server reset the connection.
    is_reset: Cell<bool>,
    /// Why reading stdin stopped before its end.
    input_failed: Cell<Option<Failure>>,
    /// A write is waiting for the server to read.
    waits_for_room: Cell<bool>,
    waits_for_reply: Cell<bool>,
    /// Time of the last progress in either direction.
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

    /// Sends the lines of `input`. A fault of `input` stops sending; `judge` reports the fault
    /// after the replies to the earlier lines have arrived.
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
        self.mark_progress();
        self.is_all_sent.set(true);
        match done {
            // Not an error yet: the server may have replied before it closed the connection.
            Err(error) if is_gone(&error) => self.is_refused.set(true),
            Err(error) => return Err(Failure::other("cannot send", error)),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Returns the bytes of these lines, with a terminator after each line.
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

    /// Prints replies until there are enough or the server closes the connection.
    pub(super) async fn receive(&self, replies: &mut Lines<impl AsyncRead + Unpin>) -> Result<(), Failure> {
        while !self.is_over() {
            self.waits_for_reply.set(true);
            let batch = replies.next().await;
            self.waits_for_reply.set(false);
            match batch {
                Ok(Some(batch)) => self.take(&batch, replies).await?,
                Ok(None) => break,
                // Print the replies received before the reset; `judge` reports it as a failure.
                Err(error) if is_gone(&error) => {
                    self.is_reset.set(true);
                    replies.end();
                }
                Err(error) => return Err(Failure::other("cannot receive", error)),
            }
            // Time spent writing to stdout does not count against the server.
            self.mark_progress();
        }
        Ok(())
    }

    /// Prints the replies of a batch and checks each reply.
    async fn take<R: AsyncRead + Unpin>(&self, batch: &Batch, replies: &Lines<R>) -> Result<(), Failure> {
        let mut failed = None;
        let mut printed = Vec::new();
        let mut received = self.received.get();
        for line in &batch.lines {
            // Print surplus replies only while lines are still being sent.
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
                    // Do not print the kept beginning of a bad reply.
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

    /// Prints the received part of a reply that is no longer awaited.
    pub(super) async fn print_begun(&self, begun: &[u8]) -> Result<(), Failure> {
        match self.escapes {
            true if !begun.is_empty() => print((show::escaped(begun) + "\n").as_bytes()).await,
            _ => print(begun).await,
        }
    }

    /// Returns the failure for a reply that does not match `--expect`. Quotes at most 100 bytes.
    fn mismatch(&self, reply: u64, content: &[u8]) -> Option<Failure> {
        let expected = self.options.expect.as_ref().filter(|regex| !regex.is_match(content))?;
        let (shown, more) = match content.len() {
            0..=100 => (content, ""),
            _ => (&content[..100], " ..."),
        };
        let shown = show::escaped(shown);
        Some(Failure::expectation(format_args!("reply {reply} does not match {expected}: {shown}{more}")))
    }

    /// Returns the number of replies to wait for, or `None` if only the end of the stream decides.
    fn wanted(&self) -> Option<u64> {
        self.options.replies.or_else(|| (self.options.end == End::Replies).then(|| self.lines.get()))
    }

    fn is_enough(&self, received: u64) -> bool {
        self.is_all_sent.get() && self.wanted().is_some_and(|wanted| received >= wanted)
    }

    /// Returns whether the exchange is complete.
    pub(super) fn is_over(&self) -> bool {
        let is_close = self.options.end == End::Close && self.is_all_sent.get();
        is_close || self.is_enough(self.received.get())
    }

    /// Returns the result of an exchange that ended without an error.
    pub(super) fn judge(&self) -> Result<(), Failure> {
        let (lines, received) = (self.lines.get(), self.received.get());
        if let Some(wanted) = self.wanted().filter(|wanted| received < *wanted) {
            return Err(Failure::missing(received, wanted));
        }
        if self.is_reset.get() {
            let received = counted(received, "reply");
            return Err(Failure::other(RESET, format_args!("{received} received before the reset")));
        }
        if self.is_refused.get() {
            return Err(Failure::other("cannot send all lines", "the server closed the connection"));
        }
        if let Some(failure) = self.input_failed.take() {
            return Err(failure);
        }
        match &self.options.expect {
            Some(expected) if received == 0 => Err(Failure::expectation(format_args!(
                "no reply; --expect needs one that matches {expected}"
            ))),
            // A server may refuse a client by closing the connection without a reply.
            None if self.is_unanswered() => Err(Failure::other(
                format_args!("no reply to {}", counted(lines, "line")),
                "the server closed the connection; use --replies 0 if no reply is expected",
            )),
            _ => Ok(()),
        }
    }

    /// Returns whether `--end half-close` waited for the server, which closed the connection
    /// without any reply, although lines were sent or still pending.
    fn is_unanswered(&self) -> bool {
        let is_asked = self.lines.get() > 0 || !self.is_all_sent.get();
        self.options.end == End::HalfClose && self.wanted().is_none() && self.received.get() == 0 && is_asked
    }

    /// Appends `RESET` to the message of a failure if the connection was reset.
    pub(super) fn name_reset(&self, failure: Failure) -> Failure {
        match self.is_reset.get() && !failure.message().contains(RESET) {
            true => failure.and(RESET),
            false => failure,
        }
    }

    pub(super) fn mark_progress(&self) {
        self.last.set(Instant::now());
    }

    pub(super) fn has_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
        self.mark_progress();
    }

    /// Returns the number of lines read from stdin, bytes sent and replies received.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.lines.get(), self.sent.get(), self.received.get())
    }

    /// Returns the failure when the server exceeds `--timeout`, not counting stdin and stdout.
    pub(super) async fn stalls(&self, arrived: &Arrived) -> Failure {
        let Some(timeout) = self.options.timeout.0 else { return pending().await };
        loop {
            sleep_until(later(self.last.get(), timeout)).await;
            if later(self.last.get(), timeout) <= Instant::now() {
                // If this process was stopped, bytes that arrived in time may still be unread.
                if self.waits_for_server() && !arrived.has_some() {
                    break;
                }
                self.mark_progress();
            }
        }
        let (timeout, received) = (humantime::format_duration(timeout), self.received.get());
        let replies = match self.wanted() {
            Some(wanted) => format!("{received} of {}", counted(wanted, "reply")),
            None => counted(received, "reply"),
        };
        Failure::timed_out(format_args!(
            "the server neither accepted nor sent a byte for {timeout}, after {replies}; \
             raise the limit with --timeout"
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

/// Returns whether the error means that the server closed or reset the connection.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};

    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}
