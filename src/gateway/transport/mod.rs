//! Joins the broker to its sockets: complete messages in, ready-made frames out, the end told exactly once.
//!
//! This folder is the only place that names `actix-web-actors`. Bytes from the socket pass the guard (frame rules, size
//! and back-pressure, before the codec sees anything), then the WebSocket context's codec, then the assembly of
//! fragments, and reach the session as an [`InboundMessage`]. Bytes to the socket come from the
//! [`Outbox`](crate::broker::outbox::Outbox) alone, through the response body. From the handshake on both are carried without
//! the HTTP layer, whose buffers a connection at rest would keep. Floor 5; it imports the outbox and knows
//! nothing of sessions.
//!
//! Invariants:
//! 1. The actor inside the WebSocket context only moves bytes: it freezes whenever the other end stops reading.
//! 2. What was let through and is not yet credited is at most one message limit, or the outstanding bounds.
//! 3. [`Inbound::closed`] is told exactly once on every path, and no message is told after it.

mod assembly;
mod body;
mod carrier;
mod exchange;
mod guard;
mod handshake;
mod header;
mod inbound;
mod kill;
mod link;
mod listener;
mod meter;
mod pump;
mod upgrade;

pub use exchange::only_one;
pub use handshake::{HandshakeError, OriginPolicy};
pub use inbound::{Closed, Inbound, InboundMessage, MessageKind, Violation};
pub use kill::{KillSwitch, Linger, kept_for, switch_of};
pub use listener::{ListenerOptions, serve};
pub use meter::{Credit, TransportLimits};
pub use upgrade::{Connection, UpgradeOptions, connect, upgrade};
