//! Archives of sender keys, as those who can open a group key read them.

use std::collections::HashMap;

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::members::{Requester, turn_away};
use super::rows::{fixed, get, id, number, unpack};
use super::sessions::require_live;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{ArchivedKey, Archives, FetchArchives};
use crate::protocol::group_key::Archive;
use crate::protocol::ids::KeyId;
use crate::protocol::limits::ARCHIVES_PER_REQUEST_MAX;

impl Store {
    /// Reads archives of keys whose messages the user may read.
    ///
    /// # Errors
    /// `unknown_chat`, `too_large`, or [`super::StoreError`].
    pub async fn archives(&self, who: Requester, request: &FetchArchives) -> Result<Archives, Failure> {
        if request.key_ids.len() > ARCHIVES_PER_REQUEST_MAX {
            let limit = ARCHIVES_PER_REQUEST_MAX as u64;
            return Err(Refusal::limit(ErrorCode::TooLarge, "too many keys in one request", limit).into());
        }
        let chat_id = request.chat_id;
        let ids: Vec<Uuid> = request.key_ids.iter().map(|key_id| key_id.0).collect();
        self.read("archives", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            turn_away(tx, who, chat_id).await?;
            // A key that was used before the user may read is not theirs, whatever else it was used for.
            let statement = "SELECT k.key_id, k.announcement, EXISTS (SELECT 1 FROM vault_chat_sender_keys v \
                     JOIN user_sessions s ON s.id = v.session_id AND s.state = 'live' AND s.id <> $4 \
                     JOIN user_in_chat o ON o.chat_id = k.chat_id AND o.user_id = s.user_id \
                     WHERE v.chat_id = k.chat_id AND v.sender_key_id = k.key_id) AS has_holder \
                 FROM sender_keys k JOIN user_in_chat m ON m.chat_id = k.chat_id AND m.user_id = $3 \
                 WHERE k.chat_id = $1 AND k.key_id = ANY($2) AND k.first_seq >= m.readable_from ORDER BY k.key_id";
            let mut keys = Vec::new();
            let mut places = HashMap::new();
            for row in tx.query(statement, &[&chat_id.0, &ids, &who.user_id.0, &who.session_id.0]).await? {
                places.insert(id(&row, "key_id", KeyId)?, keys.len());
                keys.push(ArchivedKey {
                    announcement: unpack(get(&row, "announcement")?, "sender_keys.announcement")?,
                    archives: Vec::new(),
                    has_holder: get(&row, "has_holder")?,
                });
            }
            let statement = "SELECT a.sender_key_id, a.generation, a.key FROM sender_key_archives a \
                 JOIN sender_keys k ON k.chat_id = a.chat_id AND k.key_id = a.sender_key_id \
                 WHERE a.chat_id = $1 AND a.sender_key_id = ANY($2) \
                 ORDER BY a.sender_key_id, a.archived_by_session_id <> k.sender_session_id, a.generation";
            for row in tx.query(statement, &[&chat_id.0, &ids]).await? {
                let archive = Archive { generation: number(&row, "generation")?, key: fixed(&row, "key")? };
                let place = places.get(&id(&row, "sender_key_id", KeyId)?);
                if let Some(key) = place.and_then(|place| keys.get_mut(*place)) {
                    let key: &mut ArchivedKey = key;
                    key.archives.push(archive);
                }
            }
            Ok(Archives { keys })
        })
        .await
    }
}
