//! Predicts the outcome of a connection from the contract alone. It uses the naive line splitter,
//! the reply function of the handlers, and the deadlines. In the simulation only waiting takes
//! time.

use bytes::BytesMut;
use lineframe::{EncodeError, LineCodec, LineError, TimeoutKind};

use super::plan::{Config, Handler, Ms, NEVER, Peer, Reads, Step};
use crate::model::{self, Bad, Item};

/// Returns the reply to a line: its content in letters that no delimiter contains.
pub fn reply_to(line: &[u8], repeats: usize) -> Vec<u8> {
    let letters = line.iter().flat_map(|byte| [b'G' + (byte >> 4), b'G' + (byte & 15)]);
    letters.collect::<Vec<_>>().repeat(repeats)
}

pub fn codec(config: &Config) -> LineCodec {
    model::builder(&config.model).max_encoded_length(1 << 20).build()
}

/// The plan has no certain outcome: two events happen at the same time, or one never happens.
#[derive(Debug)]
pub struct Undecided;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    Failed,
    Panicked,
    TimedOut(TimeoutKind),
    Aborted,
}

#[derive(Clone, Debug)]
pub struct Expected {
    /// The items that the handler gets.
    pub items: Vec<Item>,
    /// The items that the server counts, which it does batch by batch.
    pub counted: Vec<Item>,
    pub lines_written: u64,
    pub written: Vec<u8>,
    /// The number of written bytes that the server sends.
    pub sent: usize,
    /// The number of written bytes that the peer receives.
    pub received: usize,
    /// When the peer receives how many bytes, if it reads immediately.
    pub times: Vec<(Ms, usize)>,
    /// When the peer can see the end of the stream.
    pub fin_at: Option<Ms>,
    /// When the handler started, if it did.
    pub began_at: Option<Ms>,
    pub end: End,
    pub ended_at: Ms,
    /// `true` if the connection returned to the server.
    pub has_returned: bool,
    /// The number of bytes read, if all input was read.
    pub bytes_read: Option<usize>,
}

enum Stop {
    Undecided,
    End(End),
}

/// An item, and the condition for its delivery.
struct Due {
    item: Item,
    start: usize,
    /// The end of its line in the stream, or `usize::MAX` if the line has no end.
    end: usize,
    /// The number of bytes that must have arrived; `None` means EOF.
    prompt: Option<usize>,
}

struct Forecaster<'a> {
    config: &'a Config,
    peer: &'a Peer,
    now: Ms,
    drain_at: Ms,
    /// The time at which the drain timeout expires.
    horizon: Ms,
    due: Vec<Due>,
    arrivals: Vec<(Ms, usize)>,
    eof_at: Ms,
    reset_at: Ms,
    /// The number of bytes read so far after each read, and its time.
    reads: Vec<(usize, Ms)>,
    is_at_eof: bool,
    is_drained: bool,
    next: usize,
    counted: usize,
    /// Bytes written but not received.
    underway: usize,
    /// The time from which `write_timeout` counts: when output started to wait, or when the peer
    /// last made room.
    waits_since: Option<Ms>,
    received: usize,
    written: BytesMut,
    lines_written: u64,
    times: Vec<(Ms, usize)>,
}

