//! Tells what an entry turned out to be: events for whoever listens, errands, answers for those who wait.

use std::time::Instant;

use super::copies::Errand;
use super::state::{Inbox, State};
use crate::client::body::Body;
use crate::client::chat::log::{Content, MessageTaken, Taken};
use crate::client::chat::state::Chat;
use crate::client::event::{Alarm, Deletion, Event, Message};
use crate::client::failure::VerificationFailure;
use crate::client::handle::Sent;
use crate::client::receipt;
use crate::protocol::envelope::MessageKind;
use crate::protocol::ids::{ChatId, KeyId, Seq, Timestamp, UserId};
use crate::protocol::log::{EntryBody, LogEntry};
use crate::protocol::membership::Change;

impl State {
    pub(super) fn report(&mut self, chat_id: ChatId, entry: &LogEntry, taken: Taken, events: &mut Vec<Event>) {
        let seq = entry.seq;
        if matches!(taken, Taken::Duplicate) {
            return;
        }
        self.dirty_chats.insert(chat_id);
        if let Some(user_id) = whose(&entry.body)
            && let Err(failure) = self.account.note_life(user_id, entry.created_at)
        {
            self.is_account_dirty = true;
            events.push(Event::alarm_in(chat_id, Some(seq), failure));
        }
        match taken {
            Taken::Duplicate => {}
            Taken::Refused(failure) => events.push(Event::alarm_in(chat_id, Some(seq), failure)),
            Taken::AccountDeleted { user_id, heir, is_forced: false } => {
                events.push(Event::AccountDeleted { chat_id, seq, user_id, heir });
            }
            Taken::AccountDeleted { user_id, heir, is_forced: true } => {
                self.account.note_removed(user_id, entry.created_at);
                self.is_account_dirty = true;
                events.push(Event::AccountRemoved { chat_id, seq, user_id, heir });
                if user_id == self.account.me.user_id {
                    self.leave(chat_id, seq, events);
                }
            }
            Taken::UserKey { user_id, before, now } => {
                if user_id == self.account.me.user_id {
                    self.is_account_dirty = true;
                    if let Err(failure) = self.account.note_user_key(entry.created_at, before, now) {
                        events.push(Event::alarm_in(chat_id, Some(seq), failure));
                    }
                }
                events.push(Event::UserKeyChanged { chat_id, seq, user_id, is_there: now.is_some() });
            }
            Taken::GroupKey { generation, session_id, is_refused } => {
                events.push(Event::GroupKeyChanged { chat_id, seq, generation, session_id, is_refused });
            }
            Taken::Renewed => {
                if let Err(failure) = self.claim(chat_id, &entry.body) {
                    events.push(Event::alarm_in(chat_id, Some(seq), failure));
                }
                if let EntryBody::SessionIn(signed) = &entry.body {
                    self.is_account_dirty |= self.account.take_own_certificate(signed);
                    let (user_id, session_id) = (signed.certificate.user_id, signed.certificate.session_id);
                    events.push(Event::SessionRenewed { chat_id, seq, user_id, session_id });
                }
            }
            Taken::Session { user_id, session_id, is_in } => {
                if let Err(failure) = self.claim(chat_id, &entry.body) {
                    events.push(Event::alarm_in(chat_id, Some(seq), failure));
                }
                let me = &self.account.me;
                if is_in && user_id == me.user_id && session_id != me.session_id {
                    self.errands.push(Errand::Welcome { chat_id, session_id });
                    if self.backed_up.insert(session_id) {
                        self.errands.push(Errand::BackUp { session_id });
                    }
                }
                events.push(Event::SessionChanged { chat_id, seq, user_id, session_id, is_in });
            }
            Taken::Member { actor, target, change, fork } => {
                events.extend(fork.map(|failure| Event::alarm_in(chat_id, Some(seq), failure)));
                let is_gone = target == self.account.me.user_id && matches!(change, Change::Remove | Change::Leave);
                if let (Change::Add { .. }, EntryBody::Membership(signed)) = (&change, &entry.body) {
                    match self.account.pin(target, &signed.change.target.identity_key, None) {
                        Ok(is_new) => self.is_account_dirty |= is_new,
                        Err(failure) => events.push(Event::alarm_in(chat_id, Some(seq), failure)),
                    }
                }
                events.push(Event::MembershipChanged { chat_id, seq, actor, target, change });
                if is_gone {
                    self.leave(chat_id, seq, events);
                }
            }
            Taken::Message(message) => {
                let lacking = match (&message.content, &entry.body) {
                    (Err(VerificationFailure::NoCopy), EntryBody::Message(envelope)) => envelope.key_id,
                    _ => None,
                };
                self.lack(chat_id, lacking);
                if let EntryBody::Message(envelope) = &entry.body
                    && Chat::is_own(&message, &self.account.me)
                    && let Some(chat) = self.chats.get_mut(&chat_id)
                    && chat.outbox.seen_in_log(envelope)
                {
                    let name = (message.message_id, message.revision);
                    let sent = Sent { message_id: name.0, revision: name.1, seq, created_at: entry.created_at };
                    events.extend(self.settle(chat_id, name, Ok(sent)));
                }
                self.report_message(chat_id, seq, entry.created_at, message, events);
            }
        }
    }

