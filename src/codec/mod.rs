//! The codecs for tokio-util: thin, over one scanner ([`crate::scan`]) and one walk over what it finds.

mod batch;
mod builder;
mod counters;
mod encoder;
mod found;
mod fragment;
mod item;
mod line;
mod room;
#[cfg(feature = "text")]
mod text;
mod walk;

pub use batch::{Batch, BatchCodec, BatchIter};
pub use builder::LineCodecBuilder;
pub use counters::CodecCounters;
#[cfg(feature = "net")]
pub(crate) use encoder::LineEncoder;
pub use fragment::{Fragment, FragmentCodec};
#[cfg(feature = "net")]
pub(crate) use item::ItemKind;
#[cfg(feature = "server")]
pub(crate) use item::Items;
pub use line::LineCodec;
#[cfg(feature = "text")]
pub use text::TextCodec;
#[cfg(feature = "net")]
pub(crate) use walk::Walk;
#[cfg(feature = "net")]
pub(crate) use walk::Window;
