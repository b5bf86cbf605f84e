//! Takes what the server pushes: into a chat's inbox, then entry by entry into its log, strictly in order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::copies;
use super::fetch;
use super::state::{Counts, Inbox, Shared, State, Status};
use crate::client::chat::log::ChatLog;
use crate::client::chat::state::{Chat, is_own_joining};
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::net::wire::Wire;
use crate::protocol::fold::FoldError;
use crate::protocol::frame::{ChatDeleted, OwnKey, Page};
use crate::protocol::ids::{ChatId, KeyId, Seq};
use crate::protocol::log::LogEntry;
use crate::protocol::membership::Change;
use crate::protocol::verify::Verifier;

/// Entries of one chat that wait for a fetch, at most; the rest is asked for again afterwards.
const QUEUE_MAX: usize = 20_000;

/// Keys of one chat that wait for its fold, at most.
const WAITING_KEYS_MAX: usize = 20_000;

/// How often a chat is asked for again on one connection before it is left alone.
const RESUMES_MAX: u32 = 3;

/// What a queue needs before it can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The fold of the entries below this seq.
    Fold(Seq),
    /// A key with this session's copy.
    Key(KeyId),
    /// The log from the cursor on.
    Resume,
}

impl Shared {
    /// A committed entry, live.
    pub(crate) fn on_entry(self: &Arc<Self>, wire: &Wire, chat_id: ChatId, entry: LogEntry) {
        self.advance(wire, chat_id, |inbox, _| {
            if inbox.awaits_page {
                return;
            }
            inbox.put([entry]);
        });
    }

    /// Committed entries, on catch-up.
    pub(crate) fn on_page(self: &Arc<Self>, wire: &Wire, page: Page) {
        let (after, keys, entries) = (page.after, page.keys, page.entries);
        self.advance(wire, page.chat_id, |inbox, chat| {
            let head = chat.as_ref().map_or(Seq::default(), |chat| chat.log.head().seq);
            offer(inbox, chat, keys);
            if inbox.awaits_page && after > head {
                return;
            }
            inbox.awaits_page = false;
            inbox.put(entries);
        });
    }

    /// A key; it comes before the first entry that needs it.
    pub(crate) fn on_key(self: &Arc<Self>, wire: &Wire, chat_id: ChatId, key: OwnKey) {
        let key_id = key.announcement.announcement.key_id;
        let mut was_asked = false;
        self.advance(wire, chat_id, |inbox, mut chat| {
            was_asked = key.key.is_some() && chat.as_mut().is_some_and(|chat| chat.asked.came(key_id));
            offer(inbox, chat, vec![key]);
        });
        if was_asked {
            self.publish(vec![Event::KeyCame { chat_id, key_id }]);
        }
    }

    /// A chat has ended. Its owner's signature is the proof; without it the chat stays, and is an alarm.
    pub(crate) fn on_chat_deleted(&self, deleted: &ChatDeleted) {
        let chat_id = deleted.chat_id;
        let events = {
            let mut state = self.lock();
            let is_proven = state.chats.get(&chat_id).is_none_or(|chat| {
                let change = &deleted.change.change;
                let is_owner = chat.log.fold().membership().owner_id == change.actor.user_id;
                let bytes = change.signed_bytes(chat_id);
                let signer = chat.log.fold().recipients().get(&change.actor.session_id);
                let signer = signer.filter(|session| session.user_id == change.actor.user_id);
                let verifies =
                    |key: &crate::protocol::binary::SigningKey| key.verifies(&bytes, &deleted.change.signature);
                change.change == Change::Delete
                    && is_owner
                    && signer.is_some_and(|session| verifies(&session.signing_public_key))
            });
            if is_proven {
                state.inboxes.remove(&chat_id);
                let is_known = state.chats.contains_key(&chat_id);
                let mut events = state.forget(chat_id);
                events.extend(is_known.then_some(Event::ChatDeleted { chat_id }));
                events
            } else {
                let failure = VerificationFailure::Fold(FoldError::Signature);
                vec![Event::alarm_in(chat_id, None, failure)]
            }
        };
        self.publish(events);
        self.notify_moved();
    }

