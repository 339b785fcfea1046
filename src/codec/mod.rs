//! The codecs for tokio-util. They share one decoder, which uses one scanner ([`crate::scan`]).

mod batch;
mod batch_codec;
mod builder;
mod counters;
mod decoder;
mod encoder;
mod fragment;
mod item;
mod line;
mod read_size;
#[cfg(feature = "text")]
mod text;

pub use batch::{Batch, BatchIter};
pub use batch_codec::BatchCodec;
pub use builder::LineCodecBuilder;
pub use counters::CodecCounters;
#[cfg(feature = "net")]
pub(crate) use decoder::{Items, LineDecoder};
pub use encoder::LineEncoder;
pub use fragment::{Fragment, FragmentCodec};
pub use line::LineCodec;
#[cfg(feature = "text")]
pub use text::TextCodec;