pub fn expect(
    config: &Config,
    peer: &Peer,
    accepted_at: Ms,
    drain_at: Ms,
    horizon: Ms,
) -> Result<Expected, Undecided> {
    let (stream, arrivals) = peer.stream();
    let mut run = Forecaster {
        config,
        peer,
        now: accepted_at,
        drain_at,
        horizon,
        due: due(config, &stream),
        arrivals,
        eof_at: peer.when(|step| matches!(step, Step::HalfClose)),
        reset_at: peer.when(|step| matches!(step, Step::Reset)),
        reads: Vec::new(),
        is_at_eof: false,
        is_drained: false,
        next: 0,
        counted: 0,
        underway: 0,
        waits_since: None,
        received: 0,
        written: BytesMut::new(),
        lines_written: 0,
        times: Vec::new(),
    };
    // A handshake that runs when the shutdown starts, or starts later, gets at most 1 s more.
    let deadline = config.handshake_timeout.map_or(NEVER, |after| accepted_at.saturating_add(after));
    let deadline = deadline.min(drain_at.max(accepted_at).saturating_add(1000));
    let began_at = accepted_at.saturating_add(config.handshake.unwrap_or(0));
    let (end, ended_at) = match config.handshake {
        Some(_) if deadline < horizon => (End::TimedOut(TimeoutKind::Handshake), deadline),
        _ => (End::Aborted, horizon),
    };
    let meets = |at: Ms| began_at == at || accepted_at == at || ended_at == at;
    if run.reset_at <= began_at.min(ended_at)
        || began_at == ended_at
        || accepted_at == horizon
        || config.handshake.is_some()
            && (deadline == horizon || run.arrivals.iter().any(|(at, _)| meets(*at)))
    {
        return Err(Undecided);
    }
    if began_at > ended_at {
        return Ok(run.never_begins(end, ended_at));
    }
    run.now = began_at;
    run.finish()
}

fn due(config: &Config, stream: &[u8]) -> Vec<Due> {
    let mut due = Vec::new();
    let mut start = 0;
    while let Some((item, taken)) = config.model.first_item(&stream[start..]) {
        let end = start + taken;
        let is_terminated = config.model.first_line(&stream[start..]).is_some();
        let too_long = start + config.model.max_length + longest_terminator(config);
        let prompt = match &item {
            Err(Bad::TooLong(_)) if too_long <= end => Some(too_long),
            _ => is_terminated.then_some(end),
        };
        due.push(Due { item, start, end: if is_terminated { end } else { usize::MAX }, prompt });
        start = end;
    }
    due
}

fn longest_terminator(config: &Config) -> usize {
    match &config.model.kind {
        model::Kind::Newline | model::Kind::CrLf => 2,
        model::Kind::Sequence(sequence) => sequence.len(),
        _ => 1,
    }
}