    /// Changes a chat's inbox and takes from it what can be taken.
    pub(crate) fn advance(
        self: &Arc<Self>,
        wire: &Wire,
        chat_id: ChatId,
        change: impl FnOnce(&mut Inbox, Option<&mut Chat>),
    ) {
        let need = {
            let mut state = self.lock();
            if !state.is_current(wire) {
                return;
            }
            let State { inboxes, chats, .. } = &mut *state;
            change(inboxes.entry(chat_id).or_default(), chats.get_mut(&chat_id));
            let mut events = Vec::new();
            let need = state.drain(chat_id, &mut events);
            state.open_late(chat_id, &mut events);
            state.judge_withheld(chat_id, &mut events);
            events.extend(state.judge_info(chat_id));
            for event in &events {
                if matches!(event, Event::Message(_)) {
                    Counts::add(&self.counts.messages_received);
                }
            }
            // Under the lock: what a fetch brings and what the connection brings are taken by two tasks, and
            // their events must leave in the order in which the entries were taken.
            self.publish(events);
            need
        };
        if let Some(need) = need {
            fetch::start(self, wire, chat_id, need);
        }
        copies::start(self);
        self.notify_moved();
        self.judge_live();
    }

    /// Everything up to now has been pushed.
    pub(crate) fn on_live(self: &Arc<Self>) {
        {
            let mut state = self.lock();
            state.progress.is_pushed = true;
            let mut events = Vec::new();
            state.all_pushed(&mut events);
            self.publish(events);
        }
        self.judge_live();
    }

    /// Says `live` once everything that came has been taken.
    pub(crate) fn judge_live(self: &Arc<Self>) {
        let wire = {
            let state = self.lock();
            if !state.is_caught_up() {
                return;
            }
            state.progress.wire.clone()
        };
        let Some(wire) = wire else { return };
        let is_new = self.status.send_if_modified(|status| {
            let is_new = matches!(status, Status::Connecting);
            if is_new {
                *status = Status::Live(wire);
            }
            is_new
        });
        if is_new {
            let mut events = {
                let mut state = self.lock();
                state.ask_again();
                state.rolled_back()
            };
            events.push(Event::Live);
            self.publish(events);
            copies::start(self);
        }
    }
}

impl Inbox {
    fn put(&mut self, entries: impl IntoIterator<Item = LogEntry>) {
        if self.is_ignored {
            return;
        }
        self.queue.extend(entries);
        if self.queue.len() > QUEUE_MAX {
            self.queue.truncate(QUEUE_MAX);
            self.awaits_page = true;
            self.must_ask = true;
            self.complete_at = None;
        }
    }

    /// Gives the queue up; the log is asked for again unless that was done too often.
    fn ask_again(&mut self) -> Option<Need> {
        self.queue = VecDeque::new();
        self.complete_at = None;
        self.resumes += 1;
        if self.resumes > RESUMES_MAX {
            self.is_ignored = true;
            return None;
        }
        self.awaits_page = true;
        self.must_ask = false;
        Some(Need::Resume)
    }

    fn ignore(&mut self) {
        *self = Self { is_ignored: true, ..Self::default() };
    }
}

impl State {
    /// The server says that it has pushed everything up to now: whatever purged a message has come with it.
    fn all_pushed(&mut self, events: &mut Vec<Event>) {
        let State { inboxes, chats, .. } = self;
        for (chat_id, chat) in chats.iter() {
            let inbox = inboxes.entry(*chat_id).or_default();
            if !inbox.awaits_page && !inbox.is_ignored {
                let newest = inbox.queue.back().map(|entry| entry.seq);
                inbox.complete_at = Some(newest.unwrap_or_default().max(chat.log.head().seq));
            }
        }
        let chat_ids: Vec<ChatId> = chats.keys().copied().collect();
        for chat_id in chat_ids {
            self.judge_withheld(chat_id, events);
        }
    }

    /// Asks for the keys of what waits: whoever was asked before may not have heard it.
    fn ask_again(&mut self) {
        let lacking: Vec<_> = self.chats.iter().map(|(chat_id, chat)| (*chat_id, chat.lacking())).collect();
        for (chat_id, key_ids) in lacking {
            self.lack(chat_id, key_ids);
        }
    }

    /// Chats that were forgotten by the server's word and are shown again end where they did, or later.
    fn rolled_back(&self) -> Vec<Event> {
        let left = |chat_id: &ChatId| self.account.left.get(chat_id).map(|left| left.place.seq);
        let heads = self.chats.iter().map(|(chat_id, chat)| (chat_id, chat.log.head().seq));
        let shorter = heads.filter(|(chat_id, head)| left(chat_id).is_some_and(|left| left > *head));
        shorter.map(|(chat_id, seq)| Event::alarm_in(*chat_id, None, VerificationFailure::Rollback { seq })).collect()
    }

