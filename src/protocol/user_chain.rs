//! Follows a user's chain of certificates and revocations entry by entry.
//!
//! Pure, the same for whoever reads a chain. What time it is does not matter here: whether a session's time has run
//! out is for a chat's log to say.
//! Invariants: U1 places are 1, 2, 3 … and each entry names the hash of the one before. U2 a session that was revoked
//! never returns, keeps its Ed25519 key for as long as it is there, and never returns to an X25519 key that it has
//! replaced. U3 nothing follows the end of the account. U4 an
//! entry that does not verify changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::binary::{ExchangeKey, Hash, IdentityKey, SigningKey};
use super::certificate::{Revoker, SignedCertificate, SignedDeletion, SignedRevocation, UserEvent, chain_start};
use super::ids::{Place, SessionId, Timestamp, UserId};
use super::limits::CHAIN_LENGTH_MAX;
use super::verify::Verifier;

/// A session as its user's chain has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainSession {
    /// The place of its newest certificate.
    pub certified_at: Place,
    /// Where copies are wrapped to.
    pub public_key: ExchangeKey,
    /// What it signs with.
    pub signing_public_key: SigningKey,
    /// When it expires, by its newest certificate.
    pub expired_at: Timestamp,
    /// The place of its revocation.
    pub revoked_at: Option<Place>,
}

/// What a user's chain says up to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserChain {
    user_id: UserId,
    identity_key: IdentityKey,
    /// The hash of each entry, from place 1 on.
    hashes: Vec<Hash>,
    sessions: BTreeMap<SessionId, ChainSession>,
    /// Every X25519 key that a session was certified with.
    certified: BTreeSet<(SessionId, ExchangeKey)>,
    is_ended: bool,
}

impl UserChain {
    /// The chain of a user before its first entry.
    #[must_use]
    pub const fn new(user_id: UserId, identity_key: IdentityKey) -> Self {
        Self {
            user_id,
            identity_key,
            hashes: Vec::new(),
            sessions: BTreeMap::new(),
            certified: BTreeSet::new(),
            is_ended: false,
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        self.user_id
    }

    /// The identity key that it is judged by.
    #[must_use]
    pub const fn identity_key(&self) -> IdentityKey {
        self.identity_key
    }

    /// The place of the newest entry; 0 before the first.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place::saturating(self.hashes.len() as u64)
    }

    /// The hash of the newest entry; that of the start before the first.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hashes.last().copied().unwrap_or_else(|| chain_start(self.user_id))
    }

    /// The hash of the entry at a place; none beyond the newest, and at place 0.
    #[must_use]
    pub fn hash_at(&self, place: Place) -> Option<Hash> {
        let index = usize::try_from(place.get()).ok()?.checked_sub(1)?;
        self.hashes.get(index).copied()
    }

    /// Every session that the chain names, by its id.
    #[must_use]
    pub const fn sessions(&self) -> &BTreeMap<SessionId, ChainSession> {
        &self.sessions
    }

    /// Whether a session was revoked.
    #[must_use]
    pub fn is_revoked(&self, session_id: SessionId) -> bool {
        self.sessions.get(&session_id).is_some_and(|session| session.revoked_at.is_some())
    }

    /// Whether a session is certified and neither revoked nor gone with its account. Its time may have run out.
    #[must_use]
    pub fn is_live(&self, session_id: SessionId) -> bool {
        !self.is_ended && self.sessions.get(&session_id).is_some_and(|session| session.revoked_at.is_none())
    }

    /// Whether a session was ever certified with an X25519 key.
    #[must_use]
    pub fn has_certified(&self, session_id: SessionId, public_key: &ExchangeKey) -> bool {
        self.certified.contains(&(session_id, *public_key))
    }

    /// Whether the account has ended.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`ChainError`] says why it does not follow; then nothing has changed.
    pub fn take(&mut self, event: &UserEvent) -> Result<(), ChainError> {
        if self.is_ended {
            return Err(ChainError::Ended);
        }
        if event.place() != self.place().next() {
            return Err(ChainError::Place { expected: self.place().next(), found: event.place() });
        }
        if event.previous() != self.hash() {
            return Err(ChainError::Previous);
        }
        if self.hashes.len() >= CHAIN_LENGTH_MAX {
            return Err(ChainError::TooLong);
        }
        match event {
            UserEvent::Certificate(signed) => self.take_certificate(signed)?,
            UserEvent::Revocation(signed) => self.take_revocation(signed)?,
            UserEvent::Deletion(signed) => self.take_deletion(signed)?,
        }
        self.hashes.push(event.chain_hash());
        Ok(())
    }

    fn take_certificate(&mut self, signed: &SignedCertificate) -> Result<(), ChainError> {
        let certificate = &signed.certificate;
        if certificate.user_id != self.user_id || signed.verify(&self.identity_key).is_err() {
            return Err(ChainError::Signature);
        }
        if let Some(known) = self.sessions.get(&certificate.session_id) {
            if known.revoked_at.is_some() {
                return Err(ChainError::Returned);
            }
            let is_fresh = !self.has_certified(certificate.session_id, &certificate.public_key);
            let has_its_keys = known.signing_public_key == certificate.signing_public_key
                && (known.public_key == certificate.public_key || is_fresh);
            if !has_its_keys {
                return Err(ChainError::KeysChanged);
            }
        }
        let session = ChainSession {
            certified_at: certificate.place,
            public_key: certificate.public_key,
            signing_public_key: certificate.signing_public_key,
            expired_at: certificate.expired_at,
            revoked_at: None,
        };
        self.sessions.insert(certificate.session_id, session);
        self.certified.insert((certificate.session_id, certificate.public_key));
        Ok(())
    }

    fn take_revocation(&mut self, signed: &SignedRevocation) -> Result<(), ChainError> {
        let revocation = &signed.revocation;
        let bytes = revocation.signed_bytes();
        let verifies = match revocation.revoker {
            Revoker::Identity => self.identity_key.verifies(&bytes, &signed.signature),
            Revoker::Session(revoker) => self
                .sessions
                .get(&revoker)
                .filter(|session| session.revoked_at.is_none())
                .is_some_and(|session| session.signing_public_key.verifies(&bytes, &signed.signature)),
        };
        if revocation.user_id != self.user_id || !verifies {
            return Err(ChainError::Signature);
        }
        let session = self.sessions.get_mut(&revocation.session_id).filter(|session| session.revoked_at.is_none());
        session.ok_or(ChainError::NotLive)?.revoked_at = Some(revocation.place);
        Ok(())
    }

    fn take_deletion(&mut self, signed: &SignedDeletion) -> Result<(), ChainError> {
        if signed.deletion.user_id != self.user_id || !signed.verifies(&self.identity_key) {
            return Err(ChainError::Signature);
        }
        self.is_ended = true;
        Ok(())
    }
}

