//! Backups of sessions' X25519 keys, kind `full`: from one session of a user to another.
//!
//! Invariants: B1 no key with which a live session receives is stored in one. B2 a session hands on what was its own, and
//! what it was handed. B3 a session that is revoked leaves its rows without their keys; what was made for a session is
//! kept, when that one is revoked, for as long as another holds a backup of it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::members::Requester;
use super::rows::{bigint, fixed, get, id, unpack};
use super::sessions::{locked, require_live};
use super::transaction::Transaction;
use crate::protocol::backup::SessionKeyBackup;
use crate::protocol::binary::{ExchangeKey, SigningKey};
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{BackedUpCopy, Backups, BackupsStored, OwnKey, UploadBackups};
use crate::protocol::ids::{ChatId, KeyId, SessionId, UserId};
use crate::protocol::limits::BACKUPS_MAX;

impl Store {
    /// Stores backups for a live session of the same user. The flag says whether any is new; what is there stays.
    ///
    /// # Errors
    /// `too_large`, `malformed`, `unknown_session`, `bad_signature`, `not_key_holder`, `key_in_use`, `limit_reached`, or
    /// [`StoreError`](super::StoreError).
    pub async fn upload_backups(
        &self,
        who: Requester,
        request: &UploadBackups,
    ) -> Result<(BackupsStored, bool), Failure> {
        check_shape(request.session_id, who, &request.backups)?;
        self.write("upload_backups", async |tx| {
            locked(tx, who.user_id).await?;
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            let recipient = "SELECT 1 FROM user_sessions WHERE id = $1 AND user_id = $2 AND state = 'live' \
                 AND expired_at > clock_timestamp()";
            if tx.query_opt(recipient, &[&request.session_id.0, &who.user_id.0]).await?.is_none() {
                return Err(Refusal::new(ErrorCode::UnknownSession, "the recipient is no live session").into());
            }
            let held = "SELECT EXISTS (SELECT 1 FROM vault_backup_session_keys \
                 WHERE session_id = $1 AND kind = 'full' AND key IS NOT NULL) AS held";
            let held_before = get(&tx.query_one(held, &[&request.session_id.0]).await?, "held")?;
            let stored = store_backups(tx, who, &signing_key, &request.backups).await?;
            Ok((BackupsStored { held_before }, stored > 0))
        })
        .await
    }

    /// Every backup for a live session.
    ///
    /// # Errors
    /// A requester that is not live, or [`StoreError`](super::StoreError).
    pub async fn backups(&self, who: Requester) -> Result<Backups, Failure> {
        self.read("backups", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            let statement = "SELECT session_id, backed_up_session_id, backed_up_user_id, backed_up_public_key, key, wrapped_by_session_id, \
                 signature FROM vault_backup_session_keys \
                 WHERE session_id = $1 AND kind = 'full' AND key IS NOT NULL ORDER BY created_at, id";
            let mut backups = Vec::new();
            for row in tx.query(statement, &[&who.session_id.0]).await? {
                backups.push(SessionKeyBackup {
                    session_id: id(&row, "session_id", SessionId)?,
                    backed_up_session_id: id(&row, "backed_up_session_id", SessionId)?,
                    backed_up_user_id: id(&row, "backed_up_user_id", UserId)?,
                    backed_up_public_key: fixed(&row, "backed_up_public_key")?,
                    key: fixed(&row, "key")?,
                    wrapped_by_session_id: id(&row, "wrapped_by_session_id", SessionId)?,
                    signature: fixed(&row, "signature")?,
                });
            }
            Ok(Backups { backups })
        })
        .await
    }
}

