//! Breaks what lies between two processes: a relay for TCP and Unix sockets that delays, holds, chops, slows, cuts and
//! resets what passes.
//!
//! Lives here: [`Proxy`] and [`Path`]. Imports nothing of Sealcast: what passes is bytes. Invariant: as long as the path
//! is [`Path::Open`], [`Path::Delay`], [`Path::Rate`] or [`Path::ByteByByte`], every byte arrives once and in order.

mod disk;
mod flow;
mod nbd;
mod proxy;
mod stream;

pub use disk::{Disk, Health};
pub use proxy::Proxy;
pub use stream::Target;

use std::time::Duration;

/// What a proxy does to what passes, for connections that are there and those that come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Path {
    /// Bytes pass both ways.
    #[default]
    Open,
    /// Bytes pass so much later, in each direction.
    Delay(Duration),
    /// At most so many bytes a second pass in each direction of each connection, in pieces of a tenth of that.
    Rate(u32),
    /// Each byte is written by itself.
    ByteByByte,
    /// What the server says stays on the way.
    HoldAnswers,
    /// What clients say stays on the way.
    HoldRequests,
    /// Nothing moves, and nothing ends: a partition.
    Hold,
    /// There is no connection, and none can be made; those that were are closed in good order.
    Cut,
    /// There is no connection, and none can be made; those that were are reset.
    Reset,
    /// Each connection is reset once so many bytes of the server's have passed since this was set.
    CutAfter(u64),
}

impl Path {
    /// Whether connections may be there.
    const fn is_passable(self) -> bool {
        !matches!(self, Self::Cut | Self::Reset)
    }
}
