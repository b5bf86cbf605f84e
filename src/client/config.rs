//! How a client behaves.

use std::time::Duration;

use super::net::Connector;
use crate::protocol::codec::Encoding;

/// Settings of a client; the same may serve many.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Opens connections.
    pub connector: Connector,
    /// How frames are written.
    pub encoding: Encoding,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer may take before the connection counts as lost.
    pub request_timeout: Duration,
    /// Between two times at which state is kept and cursors are told, while something changes.
    pub upkeep_interval: Duration,
    /// Between two times at which users' chains are looked at; [`Duration::MAX`]: only when it is asked for.
    pub chains_interval: Duration,
    /// Whether a client that holds the identity key renews its session by itself, ahead of its end and after it.
    pub renews: bool,
    /// How long this client has known a request for recovery of a friend's account before it gives a share to it: time
    /// for the account's own sessions to cancel it. Tests alone make it shorter.
    pub recovery_window: Duration,
    /// Events kept for a receiver that is slow; older ones are dropped, and it is told how many.
    pub events_kept: usize,
}

impl ClientConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        Self {
            connector,
            encoding: Encoding::MessagePack,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(15),
            upkeep_interval: Duration::from_secs(1),
            chains_interval: Duration::from_secs(600),
            renews: true,
            recovery_window: Duration::from_secs(24 * 3_600),
            events_kept: 1_024,
        }
    }
}
