//! The state of a client, and what its tasks share.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, broadcast, oneshot, watch};

use super::chains::Schedule;
use super::copies::Errands;
use super::renewal::Renewal;
use crate::client::chains::Chains;
use crate::client::chat::outbox::Name;
use crate::client::chat::own_key::KeyLimits;
use crate::client::chat::state::Chat;
use crate::client::config::ClientConfig;
use crate::client::error::{ClientError, CloseReason, SendError};
use crate::client::event::{Alarm, Event};
use crate::client::failure::VerificationFailure;
use crate::client::handle::Sent;
use crate::client::keyring::Account;
use crate::client::net::Endpoint;
use crate::client::net::wire::Wire;
use crate::client::recovery::Recovered;
use crate::client::storage::Storage;
use crate::crypto::IdentitySecret;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ChatInfoChanged, Hello, OwnKey};
use crate::protocol::ids::{ChatId, KeyId, RecoveryRequestId, Seq, SessionId, Timestamp};
use crate::protocol::log::LogEntry;

/// Where a client stands.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    /// No connection that has caught up.
    Connecting,
    /// Caught up.
    Live(Wire),
    /// For good.
    Closed(CloseReason),
}

/// Where the recovery stands that a login has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recovery {
    /// There was none.
    None,
    UnderWay,
    Done(Recovered),
    /// It came to no end.
    Failed,
}

/// Entries of one chat that came and are not taken yet, on this connection.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) queue: VecDeque<LogEntry>,
    /// Keys of a chat that is not folded yet.
    pub(crate) keys: Vec<OwnKey>,
    /// Something is being fetched without which the queue cannot go on.
    pub(crate) is_fetching: bool,
    /// The key that was fetched in vain for the entry at the front.
    pub(crate) tried: Option<KeyId>,
    /// The chain broke, or the queue overflowed: only a page that continues the log is taken.
    pub(crate) awaits_page: bool,
    /// The server said that everything up to here had come: what is without data by then must be explained.
    pub(crate) complete_at: Option<Seq>,
    /// The queue overflowed: what was dropped is asked for once the queue is empty.
    pub(crate) must_ask: bool,
    /// Where this user was removed: entries up to there are old.
    pub(crate) gone_at: Option<Seq>,
    /// The server said that the chat is gone: until this user joins it anew, what comes was read before that word.
    pub(crate) is_gone: bool,
    /// How often the chat was asked for again.
    pub(crate) resumes: u32,
    /// Nothing of this chat is taken on this connection.
    pub(crate) is_ignored: bool,
}

impl Inbox {
    /// Of a chat that is gone, by the server's word.
    pub(crate) fn gone() -> Self {
        Self { is_gone: true, ..Self::default() }
    }
}

/// How far catching up has come on this connection.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) wire: Option<Wire>,
    /// The server has said `live`.
    pub(crate) is_pushed: bool,
    /// Chats that are gone have been sorted out.
    pub(crate) is_listed: bool,
}

/// All that a client knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) account: Account,
    pub(crate) chats: HashMap<ChatId, Chat>,
    pub(crate) chains: Chains,
    pub(crate) chain_schedule: Schedule,
    /// What is to be done about copies, in the background.
    pub(crate) errands: Errands,
    pub(crate) inboxes: HashMap<ChatId, Inbox>,
    /// Sessions of this user that were offered the keys of older ones by this process.
    pub(crate) backed_up: BTreeSet<SessionId>,
    /// What chats are called that are not folded yet.
    pub(crate) early_infos: HashMap<ChatId, ChatInfoChanged>,
    pub(crate) waiters: HashMap<(ChatId, Name), oneshot::Sender<Result<Sent, SendError>>>,
    pub(crate) pumping: HashSet<ChatId>,
    pub(crate) limits: Option<KeyLimits>,
    /// The database's clock less this machine's, in microseconds.
    pub(crate) clock_offset: i64,
    pub(crate) progress: Progress,
    pub(crate) dirty_chats: BTreeSet<ChatId>,
    pub(crate) is_account_dirty: bool,
    /// The identity key while a password has opened it for one operation; never kept.
    pub(crate) unlocked: Option<IdentitySecret>,
    /// Requests for recovery of which this process has told its user.
    pub(crate) told_requests: HashSet<RecoveryRequestId>,
    /// The end of the account is being asked for by this process.
    pub(crate) is_deleting: bool,
    pub(crate) renewal: Renewal,
    /// Why the newest try to connect failed, for whoever gives up waiting.
    pub(crate) last_failure: Option<String>,
}

