//! Says what a sender does next: mostly a new message, else an edit, a deletion, a reply, a reaction, a read mark or a
//! signal.
//!
//! Lives here: the draw, what there is to edit and to answer to, and doing it. Invariants: a revision is recorded
//! under the number that the client library gave it, which is known with the answer; a user's messages are changed by
//! all of their sessions, so who was refused a change claims nothing of it, but of a message that is known to be
//! deleted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sealcast::client::{Body, Client, Message, ReceiptsTo, Reply, SendError, Sent, Signal};
use sealcast::protocol::ids::{ChatId, MessageId, SessionId, UserId};

use crate::history::record::Name;
use crate::history::recorder::Recorder;
use crate::rng::Rng;

/// Newest messages of a user in a chat that are changed.
const OWN_MAX: usize = 16;

/// Messages of a user in a chat that are known to be deleted.
const DELETED_MAX: usize = 4;

/// Things in so many that a sender does.
const OUT_OF: usize = 200;

/// Something that a sender does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Say,
    Edit,
    Delete,
    /// An edit of what is deleted, which must be refused.
    EditDeleted,
    Reply,
    React,
    Read,
    Signal,
}

/// How often each is done, out of [`OUT_OF`]; the rest are new messages.
const SHARES: [(Deed, usize); 7] = [
    (Deed::Edit, 10),
    (Deed::Delete, 4),
    (Deed::EditDeleted, 1),
    (Deed::Reply, 5),
    (Deed::React, 5),
    (Deed::Read, 3),
    (Deed::Signal, 6),
];

impl Deed {
    /// The next one.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut place = rng.below(OUT_OF);
        for (deed, share) in SHARES {
            if place < share {
                return deed;
            }
            place -= share;
        }
        Self::Say
    }
}

/// A message of a user, on whom sessions agree by what they did themselves.
#[derive(Debug, Default)]
struct Own {
    newest: VecDeque<MessageId>,
    deleted: VecDeque<Name>,
}

/// What there is to talk about.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    own: HashMap<(UserId, ChatId), Own>,
    heard: HashMap<ChatId, (MessageId, UserId)>,
}

impl Topics {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message that somebody was given.
    pub(crate) fn heard(&self, message: &Message) {
        self.lock().heard.insert(message.chat_id, (message.message_id, message.sender_id));
    }

    /// The newest message of a chat that somebody was given.
    pub(crate) fn newest(&self, chat_id: ChatId) -> Option<(MessageId, UserId)> {
        self.lock().heard.get(&chat_id).copied()
    }

    fn said(&self, whose: (UserId, ChatId), message_id: MessageId) {
        let mut known = self.lock();
        let own = known.own.entry(whose).or_default();
        own.newest.push_back(message_id);
        if own.newest.len() > OWN_MAX {
            own.newest.pop_front();
        }
    }

    fn pick(&self, whose: (UserId, ChatId), rng: &mut Rng) -> Option<MessageId> {
        let known = self.lock();
        let newest = &known.own.get(&whose)?.newest;
        newest.get(rng.below(newest.len())).copied()
    }

    fn forget(&self, whose: (UserId, ChatId), message_id: MessageId) {
        if let Some(own) = self.lock().own.get_mut(&whose) {
            own.newest.retain(|own| *own != message_id);
        }
    }

    fn deleted(&self, whose: (UserId, ChatId), deletion: Name) {
        let mut known = self.lock();
        let own = known.own.entry(whose).or_default();
        own.deleted.push_back(deletion);
        if own.deleted.len() > DELETED_MAX {
            own.deleted.pop_front();
        }
    }

    fn pick_deleted(&self, whose: (UserId, ChatId)) -> Option<Name> {
        self.lock().own.get(&whose)?.deleted.back().copied()
    }
}

/// One session that talks in one chat.
#[derive(Debug)]
pub(crate) struct Talker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) session_id: SessionId,
    pub(crate) user_id: UserId,
    pub(crate) chat_id: ChatId,
    pub(crate) recorder: &'a Recorder,
    pub(crate) topics: &'a Topics,
}

