//! The handle of a client: small, cloneable, all of its public operations.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::account::{self, NewAccount};
use super::body::Body;
use super::chat::outbox::Draft;
use super::chat::state::Chat;
use super::config::ClientConfig;
use super::engine::history::History;
use super::engine::state::{Shared, State, Status};
use super::engine::{chains, devices, driver, info, labels, members, persist, pump};
use super::error::{ClientError, CloseReason, SendError};
use super::failure::VerificationFailure;
use super::keyring::Phase;
use super::net::Endpoint;
use super::storage::Storage;
use super::view::{ChatMember, ChatSummary, EventStream, OwnSessions, Stats};
use crate::crypto::link_code::LinkCode;
use crate::crypto::opaque::Password;
use crate::crypto::safety_number::safety_number;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::UserInfo;
use crate::protocol::ids::{ChatId, MessageId, Revision, Seq, SessionId, Timestamp, UserId};
use crate::protocol::username::Username;

/// How long closing waits for cursors to be told.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// A message is in the log, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The message.
    pub message_id: MessageId,
    /// Which revision of it: 0 unless it is an edit or a deletion.
    pub revision: Revision,
    /// Its place in the log.
    pub seq: Seq,
    /// When the server took it, by the database's clock.
    pub created_at: Timestamp,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(CloseReason::ByUser);
        self.task.abort();
    }
}

/// A client; clones are the same one. When the last is dropped, it ends at once: see [`Client::close`].
#[derive(Debug, Clone)]
pub struct Client(Arc<Handle>);

impl Client {
    /// Registers an account, with a profile that holds none.
    ///
    /// # Errors
    /// [`ClientError::ProfileTaken`], an address or name that is none, the server's refusals, the network. After
    /// a network error the same call with the same profile ends what was begun.
    ///
    /// # Cancel safety
    /// As after a network error.
    pub async fn register(
        config: ClientConfig,
        account: NewAccount,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        account::register(config, account, None, None, storage).await
    }

    /// Registers an account with a password: it opens the account on any device, and this device does not keep the
    /// identity key.
    ///
    /// # Errors
    /// As [`Client::register`]. What was begun keeps the password that it was begun with.
    ///
    /// # Cancel safety
    /// As after a network error.
    pub async fn register_with_password(
        config: ClientConfig,
        account: NewAccount,
        password: &Password,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        account::register(config, account, Some(password), None, storage).await
    }

    /// Registers an account with the code of an invitation, with or without a password.
    ///
    /// # Errors
    /// As [`Client::register`]; the server refuses with `invitation_invalid` a code that is none, used up or run out.
    ///
    /// # Cancel safety
    /// As after a network error.
    pub async fn register_invited(
        config: ClientConfig,
        account: NewAccount,
        password: Option<&Password>,
        invitation: &str,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        account::register(config, account, password, Some(invitation), storage).await
    }

    /// Opens the account of a profile and begins to connect.
    ///
    /// # Errors
    /// [`ClientError::NotReady`], [`ClientError::AccountDeleted`], or the profile cannot be read.
    pub async fn open(config: ClientConfig, storage: Arc<dyn Storage>) -> Result<Self, ClientError> {
        let records = account::load(&storage).await?;
        let (account, chats) = persist::decode(&records)?;
        match account.phase {
            Phase::Ready | Phase::Deleting => {}
            Phase::Deleted => return Err(ClientError::AccountDeleted),
            Phase::Registering | Phase::Linking(_) | Phase::Certifying => return Err(ClientError::NotReady),
        }
        let endpoint = account.server_url.parse()?;
        Ok(Self::start(config, endpoint, State::new(account, chats), storage))
    }

    pub(crate) fn start(config: ClientConfig, endpoint: Endpoint, state: State, storage: Arc<dyn Storage>) -> Self {
        let shared = Arc::new(Shared::new(config, endpoint, state, storage));
        let task = tokio::spawn(driver::run(Arc::clone(&shared)));
        Self(Arc::new(Handle { shared, task }))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// This user.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.shared().lock().account.me.user_id
    }

