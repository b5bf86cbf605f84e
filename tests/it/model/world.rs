//! The state that the checker explores, and its steps.
//!
//! A step is a message that comes to its chat's actor, what the writer commits, a transaction's beginning or end, a
//! session's time that runs out, a copy that is refused, or copies that are swept. Requests are made of any view of the log that there ever was, so each comes as late as it likes.
//!
//! What is alike is looked at once: steps that change nothing are none; of a user's two sessions, while both are alike and
//! have done nothing, one stands for both.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stateright::{Model, Property};

use super::invariants::{Broken, Promise, check_commit, check_logs, check_sending};
use super::people::{Chat, SESSIONS, Session, USERS, sibling, user_of};
use super::rules::{Rule, Scope};
use super::sending::{Belief, InFlight, Sending, frame, judge_waiting};
use super::set::Set;
use super::store::{KeyName, State, Store};
use super::transactions::{Outcome, Request, Transaction};

#[derive(Debug, Clone)]
pub struct World {
    pub store: Store,
    /// Those that have begun, in order of what they ask.
    pub transactions: Vec<Transaction>,
    /// What each chat's actor believes, once it is loaded.
    pub beliefs: Vec<Option<Belief>>,
    pub in_flight: Vec<Vec<InFlight>>,
    /// Sessions that have done something, or to which something was done.
    touched: Set,
    /// Whether a copy was refused: one is enough.
    has_refused: bool,
    pub broken: Option<Broken>,
    /// Steps from the beginning, by the shortest way: a single-threaded search comes by that first. Not part of what is
    /// compared.
    steps: usize,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.store, &self.transactions, &self.beliefs, &self.in_flight).hash(hasher);
        (self.touched, self.has_refused, self.broken.is_some()).hash(hasher);
    }
}

