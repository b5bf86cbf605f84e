//! Chats' info keys sealed to recovery keys, so that a password alone shows what a chat is called.
//!
//! Invariants: I1 a seal is stored of the current info key alone, for the current recovery key, signed by the session that
//! brings it; it stays while that session is in the chat. I2 one row for each generation: with another info key all go, and
//! with each new seal those that no member has the group key of.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::head::ChatHead;
use super::info::LackingInfoKey;
use super::members::Requester;
use super::rows::{bigint, fixed, get, id, number};
use super::transaction::Transaction;
use crate::protocol::binary::SigningKey;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::ids::{ChatId, GenerationNo, InfoKeyId, SessionId};
use crate::protocol::info_seal::InfoKeySeal;

/// Chats that one holder is asked for when it comes online, at most.
const OPEN_MAX: i64 = 500;

/// Whether chat `c` has an info key and a recovery key to which nobody has sealed it who is still there.
pub(super) const IS_SEAL_DUE: &str = "c.info_key_id IS NOT NULL AND c.group_key_generation > 0 \
     AND NOT c.generation_outdated AND NOT EXISTS (SELECT 1 FROM info_key_seals sealed \
         JOIN user_sessions sealer ON sealer.id = sealed.sealed_by_session_id AND sealer.state = 'live' \
         JOIN user_in_chat sealing ON sealing.chat_id = c.id AND sealing.user_id = sealer.user_id \
         WHERE sealed.chat_id = c.id AND sealed.generation = c.group_key_generation)";

impl Store {
    /// Those of some chats whose info key is not sealed to their recovery key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chats_without_seal(&self, chats: &[ChatId]) -> Result<BTreeSet<ChatId>, Failure> {
        let chats: Vec<Uuid> = chats.iter().map(|chat_id| chat_id.0).collect();
        self.read("chats_without_seal", async |tx| {
            let statement = format!("SELECT c.id FROM chats c WHERE c.id = ANY($1) AND {IS_SEAL_DUE}");
            let found = tx.query(&statement, &[&chats]).await?;
            Ok(found.iter().map(|row| id(row, "id", ChatId)).collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Info keys that a session holds and that are not sealed to their chats' recovery keys, a bounded number.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn open_seals(tx: &Transaction<'_>, holder: Requester) -> Result<Vec<LackingInfoKey>, Failure> {
    let statement = format!(
        "SELECT c.id, c.last_seq, c.info_key_id, c.group_key_generation FROM user_in_chat m \
         JOIN chats c ON c.id = m.chat_id \
         JOIN vault_chat_info_keys h ON h.chat_id = c.id AND h.key_id = c.info_key_id AND h.session_id = $2 \
         WHERE m.user_id = $1 AND {IS_SEAL_DUE} ORDER BY c.id LIMIT $3"
    );
    let mut open = Vec::new();
    for row in tx.query(&statement, &[&holder.user_id.0, &holder.session_id.0, &OPEN_MAX]).await? {
        open.push(LackingInfoKey {
            chat_id: id(&row, "id", ChatId)?,
            last_seq: number(&row, "last_seq")?,
            key_id: id(&row, "info_key_id", InfoKeyId)?,
            session_ids: Vec::new(),
            generation: Some(number(&row, "group_key_generation")?),
        });
    }
    Ok(open)
}

/// A seal is of this info key, by the session that brings it, and for the current recovery key (I1).
///
/// # Errors
/// `malformed`, `bad_signature`, `recipients_changed`.
pub(super) fn check_seal(
    who: Requester,
    head: &ChatHead,
    key_id: InfoKeyId,
    seal: &InfoKeySeal,
    signing_key: &SigningKey,
) -> Result<(), Refusal> {
    if seal.key_id != key_id {
        return Err(Refusal::new(ErrorCode::Malformed, "the sealed info key is another one"));
    }
    if seal.sealed_by_session_id != who.session_id || !seal.verifies(head.chat_id, signing_key) {
        return Err(Refusal::new(ErrorCode::BadSignature, "the sealed info key does not verify"));
    }
    if head.recovery_key().is_none_or(|current| current.generation != seal.generation) {
        let details = ErrorDetails { seq: Some(head.last_seq), ..ErrorDetails::default() };
        let message = "the info key is sealed to a generation that is not the current one";
        return Err(Refusal::with(ErrorCode::RecipientsChanged, message, details));
    }
    Ok(())
}

/// Stores a seal, unless there is one by a session that is in the chat; forgets those that no member can open (I2).
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn put_seal(tx: &Transaction<'_>, chat_id: ChatId, seal: &InfoKeySeal) -> Result<(), Failure> {
    let statement = "INSERT INTO info_key_seals AS known (chat_id, generation, key_id, key, sealed_by_session_id, signature) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (chat_id, generation) DO UPDATE SET key = excluded.key, \
             key_id = excluded.key_id, sealed_by_session_id = excluded.sealed_by_session_id, \
             signature = excluded.signature \
         WHERE NOT EXISTS (SELECT 1 FROM user_sessions s JOIN user_in_chat m ON m.user_id = s.user_id \
             WHERE s.id = known.sealed_by_session_id AND s.state = 'live' AND m.chat_id = known.chat_id)";
    let (key, signature) = (seal.key.as_ref(), seal.signature.as_ref());
    let by = seal.sealed_by_session_id.0;
    tx.execute(statement, &[&chat_id.0, &bigint(seal.generation), &seal.key_id.0, &key, &by, &signature]).await?;
    let statement = "DELETE FROM info_key_seals s WHERE s.chat_id = $1 AND NOT EXISTS (SELECT 1 FROM group_keys k \
         JOIN user_in_chat m ON m.chat_id = k.group_id AND m.user_id = k.user_id \
         WHERE k.group_id = s.chat_id AND k.generation = s.generation)";
    tx.execute(statement, &[&chat_id.0]).await?;
    Ok(())
}

/// Forgets the seals of a chat's info key, as another one takes its place.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn forget_seals(tx: &Transaction<'_>, chat_id: ChatId) -> Result<(), Failure> {
    tx.execute("DELETE FROM info_key_seals WHERE chat_id = $1", &[&chat_id.0]).await?;
    Ok(())
}

/// The seal of a row with the columns `seal_key_id`, `seal_key`, `sealed_by_session_id` and `seal_signature`, if it has one.
///
/// # Errors
/// [`StoreError`].
pub(super) fn seal_of(row: &tokio_postgres::Row, generation: GenerationNo) -> Result<Option<InfoKeySeal>, StoreError> {
    let Some(key_id) = get::<Option<Uuid>>(row, "seal_key_id")? else { return Ok(None) };
    Ok(Some(InfoKeySeal {
        key_id: InfoKeyId(key_id),
        generation,
        key: fixed(row, "seal_key")?,
        sealed_by_session_id: id(row, "sealed_by_session_id", SessionId)?,
        signature: fixed(row, "seal_signature")?,
    }))
}
