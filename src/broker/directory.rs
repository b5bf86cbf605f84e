//! Who is connected here, and which chats are loaded. Connecting loads no chat.
//!
//! A chat that is not loaded keeps a waiting room of the connections that are live in it; the actor takes them
//! over when it loads, and leaves them there when it goes idle. Each step holds the slot, so that no connection
//! falls between.

use std::sync::Arc;

use actix::prelude::*;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::Broker;
use super::chat::actor::ChatActor;
use super::chat::messages::Unsubscribe;
use super::connection::Connection;
use crate::protocol::ids::{ChatId, Seq, SessionId, UserId};

/// A connection that is live in a chat.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The newest entry it has been handed.
    pub position: Seq,
}

#[derive(Debug)]
enum Slot {
    Waiting(Vec<Subscriber>),
    Loaded(Addr<ChatActor>),
}

/// The directory of one node.
#[derive(Debug, Default)]
pub struct Directory {
    connections: DashMap<SessionId, Arc<Connection>>,
    /// Those that have not logged in, by the connection's own number.
    newcomers: DashMap<u64, Arc<Connection>>,
    chats: DashMap<ChatId, Slot>,
}

impl Directory {
    /// Notes a connection that has yet to log in.
    pub fn meet(&self, connection: &Arc<Connection>) {
        self.newcomers.insert(connection.id, Arc::clone(connection));
    }

    /// Takes a connection out that ended before it logged in.
    pub fn part(&self, connection: &Connection) {
        self.newcomers.remove(&connection.id);
    }

    /// Enters a connection that has logged in, unless another of its session is here that was opened after it; gives the one
    /// that has no place any more, which may be the one that has just logged in.
    ///
    /// A client that gives a connection up whose login is still looked at must not lose the one that it opened instead.
    pub fn enter(&self, session_id: SessionId, connection: &Arc<Connection>) -> Option<Arc<Connection>> {
        let replaced = match self.connections.entry(session_id) {
            Entry::Occupied(mut current) if current.get().id < connection.id => {
                Some(current.insert(Arc::clone(connection)))
            }
            Entry::Occupied(_) => Some(Arc::clone(connection)),
            Entry::Vacant(free) => {
                free.insert(Arc::clone(connection));
                None
            }
        };
        // In this order, so that it is never in neither.
        self.part(connection);
        replaced
    }

    /// Takes a connection out, unless a newer one has replaced it.
    pub fn leave(&self, session_id: SessionId, connection: &Arc<Connection>) {
        self.connections.remove_if(&session_id, |_, current| current.id == connection.id);
    }

    /// The connection of a session, if it has one here.
    #[must_use]
    pub fn connection(&self, session_id: SessionId) -> Option<Arc<Connection>> {
        self.connections.get(&session_id).map(|connection| Arc::clone(&connection))
    }

    /// The sessions of a user that are connected here. Looks at every connection: for when the store cannot be asked.
    #[must_use]
    pub fn sessions_of(&self, user_id: UserId) -> Vec<SessionId> {
        let is_theirs = |connection: &Connection| connection.who().is_some_and(|who| who.user_id == user_id);
        self.connections.iter().filter(|entry| is_theirs(entry.value())).map(|entry| *entry.key()).collect()
    }

    /// Every connection, whether it has logged in or not; one that is just logging in may be there twice.
    #[must_use]
    pub fn everybody(&self) -> Vec<Arc<Connection>> {
        let mut all: Vec<_> = self.newcomers.iter().map(|entry| Arc::clone(entry.value())).collect();
        all.extend(self.connections.iter().map(|entry| Arc::clone(entry.value())));
        all
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.newcomers.is_empty() && self.connections.is_empty()
    }

    /// The actor of a chat, loaded if it must be.
    #[must_use]
    pub fn chat(&self, broker: &Broker, chat_id: ChatId) -> Option<Addr<ChatActor>> {
        match self.chats.entry(chat_id) {
            Entry::Occupied(mut slot) => {
                let waiting = match slot.get_mut() {
                    Slot::Loaded(chat) if chat.connected() => return Some(chat.clone()),
                    // An actor that died has told its subscribers to read from the store.
                    Slot::Loaded(_) => Vec::new(),
                    Slot::Waiting(waiting) => std::mem::take(waiting),
                };
                let chat = ChatActor::start_on(broker, chat_id, waiting)?;
                slot.insert(Slot::Loaded(chat.clone()));
                Some(chat)
            }
            Entry::Vacant(slot) => {
                let chat = ChatActor::start_on(broker, chat_id, Vec::new())?;
                slot.insert(Slot::Loaded(chat.clone()));
                Some(chat)
            }
        }
    }

