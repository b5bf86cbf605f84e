//! Folds a chat's log into who is in it, who receives, and the epoch.
//!
//! Server and clients use nothing else: a client encrypts only to what it folds itself, never to what a server
//! lists. Roster and epoch at seq s are the fold of the entries before s.
//! Invariants: F1 every recipient is a session of a current member, certified by that member's identity key.
//! F2 the epoch grows with every entry that takes a recipient away, with `rekey` and `set_history`, and with every
//! `add` unless the newcomer may read what was before. F3 an entry that does not verify changes nothing. F4 the recovery
//! key is a recipient exactly while a generation is current that was made for the members and user keys of now.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::binary::{ExchangeKey, Hash, Signature, SigningKey};
use super::canonical::{Canonical, label};
use super::certificate::{Revoker, SignedCertificate, SignedDeletion, SignedRevocation};
use super::group_key::{
    RecoveryKey, SignedGeneration, SignedGenerationRefusal, SignedWithdrawal, UserKeyEntry, member_keys_hash,
};
use super::ids::{ChatId, Epoch, GenerationNo, Place, Seq, SessionId, Timestamp, UserId, UserKeyId};
use super::limits::MEMBER_KEYS_MAX;
use super::log::{EntryBody, SessionOut};
use super::membership::{Change, HistoryPolicy, Membership, MembershipError, SignedChange};
use super::strongbox::PublicUserKey;
use super::verify::Verifier;

/// A session that receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Its user.
    pub user_id: UserId,
    /// Where copies are wrapped to.
    pub public_key: ExchangeKey,
    /// What it signs with.
    pub signing_public_key: SigningKey,
    /// The place of its certificate in its user's chain.
    pub place: Place,
    /// When it expires.
    pub expired_at: Timestamp,
}

/// What a chat's log says up to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatFold {
    chat_id: ChatId,
    membership: Membership,
    /// The first change, until its session's certificate follows and lets its signature be checked.
    founding: Option<SignedChange>,
    recipients: BTreeMap<SessionId, Recipient>,
    departed: BTreeMap<SessionId, Departed>,
    /// The keys of those that went out and have not come back; absent in folds of before.
    #[serde(default)]
    former: BTreeMap<SessionId, Former>,
    epoch: Epoch,
    roster_version: Seq,
    /// The members' user keys.
    #[serde(default)]
    member_keys: BTreeMap<UserId, PublicUserKey>,
    /// User keys that were replaced or withdrawn: none returns, or a thief of it could be let in again.
    #[serde(default)]
    retired_keys: BTreeSet<UserKeyId>,
    #[serde(default)]
    generation: Option<Current>,
    /// Whether something happened since the newest generation after which there must be another.
    #[serde(default)]
    is_outdated: bool,
}

/// The newest generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Current {
    key: RecoveryKey,
    maker: SessionId,
}

/// A session that a `session_out` took away, and what its return would need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Departed {
    /// It never returns.
    Revoked,
    /// It returns with a certificate from after this place of its user's chain.
    Expired(Place),
}

/// The keys with which a session went out, and its user, who is absent in folds of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Former(ExchangeKey, SigningKey, #[serde(default)] Option<UserId>);

impl ChatFold {
    /// Begins with the first entry of a log.
    ///
    /// # Errors
    /// [`FoldError`] unless it is a `create`.
    pub fn begin(chat_id: ChatId, body: &EntryBody) -> Result<Self, FoldError> {
        let EntryBody::Membership(first) = body else { return Err(FoldError::NotFounded) };
        Ok(Self {
            chat_id,
            membership: Membership::create(chat_id, first)?,
            founding: Some(first.clone()),
            recipients: BTreeMap::new(),
            departed: BTreeMap::new(),
            former: BTreeMap::new(),
            epoch: Epoch::saturating(1),
            roster_version: Seq::saturating(1),
            member_keys: BTreeMap::new(),
            retired_keys: BTreeSet::new(),
            generation: None,
            is_outdated: false,
        })
    }