impl Talker<'_> {
    /// Does something, and records it. A deed for which there is nothing to change or to answer to is a new message.
    ///
    /// # Errors
    /// Why it was not done, recorded too.
    pub(crate) async fn act(&self, deed: Deed, text: &str, due: Instant, rng: &mut Rng) -> Result<(), SendError> {
        let whose = (self.user_id, self.chat_id);
        match deed {
            Deed::Say => {}
            Deed::Edit => {
                if let Some(message_id) = self.topics.pick(whose, rng) {
                    return self.edit(message_id, text).await;
                }
            }
            Deed::Delete => {
                if let Some(message_id) = self.topics.pick(whose, rng) {
                    self.topics.forget(whose, message_id);
                    let deletion = self.delete(message_id).await?;
                    self.topics.deleted(whose, deletion);
                    return Ok(());
                }
            }
            Deed::EditDeleted => {
                if let Some(deletion) = self.topics.pick_deleted(whose) {
                    return self.edit_deleted(deletion, text).await;
                }
            }
            Deed::Reply | Deed::React => {
                if let Some((message_id, sender_id)) = self.topics.newest(self.chat_id) {
                    return self.answer(deed, message_id, sender_id, text, due).await;
                }
            }
            Deed::Read => return self.read(rng).await,
            Deed::Signal => {
                // One that cannot be sent now is dropped: nobody waits for it.
                if self.client.signal(self.chat_id, Signal::Typing).await.unwrap_or(false) {
                    self.recorder.count(|deeds| deeds.signals += 1);
                }
            }
        }
        let message_id = self.send(&Body::text(text), due).await?;
        self.topics.said(whose, message_id);
        Ok(())
    }

    async fn send(&self, body: &Body, due: Instant) -> Result<MessageId, SendError> {
        let message_id = MessageId::generate();
        let name = Name::first(message_id);
        self.recorder.send(self.session_id, self.chat_id, name, due);
        match self.client.send_body(self.chat_id, message_id, body).await {
            Ok(sent) => {
                self.recorder.ok(self.session_id, self.chat_id, name, sent.seq);
                Ok(message_id)
            }
            Err(error) => {
                self.recorder.refused(self.session_id, self.chat_id, Some(name), &error);
                Err(error)
            }
        }
    }

    async fn answer(
        &self,
        deed: Deed,
        message_id: MessageId,
        sender_id: UserId,
        text: &str,
        due: Instant,
    ) -> Result<(), SendError> {
        if deed == Deed::React {
            self.send(&Body::Reaction { message_id, emoji: "👍".to_owned() }, due).await?;
            self.recorder.count(|deeds| deeds.reactions += 1);
        } else {
            let reply = Some(Reply { message_id, sender_id });
            self.send(&Body::Message { text: text.to_owned(), reply }, due).await?;
            self.recorder.count(|deeds| deeds.replies += 1);
        }
        Ok(())
    }

    async fn edit(&self, message_id: MessageId, text: &str) -> Result<(), SendError> {
        let at = self.recorder.sends();
        self.revised(at, self.client.edit(self.chat_id, message_id, text).await, None)?;
        self.recorder.count(|deeds| deeds.edits += 1);
        Ok(())
    }

    /// Deletes a message: this user's, or as a manager anybody's.
    ///
    /// # Errors
    /// Why it was not done, recorded too.
    pub(crate) async fn delete(&self, message_id: MessageId) -> Result<Name, SendError> {
        let at = self.recorder.sends();
        let name = self.revised(at, self.client.delete_message(self.chat_id, message_id).await, None)?;
        self.recorder.count(|deeds| deeds.deletions += 1);
        Ok(name)
    }

    async fn edit_deleted(&self, deletion: Name, text: &str) -> Result<(), SendError> {
        let never = Name { revision: deletion.revision + 1, ..deletion };
        let at = self.recorder.sends();
        self.revised(at, self.client.edit(self.chat_id, deletion.message_id, text).await, Some(never)).map(|_| ())
    }

    /// Records an edit or deletion; `never` is one that may not come to be.
    fn revised(&self, at: f64, result: Result<Sent, SendError>, never: Option<Name>) -> Result<Name, SendError> {
        let (s, c) = (self.session_id, self.chat_id);
        match result {
            Ok(sent) => {
                let name = Name { message_id: sent.message_id, revision: sent.revision.get() };
                self.recorder.revised(s, c, name, at, sent.seq);
                Ok(name)
            }
            Err(error) => {
                let never = never.filter(|_| matches!(error, SendError::UnknownMessage));
                self.recorder.refused(s, c, never, &error);
                Err(error)
            }
        }
    }

    async fn read(&self, rng: &mut Rng) -> Result<(), SendError> {
        let Some(head) = self.client.head(self.chat_id) else { return Ok(()) };
        let share = if rng.below(2) == 0 { ReceiptsTo::Everybody } else { ReceiptsTo::OwnDevices };
        self.client.mark_read(self.chat_id, head.seq, share).await?;
        self.recorder.count(|deeds| deeds.receipts += 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deed_is_drawn_about_as_often_as_it_should_be() {
        let mut rng = Rng::new(7);
        let drawn: Vec<Deed> = (0..20_000).map(|_| Deed::draw(&mut rng)).collect();
        let count = |wanted| drawn.iter().filter(|deed| **deed == wanted).count();
        for (deed, share) in SHARES {
            let expected = share * drawn.len() / OUT_OF;
            assert!((expected / 2..=expected * 2).contains(&count(deed)), "{deed:?}: {}", count(deed));
        }
        assert!(count(Deed::Say) > drawn.len() / 2);
    }
}
