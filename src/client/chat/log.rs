//! Follows a chat's log entry by entry and judges each: chain, fold, signatures, keys.
//!
//! What the server shows is believed only as far as it verifies here. An entry that does not verify keeps its
//! place in the chain, changes nothing and stops nobody; only a broken chain stops the chat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::generations::{Folded, Generations};
use super::messages::Messages;
use super::received_keys::{ReceivedKeys, Use};
use super::recent::Recent;
use crate::client::body::Body;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::crypto::{Secret, message};
use crate::protocol::binary::{Blob, Hash, SigningKey};
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::fold::{ChatFold, FoldError};
use crate::protocol::group_key::{Generation, GenerationRefusal, UserKeyEntry};
use crate::protocol::ids::{
    ChatId, Counter, Epoch, GenerationNo, KeyId, MessageId, Revision, Seq, SessionId, UserId, UserKeyId,
};
use crate::protocol::log::{EntryBody, LogEntry, SessionOut, log_hash, log_start};
use crate::protocol::membership::Change;
use crate::protocol::verify::Verifier;

/// A verified place in a chat's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChatLog {
    fold: ChatFold,
    recent: Recent,
    /// Where this log begins for this session.
    start: Seen,
    /// Keys of this epoch and older may have been used before the start.
    start_epoch: Epoch,
    /// The newest entry that each session named as seen: in messages that use counters, and in changes of members.
    /// Each of these follow one another as their session makes them; between them the network may reorder.
    seen: BTreeMap<SessionId, Seen>,
    #[serde(default)]
    seen_in_changes: BTreeMap<SessionId, Seen>,
    /// Sessions that were recipients and are no longer: what they wrapped before stays theirs.
    departed: BTreeMap<SessionId, SigningKey>,
    /// Sessions that were recipients before this log began: for what they signed that is still shown.
    #[serde(default)]
    before_start: BTreeMap<SessionId, SigningKey>,
    /// What edits and deletions are judged by.
    #[serde(default)]
    messages: Messages,
    /// What group keys are checked against.
    #[serde(default)]
    generations: Generations,
    /// The roster hash of a roster version.
    #[serde(skip)]
    roster: Option<(Seq, Hash)>,
    /// The hash before the next entry is not known: that entry's own hash is believed for now.
    #[serde(skip)]
    is_adrift: bool,
}

/// What an entry turned out to be.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Known already.
    Duplicate,
    /// A message, good or refused.
    Message(MessageTaken),
    /// A change of members that is now folded; its maker may have been shown another log.
    Member { actor: UserId, target: UserId, change: Change, fork: Option<VerificationFailure> },
    /// A change of sessions that is now folded.
    Session { user_id: UserId, session_id: SessionId, is_in: bool },
    /// A recipient has a later certificate, perhaps with another X25519 key, which is now folded.
    Renewed,
    /// The end of a member's account, which is now folded.
    AccountDeleted { user_id: UserId, heir: Option<UserId>, is_forced: bool },
    /// A member's user key, or that there is none any more, which is now folded.
    UserKey { user_id: UserId, before: Option<UserKeyId>, now: Option<UserKeyId> },
    /// A new group key, or the refusal of the newest, which is now folded.
    GroupKey { generation: GenerationNo, session_id: SessionId, is_refused: bool },
    /// An entry that does not verify and changed nothing.
    Refused(VerificationFailure),
}

/// A message as it came out.
#[derive(Debug)]
pub(crate) struct MessageTaken {
    pub(crate) kind: MessageKind,
    pub(crate) message_id: MessageId,
    pub(crate) revision: Revision,
    /// The place of the message's first revision, if it is remembered.
    pub(crate) first: Option<Seq>,
    /// Whether the sender may delete what others wrote.
    pub(crate) by_manager: bool,
    pub(crate) sender_id: UserId,
    pub(crate) sender_session_id: SessionId,
    pub(crate) content: Result<Content, VerificationFailure>,
}

/// What a good message carries for this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Body(Body),
    /// This session was no recipient.
    NotForUs,
    /// Nothing any more: the message is deleted.
    Deleted,
    /// The data is gone; a later revision says why.
    Purged,
}

