//! What the fuzz targets run, and `tests/fuzz_corpus.rs` with the committed corpus: a case is read from the input, and the
//! codecs have to do with it what the model says. An input that ends within a case is no case.

#![allow(dead_code, unreachable_pub)]

pub mod connection;
pub mod decode;
pub mod differential;
mod drive;
pub mod giant;
mod input;
#[path = "../../tests/model/mod.rs"]
mod model;
pub mod operations;
mod oracle;
#[path = "../../tests/differential/others.rs"]
mod others;
pub mod round_trip;
#[path = "../../tests/script/mod.rs"]
mod script;

use std::io;

use bytes::{Bytes, BytesMut};
use lineframe::{CodecCounters, LineError};
use tokio_util::codec::Decoder;

use input::{Input, Scale};
use model::{Item, Kind, Model};

/// The next item. The decoders never fail.
fn decode<D: Decoder<Error = io::Error>>(codec: &mut D, buffer: &mut BytesMut, eof: bool) -> Option<D::Item> {
    if eof { codec.decode_eof(buffer) } else { codec.decode(buffer) }.expect("a decoder that never fails")
}

/// All bytes that are no longer in the buffer.
fn accounted(counters: &CodecCounters) -> u64 {
    counters.content_bytes + counters.terminator_bytes + counters.skipped_bytes
}

fn longest_terminator(model: &Model) -> usize {
    match &model.kind {
        Kind::Newline | Kind::CrLf => 2,
        Kind::Lf | Kind::Byte(_) | Kind::AnyOf(_) => 1,
        Kind::Sequence(sequence) => sequence.len(),
    }
}

/// What a decoder that gives no text gave, in the model's words.
fn item(model: &Model, item: &Result<Bytes, LineError>) -> Item {
    assert!(!matches!(item, Err(LineError::NotUtf8 { .. })), "{item:?}");
    text_item(model, item)
}

/// The same for text. The model knows no text: what is rightly reported as no UTF-8 is a line to it.
fn text_item(model: &Model, item: &Result<Bytes, LineError>) -> Item {
    if let Err(LineError::NotUtf8 { line, valid_up_to, .. }) = item {
        assert_eq!(std::str::from_utf8(line).unwrap_err().valid_up_to(), *valid_up_to);
        return Ok(line.to_vec());
    }
    model::item(model, item.clone())
}
