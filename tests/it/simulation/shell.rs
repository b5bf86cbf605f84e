//! The shell of a chat's actor, modelled step by step after `broker::chat::actor`: its queue, what is on its way, what
//! is taken back, and when it loads.
//!
//! Real: [`ChatState`], which judges, and [`FanOut`], which hands out.

use std::collections::VecDeque;
use std::sync::Arc;

use sealcast::broker::chat::fan_out::FanOut;
use sealcast::broker::chat::messages::Subscribed;
use sealcast::broker::chat::state::{ChatState, CopyChange, Decision, KeyLimits};
use sealcast::broker::connection::Connection;
use sealcast::broker::directory::Subscriber;
use sealcast::protocol::binary::Signature;
use sealcast::protocol::envelope::{Envelope, MessageKind};
use sealcast::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use sealcast::protocol::frame::{Send, SendOk};
use sealcast::protocol::ids::{ChatId, KeyId, Seq, SessionId};
use sealcast::protocol::keys::SignedAnnouncement;
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::protocol::membership::{Change, SignedChange};
use sealcast::protocol::verify::Verifier;
use sealcast::store::batch::{Item, Waiting};
use sealcast::store::loaded::LoadedChat;
use sealcast::store::members::{Requester, unknown_chat};
use sealcast::store::revisions::MessageHead;
use sealcast::store::writer::Outcome;

use super::database::envelope;
use super::node::Answer;
use super::rules::Rule;
use super::world::{MILLI, SECOND, World};

/// How long a request may wait for a database that does not answer.
const DEADLINE: u64 = 2 * SECOND;

/// Messages of a chat between submission and commit.
const IN_FLIGHT_MAX: usize = 12;

/// A key serves few messages, so that worlds see its end.
pub const LIMITS: KeyLimits =
    KeyLimits { messages_max: 7, messages_max_large: 7, recipients_large: 100, age_max_micros: 600 * MILLI };

/// Says of every signature that it is good: signing is what takes the time, and nobody forges here.
struct Trusting;

impl Verifier for Trusting {
    fn key_bytes(&self) -> &[u8; 32] {
        &[0; 32]
    }

    fn verifies(&self, _: &[u8], _: &Signature) -> bool {
        true
    }
}

/// One actor of one chat, told apart from those before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShellId {
    pub node: usize,
    pub life: u64,
    pub chat_id: ChatId,
    pub number: u64,
}

#[derive(Debug)]
pub struct Submit {
    pub who: Requester,
    pub send: Box<Send>,
    pub since: u64,
    pub connection: Arc<Connection>,
    pub request: u64,
}

#[derive(Debug)]
pub struct Control {
    pub who: Requester,
    pub change: Box<SignedChange>,
    pub since: u64,
    pub connection: Arc<Connection>,
    pub request: u64,
}

#[derive(Debug)]
pub enum Work {
    Submit(Submit),
    Revision(Submit, Option<MessageHead>),
    Control(Control),
}

impl Work {
    const fn since(&self) -> u64 {
        match self {
            Self::Submit(submit) | Self::Revision(submit, _) => submit.since,
            Self::Control(control) => control.since,
        }
    }

    fn refuse(self, refusal: Refusal, world: &mut World) {
        match self {
            Self::Submit(submit) | Self::Revision(submit, _) => submit.answer(Err(refusal), world),
            Self::Control(control) => control.answer(Err(refusal), world),
        }
    }
}

impl Submit {
    fn answer(self, result: Result<SendOk, Refusal>, world: &mut World) {
        world.answer(&self.connection, Answer::Sent { request: self.request, result });
    }
}

impl Control {
    fn answer(self, result: Result<u64, Refusal>, world: &mut World) {
        world.answer(&self.connection, Answer::Changed { request: self.request, result });
    }
}

#[derive(Debug)]
enum Phase {
    Stale,
    Away,
    Ready(Box<ChatState>),
    Gone,
}

#[derive(Debug)]
struct InFlight {
    ticket: u64,
    submit: Submit,
    item: Arc<Item>,
    announcement: Option<SignedAnnouncement>,
    refusal: Option<Refusal>,
    taken_back: Option<Outcome>,
}

type Told = Box<dyn FnOnce(&mut World, Subscribed)>;

