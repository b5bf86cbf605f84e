//! Reads a chat's log page by page, either way, and verifies it as if it came live.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::call::expect_reply;
use super::fetch::{FoldError, fold_before};
use super::state::Shared;
use crate::client::chat::log::{ChatLog, Content, Taken};
use crate::client::chat::received_keys::ReceivedKeys;
use crate::client::error::ClientError;
use crate::client::event::{Alarm, Message};
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::client::net::wire::CallError;
use crate::protocol::binary::Hash;
use crate::protocol::envelope::Seen;
use crate::protocol::frame::{Direction, History as HistoryRequest, Page, Reply, Request};
use crate::protocol::ids::{ChatId, Seq, Timestamp};
use crate::protocol::limits::PAGE_ENTRIES_MAX;
use crate::protocol::log::{LogEntry, log_hash};

/// A page of what this session may read.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Messages that verified and were for this session, in order.
    pub messages: Vec<Message>,
    /// What did not verify.
    pub alarms: Vec<Alarm>,
    /// The range covered is above this seq …
    pub after: Seq,
    /// … up to and with this one.
    pub up_to: Seq,
    /// Whether there is more that way.
    pub more: bool,
}

/// A reader of one chat's log. Pages that follow one another are verified as one chain.
#[derive(Debug)]
pub struct History {
    shared: Arc<Shared>,
    chat_id: ChatId,
    start: Seen,
    replay: Option<Replay>,
    /// First entries of pages whose hash before was not known, by seq: a page that ends before one is compared.
    links: BTreeMap<Seq, Link>,
}

#[derive(Debug)]
struct Replay {
    log: ChatLog,
    keys: ReceivedKeys,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    created_at: Timestamp,
    digest: Hash,
    log_hash: Hash,
}

impl History {
    pub(crate) fn new(shared: Arc<Shared>, chat_id: ChatId) -> Result<Self, ClientError> {
        let start = shared.lock().chats.get(&chat_id).ok_or(ClientError::UnknownChat)?.log.start();
        Ok(Self { shared, chat_id, start, replay: None, links: BTreeMap::new() })
    }

    /// The seq after which this session's own log begins: reading from here on is verified without a gap.
    #[must_use]
    pub const fn start(&self) -> Seq {
        self.start.seq
    }

    /// Reads the page after a seq, at most `limit` entries of the log.
    ///
    /// # Errors
    /// [`ClientError::Verification`] if the log is not the one that was shown before; the server's refusals.
    ///
    /// # Cancel safety
    /// Nothing is lost; the same page may be read again.
    pub async fn after(&mut self, seq: Seq, limit: u32) -> Result<HistoryPage, ClientError> {
        self.page(Direction::After, seq, limit).await
    }

    /// Reads the page before a seq, at most `limit` entries of the log.
    ///
    /// # Errors
    /// As [`History::after`].
    ///
    /// # Cancel safety
    /// Nothing is lost; the same page may be read again.
    pub async fn before(&mut self, seq: Seq, limit: u32) -> Result<HistoryPage, ClientError> {
        self.page(Direction::Before, seq, limit).await
    }

    async fn page(&mut self, direction: Direction, seq: Seq, limit: u32) -> Result<HistoryPage, ClientError> {
        let limit = limit.clamp(1, PAGE_ENTRIES_MAX);
        let request = HistoryRequest { chat_id: self.chat_id, direction, seq, limit };
        let page = expect_reply!(self.shared.call(Request::History(request)).await??, Page)?;
        let (after, up_to, more) = (page.after, page.up_to, page.more);
        let is_asked = page.chat_id == self.chat_id
            && match direction {
                Direction::After => after >= seq,
                Direction::Before => up_to < seq,
            };
        if !is_asked {
            return Err(ClientError::UnexpectedAnswer);
        }
        let mut result = HistoryPage { messages: Vec::new(), alarms: Vec::new(), after, up_to, more };
        if page.entries.is_empty() {
            return Ok(result);
        }
        let me = self.shared.lock().account.me.clone();
        let mut replay = match self.replay.take() {
            Some(replay) if replay.log.head().seq == after && !replay.log.is_adrift() => replay,
            _ => self.replay_from(after, &page).await?,
        };
        let verified = self.verify(&mut replay, &page, &me, &mut result);
        self.replay = Some(replay);
        if let Err(failure) = verified {
            self.replay = None;
            self.shared.alarm(Some(self.chat_id), None, failure);
            return Err(ClientError::Verification(failure));
        }
        Ok(result)
    }

