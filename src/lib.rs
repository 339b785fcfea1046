//! Whole lines out of a byte stream, and back.
//!
//! A stream has no messages in it: a read hands over whatever has arrived, half a line or seven of them. This crate cuts
//! it into lines exactly, for [tokio-util](tokio_util::codec)'s `Framed`, `FramedRead` and `FramedWrite`.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

extern crate alloc;
#[cfg(feature = "codec")]
extern crate std;

#[cfg(feature = "codec")]
mod codec;
#[cfg(feature = "codec")]
mod error;
pub mod scan;

#[cfg(feature = "text")]
pub use codec::TextCodec;
#[cfg(feature = "codec")]
pub use codec::{
    Batch, BatchCodec, BatchIter, CodecCounters, Fragment, FragmentCodec, LineCodec, LineCodecBuilder,
};
#[cfg(feature = "codec")]
pub use error::{EncodeError, LineError, TooManyBytes};
pub use scan::{Delimiter, InvalidDelimiter, Unterminated};