pub struct Shell {
    pub id: ShellId,
    pub fan_out: FanOut,
    phase: Phase,
    queue: VecDeque<Work>,
    in_flight: VecDeque<InFlight>,
    next_ticket: u64,
    delivered: Option<Seq>,
    refresh_wanted: bool,
    is_looking_up: bool,
    asking: Vec<(Subscriber, Told)>,
    watches_overdue: bool,
    left: Option<Vec<Subscriber>>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match &self.phase {
            Phase::Stale => "stale",
            Phase::Away => "away",
            Phase::Ready(_) => "ready",
            Phase::Gone => "gone",
        };
        f.debug_struct("Shell")
            .field("phase", &phase)
            .field("queue", &self.queue.len())
            .field("in_flight", &self.in_flight.len())
            .field("asking", &self.asking.len())
            .field("delivered", &self.delivered)
            .field("refresh_wanted", &self.refresh_wanted)
            .field("is_looking_up", &self.is_looking_up)
            .finish_non_exhaustive()
    }
}

impl Shell {
    pub fn new(id: ShellId, fan_out: FanOut) -> Self {
        Self {
            id,
            fan_out,
            phase: Phase::Stale,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            next_ticket: 0,
            delivered: None,
            refresh_wanted: false,
            is_looking_up: false,
            asking: Vec::new(),
            watches_overdue: false,
            left: None,
        }
    }

    /// Whom an actor that has gone leaves in the waiting room.
    pub fn leaves_behind(&mut self) -> Option<Vec<Subscriber>> {
        self.left.take()
    }

    pub fn stand(&mut self, subscriber: Subscriber, told: Told, world: &mut World) {
        let is_old = self.delivered.is_some_and(|delivered| subscriber.position > delivered);
        self.refresh_wanted |= is_old && self.in_flight.is_empty();
        self.asking.push((subscriber, told));
        if !self.refresh_wanted {
            self.answer_asking(world);
        }
        self.pump(world);
    }

    pub fn refresh(&mut self, world: &mut World) {
        self.refresh_wanted = true;
        self.pump(world);
    }

    pub fn copy_changed(&mut self, key_id: KeyId, session_id: SessionId, change: CopyChange, world: &mut World) {
        match &mut self.phase {
            Phase::Ready(state) => state.copy_changed(key_id, session_id, change),
            Phase::Away => {
                self.refresh_wanted = true;
                self.pump(world);
            }
            Phase::Stale | Phase::Gone => {}
        }
    }

    pub fn enqueue(&mut self, work: Work, world: &mut World) {
        if self.queue.len() + self.in_flight.len() >= IN_FLIGHT_MAX {
            let refusal = Refusal::new(ErrorCode::RateLimited, "too many messages wait in this chat");
            return work.refuse(refusal, world);
        }
        self.queue.push_back(work);
        self.pump(world);
        self.watch_overdue(world);
    }