impl PartialEq for World {
    /// Two worlds are the same if the checker cannot tell them apart.
    fn eq(&self, other: &Self) -> bool {
        let digest = |world: &Self| {
            let mut hasher = std::hash::DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        digest(self) == digest(other)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A message comes to its chat's actor, which loads the chat if it must; or also, where the flag is set, because it
    /// has just heard that the log has moved.
    Submit(Sending, bool),
    /// The writer commits what waits in a chat.
    Write(Chat),
    Begin(Request),
    Finish(Request),
    /// A session's time runs out.
    RunOut(Session),
    RefuseCopy(Chat, KeyName, Session),
    Sweep,
}

pub struct Protocol {
    pub chats: usize,
    pub dropped: Option<Rule>,
    pub scope: Scope,
    /// How far the search goes.
    pub steps: usize,
    /// How many steps have been taken and judged.
    pub judged: Arc<AtomicUsize>,
}

impl Protocol {
    const fn is_in_scope(&self, step: Step) -> bool {
        let Scope { additions, removals, sessions, expiry, copies } = self.scope;
        match step {
            Step::Submit(..) | Step::Write(_) | Step::Finish(_) => true,
            Step::RefuseCopy(..) | Step::Sweep => copies,
            Step::RunOut(_) | Step::Begin(Request::Expire { .. }) => expiry,
            Step::Begin(Request::Revoke { .. } | Request::Certify { .. }) => sessions,
            Step::Begin(Request::Add { .. }) => additions,
            Step::Begin(Request::Remove { .. } | Request::Leave { .. }) => removals,
        }
    }

    fn drops(&self, rule: Rule) -> bool {
        self.dropped == Some(rule)
    }
}

impl World {
    fn new(chats: usize) -> Self {
        Self {
            store: Store::new(chats),
            transactions: Vec::new(),
            beliefs: vec![None; chats],
            in_flight: vec![Vec::new(); chats],
            touched: Set::default(),
            has_refused: false,
            broken: None,
            steps: 0,
        }
    }

    /// Whether the other session of the same user stands for this one too.
    fn is_spare(&self, session: Session) -> bool {
        let other = sibling(session);
        let is_untouched = !self.touched.contains(session) && !self.touched.contains(other);
        session > other && is_untouched && self.store.sessions[session] == self.store.sessions[other]
    }

    fn acting(&self) -> impl Iterator<Item = Session> {
        (0..SESSIONS).filter(|session| !self.is_spare(*session))
    }

    fn is_chat_held(&self, chat: Chat, dropped: Option<Rule>) -> bool {
        self.transactions.iter().any(|other| other.chats_held(dropped).contains(&chat))
    }

    pub fn can_write(&self, chat: Chat, dropped: Option<Rule>) -> bool {
        !self.in_flight[chat].is_empty() && !self.is_chat_held(chat, dropped)
    }

    pub fn can_finish(&self, transaction: &Transaction, dropped: Option<Rule>) -> bool {
        !transaction.is_blocked(&self.store, &self.transactions, dropped)
    }

    pub fn is_at_rest(&self) -> bool {
        self.transactions.is_empty() && self.in_flight.iter().all(Vec::is_empty)
    }

    fn touch(&mut self, sessions: impl IntoIterator<Item = Session>) {
        self.touched = self.touched.with(Set::of(sessions));
    }

    fn submit(&mut self, sending: Sending, has_heard: bool, dropped: Option<Rule>) -> Option<()> {
        let chat = sending.chat;
        if has_heard {
            self.beliefs[chat] = None;
        }
        if self.beliefs[chat].is_none() {
            let waits_for_expiry = self.store.expiry_due(chat) && dropped != Some(Rule::ExpiryIsJudged);
            if self.is_chat_held(chat, dropped) || waits_for_expiry {
                return None;
            }
        }
        let (send, wrapped_for) = frame(&self.store, &self.in_flight[chat], sending);
        let belief = self.beliefs[chat].get_or_insert_with(|| Belief::of(&self.store, chat));
        let item = belief.submit(&self.store, sending, send, dropped)?;
        self.in_flight[chat].push(InFlight { key: sending.key(), item: item.into(), wrapped_for });
        self.touch([sending.session]);
        Some(())
    }

    fn write(&mut self, chat: Chat, dropped: Option<Rule>) -> Option<()> {
        if !self.can_write(chat, dropped) {
            return None;
        }
        let waiting = std::mem::take(&mut self.in_flight[chat]);
        let accepted = judge_waiting(&self.store, chat, &waiting, dropped);
        if accepted.len() < waiting.len() {
            // What is not committed is taken back and judged again, which is the same as coming in again.
            self.beliefs[chat] = None;
        }
        let is_over = self.store.expiry_due(chat);
        for item in &accepted {
            self.store.commit(chat, item);
            self.broken = self.broken.take().or_else(|| check_commit(&self.store, chat, item, is_over));
        }
        Some(())
    }

    fn begin(&mut self, request: Request, dropped: Option<Rule>) -> Option<()> {
        let transaction = Transaction::begin(&self.store, request);
        let wants = transaction.user_held(dropped);
        let chats = transaction.chats_held(dropped);
        let is_held = self.transactions.iter().any(|other| {
            let holds_user = wants.is_some() && other.user_held(dropped) == wants;
            holds_user || other.request == request || other.chats_held(dropped).iter().any(|chat| chats.contains(chat))
        });
        // What would be refused now may as well begin later.
        if is_held || transaction.is_refused(&self.store, dropped) {
            return None;
        }
        match request {
            Request::Add { actor, .. } | Request::Remove { actor, .. } | Request::Leave { actor, .. } => {
                self.touch([actor]);
            }
            Request::Revoke { session } | Request::Certify { session } => self.touch([session, sibling(session)]),
            Request::Expire { .. } => {}
        }
        self.transactions.push(transaction);
        self.transactions.sort();
        Some(())
    }

    fn finish(&mut self, request: Request, dropped: Option<Rule>) -> Option<()> {
        let index = self.transactions.iter().position(|other| other.request == request)?;
        let transaction = self.transactions[index].clone();
        if !self.can_finish(&transaction, dropped) {
            return None;
        }
        self.transactions.remove(index);
        let mut store = self.store.clone();
        match transaction.finish(&mut store, dropped) {
            Outcome::Refused => {}
            Outcome::Committed(result) => {
                self.store = store;
                self.broken = result.err().map(|what| Broken { promise: Promise::Log, what });
            }
        }
        Some(())
    }

    fn refuse_copy(&mut self, chat: Chat, key: KeyName, session: Session, dropped: Option<Rule>) -> Option<()> {
        if self.is_chat_held(chat, dropped) || !self.store.may_act(session) {
            return None;
        }
        self.store.void_copy(chat, key, session);
        self.has_refused = true;
        self.touch([session]);
        Some(())
    }

    fn run_out(&mut self, session: Session) -> Option<()> {
        self.store.sessions[session].is_over = true;
        self.touch([session]);
        Some(())
    }

    fn sweep(&mut self) -> Option<()> {
        self.store.sweep();
        Some(())
    }

    /// Whether a sweep takes copies of a key that is still of use.
    fn has_to_sweep(&self, chat: Chat) -> bool {
        let is_revoked = |session: &Session| self.store.sessions[*session].state == State::Revoked;
        let revoked = Set::of((0..SESSIONS).filter(is_revoked));
        let keys = self.store.current_keys(chat);
        keys.iter().any(|key| !revoked.and(self.store.chats[chat].keys[key].copies).is_empty())
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.chats)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        for chat in 0..self.chats {
            self.steps_of_chat(world, chat, steps);
        }
        for session in world.acting() {
            let row = world.store.sessions[session];
            let may_come_in = matches!(row.state, State::Pending | State::Expired) || row.is_over;
            if may_come_in || self.drops(Rule::RevokedStaysOut) {
                steps.push(Step::Begin(Request::Certify { session }));
            }
            if row.state == State::Live && !row.is_over {
                steps.push(Step::RunOut(session));
            }
            if matches!(row.state, State::Live | State::Expired) {
                steps.push(Step::Begin(Request::Revoke { session }));
            }
        }
        steps.extend((0..USERS).map(|user| Step::Begin(Request::Expire { user })));
        steps.extend(world.transactions.iter().map(|transaction| Step::Finish(transaction.request)));
        if (0..self.chats).any(|chat| world.has_to_sweep(chat)) {
            steps.push(Step::Sweep);
        }
        steps.retain(|step| self.is_in_scope(*step));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        world.steps += 1;
        match step {
            Step::Submit(sending, has_heard) => world.submit(sending, has_heard, self.dropped)?,
            Step::Write(chat) => world.write(chat, self.dropped)?,
            Step::Begin(request) => world.begin(request, self.dropped)?,
            Step::Finish(request) => world.finish(request, self.dropped)?,
            Step::RunOut(session) => world.run_out(session)?,
            Step::RefuseCopy(chat, key, session) => world.refuse_copy(chat, key, session, self.dropped)?,
            Step::Sweep => world.sweep()?,
        }
        world.broken = world.broken.take().or_else(|| check_logs(&world.store));
        world.broken = world.broken.take().or_else(|| check_sending(&world, self.dropped));
        self.judged.fetch_add(1, Ordering::Relaxed);
        Some(world)
    }

    /// Worlds at the end of the search have been judged when they came about: only those are kept in which something
    /// does not hold.
    fn within_boundary(&self, world: &World) -> bool {
        world.broken.is_some() || world.steps < self.steps
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds(world: &World, promise: Promise) -> bool {
            world.broken.as_ref().is_none_or(|broken| broken.promise != promise)
        }
        vec![
            Property::always("the log", |_, world| holds(world, Promise::Log)),
            Property::always("P4", |_, world| holds(world, Promise::Decryptable)),
            Property::always("P5", |_, world| holds(world, Promise::ZeroWindow)),
            Property::always("joining", |_, world| holds(world, Promise::Joining)),
            Property::always("sending", |_, world| holds(world, Promise::Sending)),
        ]
    }
}

impl Protocol {
    fn steps_of_chat(&self, world: &World, chat: Chat, steps: &mut Vec<Step>) {
        let row = &world.store.chats[chat];
        let newest = row.views.len() - 1;
        // With something on its way it looks only when it has heard what becomes of that.
        let belief = world.beliefs[chat].as_ref();
        let is_old = belief.is_some_and(|belief| world.has_refused || belief.is_old(&world.store, chat));
        let may_hear = is_old && world.in_flight[chat].is_empty();
        for session in world.acting() {
            let known = (0..=newest).filter(|view| row.views[*view].recipients().contains(session));
            for view in known {
                let as_of = [newest, view].into_iter().take(if view == newest { 1 } else { 2 });
                for sending in as_of.map(|as_of| Sending { chat, session, made: view, as_of }) {
                    steps.push(Step::Submit(sending, false));
                    if may_hear {
                        steps.push(Step::Submit(sending, true));
                    }
                }
                steps.push(Step::Begin(Request::Leave { chat, actor: session, view }));
                for target in (0..USERS).filter(|target| *target != user_of(session)) {
                    let is_member = world.store.is_member(chat, target);
                    steps.push(Step::Begin(match is_member {
                        true => Request::Remove { chat, actor: session, target, view },
                        false => Request::Add { chat, actor: session, target, view },
                    }));
                }
            }
        }
        steps.push(Step::Write(chat));
        if world.has_refused {
            return;
        }
        for name in world.store.current_keys(chat) {
            for session in row.keys[&name].copies.iter().filter(|session| *session != name.0) {
                steps.push(Step::RefuseCopy(chat, name, session));
            }
        }
    }
}