impl State {
    /// The identity key, if this device holds it or a password has opened it.
    pub(crate) fn identity(&self) -> Result<&IdentitySecret, ClientError> {
        self.account.identity.as_ref().or(self.unlocked.as_ref()).ok_or(ClientError::NoIdentityKey)
    }

    pub(crate) fn new(account: Account, chats: HashMap<ChatId, Chat>) -> Self {
        Self {
            account,
            chats,
            chains: Chains::default(),
            chain_schedule: Schedule::default(),
            errands: Errands::default(),
            inboxes: HashMap::new(),
            backed_up: BTreeSet::new(),
            early_infos: HashMap::new(),
            waiters: HashMap::new(),
            pumping: HashSet::new(),
            limits: None,
            clock_offset: 0,
            progress: Progress::default(),
            dirty_chats: BTreeSet::new(),
            is_account_dirty: true,
            unlocked: None,
            told_requests: HashSet::new(),
            is_deleting: false,
            renewal: Renewal::default(),
            last_failure: None,
        }
    }

    /// The database's clock, as far as it is known.
    pub(crate) fn now(&self) -> Timestamp {
        let local = local_micros();
        let offset = self.clock_offset.unsigned_abs();
        Timestamp::saturating(if self.clock_offset < 0 {
            local.saturating_sub(offset)
        } else {
            local.saturating_add(offset)
        })
    }

    pub(crate) fn set_clock(&mut self, server: Timestamp) {
        self.clock_offset = server.get().cast_signed().saturating_sub(local_micros().cast_signed());
    }

    pub(crate) fn take_hello(&mut self, hello: &Hello) {
        self.set_clock(hello.time);
        self.limits = Some(KeyLimits {
            messages_max: hello.key_messages_max,
            messages_max_large: hello.key_messages_max_large,
            recipients_large: hello.key_recipients_large,
            age_max_micros: hello.key_age_max_s.saturating_mul(1_000_000),
        });
    }

    /// Forgets a chat, with all that waits in it. What was on its way may be in the part of the log that this session
    /// can no longer read.
    pub(crate) fn forget(&mut self, chat_id: ChatId) -> Vec<Event> {
        self.forget_with(chat_id, SendError::OutcomeUnknown)
    }

    /// Forgets a chat whose log was read to its end for this session: what is not in it will not be.
    pub(crate) fn forget_at_the_end(&mut self, chat_id: ChatId) -> Vec<Event> {
        self.forget_with(chat_id, SendError::Refused { code: ErrorCode::UnknownChat })
    }

    fn forget_with(&mut self, chat_id: ChatId, of_open: SendError) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(mut chat) = self.chats.remove(&chat_id) else { return events };
        if let Some(left) = chat.left() {
            self.account.leave(chat_id, left);
            self.is_account_dirty = true;
        }
        self.dirty_chats.insert(chat_id);
        for (name, is_open) in chat.outbox.drain() {
            let never_left = SendError::Refused { code: ErrorCode::UnknownChat };
            let error = if is_open { of_open.clone() } else { never_left };
            events.extend(self.settle(chat_id, name, Err(error)));
        }
        events
    }

    /// Tells who waits for a message what became of it; a failure that nobody waits for is an event.
    pub(crate) fn settle(&mut self, chat_id: ChatId, name: Name, result: Result<Sent, SendError>) -> Option<Event> {
        let failed = result.as_ref().err().cloned();
        let unheard = match self.waiters.remove(&(chat_id, name)) {
            Some(waiter) => waiter.send(result).is_err(),
            None => true,
        };
        let (message_id, revision) = name;
        failed.filter(|_| unheard).map(|error| Event::SendFailed { chat_id, message_id, revision, error })
    }

    /// Whether this is the connection that entries are taken from now.
    pub(crate) fn is_current(&self, wire: &Wire) -> bool {
        self.progress.wire.as_ref().is_some_and(|now| now.generation() == wire.generation())
    }

    /// Whether everything that came has been taken.
    pub(crate) fn is_caught_up(&self) -> bool {
        let is_waiting =
            |inbox: &Inbox| !inbox.is_ignored && (inbox.is_fetching || inbox.awaits_page || !inbox.queue.is_empty());
        self.progress.is_pushed && self.progress.is_listed && !self.inboxes.values().any(is_waiting)
    }
}

