//! Judges revisions of group secrets: who signed them, whether they were shown before, what they were made of.

use super::{Plain, Vault};
use crate::client::chat::seen_secrets::Seen;
use crate::client::failure::VerificationFailure;
use crate::protocol::binary::Hash;
use crate::protocol::canonical::sha256;
use crate::protocol::frame::SealedRevision;
use crate::protocol::group_secret::{SecretDeletion, SecretPart, SignedSecret, SignedSecretDeletion};
use crate::protocol::ids::SecretId;

/// What came of comparing a revision with what it was made of.
pub(super) enum Compared {
    Same,
    /// What was said before.
    Differs(Plain),
    /// What is kept cannot be opened here.
    Unknown,
    /// What is kept is not what it should be.
    Bad(VerificationFailure),
}

impl Vault {
    /// Judges a revision, and takes note of it (V2).
    pub(super) fn judge(&self, signed: &SignedSecret) -> Result<(), VerificationFailure> {
        let secret_id = signed.secret.secret_id;
        if !signed.secret.is_whole() || !self.is_signed(signed) {
            return Err(VerificationFailure::SecretSignature(secret_id));
        }
        let (revision, hash) = (signed.secret.revision, signed.hash(self.chat_id));
        self.see(secret_id, Seen { revision, hash, is_over: false }, signed.secret.previous.as_ref())
    }

    pub(super) fn judge_deletion(&self, signed: &SignedSecretDeletion) -> Result<(), VerificationFailure> {
        let SecretDeletion { secret_id, revision, session_id, previous } = signed.deletion;
        let is_signed = {
            let state = self.shared.lock();
            let key = state.chats.get(&self.chat_id).and_then(|chat| chat.log.signing_key_ever(session_id));
            key.is_some_and(|key| signed.verifies(self.chat_id, &key))
        };
        if !is_signed {
            return Err(VerificationFailure::SecretSignature(secret_id));
        }
        let seen = Seen { revision, hash: signed.hash(self.chat_id), is_over: true };
        self.see(secret_id, seen, Some(&previous))
    }

    fn is_signed(&self, signed: &SignedSecret) -> bool {
        let state = self.shared.lock();
        let chat = state.chats.get(&self.chat_id);
        let key = chat.and_then(|chat| chat.log.signing_key_ever(signed.secret.session_id));
        key.is_some_and(|key| signed.verifies(self.chat_id, &key))
    }

    fn see(&self, secret_id: SecretId, seen: Seen, previous: Option<&Hash>) -> Result<(), VerificationFailure> {
        let mut state = self.shared.lock();
        let Some(chat) = state.chats.get_mut(&self.chat_id) else { return Ok(()) };
        let noted = chat.secrets.note(secret_id, seen, previous);
        if noted.map_err(|_| VerificationFailure::SecretRollback(secret_id))? {
            state.dirty_chats.insert(self.chat_id);
        }
        Ok(())
    }

    /// Takes note of a revision of one's own. Somebody may have written since, so that it is an older one already.
    pub(super) fn note(&self, signed: &SignedSecret) {
        let (revision, hash) = (signed.secret.revision, signed.hash(self.chat_id));
        let seen = Seen { revision, hash, is_over: false };
        let _ = self.see(signed.secret.secret_id, seen, signed.secret.previous.as_ref());
    }

    /// Compares a revision with what its maker says that it was made of (V3).
    pub(super) fn compare(&self, current: &SealedRevision, opened: Option<&Plain>, kept: &SealedRevision) -> Compared {
        let (secret, before) = (&current.secret.secret, &kept.secret.secret);
        let is_source = secret.source == Some(kept.secret.hash(self.chat_id))
            && before.secret_id == secret.secret_id
            && before.revision < secret.revision;
        if !is_source || !self.is_signed(&kept.secret) {
            return Compared::Bad(VerificationFailure::SecretContent(secret.secret_id));
        }
        if !self.keys.contains_key(&before.generation) {
            return Compared::Unknown;
        }
        match (self.open_revision(kept), opened) {
            (Err(failure), _) => Compared::Bad(failure),
            (Ok(kept), Some(opened))
                if kept.name == opened.name
                    && kept.value == opened.value
                    && before.changed_seq == secret.changed_seq =>
            {
                Compared::Same
            }
            (Ok(kept), _) => Compared::Differs(kept),
        }
    }

    pub(super) fn open_revision(&self, sealed: &SealedRevision) -> Result<Plain, VerificationFailure> {
        let secret = &sealed.secret.secret;
        let bad = VerificationFailure::SecretContent(secret.secret_id);
        if sha256(sealed.value.as_ref()) != secret.value_hash {
            return Err(bad);
        }
        let (key, place) = (self.keys.get(&secret.generation).ok_or(bad)?, self.place(secret));
        Ok(Plain {
            name: key.open(&place, SecretPart::Name, &secret.name).map_err(|_| bad)?,
            value: key.open(&place, SecretPart::Value, &sealed.value).map_err(|_| bad)?,
        })
    }
}
