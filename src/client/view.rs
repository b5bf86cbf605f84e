//! What a client shows of itself: chats, members, events, counts.

use std::fmt;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::event::Event;
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::frame::{PendingSession, SessionState};
use crate::protocol::ids::{ChatId, Seq, SessionId, Timestamp, UserId};
use crate::protocol::username::Username;

/// A chat of this user.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatSummary {
    /// The chat.
    pub chat_id: ChatId,
    /// Its title, if this session can open it.
    pub title: Option<String>,
    /// Its description, if it has one and this session can open it.
    pub description: Option<String>,
    /// Title and description are the newest. Otherwise this session waits for their key: whoever holds it hands it on
    /// when they come online.
    pub is_info_readable: bool,
    /// Its newest entry.
    pub last_seq: Seq,
    /// The entry that made this user a member.
    pub joined_seq: Seq,
    /// Messages of others that this user has not read; as the server counts them while this device does not know
    /// the chat yet.
    pub unread: u64,
}

/// Prints no title (P12).
impl fmt::Debug for ChatSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chat {}", self.chat_id)
    }
}

/// A member of a chat, as its log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMember {
    /// The user.
    pub user_id: UserId,
    /// The name under which this device looked the user up.
    pub username: Option<Username>,
    /// May send messages.
    pub can_write: bool,
    /// May add and remove members.
    pub can_manage: bool,
    /// Owns the chat.
    pub is_owner: bool,
    /// The entry that made them a member.
    pub joined_seq: Seq,
    /// Their sessions that receive.
    pub sessions: Vec<SessionId>,
}

/// A session of this user.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnSession {
    /// Its certificate.
    pub certificate: SignedCertificate,
    /// Its state.
    pub state: SessionState,
    /// When it was last connected, by the database's clock.
    pub last_seen_at: Option<Timestamp>,
    /// Its name, if it has one that opens.
    pub label: Option<String>,
}

/// Prints no name (P12).
impl fmt::Debug for OwnSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} {:?}", self.certificate.certificate.session_id, self.state)
    }
}

/// This user's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSessions {
    /// Every session that is not pending.
    pub sessions: Vec<OwnSession>,
    /// Those that wait for approval.
    pub pending: Vec<PendingSession>,
}

/// Counts of what a client did since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections made.
    pub connections: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Sends that the server answered with `ok`.
    pub messages_sent: u64,
    /// Messages received that verified and were for this session, one's own too.
    pub messages_received: u64,
    /// Requests refused.
    pub refusals: u64,
    /// Requests repeated because their answer was lost.
    pub resends: u64,
    /// What did not verify.
    pub alarms: u64,
}

/// The events of a client from the moment it was made.
#[derive(Debug)]
pub struct EventStream(pub(super) broadcast::Receiver<Arc<Event>>);

impl EventStream {
    /// The next event.
    ///
    /// # Errors
    /// The number of events that were dropped since this receiver was too slow; the stream goes on after them.
    ///
    /// # Cancel safety
    /// No event is lost.
    pub async fn next(&mut self) -> Result<Option<Arc<Event>>, u64> {
        match self.0.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(dropped)) => Err(dropped),
        }
    }
}
