//! Writes group secrets: sets and ends them, and seals them again under a newer generation.

use super::super::group_keys;
use super::{Found, Newest, Plain, Vault};
use crate::client::error::{ClientError, UNSIGNED};
use crate::client::net::wire::Refused;
use crate::crypto::group_secret::SecretPlace;
use crate::protocol::binary::Hash;
use crate::protocol::canonical::sha256;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{DeleteSecret, Request, SetSecret};
use crate::protocol::group_secret::{
    SecretDeletion, SecretPart, SecretRevision, SecretWrite, SignedSecret, SignedSecretDeletion,
};
use crate::protocol::ids::{Revision, SecretId, Seq};
use crate::protocol::limits::{SECRET_NAME_BYTES_MAX, SECRET_VALUE_BYTES_MAX};

/// How often a write is made again because others were faster, or the group key changed.
const TRIES_MAX: u32 = 8;

/// Bytes that sealing adds: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

/// What a revision is to be, besides what it says.
struct Draft {
    secret_id: SecretId,
    revision: Revision,
    write: SecretWrite,
    changed_seq: Seq,
    previous: Option<Hash>,
    source: Option<Hash>,
}

impl Vault {
    /// Seals again what others may not be able to open, and compares what they have sealed again.
    pub(crate) async fn tend(&mut self) -> Result<(), ClientError> {
        if self.list().await?.is_empty() {
            return Ok(());
        }
        // Without a current generation those who have joined would wait for the next message, too.
        group_keys::make_if_due(&self.shared, self.chat_id).await?;
        let current = self.current();
        if current.is_some_and(|current| !self.keys.contains_key(&current)) {
            self.reload().await?;
        }
        let me = self.shared.lock().account.me.user_id;
        for item in self.list().await? {
            let secret = item.secret();
            let is_open = matches!(item.found, Found::Open(_));
            let is_due = current.is_some_and(|current| secret.generation < current && self.keys.contains_key(&current));
            let is_kept = item.listed.kept_generation.is_some_and(|kept| self.keys.contains_key(&kept));
            let is_anothers = self.user_of(secret.session_id) != Some(me);
            if !(is_open && is_due || is_kept && is_anothers && self.keys.contains_key(&secret.generation)) {
                continue;
            }
            match self.read(secret.secret_id).await {
                Ok(_) => {}
                Err(error @ ClientError::Closed(_)) => return Err(error),
                Err(error) => tracing::debug!(%error, "a group secret is not sealed again now"),
            }
        }
        Ok(())
    }

    /// Seals under the current generation what is sealed under an older one.
    pub(super) async fn seal_again_if_due(&self, newest: &Newest, plain: &Plain) {
        let Some(current) = self.current().filter(|current| self.keys.contains_key(current)) else { return };
        if newest.signed.secret.generation >= current {
            return;
        }
        if let Err(error) = self.reseal(newest, plain).await {
            tracing::debug!(%error, "a group secret is not sealed again now");
        }
    }

    /// Seals again what a secret says. What is kept beside it, if something is, is the source.
    pub(super) async fn reseal(&self, newest: &Newest, plain: &Plain) -> Result<SignedSecret, ClientError> {
        let before = &newest.signed.secret;
        let hash = newest.signed.hash(self.chat_id);
        let draft = Draft {
            secret_id: before.secret_id,
            revision: before.revision.next(),
            write: SecretWrite::Reseal,
            changed_seq: before.changed_seq,
            previous: Some(hash),
            source: Some(newest.kept.unwrap_or(hash)),
        };
        let request = self.make(draft, &plain.name, &plain.value)?;
        let made = request.secret.clone();
        self.call(Request::SetSecret(Box::new(request))).await?;
        self.note(&made);
        Ok(made)
    }

