//! Lines and fragments written, and read back: what is accepted comes back as it was, what is refused would not have, and
//! has written nothing.

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

/// Bytes, and whether a line ends behind them.
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

    /// Whether a reader that has no other limit would take `content` with its terminator for something else.
    fn would_be_misread(&self, content: &[u8]) -> bool {
        let written = [content, &self.terminator()].concat();
        let first = self.model.first_line(&written).expect("a terminator is in it");
        let is_bare = self.model.kind == Kind::CrLf && content.iter().any(|byte| b"\r\n".contains(byte));
        first.0 != content.len() || is_bare || self.ends_in_cr(content)
    }

    /// `\r\r\n` comes back from this reader, but not from the next one behind it.
    fn ends_in_cr(&self, content: &[u8]) -> bool {
        self.model.kind == Kind::Newline && content.ends_with(b"\r")
    }

    /// Appends a line, in all the ways there are. Whether it was accepted.
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

    /// A reader takes `written` for `lines` and nothing else; one with the same configuration, and where another limit
    /// was set for writing, one with that limit.
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
            // Whole with its last byte: no end of the stream is needed.
            let read = decode(&mut codec, &mut buffer, false).expect("a line that was written");
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
                    assert!(!self.would_end_elsewhere(&with_it, is_last), "{bytes:?} behind {line:?}");
                    line = with_it;
                }
                Err(bad) => {
                    assert!(self.would_end_elsewhere(&with_it, is_last), "{bytes:?} behind {line:?}, {bad}");
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

    /// Whether `line`, if more of it may follow or if it is to end here, ends elsewhere.
    fn would_end_elsewhere(&self, line: &[u8], is_last: bool) -> bool {
        if !is_last {
            return self.model.first_line(line).is_some();
        }
        let written = [line, &self.terminator()].concat();
        self.model.first_line(&written).expect("a terminator is in it").0 != line.len()
            || self.ends_in_cr(line)
    }
}

/// Another way to write has to do what the first one did.
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
