//! Keeps the keyring: which records there are, and writing those that changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::state::{Shared, State};
use crate::client::chat::state::Chat;
use crate::client::error::ClientError;
use crate::client::keyring::{Account, Phase};
use crate::client::storage::{Record, StorageError};
use crate::protocol::ids::ChatId;

const ACCOUNT: &str = "account";
const CHAT_PREFIX: &str = "chat-";

/// Reads a keyring.
pub(crate) fn decode(records: &BTreeMap<String, Vec<u8>>) -> Result<(Account, HashMap<ChatId, Chat>), ClientError> {
    let account = records.get(ACCOUNT).ok_or(ClientError::NotReady)?;
    let mut chats = HashMap::new();
    for (name, content) in records {
        let Some(chat_id) = name.strip_prefix(CHAT_PREFIX) else { continue };
        let Ok(chat_id) = chat_id.parse() else { continue };
        chats.insert(chat_id, read::<Chat>(content)?);
    }
    let mut account: Account = read(account)?;
    if matches!(account.phase, Phase::Ready) {
        account.complete();
    }
    Ok((account, chats))
}

/// The account's record.
pub(crate) fn account_record(account: &Account) -> Result<Record, ClientError> {
    Ok((ACCOUNT.to_owned(), Some(write(account)?)))
}

/// What takes the account out.
pub(crate) fn no_account_record() -> Record {
    (ACCOUNT.to_owned(), None)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    rmp_serde::from_slice(bytes).map_err(|error| ClientError::Profile(Box::new(error)))
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, ClientError> {
    rmp_serde::to_vec_named(value).map_err(|error| ClientError::Profile(Box::new(error)))
}

impl State {
    /// Takes out what changed, chats before the account: what the account forgets, a chat must know by then.
    fn changed(&mut self) -> Result<Vec<Record>, ClientError> {
        let mut records = Vec::new();
        for chat_id in &self.dirty_chats {
            let content = match self.chats.get(chat_id) {
                Some(chat) => Some(write(chat)?),
                None => None,
            };
            records.push((format!("{CHAT_PREFIX}{chat_id}"), content));
        }
        if self.is_account_dirty {
            records.push(account_record(&self.account)?);
        }
        self.dirty_chats.clear();
        self.is_account_dirty = false;
        Ok(records)
    }
}

impl Shared {
    /// Keeps all that changed before this call.
    ///
    /// # Cancel safety
    /// What is being written is written; what changed stays marked only if this fails.
    pub(crate) async fn keep(self: &Arc<Self>) -> Result<(), ClientError> {
        if !self.storage.is_kept() {
            return Ok(());
        }
        let shared = Arc::clone(self);
        // A task of its own: a caller that gives up must not leave records behind that are marked as kept.
        let kept = tokio::spawn(async move {
            let _writing = shared.writing.lock().await;
            let records = shared.lock().changed()?;
            if records.is_empty() {
                return Ok(());
            }
            let names: Vec<String> = records.iter().map(|(name, _)| name.clone()).collect();
            let storage = Arc::clone(&shared.storage);
            let written = tokio::task::spawn_blocking(move || storage.write(&records)).await;
            let written = written.map_err(|error| ClientError::Profile(Box::new(error)))?;
            if written.is_err() {
                shared.mark(&names);
            }
            written.map_err(ClientError::Storage)
        });
        kept.await.map_err(|error| ClientError::Profile(Box::new(error)))?
    }

    fn mark(&self, names: &[String]) {
        let mut state = self.lock();
        for name in names {
            match name.strip_prefix(CHAT_PREFIX).and_then(|chat_id| chat_id.parse().ok()) {
                Some(chat_id) => {
                    state.dirty_chats.insert(chat_id);
                }
                None => state.is_account_dirty = true,
            }
        }
    }
}

/// A storage failure as something that many may be told.
pub(crate) fn shareable(error: ClientError) -> Arc<StorageError> {
    Arc::new(match error {
        ClientError::Storage(error) => error,
        _ => StorageError::Version,
    })
}