    /// The chat.
    #[must_use]
    pub const fn chat_id(&self) -> ChatId {
        self.chat_id
    }

    /// Who is in it.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Who receives: E(chat).
    #[must_use]
    pub const fn recipients(&self) -> &BTreeMap<SessionId, Recipient> {
        &self.recipients
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The seq of the last entry about who receives: somebody came, went, or was certified anew.
    #[must_use]
    pub const fn roster_version(&self) -> Seq {
        self.roster_version
    }

    /// [`roster_hash`] of the recipients.
    #[must_use]
    pub fn roster_hash(&self) -> Hash {
        let sessions = self.recipients.iter().map(|(session_id, recipient)| (*session_id, recipient.public_key));
        roster_hash(sessions, self.recovery_key().as_ref())
    }

    /// The members' user keys.
    #[must_use]
    pub const fn member_keys(&self) -> &BTreeMap<UserId, PublicUserKey> {
        &self.member_keys
    }

    /// The recovery key that receives beside the sessions; none while no member has a user key, or a generation is due.
    #[must_use]
    pub fn recovery_key(&self) -> Option<RecoveryKey> {
        self.generation.filter(|_| !self.is_outdated).map(|current| current.key)
    }

    /// The generation that must be made before the next message; none if there is none to be made: without user keys,
    /// or with more than [`MEMBER_KEYS_MAX`].
    #[must_use]
    pub fn generation_due(&self) -> Option<GenerationNo> {
        let is_due = self.is_outdated && (1..=MEMBER_KEYS_MAX).contains(&self.member_keys.len());
        is_due.then(|| self.generation.map_or(GenerationNo::default(), |current| current.key.generation).next())
    }

    /// The newest generation's recovery key, current or not.
    #[must_use]
    pub fn newest_generation(&self) -> Option<RecoveryKey> {
        self.generation.map(|current| current.key)
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`FoldError`] says why it does not verify; then nothing has changed (F3).
    pub fn apply(&mut self, seq: Seq, created_at: Timestamp, body: &EntryBody) -> Result<(), FoldError> {
        match body {
            EntryBody::Message(_) => Ok(()),
            EntryBody::Membership(signed) => self.apply_membership(seq, signed),
            EntryBody::SessionIn(signed) => self.apply_session_in(seq, created_at, signed),
            EntryBody::SessionOut(SessionOut::Revoked(signed)) => self.apply_revoked(seq, signed),
            EntryBody::SessionOut(SessionOut::Expired { user_id, session_id }) => {
                self.apply_expired(seq, created_at, *user_id, *session_id)
            }
            EntryBody::AccountDeleted(signed) => self.apply_account_deleted(seq, signed),
            EntryBody::AccountRemoved { user_id } => self.end_account(seq, *user_id),
            EntryBody::UserKey(UserKeyEntry::Set(key)) => self.apply_user_key(seq, key),
            EntryBody::UserKey(UserKeyEntry::Withdrawn(signed)) => self.apply_withdrawn(seq, signed),
            EntryBody::Generation(signed) => self.apply_generation(seq, signed),
            EntryBody::GenerationRefused(signed) => self.apply_generation_refused(seq, signed),
        }
    }

    fn apply_membership(&mut self, seq: Seq, signed: &SignedChange) -> Result<(), FoldError> {
        let actor = &signed.change.actor;
        let session = self.recipients.get(&actor.session_id).filter(|session| session.user_id == actor.user_id);
        let Some(session) = session else { return Err(FoldError::GhostSession) };
        if !session.signing_public_key.verifies(&signed.change.signed_bytes(self.chat_id), &signed.signature) {
            return Err(FoldError::Signature);
        }
        if let Change::Add { roster_hash, epoch, .. } = &signed.change.change
            && (*epoch != self.epoch || *roster_hash != self.roster_hash())
        {
            return Err(FoldError::Anchor);
        }
        let effect = Effect::of_change(&signed.change.change, self.membership.history());
        self.membership.apply(self.chat_id, seq, signed)?;
        if matches!(signed.change.change, Change::Remove | Change::Leave) {
            let gone = signed.change.target.user_id;
            self.recipients.retain(|_, recipient| recipient.user_id != gone);
            // What they held is not theirs any more, so whoever is added again begins with whatever keys they have then.
            self.former.retain(|_, former| former.2 != Some(gone));
            self.member_keys.remove(&gone);
        }
        self.moved(seq, effect);
        Ok(())
    }

    fn apply_user_key(&mut self, seq: Seq, key: &PublicUserKey) -> Result<(), FoldError> {
        let Some(member) = self.membership.members.get(&key.user_id) else { return Err(FoldError::GhostMember) };
        if !key.verifies(&member.identity_key) {
            return Err(FoldError::Signature);
        }
        if self.retired_keys.contains(&key.key_id) {
            return Err(FoldError::Over);
        }
        if self.member_keys.get(&key.user_id).is_some_and(|present| present.key_id == key.key_id) {
            return Err(FoldError::AlreadyIn);
        }
        let replaced = self.member_keys.insert(key.user_id, *key);
        self.retired_keys.extend(replaced.map(|replaced| replaced.key_id));
        self.moved(seq, Effect::of_user_key(replaced.is_some()));
        Ok(())
    }

    fn apply_withdrawn(&mut self, seq: Seq, signed: &SignedWithdrawal) -> Result<(), FoldError> {
        let withdrawal = &signed.withdrawal;
        let user_id = withdrawal.user_id;
        self.check_revoker(user_id, withdrawal.revoker, &withdrawal.signed_bytes(), &signed.signature)?;
        if self.member_keys.get(&user_id).is_none_or(|present| present.key_id != withdrawal.key_id) {
            return Err(FoldError::NotIn);
        }
        self.member_keys.remove(&user_id);
        self.retired_keys.insert(withdrawal.key_id);
        self.moved(seq, Effect::of_user_key(true));
        Ok(())
    }

    fn apply_generation(&mut self, seq: Seq, signed: &SignedGeneration) -> Result<(), FoldError> {
        let generation = &signed.generation;
        let Some(maker) = self.recipients.get(&generation.session_id) else { return Err(FoldError::GhostSession) };
        if !signed.verifies(self.chat_id, &maker.signing_public_key) {
            return Err(FoldError::Signature);
        }
        let is_due = self.generation_due() == Some(generation.number)
            && generation.change_no == self.membership.head
            && generation.member_keys_hash == member_keys_hash(self.member_keys.values())
            && generation.public_key.is_sound();
        if !is_due {
            return Err(FoldError::Generation);
        }
        let key = RecoveryKey { generation: generation.number, public_key: generation.public_key };
        self.generation = Some(Current { key, maker: generation.session_id });
        self.is_outdated = false;
        self.moved(seq, Effect::RECIPIENT_GAINED);
        Ok(())
    }

    fn apply_generation_refused(&mut self, seq: Seq, signed: &SignedGenerationRefusal) -> Result<(), FoldError> {
        let refusal = &signed.refusal;
        let Some(session) = self.recipients.get(&refusal.session_id) else { return Err(FoldError::GhostSession) };
        if !session.signing_public_key.verifies(&refusal.signed_bytes(self.chat_id), &signed.signature) {
            return Err(FoldError::Signature);
        }
        if self.recovery_key().is_none_or(|key| key.generation != refusal.number) {
            return Err(FoldError::Generation);
        }
        self.moved(seq, Effect::GENERATION_REFUSED);
        Ok(())
    }

    fn apply_account_deleted(&mut self, seq: Seq, signed: &SignedDeletion) -> Result<(), FoldError> {
        let user_id = signed.deletion.user_id;
        let Some(member) = self.membership.members.get(&user_id) else { return Err(FoldError::GhostMember) };
        if !signed.verifies(&member.identity_key) {
            return Err(FoldError::Signature);
        }
        self.end_account(seq, user_id)
    }

    fn end_account(&mut self, seq: Seq, user_id: UserId) -> Result<(), FoldError> {
        if !self.membership.members.contains_key(&user_id) {
            return Err(FoldError::GhostMember);
        }
        self.membership.delete_account(user_id)?;
        self.recipients.retain(|_, recipient| recipient.user_id != user_id);
        self.member_keys.remove(&user_id);
        self.moved(seq, Effect::MEMBERS_CHANGED);
        Ok(())
    }

    fn apply_session_in(
        &mut self,
        seq: Seq,
        created_at: Timestamp,
        signed: &SignedCertificate,
    ) -> Result<(), FoldError> {
        let certificate = &signed.certificate;
        let Some(member) = self.membership.members.get(&certificate.user_id) else {
            return Err(FoldError::GhostMember);
        };
        if signed.verify(&member.identity_key).is_err() {
            return Err(FoldError::Certificate);
        }
        if let Some(present) = self.recipients.get(&certificate.session_id) {
            // Renewed ahead of its time, perhaps over another X25519 key. Once that is over it goes out first, so that the
            // epoch tells; and nobody goes back to wrapping to a key that was replaced.
            if present.user_id != certificate.user_id || certificate.place <= present.place {
                return Err(FoldError::AlreadyIn);
            }
            if certificate.signing_public_key != present.signing_public_key {
                return Err(FoldError::KeysChanged);
            }
            if created_at >= present.expired_at {
                return Err(FoldError::Over);
            }
        }
        let may_return = match self.departed.get(&certificate.session_id) {
            None => true,
            Some(Departed::Revoked) => false,
            Some(Departed::Expired(place)) => certificate.place > *place,
        };
        if !may_return || certificate.expired_at <= created_at {
            return Err(FoldError::Over);
        }
        let has_its_keys =
            |former: &Former| (former.0, former.1) == (certificate.public_key, certificate.signing_public_key);
        if self.former.get(&certificate.session_id).is_some_and(|former| !has_its_keys(former)) {
            return Err(FoldError::KeysChanged);
        }
        if let Some(first) = &self.founding {
            let is_founder = first.change.actor.session_id == certificate.session_id;
            let bytes = first.change.signed_bytes(self.chat_id);
            if !is_founder || !certificate.signing_public_key.verifies(&bytes, &first.signature) {
                return Err(FoldError::Signature);
            }
            self.founding = None;
        }
        let recipient = Recipient {
            user_id: certificate.user_id,
            public_key: certificate.public_key,
            signing_public_key: certificate.signing_public_key,
            place: certificate.place,
            expired_at: certificate.expired_at,
        };
        self.recipients.insert(certificate.session_id, recipient);
        // Back in, it is renewed as any other.
        self.former.remove(&certificate.session_id);
        self.moved(seq, Effect::RECIPIENT_GAINED);
        Ok(())
    }

    fn apply_revoked(&mut self, seq: Seq, signed: &SignedRevocation) -> Result<(), FoldError> {
        let revocation = &signed.revocation;
        let user_id = revocation.user_id;
        self.check_revoker(user_id, revocation.revoker, &revocation.signed_bytes(), &signed.signature)?;
        self.take_out(seq, user_id, revocation.session_id, Departed::Revoked)
    }

    /// Checks what a user's identity key or a session of theirs says of the user's own.
    fn check_revoker(
        &self,
        user_id: UserId,
        revoker: Revoker,
        bytes: &[u8],
        signature: &Signature,
    ) -> Result<(), FoldError> {
        let Some(member) = self.membership.members.get(&user_id) else { return Err(FoldError::GhostMember) };
        let verifies = match revoker {
            Revoker::Identity => member.identity_key.verifies(bytes, signature),
            Revoker::Session(session_id) => self
                .recipients
                .get(&session_id)
                .filter(|session| session.user_id == user_id)
                .is_some_and(|session| session.signing_public_key.verifies(bytes, signature)),
        };
        if verifies { Ok(()) } else { Err(FoldError::Signature) }
    }

    fn apply_expired(
        &mut self,
        seq: Seq,
        created_at: Timestamp,
        user_id: UserId,
        session_id: SessionId,
    ) -> Result<(), FoldError> {
        let Some(recipient) = self.recipients.get(&session_id) else { return Err(FoldError::NotIn) };
        if created_at < recipient.expired_at {
            return Err(FoldError::NotExpired);
        }
        let departed = Departed::Expired(recipient.place);
        self.take_out(seq, user_id, session_id, departed)
    }

    fn take_out(
        &mut self,
        seq: Seq,
        user_id: UserId,
        session_id: SessionId,
        departed: Departed,
    ) -> Result<(), FoldError> {
        if self.recipients.get(&session_id).is_none_or(|recipient| recipient.user_id != user_id) {
            return Err(FoldError::NotIn);
        }
        if let Some(gone) = self.recipients.remove(&session_id) {
            self.former.insert(session_id, Former(gone.public_key, gone.signing_public_key, Some(user_id)));
        }
        self.departed.insert(session_id, departed);
        let has_made_it = self.generation.is_some_and(|current| current.maker == session_id);
        self.moved(seq, Effect::of_session_out(has_made_it));
        Ok(())
    }

    const fn moved(&mut self, seq: Seq, effect: Effect) {
        if effect.changes_roster {
            self.roster_version = seq;
        }
        if effect.raises_epoch {
            self.epoch = self.epoch.next();
        }
        if effect.outdates_generation {
            self.is_outdated = true;
        }
    }
}

/// What an entry does to roster version and epoch: the same for those who fold and for who writes the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// The recipients are others.
    pub changes_roster: bool,
    /// Sender keys from before are stale.
    pub raises_epoch: bool,
    /// The generation from before is no recipient any more: the next one is due once a member has a user key.
    pub outdates_generation: bool,
}

