//! Folds a chat's log into who is in it, who receives, and the epoch.
//!
//! Server and clients use nothing else: a client encrypts only to what it folds itself, never to what a server
//! lists. Roster and epoch at seq s are the fold of the entries before s.
//! Invariants: F1 every recipient is a session of a current member, certified by that member's identity key.
//! F2 the epoch grows with every entry that takes a recipient away, with `rekey` and `set_history`, and with every
//! `add` unless the newcomer may read what was before. F3 an entry that does not verify changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::binary::{ExchangeKey, Hash, SigningKey};
use super::canonical::{Canonical, label};
use super::certificate::{Revoker, SignedCertificate, SignedDeletion, SignedRevocation};
use super::ids::{ChatId, Epoch, Place, Seq, SessionId, Timestamp, UserId};
use super::log::{EntryBody, SessionOut};
use super::membership::{Change, HistoryPolicy, Membership, MembershipError, SignedChange};
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
    epoch: Epoch,
    roster_version: Seq,
}

/// A session that a `session_out` took away, and what its return would need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Departed {
    /// It never returns.
    Revoked,
    /// It returns with a certificate from after this place of its user's chain.
    Expired(Place),
}

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
            epoch: Epoch::saturating(1),
            roster_version: Seq::saturating(1),
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

    /// The seq of the last entry that changed the recipients.
    #[must_use]
    pub const fn roster_version(&self) -> Seq {
        self.roster_version
    }

    /// [`roster_hash`] of the recipients.
    #[must_use]
    pub fn roster_hash(&self) -> Hash {
        roster_hash(self.recipients.iter().map(|(session_id, recipient)| (*session_id, recipient.public_key)))
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
        }
        self.moved(seq, effect);
        Ok(())
    }

    fn apply_account_deleted(&mut self, seq: Seq, signed: &SignedDeletion) -> Result<(), FoldError> {
        let user_id = signed.deletion.user_id;
        let Some(member) = self.membership.members.get(&user_id) else { return Err(FoldError::GhostMember) };
        if !signed.verifies(&member.identity_key) {
            return Err(FoldError::Signature);
        }
        self.membership.delete_account(user_id)?;
        self.recipients.retain(|_, recipient| recipient.user_id != user_id);
        self.moved(seq, Effect::RECIPIENTS_LOST);
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
        if self.recipients.contains_key(&certificate.session_id) {
            return Err(FoldError::AlreadyIn);
        }
        let may_return = match self.departed.get(&certificate.session_id) {
            None => true,
            Some(Departed::Revoked) => false,
            Some(Departed::Expired(place)) => certificate.place > *place,
        };
        if !may_return || certificate.expired_at <= created_at {
            return Err(FoldError::Over);
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
        self.moved(seq, Effect::RECIPIENT_GAINED);
        Ok(())
    }

    fn apply_revoked(&mut self, seq: Seq, signed: &SignedRevocation) -> Result<(), FoldError> {
        let revocation = &signed.revocation;
        let user_id = revocation.user_id;
        let Some(member) = self.membership.members.get(&user_id) else { return Err(FoldError::GhostMember) };
        let bytes = revocation.signed_bytes();
        let verifies = match &revocation.revoker {
            Revoker::Identity => member.identity_key.verifies(&bytes, &signed.signature),
            Revoker::Session(session_id) => self
                .recipients
                .get(session_id)
                .filter(|session| session.user_id == user_id)
                .is_some_and(|session| session.signing_public_key.verifies(&bytes, &signed.signature)),
        };
        if !verifies {
            return Err(FoldError::Signature);
        }
        self.take_out(seq, user_id, revocation.session_id, Departed::Revoked)
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
        self.recipients.remove(&session_id);
        self.departed.insert(session_id, departed);
        self.moved(seq, Effect::RECIPIENTS_LOST);
        Ok(())
    }

    const fn moved(&mut self, seq: Seq, effect: Effect) {
        if effect.changes_roster {
            self.roster_version = seq;
        }
        if effect.raises_epoch {
            self.epoch = self.epoch.next();
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
}

impl Effect {
    const NONE: Self = Self { changes_roster: false, raises_epoch: false };
    const RECIPIENT_GAINED: Self = Self { changes_roster: true, raises_epoch: false };
    const RECIPIENTS_LOST: Self = Self { changes_roster: true, raises_epoch: true };
    const KEYS_STALE: Self = Self { changes_roster: false, raises_epoch: true };

    /// What an entry does in a chat with this history policy.
    #[must_use]
    pub const fn of(body: &EntryBody, history: HistoryPolicy) -> Self {
        match body {
            EntryBody::Message(_) => Self::NONE,
            EntryBody::Membership(signed) => Self::of_change(&signed.change.change, history),
            EntryBody::SessionIn(_) => Self::RECIPIENT_GAINED,
            EntryBody::SessionOut(_) | EntryBody::AccountDeleted(_) => Self::RECIPIENTS_LOST,
        }
    }

    const fn of_change(change: &Change, history: HistoryPolicy) -> Self {
        match (change, history) {
            // The newcomer's sessions follow, and are gained one by one.
            (Change::Add { .. }, HistoryPolicy::Shared) => Self::RECIPIENT_GAINED,
            (Change::Add { .. }, HistoryPolicy::FromJoin) | (Change::Remove | Change::Leave, _) => {
                Self::RECIPIENTS_LOST
            }
            (Change::Rekey | Change::SetHistory { .. }, _) => Self::KEYS_STALE,
            (Change::Create | Change::SetRights { .. } | Change::Transfer | Change::Delete, _) => Self::NONE,
        }
    }
}

/// The hash of a set of recipients: SHA-256 over label, count, then kind (0: a session), id and X25519 key of
/// each, in order of the id.
///
/// `sessions` come sorted by id, as every map of this crate holds them.
#[must_use]
pub fn roster_hash(sessions: impl ExactSizeIterator<Item = (SessionId, ExchangeKey)>) -> Hash {
    let mut bytes = Canonical::new(label::ROSTER).u64(sessions.len() as u64);
    for (session_id, public_key) in sessions {
        bytes = bytes.u64(0).id(session_id.0).bytes(public_key.as_ref());
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
    /// A session that is in already.
    #[error("the session is a recipient already")]
    AlreadyIn,
    /// A session that is not in.
    #[error("the session is not a recipient")]
    NotIn,
    /// A session that was revoked, or whose certificate's time is over.
    #[error("the session was revoked, or its certificate has run out")]
    Over,
    /// An expiry before its time.
    #[error("the session had not expired")]
    NotExpired,
}

#[cfg(test)]
mod tests;