    /// This session.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.shared().lock().account.me.session_id
    }

    /// This user's name.
    #[must_use]
    pub fn username(&self) -> Username {
        self.shared().lock().account.username.clone()
    }

    /// The name of a user, if this session knows it.
    #[must_use]
    pub fn name_of(&self, user_id: UserId) -> Option<Username> {
        let state = self.shared().lock();
        if user_id == state.account.me.user_id {
            return Some(state.account.username.clone());
        }
        state.account.pins.get(&user_id).and_then(|pin| pin.username.clone())
    }

    /// The events from now on. Make it before what should be seen by it.
    #[must_use]
    pub fn events(&self) -> EventStream {
        EventStream(self.shared().events.subscribe())
    }

    /// What the client did so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = &self.shared().counts;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            connections: read(&counts.connections),
            frames_received: read(&counts.frames_received),
            messages_sent: read(&counts.messages_sent),
            messages_received: read(&counts.messages_received),
            refusals: read(&counts.refusals),
            resends: read(&counts.resends),
            alarms: read(&counts.alarms),
        }
    }

    /// Waits until everything up to now has come and was taken.
    ///
    /// # Errors
    /// Why the client does not connect any more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn live(&self) -> Result<(), CloseReason> {
        self.shared().live().await.map(|_| ())
    }

    /// Whether everything up to now has come.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(&*self.shared().status.borrow(), Status::Live(_))
    }

    /// Why the newest try to connect failed, for whoever gives up waiting.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.shared().lock().last_failure.clone()
    }

    /// Drops the connection and makes a new one at once.
    pub fn reconnect(&self) {
        self.shared().reconnect();
    }

    /// Keeps everything, tells the cursors, and ends the connection.
    ///
    /// # Errors
    /// What changed last could not be kept.
    ///
    /// # Cancel safety
    /// What was kept is kept.
    pub async fn close(&self) -> Result<(), ClientError> {
        let shared = self.shared();
        let wire = match &*shared.status.borrow() {
            Status::Live(wire) => Some(wire.clone()),
            Status::Connecting | Status::Closed(_) => None,
        };
        if let Some(wire) = wire {
            let _ = tokio::time::timeout(CLOSE_WAIT, driver::keep_and_tell(shared, &wire)).await;
            wire.close();
            let mut status = shared.status.subscribe();
            let closed = status.wait_for(|status| matches!(status, Status::Closed(_)));
            let _ = tokio::time::timeout(CLOSE_WAIT, closed).await;
        }
        shared.close(CloseReason::ByUser);
        shared.keep().await
    }

    /// Makes a chat of which this user is the owner.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] for a title above 996 bytes, the server's refusals.
    ///
    /// # Cancel safety
    /// The chat may have been made.
    pub async fn create_chat(&self, title: &str) -> Result<ChatId, ClientError> {
        members::create(self.shared(), title).await
    }

    /// Adds a user; they read what comes after their joining.
    ///
    /// # Errors
    /// [`ClientError::AlreadyMember`], [`ClientError::UnknownChat`], a user whose identity is not the one known
    /// before, the server's refusals, [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The user may have been added.
    pub async fn add_member(
        &self,
        chat_id: ChatId,
        username: &str,
        can_write: bool,
        can_manage: bool,
    ) -> Result<Seq, ClientError> {
        members::add(self.shared(), chat_id, &Username::parse(username)?, (can_write, can_manage)).await
    }

    /// Removes a member: from the answer on, nothing that is sent can be read by them.
    ///
    /// # Errors
    /// [`ClientError::NotMember`], [`ClientError::UnknownChat`], the server's refusals, [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The member may have been removed.
    pub async fn remove_member(&self, chat_id: ChatId, username: &str) -> Result<Seq, ClientError> {
        members::remove(self.shared(), chat_id, &Username::parse(username)?).await
    }

    /// Leaves a chat; its owner cannot.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], the server's refusals, [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The chat may have been left.
    pub async fn leave_chat(&self, chat_id: ChatId) -> Result<(), ClientError> {
        members::leave(self.shared(), chat_id).await
    }

    /// Ends a chat of which this user is the owner, with everything in it.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], the server's refusals, [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The chat may have ended.
    pub async fn delete_chat(&self, chat_id: ChatId) -> Result<(), ClientError> {
        members::delete(self.shared(), chat_id).await
    }

    /// Lists this user's chats.
    ///
    /// # Errors
    /// The server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn list_chats(&self) -> Result<Vec<ChatSummary>, ClientError> {
        let listed = members::list(self.shared()).await?;
        let state = self.shared().lock();
        let summary = |info: crate::protocol::frame::ChatInfo| ChatSummary {
            chat_id: info.chat_id,
            title: state.chats.get(&info.chat_id).and_then(|chat| chat.title.clone()),
            description: state.chats.get(&info.chat_id).and_then(|chat| chat.info.description.clone()),
            is_info_readable: state
                .chats
                .get(&info.chat_id)
                .is_some_and(|chat| chat.info.is_readable || chat.info.key_id.is_none()),
            last_seq: info.last_seq,
            joined_seq: info.joined_seq,
            unread: state.chats.get(&info.chat_id).map_or(info.unread, |chat| chat.reading.unread()),
        };
        Ok(listed.chats.into_iter().map(summary).collect())
    }

    /// Says what a chat is called: name, description or both; what is none stays, an empty text takes it away. Saved
    /// under a new key if somebody has lost access since the last one was made.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], [`ClientError::TooLarge`], [`ClientError::NotReady`] if what is to stay cannot be
    /// read yet, [`ClientError::Conflict`], the server's refusals: only who may manage the chat may.
    ///
    /// # Cancel safety
    /// It may have been saved.
    pub async fn set_chat_info(
        &self,
        chat_id: ChatId,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<(), ClientError> {
        info::set(self.shared(), chat_id, info::InfoChange { name, description }).await
    }

    /// The members of a chat, from its verified log.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn members(&self, chat_id: ChatId) -> Result<Vec<ChatMember>, ClientError> {
        self.shared().known(chat_id).await?;
        members::learn_names(self.shared(), chat_id).await?;
        let state = self.shared().lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let fold = chat.log.fold();
        let me = state.account.me.user_id;
        let member = |(user_id, member): (&UserId, &crate::protocol::membership::Member)| ChatMember {
            user_id: *user_id,
            username: if *user_id == me {
                Some(state.account.username.clone())
            } else {
                state.account.pins.get(user_id).and_then(|pin| pin.username.clone())
            },
            can_write: member.can_write,
            can_manage: member.can_manage,
            is_owner: *user_id == fold.membership().owner_id,
            joined_seq: member.joined_seq,
            sessions: fold
                .recipients()
                .iter()
                .filter(|(_, recipient)| recipient.user_id == *user_id)
                .map(|(session_id, _)| *session_id)
                .collect(),
        };
        Ok(fold.membership().members.iter().map(member).collect())
    }

    /// Finds a user by exact name; their identity is pinned from then on.
    ///
    /// # Errors
    /// An identity other than the one known before, the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing but the pin.
    pub async fn lookup(&self, username: &str) -> Result<UserInfo, ClientError> {
        members::lookup(self.shared(), &Username::parse(username)?).await
    }

    /// The number that this user and another compare; the other must be known to this device.
    #[must_use]
    pub fn safety_number(&self, user_id: UserId) -> Option<String> {
        let state = self.shared().lock();
        let me = &state.account.me;
        let pin = state.account.pins.get(&user_id)?;
        Some(safety_number((me.user_id, &me.identity_key), (user_id, &pin.identity_key)))
    }

    /// Lists this user's sessions with their names, and those that wait for approval.
    ///
    /// # Errors
    /// A list that does not verify, the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn sessions(&self) -> Result<OwnSessions, ClientError> {
        labels::list(self.shared()).await
    }

    /// Approves the session that shows a link code, and hands identity and chats over to it.
    ///
    /// # Errors
    /// [`ClientError::NoSuchPending`], the server's refusals.
    ///
    /// # Cancel safety
    /// The session may have been approved.
    pub async fn approve_session(&self, code: &LinkCode, ttl: Option<Duration>) -> Result<SessionId, ClientError> {
        devices::approve(self.shared(), code, ttl.unwrap_or(account::SESSION_TTL)).await
    }

    /// Ends a session of this user.
    ///
    /// # Errors
    /// The server's refusals.
    ///
    /// # Cancel safety
    /// The session may have ended.
    pub async fn revoke_session(&self, session_id: SessionId) -> Result<(), ClientError> {
        devices::revoke(self.shared(), session_id).await
    }

    /// Reads the chains of this user and of the users in this user's chats, a bounded number of them, and compares
    /// them with what the chats say. The client does the same by itself now and then. Gives what did not verify, which
    /// are alarms too.
    ///
    /// # Errors
    /// The server's refusals; the client is closed.
    ///
    /// # Cancel safety
    /// What was read is known.
    pub async fn check_sessions(&self) -> Result<Vec<VerificationFailure>, ClientError> {
        chains::look(self.shared()).await
    }

    /// Sends text.
    ///
    /// # Errors
    /// As [`Client::send_body`].
    ///
    /// # Cancel safety
    /// As [`Client::send_body`].
    pub async fn send(&self, chat_id: ChatId, text: &str) -> Result<Sent, SendError> {
        self.send_body(chat_id, MessageId::generate(), &Body::text(text)).await
    }

    /// Sends a message and waits until it is in the log, however often the connection is lost on the way.
    ///
    /// Messages of one chat go in the order of these calls, those of different chats side by side. The same
    /// `message_id` again waits for the first one, or finds its result.
    ///
    /// # Errors
    /// [`SendError`]: the message is not in the log and will not be, except after [`SendError::OutcomeUnknown`] and
    /// [`SendError::Closed`].
    ///
    /// # Cancel safety
    /// The message stays in the outbox and is sent; see [`Client::withdraw`].
    pub async fn send_body(&self, chat_id: ChatId, message_id: MessageId, body: &Body) -> Result<Sent, SendError> {
        self.send_draft(chat_id, |_| Draft::message(message_id, body.to_bytes())).await
    }

    /// Puts something into the outbox and waits for its outcome; what waits there already is waited for.
    ///
    /// `draft` is made of the chat as it is when it goes into the outbox.
    pub(super) async fn send_draft(
        &self,
        chat_id: ChatId,
        draft: impl FnOnce(&Chat) -> Draft,
    ) -> Result<Sent, SendError> {
        let shared = self.shared();
        self.known(chat_id).await?;
        let answer = {
            let mut state = shared.lock();
            // Under the lock: closing takes it after the status is set, and then tells all who wait.
            if let Status::Closed(reason) = &*shared.status.borrow() {
                return Err(SendError::Closed(*reason));
            }
            let Some(chat) = state.chats.get_mut(&chat_id) else {
                return Err(SendError::Refused { code: ErrorCode::UnknownChat });
            };
            let draft = draft(chat);
            let name = draft.name();
            if !chat.outbox.contains(name) {
                chat.outbox.push(draft)?;
            }
            let (tell, answer) = oneshot::channel();
            state.waiters.insert((chat_id, name), tell);
            state.dirty_chats.insert(chat_id);
            answer
        };
        pump::start(shared, chat_id);
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(SendError::Closed(CloseReason::ByUser)),
        }
    }

    /// Waits until a chat is known here.
    pub(super) async fn known(&self, chat_id: ChatId) -> Result<(), SendError> {
        // A chat that is known takes messages without a connection too, in the order of the calls.
        if self.shared().lock().chats.contains_key(&chat_id) {
            return Ok(());
        }
        self.shared().known(chat_id).await.map_err(|error| match error {
            ClientError::Closed(reason) => SendError::Closed(reason),
            _ => SendError::Refused { code: ErrorCode::UnknownChat },
        })
    }

    /// Takes a message out of the outbox, with its edits that wait. `false`: something of it may be on its way, and
    /// stays until there is an answer.
    pub fn withdraw(&self, chat_id: ChatId, message_id: MessageId) -> bool {
        let mut state = self.shared().lock();
        state.dirty_chats.insert(chat_id);
        let Some(chat) = state.chats.get_mut(&chat_id) else { return true };
        chat.outbox.withdraw(message_id);
        !chat.outbox.waits(message_id)
    }

    /// Messages that wait in a chat's outbox.
    #[must_use]
    pub fn waiting(&self, chat_id: ChatId) -> usize {
        self.shared().lock().chats.get(&chat_id).map_or(0, |chat| chat.outbox.len())
    }

    /// The newest entry of a chat that this client has taken, and the hash of the log up to it: what a test of
    /// promise P3 compares between members.
    #[must_use]
    pub fn head(&self, chat_id: ChatId) -> Option<crate::protocol::envelope::Seen> {
        self.shared().lock().chats.get(&chat_id).map(|chat| chat.log.head())
    }

    /// Reads a chat's log.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn history(&self, chat_id: ChatId) -> Result<History, ClientError> {
        self.shared().known(chat_id).await?;
        History::new(Arc::clone(self.shared()), chat_id)
    }
}