impl Effect {
    const NONE: Self = Self { changes_roster: false, raises_epoch: false, outdates_generation: false };
    const RECIPIENT_GAINED: Self = Self { changes_roster: true, ..Self::NONE };
    const KEYS_STALE: Self = Self { raises_epoch: true, ..Self::NONE };
    const GENERATION_REFUSED: Self = Self { changes_roster: true, outdates_generation: true, ..Self::NONE };
    const MEMBERS_CHANGED: Self = Self { changes_roster: true, raises_epoch: true, outdates_generation: true };

    /// What an entry does in a chat as it was before the entry.
    #[must_use]
    pub fn of(body: &EntryBody, before: &Before) -> Self {
        match body {
            EntryBody::Message(_) => Self::NONE,
            EntryBody::Membership(signed) => Self::of_change(&signed.change.change, before.history),
            EntryBody::SessionIn(_) | EntryBody::Generation(_) => Self::RECIPIENT_GAINED,
            EntryBody::SessionOut(out) => Self::of_session_out(before.maker == Some(out.session_id())),
            EntryBody::AccountDeleted(_) | EntryBody::AccountRemoved { .. } => Self::MEMBERS_CHANGED,
            EntryBody::UserKey(UserKeyEntry::Set(_)) => Self::of_user_key(before.has_user_key),
            EntryBody::UserKey(UserKeyEntry::Withdrawn(_)) => Self::of_user_key(true),
            EntryBody::GenerationRefused(_) => Self::GENERATION_REFUSED,
        }
    }

