use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::error::EncodeError;
use crate::scan::Delimiter;

/// No error line is longer.
#[cfg(feature = "server")]
const LONGEST_ERROR: usize = 256;

/// The writing side of a codec: small, for who only writes.
#[derive(Clone, Debug)]
pub(crate) struct LineEncoder(Arc<Rules>);

/// What it is told once. Clones share it, until one is told otherwise.
#[derive(Clone, Debug)]
struct Rules {
    delimiter: Delimiter,
    write_crlf: bool,
    max_length: usize,
    /// Whether that is its own, and not that of the lines read.
    is_apart: bool,
    /// What is written behind a line, where that is one byte, which ends every line that is read and nothing else.
    last_byte: Option<u8>,
}

impl Rules {
    #[inline]
    fn terminator(&self) -> &[u8] {
        match &self.delimiter {
            Delimiter::Newline if self.write_crlf => b"\r\n",
            delimiter => delimiter.written(),
        }
    }
}

impl LineEncoder {
    pub(super) fn new(
        delimiter: Delimiter,
        write_crlf: bool,
        max_length: usize,
        max_encoded_length: Option<usize>,
    ) -> Self {
        let mut rules = Rules {
            delimiter,
            write_crlf,
            max_length: max_encoded_length.unwrap_or(max_length),
            is_apart: max_encoded_length.is_some(),
            last_byte: None,
        };
        rules.last_byte = rules.delimiter.last_byte().filter(|byte| rules.terminator() == [*byte]);
        Self(Arc::new(rules))
    }

    #[inline]
    pub(crate) fn encode_line(&self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        let Rules { delimiter, max_length, last_byte, .. } = &*self.0;
        if line.len() > *max_length {
            return Err(EncodeError::TooLong { length: line.len(), max_length: *max_length });
        }
        // Of most lines nothing more is to be asked: so much is compiled into who calls it.
        if let Some(byte) = *last_byte
            && !delimiter.is_in(line)
            && !delimiter.ends_in_cr(line)
        {
            dst.reserve(line.len() + 1);
            dst.extend_from_slice(line);
            dst.put_u8(byte);
            return Ok(());
        }
        self.encode_any_line(line, dst)
    }

    #[inline(never)]
    fn encode_any_line(&self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        let start = dst.len();
        dst.reserve(line.len() + self.terminator().len());
        dst.extend_from_slice(line);
        self.end_line(start, dst)
    }

    /// What `dst` holds from `start` on becomes a line, or is taken off.
    #[inline]
    pub(crate) fn end_line(&self, start: usize, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let end = dst.len();
        self.refuse_too_long(start, dst)?;
        self.terminate(dst);
        // Judged as it will be read.
        match self.0.delimiter.conflict(&dst[start..end], &dst[start..]) {
            None => Ok(()),
            Some(at) => {
                dst.truncate(start);
                Err(EncodeError::ContainsTerminator { at })
            }
        }
    }

    /// The same, but that it is not searched for a terminator: many lines are, [together](Self::holds_terminator), where they
    /// [can be](Self::searches_together). Until then its own is [another one](Self::turn_terminator).
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn end_line_unsearched(&self, start: usize, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let Rules { delimiter, max_length, last_byte, .. } = &*self.0;
        let line = &dst[start..];
        match *last_byte {
            Some(byte) if line.len() <= *max_length && !delimiter.ends_in_cr(line) => {
                dst.put_u8(!byte);
                Ok(())
            }
            // Which says why not.
            _ => self.end_line(start, dst),
        }
    }

    /// What ended in a terminator does no longer, and the other way round.
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn turn_terminator(line: &mut [u8]) {
        if let Some(last) = line.last_mut() {
            *last = !*last;
        }
    }

    /// Whether lines can be searched together, and any error be said in one.
    #[cfg(feature = "server")]
    pub(crate) fn searches_together(&self) -> bool {
        let is_free = |byte: u8| byte != b' ' && !byte.is_ascii_graphic();
        self.0.last_byte.is_some_and(is_free) && self.0.max_length >= LONGEST_ERROR
    }

    /// Whether a line ends anywhere in `bytes`, where [lines can be searched together](Self::searches_together).
    #[cfg(feature = "server")]
    pub(crate) fn holds_terminator(&self, bytes: &[u8]) -> bool {
        self.0.delimiter.is_in(bytes)
    }

    #[inline]
    fn refuse_too_long(&self, start: usize, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let (length, max_length) = (dst.len() - start, self.0.max_length);
        if length > max_length {
            dst.truncate(start);
            return Err(EncodeError::TooLong { length, max_length });
        }
        Ok(())
    }

    #[inline]
    fn terminate(&self, dst: &mut BytesMut) {
        match *self.terminator() {
            // Without a call.
            [byte] => dst.put_u8(byte),
            ref bytes => dst.extend_from_slice(bytes),
        }
    }

    /// What is written behind a line, where that is one byte, which ends every line that is read and nothing else.
    #[cfg(feature = "server")]
    pub(crate) fn last_byte(&self) -> Option<u8> {
        self.0.last_byte
    }

    /// The limit of a line's content, in bytes.
    #[cfg(feature = "server")]
    #[inline]
    pub(crate) fn max_length(&self) -> usize {
        self.0.max_length
    }

    /// What is written behind a line.
    #[inline]
    pub(crate) fn terminator(&self) -> &[u8] {
        self.0.terminator()
    }

    /// The limit of the lines read, where it has none of its own.
    pub(crate) fn set_max_length(&mut self, content_bytes: usize) {
        if !self.0.is_apart {
            Arc::make_mut(&mut self.0).max_length = content_bytes;
        }
    }
}
