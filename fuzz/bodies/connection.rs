//! Calls the operations of a connection in any order, and compares the results with the oracle and
//! the bytes written.
//!
//! The calls of the stream are disturbed, and futures are dropped. No byte may be lost, duplicated
//! or reordered, and every byte must be counted.

use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lineframe::{Batch, BlockError, Connection, Error, LineCodec};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

use super::drive::Drive;
use super::oracle::Oracle;
use super::script::{self, Call, Disturbance, Does, FAILURE, Script, poll_times};
use super::{Input, Item, Scale, accounted, item, model, text_item};

/// A write waits if more than this many bytes are unsent.
const MAX_UNSENT: usize = 64 * 1024;
/// The longest write, in bytes.
const LONGEST_WRITE: usize = 16 * 1024;

pub fn run(data: &[u8]) {
    run_all(&mut Input::new(data, Scale::Small));
}

pub(super) fn run_all(input: &mut Input) {
    thread_local! {
        /// Shared by all inputs, because building a runtime takes longer than most inputs take to
        /// run. Never dropped, because the drop would use thread-locals while they are destroyed.
        static CLOCK: &'static Runtime = Box::leak(Box::new(script::clock()));
    }
    CLOCK.with(|clock| {
        let _entered = clock.enter();
        run_entered(input);
    });
}

fn run_entered(input: &mut Input) {
    let Some(mut machine) = Machine::read(input) else { return };
    while machine.is_open && machine.operate(input).is_some() {
        machine.check();
    }
    if machine.is_open && !machine.takes_apart {
        machine.finish();
    } else {
        machine.take_apart();
    }
}

struct Machine {
    script: Script,
    conn: Connection<Script>,
    oracle: Oracle,
    /// Whether the peer has sent the end of its stream.
    has_ended: bool,
    /// The largest number of bytes that the peer sends.
    max_stream: usize,
    /// No line is written after this many bytes were written.
    max_written: usize,
    /// Encodes the bytes that the connection is expected to write.
    encoder: LineCodec,
    written: Vec<u8>,
    /// Bytes written to a stream that then failed. They may be among the unsent bytes or not.
    perhaps: Vec<u8>,
    lines_written: u64,
    /// Whether the stream was flushed after the last write.
    is_flushed: bool,
    is_shut: bool,
    is_reply_due: bool,
    /// Whether the stream has not failed.
    is_open: bool,
    /// The number of bytes that the connection has read from the stream.
    received: u64,
    /// Whether the case ends with `into_parts` instead of the end of the stream.
    takes_apart: bool,
}

impl Machine {
    fn read(input: &mut Input) -> Option<Self> {
        let model = input.model()?;
        let max_block_length = input.size()?;
        let flags = input.byte()?;
        let codec = model::builder(&model).max_block_length(max_block_length).build();
        let (max_stream, max_written) = match input.scale {
            Scale::Small => (1024, 96 * 1024),
            Scale::Giant => (32 * 1024, 1024 * 1024),
        };
        let script = Script::new(&[]);
        let script = if flags & 1 == 1 { script.dripping() } else { script };
        Some(Self {
            conn: Connection::from_io(script.clone(), codec.clone()),
            script,
            oracle: Oracle::new(model, max_block_length),
            has_ended: false,
            max_stream,
            max_written,
            encoder: codec,
            written: Vec::new(),
            perhaps: Vec::new(),
            lines_written: 0,
            is_flushed: true,
            is_shut: false,
            is_reply_due: false,
            is_open: true,
            received: 0,
            takes_apart: flags & 2 == 2,
        })
    }

