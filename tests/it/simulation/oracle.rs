//! What must hold in every world, checked by what happened and by nothing that the broker believes.
//!
//! P1 an acknowledged message is in the log, and a refused one is not. P2 one seq for one revision of an id. P3 one
//! order without gaps, the same for all. P4 the copies of a key are the recipients at the commit. P5 nothing is
//! accepted under a key that somebody knows who receives no longer, and nothing later is handed to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealcast::protocol::envelope::MessageKind;
use sealcast::protocol::ids::{ChatId, KeyId, MessageId, SessionId, UserId};
use sealcast::protocol::log::{EntryBody, LogEntry, next_entry};
use sealcast::store::batch::Item;

use super::database::envelope;
use super::world::World;

/// What its maker did with a key, whatever the server thinks of it.
#[derive(Debug, Clone)]
pub struct Made {
    pub epoch: u64,
    /// Everybody for whom it was ever wrapped: the bytes were on the wire.
    pub wrapped_for: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub violation: Option<String>,
    pub keys: BTreeMap<(ChatId, KeyId), Made>,
    /// By chat, id and revision: the seq that the sender was told.
    pub acknowledged: BTreeMap<(ChatId, MessageId, u64), u64>,
    /// Signatures of what was refused for good.
    pub refused: BTreeSet<Vec<u8>>,
    /// Sessions that were strangers to a chat's actor and not to the store: what they sent is judged again behind others, for
    /// strangers hold up nobody.
    pub strangers: BTreeSet<SessionId>,
    /// By signature: the chat that a membership change is of.
    pub chat_of_change: BTreeMap<Vec<u8>, ChatId>,
    counters: BTreeMap<(ChatId, KeyId), u64>,
}

impl World {
    /// Looks at an item of a batch just before the database takes it. `judged_at`: when its rows were locked.
    pub fn check_commit(&mut self, item: &Item, batch: &[Arc<Item>], judged_at: u64) {
        let chat = &self.db.chats[&item.chat_id];
        let Some(entry) = &item.entry else { return };
        let Some(envelope) = envelope(entry) else { return };
        let fold = &chat.fold;
        let next =
            next_entry(item.chat_id, chat.head.last_seq, &chat.head.log_hash, entry.created_at, entry.body.clone());
        let name = (envelope.message_id, envelope.revision.get());
        let problem = if next.seq != entry.seq || next.log_hash != entry.log_hash {
            Some(format!("P3: entry {} does not follow entry {}", entry.seq, chat.head.last_seq))
        } else if entry.created_at < chat.head.last_at {
            Some(format!("P3: time goes back at entry {}", entry.seq))
        } else if chat.revisions.contains_key(&name) {
            Some(format!("P2: {name:?} is in the log a second time"))
        } else if !fold.recipients.contains_key(&envelope.sender_session_id) {
            Some(format!("P5: entry {} is by a session that is no recipient", entry.seq))
        } else if envelope.kind != MessageKind::Delete && !fold.members[&envelope.sender_id].can_write {
            Some(format!("entry {} is by a member who may not write", entry.seq))
        } else if envelope.roster_hash != fold.roster_hash() {
            Some(format!("P5: entry {} was made for other recipients", entry.seq))
        } else {
            let late = fold.recipients.keys().find(|id| self.db.sessions[*id].expired_at <= judged_at);
            late.map(|late| format!("P5: entry {} was judged after the expiry of {late}", entry.seq))
        };
        let problem = problem.or_else(|| self.check_key(item, batch));
        if let Some(problem) = problem {
            self.violated(problem);
        }
        if let Some(key_id) = item.key_id {
            self.oracle.counters.insert((item.chat_id, key_id), item.counter.get());
        }
    }

    fn check_key(&self, item: &Item, batch: &[Arc<Item>]) -> Option<String> {
        let (key_id, entry) = (item.key_id?, item.entry.as_ref()?);
        let chat = &self.db.chats[&item.chat_id];
        let recipients = &chat.fold.recipients;
        // What is committed at once is there at once.
        let of_key = batch.iter().filter(|other| (other.chat_id, other.key_id) == (item.chat_id, item.key_id));
        let mut copies: BTreeSet<SessionId> =
            of_key.flat_map(|other| other.copies.iter().map(|copy| copy.session_id)).collect();
        copies.extend(chat.keys.get(&key_id).into_iter().flat_map(|key| key.copies.iter().copied()));
        if let Some(without) = recipients.keys().find(|id| !copies.contains(id)) {
            return Some(format!("P4: at entry {} {without} has no copy of the key", entry.seq));
        }
        let made = self.oracle.keys.get(&(item.chat_id, key_id))?;
        if made.epoch != chat.fold.epoch {
            return Some(format!("P5: entry {} of epoch {} has a key of {}", entry.seq, chat.fold.epoch, made.epoch));
        }
        if let Some(knows) = made.wrapped_for.iter().find(|id| !recipients.contains_key(id)) {
            return Some(format!("P5: {knows} knows the key of entry {} and is no recipient", entry.seq));
        }
        let counter = self.oracle.counters.get(&(item.chat_id, key_id)).copied().unwrap_or_default();
        (item.counter.get() != counter + 1).then(|| format!("P3: counter {} follows {counter}", item.counter))
    }