/// Checks what can be checked of backups without the database.
pub(super) fn check_shape(
    recipient: SessionId,
    wrapped_by: Requester,
    backups: &[SessionKeyBackup],
) -> Result<(), Refusal> {
    if backups.len() > BACKUPS_MAX {
        return Err(Refusal::limit(ErrorCode::TooLarge, "too many backups in one request", BACKUPS_MAX as u64));
    }
    let is_theirs = |backup: &SessionKeyBackup| {
        backup.session_id == recipient
            && backup.wrapped_by_session_id == wrapped_by.session_id
            && backup.backed_up_user_id == wrapped_by.user_id
            && backup.backed_up_session_id != recipient
    };
    let keys: BTreeSet<_> = backups.iter().map(|it| (it.backed_up_session_id, it.backed_up_public_key)).collect();
    if !backups.iter().all(is_theirs) || keys.len() != backups.len() {
        let message = "backups are for one other session, wrapped by this one, each key once";
        return Err(Refusal::new(ErrorCode::Malformed, message));
    }
    Ok(())
}

/// Stores backups whose form was checked, under their user's lock, and says how many are new.
pub(super) async fn store_backups(
    tx: &Transaction<'_>,
    who: Requester,
    signing_key: &SigningKey,
    backups: &[SessionKeyBackup],
) -> Result<u64, Failure> {
    let Some(recipient) = backups.first().map(|backup| backup.session_id) else { return Ok(0) };
    if !backups.iter().all(|backup| backup.verifies(signing_key)) {
        return Err(Refusal::new(ErrorCode::BadSignature, "a backup's signature does not verify").into());
    }
    let sessions: Vec<Uuid> = backups.iter().map(|backup| backup.backed_up_session_id.0).collect();
    let certified = certified_keys(tx, who.user_id, &sessions).await?;
    let in_use = keys_in_use(tx, who.user_id, &sessions).await?;
    let held = held_keys(tx, who.session_id).await?;
    for backup in backups {
        let key = (backup.backed_up_session_id, backup.backed_up_public_key);
        if !certified.contains(&key) {
            return Err(Refusal::new(ErrorCode::UnknownSession, "no session of this user was certified so").into());
        }
        if in_use.contains(&key) {
            return Err(Refusal::new(ErrorCode::KeyInUse, "a live session receives with this key").into());
        }
        if key.0 != who.session_id && !held.contains(&key) {
            return Err(Refusal::new(ErrorCode::NotKeyHolder, "this session was not handed the key").into());
        }
    }
    let public_keys: Vec<&[u8]> = backups.iter().map(|backup| backup.backed_up_public_key.as_ref()).collect();
    let wrapped: Vec<&[u8]> = backups.iter().map(|backup| backup.key.as_ref()).collect();
    let signatures: Vec<&[u8]> = backups.iter().map(|backup| backup.signature.as_ref()).collect();
    let insert = "INSERT INTO vault_backup_session_keys (kind, session_id, backed_up_session_id, backed_up_user_id, \
             backed_up_public_key, key, wrapped_by_session_id, signature) \
         SELECT 'full', $1, n.session_id, $2, n.public_key, n.key, $3, n.signature \
         FROM unnest($4::uuid[], $5::bytea[], $6::bytea[], $7::bytea[]) AS n (session_id, public_key, key, signature) \
         ON CONFLICT (backed_up_session_id, session_id, backed_up_public_key) WHERE kind = 'full' DO NOTHING";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&recipient.0, &who.user_id.0, &who.session_id.0, &sessions, &public_keys, &wrapped, &signatures];
    let stored = tx.execute(insert, &parameters).await?;
    let statement = "SELECT count(*) AS count FROM vault_backup_session_keys WHERE session_id = $1 AND kind = 'full'";
    let count: i64 = get(&tx.query_one(statement, &[&recipient.0]).await?, "count")?;
    if count > bigint(BACKUPS_MAX as u64) {
        let message = "the session holds as many backups as one may";
        return Err(Refusal::limit(ErrorCode::LimitReached, message, BACKUPS_MAX as u64).into());
    }
    Ok(stored)
}

/// Takes the keys out of the backups that a session holds, when it is revoked. The rows stay: they say who was handed what.
pub(super) async fn empty_backups(tx: &Transaction<'_>, session_id: SessionId) -> Result<(), Failure> {
    let statement = "UPDATE vault_backup_session_keys SET key = NULL WHERE session_id = $1 AND kind = 'full'";
    tx.execute(statement, &[&session_id.0]).await?;
    Ok(())
}