impl ChatLog {
    /// Begins with the `create` of one's own chat.
    pub(crate) fn found(chat_id: ChatId, entry: &LogEntry) -> Result<Self, VerificationFailure> {
        let start = Seen { seq: Seq::default(), log_hash: log_start(chat_id) };
        let digest = entry.body.digest(chat_id);
        let expected = log_hash(chat_id, &start.log_hash, entry.seq, entry.created_at, &digest);
        if entry.seq.get() != 1 || expected != entry.log_hash {
            return Err(VerificationFailure::LogHash);
        }
        let fold = ChatFold::begin(chat_id, &entry.body).map_err(VerificationFailure::Fold)?;
        let folded = Folded { fold, generations: Generations::default(), signers: BTreeMap::new() };
        let mut log = Self::begin(folded, start, Epoch::default());
        log.recent.push(entry.log_hash);
        Ok(log)
    }

    /// Begins with one's own `add`, on the fold of the entries before it.
    ///
    /// The `add` signs roster hash and epoch of its place, so a fold that lacks anything does not take it.
    pub(crate) fn join(mut folded: Folded, entry: &LogEntry) -> Result<Self, VerificationFailure> {
        // Under a shared history the `add` raises no epoch: keys that were in use before go on behind it.
        let epoch_before = folded.fold.epoch();
        folded.fold.apply(entry.seq, entry.created_at, &entry.body).map_err(VerificationFailure::Fold)?;
        let start = Seen { seq: entry.seq, log_hash: entry.log_hash };
        Ok(Self::begin(folded, start, epoch_before))
    }

    /// Begins at a place that is known by other means, on the fold up to and with it.
    pub(crate) fn anchored(folded: Folded, place: Seen) -> Self {
        let epoch = folded.fold.epoch();
        Self::begin(folded, place, epoch)
    }

    /// Begins at a place whose hash is not known, on the fold up to and with it. Whoever reads on must compare
    /// a later hash with one that is known.
    pub(crate) fn adrift(folded: Folded, seq: Seq) -> Self {
        let unknown = Seen { seq, log_hash: Hash([0; Hash::LENGTH]) };
        Self { is_adrift: true, ..Self::anchored(folded, unknown) }
    }

    fn begin(Folded { fold, generations, signers }: Folded, start: Seen, start_epoch: Epoch) -> Self {
        Self {
            fold,
            recent: Recent::begin(start),
            start,
            start_epoch,
            seen: BTreeMap::new(),
            seen_in_changes: BTreeMap::new(),
            departed: BTreeMap::new(),
            before_start: signers,
            messages: Messages::default(),
            generations,
            roster: None,
            is_adrift: false,
        }
    }

    /// Whether the hash of the head is not known.
    pub(crate) const fn is_adrift(&self) -> bool {
        self.is_adrift
    }

    pub(crate) const fn fold(&self) -> &ChatFold {
        &self.fold
    }

    /// The newest entry taken.
    pub(crate) const fn head(&self) -> Seen {
        self.recent.head()
    }

    /// Every generation of the chat's group key that verified.
    pub(crate) const fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Where this log begins for this session.
    pub(crate) const fn start(&self) -> Seen {
        self.start
    }

    /// The log's hash at a place, while it is kept.
    pub(crate) fn hash_at(&self, seq: Seq) -> Option<Hash> {
        self.recent.get(seq)
    }

    /// What is remembered of the newest messages.
    pub(crate) const fn messages(&self) -> &Messages {
        &self.messages
    }

    /// Places whose data is gone though nothing in the log says why; see [`Messages::withheld`].
    pub(crate) fn withheld(&mut self, up_to: Seq) -> Vec<Seq> {
        self.messages.withheld(up_to)
    }

    /// The fold's roster hash.
    pub(crate) fn roster_hash(&mut self) -> Hash {
        let version = self.fold.roster_version();
        if let Some((known, hash)) = self.roster
            && known == version
        {
            return hash;
        }
        let hash = self.fold.roster_hash();
        self.roster = Some((version, hash));
        hash
    }

