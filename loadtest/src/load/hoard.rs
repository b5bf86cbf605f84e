//! Keeps a client's keyring in memory, and never forgets: what a removed device could have kept.
//!
//! Lives here: the storage that a client writes to, and the part of its records that a thief would read. The form
//! of the records is the client library's own; if it changes, reading fails, and with it the run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use sealcast::client::{Record, Storage, StorageError};
use sealcast::crypto::{Secret, SessionSecrets, wrap};
use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use sealcast::protocol::keys::SignedAnnouncement;
use serde::Deserialize;

/// A keyring in memory in which a record that was deleted stays as it was before.
#[derive(Default)]
pub(crate) struct Hoard(Mutex<BTreeMap<String, Kept>>);

#[derive(Default)]
struct Kept {
    content: Vec<u8>,
    is_deleted: bool,
}

impl std::fmt::Debug for Hoard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hoard")
    }
}

impl Storage for Hoard {
    fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, StorageError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present = kept.iter().filter(|(_, kept)| !kept.is_deleted);
        Ok(present.map(|(name, kept)| (name.clone(), kept.content.clone())).collect())
    }

    fn write(&self, records: &[Record]) -> Result<(), StorageError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, content) in records {
            match content {
                Some(content) => {
                    kept.insert(name.clone(), Kept { content: content.clone(), is_deleted: false });
                }
                None => {
                    if let Some(kept) = kept.get_mut(name) {
                        kept.is_deleted = true;
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct KeptAccount {
    me: KeptMe,
}

#[derive(Deserialize)]
struct KeptMe {
    session_id: SessionId,
    secrets: SessionSecrets,
}

#[derive(Deserialize)]
struct KeptChat {
    keys: KeptKeys,
    outbox: KeptOutbox,
}

#[derive(Deserialize)]
struct KeptKeys {
    keys: BTreeMap<KeyId, KeptKey>,
}

#[derive(Deserialize)]
struct KeptOutbox {
    key: Option<KeptOwnKey>,
}

#[derive(Deserialize)]
struct KeptOwnKey {
    secret: Secret,
    announcement: SignedAnnouncement,
}

#[derive(Deserialize)]
enum KeptKey {
    Offered { announcement: SignedAnnouncement, copy: Option<WrappedKey> },
    Accepted { session_id: SessionId, copy: Option<WrappedKey>, secret: Option<Secret> },
}

impl Hoard {
    fn record(&self, name: &str) -> Option<Vec<u8>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).map(|kept| kept.content.clone())
    }

    /// The session and its own keys.
    pub(crate) fn session(&self) -> anyhow::Result<(SessionId, SessionSecrets)> {
        let record = self.record("account").context("the keyring has no account")?;
        let account: KeptAccount = rmp_serde::from_slice(&record).context("reading a keyring's account")?;
        Ok((account.me.session_id, account.me.secrets))
    }

    /// Every sender key of a chat that the session held, opened; its own newest too.
    pub(crate) fn sender_keys(&self, chat_id: ChatId) -> anyhow::Result<BTreeMap<KeyId, Secret>> {
        let (session_id, secrets) = self.session()?;
        let Some(record) = self.record(&format!("chat-{chat_id}")) else { return Ok(BTreeMap::new()) };
        let chat: KeptChat = rmp_serde::from_slice(&record).context("reading a keyring's chat")?;
        let own = chat.outbox.key.map(|key| (key.announcement.announcement.key_id, key.secret));
        let mut held: BTreeMap<KeyId, Secret> = own.into_iter().collect();
        for (key_id, key) in chat.keys.keys {
            let (sender, copy) = match key {
                KeptKey::Accepted { secret: Some(secret), .. } => {
                    held.insert(key_id, secret);
                    continue;
                }
                KeptKey::Accepted { session_id, copy, .. } => (session_id, copy),
                KeptKey::Offered { announcement, copy } => (announcement.announcement.session_id, copy),
            };
            let Some(copy) = copy else { continue };
            let opened = wrap::open_sender_key(&copy, chat_id, key_id, sender, (session_id, &secrets)).ok();
            held.extend(opened.map(|secret| (key_id, secret)));
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_record_is_gone_for_the_client_and_stays_for_the_thief() {
        let hoard = Hoard::default();
        hoard.write(&[("a".to_owned(), Some(vec![1])), ("b".to_owned(), Some(vec![2]))]).unwrap();
        hoard.write(&[("a".to_owned(), None)]).unwrap();
        assert_eq!(hoard.load().unwrap().keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(hoard.record("a"), Some(vec![1]));
    }
}