/// Refuses an X25519 key that a session was certified with before: it may have been handed on.
pub(super) async fn check_fresh(
    tx: &Transaction<'_>,
    user_id: UserId,
    session_id: SessionId,
    public_key: &ExchangeKey,
) -> Result<(), Failure> {
    if certified_keys(tx, user_id, &[session_id.0]).await?.contains(&(session_id, *public_key)) {
        let message = "a session is renewed over a key that it never had";
        return Err(Refusal::new(ErrorCode::BadCertificate, message).into());
    }
    Ok(())
}

type Named = BTreeSet<(SessionId, ExchangeKey)>;

/// Every X25519 key that some sessions of a user were certified with.
async fn certified_keys(tx: &Transaction<'_>, user_id: UserId, sessions: &[Uuid]) -> Result<Named, Failure> {
    let statement = "SELECT body FROM user_events WHERE user_id = $1 AND kind = 'certificate' AND session_id = ANY($2)";
    let mut keys = Named::new();
    for row in tx.query(statement, &[&user_id.0, &sessions]).await? {
        let signed: SignedCertificate = unpack(get(&row, "body")?, "user_events.body")?;
        keys.insert((signed.certificate.session_id, signed.certificate.public_key));
    }
    Ok(keys)
}

/// The keys with which some sessions of a user receive now.
async fn keys_in_use(tx: &Transaction<'_>, user_id: UserId, sessions: &[Uuid]) -> Result<Named, Failure> {
    let statement = "SELECT id, public_key FROM user_sessions WHERE user_id = $1 AND state = 'live' AND id = ANY($2)";
    let found = tx.query(statement, &[&user_id.0, &sessions]).await?;
    let key = |row| Ok((id(row, "id", SessionId)?, fixed(row, "public_key")?));
    found.iter().map(key).collect()
}

/// The keys that a session was handed.
async fn held_keys(tx: &Transaction<'_>, session_id: SessionId) -> Result<Named, Failure> {
    let statement = "SELECT backed_up_session_id, backed_up_public_key FROM vault_backup_session_keys \
         WHERE session_id = $1 AND kind = 'full' AND key IS NOT NULL";
    let found = tx.query(statement, &[&session_id.0]).await?;
    let key = |row| Ok((id(row, "backed_up_session_id", SessionId)?, fixed(row, "backed_up_public_key")?));
    found.iter().map(key).collect()
}

/// Adds to keys that a live session has no copy of the copies that were made for older sessions of which it holds a
/// backup, of what its user may read.
pub(super) async fn add_backed_up(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    session_id: SessionId,
    keys: &mut [OwnKey],
) -> Result<(), Failure> {
    let lacking = keys.iter().filter(|key| key.key.is_none());
    let lacking: Vec<Uuid> = lacking.map(|key| key.announcement.announcement.key_id.0).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let statement = "SELECT DISTINCT v.sender_key_id, v.session_id, v.key FROM user_sessions s \
         JOIN user_in_chat m ON m.chat_id = $1 AND m.user_id = s.user_id \
         JOIN vault_backup_session_keys b ON b.session_id = s.id AND b.kind = 'full' AND b.key IS NOT NULL \
             AND b.backed_up_user_id = s.user_id \
         JOIN vault_chat_sender_keys v ON v.chat_id = $1 AND v.sender_key_id = ANY($3) \
             AND v.session_id = b.backed_up_session_id \
         JOIN sender_keys k ON k.chat_id = $1 AND k.key_id = v.sender_key_id AND k.first_seq >= m.readable_from \
         WHERE s.id = $2 AND s.state = 'live'";
    for row in tx.query(statement, &[&chat_id.0, &session_id.0, &lacking]).await? {
        let key_id = id(&row, "sender_key_id", KeyId)?;
        let copy = BackedUpCopy { session_id: id(&row, "session_id", SessionId)?, key: fixed(&row, "key")? };
        if let Some(key) = keys.iter_mut().find(|key| key.announcement.announcement.key_id == key_id) {
            key.backed_up.push(copy);
        }
    }
    Ok(())
}
