//! The actor of one chat: a thin shell around [`ChatState`].
//!
//! It serialises what changes the chat. Messages are judged in memory and go to the writer; changes of members
//! are transactions of their own, begun when nothing of the chat is on its way. Whenever the store turns out to
//! know better, what is on its way is taken back, the chat is loaded again and the same is judged anew in the
//! same order.
//! Invariants: A1 nothing is fanned out before its commit. A2 every request is answered once. A3 the queue is
//! bounded; full means `rate_limited`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::super::Broker;
use super::super::directory::Subscriber;
use super::super::responder::Responder;
use super::fan_out::{FanOut, say_deleted, welcome};
use super::messages::{Control, ControlRequest, Counted, Refresh, Stage, Submit, Subscribe, Subscribed, Unsubscribe};
use super::staging::Staging;
use super::state::{ChatState, Decision};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{Changed, Nothing, Reply, Send, SendOk};
use crate::protocol::ids::{ChatId, Seq, SessionId};
use crate::protocol::keys::SignedAnnouncement;
use crate::protocol::log::{EntryBody, LogEntry};
use crate::protocol::membership::{Change, SignedChange};
use crate::store::Failure;
use crate::store::batch::Item;
use crate::store::loaded::LoadedChat;
use crate::store::members::{Requester, unknown_chat};
use crate::store::messages::StoredMessage;
use crate::store::writer::{Append, Appended, Outcome};

/// How long a chat waits before it asks a store again that did not answer.
const STORE_PAUSE: Duration = Duration::from_millis(250);

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
    /// Connections that ask to stand in the chat while it is not ready to say where it stands itself.
    asking: Vec<(Subscriber, oneshot::Sender<Subscribed>)>,
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
    Stage(Stage),
    Control(Control),
}

impl Work {
    const fn since(&self) -> Instant {
        match self {
            Self::Submit(submit) => submit.since,
            Self::Stage(stage) => stage.since,
            Self::Control(control) => control.since,
        }
    }

    fn refuse(self, refusal: Refusal) {
        match self {
            Self::Submit(submit) => submit.answer(Err(refusal)),
            Self::Stage(stage) => stage.responder.refuse(refusal),
            Self::Control(control) => control.responder.refuse(refusal),
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
                asking: Vec::new(),
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
            if self.refresh_wanted && self.in_flight.is_empty() {
                self.phase = Phase::Stale;
                continue;
            }
            match self.queue.pop_front() {
                None => return,
                // A repeat of what is on its way waits for its outcome.
                Some(Work::Submit(submit)) if self.is_on_its_way(&submit) => {
                    self.queue.push_front(Work::Submit(submit));
                    return;
                }
                Some(Work::Submit(submit)) => self.submit(submit, ctx),
                Some(Work::Stage(stage)) => self.stage(stage),
                Some(Work::Control(control)) if self.in_flight.is_empty() => return self.control(control, ctx),
                Some(control @ Work::Control(_)) => {
                    self.queue.push_front(control);
                    return;
                }
            }
        }
    }

    fn is_on_its_way(&self, submit: &Submit) -> bool {
        let id = |send: &Send| (send.envelope.message_id, send.envelope.revision);
        self.in_flight.iter().any(|item| id(&item.submit.send) == id(&submit.send))
    }