    /// Keys from before stay readable by who holds the user key that goes, if one does.
    const fn of_user_key(replaces: bool) -> Self {
        Self { changes_roster: true, raises_epoch: replaces, outdates_generation: true }
    }

    const fn of_session_out(has_made_generation: bool) -> Self {
        Self { changes_roster: true, raises_epoch: true, outdates_generation: has_made_generation }
    }

    const fn of_change(change: &Change, history: HistoryPolicy) -> Self {
        match (change, history) {
            // The newcomer's sessions follow, and are gained one by one.
            (Change::Add { .. }, HistoryPolicy::Shared) => Self { raises_epoch: false, ..Self::MEMBERS_CHANGED },
            (Change::Add { .. }, HistoryPolicy::FromJoin) | (Change::Remove | Change::Leave, _) => {
                Self::MEMBERS_CHANGED
            }
            (Change::Rekey | Change::SetHistory { .. }, _) => Self::KEYS_STALE,
            (Change::Create | Change::SetRights { .. } | Change::Transfer | Change::Delete, _) => Self::NONE,
        }
    }
}

/// What the effect of an entry depends on, as it was before the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// What newcomers may read.
    pub history: HistoryPolicy,
    /// The session that made the newest generation.
    pub maker: Option<SessionId>,
    /// Whether the user of the entry had a user key in the chat.
    pub has_user_key: bool,
}

