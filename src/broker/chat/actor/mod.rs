//! The actor of one chat: a thin shell around [`ChatState`].
//!
//! It serialises what changes the chat. Messages are judged in memory and go to the writer; changes of members
//! are transactions of their own, begun when nothing of the chat is on its way. Whenever the store turns out to
//! know better, what is on its way is taken back, the chat is loaded again and the same is judged anew in the
//! same order.
//! Invariants: A1 nothing is fanned out before its commit. A2 every request is answered once. A3 the queue is
//! bounded; full means `rate_limited`.
//!
//! `appends` has the way of a message, `loading` what the store says, `control` changes of members, `live` what is
//! for this moment alone, `handlers` what the actor is sent; here are its data, its queue and its end.

mod appends;
mod control;
mod handlers;
mod live;
mod loading;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::fan_out::FanOut;
use super::messages::{Control, Pass, Stage, Submit, Subscribed};
use super::staging::Staging;
use super::state::ChatState;
use crate::broker::Broker;
use crate::broker::directory::Subscriber;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::Delivery;
use crate::protocol::ids::{ChatId, Seq, SessionId};
use crate::protocol::keys::SignedAnnouncement;
use crate::store::batch::Item;
use crate::store::members::unknown_chat;
use crate::store::revisions::MessageHead;
use crate::store::writer::Outcome;

/// How long a chat waits before it asks a store again that did not answer.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// How long a sender is asked to wait when a queue on the way of its message is full.
pub const QUEUE_PAUSE: Duration = Duration::from_millis(100);

/// Requests that an actor's mailbox holds before senders are told to wait.
pub const MAILBOX: usize = 4_096;

/// The actor of one chat.
#[derive(Debug)]
pub struct ChatActor {
    chat_id: ChatId,
    broker: Broker,
    phase: Phase,
    queue: VecDeque<Work>,
    in_flight: VecDeque<InFlight>,
    next_ticket: u64,
    staging: Staging,
    fan_out: FanOut,
    /// The newest entry that was fanned out; none before the first load.
    delivered: Option<Seq>,
    refresh_wanted: bool,
    /// What is at the front is being looked up: the message that it edits or deletes, or whether its refusal stands.
    /// What is behind keeps its order.
    is_looking_up: bool,
    /// Connections that ask to stand in the chat while it is not ready to say where it stands itself.
    asking: Vec<(Subscriber, oneshot::Sender<Subscribed>)>,
    /// How far sessions have come, to be told with the next telling.
    advances: BTreeMap<SessionId, Delivery>,
    watches_overdue: bool,
    busy_at: Instant,
}

#[derive(Debug)]
enum Phase {
    /// What is believed, if anything, is not to be trusted: load when nothing is on its way.
    Stale,
    /// A transaction of this chat is under way.
    Away,
    /// Messages are judged.
    Ready(Box<ChatState>),
    /// There is no such chat, or the actor has left the directory.
    Gone,
}

#[derive(Debug)]
enum Work {
    Submit(Submit),
    /// An edit or deletion, with what the store says of its message.
    Revision(Submit, Option<MessageHead>),
    Stage(Stage),
    Control(Control),
    Signal(Pass),
}

impl Work {
    const fn since(&self) -> Instant {
        match self {
            Self::Submit(submit) | Self::Revision(submit, _) => submit.since,
            Self::Stage(stage) => stage.since,
            Self::Control(control) => control.since,
            Self::Signal(pass) => pass.since,
        }
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Submit(submit) | Self::Revision(submit, _) => submit.answer(Err(refusal)),
            Self::Stage(stage) => stage.responder.refuse(refusal),
            Self::Control(control) => control.responder.refuse(refusal),
            Self::Signal(pass) => pass.responder.refuse(refusal),
        }
    }
}

/// A message on its way to the store.
#[derive(Debug)]
struct InFlight {
    ticket: u64,
    submit: Submit,
    item: Arc<Item>,
    /// The announcement that goes out with copies.
    announcement: Option<SignedAnnouncement>,
    /// What the sender is told once the item, which carries the key alone, is stored.
    refusal: Option<Refusal>,
    /// Set once the outcome is known and is not a commit.
    taken_back: Option<Outcome>,
}

impl ChatActor {
    /// Starts the actor of a chat on the chat's arbiter.
    #[must_use]
    pub fn start_on(broker: &Broker, chat_id: ChatId, waiting: Vec<Subscriber>) -> Option<Addr<Self>> {
        let arbiter = broker.chat_arbiter(chat_id)?.clone();
        let broker = broker.clone();
        let addr = Self::start_in_arbiter(&arbiter, move |ctx| {
            ctx.set_mailbox_capacity(MAILBOX);
            let mut fan_out = FanOut::new(chat_id, broker.metrics.clone());
            for subscriber in waiting {
                if let Some(who) = subscriber.connection.who() {
                    fan_out.insert(who.session_id, subscriber);
                }
            }
            Self {
                chat_id,
                phase: Phase::Stale,
                queue: VecDeque::new(),
                in_flight: VecDeque::new(),
                next_ticket: 0,
                staging: Staging::default(),
                fan_out,
                delivered: None,
                refresh_wanted: false,
                is_looking_up: false,
                asking: Vec::new(),
                advances: BTreeMap::new(),
                watches_overdue: false,
                busy_at: Instant::now(),
                broker,
            }
        });
        Some(addr)
    }