    /// What is stale is loaded when it is needed.
    fn wants_load(&self) -> bool {
        let has_taken_back = self.in_flight.iter().any(|item| item.taken_back.is_some());
        !self.queue.is_empty()
            || !self.asking.is_empty()
            || self.refresh_wanted
            || has_taken_back
            || self.delivered.is_none()
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

    fn submit(&mut self, mut submit: Submit, ctx: &mut Context<Self>) {
        let Phase::Ready(state) = &mut self.phase else { return self.queue.push_front(Work::Submit(submit)) };
        if let Err(refusal) = put_together(&self.staging, &mut submit) {
            return self.refuse_unless_repeat(submit, refusal, ctx);
        }
        let now = self.broker.store.clock().now();
        match state.submit(now, submit.who, &submit.signing_key, &submit.send) {
            Decision::Append(item) => self.append(submit, Arc::from(item), None, ctx),
            Decision::StoreKey(item, refusal) => self.append(submit, Arc::from(item), Some(refusal), ctx),
            Decision::Refuse(refusal) => self.refuse_unless_repeat(submit, refusal, ctx),
        }
    }

    /// Takes in a part of a list of copies: a recipient's alone, and not many more copies than there are recipients.
    fn stage(&mut self, stage: Stage) {
        let Phase::Ready(state) = &self.phase else { return self.queue.push_front(Work::Stage(stage)) };
        let session_id = stage.who.session_id;
        let result = if state.is_recipient(session_id) {
            self.staging.put(session_id, stage.part, state.recipient_count(), Instant::now())
        } else {
            Err(unknown_chat())
        };
        stage.responder.answer(result.map(|()| Reply::Done(Nothing {})));
    }

    fn append(&mut self, submit: Submit, item: Arc<Item>, refusal: Option<Refusal>, ctx: &mut Context<Self>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let append = Append { item: Arc::clone(&item), ticket, reply: ctx.address().recipient() };
        let taken = self.broker.writer_of(self.chat_id).map(|writer| writer.try_send(append));
        let announcement = match &self.phase {
            Phase::Ready(state) if !item.copies.is_empty() => state.announcement(item.key_id).cloned(),
            _ => None,
        };
        let in_flight = InFlight { ticket, submit, item, announcement, refusal, taken_back: None };
        self.in_flight.push_back(in_flight);
        if !matches!(taken, Some(Ok(()))) {
            self.broker.metrics.queue_full.with_label_values(&["writer_mailbox"]).inc();
            self.take_back(ticket, Outcome::Overloaded);
        }
    }

    /// A refusal stands unless the very same message is in the log: then its sender gets the first result (P2).
    fn refuse_unless_repeat(&mut self, submit: Submit, refusal: Refusal, ctx: &mut Context<Self>) {
        let envelope = &submit.send.envelope;
        let (chat_id, message_id, revision) = (self.chat_id, envelope.message_id, envelope.revision);
        let broker = self.broker.clone();
        let find = async move { broker.store.find_message(chat_id, message_id, revision).await };
        let answer = find.into_actor(self).map(move |found, _, _| {
            let result = match found {
                Ok(None) => Err(refusal),
                Ok(Some(stored)) => repeat(stored, &submit, refusal),
                Err(failure) => Err(failure.refusal()),
            };
            submit.answer(result);
        });
        ctx.spawn(answer);
    }

    fn take_back(&mut self, ticket: u64, outcome: Outcome) {
        if let Some(item) = self.in_flight.iter_mut().find(|item| item.ticket == ticket) {
            item.taken_back = Some(outcome);
        }
        self.phase = Phase::Stale;
    }

    fn committed(&mut self, done: InFlight) {
        if let Some(announcement) = &done.announcement {
            self.fan_out.keys(announcement, &done.item.copies);
        }
        if let Some(refusal) = done.refusal {
            return done.submit.answer(Err(refusal));
        }
        let Some(entry) = Arc::unwrap_or_clone(done.item).entry else { return };
        if done.submit.send.new_key.as_ref().is_some_and(|new_key| new_key.staged.is_some()) {
            self.staging.remove(done.submit.who.session_id);
        }
        self.delivered = Some(entry.seq);
        let result = match &self.phase {
            Phase::Ready(state) => state.sent(&entry),
            _ => SendOk {
                seq: entry.seq,
                created_at: entry.created_at,
                log_hash: entry.log_hash,
                duplicate: false,
                unreachable: Vec::new(),
                refused: Vec::new(),
            },
        };
        done.submit.answer(Ok(result));
        self.fan_out.entry(entry);
    }

    /// Loads the chat, once nothing is on its way.
    fn load(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight.iter().any(|item| item.taken_back.is_none()) {
            return;
        }
        self.requeue(ctx);
        self.watch_overdue(ctx);
        self.phase = Phase::Away;
        self.refresh_wanted = false;
        let (broker, chat_id, since) = (self.broker.clone(), self.chat_id, self.delivered);
        let load = async move { load(&broker, chat_id, since).await };
        ctx.spawn(load.into_actor(self).map(|loaded, actor, ctx| actor.loaded(loaded, ctx)));
    }

    /// Puts what was taken back in front of the queue again, in its order, but for what is answered at once.
    fn requeue(&mut self, ctx: &mut Context<Self>) {
        let mut taken_back: Vec<InFlight> = self.in_flight.drain(..).collect();
        while let Some(item) = taken_back.pop() {
            match item.taken_back {
                Some(Outcome::Overloaded) => {
                    let details = ErrorDetails { retry_after_ms: Some(100), ..ErrorDetails::default() };
                    let refusal = Refusal::with(ErrorCode::RateLimited, "too many messages wait", details);
                    item.submit.answer(Err(refusal));
                }
                Some(Outcome::IdTaken) => {
                    let refusal = Refusal::new(ErrorCode::IdReused, "the id was used with other content");
                    self.refuse_unless_repeat(item.submit, refusal, ctx);
                }
                Some(Outcome::KeyTaken) => {
                    let refusal = Refusal::new(ErrorCode::KeyExists, "a key of that id exists");
                    self.refuse_unless_repeat(item.submit, refusal, ctx);
                }
                _ => self.queue.push_front(Work::Submit(item.submit)),
            }
        }
    }

    fn loaded(&mut self, loaded: Result<Option<LoadedChat>, Failure>, ctx: &mut Context<Self>) {
        match loaded {
            Ok(Some(mut chat)) => {
                self.show(chat.last_seq, chat.since.take());
                let state = ChatState::new(self.chat_id, chat, self.broker.options.keys);
                self.fan_out.retain(|session_id| state.is_recipient(session_id));
                self.phase = Phase::Ready(Box::new(state));
                self.answer_asking();
                self.pump(ctx);
            }
            Ok(None) => {
                self.phase = Phase::Gone;
                self.leave(ctx);
                self.pump(ctx);
            }
            Err(_) => {
                self.phase = Phase::Away;
                self.answer_overdue();
                ctx.run_later(STORE_PAUSE, |actor, ctx| {
                    actor.phase = Phase::Stale;
                    actor.pump(ctx);
                });
            }
        }
    }

    /// Fans out what the store has that this actor has not shown.
    fn show(&mut self, last_seq: Seq, since: Option<Vec<LogEntry>>) {
        let is_first_load = self.delivered.is_none();
        let carries_messages = since
            .as_ref()
            .is_some_and(|entries| entries.iter().any(|entry| matches!(entry.body, EntryBody::Message(_))));
        match since {
            Some(entries) if !is_first_load && !carries_messages => {
                entries.into_iter().for_each(|entry| self.fan_out.entry(entry));
            }
            // Messages need their keys, which come with what is read from the store.
            Some(entries) if !is_first_load && entries.is_empty() => {}
            _ if is_first_load => self.fan_out.lag_those_behind(last_seq),
            _ => self.fan_out.lag_all(),
        }
        self.delivered = Some(last_seq);
    }

    /// Tells connections where they stand, once the chat knows where it stands itself.
    fn answer_asking(&mut self) {
        let (Phase::Ready(state), Some(delivered)) = (&self.phase, self.delivered) else { return };
        for (subscriber, reply) in self.asking.drain(..) {
            let who = subscriber.connection.who().filter(|who| state.is_recipient(who.session_id));
            let subscribed = match who {
                None => Subscribed::Stranger,
                Some(who) if subscriber.position < delivered => {
                    self.fan_out.remove_session(who.session_id);
                    Subscribed::Behind
                }
                Some(who) => {
                    self.fan_out.insert(who.session_id, subscriber);
                    Subscribed::Live
                }
            };
            // A connection that has gone is found out at the next entry.
            let _ = reply.send(subscribed);
        }
    }

    fn control(&mut self, control: Control, ctx: &mut Context<Self>) {
        self.phase = Phase::Away;
        let broker = self.broker.clone();
        let Control { who, request, responder, .. } = control;
        let run = async move {
            let result = run_control(&broker, who, &request).await;
            (request, result)
        };
        let finish = run.into_actor(self).map(move |(request, result), actor, ctx| {
            actor.controlled(request, result, responder, ctx);
        });
        ctx.spawn(finish);
    }

    fn controlled(
        &mut self,
        request: ControlRequest,
        result: Result<(Changed, Vec<SessionId>), Failure>,
        responder: Responder,
        ctx: &mut Context<Self>,
    ) {
        self.phase = Phase::Stale;
        match (result, request) {
            (Err(failure), _) => {
                responder.refuse(failure.refusal());
                self.pump(ctx);
            }
            (Ok((changed, recipients)), ControlRequest::Delete(delete)) => {
                self.end(&delete.change, &recipients, ctx);
                responder.ok(Reply::Changed(changed));
            }
            (Ok((changed, newcomers)), ControlRequest::Membership(_)) => {
                // The entry is shown before the answer, and subscriptions of who was removed go with it.
                let (broker, chat_id, since) = (self.broker.clone(), self.chat_id, self.delivered);
                self.phase = Phase::Away;
                let load = async move { load(&broker, chat_id, since).await };
                let finish = load.into_actor(self).map(move |loaded, actor, ctx| {
                    actor.loaded(loaded, ctx);
                    welcome(&actor.broker, actor.chat_id, changed.seq, &newcomers);
                    responder.ok(Reply::Changed(changed));
                });
                ctx.spawn(finish);
            }
        }
    }

    fn end(&mut self, change: &SignedChange, recipients: &[SessionId], ctx: &mut Context<Self>) {
        say_deleted(&self.broker, self.chat_id, change, recipients);
        self.phase = Phase::Gone;
        self.leave(ctx);
        self.pump(ctx);
    }

    /// Leaves the directory. What still comes through old addresses is passed on until nothing has come for a
    /// while.
    fn leave(&mut self, ctx: &mut Context<Self>) {
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
        let is_idle = self.queue.is_empty() && self.in_flight.is_empty() && is_at_rest;
        if is_idle && self.busy_at.elapsed() >= self.broker.options.chat_idle {
            self.broker.metrics.chats_passivated.inc();
            self.leave(ctx);
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone)
    }

    fn enqueue(&mut self, work: Work, ctx: &mut Context<Self>) {
        self.busy_at = Instant::now();
        if self.queue.len() + self.in_flight.len() >= self.broker.options.in_flight_max {
            let details = ErrorDetails { retry_after_ms: Some(100), ..ErrorDetails::default() };
            self.broker.metrics.queue_full.with_label_values(&["chat"]).inc();
            let refusal = Refusal::with(ErrorCode::RateLimited, "too many messages wait in this chat", details);
            return work.refuse(refusal);
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

async fn load(broker: &Broker, chat_id: ChatId, since: Option<Seq>) -> Result<Option<LoadedChat>, Failure> {
    let loaded = broker.store.load_chat(chat_id, since).await?;
    if !loaded.as_ref().is_some_and(|chat| chat.expiry_due) {
        return Ok(loaded);
    }
    broker.expire_in_chat(chat_id).await?;
    broker.store.load_chat(chat_id, since).await
}

/// Runs a change of members; gives the sessions that are to be told: a newcomer's, or those of a chat that ended.
async fn run_control(
    broker: &Broker,
    who: Requester,
    request: &ControlRequest,
) -> Result<(Changed, Vec<SessionId>), Failure> {
    let change = match request {
        ControlRequest::Delete(delete) => {
            let recipients = broker.store.delete_chat(who, delete).await?;
            return Ok((Changed { seq: Seq::default(), duplicate: false }, recipients));
        }
        ControlRequest::Membership(change) => change,
    };
    let (limits, members_max) = (&broker.options.sessions, broker.options.members_max);
    let changed = match broker.store.change_membership(who, change, limits, members_max).await {
        Err(Failure::ExpiryDue) => {
            broker.expire_in_chat(change.chat_id).await?;
            broker.expire(change.change.change.target.user_id).await?;
            broker.store.change_membership(who, change, limits, members_max).await?
        }
        result => result?,
    };
    let is_add = matches!(change.change.change.change, Change::Add { .. });
    let target = change.change.change.target.user_id;
    let newcomers = if is_add { broker.store.live_sessions(target).await.unwrap_or_default() } else { Vec::new() };
    Ok((changed, newcomers))
}

/// Puts copies that went ahead in parts into their message.
fn put_together(staging: &Staging, submit: &mut Submit) -> Result<(), Refusal> {
    let Send { envelope, new_key: Some(new_key), .. } = &mut *submit.send else { return Ok(()) };
    let (Some(hash), Some(key_id)) = (new_key.staged, envelope.key_id) else { return Ok(()) };
    if !new_key.copies.is_empty() {
        // They were put in by an earlier judgement of the same message.
        return Ok(());
    }
    let copies = staging.get(submit.who.session_id, key_id, &hash, Instant::now());
    new_key.copies = copies.ok_or_else(|| {
        Refusal::new(ErrorCode::UnknownKey, "the copies that went ahead are not here, or have another hash")
    })?;
    Ok(())
}

/// What the sender of a message is told whose id is in the log.
fn repeat(stored: StoredMessage, submit: &Submit, refusal: Refusal) -> Result<SendOk, Refusal> {
    let envelope = &submit.send.envelope;
    let is_own = stored.sender_session_id == submit.who.session_id;
    let is_same = stored.envelope.signature == envelope.signature
        && stored.envelope.signed_bytes(submit.send.chat_id) == envelope.signed_bytes(submit.send.chat_id);
    match (is_own, is_same) {
        (true, true) => Ok(stored.result),
        // A stranger learns nothing of what is in the log.
        _ if refusal.code == ErrorCode::UnknownChat && !is_own => Err(refusal),
        (true, false) => {
            let details = ErrorDetails { stored: Some(stored.result), ..ErrorDetails::default() };
            Err(Refusal::with(ErrorCode::IdReused, "the id was used with other content", details))
        }
        (false, _) => Err(Refusal::new(ErrorCode::IdReused, "the id was used by somebody else")),
    }
}

fn storage_unavailable() -> Refusal {
    Refusal::new(ErrorCode::StorageUnavailable, "the database cannot be reached")
}

impl Actor for ChatActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.broker.metrics.chats_loaded.inc();
        let interval = (self.broker.options.chat_idle / 2).clamp(Duration::from_millis(10), Duration::from_secs(30));
        ctx.run_interval(interval, |actor, ctx| {
            actor.staging.forget_old(Instant::now());
            actor.passivate_if_idle(ctx);
        });
        self.pump(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.broker.metrics.chats_loaded.dec();
    }
}

impl Handler<Submit> for ChatActor {
    type Result = ();

    fn handle(&mut self, mut submit: Submit, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), submit);
        }
        submit.count = Some(Counted::new(&self.broker.metrics));
        self.enqueue(Work::Submit(submit), ctx);
    }
}

