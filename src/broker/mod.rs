//! The broker: chats, and who is connected. Knows actors, but neither HTTP nor WebSockets.
//!
//! Lives here: [`Broker`], the handle that ties store, chats and connections together. Floor 3: imports protocol,
//! config, telemetry and store.
//! Invariants: N1 a chat has at most one actor here. N2 a connection is handed an entry only after its commit.
//! N3 of a chat each connection is handed every entry once, in order of seq.

pub mod catch_up;
pub mod chat;
pub mod connection;
pub mod copies;
pub mod directory;
pub mod friends;
pub mod group_secrets;
pub mod info;
pub mod live_word;
pub mod newly_live;
pub mod open_work;
pub mod operator;
pub mod outbox;
pub mod outbox_budget;
pub mod passwords;
pub mod profiles;
pub mod ready_frame;
pub mod responder;
pub mod sessions;
pub mod wakes;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Semaphore;

use crate::protocol::ids::{ChatId, SessionId, UserId};
use crate::store::Store;
use crate::store::lanes::Lanes;
use crate::store::users::SessionLimits;
use crate::store::writer::BatchWriter;
use crate::telemetry::metrics::Metrics;
use chat::state::KeyLimits;
use directory::Directory;
use open_work::OpenWork;
use passwords::Passwords;

/// How the broker behaves.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Bounds on sessions and their chats.
    pub sessions: SessionLimits,
    /// The life of sender keys.
    pub keys: KeyLimits,
    /// Members of one chat at most.
    pub members_max: u64,
    /// Messages of one chat between submission and commit at most.
    pub in_flight_max: usize,
    /// After how long an idle chat leaves memory.
    pub chat_idle: Duration,
    /// How long a request may take.
    pub deadline: Duration,
    /// Pages of the log that are read for catching up at the same time.
    pub catch_up_readers: usize,
    /// Sessions that have just logged in and are told what is open, besides their chats, at the same time.
    pub newly_live_max: usize,
}

/// The handle of the broker; cheap to clone.
#[derive(Debug, Clone)]
pub struct Broker(Arc<Inner>);

/// What the handle leads to.
#[derive(Debug)]
pub struct Inner {
    /// Postgres.
    pub store: Store,
    /// Who is connected, and which chats are loaded.
    pub directory: Directory,
    /// How it behaves.
    pub options: BrokerOptions,
    /// The server's side of passwords.
    pub passwords: Passwords,
    /// What it counts.
    pub metrics: Metrics,
    /// Bounds the pages that are read for catching up.
    pub readers: Semaphore,
    /// Bounds the sessions that are looked after once they are live.
    newly_live: Semaphore,
    /// Sessions that have logged in and of which that is yet to be noted.
    seen: Mutex<Vec<SessionId>>,
    writers: Lanes,
    chat_arbiters: Vec<ArbiterHandle>,
    /// Chats are spread by a hash that nobody outside can aim at.
    hash: RandomState,
    /// The requests that are open, and whether new ones may begin.
    pub open_work: OpenWork,
}

impl std::ops::Deref for Broker {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Broker {
    /// Ties the parts together; `writers` and `chat_arbiters` have at least one each.
    #[must_use]
    pub fn new(
        store: Store,
        writers: Lanes,
        chat_arbiters: Vec<ArbiterHandle>,
        options: BrokerOptions,
        passwords: Passwords,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            directory: Directory::default(),
            readers: Semaphore::new(options.catch_up_readers),
            newly_live: Semaphore::new(options.newly_live_max),
            seen: Mutex::default(),
            options,
            passwords,
            metrics,
            writers,
            chat_arbiters,
            hash: RandomState::new(),
            open_work: OpenWork::default(),
        }))
    }

    /// Has it noted that a session was connected, with all others of the same second: a commit for each would hold up those of
    /// messages when many come back at once.
    pub fn saw(&self, session_id: SessionId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(session_id);
    }

    /// Notes whom it saw. What fails is lost, and nothing hangs on it.
    ///
    /// # Cancel safety
    /// The same.
    pub async fn note_seen(&self) {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        if !seen.is_empty() {
            let _ = self.store.touch_sessions(&seen).await;
        }
    }

    /// The writer's lane of a chat: always the same, or the order between batches would be lost.
    #[must_use]
    pub fn writer_of(&self, chat_id: ChatId) -> Option<Addr<BatchWriter>> {
        self.writers.get(self.place(chat_id, self.writers.count()))
    }

    /// Every lane of the writer.
    #[must_use]
    pub fn writers(&self) -> Vec<Addr<BatchWriter>> {
        self.writers.all()
    }

    fn chat_arbiter(&self, chat_id: ChatId) -> Option<&ArbiterHandle> {
        self.chat_arbiters.get(self.place(chat_id, self.chat_arbiters.len()))
    }

    /// The sessions of a user who is new in a chat. When the store does not say, those that are connected here: a
    /// session that is left out hears of the chat only on its next connection, and who is no recipient is told
    /// nothing by the reader.
    pub async fn sessions_to_welcome(&self, user_id: UserId) -> Vec<SessionId> {
        match self.store.live_sessions(user_id).await {
            Ok(sessions) => sessions,
            Err(_) => self.directory.sessions_of(user_id),
        }
    }

    fn place(&self, chat_id: ChatId, places: usize) -> usize {
        let mut hasher = self.hash.build_hasher();
        hasher.write(chat_id.as_bytes());
        let places = u64::try_from(places).unwrap_or(1).max(1);
        usize::try_from(hasher.finish() % places).unwrap_or(0)
    }

    /// Says that the process is going: nothing new begins.
    pub fn drain(&self) {
        self.open_work.close();
    }

    /// Whether the process is going.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.open_work.is_closed()
    }
}