    /// Gives a secret of this name a value, or makes it.
    pub(crate) async fn write(&mut self, name: &str, value: &[u8]) -> Result<SecretId, ClientError> {
        for (bytes, limit) in [(name.as_bytes(), SECRET_NAME_BYTES_MAX), (value, SECRET_VALUE_BYTES_MAX)] {
            let limit = limit - SEAL_BYTES;
            if bytes.len() > limit {
                return Err(ClientError::TooLarge { limit });
            }
        }
        // One's own writes never race one another.
        let turn = self.shared.turn_to_change(self.chat_id);
        let _turn = turn.lock().await;
        let fresh = SecretId::generate();
        let mut is_reloaded = false;
        for _ in 0..TRIES_MAX {
            group_keys::make_if_due(&self.shared, self.chat_id).await?;
            let current = self.current().ok_or(ClientError::NoGroupKey)?;
            if !self.keys.contains_key(&current) {
                self.reload().await?;
                is_reloaded = true;
            }
            if !self.keys.contains_key(&current) {
                return Err(ClientError::NoGroupKey);
            }
            let items = self.list().await?;
            let known = items.iter().find(|item| matches!(&item.found, Found::Open(found) if found == name));
            let changed_seq = self.head()?;
            let draft = match known {
                Some(item) => Draft {
                    secret_id: item.secret().secret_id,
                    revision: item.secret().revision.next(),
                    write: SecretWrite::Set,
                    changed_seq,
                    previous: Some(item.listed.secret.hash(self.chat_id)),
                    source: None,
                },
                None => Draft {
                    secret_id: fresh,
                    revision: Revision::default().next(),
                    write: SecretWrite::Set,
                    changed_seq,
                    previous: None,
                    source: None,
                },
            };
            let request = self.make(draft, name.as_bytes(), value)?;
            let made = request.secret.clone();
            match self.shared.call(Request::SetSecret(Box::new(request))).await? {
                Ok(_) => {
                    self.note(&made);
                    if is_reloaded && let Err(error) = self.tend().await {
                        tracing::debug!(%error, "group secrets are not sealed again now");
                    }
                    return Ok(made.secret.secret_id);
                }
                Err(refused) => self.wait_for_others(refused).await?,
            }
        }
        Err(ClientError::Conflict)
    }

    /// Ends a secret.
    pub(crate) async fn delete(&self, secret_id: SecretId) -> Result<(), ClientError> {
        let turn = self.shared.turn_to_change(self.chat_id);
        let _turn = turn.lock().await;
        for _ in 0..TRIES_MAX {
            let items = self.list().await?;
            let item = items.iter().find(|item| item.secret().secret_id == secret_id);
            let item = item.ok_or(ClientError::UnknownSecret)?;
            let signed = {
                let me = &self.shared.lock().account.me;
                let deletion = SecretDeletion {
                    secret_id,
                    revision: item.secret().revision.next(),
                    session_id: me.session_id,
                    previous: item.listed.secret.hash(self.chat_id),
                };
                let signature = me.secrets.sign(&deletion.signed_bytes(self.chat_id));
                SignedSecretDeletion { deletion, signature }
            };
            let request = Request::DeleteSecret(DeleteSecret { chat_id: self.chat_id, deletion: signed });
            match self.shared.call(request).await? {
                Ok(_) => return self.judge_deletion(&signed).map_err(ClientError::from),
                Err(refused) if refused.code == ErrorCode::UnknownSecret => return Err(ClientError::UnknownSecret),
                Err(refused) => self.wait_for_others(refused).await?,
            }
        }
        Err(ClientError::Conflict)
    }

    /// After a lost race: waits until the log shows what the refusal is about.
    async fn wait_for_others(&self, refused: Box<Refused>) -> Result<(), ClientError> {
        match refused.code {
            ErrorCode::GroupKeyDue | ErrorCode::GroupKeyExists => {
                self.shared.folded(self.chat_id, refused.details.seq.unwrap_or_default()).await?;
                Ok(())
            }
            ErrorCode::EditConflict | ErrorCode::UnknownSecret => Ok(()),
            ErrorCode::UnknownChat => Err(ClientError::UnknownChat),
            _ => Err(refused.into()),
        }
    }

    fn make(&self, draft: Draft, name: &[u8], value: &[u8]) -> Result<SetSecret, ClientError> {
        let generation = self.current().ok_or(ClientError::NoGroupKey)?;
        let key = self.keys.get(&generation).ok_or(ClientError::NoGroupKey)?;
        let Draft { secret_id, revision, write, changed_seq, previous, source } = draft;
        let place = SecretPlace { chat_id: self.chat_id, secret_id, generation, revision };
        let value = key.seal(&place, SecretPart::Value, value)?;
        let name = key.seal(&place, SecretPart::Name, name)?;
        let value_hash = sha256(value.as_ref());
        let state = self.shared.lock();
        let me = &state.account.me;
        let session_id = me.session_id;
        let secret = SecretRevision {
            secret_id,
            revision,
            write,
            generation,
            changed_seq,
            session_id,
            previous,
            source,
            name,
            value_hash,
        };
        let mut secret = SignedSecret { secret, signature: UNSIGNED };
        secret.signature = me.secrets.sign(&secret.secret.signed_bytes(self.chat_id));
        Ok(SetSecret { chat_id: self.chat_id, secret, value })
    }
}