    /// The actor of a chat, if it is loaded.
    #[must_use]
    pub fn loaded_chat(&self, chat_id: ChatId) -> Option<Addr<ChatActor>> {
        match self.chats.get(&chat_id).as_deref() {
            Some(Slot::Loaded(chat)) if chat.connected() => Some(chat.clone()),
            _ => None,
        }
    }

    /// The actor of a chat if anybody but this connection is live in the chat; then it is loaded if it must be. A chat in
    /// which nobody listens is not loaded for what is worth nothing later.
    #[must_use]
    pub fn heard_chat(&self, broker: &Broker, chat_id: ChatId, by: &Connection) -> Option<Addr<ChatActor>> {
        let is_other = |subscriber: &Subscriber| subscriber.connection.id != by.id;
        let is_heard = match self.chats.get(&chat_id).as_deref() {
            Some(Slot::Loaded(chat)) => chat.connected(),
            Some(Slot::Waiting(waiting)) => waiting.iter().any(is_other),
            None => false,
        };
        if is_heard { self.chat(broker, chat_id) } else { None }
    }

    /// Puts a connection into the waiting room of a chat; gives the actor to ask instead if the chat is loaded. A
    /// connection that is closed is not kept: nobody would come to take it out.
    #[must_use]
    pub fn wait(&self, chat_id: ChatId, subscriber: Subscriber) -> Option<Addr<ChatActor>> {
        if subscriber.connection.outbox.is_closed() {
            return None;
        }
        let mut slot = self.chats.entry(chat_id).or_insert_with(|| Slot::Waiting(Vec::new()));
        match slot.value_mut() {
            Slot::Loaded(chat) if chat.connected() => Some(chat.clone()),
            Slot::Waiting(waiting) => {
                waiting.retain(|other| other.connection.id != subscriber.connection.id);
                waiting.push(subscriber);
                None
            }
            dead @ Slot::Loaded(_) => {
                *dead = Slot::Waiting(vec![subscriber]);
                None
            }
        }
    }

    /// Whether a connection stands in the waiting room of a chat at this place.
    #[must_use]
    pub fn waits(&self, chat_id: ChatId, connection: &Connection, position: Seq) -> bool {
        let is_it = |other: &Subscriber| other.connection.id == connection.id && other.position == position;
        matches!(self.chats.get(&chat_id).as_deref(), Some(Slot::Waiting(waiting)) if waiting.iter().any(is_it))
    }

    /// Moves a connection on that still stands in the waiting room of a chat where it stood; says whether it does.
    #[must_use]
    pub fn move_on(&self, chat_id: ChatId, connection: &Connection, from: Seq, to: Seq) -> bool {
        let is_it = |other: &&mut Subscriber| other.connection.id == connection.id && other.position == from;
        let mut slot = self.chats.get_mut(&chat_id);
        let Some(Slot::Waiting(waiting)) = slot.as_deref_mut() else { return false };
        let Some(subscriber) = waiting.iter_mut().find(is_it) else { return false };
        subscriber.position = to;
        true
    }

    /// Takes a connection out of a chat.
    pub fn unsubscribe(&self, chat_id: ChatId, connection: &Arc<Connection>) {
        let Entry::Occupied(mut slot) = self.chats.entry(chat_id) else { return };
        match slot.get_mut() {
            Slot::Loaded(chat) => {
                // A full mailbox loses this word; the chat finds the closed outbox at its next entry.
                let _ = chat.try_send(Unsubscribe { connection: connection.id });
            }
            Slot::Waiting(waiting) => {
                waiting.retain(|other| other.connection.id != connection.id);
                if waiting.is_empty() {
                    slot.remove();
                }
            }
        }
    }

    /// Takes an idle chat's actor out and leaves its subscribers in the waiting room.
    pub fn passivate(&self, chat_id: ChatId, chat: &Addr<ChatActor>, subscribers: Vec<Subscriber>) {
        let Entry::Occupied(mut slot) = self.chats.entry(chat_id) else { return };
        if !matches!(slot.get(), Slot::Loaded(current) if current == chat) {
            return;
        }
        if subscribers.is_empty() {
            slot.remove();
        } else {
            slot.insert(Slot::Waiting(subscribers));
        }
    }
}