/// The hash of a set of recipients.
///
/// SHA-256 over label, count, then kind (0: a session), id and X25519 key of each, in order of the id; then of the
/// recovery key, if it is one: kind (1), generation, X25519 key.
///
/// `sessions` come sorted by id, as every map of this crate holds them.
#[must_use]
pub fn roster_hash(
    sessions: impl ExactSizeIterator<Item = (SessionId, ExchangeKey)>,
    recovery: Option<&RecoveryKey>,
) -> Hash {
    let mut bytes = Canonical::new(label::ROSTER).u64(sessions.len() as u64 + u64::from(recovery.is_some()));
    for (session_id, public_key) in sessions {
        bytes = bytes.u64(0).id(session_id.0).bytes(public_key.as_ref());
    }
    if let Some(recovery) = recovery {
        bytes = bytes.u64(1).u64(recovery.generation.get()).bytes(recovery.public_key.as_ref());
    }
    bytes.hash()
}

/// Why an entry does not verify. Whoever shows such an entry is wrong or lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The log does not begin with `create`.
    #[error("the log does not begin with a creation")]
    NotFounded,
    /// A change that the state machine refuses.
    #[error("the membership change is not allowed: {0}")]
    Membership(#[from] MembershipError),
    /// Made by a session that is not in the chat.
    #[error("made by a session that is not a recipient")]
    GhostSession,
    /// A session of somebody who is not a member.
    #[error("the user is not a member")]
    GhostMember,
    /// A signature that is not its maker's.
    #[error("the signature does not verify")]
    Signature,
    /// A certificate that the member's identity key did not make.
    #[error("the certificate does not verify")]
    Certificate,
    /// An `add` whose roster hash or epoch is not the log's.
    #[error("the addition names another roster or epoch than the log's")]
    Anchor,
    /// A session that is in already, by a certificate from no later place.
    #[error("the session is a recipient already")]
    AlreadyIn,
    /// A renewed certificate over another signing key, or of a session that comes back with other keys.
    #[error("the session has other keys than before")]
    KeysChanged,
    /// A session that is not in.
    #[error("the session is not a recipient")]
    NotIn,
    /// A session that was revoked, or whose certificate's time is over.
    #[error("the session was revoked, or its certificate has run out")]
    Over,
    /// A generation that is not the one that is due, or was made for other members or user keys; a refusal of one that
    /// is not current.
    #[error("the generation is not the one that is due")]
    Generation,
    /// An expiry before its time.
    #[error("the session had not expired")]
    NotExpired,
}

#[cfg(test)]
mod tests;
