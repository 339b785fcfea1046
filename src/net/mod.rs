//! Connections that read and write lines over any Tokio stream, and their halves, with deadlines
//! and limits.

mod buffer;
mod connection;
mod duplex;
mod error;
mod halves;
mod io;
mod limits;
mod poll;
mod read_state;
mod reader;
mod shutdown;
mod sniff;
mod socket;
mod split;
mod tasks;
mod timers;
mod writer;

pub use self::connection::{Connection, Parts};
pub use self::duplex::{Body, ConnectionCounters};
pub use self::error::{Error, TimeoutKind, UpgradeError};
pub use self::halves::{LineReader, LineWriter};
pub use self::io::{AnyIo, Peer};
pub use self::shutdown::Draining;
pub use self::socket::Keepalive;
pub use self::split::{BorrowedRead, BorrowedWrite, ReuniteError};

pub(crate) use self::buffer::ReadBuffer;
pub(crate) use self::duplex::Duplex;
pub(crate) use self::limits::{Limits, Total, Totals};
pub(crate) use self::poll::{MAX_REPLY_DELAY, PollClock, begin_turn, poll_turn, with_system_io, within_poll};
pub(crate) use self::shutdown::ShutdownSignal;
pub(crate) use self::socket::configure;
