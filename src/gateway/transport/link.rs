//! Joins the three parts of one connection: guard, pump and response body.
//!
//! All three run in the one task of the connection, so plain cells do. Floor 5.
//!
//! Invariant: [`Link::tell`] reaches the session once; whatever comes later is dropped.

use std::cell::Cell;
use std::sync::Arc;

use super::inbound::{Closed, Inbound, Violation};
use super::kill::KillSwitch;
use super::meter::Meter;
use crate::broker::outbox::Outbox;

/// Why the guard lets nothing more through.
#[derive(Clone, Copy, Debug)]
pub(super) enum InputEnd {
    Lost,
    Violation(Violation),
}

/// What guard, pump and body share.
pub(super) struct Link {
    pub(super) outbox: Arc<Outbox>,
    pub(super) meter: Arc<Meter>,
    pub(super) switch: KillSwitch,
    /// Set by the guard before it ends, read by the pump when all before it is decoded.
    pub(super) input_end: Cell<Option<InputEnd>>,
    inbound: Box<dyn Inbound>,
    is_told: Cell<bool>,
    has_goodbye: Cell<bool>,
    window_frames: Cell<usize>,
    window_bytes: Cell<usize>,
}

/// The most bytes that may be inside the codec, unless a single fragment is larger.
///
/// The codec never gives its buffer back, so this is what every connection that was ever busy keeps.
const WINDOW_BYTES: usize = 8 * 1024;

impl Link {
    pub(super) fn new(inbound: Box<dyn Inbound>, outbox: Arc<Outbox>, meter: Arc<Meter>, switch: KillSwitch) -> Self {
        Self {
            outbox,
            meter,
            switch,
            input_end: Cell::new(None),
            inbound,
            is_told: Cell::new(false),
            has_goodbye: Cell::new(false),
            window_frames: Cell::new(0),
            window_bytes: Cell::new(0),
        }
    }

    /// Takes room in the codec for one frame, if there is any.
    pub(super) fn enter_codec(&self, bytes: usize) -> bool {
        let sum = self.window_bytes.get().saturating_add(bytes);
        if self.window_frames.get() > 0 && sum > WINDOW_BYTES {
            return false;
        }
        self.window_frames.set(self.window_frames.get() + 1);
        self.window_bytes.set(sum);
        true
    }

    /// Notes that the codec gave one frame out.
    pub(super) fn leave_codec(&self) {
        let frames = self.window_frames.get().saturating_sub(1);
        self.window_frames.set(frames);
        if frames == 0 {
            self.window_bytes.set(0);
        }
    }

    /// The session, as long as it has not been told of the end.
    pub(super) fn inbound(&self) -> Option<&dyn Inbound> {
        (!self.is_told.get()).then_some(&*self.inbound)
    }

    /// Tells the session of the end, the first time.
    pub(super) fn tell(&self, how: Closed) {
        if !self.is_told.replace(true) {
            self.inbound.closed(how);
        }
    }

    /// Tells the session that the other end said goodbye.
    pub(super) fn goodbye(&self, code: Option<u16>, reason: String) {
        self.has_goodbye.set(true);
        self.tell(Closed::ByPeer { code, reason });
    }

    /// True once the other end has sent its close frame.
    pub(super) fn peer_said_goodbye(&self) -> bool {
        self.has_goodbye.get()
    }

    /// Answers a violation with its close code, unless this side is closing already.
    pub(super) fn fail(&self, violation: Violation) {
        if self.outbox.is_closed() {
            return;
        }
        tracing::debug!(connection.id = self.switch.name(), rule = violation.label(), "protocol violation");
        self.outbox.close(violation.close_code(), violation.label());
        self.tell(Closed::Violation(violation));
    }

    /// Notes that the other end is gone without a close frame.
    pub(super) fn lost(&self) {
        self.tell(if self.switch.is_killed() { Closed::Cut } else { Closed::Lost });
        self.outbox.abort();
    }
}