    /// Runs the next operation of the input. Returns `None` at the end of the input.
    fn operate(&mut self, input: &mut Input) -> Option<()> {
        match input.byte()? % 20 {
            0 | 1 => self.sends(input.chunk()?),
            2 => {
                // The peer sends this only after it has received everything written so far.
                self.script.does(Does::Awaits(self.written.len()));
                self.sends(input.chunk()?);
            }
            3 => self.ends(),
            4 | 5 => self.next_line(Drive::read(input)?),
            6 => self.next_text(Drive::read(input)?),
            7 | 8 => self.next_batch(Drive::read(input)?, input)?,
            9 => self.read_bytes(input.size()?, Drive::read(input)?),
            10 => self.skip_bytes(input.size()? as u64, Drive::read(input)?),
            11 => self.body(input.size()? as u64, input)?,
            12 => self.write_line(&input.long_chunk()?, Drive::read(input)?),
            13 => self.send_line(&input.long_chunk()?, Drive::read(input)?),
            14 => self.write_bytes(&input.long_chunk()?, Drive::read(input)?),
            15 => self.flush(Drive::read(input)?),
            16 => match input.byte()? {
                0..32 => self.shutdown(Drive::read(input)?),
                32..128 => self.set_max_length(input.size()?),
                128..160 => script::pass(Duration::from_millis(2)),
                _ => self.split(&input.long_chunk()?, Drive::read(input)?),
            },
            17 => self.request(&input.long_chunk()?, Drive::read(input)?),
            _ => self.disturb(input.byte()?),
        }
        Some(())
    }

    fn sends(&mut self, bytes: Vec<u8>) {
        if !self.has_ended && self.oracle.stream.len() + bytes.len() <= self.max_stream {
            self.oracle.stream.extend_from_slice(&bytes);
            self.script.sends(bytes);
        }
    }

    fn ends(&mut self) {
        if !self.has_ended {
            self.script.does(Does::Ends);
            self.has_ended = true;
        }
    }

    fn disturb(&mut self, byte: u8) {
        let how = match byte >> 4 {
            0..6 => Disturbance::Short,
            6..11 => Disturbance::Pending,
            11..14 => Disturbance::Interrupted,
            14 => Disturbance::Fails,
            _ => Disturbance::TakesNothing,
        };
        self.script.disturb(self.script.positions() + usize::from(byte & 15), how);
    }

    fn set_max_length(&mut self, limit: usize) {
        self.conn.set_max_length(limit);
        self.encoder.set_max_length(limit);
        self.oracle.model.max_length = limit;
    }

    /// Returns the next expected item. `None` means the end of the stream, or that the peer has not
    /// sent the item.
    fn next(&mut self) -> Option<Item> {
        self.oracle.next(false).or_else(|| if self.has_ended { self.oracle.next(true) } else { None })
    }

    /// Checks a read that waits: no item was available, and everything written was sent before the
    /// read waited.
    fn waits(&mut self, drive: Drive, has_more: impl FnOnce(&mut Self) -> bool) {
        if drive.is_full() {
            assert!(!has_more(self) && !self.has_ended, "the read waits although bytes are available");
            self.check_sent();
        }
    }

    /// Checks a read that reported the end of the stream: everything written was sent before it.
    fn is_at_end(&mut self) {
        assert!(self.has_ended);
        self.check_sent();
    }

    fn fails(&mut self, error: Error) {
        let Error::Io(error) = error else { panic!("{error:?}") };
        assert!(self.script.has_failed(), "{error:?}");
        assert!([FAILURE, io::ErrorKind::WriteZero].contains(&error.kind()), "{error:?}");
        self.is_open = false;
        // All later calls must fail, too.
        let gone = |polled| matches!(polled, Poll::Ready(Some(io::ErrorKind::NotConnected)));
        let kind = |error| if let Error::Io(error) = error { Some(error.kind()) } else { None };
        assert!(gone(poll_times(&self.script, 1, self.conn.next_line()).map(|done| kind(done.unwrap_err()))));
        assert!(gone(poll_times(&self.script, 1, self.conn.flush()).map(|done| kind(done.unwrap_err()))));
    }

    fn next_line(&mut self, drive: Drive) {
        let done = drive.run(&self.script, self.conn.next_line());
        let given = done.map(|done| done.map(|line| line.map(|line| item(&self.oracle.model, &line))));
        self.given(drive, given);
    }

    fn next_text(&mut self, drive: Drive) {
        let done = drive.run(&self.script, self.conn.next_text());
        let given = done.map(|done| {
            let line = done?.map(|line| line.map(|text| text.into_bytes()));
            Ok(line.map(|line| text_item(&self.oracle.model, &line)))
        });
        self.given(drive, given);
    }

    fn given(&mut self, drive: Drive, given: Option<Result<Option<Item>, Error>>) {
        match given {
            None => self.waits(drive, |it| it.oracle.clone().next(false).is_some()),
            Some(Ok(Some(item))) => assert_eq!(Some(item), self.next()),
            Some(Ok(None)) => {
                self.is_at_end();
                assert_eq!(self.next(), None, "the connection reported the end too early");
            }
            Some(Err(error)) => self.fails(error),
        }
    }

