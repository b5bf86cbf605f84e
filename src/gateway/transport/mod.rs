//! Joins the broker to its sockets: complete messages in, ready-made frames out, the end told exactly once.
//!
//! This folder is the only place that names `actix-web-actors`. Bytes from the socket pass the guard (frame rules, size
//! and back-pressure, before the codec sees anything), then the WebSocket context's codec, then the assembly of
//! fragments, and reach the session as an [`InboundMessage`]. Bytes to the socket come from the
//! [`Outbox`](crate::broker::outbox::Outbox) alone, through the response body. Floor 5; it imports the outbox and knows
//! nothing of sessions.
//!
//! The server must be set up with `HttpServer::on_connect(transport::on_connect)`, `tcp_nodelay(true)` (or Nagle's
//! algorithm adds 40 ms) and `client_disconnect_timeout(0)` (or closed connections stay open for a while).
//!
//! Invariants:
//! 1. The actor inside the WebSocket context only moves bytes: it freezes whenever the other end stops reading.
//! 2. What was let through and is not yet credited is at most one message limit, or the outstanding bounds.
//! 3. [`Inbound::closed`] is told exactly once on every path, and no message is told after it.

mod assembly;
mod body;
mod exchange;
mod guard;
mod handshake;
mod header;
mod inbound;
mod kill;
mod link;
mod meter;
mod pump;
mod upgrade;

pub use exchange::only_one;
pub use handshake::{HandshakeError, OriginPolicy};
pub use inbound::{Closed, Inbound, InboundMessage, MessageKind, Violation};
pub use kill::{KillSwitch, Linger, on_connect, peer_of, switch_of};
pub use meter::{Credit, TransportLimits};
pub use upgrade::{Connection, UpgradeOptions, connect, upgrade};
