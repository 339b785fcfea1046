//! Writes lines and fragments, and reads them back.
//!
//! A decoder must return every accepted line unchanged. The encoder may refuse only lines that
//! would be read differently, and a refusal must write nothing.

use std::io;

use bytes::{Bytes, BytesMut};
use lineframe::{BatchCodec, EncodeError, Fragment, FragmentCodec, LineCodec, LineCodecBuilder};
use tokio_util::codec::Encoder;

use super::model::{self, Kind, Model};
use super::{Input, Scale, decode, item};

pub fn run(data: &[u8]) {
    let Some((case, pieces)) = Case::read(&mut Input::new(data, Scale::Small)) else { return };
    let mut accepted = Vec::new();
    let mut written = BytesMut::new();
    for (line, _) in &pieces {
        if case.write(line, &mut written) {
            accepted.push(line.to_vec());
        }
    }
    case.check_read(&written, &accepted);
    case.fragments(&pieces);
}

struct Case {
    model: Model,
    max_encoded_length: Option<usize>,
    write_crlf: bool,
}

/// Bytes, and whether they end a line.
type Piece<'a> = (&'a [u8], bool);

impl Case {
    fn read<'a>(input: &mut Input<'a>) -> Option<(Self, Vec<Piece<'a>>)> {
        let model = input.model()?;
        let flags = input.byte()?;
        let max_encoded_length = if flags & 2 == 2 { Some(input.size()?) } else { None };
        let mut pieces = Vec::new();
        while let Some(header) = input.byte() {
            let length = usize::from(header >> 1).min(input.rest.len());
            pieces.push((input.bytes(length)?, header & 1 == 1));
        }
        Some((Self { model, max_encoded_length, write_crlf: flags & 1 == 1 }, pieces))
    }

    fn builder(&self) -> LineCodecBuilder {
        let builder = model::builder(&self.model).write_crlf(self.write_crlf);
        match self.max_encoded_length {
            Some(limit) => builder.max_encoded_length(limit),
            None => builder,
        }
    }

    fn limit(&self) -> usize {
        self.max_encoded_length.unwrap_or(self.model.max_length)
    }

    fn terminator(&self) -> Vec<u8> {
        match &self.model.kind {
            Kind::Newline if self.write_crlf => b"\r\n".to_vec(),
            Kind::Newline | Kind::Lf => b"\n".to_vec(),
            Kind::CrLf => b"\r\n".to_vec(),
            Kind::Byte(byte) => vec![*byte],
            Kind::AnyOf(set) => vec![set[0]],
            Kind::Sequence(sequence) => sequence.clone(),
        }
    }

    /// Returns whether a decoder without a limit would read `content` and its terminator
    /// differently.
    fn would_be_misread(&self, content: &[u8]) -> bool {
        let written = [content, &self.terminator()].concat();
        let first = self.model.first_line(&written).expect("a terminator is in it");
        let is_bare = self.model.kind == Kind::CrLf && content.iter().any(|byte| b"\r\n".contains(byte));
        first.0 != content.len() || is_bare || self.ends_in_cr(content)
    }

    /// Returns whether `content` ends in a CR that `Newline` refuses. This decoder would read
    /// `\r\r\n` back correctly, but a second `Newline` decoder after it would remove another CR.
    fn ends_in_cr(&self, content: &[u8]) -> bool {
        self.model.kind == Kind::Newline && content.ends_with(b"\r")
    }

    /// Appends a line with every method that writes lines. Returns whether the line was accepted.
    fn write(&self, line: &[u8], written: &mut BytesMut) -> bool {
        let before = written.clone();
        let mut codec = self.builder().build();
        let result = codec.encode_line(line, written);
        match &result {
            Ok(()) => {
                assert!(line.len() <= self.limit() && !self.would_be_misread(line), "{line:?} was accepted");
                assert_eq!(written[..], [&before, line, &self.terminator()].concat());
                self.check_read(&written[before.len()..], &[line.to_vec()]);
            }
            Err(EncodeError::TooLong { length, max_length, .. }) => {
                assert_eq!((*length, *max_length), (line.len(), self.limit()));
                assert!(length > max_length);
            }
            Err(EncodeError::ContainsTerminator { at, .. }) => {
                assert!(line.len() <= self.limit() && self.would_be_misread(line), "{line:?} was refused");
                assert!(*at < line.len(), "{line:?} at {at}");
            }
            Err(bad) => panic!("{bad:?}"),
        }
        if result.is_err() {
            assert_eq!(*written, before);
        }
        let owned = || Bytes::copy_from_slice(line);
        same(&before, written, &result, |dst| Ok(codec.encoder().encode_line(line, dst)?));
        same(&before, written, &result, |dst| codec.encode(owned(), dst));
        same(&before, written, &result, |dst| BatchCodec::from(codec.clone()).encode(owned(), dst));
        if let Ok(text) = std::str::from_utf8(line) {
            same(&before, written, &result, |dst| {
                lineframe::TextCodec::from(codec.clone()).encode(text.into(), dst)
            });
        }
        result.is_ok()
    }

    /// Checks that a decoder reads `written` back as `lines`. Uses a decoder with the limit for
    /// written lines, and one with the same configuration if its limit is not smaller.
    fn check_read(&self, written: &[u8], lines: &[Vec<u8>]) {
        let model = Model { max_length: self.limit(), ..self.model.clone() };
        self.check_read_by(self.builder().max_length(self.limit()).build(), &model, written, lines);
        if self.limit() <= self.model.max_length {
            self.check_read_by(self.builder().build(), &self.model, written, lines);
        }
    }

    fn check_read_by(&self, mut codec: LineCodec, model: &Model, written: &[u8], lines: &[Vec<u8>]) {
        let mut buffer = BytesMut::from(written);
        for line in lines {
            // A line is available with its last byte, before the end of the stream.
            let read = decode(&mut codec, &mut buffer, false).expect("the line that was written");
            assert_eq!(item(model, &read).as_ref(), Ok(line), "{model:?}");
        }
        assert!(decode(&mut codec, &mut buffer, false).is_none());
        assert!(decode(&mut codec, &mut buffer, true).is_none() && buffer.is_empty());
    }

    fn fragments(&self, pieces: &[Piece]) {
        let mut codec = FragmentCodec::from(self.builder().build());
        let mut written = BytesMut::new();
        let mut lines = Vec::new();
        let mut line = Vec::new();
        for &(bytes, is_last) in pieces {
            let before = written.clone();
            let fragment = Fragment { bytes: Bytes::copy_from_slice(bytes), is_last };
            let result = codec.encode(fragment, &mut written);
            let with_it = [&line[..], bytes].concat();
            match result {
                Ok(()) => {
                    assert!(!self.would_end_elsewhere(&with_it, is_last), "{bytes:?} after {line:?}");
                    line = with_it;
                }
                Err(bad) => {
                    assert!(self.would_end_elsewhere(&with_it, is_last), "{bytes:?} after {line:?}: {bad}");
                    assert_eq!(bad.kind(), std::io::ErrorKind::InvalidInput);
                    assert_eq!(written, before);
                    continue;
                }
            }
            if is_last {
                lines.push(std::mem::take(&mut line));
            }
        }

        let mut read = Vec::new();
        let mut joined = Vec::new();
        while let Some(fragment) = decode(&mut codec, &mut written, true) {
            joined.extend_from_slice(&fragment.bytes);
            if fragment.is_last {
                read.push(std::mem::take(&mut joined));
            }
        }
        assert_eq!((read, joined), (lines, line), "{:?}", self.model);
    }

    /// Returns whether `line` would end at another place: before its end, or, with `is_last`,
    /// before its terminator.
    fn would_end_elsewhere(&self, line: &[u8], is_last: bool) -> bool {
        if !is_last {
            return self.model.first_line(line).is_some();
        }
        let written = [line, &self.terminator()].concat();
        self.model.first_line(&written).expect("a terminator is in it").0 != line.len()
            || self.ends_in_cr(line)
    }
}

/// Checks that another method of writing has the same result as the first one.
fn same(
    before: &BytesMut,
    written: &BytesMut,
    result: &Result<(), EncodeError>,
    write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) {
    let mut dst = before.clone();
    let again = write(&mut dst).map_err(|error| error.downcast::<EncodeError>().expect("a refusal"));
    assert_eq!((format!("{again:?}"), &dst), (format!("{result:?}"), written));
}
