//! Reads a chat's log page by page, either way, and verifies it as if it came live.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::call::expect_reply;
use super::fetch::{FoldError, fold_before};
use super::state::Shared;
use crate::client::body::Body;
use crate::client::chat::log::{ChatLog, Content, MessageTaken, Taken};
use crate::client::chat::read_range::{Look, ReadRange};
use crate::client::chat::received_keys::ReceivedKeys;
use crate::client::error::ClientError;
use crate::client::event::{Alarm, Deletion, Message};
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::client::net::wire::CallError;
use crate::protocol::binary::Hash;
use crate::protocol::envelope::{MessageKind, Seen};
use crate::protocol::frame::{Direction, History as HistoryRequest, Page, Reply, Request};
use crate::protocol::ids::{ChatId, MessageId, Seq, SessionId, Timestamp};
use crate::protocol::limits::PAGE_ENTRIES_MAX;
use crate::protocol::log::{LogEntry, log_hash};

/// A page of what this session may read.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Messages that verified and were for this session, in order. Each is at the place of its first revision,
    /// once, and says what the newest revision says of all that this reader has read in one piece; what is
    /// deleted by then is left out.
    pub messages: Vec<Message>,
    /// Messages of this page that were edited or deleted further on than this reader has read.
    pub changed_later: Vec<MessageId>,
    /// Edits in this page of messages whose place is on another page: for who reads forwards they replace what
    /// was read before, for who reads backwards the message comes with this text. Seq and time are the edit's;
    /// who shows one compares its sender with the message's.
    pub edits: Vec<Message>,
    /// Deletions in this page.
    pub deletions: Vec<Deletion>,
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
    range: ReadRange,
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
        Ok(Self { shared, chat_id, start, replay: None, links: BTreeMap::new(), range: ReadRange::default() })
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
        let mut result = HistoryPage {
            messages: Vec::new(),
            changed_later: Vec::new(),
            edits: Vec::new(),
            deletions: Vec::new(),
            alarms: Vec::new(),
            after,
            up_to,
            more,
        };
        self.range.cover(after, up_to);
        if page.entries.is_empty() {
            self.judge_withheld(direction, &mut result);
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
        self.judge_withheld(direction, &mut result);
        Ok(result)
    }

    /// At the end of the log nothing can follow any more that says why data is gone.
    fn judge_withheld(&mut self, direction: Direction, result: &mut HistoryPage) {
        if direction == Direction::After && !result.more {
            let withheld = self.range.withheld();
            result.alarms.extend(withheld.into_iter().map(|seq| self.alarm(seq, None, VerificationFailure::Withheld)));
        }
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
        let mut messages = Vec::new();
        for entry in &page.entries {
            match replay.log.take(entry, &mut replay.keys, me)? {
                Taken::Message(message) => {
                    self.range.take(entry.seq, &message);
                    messages.push((entry, message));
                }
                Taken::Refused(failure) => result.alarms.push(self.alarm(entry.seq, None, failure)),
                Taken::Duplicate | Taken::Member { .. } | Taken::Session { .. } | Taken::AccountDeleted { .. } => {}
            }
        }
        for (entry, message) in messages {
            self.report(entry, message, page, result);
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

    const fn alarm(&self, seq: Seq, session_id: Option<SessionId>, failure: VerificationFailure) -> Alarm {
        Alarm { chat_id: Some(self.chat_id), seq: Some(seq), session_id, failure }
    }

    fn report(&self, entry: &LogEntry, taken: MessageTaken, page: &Page, result: &mut HistoryPage) {
        let seq = entry.seq;
        let says = |body: Body, revision, sender_session_id| Message {
            chat_id: self.chat_id,
            seq,
            created_at: entry.created_at,
            message_id: taken.message_id,
            revision,
            sender_id: taken.sender_id,
            sender_session_id,
            body,
        };
        let content = match &taken.content {
            Ok(content) => content,
            Err(failure) => {
                return result.alarms.push(self.alarm(seq, Some(taken.sender_session_id), *failure));
            }
        };
        match (taken.kind, content) {
            (MessageKind::Message, _) => match self.range.look(&taken) {
                Look::Says { body, revision, session_id } => result.messages.push(says(body, revision, session_id)),
                Look::ChangedLater => result.changed_later.push(taken.message_id),
                Look::Nothing => {}
                Look::Refused(failure) => result.alarms.push(self.alarm(seq, None, failure)),
            },
            (MessageKind::Edit, Content::Body(body)) if taken.first.is_none_or(|first| first <= page.after) => {
                result.edits.push(says(body.clone(), taken.revision, taken.sender_session_id));
            }
            (MessageKind::Delete, _) => result.deletions.push(Deletion {
                chat_id: self.chat_id,
                seq,
                created_at: entry.created_at,
                message_id: taken.message_id,
                user_id: taken.sender_id,
                session_id: taken.sender_session_id,
                by_manager: taken.by_manager,
            }),
            (MessageKind::Edit, _) => {}
        }
    }
}
