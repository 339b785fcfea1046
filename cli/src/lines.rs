//! Reads lines together with their original terminators.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use lineframe::scan::{Kind, Scanner};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::show;

/// Bytes requested by each read.
const READ: usize = 64 * 1024;

/// Maximum number of lines in a batch.
const MAX_LINES: usize = 4096;

/// Splits a stream into lines without changing any byte.
pub(crate) struct Lines<R> {
    from: R,
    scanner: Scanner,
    /// Bytes received but not yet returned. The length is at most the scanner's limit, plus the
    /// longest terminator, plus one read.
    held: BytesMut,
    at_end: bool,
}

/// Consecutive lines and their bytes. Discarded pieces of overlong lines are in no line's range.
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) lines: Vec<Line>,
}

/// A line of a batch, as ranges of the batch's bytes.
pub(crate) struct Line {
    /// Never `Piece`.
    pub(crate) kind: Kind,
    pub(crate) content: Range<usize>,
    /// Content and terminator, if the line has one.
    pub(crate) whole: Range<usize>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads `from` with a `scanner` that has not been used yet.
    pub(crate) fn new(from: R, scanner: Scanner) -> Self {
        Self { from, scanner, held: BytesMut::new(), at_end: false }
    }

    /// Returns the next lines, or `None` at the end of the stream. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.cut() {
                return Ok(Some(batch));
            }
            if self.at_end {
                return Ok(None);
            }
            self.held.reserve(READ);
            self.at_end = self.from.read_buf(&mut self.held).await? == 0;
        }
    }

    /// Stops reading. A buffered partial line counts as cut.
    pub(crate) fn end(&mut self) {
        self.at_end = true;
    }

    /// Returns the buffered part of a line that has no terminator yet.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.held
    }

    /// Describes the fault of a line of this kind, or returns `None` for a good line.
    pub(crate) fn fault(&self, kind: Kind) -> Option<String> {
        let max_length = self.scanner.max_length().unwrap_or(usize::MAX);
        match kind {
            Kind::Line | Kind::Piece => None,
            Kind::TooLong => {
                Some(format!("longer than the limit of {} (--max-length)", show::bytes(max_length)))
            }
            Kind::BareTerminator => Some("contains a CR or LF that is not part of a CRLF".into()),
            _ => Some("cut before its terminator".into()),
        }
    }

    fn cut(&mut self) -> Option<Batch> {
        let mut lines = Vec::new();
        let mut end = 0;
        while lines.len() < MAX_LINES {
            let rest = &self.held[end..];
            let verdict = match self.at_end {
                true => self.scanner.scan_eof(rest),
                false => self.scanner.scan(rest),
            };
            let Some(verdict) = verdict else { break };
            let start = end;
            end += verdict.consumed;
            // Discard further pieces of an overlong line.
            if verdict.kind != Kind::Piece {
                let content = start..start + verdict.content.end;
                lines.push(Line { kind: verdict.kind, content, whole: start..end });
            }
        }
        (end > 0).then(|| Batch { bytes: self.held.split_to(end).freeze(), lines })
    }
}