impl Handler<Control> for ChatActor {
    type Result = ();

    fn handle(&mut self, control: Control, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), control);
        }
        self.enqueue(Work::Control(control), ctx);
    }
}

impl Handler<Stage> for ChatActor {
    type Result = ();

    fn handle(&mut self, stage: Stage, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), stage);
        }
        self.enqueue(Work::Stage(stage), ctx);
    }
}

impl Handler<Refresh> for ChatActor {
    type Result = ();

    fn handle(&mut self, _: Refresh, ctx: &mut Self::Context) {
        if !self.is_gone() {
            self.refresh_wanted = true;
            self.pump(ctx);
        }
    }
}

impl Handler<Subscribe> for ChatActor {
    type Result = ResponseFuture<Subscribed>;

    fn handle(&mut self, subscribe: Subscribe, ctx: &mut Self::Context) -> ResponseFuture<Subscribed> {
        let (reply, answer) = oneshot::channel();
        self.asking.push((subscribe.subscriber, reply));
        self.answer_asking();
        self.pump(ctx);
        // An actor that goes meanwhile answers nothing: its chat is asked for anew.
        Box::pin(async move { answer.await.unwrap_or(Subscribed::Again) })
    }
}

impl Handler<Unsubscribe> for ChatActor {
    type Result = ();

    fn handle(&mut self, unsubscribe: Unsubscribe, _: &mut Self::Context) {
        self.fan_out.remove(unsubscribe.connection);
    }
}

impl Handler<Appended> for ChatActor {
    type Result = ();

    fn handle(&mut self, appended: Appended, ctx: &mut Self::Context) {
        self.busy_at = Instant::now();
        match appended.outcome {
            Outcome::Committed => {
                let position = self.in_flight.iter().position(|item| item.ticket == appended.ticket);
                if let Some(done) = position.and_then(|position| self.in_flight.remove(position)) {
                    self.committed(done);
                }
            }
            outcome => self.take_back(appended.ticket, outcome),
        }
        self.pump(ctx);
    }
}

/// Passes a message on to the chat's present actor; the one that is going keeps nothing.
fn pass_on<M>(broker: &Broker, chat_id: ChatId, going: &Addr<ChatActor>, message: M)
where
    M: Message + std::marker::Send + 'static,
    M::Result: std::marker::Send,
    ChatActor: Handler<M>,
{
    let current = broker.directory.chat(broker, chat_id).filter(|current| current != going);
    if let Some(chat) = current {
        // A full mailbox drops the message, and its responder says so.
        let _ = chat.try_send(message);
    }
}