    /// Does what can be done now.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        self.answer_overdue();
        loop {
            if self.is_looking_up {
                return;
            }
            match &self.phase {
                Phase::Away => return,
                Phase::Gone => {
                    self.queue.drain(..).for_each(|work| work.refuse(unknown_chat()));
                    return;
                }
                Phase::Stale if self.wants_load() => return self.load(ctx),
                Phase::Stale => return,
                Phase::Ready(_) => {}
            }
            if self.refresh_wanted {
                // What is believed is not so any more: by it a session that has just come in would be a stranger.
                if !self.in_flight.is_empty() {
                    return;
                }
                self.phase = Phase::Stale;
                continue;
            }
            // Who asked while a change of members was under way that came to nothing: no load answers them.
            self.answer_asking();
            match self.queue.pop_front() {
                None => return,
                // A repeat of what is on its way waits for its outcome.
                Some(Work::Submit(submit)) if self.is_on_its_way(&submit) => {
                    self.queue.push_front(Work::Submit(submit));
                    return;
                }
                Some(Work::Submit(submit)) if self.needs_message(&submit) => return self.look_up(submit, ctx),
                Some(Work::Submit(submit)) => self.submit(submit, None, ctx),
                Some(Work::Revision(submit, target)) => self.submit(submit, target, ctx),
                Some(Work::Stage(stage)) => self.stage(stage, ctx),
                Some(Work::Signal(pass)) => self.pass_signal(pass),
                Some(Work::Control(control)) if self.is_by_stranger(&control) => self.control_by_stranger(control, ctx),
                Some(Work::Control(control)) if self.in_flight.is_empty() => return self.control(control, ctx),
                Some(control @ Work::Control(_)) => {
                    self.queue.push_front(control);
                    return;
                }
            }
        }
    }

    fn is_by_stranger(&self, control: &Control) -> bool {
        matches!(&self.phase, Phase::Ready(state) if !state.is_recipient(control.who.session_id))
    }

    /// Answers what has waited too long for a store that does not answer.
    fn answer_overdue(&mut self) {
        let deadline = self.broker.options.deadline;
        while self.queue.front().is_some_and(|work| work.since().elapsed() > deadline) {
            if let Some(work) = self.queue.pop_front() {
                work.refuse(storage_unavailable());
            }
        }
    }

    /// Leaves the directory. What still comes through old addresses is passed on until nothing has come for a
    /// while.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        fail::fail_point!("chat::passivation");
        let subscribers = match self.phase {
            Phase::Gone => {
                for subscriber in self.fan_out.take_all() {
                    subscriber.connection.forget(self.chat_id);
                }
                for (_, reply) in self.asking.drain(..) {
                    let _ = reply.send(Subscribed::Stranger);
                }
                Vec::new()
            }
            _ => self.fan_out.take_all(),
        };
        self.broker.directory.passivate(self.chat_id, &ctx.address(), subscribers);
        self.phase = Phase::Gone;
        ctx.run_later(Duration::from_secs(1), |_, ctx| ctx.stop());
    }

    fn passivate_if_idle(&mut self, ctx: &mut Context<Self>) {
        let is_at_rest = matches!(self.phase, Phase::Ready(_) | Phase::Stale) && self.asking.is_empty();
        let is_at_rest = is_at_rest && !self.is_looking_up;
        let is_idle = self.queue.is_empty() && self.in_flight.is_empty() && is_at_rest;
        if is_idle && self.busy_at.elapsed() >= idle_limit(&self.broker) {
            self.broker.metrics.chats_passivated.inc();
            self.leave(ctx);
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    fn enqueue(&mut self, work: Work, ctx: &mut Context<Self>) {
        fail::fail_point!("chat::turn");
        self.busy_at = Instant::now();
        if self.queue.len() + self.in_flight.len() >= self.broker.options.in_flight_max {
            self.broker.metrics.queue_full.with_label_values(&["chat"]).inc();
            return work.refuse(Refusal::later("too many messages wait in this chat", QUEUE_PAUSE));
        }
        self.queue.push_back(work);
        self.pump(ctx);
        self.watch_overdue(ctx);
    }

    /// Sees to it that what waits is answered in time, though the store says nothing.
    fn watch_overdue(&mut self, ctx: &mut Context<Self>) {
        let Some(oldest) = self.queue.front() else { return };
        if self.watches_overdue {
            return;
        }
        self.watches_overdue = true;
        let left = self.broker.options.deadline.saturating_sub(oldest.since().elapsed());
        ctx.run_later(left + Duration::from_millis(1), |actor, ctx| {
            actor.watches_overdue = false;
            actor.answer_overdue();
            actor.watch_overdue(ctx);
        });
    }
}

/// After how long a chat without work leaves memory.
fn idle_limit(broker: &Broker) -> Duration {
    fail::fail_point!("chat::idle_ms", |ms| Duration::from_millis(
        ms.and_then(|ms| ms.parse().ok()).unwrap_or_default()
    ));
    broker.options.chat_idle
}

fn storage_unavailable() -> Refusal {
    Refusal::new(ErrorCode::StorageUnavailable, "the database cannot be reached")
}
