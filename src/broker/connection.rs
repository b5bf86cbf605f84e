//! One connection as the rest of the broker sees it: who it is, its outbox, and where it lags.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::outbox::{Outbox, PushError, ReadyFrame};
use crate::protocol::codec::Encoding;
use crate::protocol::error::CloseCode;
use crate::protocol::frame::ServerFrame;
use crate::protocol::ids::{ChatId, Seq};
use crate::store::members::Requester;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// One WebSocket of a session, shared by all who send to it.
#[derive(Debug)]
pub struct Connection {
    /// Tells it from an older or newer connection of the same session.
    pub id: u64,
    /// How its frames are written.
    pub encoding: Encoding,
    /// What waits to be written to it.
    pub outbox: Arc<Outbox>,
    who: OnceLock<Requester>,
    chats: Mutex<BTreeMap<ChatId, Place>>,
    /// Told when a chat begins to lag, when the session has resumed, and when the connection ends.
    pub wake: Notify,
    /// Set when `live` is owed though nothing may lag.
    pub owes_live: AtomicBool,
    /// Held while a page is read for it: one at a time, so that its outbox holds one page and no more.
    pub reading: tokio::sync::Mutex<()>,
}

/// Where a connection stands in one chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// New entries are handed over as they are committed.
    Live,
    /// Entries after this one are to be read from the store.
    Lagging(Seq),
}

impl Connection {
    /// A connection that has not logged in.
    #[must_use]
    pub fn new(encoding: Encoding, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            encoding,
            outbox,
            who: OnceLock::new(),
            chats: Mutex::new(BTreeMap::new()),
            wake: Notify::new(),
            owes_live: AtomicBool::new(false),
            reading: tokio::sync::Mutex::new(()),
        })
    }

    /// Who it is, once it has logged in.
    #[must_use]
    pub fn who(&self) -> Option<Requester> {
        self.who.get().copied()
    }

    /// Notes who it is; the first word counts.
    pub fn log_in(&self, who: Requester) {
        let _ = self.who.set(who);
    }

    /// Writes a frame for this connection's encoding.
    #[must_use]
    pub fn frame(&self, frame: &ServerFrame) -> ReadyFrame {
        ready(self.encoding, frame)
    }

    /// Sends an answer or whatever else must not be left out. A connection that takes not even those is closed.
    pub fn push_reply(&self, frame: &ServerFrame) {
        if self.outbox.push_reply(&self.frame(frame)) == Err(PushError::Full) {
            self.close(CloseCode::Overloaded);
        }
    }

    /// Closes it, after what waits has been written.
    pub fn close(&self, code: CloseCode) {
        self.outbox.close(code.number(), code.as_str());
        self.wake.notify_one();
    }

    /// Notes that entries of a chat after `after` are to be read from the store. A chat that lags already keeps
    /// its place: only its reader moves it.
    pub fn lag(&self, chat_id: ChatId, after: Seq) {
        let mut chats = self.lock();
        let place = chats.entry(chat_id).or_insert(Place::Live);
        if *place == Place::Live {
            *place = Place::Lagging(after);
            drop(chats);
            self.wake.notify_one();
        }
    }

    /// Notes that it is about to stand in a chat, so that its end finds the chat.
    pub fn stand(&self, chat_id: ChatId) {
        self.lock().entry(chat_id).or_insert(Place::Live);
    }

    /// Moves on the place of a chat that lags.
    pub fn lag_from(&self, chat_id: ChatId, after: Seq) {
        self.lock().insert(chat_id, Place::Lagging(after));
    }

    /// Notes that a chat is live.
    pub fn set_live(&self, chat_id: ChatId) {
        self.lock().insert(chat_id, Place::Live);
    }

    /// Forgets a chat.
    pub fn forget(&self, chat_id: ChatId) {
        self.lock().remove(&chat_id);
    }

    /// A chat that lags, and the place from which it is to be read.
    #[must_use]
    pub fn next_lagging(&self) -> Option<(ChatId, Seq)> {
        self.lock().iter().find_map(|(chat_id, place)| match place {
            Place::Lagging(after) => Some((*chat_id, *after)),
            Place::Live => None,
        })
    }

    /// Its chats, live or not.
    #[must_use]
    pub fn chats(&self) -> Vec<ChatId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ChatId, Place>> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a frame once for all connections of an encoding.
#[must_use]
pub fn ready(encoding: Encoding, frame: &ServerFrame) -> ReadyFrame {
    match encoding.encode(frame) {
        Ok(bytes) => match encoding {
            Encoding::Json => ReadyFrame::text(&bytes),
            Encoding::MessagePack => ReadyFrame::binary(&bytes),
        },
        Err(error) => {
            // The types of this crate can all be written; should one not be, its readers see the gap and fetch it.
            tracing::error!(error = &error as &dyn std::error::Error, "frame not written");
            ReadyFrame::ping(&[])
        }
    }
}
