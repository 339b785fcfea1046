//! The contract as a naive model, and the codec under test in its words.

#![allow(dead_code, unreachable_pub)]

mod codec;
mod naive;

pub use codec::*;
pub use naive::*;
