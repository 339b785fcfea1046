//! A naive model of the framing contract, and a translation between the model and the codec.

#![allow(dead_code, unreachable_pub)]

mod codec;
mod naive;

pub use codec::*;
pub use naive::*;