    async fn replay_from(&self, after: Seq, page: &Page) -> Result<Replay, ClientError> {
        let keys = ReceivedKeys::default();
        if after == Seq::default() {
            let first = page.entries.first().ok_or(ClientError::UnexpectedAnswer)?;
            return Ok(Replay { log: ChatLog::found(self.chat_id, first)?, keys });
        }
        let wire = self.shared.live().await.map_err(ClientError::Closed)?;
        let fold = match fold_before(&self.shared, &wire, self.chat_id, after.next()).await {
            Ok(fold) => fold,
            Err(FoldError::Verification(failure)) => return Err(failure.into()),
            Err(FoldError::Call(CallError::Refused(refused))) => return Err(refused.into()),
            Err(FoldError::Call(CallError::Lost) | FoldError::Answer) => return Err(ClientError::UnexpectedAnswer),
        };
        let known = if after == self.start.seq {
            Some(self.start.log_hash)
        } else {
            self.shared.lock().chats.get(&self.chat_id).and_then(|chat| chat.log.hash_at(after))
        };
        let log = match known {
            Some(log_hash) => ChatLog::anchored(fold, Seen { seq: after, log_hash }),
            None => ChatLog::adrift(fold, after),
        };
        Ok(Replay { log, keys })
    }

    fn verify(
        &mut self,
        replay: &mut Replay,
        page: &Page,
        me: &Me,
        result: &mut HistoryPage,
    ) -> Result<(), VerificationFailure> {
        for key in &page.keys {
            replay.keys.offer(key);
        }
        if replay.log.is_adrift()
            && let Some(first) = page.entries.first()
        {
            let digest = first.body.digest(self.chat_id);
            let link = Link { created_at: first.created_at, digest, log_hash: first.log_hash };
            self.links.insert(first.seq, link);
        }
        for entry in &page.entries {
            let taken = replay.log.take(entry, &mut replay.keys, me)?;
            self.report(entry, taken, result);
        }
        let head = replay.log.head();
        if head.seq != page.up_to {
            return Err(VerificationFailure::Gap { expected: page.up_to, found: head.seq });
        }
        let live = self.shared.lock().chats.get(&self.chat_id).and_then(|chat| chat.log.hash_at(head.seq));
        if live.is_some_and(|live| live != head.log_hash) {
            return Err(VerificationFailure::Fork { seq: head.seq });
        }
        let next = head.seq.next();
        if let Some(link) = self.links.get(&next)
            && log_hash(self.chat_id, &head.log_hash, next, link.created_at, &link.digest) != link.log_hash
        {
            return Err(VerificationFailure::LogHash);
        }
        Ok(())
    }

    fn report(&self, entry: &LogEntry, taken: Taken, result: &mut HistoryPage) {
        let alarm =
            |session_id, failure| Alarm { chat_id: Some(self.chat_id), seq: Some(entry.seq), session_id, failure };
        match taken {
            Taken::Message(message) => match message.content {
                Ok(Content::Body(body)) => result.messages.push(Message {
                    chat_id: self.chat_id,
                    seq: entry.seq,
                    created_at: entry.created_at,
                    message_id: message.message_id,
                    sender_id: message.sender_id,
                    sender_session_id: message.sender_session_id,
                    body,
                }),
                Ok(Content::NotForUs | Content::Gone) => {}
                Err(failure) => result.alarms.push(alarm(Some(message.sender_session_id), failure)),
            },
            Taken::Refused(failure) => result.alarms.push(alarm(None, failure)),
            Taken::Duplicate | Taken::Member { .. } | Taken::Session { .. } | Taken::AccountDeleted { .. } => {}
        }
    }
}
