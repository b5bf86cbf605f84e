//! What a chat is told and asked.

use std::time::Instant;

use actix::Message;

use super::super::directory::Subscriber;
use super::super::responder::Responder;
use super::state::CopyChange;
use crate::protocol::binary::SigningKey;
use crate::protocol::error::Refusal;
use crate::protocol::frame::{
    ChangeMembership, DeleteChat, Delivery, MakeGeneration, RefuseGeneration, Reply, Send, SendOk, StageCopies,
};
use crate::protocol::ids::{KeyId, SessionId};
use crate::protocol::signal::SignalEnvelope;
use crate::store::members::Requester;
use crate::telemetry::metrics::Metrics;

/// A message for the chat. Answered `sent`, or refused.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Submit {
    /// Who sends.
    pub who: Requester,
    /// What that session signs with.
    pub signing_key: SigningKey,
    /// What is sent.
    pub send: Box<Send>,
    /// When it came.
    pub since: Instant,
    /// Its answer.
    pub responder: Responder,
    /// Counts it, once a chat has taken it in.
    pub count: Option<Counted>,
}

/// Keeps submitted = committed + refused + in flight, whatever becomes of a message.
#[derive(Debug)]
pub struct Counted {
    metrics: Metrics,
    is_committed: bool,
}

impl Counted {
    /// A message is taken in.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        metrics.submitted.inc();
        metrics.in_flight.inc();
        Self { metrics: metrics.clone(), is_committed: false }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.is_committed {
            self.metrics.committed.inc()
        } else {
            self.metrics.refused.inc()
        }
        self.metrics.in_flight.dec();
    }
}

impl Submit {
    /// Answers. A repeat counts as refused, for nothing was committed for it.
    pub fn answer(mut self, result: Result<SendOk, Refusal>) {
        let is_committed = result.as_ref().is_ok_and(|sent| !sent.duplicate);
        if let Some(count) = &mut self.count {
            count.is_committed = is_committed;
            if is_committed {
                count.metrics.submit_seconds.observe(self.since.elapsed().as_secs_f64());
            }
        }
        self.responder.answer(result.map(Reply::Sent));
    }
}

/// A part of a list of copies that goes ahead of its message. Answered `done`, or refused.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stage {
    /// Who sends.
    pub who: Requester,
    /// The part.
    pub part: StageCopies,
    /// When it came.
    pub since: Instant,
    /// Its answer.
    pub responder: Responder,
}

/// A change of the chat's members, or its end. Answered `changed`, or refused.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Control {
    /// Who asks.
    pub who: Requester,
    /// What is asked.
    pub request: ControlRequest,
    /// When it came.
    pub since: Instant,
    /// Its answer.
    pub responder: Responder,
}

/// What changes.
#[derive(Debug)]
pub enum ControlRequest {
    /// The members.
    Membership(Box<ChangeMembership>),
    /// The group key.
    Generation(Box<MakeGeneration>),
    /// The newest group key is bad.
    RefuseGeneration(Box<RefuseGeneration>),
    /// The chat ends.
    Delete(Box<DeleteChat>),
}

/// A signal for those who are live in the chat. Answered `done`, or refused.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Pass {
    /// Who sends.
    pub who: Requester,
    /// What is sent.
    pub signal: Box<SignalEnvelope>,
    /// When it came.
    pub since: Instant,
    /// Its answer.
    pub responder: Responder,
}

/// A session has come further, as the store has it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Advanced {
    /// Who, and how far.
    pub delivery: Delivery,
}

/// The log has moved in the store without this actor: look.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Refresh;

/// Copies were stored, voided or given up in the store, beside the messages.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CopiesChanged {
    /// Of which key, for whom, and what became of it.
    pub changes: Vec<(KeyId, SessionId, CopyChange)>,
}

/// A connection stands in the chat.
#[derive(Debug, Message)]
#[rtype(result = "Subscribed")]
pub struct Subscribe {
    /// The connection, and the newest entry it has been handed.
    pub subscriber: Subscriber,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, actix::MessageResponse)]
pub enum Subscribed {
    /// It will be handed every entry from its place on.
    Live,
    /// It stands in the waiting room of a chat that is not loaded.
    Waiting,
    /// There are entries after its place: read them from the store.
    Behind,
    /// It has no business in this chat.
    Stranger,
    /// The actor that was asked went away: ask again.
    Again,
}

/// A connection leaves the chat.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Unsubscribe {
    /// The connection's number.
    pub connection: u64,
}