    /// Reads a batch and takes some of its lines. The other lines are put back or skipped.
    fn next_batch(&mut self, drive: Drive, input: &mut Input) -> Option<()> {
        let (taken, then) = (usize::from(input.byte()?), input.byte()?);
        match drive.run(&self.script, self.conn.next_batch()) {
            Some(Ok(Some(mut batch))) => {
                assert!(batch.len() > 0);
                for line in batch.by_ref().take(taken) {
                    assert_eq!(Some(item(&self.oracle.model, &line)), self.next());
                }
                if then & 1 == 1 {
                    // Write a reply while the batch still holds lines.
                    self.write_line(b"reply", drive);
                    if !self.is_open {
                        return Some(());
                    }
                }
                let before = self.oracle.clone();
                self.check_lines(&batch);
                if then & 2 == 2 {
                    self.oracle = before;
                    self.conn.put_back(batch).unwrap();
                }
            }
            Some(Ok(None)) => self.given(drive, Some(Ok(None))),
            Some(Err(error)) => self.fails(error),
            None => self.given(drive, None),
        }
        Some(())
    }

    fn check_lines(&mut self, batch: &Batch) {
        for line in batch {
            let line = line.map(Bytes::copy_from_slice);
            assert_eq!(Some(item(&self.oracle.model, &line)), self.next());
        }
    }

    /// Returns whether the peer has sent `count` bytes after the last item.
    fn has_bytes(&mut self, count: usize) -> bool {
        self.oracle.skip_ahead(false) && self.oracle.rest().len() >= count
    }

    /// Returns whether the stream ended within a long line or within skipped bytes, and no bytes
    /// are requested. Reading 0 bytes then reports either the end or 0 bytes, because a read that
    /// was dropped may have seen the end already.
    fn is_over(&mut self, count: u64) -> bool {
        self.has_ended && count == 0 && !self.oracle.skip_ahead(false)
    }

    fn read_bytes(&mut self, count: usize, drive: Drive) {
        match drive.run(&self.script, self.conn.read_bytes(count)) {
            Some(Ok(bytes)) => {
                assert!(self.has_bytes(count) || self.is_over(count as u64));
                assert_eq!(bytes, self.oracle.rest()[..count]);
                self.oracle.at += count;
                self.oracle.items += 1;
            }
            Some(Err(Error::Block(BlockError::TooLong { asked, max, .. }))) => {
                assert_eq!((asked, max), (count, self.oracle.max_block_length));
                assert!(asked > max);
            }
            Some(Err(Error::Eof)) => {
                self.is_at_end();
                assert!(!self.has_bytes(count));
            }
            Some(Err(error)) => self.fails(error),
            None => self.waits(drive, |it| it.has_bytes(count)),
        }
    }

    fn skip_bytes(&mut self, count: u64, drive: Drive) {
        let done = drive.run(&self.script, self.conn.skip_bytes(count));
        self.oracle.skip_bytes(count);
        match done {
            Some(Ok(())) => assert!(self.has_bytes(0) || self.is_over(count)),
            Some(Err(Error::Eof)) => {
                self.is_at_end();
                assert!(!self.has_bytes(0));
            }
            Some(Err(error)) => self.fails(error),
            None => self.waits(drive, |it| it.has_bytes(0)),
        }
    }