impl Forecaster<'_> {
    /// Returns the outcome of a connection whose handler never starts.
    fn never_begins(self, end: End, ended_at: Ms) -> Expected {
        Expected {
            items: Vec::new(),
            counted: Vec::new(),
            lines_written: 0,
            written: Vec::new(),
            sent: 0,
            received: 0,
            times: Vec::new(),
            fin_at: None,
            began_at: None,
            end,
            ended_at,
            has_returned: true,
            bytes_read: Some(0),
        }
    }

    fn finish(mut self) -> Result<Expected, Undecided> {
        let began_at = self.now;
        let mut fin_at = None;
        let mut handled = None;
        let stopped = self.handle().and_then(|end| {
            handled = Some(end);
            self.block(0)?;
            fin_at = Some(self.now);
            self.linger()
        });
        let end = match (stopped, handled) {
            (Ok(()), Some(end)) => end,
            // The handler has returned, so later errors of the stream are not reported.
            (Err(Stop::End(End::Failed)), Some(end)) => end,
            (Err(Stop::End(End::Failed)), None) => self.for_the_handler(End::Failed),
            (Err(Stop::End(end)), _) => end,
            (Err(Stop::Undecided), _) | (Ok(()), None) => return Err(Undecided),
        };
        let unread = fin_at.is_none() && self.arrived() > self.read();
        let in_pipe = self.underway.min(self.peer.capacity);
        let is_reset = self.reset_at <= self.now;
        let sent = self.received + in_pipe;
        let received = match self.peer.reads {
            Reads::Never => 0,
            _ if unread || is_reset => self.received,
            // A reset may arrive while the last bytes are read.
            Reads::Slowly { .. } if self.reset_at != NEVER && in_pipe > 0 => return Err(Undecided),
            _ => sent,
        };
        let bytes_read = (self.is_at_eof && self.next == self.due.len()).then(|| self.read());
        let items = |count: usize| self.due[..count].iter().map(|due| due.item.clone()).collect();
        Ok(Expected {
            items: items(self.next),
            counted: items(self.counted),
            lines_written: self.lines_written,
            written: self.written.to_vec(),
            sent,
            received,
            times: self.times,
            fin_at,
            began_at: Some(began_at),
            end,
            ended_at: self.now,
            has_returned: handled.is_some() || end != End::Aborted,
            bytes_read,
        })
    }

    /// Returns the outcome that the server sees. If a task owns the connection, the server does not
    /// see its errors.
    fn for_the_handler(&self, end: End) -> End {
        match self.config.handler {
            Handler::Spawned => End::Done,
            _ => end,
        }
    }

    /// Runs the handler until it drops the connection regularly.
    fn handle(&mut self) -> Result<End, Stop> {
        let mut bad_lines = 0;
        for answered in 0.. {
            match self.config.handler {
                Handler::Early(most) if answered == most => return Ok(End::Done),
                Handler::Failing(most) if answered == most => return Ok(End::Failed),
                Handler::Panicking(most) if answered == most => return Ok(End::Panicked),
                _ => {}
            }
            if let Handler::Reply | Handler::ReplyInto = self.config.handler {
                // `reply` takes a line only if there is room for its reply.
                self.block(self.config.max_unsent)?;
            }
            if self.is_over_bad_lines(bad_lines) {
                self.block(0)?;
                return Ok(self.for_the_handler(End::Failed));
            }
            if !self.read_item()? {
                self.block(0)?;
                return Ok(End::Done);
            }
            self.count_batch(bad_lines);
            let item = self.due[self.next].item.clone();
            self.next += 1;
            bad_lines += u64::from(item.is_err());
            if let Handler::Sleeper(delay) = self.config.handler {
                self.sleep(delay)?;
            }
            self.write(&item)?;
        }
        unreachable!()
    }

    fn is_over_bad_lines(&self, bad_lines: u64) -> bool {
        self.config.max_bad_lines.is_some_and(|most| bad_lines > most)
    }

    /// Counts a batch when it is handed over: as many available lines as the handler takes, up to
    /// the bad line that exceeds the limit.
    fn count_batch(&mut self, mut bad_lines: u64) {
        let most = match self.config.handler {
            Handler::Batches(most) => most,
            _ => 1,
        };
        if self.counted > self.next {
            return;
        }
        loop {
            bad_lines += u64::from(self.due[self.counted].item.is_err());
            self.counted += 1;
            let is_full = self.counted - self.next == most || self.is_over_bad_lines(bad_lines);
            if is_full || !self.is_available(self.counted) {
                return;
            }
        }
    }

    fn arrived(&self) -> usize {
        self.arrivals.iter().take_while(|(at, _)| *at <= self.now).map(|(_, end)| *end).last().unwrap_or(0)
    }

    fn read(&self) -> usize {
        self.reads.last().map_or(0, |(end, _)| *end)
    }

    fn is_available(&self, item: usize) -> bool {
        self.due.get(item).is_some_and(|due| {
            due.prompt.map_or(self.is_at_eof, |prompt| prompt <= self.read() || self.is_at_eof)
        })
    }

    /// Waits for the next item. Returns `false` if there is none.
    fn read_item(&mut self) -> Result<bool, Stop> {
        loop {
            if self.is_available(self.next) {
                return Ok(true);
            }
            if self.is_at_eof {
                return Ok(false);
            }
            if self.is_drained {
                self.is_clear()?;
                return Ok(false);
            }
            if !self.sends_each() {
                self.block(self.config.max_unsent)?;
            }
            let arrived = self.arrived();
            let has_more = arrived > self.read();
            if has_more {
                self.reads.push((arrived, self.now));
            }
            let is_over = self.eof_at <= self.now;
            if self.drain_at <= self.now {
                // Input received until the shutdown is answered, later input is not.
                self.is_at_eof = is_over;
                self.is_drained = true;
            } else if is_over && !has_more {
                self.is_at_eof = true;
            } else if !has_more {
                self.is_clear()?;
                self.wait_for_more()?;
            }
        }
    }

    /// `TooLong` must be reported when the excess is certain, but may be reported earlier. In
    /// between, the outcome is undecided.
    fn is_clear(&self) -> Result<(), Stop> {
        match self.due.get(self.next) {
            Some(Due { item: Err(Bad::TooLong(_)), start, .. })
                if self.read() > start + self.config.model.max_length =>
            {
                Err(Stop::Undecided)
            }
            _ => Ok(()),
        }
    }

    fn wait_for_more(&mut self) -> Result<(), Stop> {
        let arrival = self.arrivals.iter().map(|(at, _)| *at).find(|at| *at > self.now).unwrap_or(NEVER);
        let event = arrival.min(self.eof_at).min(self.reset_at).min(self.drain_at);
        let (timeout, deadline) = self.deadline();
        // A little output may be unsent at the same time.
        while self.is_unsent() {
            let (read, late) = (self.next_slow_read(), self.write_deadline());
            let first = event.min(deadline);
            match () {
                () if first < read && first < late => break,
                () if read < late && read < first => self.pass(read),
                () if late < read && late < first => {
                    self.pass(late);
                    return Err(Stop::End(End::TimedOut(TimeoutKind::Write)));
                }
                () if read.min(late).min(first) == NEVER => break,
                () if late > first => break,
                () => return Err(Stop::Undecided),
            }
        }
        match deadline {
            NEVER if event == NEVER => Err(Stop::Undecided),
            _ if deadline == event => Err(Stop::Undecided),
            _ if deadline < event => {
                let at = deadline.max(self.now);
                self.pass(at - 1);
                // A slow peer that reads at this very moment may or may not make room in time.
                let is_close = self.underway > 0 && self.next_slow_read() == at;
                self.pass(at);
                Err(if is_close { Stop::Undecided } else { Stop::End(End::TimedOut(timeout)) })
            }
            _ => {
                self.pass(event);
                if event == self.reset_at { Err(Stop::End(End::Failed)) } else { Ok(()) }
            }
        }
    }

    /// Returns the line deadline if a line has begun, otherwise the idle deadline.
    fn deadline(&self) -> (TimeoutKind, Ms) {
        let begun_line = match self.next.checked_sub(1).map(|last| &self.due[last]) {
            // The line was reported as too long, and its rest is being skipped.
            Some(last) if last.end > self.read() => Some(last.start),
            Some(last) => (last.end < self.read()).then_some(last.end),
            None => (self.read() > 0).then_some(0),
        };
        let ends = |since: Ms, after: Option<Ms>| after.map_or(NEVER, |after| since + after);
        match begun_line {
            None => (TimeoutKind::Idle, ends(self.now, self.config.idle_timeout)),
            Some(start) => {
                let begun = self.reads.iter().find(|(end, _)| *end > start).map_or(self.now, |(_, at)| *at);
                (TimeoutKind::Line, ends(begun, self.config.line_timeout))
            }
        }
    }

    fn sleep(&mut self, delay: Ms) -> Result<(), Stop> {
        let until = self.now + delay;
        if until >= self.horizon {
            self.pass(self.horizon);
            return Err(if until == self.horizon { Stop::Undecided } else { Stop::End(End::Aborted) });
        }
        self.pass(until);
        // Input that arrives at this moment may or may not belong to the next read.
        match self.arrivals.iter().any(|(at, _)| *at == until) {
            true => Err(Stop::Undecided),
            false => Ok(()),
        }
    }

    fn sends_each(&self) -> bool {
        matches!(self.config.handler, Handler::Sends | Handler::Split(_) | Handler::Tasks)
    }

    fn write(&mut self, item: &Item) -> Result<(), Stop> {
        let reply = match item {
            Ok(line) => reply_to(line, self.config.repeats),
            Err(bad) => bad_reply(bad, self.config).into_bytes(),
        };
        if !self.sends_each() {
            self.block(self.config.max_unsent)?;
        }
        let before = self.written.len();
        let encoded: Result<(), EncodeError> = codec(self.config).encode_line(&reply, &mut self.written);
        encoded.expect("replies contain no delimiter");
        self.lines_written += 1;
        match self.peer.reads {
            Reads::Eagerly { .. } => {
                self.received = self.written.len();
                self.times.push((self.now, self.received));
            }
            _ => self.underway += self.written.len() - before,
        }
        if self.is_unsent() {
            self.waits_since.get_or_insert(self.now);
        }
        if self.sends_each() { self.block(0) } else { Ok(()) }
    }

    /// Waits until at most `left` bytes are unsent.
    fn block(&mut self, left: usize) -> Result<(), Stop> {
        while self.underway > self.peer.capacity + left {
            let deadline = self.write_deadline();
            let event = self.next_slow_read().min(self.reset_at).min(self.horizon);
            match event {
                _ if deadline == event => return Err(Stop::Undecided),
                _ if deadline < event => {
                    self.pass(deadline);
                    return Err(Stop::End(End::TimedOut(TimeoutKind::Write)));
                }
                _ => self.pass(event),
            }
            if event == self.horizon {
                return Err(Stop::End(End::Aborted));
            }
            if event == self.reset_at {
                return Err(Stop::End(End::Failed));
            }
        }
        Ok(())
    }

    fn is_unsent(&self) -> bool {
        self.underway > self.peer.capacity
    }

    /// Returns the write deadline, which restarts with each byte that the stream takes.
    fn write_deadline(&self) -> Ms {
        let deadline = self.waits_since.zip(self.config.write_timeout);
        deadline.map_or(NEVER, |(since, after)| since + after)
    }

    fn next_slow_read(&self) -> Ms {
        match self.peer.reads {
            Reads::Slowly { every, .. } => {
                let first = self.peer.connect + 1;
                first + (self.now + 1).saturating_sub(first).div_ceil(every) * every
            }
            _ => NEVER,
        }
    }

    /// Advances the time. A slow peer reads meanwhile.
    fn pass(&mut self, until: Ms) {
        while let Reads::Slowly { most, .. } = self.peer.reads {
            let at = self.next_slow_read();
            if at > until || self.underway == 0 {
                break;
            }
            let count = most.min(self.underway).min(self.peer.capacity);
            let made_room = self.is_unsent();
            self.underway -= count;
            self.received += count;
            self.now = at;
            if made_room {
                self.waits_since = self.is_unsent().then_some(at);
            }
        }
        self.now = until;
    }

    /// Reads and drops further input until the peer or the linger timeout ends it.
    fn linger(&mut self) -> Result<(), Stop> {
        if self.is_at_eof {
            return Ok(());
        }
        let closed = match self.peer.reads {
            Reads::Eagerly { closes_at_end: true } => self.now,
            _ => self.eof_at.min(self.reset_at).max(self.now),
        };
        let until = closed.min(self.now + self.config.linger_timeout);
        if until == self.horizon {
            return Err(Stop::Undecided);
        }
        // A connection closed here has sent all its replies, so it is not aborted.
        self.pass(until.min(self.horizon));
        Ok(())
    }
}

fn bad_reply(bad: &Bad, config: &Config) -> String {
    let mut codec = model::builder(&config.model).build();
    let error: LineError = match bad {
        // Other tests check the text of error replies. Here the codec itself provides it.
        Bad::TooLong(_) => provoke(&mut codec, &[b'x'; 4096]),
        Bad::Unterminated(line) => provoke(&mut codec, line),
        Bad::BareTerminator(line) => provoke(&mut codec, &[line, &b"\r\n"[..]].concat()),
        Bad::Incomplete(..) => unreachable!("no handler reads counted bytes"),
    };
    error.reply()
}

fn provoke(codec: &mut LineCodec, stream: &[u8]) -> LineError {
    let mut buffer = BytesMut::from(stream);
    match model::next(codec, &mut buffer).or_else(|| model::next_at_eof(codec, &mut buffer)) {
        Some(Err(bad)) => bad,
        item => panic!("not bad: {item:?}"),
    }
}