/// Why an entry does not follow in a user's chain. Whoever shows such an entry is wrong or lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Not the next place.
    #[error("entry {found} of the user's chain came where {expected} is next")]
    Place {
        /// The next place.
        expected: Place,
        /// The place that came.
        found: Place,
    },
    /// It names another entry before it.
    #[error("the entry follows another one than the chain's newest")]
    Previous,
    /// A signature that is not that of the identity key, or of a session that may revoke; or another user's entry.
    #[error("the signature is not that of the identity key or of a live session")]
    Signature,
    /// A certificate for a session that was revoked.
    #[error("a session that was revoked returns")]
    Returned,
    /// A renewed certificate over another Ed25519 key, or over an X25519 key that the session has replaced.
    #[error("a session has another signing key than before, or returns to a key that it has replaced")]
    KeysChanged,
    /// The revocation of a session that is not live.
    #[error("the session that is revoked is not live")]
    NotLive,
    /// An entry after the account's end.
    #[error("the account has ended")]
    Ended,
    /// More entries than anybody follows.
    #[error("the chain is too long")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer;

    use super::super::binary::Signature;
    use super::super::certificate::{Certificate, Deletion, Revocation};
    use super::*;

    /// A user who writes a chain, well or badly.
    struct Writer {
        user_id: UserId,
        identity: ed25519_dalek::SigningKey,
        chain: UserChain,
    }

    fn signature(key: &ed25519_dalek::SigningKey, bytes: &[u8]) -> Signature {
        Signature(key.sign(bytes).to_bytes())
    }

    fn session_key(seed: u8) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
    }

    impl Writer {
        fn new() -> Self {
            let (user_id, identity) = (UserId::generate(), session_key(1));
            let chain = UserChain::new(user_id, IdentityKey(identity.verifying_key().to_bytes()));
            Self { user_id, identity, chain }
        }

        fn certificate(&self, session_id: SessionId, seed: u8) -> SignedCertificate {
            let certificate = Certificate {
                user_id: self.user_id,
                place: self.chain.place().next(),
                previous: self.chain.hash(),
                session_id,
                public_key: ExchangeKey([seed; 32]),
                signing_public_key: SigningKey(session_key(seed).verifying_key().to_bytes()),
                created_at: Timestamp::saturating(1),
                expired_at: Timestamp::saturating(9),
            };
            let signature = signature(&self.identity, &certificate.signed_bytes());
            SignedCertificate { certificate, signature }
        }

        fn revocation(&self, session_id: SessionId, revoker: Revoker, key: &ed25519_dalek::SigningKey) -> UserEvent {
            let revocation = Revocation {
                user_id: self.user_id,
                place: self.chain.place().next(),
                previous: self.chain.hash(),
                session_id,
                revoker,
                created_at: Timestamp::saturating(2),
            };
            let signature = signature(key, &revocation.signed_bytes());
            UserEvent::Revocation(SignedRevocation { revocation, signature })
        }

        fn certify(&mut self, seed: u8) -> SessionId {
            let session_id = SessionId::generate();
            self.chain.take(&UserEvent::Certificate(self.certificate(session_id, seed))).unwrap();
            session_id
        }

        fn refuses(&mut self, event: &UserEvent) -> ChainError {
            let before = self.chain.clone();
            let error = self.chain.take(event).unwrap_err();
            assert_eq!(self.chain, before, "what is refused changes nothing");
            error
        }
    }

    #[test]
    fn sessions_come_and_go_and_the_end_is_the_end() {
        let mut user = Writer::new();
        let (phone, tablet) = (user.certify(2), user.certify(3));
        assert!(user.chain.is_live(phone) && user.chain.is_live(tablet));
        let event = user.revocation(tablet, Revoker::Session(phone), &session_key(2));
        user.chain.take(&event).unwrap();
        assert!(user.chain.is_revoked(tablet) && !user.chain.is_live(tablet));
        assert_eq!(user.chain.hash_at(Place::saturating(3)), Some(event.chain_hash()));
        assert_eq!(user.chain.hash_at(Place::saturating(4)), None);
        assert_eq!(user.chain.hash_at(Place::default()), None);
        // Renewed over the same keys.
        let renewed = user.certificate(phone, 2);
        user.chain.take(&UserEvent::Certificate(renewed)).unwrap();
        assert_eq!(user.chain.sessions()[&phone].certified_at, Place::saturating(4));
        // And over another X25519 key: the one before was certified, and does not come back.
        let mut replaced = user.certificate(phone, 2);
        replaced.certificate.public_key = ExchangeKey([9; 32]);
        replaced.signature = signature(&user.identity, &replaced.certificate.signed_bytes());
        user.chain.take(&UserEvent::Certificate(replaced)).unwrap();
        assert_eq!(user.chain.sessions()[&phone].public_key, ExchangeKey([9; 32]));
        assert!(user.chain.has_certified(phone, &ExchangeKey([2; 32])));
        assert!(user.chain.has_certified(phone, &ExchangeKey([9; 32])));
        assert!(!user.chain.has_certified(tablet, &ExchangeKey([9; 32])));
        let back = user.certificate(phone, 2);
        assert_eq!(user.refuses(&UserEvent::Certificate(back)), ChainError::KeysChanged);
        let by_identity = user.revocation(phone, Revoker::Identity, &session_key(1));
        user.chain.take(&by_identity).unwrap();
        let deletion = Deletion {
            user_id: user.user_id,
            place: user.chain.place().next(),
            previous: user.chain.hash(),
            created_at: Timestamp::saturating(3),
        };
        let signature = signature(&user.identity, &deletion.signed_bytes());
        user.chain.take(&UserEvent::Deletion(SignedDeletion { deletion, signature })).unwrap();
        assert!(user.chain.is_ended());
        let late = UserEvent::Certificate(user.certificate(SessionId::generate(), 4));
        assert_eq!(user.refuses(&late), ChainError::Ended);
    }

    #[test]
    fn p7_what_does_not_follow_is_refused() {
        let mut user = Writer::new();
        let phone = user.certify(2);
        let tablet = user.certify(3);
        let elsewhere = SessionId::generate();

        let mut gap = user.certificate(elsewhere, 4);
        gap.certificate.place = gap.certificate.place.next();
        let (expected, found) = (Place::saturating(3), Place::saturating(4));
        assert_eq!(user.refuses(&UserEvent::Certificate(gap)), ChainError::Place { expected, found });

        let mut other = user.certificate(elsewhere, 4);
        other.certificate.previous = Hash([7; 32]);
        assert_eq!(user.refuses(&UserEvent::Certificate(other)), ChainError::Previous);

        let mut forged = user.certificate(elsewhere, 4);
        forged.signature.0[5] ^= 1;
        assert_eq!(user.refuses(&UserEvent::Certificate(forged)), ChainError::Signature);

        let changed = user.certificate(phone, 4);
        assert_eq!(user.refuses(&UserEvent::Certificate(changed)), ChainError::KeysChanged);

        let by_nobody = user.revocation(phone, Revoker::Session(elsewhere), &session_key(3));
        assert_eq!(user.refuses(&by_nobody), ChainError::Signature);
        let by_another_key = user.revocation(phone, Revoker::Session(tablet), &session_key(2));
        assert_eq!(user.refuses(&by_another_key), ChainError::Signature);
        let of_nobody = user.revocation(elsewhere, Revoker::Session(tablet), &session_key(3));
        assert_eq!(user.refuses(&of_nobody), ChainError::NotLive);

        let revoked = user.revocation(tablet, Revoker::Session(tablet), &session_key(3));
        user.chain.take(&revoked).unwrap();
        let by_the_revoked = user.revocation(phone, Revoker::Session(tablet), &session_key(3));
        assert_eq!(user.refuses(&by_the_revoked), ChainError::Signature);
        let again = user.revocation(tablet, Revoker::Identity, &session_key(1));
        assert_eq!(user.refuses(&again), ChainError::NotLive);
        let returned = user.certificate(tablet, 3);
        assert_eq!(user.refuses(&UserEvent::Certificate(returned)), ChainError::Returned);
    }
}