    /// Reads part of a body. The rest is skipped.
    fn body(&mut self, count: u64, input: &mut Input) -> Option<()> {
        let (reads, size, drive) = (input.byte()? % 8, usize::from(input.byte()?), Drive::read(input)?);
        let mut got = Vec::new();
        let mut buffer = vec![0; size];
        let mut body = self.conn.body(count);
        let done = drive.run(&self.script, async {
            for _ in 0..reads {
                let read = body.read(&mut buffer).await?;
                got.extend_from_slice(&buffer[..read]);
                assert_eq!(body.left(), count - got.len() as u64);
                assert!(read > 0 || size == 0 || body.left() == 0);
            }
            Ok::<_, io::Error>(())
        });
        drop(body);
        if !got.is_empty() {
            assert!(self.has_bytes(got.len()));
            assert_eq!(got, self.oracle.rest()[..got.len()]);
            self.oracle.at += got.len();
        }
        let left = count - got.len() as u64;
        match done {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                assert!(self.has_ended && left > 0 && !self.has_bytes(1));
            }
            Some(Err(error)) => self.fails(error.into()),
            // The last read may have seen the end of the body.
            None => self.waits(drive, |it| it.has_bytes(1)),
        }
        self.oracle.skip_bytes(left);
        Some(())
    }

    /// Returns the encoded line, or the reason why the encoder refuses it.
    fn encoded(&mut self, line: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = BytesMut::new();
        let done = self.encoder.encode_line(line, &mut bytes);
        done.map(|()| bytes.to_vec()).map_err(|bad| format!("{bad:?}"))
    }

    fn is_writable(&self) -> bool {
        !self.is_shut && self.written.len() < self.max_written
    }

    fn queued(&mut self, line: Result<Vec<u8>, String>) {
        self.written.extend_from_slice(&line.expect("the encoder accepts this line"));
        self.lines_written += 1;
    }

    /// Returns whether a dropped future had queued its line. The counters show it.
    fn has_queued(&self) -> bool {
        self.conn.counters().lines_written > self.lines_written
    }

    /// Checks a write: the line was queued, or refused for the same reason as by the codec, or the
    /// future was dropped, or the stream failed.
    fn wrote(&mut self, drive: Drive, line: Result<Vec<u8>, String>, done: Option<Result<(), Error>>) {
        match done {
            Some(Ok(())) => self.queued(line),
            Some(Err(Error::Encode(bad))) => assert_eq!(line, Err(format!("{bad:?}"))),
            Some(Err(error)) => {
                self.perhaps = line.unwrap_or_default();
                self.fails(error);
            }
            None => {
                assert!(!drive.is_full(), "the write waits although the peer accepts everything");
                if self.has_queued() {
                    self.queued(line);
                }
            }
        }
    }

    /// Checks a flush: everything was sent, or the future was dropped, or the stream failed.
    fn sent(&mut self, drive: Drive, done: Option<Result<(), Error>>) {
        match done {
            Some(Ok(())) => self.check_sent(),
            Some(Err(error)) => self.fails(error),
            None => assert!(!drive.is_full(), "the write waits although the peer accepts everything"),
        }
    }

    fn write_line(&mut self, line: &[u8], drive: Drive) {
        if !self.is_writable() {
            return;
        }
        let encoded = self.encoded(line);
        let done = drive.run(&self.script, self.conn.write_line(line));
        assert!(done.is_some() || !self.has_queued(), "the line is queued, but the future is not ready");
        self.wrote(drive, encoded, done);
    }

    fn send_line(&mut self, line: &[u8], drive: Drive) {
        if !self.is_writable() {
            return;
        }
        let encoded = self.encoded(line);
        let done = drive.run(&self.script, self.conn.send_line(line));
        let is_sent = matches!(done, Some(Ok(())));
        self.wrote(drive, encoded, done);
        if is_sent {
            self.check_sent();
        }
    }

    /// Writes bytes that are few enough to be queued in one step.
    fn write_bytes(&mut self, bytes: &[u8], drive: Drive) {
        if !self.is_writable() {
            return;
        }
        match drive.run(&self.script, self.conn.write_bytes(bytes)) {
            Some(Ok(())) => self.written.extend_from_slice(bytes),
            done => self.wrote(drive, Ok(bytes.to_vec()), done),
        }
    }

    fn flush(&mut self, drive: Drive) {
        if !self.is_shut {
            let done = drive.run(&self.script, self.conn.flush());
            self.sent(drive, done);
        }
    }

    fn shutdown(&mut self, drive: Drive) {
        let done = drive.run(&self.script, self.conn.shutdown());
        self.is_shut |= matches!(done, Some(Ok(())));
        assert_eq!(self.script.is_shut(), self.is_shut);
        self.sent(drive, done);
    }

    fn request(&mut self, line: &[u8], drive: Drive) {
        if !self.is_writable() {
            return;
        }
        let encoded = self.encoded(line);
        let done = drive.run(&self.script, self.conn.request(line));
        if self.is_reply_due {
            let refused = done
                .map(|done| matches!(done, Err(Error::Io(error)) if error.kind() == io::ErrorKind::Other));
            return assert_ne!(refused, Some(false), "the reply to an earlier request is due");
        }
        if self.has_queued() {
            self.queued(encoded.clone());
            self.is_reply_due = done.is_none();
        }
        let model = &self.oracle.model;
        let given = match done {
            Some(Err(Error::Encode(bad))) => {
                return self.wrote(drive, encoded, Some(Err(Error::Encode(bad))));
            }
            Some(Err(Error::Line(bad))) => Some(Ok(Some(item(model, &Err(bad))))),
            Some(Err(Error::Eof)) => Some(Ok(None)),
            Some(Ok(reply)) => Some(Ok(Some(item(model, &Ok(reply))))),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        self.given(drive, given);
    }

    /// Splits the connection, writes a line with one half and reads a line with the other.
    fn split(&mut self, line: &[u8], drive: Drive) {
        if !self.is_writable() {
            return;
        }
        let encoded = self.encoded(line);
        let (mut reader, mut writer) = self.conn.split();
        let wrote = drive.run(&self.script, writer.feed_line(line));
        let sent = drive.run(&self.script, writer.flush());
        let done = match (&wrote, &sent) {
            (Some(Err(Error::Io(_))), _) | (_, Some(Err(_))) => None,
            _ => drive.run(&self.script, reader.next_line()),
        };
        drop((reader, writer));
        self.wrote(drive, encoded, wrote);
        if self.is_open {
            self.sent(drive, sent);
        }
        if !self.is_open {
            return;
        }
        let given = done.map(|done| done.map(|line| line.map(|line| item(&self.oracle.model, &line))));
        match given {
            // The reading half does not send the output of the writing half.
            Some(Ok(None)) => assert_eq!((self.has_ended, self.next()), (true, None)),
            given => self.given(drive, given),
        }
    }

    /// Records the calls of the stream since the last check.
    fn record_calls(&mut self) {
        for call in self.script.calls() {
            match call {
                Call::Read(count) => self.received += count as u64,
                Call::Write(_) => self.is_flushed = false,
                Call::Flush | Call::Shutdown => self.is_flushed = true,
            }
        }
    }

    /// Checks that everything written was sent and flushed.
    fn check_sent(&mut self) {
        self.record_calls();
        assert_eq!(self.script.received(), self.written, "output is unsent");
        assert!(self.is_flushed, "the stream was not flushed");
    }

    fn check(&mut self) {
        self.record_calls();
        let counters = self.conn.counters();
        let sent = self.script.received();
        assert_eq!(counters.bytes_sent, sent.len() as u64);
        assert!(accounted(&counters.read) <= self.received, "{counters:?}, {} received", self.received);
        if self.is_open {
            assert!(!self.script.has_failed(), "a failure was not reported");
            assert!(self.written.starts_with(&sent), "sent bytes that were not written");
            assert!(
                self.written.len() - sent.len() <= MAX_UNSENT + LONGEST_WRITE,
                "too many bytes are unsent"
            );
            assert_eq!(counters.lines_written, self.lines_written);
            let read = counters.read;
            assert_eq!(read.lines + read.blocks + read.bad_items(), self.oracle.items, "{read:?}");
        }
    }

    /// Reads to the end of the stream and shuts down. All remaining items must be returned, and
    /// everything written must be sent.
    fn finish(&mut self) {
        self.ends();
        while self.is_open {
            let items = self.oracle.items;
            self.next_line(Drive::Fully);
            if self.oracle.items == items {
                break;
            }
        }
        if self.is_open {
            self.shutdown(Drive::Fully);
        }
        self.check();
        if self.is_open {
            assert_eq!(self.script.received(), self.written);
            assert_eq!(accounted(&self.conn.counters().read), self.oracle.stream.len() as u64);
        }
    }

    /// Takes the connection apart. The parts must contain all bytes that were read but not
    /// returned, and all bytes that were written but not sent.
    fn take_apart(mut self) {
        self.check();
        let handed_over = accounted(&self.conn.counters().read) as usize;
        let parts = self.conn.into_parts();
        assert_eq!(parts.read, self.oracle.stream[handed_over..self.received as usize]);
        let written = [&self.script.received()[..], &parts.unsent].concat();
        let perhaps = [&self.written[..], &self.perhaps].concat();
        assert!(written == self.written || written == perhaps, "unsent: {:?}", parts.unsent);
    }
}
