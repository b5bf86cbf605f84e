//! Hands committed entries to the connections that are live in a chat.
//!
//! A frame is encoded once for each encoding and shared. A connection whose outbox is full lags: it leaves the
//! fan-out and reads from the store, and nobody waits for it (P9).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::connection::{Connection, ready};
use super::super::directory::{Directory, Subscriber};
use super::super::ready_frame::ReadyFrames;
use crate::protocol::codec::Encoding;
use crate::protocol::frame::{ChatDeleted, Delivered, Delivery, Entry, Key, OwnKey, ServerFrame, Signal};
use crate::protocol::ids::{ChatId, Seq, SessionId, UserId};
use crate::protocol::keys::{KeyCopy, SignedAnnouncement};
use crate::protocol::log::{EntryBody, LogEntry};
use crate::protocol::membership::{Change, SignedChange};
use crate::store::loaded::LoadedChat;
use crate::telemetry::metrics::Metrics;

/// The connections of one chat.
#[derive(Debug)]
pub struct FanOut {
    chat_id: ChatId,
    subscribers: HashMap<SessionId, Subscriber>,
    /// Those whose sessions went out and whose connections stand: a session that is renewed comes back.
    absent: HashMap<SessionId, Subscriber>,
    metrics: Metrics,
}

impl FanOut {
    /// Nobody yet.
    #[must_use]
    pub fn new(chat_id: ChatId, metrics: Metrics) -> Self {
        Self { chat_id, subscribers: HashMap::new(), absent: HashMap::new(), metrics }
    }

    /// Takes a connection in, unless it is closed: one that was replaced may still be resuming, and must not take
    /// the place of the newer one.
    pub fn insert(&mut self, session_id: SessionId, subscriber: Subscriber) {
        if !subscriber.connection.outbox.is_closed() {
            self.absent.remove(&session_id);
            self.subscribers.insert(session_id, subscriber);
        }
    }

    /// Takes a connection out.
    pub fn remove(&mut self, connection: u64) {
        self.subscribers.retain(|_, subscriber| subscriber.connection.id != connection);
        self.absent.retain(|_, subscriber| subscriber.connection.id != connection);
    }

    /// Takes a session's connection out: it reads from the store, and must not be handed newer entries meanwhile.
    pub fn remove_session(&mut self, session_id: SessionId) {
        self.subscribers.remove(&session_id);
        self.absent.remove(&session_id);
    }

    /// Takes everybody out.
    #[must_use]
    pub fn take_all(&mut self) -> Vec<Subscriber> {
        let absent = self.absent.drain();
        self.subscribers.drain().chain(absent).map(|(_, subscriber)| subscriber).collect()
    }

    /// Hands each recipient its copy of a key, ahead of the first message that needs it.
    pub fn keys(&mut self, announcement: &SignedAnnouncement, copies: &[KeyCopy]) {
        for copy in copies {
            let Some(subscriber) = self.subscribers.get(&copy.session_id) else { continue };
            let key = OwnKey { announcement: announcement.clone(), key: Some(copy.key), backed_up: Vec::new() };
            let frame = subscriber.connection.frame(&ServerFrame::Key(Key { chat_id: self.chat_id, key }));
            if subscriber.connection.outbox.try_push(&frame).is_err() {
                // What is read from the store comes with its keys.
                self.lag(copy.session_id);
            }
        }
    }

    /// Hands out a committed entry. Who is removed by it gets it as the last one.
    pub fn entry(&mut self, entry: LogEntry) {
        let gone = Gone::by(&entry.body);
        if let Some(Gone::Session(session_id)) = gone
            && let Some(subscriber) = self.subscribers.remove(&session_id)
        {
            self.absent.insert(session_id, subscriber);
        }
        if let EntryBody::SessionIn(signed) = &entry.body {
            self.come_back(signed.certificate.session_id);
        }
        self.hand_out(vec![entry]);
        if let Some(Gone::User(user_id)) = gone {
            self.remove_user(user_id);
        }
    }

