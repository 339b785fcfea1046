//! Lines as a stream brings them, to the byte: with the terminators that they came with.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use lineframe::scan::{Kind, Scanner};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::show;

/// So many bytes are asked for with each read.
const READ: usize = 64 * 1024;

/// So many lines are handed over at once, at most.
const MAX_LINES: usize = 4096;

/// Cuts a stream into lines and alters no byte of it.
pub(crate) struct Lines<R> {
    from: R,
    scanner: Scanner,
    /// What has come and is no whole line yet. Its length is at most the scanner's limit, the longest terminator and one
    /// read.
    held: BytesMut,
    at_end: bool,
}

/// Lines that came together, and, but for what was over the limit, their bytes without a gap.
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) lines: Vec<Line>,
}

/// A line of a batch, as ranges of the batch's bytes.
pub(crate) struct Line {
    /// Anything but `Piece`.
    pub(crate) kind: Kind,
    pub(crate) content: Range<usize>,
    /// With its terminator, where it has one.
    pub(crate) whole: Range<usize>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// `from` is at the start of a stream, and so is `scanner`.
    pub(crate) fn new(from: R, scanner: Scanner) -> Self {
        Self { from, scanner, held: BytesMut::new(), at_end: false }
    }

    /// The lines that come next; `None` at the end. Dropped before it is done, it loses nothing.
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

    /// Nothing more comes: what is left is cut.
    pub(crate) fn end(&mut self) {
        self.at_end = true;
    }

    /// What has come of a line whose terminator has not.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.held
    }

    /// What is wrong with a line of `kind`, where it is not whole and well.
    pub(crate) fn fault(&self, kind: Kind) -> Option<String> {
        let max_length = self.scanner.max_length().unwrap_or(usize::MAX);
        match kind {
            Kind::Line | Kind::Piece => None,
            Kind::TooLong => {
                Some(format!("more than {}; --max-length sets the limit", show::bytes(max_length)))
            }
            Kind::BareTerminator => Some("a CR or LF in it that is not part of a CRLF".into()),
            _ => Some("cut before its terminator".into()),
        }
    }

    fn cut(&mut self) -> Option<Batch> {
        let mut lines = Vec::new();
        let mut end = 0;
        while lines.len() < MAX_LINES {
            let shown = &self.held[end..];
            let verdict = match self.at_end {
                true => self.scanner.scan_eof(shown),
                false => self.scanner.scan(shown),
            };
            let Some(verdict) = verdict else { break };
            let start = end;
            end += verdict.consumed;
            // What is left of a line over the limit is of no use to anybody.
            if verdict.kind != Kind::Piece {
                let content = start..start + verdict.content.end;
                lines.push(Line { kind: verdict.kind, content, whole: start..end });
            }
        }
        (end > 0).then(|| Batch { bytes: self.held.split_to(end).freeze(), lines })
    }
}
