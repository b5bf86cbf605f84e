//! Reads a chat's log page by page, either way, and verifies it as if it came live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::call::expect_reply;
use super::copies::{self, Errand};
use super::coverage::{self, Hope, Judged};
use super::fetch::{FoldError, fold_before};
use super::state::Shared;
use crate::client::body::Body;
use crate::client::chat::log::{ChatLog, Content, MessageTaken, Taken};
use crate::client::chat::read_range::{Look, ReadRange};
use crate::client::chat::received_keys::ReceivedKeys;
use crate::client::coverage::{LockedMessage, Openness};
use crate::client::error::ClientError;
use crate::client::event::{Alarm, Deletion, Message};
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::client::net::wire::CallError;
use crate::protocol::binary::Hash;
use crate::protocol::envelope::{MessageKind, Seen};
use crate::protocol::frame::{Direction, History as HistoryRequest, Page, Reply, Request};
use crate::protocol::ids::{ChatId, KeyId, MessageId, Seq, SessionId, Timestamp};
use crate::protocol::limits::PAGE_ENTRIES_MAX;
use crate::protocol::log::{EntryBody, LogEntry, log_hash};

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
    /// Messages that this session may read and has no key for. Whoever holds the keys has been asked for them; when
    /// they have come ([`Event::KeyCame`](crate::client::Event::KeyCame)), read the page again.
    pub locked: u64,
    /// Which these are, and why.
    pub locked_messages: Vec<LockedMessage>,
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
    /// Entries below the start whose hashes are proven, from the start backwards.
    proven: BTreeMap<Seq, Link>,
    /// The entries of the newest page.
    judged: Vec<(Seq, Judged)>,
    /// What is to be hoped for of keys that have not come.
    hopes: BTreeMap<KeyId, Hope>,
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
        let (links, proven, range) = (BTreeMap::new(), BTreeMap::new(), ReadRange::default());
        let (judged, hopes) = (Vec::new(), BTreeMap::new());
        Ok(Self { shared, chat_id, start, replay: None, links, proven, range, judged, hopes })
    }

    /// The seq after which this session's own log begins: reading from here on is verified without a gap. What is
    /// below, under a shared history or on a new device, is verified backwards from here.
    #[must_use]
    pub const fn start(&self) -> Seq {
        self.start.seq
    }

    /// The seq after which this user may read. What lies between it and [`History::start`] is proven backwards before it
    /// is shown, which takes reading it twice.
    #[must_use]
    pub fn first(&self) -> Seq {
        let state = self.shared.lock();
        let members = state.chats.get(&self.chat_id).map(|chat| &chat.log.fold().membership().members);
        let member = members.and_then(|members| members.get(&state.account.me.user_id));
        let before =
            member.map_or(self.start.seq, |member| Seq::saturating(member.readable_from.get().saturating_sub(1)));
        before.min(self.start.seq)
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
            locked: 0,
            locked_messages: Vec::new(),
            after,
            up_to,
            more,
        };
        self.judged.clear();
        self.range.cover(after, up_to);
        if page.entries.is_empty() {
            self.judge_withheld(direction, &mut result);
            return Ok(result);
        }
        self.prove(up_to).await?;
        let me = self.shared.lock().account.me.clone();
        let mut replay = match self.replay.take() {
            Some(replay) if replay.log.head().seq == after && !replay.log.is_adrift() => replay,
            _ => self.replay_from(after, &page).await?,
        };
        self.offer(&mut replay, &page);
        let verified = self.verify(&mut replay, &page, &me, &mut result);
        self.see_to_keys(&mut replay, &page, &me, &mut result);
        self.replay = Some(replay);
        if let Err(failure) = verified {
            self.replay = None;
            self.shared.alarm(Some(self.chat_id), None, failure);
            return Err(ClientError::Verification(failure));
        }
        self.judge_withheld(direction, &mut result);
        // Rare, and large beside what each page needs.
        Box::pin(self.say_why(&mut result)).await;
        Ok(result)
    }

    /// Takes out how the entries of the newest page were found.
    pub(super) fn take_judged(&mut self) -> Vec<(Seq, Judged)> {
        std::mem::take(&mut self.judged)
    }

    /// Takes the keys of a page, and what was recovered of those that the server has no copy of.
    fn offer(&self, replay: &mut Replay, page: &Page) {
        let state = self.shared.lock();
        let chat = state.chats.get(&self.chat_id);
        for key in &page.keys {
            let key_id = key.announcement.announcement.key_id;
            let known = chat.filter(|_| key.key.is_none()).and_then(|chat| chat.keys.known(key_id));
            if let Some(secret) = known {
                replay.keys.give(key_id, secret);
            }
            replay.keys.offer(key);
        }
    }

    /// Says of messages that cannot be opened whether there is hope.
    async fn say_why(&mut self, result: &mut HistoryPage) {
        let unknown = |message: &LockedMessage| (!self.hopes.contains_key(&message.key_id)).then_some(message.key_id);
        let unknown: BTreeSet<KeyId> = result.locked_messages.iter().filter_map(unknown).collect();
        match coverage::hopes(&self.shared, self.chat_id, &unknown).await {
            Ok(hopes) => self.hopes.extend(hopes),
            Err(error) => tracing::debug!(%error, "why keys have not come is not known"),
        }
        for message in &mut result.locked_messages {
            message.why = self.hopes.get(&message.key_id).map_or(Openness::NoCopyYet, |hope| hope.openness());
        }
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
        let folded = match fold_before(&self.shared, &wire, self.chat_id, after.next()).await {
            Ok(folded) => folded,
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
            Some(log_hash) => ChatLog::anchored(folded, Seen { seq: after, log_hash }),
            None => ChatLog::adrift(folded, after),
        };
        Ok(Replay { log, keys })
    }

    /// Proves the hash of the entry after a place below the start, backwards from the start's own hash.
    async fn prove(&mut self, up_to: Seq) -> Result<(), ClientError> {
        let wanted = up_to.next();
        while wanted <= self.start.seq && !self.proven.contains_key(&wanted) {
            let above = self.proven.range(wanted..).next().map(|(seq, link)| (*seq, link.log_hash));
            let (seq, log_hash) = above.unwrap_or((self.start.seq, self.start.log_hash));
            let count = seq.get().saturating_sub(up_to.get()).min(u64::from(PAGE_ENTRIES_MAX));
            let limit = u32::try_from(count).unwrap_or(PAGE_ENTRIES_MAX);
            let request =
                HistoryRequest { chat_id: self.chat_id, direction: Direction::Before, seq: seq.next(), limit };
            let page = expect_reply!(self.shared.call(Request::History(request)).await??, Page)?;
            let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) else {
                return Err(ClientError::UnexpectedAnswer);
            };
            let is_chained = self.is_chained(&page.entries);
            if last.seq != seq || !is_chained || last.log_hash != log_hash {
                let failure = VerificationFailure::LogHash;
                self.shared.alarm(Some(self.chat_id), Some(last.seq), failure);
                return Err(ClientError::Verification(failure));
            }
            if above.is_some() && first.seq >= seq {
                return Err(ClientError::UnexpectedAnswer);
            }
            self.proven.insert(first.seq, self.link(first));
        }
        Ok(())
    }

    /// Whether each entry's hash follows from the one before.
    fn is_chained(&self, entries: &[LogEntry]) -> bool {
        entries.iter().zip(entries.iter().skip(1)).all(|(before, entry)| {
            let digest = entry.body.digest(self.chat_id);
            let expected = log_hash(self.chat_id, &before.log_hash, entry.seq, entry.created_at, &digest);
            entry.seq == before.seq.next() && entry.log_hash == expected
        })
    }

    fn link(&self, entry: &LogEntry) -> Link {
        Link { created_at: entry.created_at, digest: entry.body.digest(self.chat_id), log_hash: entry.log_hash }
    }

    /// Asks for the keys of messages that may be read and cannot be opened, and refuses copies that are bad.
    fn see_to_keys(&self, replay: &mut Replay, page: &Page, me: &Me, result: &mut HistoryPage) {
        let refusals = replay.keys.take_refusals(me);
        {
            let mut state = self.shared.lock();
            let Some(chat) = state.chats.get(&self.chat_id) else { return };
            let membership = chat.log.fold().membership();
            let readable_from = membership.members.get(&me.user_id).map(|member| member.readable_from);
            let Some(readable_from) = readable_from else { return };
            let mut lacking = BTreeSet::new();
            for entry in page.entries.iter().filter(|entry| entry.seq >= readable_from) {
                let EntryBody::Message(envelope) = &entry.body else { continue };
                let locked = envelope.key_id.filter(|key_id| envelope.data.is_some() && !replay.keys.has_copy(*key_id));
                if let Some(key_id) = locked {
                    result.locked += 1;
                    result.locked_messages.push(LockedMessage {
                        seq: entry.seq,
                        created_at: entry.created_at,
                        sender_id: envelope.sender_id,
                        sender_session_id: envelope.sender_session_id,
                        key_id,
                        why: Openness::NoCopyYet,
                    });
                    lacking.insert(key_id);
                }
            }
            state.lack(self.chat_id, lacking);
            for refusal in refusals {
                state.errands.push(Errand::Refuse { chat_id: self.chat_id, refusal });
            }
        }
        copies::start(&self.shared);
    }

    fn verify(
        &mut self,
        replay: &mut Replay,
        page: &Page,
        me: &Me,
        result: &mut HistoryPage,
    ) -> Result<(), VerificationFailure> {
        if replay.log.is_adrift()
            && let Some(first) = page.entries.first()
        {
            self.links.insert(first.seq, self.link(first));
        }
        let mut messages = Vec::new();
        for entry in &page.entries {
            let taken = replay.log.take(entry, &mut replay.keys, me)?;
            if entry.seq == self.start.seq && entry.log_hash != self.start.log_hash {
                return Err(VerificationFailure::Fork { seq: entry.seq });
            }
            self.judged.push((entry.seq, judged(entry, &taken)));
            match taken {
                Taken::Message(message) => {
                    self.range.take(entry.seq, &message);
                    messages.push((entry, message));
                }
                Taken::Refused(failure) => result.alarms.push(self.alarm(entry.seq, None, failure)),
                _ => {}
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
        let is_below = head.seq < self.start.seq;
        if is_below && !self.proven.contains_key(&next) {
            return Err(VerificationFailure::LogHash);
        }
        if let Some(link) = if is_below { self.proven.get(&next) } else { self.links.get(&next) }
            && log_hash(self.chat_id, &head.log_hash, next, link.created_at, &link.digest) != link.log_hash
        {
            return Err(VerificationFailure::LogHash);
        }
        if let Some(first) = page.entries.first().filter(|first| first.seq <= self.start.seq) {
            // The page is proven as a whole, so what is before it can be compared with its first entry.
            self.proven.insert(first.seq, self.link(first));
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
                revision: taken.revision,
                user_id: taken.sender_id,
                session_id: taken.sender_session_id,
                by_manager: taken.by_manager,
            }),
            (MessageKind::Edit, _) => {}
        }
    }
}

/// How an entry was found.
const fn judged(entry: &LogEntry, taken: &Taken) -> Judged {
    let (Taken::Message(message), EntryBody::Message(envelope)) = (taken, &entry.body) else {
        return if matches!(taken, Taken::Refused(_)) { Judged::Refused } else { Judged::Open };
    };
    match (&message.content, envelope.key_id) {
        (Ok(Content::Body(_) | Content::Deleted), _) => Judged::Open,
        (Ok(Content::Purged), _) => Judged::Purged,
        (Ok(Content::NotForUs) | Err(VerificationFailure::NoCopy), Some(key_id)) => Judged::Locked(key_id),
        _ => Judged::Refused,
    }
}