    /// Hands out committed messages, which follow each other in the log; each connection takes them at one stroke.
    pub fn messages(&mut self, messages: Vec<LogEntry>) {
        self.hand_out(messages);
    }

    fn hand_out(&mut self, entries: Vec<LogEntry>) {
        let Some(first) = entries.first().map(|entry| entry.seq.get()) else { return };
        let chat_id = self.chat_id;
        let frames: Vec<_> = entries.into_iter().map(|entry| ServerFrame::Entry(Entry { chat_id, entry })).collect();
        let mut encoded = Encoded::new();
        let (mut lagging, mut delivered) = (Vec::new(), 0);
        for (session_id, Subscriber { connection, position }) in &mut self.subscribers {
            let next = position.next().get();
            let had = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
            if had >= frames.len() {
                continue;
            }
            let encoding = connection.encoding;
            let taken = match next >= first {
                true => connection.outbox.try_push_from(had, encoded.of(encoding, || ready_all(encoding, &frames))),
                false => 0,
            };
            *position = Seq::saturating(position.get() + taken as u64);
            delivered += taken as u64;
            if had + taken < frames.len() {
                lagging.push(*session_id);
            }
        }
        for session_id in lagging {
            self.lag(session_id);
        }
        self.metrics.delivered.inc_by(delivered);
    }

    /// Passes a signal on to everybody but the session that sends it. Nobody lags for it.
    pub fn signal(&self, signal: Signal) {
        let from = signal.signal.sender_session_id;
        let (delivered, dropped) = self.spare(ServerFrame::Signal(signal), from);
        self.metrics.signals_delivered.inc_by(delivered);
        self.metrics.signals_dropped.inc_by(dropped);
    }

    /// Tells everybody else how far a session has come. Nobody lags for it.
    pub fn delivered(&self, delivery: Delivery) {
        let frame = ServerFrame::Delivered(Delivered { chat_id: self.chat_id, delivery });
        let (told, _) = self.spare(frame, delivery.session_id);
        self.metrics.deliveries_told.inc_by(told);
    }

    /// Hands out what may be left out; says how often it was taken, and how often left out.
    fn spare(&self, frame: ServerFrame, from: SessionId) -> (u64, u64) {
        let mut encoded = Encoded::new();
        let (mut taken, mut left_out) = (0, 0);
        for (_, subscriber) in self.subscribers.iter().filter(|(session_id, _)| **session_id != from) {
            let Connection { encoding, outbox, .. } = &*subscriber.connection;
            match outbox.try_push_spare(encoded.of(*encoding, || ready(*encoding, &frame))) {
                Ok(()) => taken += 1,
                Err(_) => left_out += 1,
            }
        }
        (taken, left_out)
    }

    /// Sends everybody to the store: what they have missed is not at hand.
    pub fn lag_all(&mut self) {
        let sessions: Vec<SessionId> = self.subscribers.keys().copied().collect();
        for session_id in sessions {
            self.lag(session_id);
        }
    }

    /// Sends those to the store who have not been handed everything up to a place.
    pub fn lag_those_behind(&mut self, last_seq: Seq) {
        let is_behind = |subscriber: &Subscriber| subscriber.position < last_seq;
        let behind = self.subscribers.iter().filter(|(_, subscriber)| is_behind(subscriber));
        let sessions: Vec<SessionId> = behind.map(|(session_id, _)| *session_id).collect();
        for session_id in sessions {
            self.lag(session_id);
        }
    }

    /// Keeps those alone who are recipients.
    pub fn retain(&mut self, is_recipient: impl Fn(SessionId) -> bool) {
        let chat_id = self.chat_id;
        self.subscribers.retain(|session_id, subscriber| {
            let stays = is_recipient(*session_id);
            if !stays {
                subscriber.connection.forget(chat_id);
            }
            stays
        });
    }

    /// Sends a session that went out and is in again to the store: its connection may have stood all along.
    fn come_back(&mut self, session_id: SessionId) {
        if let Some(subscriber) = self.absent.remove(&session_id) {
            self.subscribers.insert(session_id, subscriber);
            self.lag(session_id);
        }
    }

