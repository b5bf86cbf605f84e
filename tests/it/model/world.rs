//! The state that the checker explores, and what each step does to it.
//!
//! A step is a message that comes to its chat's actor, what the writer commits, a transaction's beginning or end, a
//! generation that is made or refused, a session's time that runs out, a copy that is refused, or copies that are swept.
//! Requests are made of any view of the log that there ever was, so each comes as late as it likes.

use std::hash::{Hash, Hasher};

use super::generations::Making;
use super::invariants::{Broken, Promise, check_commit, check_logs, check_sending};
use super::people::{Chat, SESSIONS, Session, sibling};
use super::rules::Rule;
use super::sending::{Belief, InFlight, Sending, frame, judge_waiting};
use super::set::Set;
use super::store::{KeyName, Refused, State, Store};
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
    pub has_refused: bool,
    pub broken: Option<Broken>,
    /// Steps from the beginning, by the shortest way: a single-threaded search comes by that first. Not part of what is
    /// compared.
    pub steps: usize,
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
    Make(Making),
    RefuseGeneration(Chat, Session),
}

impl World {
    pub fn new(store: Store) -> Self {
        let chats = store.chats.len();
        let makers = store.chats.iter().flat_map(|row| row.generations.values().map(|made| made.maker));
        Self {
            touched: Set::of(makers),
            store,
            transactions: Vec::new(),
            beliefs: vec![None; chats],
            in_flight: vec![Vec::new(); chats],
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

    pub fn acting(&self) -> impl Iterator<Item = Session> {
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
        let (send, held) = frame(&self.store, &self.in_flight[chat], sending);
        let belief = self.beliefs[chat].get_or_insert_with(|| Belief::of(&self.store, chat, dropped));
        let item = belief.submit(&self.store, sending, send, dropped)?;
        self.in_flight[chat].push(InFlight { key: sending.key(), item: item.into(), held });
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
            Request::Revoke { session, .. } | Request::Certify { session } => self.touch([session, sibling(session)]),
            Request::Expire { .. } | Request::ReplaceUserKey { .. } => {}
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
        if let Outcome::Committed(result) = transaction.finish(&mut store, dropped) {
            self.store = store;
            self.wrote(result);
        }
        Some(())
    }

    /// What was written must be good to those who follow the log.
    fn wrote(&mut self, result: Result<(), Refused>) {
        self.broken = result.err().map(|what| Broken { promise: Promise::Log, what });
    }

    fn make(&mut self, making: Making, dropped: Option<Rule>) -> Option<()> {
        if self.is_chat_held(making.chat, dropped) {
            return None;
        }
        let Outcome::Committed(result) = self.store.make_generation(making, dropped) else { return None };
        self.wrote(result);
        self.touch([making.session]);
        Some(())
    }

    fn refuse_generation(&mut self, chat: Chat, session: Session, dropped: Option<Rule>) -> Option<()> {
        if self.is_chat_held(chat, dropped) {
            return None;
        }
        let Outcome::Committed(result) = self.store.refuse_generation(chat, session, dropped) else { return None };
        self.wrote(result);
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
    pub fn has_to_sweep(&self, chat: Chat) -> bool {
        let is_revoked = |session: &Session| self.store.sessions[*session].state == State::Revoked;
        let revoked = Set::of((0..SESSIONS).filter(is_revoked));
        let keys = self.store.current_keys(chat);
        keys.iter().any(|key| !revoked.and(self.store.chats[chat].keys[key].copies).is_empty())
    }

    /// Takes a step and looks at everything; none if it cannot be taken, or changes nothing.
    pub fn take(&mut self, step: Step, dropped: Option<Rule>) -> Option<()> {
        match step {
            Step::Submit(sending, has_heard) => self.submit(sending, has_heard, dropped)?,
            Step::Write(chat) => self.write(chat, dropped)?,
            Step::Begin(request) => self.begin(request, dropped)?,
            Step::Finish(request) => self.finish(request, dropped)?,
            Step::RunOut(session) => self.run_out(session)?,
            Step::RefuseCopy(chat, key, session) => self.refuse_copy(chat, key, session, dropped)?,
            Step::Sweep => self.sweep()?,
            Step::Make(making) => self.make(making, dropped)?,
            Step::RefuseGeneration(chat, session) => self.refuse_generation(chat, session, dropped)?,
        }
        self.broken = self.broken.take().or_else(|| check_logs(&self.store));
        self.broken = self.broken.take().or_else(|| check_sending(self, dropped));
        Some(())
    }
}
