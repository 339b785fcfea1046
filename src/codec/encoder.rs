use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::error::EncodeError;
use crate::scan::Delimiter;

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
}

impl LineEncoder {
    pub(super) fn new(
        delimiter: Delimiter,
        write_crlf: bool,
        max_length: usize,
        max_encoded_length: Option<usize>,
    ) -> Self {
        Self(Arc::new(Rules {
            delimiter,
            write_crlf,
            max_length: max_encoded_length.unwrap_or(max_length),
            is_apart: max_encoded_length.is_some(),
        }))
    }

    #[inline]
    pub(crate) fn encode_line(&self, line: &[u8], dst: &mut BytesMut) -> Result<(), EncodeError> {
        if line.len() > self.0.max_length {
            return Err(EncodeError::TooLong { length: line.len(), max_length: self.0.max_length });
        }
        let start = dst.len();
        let terminator = self.terminator();
        dst.reserve(line.len() + terminator.len());
        dst.extend_from_slice(line);
        match *terminator {
            // Without a call.
            [byte] => dst.put_u8(byte),
            _ => dst.extend_from_slice(terminator),
        }
        // Judged as it will be read.
        match self.0.delimiter.conflict(line, &dst[start..]) {
            None => Ok(()),
            Some(at) => {
                dst.truncate(start);
                Err(EncodeError::ContainsTerminator { at })
            }
        }
    }

    /// What is written behind a line.
    #[inline]
    pub(super) fn terminator(&self) -> &[u8] {
        match &self.0.delimiter {
            Delimiter::Newline if self.0.write_crlf => b"\r\n",
            delimiter => delimiter.written(),
        }
    }

    /// The limit of the lines read, where it has none of its own.
    pub(crate) fn set_max_length(&mut self, content_bytes: usize) {
        if !self.0.is_apart {
            Arc::make_mut(&mut self.0).max_length = content_bytes;
        }
    }
}