    /// A sender was told where its message is.
    pub fn check_acknowledged(&mut self, chat_id: ChatId, name: (MessageId, u64), seq: u64, signature: &[u8]) {
        let log = &self.db.chats[&chat_id].log;
        let found = log.get(seq as usize - 1).and_then(envelope);
        let is_there = found.is_some_and(|found| {
            (found.message_id, found.revision.get()) == name && found.signature.as_ref() == signature
        });
        if !is_there {
            self.violated(format!("P1: {name:?} was acknowledged at {seq} and is not there"));
        }
        let before = self.oracle.acknowledged.insert((chat_id, name.0, name.1), seq);
        if before.is_some_and(|before| before != seq) {
            self.violated(format!("P2: {name:?} was acknowledged at {before:?} and at {seq}"));
        }
    }

    /// An entry reaches a session. `is_live`: it was pushed, not read.
    pub fn check_delivered(&mut self, client: usize, chat_id: ChatId, seq: u64, log_hash: &[u8], is_live: bool) {
        let (session_id, user_id) = (self.clients[client].session_id, self.clients[client].user_id);
        let log = &self.db.chats[&chat_id].log;
        let Some(stored) = log.get(seq as usize - 1) else {
            return self.violated(format!("P1: entry {seq} was handed out and is not in the log"));
        };
        if stored.log_hash.as_ref() != log_hash {
            return self.violated(format!("P3: entry {seq} is another one in the log"));
        }
        let is_allowed = self.may_see(chat_id, user_id, stored);
        if !is_allowed {
            return self.violated(format!("P5: entry {seq} was handed to {user_id}, who was no member"));
        }
        let gone = self.db.chats[&chat_id].fold.gone.get(&session_id);
        if is_live && gone.is_some_and(|gone| *gone < seq) {
            self.violated(format!("P5: entry {seq} was pushed to {session_id}, which was out at {gone:?}"));
        }
    }

    fn may_see(&self, chat_id: ChatId, user_id: UserId, entry: &LogEntry) -> bool {
        let seq = entry.seq.get();
        let is_within = |(from, to): &(u64, Option<u64>)| *from <= seq && to.is_none_or(|to| seq <= to);
        self.db.chats[&chat_id].fold.spans.get(&user_id).is_some_and(|spans| spans.iter().any(is_within))
    }

    pub fn check_the_end(&mut self) {
        let mut problems = Vec::new();
        for (chat_id, chat) in &self.db.chats {
            for entry in &chat.log {
                if let Some(envelope) = envelope(entry)
                    && self.nodes.len() == 1
                    && self.oracle.refused.contains(envelope.signature.as_ref())
                {
                    problems.push(format!("P1: entry {} was refused for good and is in the log", entry.seq));
                }
            }
            for ((of, id, revision), seq) in &self.oracle.acknowledged {
                if of == chat_id && chat.revisions.get(&(*id, *revision)) != Some(seq) {
                    problems.push(format!("P1: {id} was acknowledged at {seq} and is not there"));
                }
            }
            for client in self.clients.iter().filter(|client| client.is_live(&self.db)) {
                let is_member = chat.fold.recipients.contains_key(&client.session_id);
                let seq = client.chats.get(chat_id).filter(|chat| !chat.is_gone).map(|chat| chat.fold.seq);
                if is_member && seq.is_none_or(|seq| seq < chat.newest_told()) {
                    let socket = client.socket.and_then(|number| self.sockets.get(&number));
                    let connection = socket.map(|socket| (socket.is_open, socket.connection.next_lagging()));
                    let missing = &chat.log[seq.unwrap_or_default() as usize..];
                    let kinds: Vec<&str> = missing
                        .iter()
                        .map(|entry| match &entry.body {
                            EntryBody::Message(_) => "message",
                            EntryBody::Membership(_) => "membership",
                            _ => "session",
                        })
                        .collect();
                    let has = format!("{seq:?} of {}, {connection:?} {kinds:?}", chat.fold.seq);
                    problems.push(format!("P3: {} has the log up to {has} at the end", client.session_id));
                }
            }
        }
        for client in self.clients.iter().filter(|client| client.is_live(&self.db)) {
            if let Some(open) = client.outgoing.first() {
                problems.push(format!("{} has no answer for {:?} at the end", client.session_id, open.name()));
            }
            if !self.is_settled_for(client) {
                problems.push(format!("{} is not up to date at the end", client.session_id));
            }
        }
        if let Some(problem) = problems.into_iter().next() {
            self.violated(problem);
        }
    }
}
