//! The street door: sockets and HTTP.
//!
//! Lives here: the transport seam, the actor of a session, accounts over HTTP, the operator's listener. Floor 5:
//! imports every lower floor. Only `transport` names the WebSocket crate.

pub mod accounts;
pub mod address;
pub mod crowd;
pub mod entrance;
#[cfg(feature = "fail-points")]
pub mod fail_points;
pub mod friends;
pub mod health;
pub mod heartbeat;
pub mod passwords;
pub mod reaper;
pub mod requests;
pub mod session;
mod signals;
pub mod socket;
pub mod status;
pub mod tls;
pub mod transport;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::broker::Broker;
use crate::broker::outbox::OutboxLimits;
use crate::broker::outbox_budget::OutboxBudget;
use crate::config::Settings;
use crowd::Crowd;
use reaper::Reaper;

/// What every request and every socket of the door may use; cheap to clone.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

/// What the handle leads to.
#[derive(Debug)]
pub struct Inner {
    /// Chats, sessions, the store.
    pub broker: Broker,
    /// The settings with which the broker began.
    pub settings: Settings,
    /// The settings that are in force: see [`Door::current`].
    current: RwLock<Arc<Settings>>,
    /// Who is here from which address.
    pub crowd: Arc<Crowd>,
    /// Cuts what makes no progress.
    pub reaper: Arc<Reaper>,
    /// What waits for all connections together.
    pub budget: Arc<OutboxBudget>,
    /// Sockets that are open, or in their handshake; a place is given back when the transport tells of its end.
    pub open: AtomicUsize,
}

impl std::ops::Deref for Door {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Bytes above the outbox's bound that answers may use: a page of the log and what is asked beside it.
const OUTBOX_RESERVE_BYTES: usize = 4 * 1024 * 1024;

impl Door {
    /// A door to a broker.
    #[must_use]
    pub fn new(broker: Broker, settings: Settings, reaper: Arc<Reaper>) -> Self {
        let budget = OutboxBudget::new(settings.limits.outboxes_bytes_max);
        let (current, crowd) = (RwLock::new(Arc::new(settings.clone())), Arc::default());
        Self(Arc::new(Inner { broker, settings, current, crowd, reaper, budget, open: AtomicUsize::new(0) }))
    }

    /// The settings that are in force. They may differ from those of the beginning in what [`Settings::reloaded`] names.
    #[must_use]
    pub fn current(&self) -> Arc<Settings> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other settings in force.
    pub fn put_in_force(&self, settings: Settings) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The bounds of one connection's outbox.
    #[must_use]
    pub fn outbox_limits(&self) -> OutboxLimits {
        let limits = &self.current().limits;
        OutboxLimits {
            frames_max: limits.outbox_frames_max,
            bytes_max: limits.outbox_bytes_max,
            reserve_bytes: OUTBOX_RESERVE_BYTES,
        }
    }

    /// How often the server pings.
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        Duration::from_secs(self.settings.server.ping_interval_s)
    }
}