    /// What a session signs with, if it is or was a recipient since this log began.
    pub(crate) fn signing_key(&self, session_id: SessionId) -> Option<SigningKey> {
        let present = self.fold.recipients().get(&session_id).map(|recipient| recipient.signing_public_key);
        present.or_else(|| self.departed.get(&session_id).copied())
    }

    /// The same, also of a session that had left before this log began.
    pub(crate) fn signing_key_ever(&self, session_id: SessionId) -> Option<SigningKey> {
        self.signing_key(session_id).or_else(|| self.before_start.get(&session_id).copied())
    }

    /// The key that this entry needs and this session should have a copy of.
    pub(crate) fn needs_key(&self, entry: &LogEntry, me: &Me) -> Option<KeyId> {
        let EntryBody::Message(envelope) = &entry.body else { return None };
        if entry.seq != self.head().seq.next() {
            return None;
        }
        let is_recipient = self.fold.recipients().contains_key(&me.session_id);
        envelope.key_id.filter(|_| is_recipient && envelope.data.is_some())
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// A failure that breaks the chain; then nothing has changed and the log must be shown again.
    pub(crate) fn take(
        &mut self,
        entry: &LogEntry,
        keys: &mut ReceivedKeys,
        me: &Me,
    ) -> Result<Taken, VerificationFailure> {
        let head = self.head();
        if entry.seq <= head.seq {
            return Ok(Taken::Duplicate);
        }
        if entry.seq != head.seq.next() {
            return Err(VerificationFailure::Gap { expected: head.seq.next(), found: entry.seq });
        }
        let chat_id = self.fold.chat_id();
        let digest = entry.body.digest(chat_id);
        let expected = log_hash(chat_id, &head.log_hash, entry.seq, entry.created_at, &digest);
        if !self.is_adrift && expected != entry.log_hash {
            return Err(VerificationFailure::LogHash);
        }
        let taken = match &entry.body {
            EntryBody::Message(envelope) => Taken::Message(self.take_message(entry.seq, envelope, keys, me)),
            body => self.take_event(entry, body),
        };
        if self.is_adrift {
            self.is_adrift = false;
            self.recent = Recent::begin(Seen { seq: entry.seq, log_hash: entry.log_hash });
        } else {
            self.recent.push(entry.log_hash);
        }
        Ok(taken)
    }

    fn take_event(&mut self, entry: &LogEntry, body: &EntryBody) -> Taken {
        let leaving: Vec<(SessionId, SigningKey)> = match body {
            EntryBody::SessionOut(out) => self.leaving(|session_id, _| session_id == out.session_id()),
            EntryBody::Membership(signed) if matches!(signed.change.change, Change::Remove | Change::Leave) => {
                self.leaving(|_, user_id| user_id == signed.change.target.user_id)
            }
            EntryBody::AccountDeleted(signed) => self.leaving(|_, user_id| user_id == signed.deletion.user_id),
            EntryBody::AccountRemoved { user_id: gone } => self.leaving(|_, user_id| user_id == *gone),
            _ => Vec::new(),
        };
        let was_in = |session_id| self.fold.recipients().contains_key(&session_id);
        let is_renewal = matches!(body, EntryBody::SessionIn(signed) if was_in(signed.certificate.session_id));
        let owner_before = self.fold.membership().owner_id;
        let key_before = match body {
            EntryBody::UserKey(entry) => self.fold.member_keys().get(&entry.user_id()).map(|key| key.key_id),
            _ => None,
        };
        if let Err(error) = self.fold.apply(entry.seq, entry.created_at, body) {
            return Taken::Refused(VerificationFailure::Fold(error));
        }
        self.departed.extend(leaving);
        match body {
            EntryBody::Membership(signed) => Taken::Member {
                actor: signed.change.actor.user_id,
                target: signed.change.target.user_id,
                change: signed.change.change.clone(),
                fork: self.follow(entry.seq, signed.change.actor.session_id, &signed.change.seen, Kind::Change).err(),
            },
            EntryBody::SessionIn(_) if is_renewal => Taken::Renewed,
            EntryBody::SessionIn(signed) => Taken::Session {
                user_id: signed.certificate.user_id,
                session_id: signed.certificate.session_id,
                is_in: true,
            },
            EntryBody::SessionOut(out) => Taken::Session {
                user_id: match out {
                    SessionOut::Revoked(signed) => signed.revocation.user_id,
                    SessionOut::Expired { user_id, .. } => *user_id,
                },
                session_id: out.session_id(),
                is_in: false,
            },
            EntryBody::AccountDeleted(signed) => Taken::AccountDeleted {
                user_id: signed.deletion.user_id,
                heir: self.heir(owner_before),
                is_forced: false,
            },
            EntryBody::AccountRemoved { user_id } => {
                Taken::AccountDeleted { user_id: *user_id, heir: self.heir(owner_before), is_forced: true }
            }
            EntryBody::UserKey(entry) => Taken::UserKey {
                user_id: entry.user_id(),
                before: key_before,
                now: match entry {
                    UserKeyEntry::Set(key) => Some(key.key_id),
                    UserKeyEntry::Withdrawn(_) => None,
                },
            },
            EntryBody::Generation(signed) => {
                self.generations.note(entry.seq, &signed.generation);
                let Generation { number, session_id, .. } = signed.generation;
                Taken::GroupKey { generation: number, session_id, is_refused: false }
            }
            EntryBody::GenerationRefused(signed) => {
                let GenerationRefusal { number, session_id } = signed.refusal;
                Taken::GroupKey { generation: number, session_id, is_refused: true }
            }
            EntryBody::Message(_) => Taken::Refused(VerificationFailure::Fold(FoldError::NotFounded)),
        }
    }

    /// Who owns the chat now, if that is another than before.
    fn heir(&self, owner_before: UserId) -> Option<UserId> {
        let owner_id = self.fold.membership().owner_id;
        (owner_id != owner_before).then_some(owner_id)
    }

    fn leaving(&self, is_leaving: impl Fn(SessionId, UserId) -> bool) -> Vec<(SessionId, SigningKey)> {
        let recipients = self.fold.recipients().iter();
        let leaving = recipients.filter(|(session_id, recipient)| is_leaving(**session_id, recipient.user_id));
        leaving.map(|(session_id, recipient)| (*session_id, recipient.signing_public_key)).collect()
    }

    fn take_message(&mut self, seq: Seq, envelope: &Envelope, keys: &mut ReceivedKeys, me: &Me) -> MessageTaken {
        let member = self.fold.membership().members.get(&envelope.sender_id);
        let by_manager = member.is_some_and(|member| member.can_manage);
        let content = self.judge_message(seq, envelope, keys, me, by_manager);
        MessageTaken {
            kind: envelope.kind,
            message_id: envelope.message_id,
            revision: envelope.revision,
            first: self.messages.place_of(envelope.message_id),
            by_manager,
            sender_id: envelope.sender_id,
            sender_session_id: envelope.sender_session_id,
            content,
        }
    }

    fn judge_message(
        &mut self,
        seq: Seq,
        envelope: &Envelope,
        keys: &mut ReceivedKeys,
        me: &Me,
        by_manager: bool,
    ) -> Result<Content, VerificationFailure> {
        let chat_id = self.fold.chat_id();
        let sender = envelope.sender_session_id;
        let session = self.fold.recipients().get(&sender).filter(|session| session.user_id == envelope.sender_id);
        let Some(session) = session else { return Err(VerificationFailure::GhostSender) };
        let signing_key = session.signing_public_key;
        let used = envelope.key_id.map(|key_id| Use {
            chat_id,
            key_id,
            seq,
            sender,
            signing_key,
            counter: envelope.counter,
            epoch: self.fold.epoch(),
            may_have_begun_before: self.fold.epoch() <= self.start_epoch,
        });
        // The server took the counter whatever else is wrong, so it is taken here first.
        let judged = used.as_ref().map_or(Ok(()), |used| keys.judge(used));
        if !signing_key.verifies(&envelope.signed_bytes(chat_id), &envelope.signature) {
            return Err(VerificationFailure::Signature);
        }
        let can_write = self.fold.membership().members.get(&envelope.sender_id).is_some_and(|member| member.can_write);
        if envelope.kind != MessageKind::Delete && !can_write {
            return Err(VerificationFailure::CannotWrite);
        }
        check_shape(envelope)?;
        self.messages.take(seq, envelope, by_manager)?;
        if envelope.roster_hash != self.roster_hash() {
            return Err(VerificationFailure::RosterHash);
        }
        judged?;
        let kind = if used.is_some() { Kind::Message } else { Kind::Loose };
        self.follow(seq, sender, &envelope.seen, kind)?;
        self.messages.verified(seq, envelope);
        let Some(used) = used else { return Ok(Content::Deleted) };
        let Some(data) = &envelope.data else { return Ok(Content::Purged) };
        // Who was no recipient then may have been given the key since: a new device, or a newcomer who may read this.
        let is_for_us = self.fold.recipients().contains_key(&me.session_id);
        let secret = match keys.secret(chat_id, used.key_id, me) {
            Err(VerificationFailure::NoCopy) if !is_for_us => return Ok(Content::NotForUs),
            secret => secret?,
        };
        open(chat_id, envelope, &secret, data)
    }

    /// Compares what a signer saw with what was seen here, and with what the same session said before: it never goes
    /// back.
    fn follow(&mut self, seq: Seq, session_id: SessionId, seen: &Seen, kind: Kind) -> Result<(), VerificationFailure> {
        self.compare(seq, seen)?;
        let newest = match kind {
            Kind::Message => &mut self.seen,
            Kind::Change => &mut self.seen_in_changes,
            Kind::Loose => return Ok(()),
        };
        // The highest stays: one that goes back must not make room for the next.
        let newest = newest.entry(session_id).or_insert(*seen);
        if seen.seq < newest.seq || seen.seq == newest.seq && seen.log_hash != newest.log_hash {
            return Err(VerificationFailure::Fork { seq: seen.seq });
        }
        *newest = *seen;
        Ok(())
    }

    /// Compares what a signer saw with what was seen here.
    fn compare(&self, seq: Seq, seen: &Seen) -> Result<(), VerificationFailure> {
        let is_start = seen.seq == Seq::default();
        let is_unknown = self.is_adrift && seen.seq == self.head().seq;
        let known = if is_start { Some(log_start(self.fold.chat_id())) } else { self.hash_at(seen.seq) };
        let known = known.filter(|_| !is_unknown);
        if seen.seq >= seq || known.is_some_and(|known| known != seen.log_hash) {
            return Err(VerificationFailure::Fork { seq: seen.seq });
        }
        Ok(())
    }
}

/// Checks that a message is the first revision, that an edit or deletion is a later one, and that a deletion alone
/// has neither key nor data: what the server checks too.
fn check_shape(envelope: &Envelope) -> Result<(), VerificationFailure> {
    let is_first = envelope.revision == Revision::default();
    let is_deletion = envelope.kind == MessageKind::Delete;
    let is_bare = envelope.key_id.is_none() && envelope.counter == Counter::default() && envelope.data.is_none();
    let fits = is_first == (envelope.kind == MessageKind::Message)
        && is_deletion == envelope.key_id.is_none()
        && (!is_deletion || is_bare && envelope.purged.is_none());
    if fits { Ok(()) } else { Err(VerificationFailure::Shape) }
}

/// What names an entry as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message that uses a counter: those of a session commit in the order in which it made them.
    Message,
    /// A change of members: each is made on the one before.
    Change,
    /// What may overtake others on its way: only compared with one's own chain.
    Loose,
}

/// Opens a message that was judged, with the secret of its key.
pub(crate) fn open(
    chat_id: ChatId,
    envelope: &Envelope,
    secret: &Secret,
    data: &Blob,
) -> Result<Content, VerificationFailure> {
    let place = message::Place::of(chat_id, envelope).ok_or(VerificationFailure::Shape)?;
    let body = message::open(secret, &place, data.as_ref()).map_err(|_| VerificationFailure::Undecryptable)?;
    Ok(Content::Body(Body::from_bytes(&body)))
}
