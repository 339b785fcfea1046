//! The bodies of the fuzz targets. `tests/fuzz_corpus.rs` runs them over the committed corpus.
//!
//! Each body decodes a case from its input and compares the codec with a model. An input that ends
//! within a case is ignored.

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

/// Returns the next item. Decoders never fail.
fn decode<D: Decoder<Error = io::Error>>(codec: &mut D, buffer: &mut BytesMut, eof: bool) -> Option<D::Item> {
    if eof { codec.decode_eof(buffer) } else { codec.decode(buffer) }.expect("decoders never fail")
}

/// Returns the number of bytes that were removed from the buffer.
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

/// Converts an item of a decoder that returns bytes into an item of the model.
fn item(model: &Model, item: &Result<Bytes, LineError>) -> Item {
    assert!(!matches!(item, Err(LineError::NotUtf8 { .. })), "{item:?}");
    text_item(model, item)
}

/// Converts an item of a decoder that returns text into an item of the model. The model has no
/// text: a line that is correctly reported as `NotUtf8` is a good line.
fn text_item(model: &Model, item: &Result<Bytes, LineError>) -> Item {
    if let Err(LineError::NotUtf8 { line, valid_up_to, .. }) = item {
        assert_eq!(std::str::from_utf8(line).unwrap_err().valid_up_to(), *valid_up_to);
        return Ok(line.to_vec());
    }
    model::item(model, item.clone())
}
