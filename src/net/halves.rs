mod read;
mod write;

use std::any::Any;
use std::boxed::Box;
use std::sync::Arc;

pub use self::read::LineReader;
pub use self::write::LineWriter;
use super::io::Peer;

/// The state that the two halves of a connection share. Each half leaves its side there when it is
/// dropped.
pub(super) trait Joint<Half, Side>: Send + Sync {
    fn leave(&self, half: Half, side: Side);

    /// Returns the peer and an `Option<ReturnTo<Io>>`, to reunite the halves.
    fn take_owner(&self) -> (Peer, Box<dyn Any>) {
        (Peer::Other, Box::new(()))
    }
}

/// The parts of a half.
type Parts<Half, Side> = (Half, Side, Option<Arc<dyn Joint<Half, Side>>>);

/// Only `into_inner`, `reunite` and `Drop` leave `None`.
const TAKEN: &str = "a half has its side until it is dropped or taken apart";