/// Counts of what a client did.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) resends: AtomicU64,
    pub(crate) alarms: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the tasks of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) endpoint: Endpoint,
    state: Mutex<State>,
    pub(crate) storage: Arc<dyn Storage>,
    /// Held while records are made and written, so that an older one never replaces a newer one.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Held by whoever changes a chat's members, one for each chat in which somebody does.
    turns: Mutex<HashMap<ChatId, Weak<tokio::sync::Mutex<()>>>>,
    /// Held while this user's profile is saved.
    pub(crate) profile_turn: tokio::sync::Mutex<()>,
    pub(crate) events: broadcast::Sender<Arc<Event>>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) recovery: watch::Sender<Recovery>,
    /// Grows whenever something was taken, for those who wait for it.
    pub(crate) moved: watch::Sender<u64>,
    /// Ends the wait before the next connection.
    pub(crate) hurry: Notify,
    pub(crate) counts: Counts,
}

impl Shared {
    pub(crate) fn new(config: ClientConfig, endpoint: Endpoint, state: State, storage: Arc<dyn Storage>) -> Self {
        let (events, _) = broadcast::channel(config.events_kept.max(1));
        let (status, _) = watch::channel(Status::Connecting);
        let (moved, _) = watch::channel(0);
        let (recovery, _) = watch::channel(Recovery::None);
        Self {
            config,
            endpoint,
            state: Mutex::new(state),
            storage,
            writing: tokio::sync::Mutex::new(()),
            turns: Mutex::default(),
            profile_turn: tokio::sync::Mutex::new(()),
            events,
            status,
            recovery,
            moved,
            hurry: Notify::new(),
            counts: Counts::default(),
        }
    }

    /// The state; never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held is a bug elsewhere; each step leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a change of a chat's members is made under.
    pub(crate) fn turn_to_change(&self, chat_id: ChatId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&chat_id).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(chat_id, Arc::downgrade(&turn));
        turn
    }

    pub(crate) fn publish(&self, events: Vec<Event>) {
        for event in events {
            if let Event::Alarm(alarm) = &event {
                Counts::add(&self.counts.alarms);
                tracing::warn!(failure = %alarm.failure, "verification failed");
            }
            // Nobody may be listening.
            let _ = self.events.send(Arc::new(event));
        }
    }

    pub(crate) fn alarm(&self, chat_id: Option<ChatId>, seq: Option<Seq>, failure: VerificationFailure) {
        self.publish(vec![Event::Alarm(Alarm { chat_id, seq, session_id: None, failure })]);
    }

    /// Wakes those who wait for the state to move.
    pub(crate) fn notify_moved(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Closes for good: nobody waits in vain.
    pub(crate) fn close(&self, reason: CloseReason) {
        let was_open = self.status.send_if_modified(|status| {
            let is_open = !matches!(status, Status::Closed(_));
            if is_open {
                *status = Status::Closed(reason);
            }
            is_open
        });
        if !was_open {
            return;
        }
        let waiters: Vec<_> = self.lock().waiters.drain().collect();
        for (_, waiter) in waiters {
            let _ = waiter.send(Err(SendError::Closed(reason)));
        }
        self.publish(vec![Event::Closed(reason)]);
        self.notify_moved();
        self.hurry.notify_one();
    }
}

/// This machine's clock, in microseconds since the Unix epoch.
pub(crate) fn local_micros() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