    /// Names messages whose data is withheld, once everything has been taken that could say why it is gone.
    fn judge_withheld(&mut self, chat_id: ChatId, events: &mut Vec<Event>) {
        let (Some(inbox), Some(chat)) = (self.inboxes.get_mut(&chat_id), self.chats.get_mut(&chat_id)) else { return };
        let Some(complete_at) = inbox.complete_at.filter(|complete_at| *complete_at <= chat.log.head().seq) else {
            return;
        };
        inbox.complete_at = None;
        for seq in chat.log.withheld(complete_at) {
            self.dirty_chats.insert(chat_id);
            events.push(Event::alarm_in(chat_id, Some(seq), VerificationFailure::Withheld));
        }
    }

    /// Takes entries of a chat's queue until it is empty or something must be fetched first.
    fn drain(&mut self, chat_id: ChatId, events: &mut Vec<Event>) -> Option<Need> {
        loop {
            let State { inboxes, chats, account, .. } = self;
            let inbox = inboxes.get_mut(&chat_id)?;
            if inbox.is_fetching || inbox.is_ignored {
                return None;
            }
            let Some(entry) = inbox.queue.front() else {
                // The queue overflowed while something was fetched: what was dropped is asked for again.
                return if inbox.must_ask { inbox.ask_again() } else { None };
            };
            if inbox.gone_at.is_some_and(|gone_at| entry.seq <= gone_at) {
                inbox.queue.pop_front();
                continue;
            }
            let me = &account.me;
            let Some(chat) = chats.get_mut(&chat_id) else {
                if !is_own_joining(entry, me) {
                    if inbox.is_gone {
                        inbox.queue.pop_front();
                        continue;
                    }
                    events.push(Event::alarm_in(chat_id, Some(entry.seq), VerificationFailure::NotJoined));
                    inbox.ignore();
                    return None;
                }
                if entry.seq.get() > 1 {
                    inbox.is_fetching = true;
                    return Some(Need::Fold(entry.seq));
                }
                match ChatLog::found(chat_id, entry) {
                    Ok(log) => {
                        inbox.queue.pop_front();
                        self.begin(chat_id, log, events);
                    }
                    Err(failure) => {
                        events.push(Event::alarm_in(chat_id, Some(entry.seq), failure));
                        inbox.ignore();
                    }
                }
                continue;
            };
            let next = chat.log.head().seq.next();
            if entry.seq > next && is_own_joining(entry, me) {
                // Removed and added again while away: a fresh join, which must prove the removal too.
                let gone = self.forget(chat_id);
                events.extend(gone);
                continue;
            }
            if let Some(key_id) = chat.log.needs_key(entry, me)
                && !chat.keys.has_copy(key_id)
                && inbox.tried != Some(key_id)
            {
                inbox.is_fetching = true;
                return Some(Need::Key(key_id));
            }
            match chat.take(entry, me) {
                Ok(taken) => {
                    let entry = inbox.queue.pop_front()?;
                    self.report(chat_id, &entry, taken, events);
                }
                Err(failure) => {
                    events.push(Event::alarm_in(chat_id, Some(entry.seq), failure));
                    return inbox.ask_again();
                }
            }
        }
    }

    /// A chat's log begins.
    pub(crate) fn begin(&mut self, chat_id: ChatId, log: ChatLog, events: &mut Vec<Event>) {
        for (user_id, member) in &log.fold().membership().members {
            match self.account.pin(*user_id, &member.identity_key, None) {
                Ok(is_new) => self.is_account_dirty |= is_new,
                Err(failure) => events.push(Event::alarm_in(chat_id, None, failure)),
            }
        }
        let mut chat = Chat::new(log);
        if let Some(left) = self.account.left.get(&chat_id)
            && let Err(failure) = chat.go_on_from(left)
        {
            events.push(Event::alarm_in(chat_id, Some(left.place.seq), failure));
        }
        if let Some(inbox) = self.inboxes.get_mut(&chat_id) {
            for key in std::mem::take(&mut inbox.keys) {
                chat.keys.offer(&key);
            }
        }
        if let Some(shown) = self.early_infos.remove(&chat_id) {
            chat.show_info(shown);
        }
        self.chats.insert(chat_id, chat);
        self.dirty_chats.insert(chat_id);
        events.push(Event::Joined { chat_id });
    }
}

fn offer(inbox: &mut Inbox, chat: Option<&mut Chat>, keys: Vec<OwnKey>) {
    match chat {
        Some(chat) => keys.iter().for_each(|key| chat.keys.offer(key)),
        None => {
            inbox.keys.extend(keys);
            inbox.keys.truncate(WAITING_KEYS_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