    fn lag(&mut self, session_id: SessionId) {
        let Some(Subscriber { connection, position }) = self.subscribers.remove(&session_id) else { return };
        if !connection.outbox.is_closed() {
            self.metrics.lagged.inc();
            connection.lag(self.chat_id, position);
        }
    }

    fn remove_user(&mut self, user_id: UserId) {
        let chat_id = self.chat_id;
        self.subscribers.retain(|_, subscriber| {
            let stays = subscriber.connection.who().is_some_and(|who| who.user_id != user_id);
            if !stays {
                subscriber.connection.forget(chat_id);
            }
            stays
        });
    }
}

/// An actor that dies without leaving its subscribers to the waiting room sends them to the store.
impl Drop for FanOut {
    fn drop(&mut self) {
        self.lag_all();
    }
}

/// Whom an entry takes out of the chat.
enum Gone {
    User(UserId),
    Session(SessionId),
}

impl Gone {
    fn by(body: &EntryBody) -> Option<Self> {
        match body {
            EntryBody::Membership(signed) if matches!(signed.change.change, Change::Remove | Change::Leave) => {
                Some(Self::User(signed.change.target.user_id))
            }
            EntryBody::AccountDeleted(signed) => Some(Self::User(signed.deletion.user_id)),
            EntryBody::AccountRemoved { user_id } => Some(Self::User(*user_id)),
            EntryBody::SessionOut(out) => Some(Self::Session(out.session_id())),
            _ => None,
        }
    }
}

/// What is encoded once for all who speak the same encoding.
struct Encoded<T> {
    json: Option<T>,
    msgpack: Option<T>,
}

impl<T> Encoded<T> {
    const fn new() -> Self {
        Self { json: None, msgpack: None }
    }

    fn of(&mut self, encoding: Encoding, encode: impl FnOnce() -> T) -> &T {
        let slot = match encoding {
            Encoding::Json => &mut self.json,
            Encoding::MessagePack => &mut self.msgpack,
        };
        slot.get_or_insert_with(encode)
    }
}

/// Writes frames once for all connections of an encoding, one behind the other.
fn ready_all(encoding: Encoding, frames: &[ServerFrame]) -> ReadyFrames {
    let frames: Vec<_> = frames.iter().map(|frame| ready(encoding, frame)).collect();
    ReadyFrames::join(&frames)
}

/// Newcomers who are connected here read the chat from their own addition on, unless they do by now.
pub fn welcome(directory: &Directory, chat_id: ChatId, added_at: Seq, sessions: &[SessionId]) {
    for session_id in sessions {
        if let Some(connection) = directory.connection(*session_id) {
            connection.welcome(chat_id, Seq::saturating(added_at.get().saturating_sub(1)));
        }
    }
}

/// Recipients who came into the chat unseen read it from their user's joining on.
///
/// They are connected here, have resumed, and are not in the chat: they were added by a transaction of a process that died
/// before it could welcome them, and that was committed after their own look.
pub fn welcome_unseen(directory: &Directory, chat_id: ChatId, chat: &LoadedChat) {
    for (session_id, recipient) in &chat.recipients {
        let Some(member) = chat.members.get(&recipient.user_id) else { continue };
        let connection = directory.connection(*session_id);
        let is_unseen =
            |connection: &Arc<Connection>| connection.has_resumed.load(Ordering::Acquire) && !connection.is_in(chat_id);
        if let Some(connection) = connection.filter(is_unseen) {
            connection.welcome(chat_id, Seq::saturating(member.joined_seq.get().saturating_sub(1)));
        }
    }
}

/// Says to whoever received, live or lagging, that the chat has ended.
pub fn say_deleted(directory: &Directory, chat_id: ChatId, change: &SignedChange, recipients: &[SessionId]) {
    let deleted = ServerFrame::ChatDeleted(ChatDeleted { chat_id, change: change.clone() });
    for session_id in recipients {
        if let Some(connection) = directory.connection(*session_id) {
            connection.forget(chat_id);
            connection.push_reply(&deleted);
        }
    }
}

#[cfg(test)]
mod tests;
