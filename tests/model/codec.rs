//! Translates between the codec under test and the model.

use bytes::{Bytes, BytesMut};
use lineframe::{Delimiter, LineCodec, LineCodecBuilder, LineError, Unterminated};
use tokio_util::codec::Decoder;

use super::naive::{Bad, Item, Kind, Model};

/// Returns a builder with the configuration of the model.
pub fn builder(model: &Model) -> LineCodecBuilder {
    let delimiter = match &model.kind {
        Kind::Newline => Delimiter::Newline,
        Kind::Lf => Delimiter::Lf,
        Kind::CrLf => Delimiter::CrLf,
        Kind::Byte(byte) => Delimiter::Byte(*byte),
        Kind::AnyOf(set) => Delimiter::any_of(set).unwrap(),
        Kind::Sequence(sequence) => Delimiter::sequence(sequence).unwrap(),
    };
    let unterminated = if model.deliver { Unterminated::Deliver } else { Unterminated::Report };
    LineCodec::builder().delimiter(delimiter).max_length(model.max_length).unterminated(unterminated)
}

/// Converts an item of the codec to an item of the model.
pub fn item(model: &Model, item: Result<impl AsRef<[u8]>, LineError>) -> Item {
    item.map(|line| line.as_ref().to_vec()).map_err(|bad| match bad {
        LineError::TooLong { prefix, max_length, .. } => {
            assert_eq!(max_length, model.max_length);
            Bad::TooLong(prefix.to_vec())
        }
        LineError::Unterminated { line, .. } => Bad::Unterminated(line.to_vec()),
        LineError::BareTerminator { line, .. } => Bad::BareTerminator(line.to_vec()),
        LineError::Incomplete { bytes, expected, .. } => Bad::Incomplete(bytes.to_vec(), expected),
        bad => panic!("{bad:?}"),
    })
}

/// Returns the next item, or `None` if the codec needs more input. Decoding never fails.
pub fn next(codec: &mut LineCodec, buffer: &mut BytesMut) -> Option<Result<Bytes, LineError>> {
    codec.decode(buffer).expect("a decoder that never fails")
}

/// Returns the next item at EOF.
pub fn next_at_eof(codec: &mut LineCodec, buffer: &mut BytesMut) -> Option<Result<Bytes, LineError>> {
    codec.decode_eof(buffer).expect("a decoder that never fails")
}