    pub fn pump(&mut self, world: &mut World) {
        self.answer_overdue(world);
        loop {
            if self.is_looking_up {
                return;
            }
            match &self.phase {
                Phase::Away => return,
                Phase::Gone => {
                    while let Some(work) = self.queue.pop_front() {
                        work.refuse(unknown_chat(), world);
                    }
                    return;
                }
                Phase::Stale if self.wants_load() => return self.load(world),
                Phase::Stale => return,
                Phase::Ready(_) => {}
            }
            if self.refresh_wanted {
                if !self.in_flight.is_empty() {
                    return;
                }
                self.phase = Phase::Stale;
                continue;
            }
            if world.holds(Rule::AskingIsAnswered) {
                self.answer_asking(world);
            }
            match self.queue.pop_front() {
                None => return,
                Some(Work::Submit(submit)) if self.is_on_its_way(&submit) => {
                    self.queue.push_front(Work::Submit(submit));
                    return;
                }
                Some(Work::Submit(submit)) if self.needs_message(&submit) => return self.look_up(submit, world),
                Some(Work::Submit(submit)) => self.submit(submit, None, world),
                Some(Work::Revision(submit, target)) => self.submit(submit, target, world),
                Some(Work::Control(control)) if self.is_by_stranger(&control) => {
                    self.control_by_stranger(control, world);
                }
                Some(Work::Control(control)) if self.in_flight.is_empty() => return self.control(control, world),
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

    fn answer_overdue(&mut self, world: &mut World) {
        while self.queue.front().is_some_and(|work| work.since() + DEADLINE < world.now) {
            if let Some(work) = self.queue.pop_front() {
                work.refuse(storage_unavailable(), world);
            }
        }
    }

    fn watch_overdue(&mut self, world: &mut World) {
        let Some(oldest) = self.queue.front() else { return };
        if self.watches_overdue {
            return;
        }
        self.watches_overdue = true;
        let (id, left) = (self.id, (oldest.since() + DEADLINE).saturating_sub(world.now));
        world.after(left + MILLI, "overdue", move |world| {
            world.with_same(id, |shell, world| {
                shell.watches_overdue = false;
                shell.answer_overdue(world);
                shell.watch_overdue(world);
            });
        });
    }

    /// Goes, if nothing is going on.
    pub fn passivate(&mut self) {
        let is_at_rest = matches!(self.phase, Phase::Ready(_) | Phase::Stale) && self.asking.is_empty();
        if is_at_rest && !self.is_looking_up && self.queue.is_empty() && self.in_flight.is_empty() {
            self.left = Some(self.fan_out.take_all());
            self.phase = Phase::Gone;
        }
    }

    fn needs_message(&self, submit: &Submit) -> bool {
        let is_revision = submit.send.envelope.kind != MessageKind::Message;
        is_revision && matches!(&self.phase, Phase::Ready(state) if state.is_recipient(submit.who.session_id))
    }

    fn look_up(&mut self, submit: Submit, world: &mut World) {
        let (id, message_id) = (self.id, submit.send.envelope.message_id);
        self.is_looking_up = true;
        let look = move |world: &World| world.db.message_head(id.chat_id, message_id);
        world.read(look, move |world, found| {
            world.with_same(id, |shell, world| {
                shell.is_looking_up = false;
                match found {
                    Some(target) => shell.queue.push_front(Work::Revision(submit, target)),
                    None => submit.answer(Err(storage_unavailable()), world),
                }
                shell.pump(world);
            });
        });
    }

    fn submit(&mut self, submit: Submit, target: Option<MessageHead>, world: &mut World) {
        let Phase::Ready(state) = &mut self.phase else { return self.queue.push_front(Work::Submit(submit)) };
        let now = world.clock(self.id.node);
        let mut send = submit.send.clone();
        if !world.holds(Rule::KeyCarriesItsEpoch)
            && let Some(new_key) = &mut send.new_key
        {
            new_key.announcement.announcement.epoch = world.db.chats[&self.id.chat_id].head.epoch;
        }
        match state.submit(now, submit.who, &Trusting, &send, target.as_ref()) {
            Decision::Append(item) => self.append(submit, Arc::from(item), None, world),
            Decision::StoreKey(item, refusal) => self.append(submit, Arc::from(item), Some(refusal), world),
            Decision::Refuse(refusal) => self.refuse_unless_old(submit, refusal, world),
        }
    }

    fn append(&mut self, submit: Submit, item: Arc<Item>, refusal: Option<Refusal>, world: &mut World) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let announcement = match &self.phase {
            Phase::Ready(state) if !item.copies.is_empty() => {
                item.key_id.and_then(|key_id| state.announcement(key_id)).cloned()
            }
            _ => None,
        };
        if !world.holds(Rule::DeliverAfterCommit)
            && let Some(entry) = &item.entry
        {
            self.fan_out.entry(entry.clone());
        }
        if !world.holds(Rule::AnswerAfterCommit)
            && let Some(entry) = &item.entry
        {
            let answer = Answer::Sent { request: submit.request, result: Ok(SendOk::of(entry)) };
            world.answer(&submit.connection, answer);
        }
        let waiting = Waiting { item: Arc::clone(&item), since: world.instant(), reply: (self.id, ticket) };
        self.in_flight.push_back(InFlight { ticket, submit, item, announcement, refusal, taken_back: None });
        let (node, life) = (self.id.node, self.id.life);
        if world.breaks(4) || world.nodes[node].queue.push(waiting).is_err() {
            // A mailbox that is full says so at once, a queue that is full a little later: both are overloaded.
            return self.take_back(ticket, Outcome::Overloaded);
        }
        world.after(0, "lane", move |world| world.commit_next(node, life));
    }

    pub fn appended(&mut self, ticket: u64, outcome: Outcome, world: &mut World) {
        match outcome {
            Outcome::Committed => {
                let position = self.in_flight.iter().position(|item| item.ticket == ticket);
                if let Some(done) = position.and_then(|position| self.in_flight.remove(position)) {
                    self.committed(done, world);
                }
            }
            outcome => self.take_back(ticket, outcome),
        }
        self.pump(world);
    }

    fn take_back(&mut self, ticket: u64, outcome: Outcome) {
        if let Some(item) = self.in_flight.iter_mut().find(|item| item.ticket == ticket) {
            item.taken_back = Some(outcome);
        }
        self.phase = Phase::Stale;
    }

    fn committed(&mut self, done: InFlight, world: &mut World) {
        if let Some(announcement) = &done.announcement {
            self.fan_out.keys(announcement, &done.item.copies);
        }
        if let Some(refusal) = done.refusal {
            return self.refuse_unless_repeat(done.submit, refusal, world);
        }
        let Some(entry) = Arc::unwrap_or_clone(done.item).entry else { return };
        self.delivered = Some(entry.seq);
        let result = match &self.phase {
            Phase::Ready(state) => state.sent(&entry),
            _ => SendOk::of(&entry),
        };
        if world.holds(Rule::AnswerAfterCommit) {
            done.submit.answer(Ok(result), world);
        }
        if world.holds(Rule::DeliverAfterCommit) {
            self.fan_out.entry(entry);
        }
    }

    fn refuse_unless_repeat(&mut self, submit: Submit, refusal: Refusal, world: &mut World) {
        if !world.holds(Rule::RepeatsAreLookedUp) {
            return submit.answer(Err(refusal), world);
        }
        let envelope = &submit.send.envelope;
        let (id, message_id, revision) = (self.id, envelope.message_id, envelope.revision);
        let look = move |world: &World| world.db.find(id.chat_id, message_id, revision).cloned();
        world.read(look, move |world, found| {
            // An actor that has gone answers all the same: the look goes on beside what it does.
            if world.nodes[id.node].life != id.life {
                return;
            }
            let result = match found {
                Some(None) => Err(refusal),
                Some(Some(stored)) => repeat(&stored, &submit, refusal),
                None => Err(storage_unavailable()),
            };
            submit.answer(result, world);
        });
    }

    /// A refusal stands unless the very same message is in the log, or the log has moved on without this actor.
    fn refuse_unless_old(&mut self, submit: Submit, refusal: Refusal, world: &mut World) {
        if !world.holds(Rule::RepeatsAreLookedUp) {
            return submit.answer(Err(refusal), world);
        }
        let is_known = matches!(&self.phase, Phase::Ready(state) if state.is_recipient(submit.who.session_id));
        let holds_up = is_known && world.holds(Rule::RefusalsKeepOrder);
        self.is_looking_up |= holds_up;
        let (id, who, judged_by) = (self.id, submit.who, self.delivered);
        let (message_id, revision) = (submit.send.envelope.message_id, submit.send.envelope.revision);
        let look = move |world: &World| {
            let found = world.db.find(id.chat_id, message_id, revision).cloned();
            let newest = if found.is_none() { world.db.newest_seq(who, id.chat_id) } else { None };
            (found, newest)
        };
        world.read(look, move |world, looked| {
            if world.nodes[id.node].life != id.life {
                return;
            }
            let mut waits = None;
            match looked {
                Some((Some(stored), _)) => {
                    let result = repeat(&stored, &submit, refusal);
                    submit.answer(result, world);
                }
                Some((None, newest)) if newest > judged_by => {
                    if !is_known {
                        world.oracle.strangers.insert(who.session_id);
                    }
                    waits = Some((newest, submit));
                }
                Some((None, _)) => submit.answer(Err(refusal), world),
                None => submit.answer(Err(storage_unavailable()), world),
            }
            world.with_same(id, |shell, world| {
                shell.is_looking_up &= !holds_up;
                if let Some((newest, submit)) = waits.take() {
                    shell.refresh_wanted |= newest > shell.delivered && shell.in_flight.is_empty();
                    match holds_up {
                        true => shell.queue.push_front(Work::Submit(submit)),
                        false => shell.queue.push_back(Work::Submit(submit)),
                    }
                }
                shell.pump(world);
                shell.watch_overdue(world);
            });
            if let Some((_, submit)) = waits {
                // An actor that has gone drops it, and its responder says so.
                submit.answer(Err(Refusal::new(ErrorCode::Internal, "the request was lost")), world);
            }
        });
    }

    fn requeue(&mut self, world: &mut World) {
        let mut taken_back: Vec<InFlight> = self.in_flight.drain(..).collect();
        if !world.holds(Rule::RequeueKeepsOrder) {
            taken_back.reverse();
        }
        while let Some(item) = taken_back.pop() {
            match item.taken_back {
                Some(Outcome::Overloaded) => {
                    item.submit.answer(Err(Refusal::new(ErrorCode::RateLimited, "too many messages wait")), world);
                }
                Some(Outcome::Unknown) if !world.holds(Rule::UnknownIsAsked) => {
                    item.submit.answer(Err(Refusal::new(ErrorCode::KeySpent, "it was not stored")), world);
                }
                Some(Outcome::IdTaken) => {
                    let refusal = Refusal::new(ErrorCode::IdReused, "the id was used with other content");
                    self.refuse_unless_repeat(item.submit, refusal, world);
                }
                Some(Outcome::KeyTaken) => {
                    let refusal = Refusal::new(ErrorCode::KeyExists, "a key of that id exists");
                    self.refuse_unless_repeat(item.submit, refusal, world);
                }
                _ => self.queue.push_front(Work::Submit(item.submit)),
            }
        }
    }

    fn is_on_its_way(&self, submit: &Submit) -> bool {
        let envelope = &submit.send.envelope;
        let is_revision = envelope.kind != MessageKind::Message;
        let decides = |other: &Envelope| {
            other.message_id == envelope.message_id && (is_revision || other.revision == envelope.revision)
        };
        self.in_flight.iter().any(|item| decides(&item.submit.send.envelope))
    }

    fn wants_load(&self) -> bool {
        let has_taken_back = self.in_flight.iter().any(|item| item.taken_back.is_some());
        !self.queue.is_empty()
            || !self.asking.is_empty()
            || self.refresh_wanted
            || has_taken_back
            || self.delivered.is_none()
    }

    fn load(&mut self, world: &mut World) {
        if self.in_flight.iter().any(|item| item.taken_back.is_none()) {
            return;
        }
        self.requeue(world);
        self.watch_overdue(world);
        self.phase = Phase::Away;
        self.refresh_wanted = false;
        let id = self.id;
        world.load_chat(id, self.delivered, move |world, loaded| {
            world.with_same(id, |shell, world| shell.loaded(loaded, world));
        });
    }

    fn loaded(&mut self, loaded: Option<LoadedChat>, world: &mut World) {
        let Some(mut chat) = loaded else {
            self.phase = Phase::Away;
            self.refresh_wanted = true;
            self.answer_overdue(world);
            let id = self.id;
            return world.after(5 * MILLI, "store pause", move |world| {
                world.with_same(id, |shell, world| {
                    shell.phase = Phase::Stale;
                    shell.pump(world);
                });
            });
        };
        let since = chat.since.take();
        let newcomers = newcomers(since.as_deref().unwrap_or_default(), &chat);
        if self.delivered.is_none() && world.holds(Rule::UnseenAreWelcomed) {
            world.welcome_unseen(self.id.node, self.id.chat_id, &chat);
        }
        if world.holds(Rule::LoadShowsNews) {
            self.show(chat.last_seq, since);
        }
        self.delivered = Some(chat.last_seq);
        for (added_at, sessions) in newcomers {
            world.welcome(self.id.node, self.id.chat_id, added_at, &sessions);
        }
        let state = ChatState::new(self.id.chat_id, chat, LIMITS);
        self.fan_out.retain(|session_id| state.is_recipient(session_id));
        self.phase = Phase::Ready(Box::new(state));
        self.answer_asking(world);
        self.pump(world);
    }

    fn show(&mut self, last_seq: Seq, since: Option<Vec<LogEntry>>) {
        let is_first_load = self.delivered.is_none();
        let carries_messages =
            since.as_ref().is_some_and(|entries| entries.iter().any(|entry| envelope(entry).is_some()));
        match since {
            _ if is_first_load => self.fan_out.lag_those_behind(last_seq),
            Some(entries) if !carries_messages => {
                entries.into_iter().for_each(|entry| self.fan_out.entry(entry));
            }
            _ => self.fan_out.lag_all(),
        }
    }

    fn answer_asking(&mut self, world: &mut World) {
        let (Phase::Ready(state), Some(delivered)) = (&self.phase, self.delivered) else { return };
        for (subscriber, told) in self.asking.drain(..) {
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
            world.after(0, "subscribed", move |world| told(world, subscribed));
        }
    }

    fn control(&mut self, control: Control, world: &mut World) {
        let kept = std::mem::replace(&mut self.phase, Phase::Away);
        let id = self.id;
        world.change_membership(id.node, control.who, control.change.clone(), move |world, result| {
            world.with_same(id, |shell, world| match result {
                Some(Err(refusal)) => {
                    shell.phase = kept;
                    control.answer(Err(refusal), world);
                    shell.pump(world);
                }
                None => {
                    shell.phase = Phase::Stale;
                    shell.refresh_wanted = true;
                    control.answer(Err(storage_unavailable()), world);
                    shell.pump(world);
                }
                Some(Ok((seq, newcomers))) => {
                    shell.phase = Phase::Away;
                    world.load_chat(id, shell.delivered, move |world, loaded| {
                        world.with_same(id, |shell, world| {
                            shell.loaded(loaded, world);
                            world.welcome(id.node, id.chat_id, Seq::saturating(seq), &newcomers);
                            control.answer(Ok(seq), world);
                        });
                    });
                }
            });
        });
    }

    fn control_by_stranger(&mut self, control: Control, world: &mut World) {
        let id = self.id;
        world.change_membership(id.node, control.who, control.change.clone(), move |world, result| {
            if world.nodes[id.node].life != id.life {
                return;
            }
            world.with_same(id, |shell, world| {
                shell.refresh_wanted |= matches!(result, Some(Ok(_)));
                shell.pump(world);
            });
            let result = match result {
                Some(result) => result.map(|(seq, _)| seq),
                None => Err(storage_unavailable()),
            };
            control.answer(result, world);
        });
    }
}

fn newcomers(since: &[LogEntry], chat: &LoadedChat) -> Vec<(Seq, Vec<SessionId>)> {
    let added = since.iter().filter_map(|entry| match &entry.body {
        EntryBody::Membership(signed) if matches!(signed.change.change, Change::Add { .. }) => {
            Some((entry.seq, signed.change.target.user_id))
        }
        _ => None,
    });
    let sessions_of = |user_id| chat.recipients.iter().filter(move |(_, recipient)| recipient.user_id == user_id);
    added.map(|(seq, user_id)| (seq, sessions_of(user_id).map(|(session_id, _)| *session_id).collect())).collect()
}

/// What the sender of a message is told whose id is in the log.
fn repeat(stored: &LogEntry, submit: &Submit, refusal: Refusal) -> Result<SendOk, Refusal> {
    let Some(found) = envelope(stored) else { return Err(refusal) };
    let sent = &submit.send.envelope;
    let is_own = found.sender_session_id == submit.who.session_id;
    let is_same = found.signature == sent.signature
        && found.signed_bytes(submit.send.chat_id) == sent.signed_bytes(submit.send.chat_id);
    let result = SendOk { duplicate: true, ..SendOk::of(stored) };
    match (is_own, is_same) {
        (true, true) => Ok(result),
        _ if refusal.code == ErrorCode::UnknownChat && !is_own => Err(refusal),
        (true, false) => {
            let details = ErrorDetails { stored: Some(result), ..ErrorDetails::default() };
            Err(Refusal::with(ErrorCode::IdReused, "the id was used with other content", details))
        }
        (false, _) if matches!(refusal.code, ErrorCode::EditConflict | ErrorCode::UnknownMessage) => Err(refusal),
        (false, _) => Err(Refusal::new(ErrorCode::IdReused, "the id was used by somebody else")),
    }
}

fn storage_unavailable() -> Refusal {
    Refusal::new(ErrorCode::StorageUnavailable, "the database cannot be reached")
}