    /// This user is out of a chat by an entry of its log.
    fn leave(&mut self, chat_id: ChatId, seq: Seq, events: &mut Vec<Event>) {
        let failed = self.forget_at_the_end(chat_id);
        events.extend(failed);
        events.push(Event::Removed { chat_id });
        if let Some(inbox) = self.inboxes.get_mut(&chat_id) {
            let queue = std::mem::take(&mut inbox.queue);
            *inbox = Inbox { queue, gone_at: Some(seq), ..Inbox::default() };
        }
    }

    /// Asks for keys without which messages cannot be opened, unless that was done a moment ago.
    pub(crate) fn lack(&mut self, chat_id: ChatId, key_ids: impl IntoIterator<Item = KeyId>) {
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        let key_ids = chat.asked.ask(key_ids, Instant::now());
        if !key_ids.is_empty() {
            self.errands.push(Errand::Ask { chat_id, key_ids });
        }
    }

    /// Opens what waited for a key that has come, and puts down what is to be said of bad copies.
    pub(super) fn open_late(&mut self, chat_id: ChatId, events: &mut Vec<Event>) {
        let State { chats, account, errands, .. } = self;
        let Some(chat) = chats.get_mut(&chat_id) else { return };
        let opened = chat.open_waiting(&account.me);
        for refusal in chat.keys.take_refusals(&account.me) {
            errands.push(Errand::Refuse { chat_id, refusal });
        }
        for (seq, created_at, message) in opened {
            self.report_message(chat_id, seq, created_at, message, events);
        }
    }

    /// Tells of a message what it says, or that it did not verify.
    fn report_message(
        &mut self,
        chat_id: ChatId,
        seq: Seq,
        created_at: Timestamp,
        taken: MessageTaken,
        events: &mut Vec<Event>,
    ) {
        let is_own = taken.sender_id == self.account.me.user_id;
        let self_key = self.account.self_key.as_ref();
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        let (message_id, revision, user_id) = (taken.message_id, taken.revision, taken.sender_id);
        let read = |read_seq| Event::Read { chat_id, seq: Some(seq), message_id: Some(message_id), user_id, read_seq };
        let silent = Event::Silent { chat_id, seq, message_id, revision };
        match &taken.content {
            Ok(Content::Body(Body::Receipt { read_seq })) => {
                let read_seq = (*read_seq).min(seq);
                if is_own {
                    chat.reading.read(read_seq);
                }
                events.push(read(read_seq));
            }
            Ok(Content::Body(Body::SealedReceipt { sealed })) => {
                let opened =
                    self_key.filter(|_| is_own).and_then(|key| receipt::open(key, chat_id, taken.sender_id, sealed));
                events.push(match opened.map(|read_seq| read_seq.min(seq)) {
                    Some(read_seq) => {
                        chat.reading.read(read_seq);
                        read(read_seq)
                    }
                    None => silent,
                });
            }
            Ok(Content::Body(body)) => {
                if !is_own && taken.kind == MessageKind::Message && matches!(body, Body::Message { .. }) {
                    chat.reading.came(seq);
                }
                let message = Message {
                    chat_id,
                    seq,
                    created_at,
                    message_id: taken.message_id,
                    revision: taken.revision,
                    sender_id: taken.sender_id,
                    sender_session_id: taken.sender_session_id,
                    body: body.clone(),
                };
                events.push(match taken.kind {
                    MessageKind::Message => Event::Message(message),
                    _ => Event::Edited { message, first: taken.first },
                });
            }
            Ok(Content::Deleted) => {
                if let Some(first) = taken.first {
                    chat.reading.went(first);
                }
                let deletion = Deletion {
                    chat_id,
                    seq,
                    created_at,
                    message_id: taken.message_id,
                    revision: taken.revision,
                    user_id: taken.sender_id,
                    session_id: taken.sender_session_id,
                    by_manager: taken.by_manager,
                };
                events.push(Event::Deleted { deletion, first: taken.first });
            }
            Ok(Content::Purged) => events.push(silent),
            Ok(Content::NotForUs) => {}
            Err(failure) => events.push(Event::Alarm(Alarm {
                chat_id: Some(chat_id),
                seq: Some(seq),
                session_id: Some(taken.sender_session_id),
                failure: *failure,
            })),
        }
    }
}

/// Whose account an entry shows to be there: who signed it, or came in by it.
const fn whose(body: &EntryBody) -> Option<UserId> {
    match body {
        EntryBody::Message(envelope) => Some(envelope.sender_id),
        EntryBody::Membership(signed) => Some(signed.change.actor.user_id),
        EntryBody::SessionIn(signed) => Some(signed.certificate.user_id),
        _ => None,
    }
}
