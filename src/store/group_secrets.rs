//! Group secrets: ciphertexts under keys that follow from group keys, each revision signed, each look at one noted.
//!
//! Each write is a transaction of its own under the chat's lock, beside what the chat's actor does: no log entry is made.
//! Invariants: G1 each write is the revision after the newest, and names it by its hash. G2 nothing is set or sealed again
//! but under the current generation. G3 what a re-encryption was made of stays until a member other than its maker has
//! opened both. G4 no value leaves without a row that says who was given it.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::copies::member;
use super::error::Failure;
use super::head::ChatHead;
use super::members::{Requester, turn_away, unknown_chat};
use super::rows::{bigint, fixed, fixed_or_null, get, id, number, number_of, pack, timestamp, unpack};
use super::sessions::require_live;
use super::transaction::Transaction;
use crate::protocol::binary::{Blob, Hash, Signature};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{
    ConfirmSecret, DeleteSecret, FetchSecret, FetchSecretLog, ListSecrets, ListedSecret, Openers, SealedRevision,
    SealedSecret, SecretLog, SecretLogEntry, Secrets, SetSecret,
};
use crate::protocol::group_secret::{SecretAction, SecretRevision, SecretWrite};
use crate::protocol::ids::{ChatId, GenerationNo, Revision, SecretId, Seq, SessionId, UserId};
use crate::protocol::limits::{
    SECRET_LOG_ENTRIES_PER_REQUEST_MAX, SECRET_LOG_MAX, SECRET_NAME_BYTES_MAX, SECRET_OPENERS_MAX,
    SECRET_VALUE_BYTES_MAX, SECRET_WRITES_PER_MINUTE_MAX, SECRETS_MAX, SECRETS_PER_REQUEST_MAX,
};

/// How long who writes too often waits.
const WRITES_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

/// The newest revision of a secret that is there.
struct Stored {
    revision: Revision,
    hash: Hash,
    /// None of one that is deleted.
    live: Option<Live>,
}

struct Live {
    generation: GenerationNo,
    changed_seq: Seq,
    writer_id: UserId,
    sealed_by: UserId,
    /// The hash of what is kept.
    kept: Option<Hash>,
}

impl Store {
    /// Makes a revision of a secret. Gives the sessions that are told; none if it was made before, by this very request.
    ///
    /// # Errors
    /// `too_large`, `malformed`, `unknown_chat`, `bad_signature`, `cannot_write`, `group_key_due`, `group_key_exists`,
    /// `rate_limited`, `unknown_secret`, `edit_conflict`, `limit_reached`, a requester that is not live,
    /// [`Failure::ExpiryDue`], or [`super::StoreError`].
    pub async fn set_secret(&self, who: Requester, request: &SetSecret) -> Result<Vec<SessionId>, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.secret);
        let secret = &signed.secret;
        check_form(request)?;
        self.write("set_secret", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let (signing_key, _) = member(tx, who, chat_id).await?;
            if secret.session_id != who.session_id || !signed.verifies(chat_id, &signing_key) {
                return Err(bad_signature().into());
            }
            if is_repeat(tx, chat_id, secret.secret_id, &signed.signature).await? {
                return Ok(Vec::new());
            }
            let is_set = secret.write == SecretWrite::Set;
            if is_set {
                check_right(tx, who, chat_id, "can_write", ErrorCode::CannotWrite).await?;
            }
            if head.expiry_due {
                return Err(Failure::ExpiryDue);
            }
            check_generation(tx, &head, secret.generation).await?;
            let stored = stored(tx, chat_id, secret.secret_id).await?;
            check_place(stored.as_ref(), secret.revision, secret.previous.as_ref())?;
            if is_set {
                check_rate(tx, who, chat_id).await?;
                check_set(tx, &head, secret, stored.as_ref()).await?;
            } else {
                check_reseal(secret, stored.as_ref())?;
            }
            save(tx, who, request).await?;
            let action = match (secret.write, stored) {
                (SecretWrite::Reseal, _) => SecretAction::Reencrypt,
                (SecretWrite::Set, Some(_)) => SecretAction::Change,
                (SecretWrite::Set, None) => SecretAction::Create,
            };
            let noted = Noted { secret_id: secret.secret_id, action, revision: secret.revision };
            note(tx, who, chat_id, noted, Some(&signed.signature)).await?;
            listeners(tx, chat_id).await
        })
        .await
    }

    /// Ends a secret: its ciphertexts go, its signed end stays. Gives the sessions that are told; none if it was ended
    /// before, by this very request.
    ///
    /// # Errors
    /// `unknown_chat`, `bad_signature`, `unknown_secret`, `cannot_manage`, `rate_limited`, `edit_conflict`, a requester
    /// that is not live, or [`super::StoreError`].
    pub async fn delete_secret(&self, who: Requester, request: &DeleteSecret) -> Result<Vec<SessionId>, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.deletion);
        let deletion = &signed.deletion;
        self.write("delete_secret", async |tx| {
            turn_away(tx, who, chat_id).await?;
            if ChatHead::lock(tx, chat_id).await?.is_none() {
                return Err(unknown_chat().into());
            }
            let (signing_key, _) = member(tx, who, chat_id).await?;
            if deletion.session_id != who.session_id || !signed.verifies(chat_id, &signing_key) {
                return Err(bad_signature().into());
            }
            if is_repeat(tx, chat_id, deletion.secret_id, &signed.signature).await? {
                return Ok(Vec::new());
            }
            let stored = stored(tx, chat_id, deletion.secret_id).await?;
            let live = stored.as_ref().and_then(|stored| stored.live.as_ref()).ok_or_else(unknown_secret)?;
            if live.writer_id != who.user_id {
                check_right(tx, who, chat_id, "can_manage", ErrorCode::CannotManage).await?;
            }
            check_place(stored.as_ref(), deletion.revision, Some(&deletion.previous))?;
            check_rate(tx, who, chat_id).await?;
            let statement = "UPDATE group_secrets SET revision = $3, hash = $4, signed = $5, generation = NULL, \
                     value = NULL, changed_seq = NULL, writer_id = NULL, changed_at = NULL, sealed_by = NULL, \
                     kept_signed = NULL, kept_value = NULL, kept_hash = NULL, kept_generation = NULL, \
                     deleted_at = clock_timestamp() WHERE chat_id = $1 AND id = $2";
            let (hash, packed) = (signed.hash(chat_id), pack(signed, "group_secrets.signed")?);
            let revision = bigint(deletion.revision);
            tx.execute(statement, &[&chat_id.0, &deletion.secret_id.0, &revision, &hash.as_ref(), &packed]).await?;
            let forget = "DELETE FROM group_secrets WHERE chat_id = $1 AND id IN (SELECT id FROM group_secrets \
                     WHERE chat_id = $1 AND deleted_at IS NOT NULL ORDER BY deleted_at DESC, id OFFSET $2)";
            tx.execute(forget, &[&chat_id.0, &bigint(SECRET_LOG_MAX)]).await?;
            let noted =
                Noted { secret_id: deletion.secret_id, action: SecretAction::Delete, revision: deletion.revision };
            note(tx, who, chat_id, noted, Some(&signed.signature)).await?;
            listeners(tx, chat_id).await
        })
        .await
    }

    /// Lists a chat's secrets, without their values.
    ///
    /// # Errors
    /// `unknown_chat`, a requester that is not live, or [`super::StoreError`].
    pub async fn list_secrets(&self, who: Requester, request: &ListSecrets) -> Result<Secrets, Failure> {
        let chat_id = request.chat_id;
        let limit = usize::try_from(SECRETS_PER_REQUEST_MAX).unwrap_or(usize::MAX);
        self.read("list_secrets", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            turn_away(tx, who, chat_id).await?;
            let statement = "SELECT signed, generation, writer_id, changed_at, kept_generation FROM group_secrets \
                 WHERE chat_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3";
            let after: Option<Uuid> = request.after.map(|secret_id| secret_id.0);
            let one_more = i64::from(SECRETS_PER_REQUEST_MAX) + 1;
            let rows = tx.query(statement, &[&chat_id.0, &after, &one_more]).await?;
            let (mut secrets, mut deleted, mut generations) = (Vec::new(), Vec::new(), Vec::new());
            for row in rows.iter().take(limit) {
                let signed: &[u8] = get(row, "signed")?;
                let Some(generation) = get::<Option<i64>>(row, "generation")? else {
                    deleted.push(unpack(signed, "group_secrets.signed")?);
                    continue;
                };
                generations.push(generation);
                let kept: Option<i64> = get(row, "kept_generation")?;
                secrets.push(ListedSecret {
                    secret: unpack(signed, "group_secrets.signed")?,
                    writer_id: id(row, "writer_id", UserId)?,
                    changed_at: timestamp(row, "changed_at")?,
                    kept_generation: kept.map(|kept| number_of(kept, "kept_generation")).transpose()?,
                });
            }
            let statement = "SELECT coalesce(max(seq), 0) AS seq FROM chat_events WHERE chat_id = $1 \
                 AND (kind IN ('account_deleted', 'account_removed') OR kind = 'membership' AND change IN ('remove', 'leave'))";
            let removal_seq = number(&tx.query_one(statement, &[&chat_id.0]).await?, "seq")?;
            let openers = openers(tx, chat_id, generations).await?;
            let last_seq = last_seq(tx, chat_id).await?;
            Ok(Secrets { secrets, deleted, last_seq, removal_seq, openers, more: rows.len() > limit })
        })
        .await
    }

    /// Reads a secret with its value, and notes who did (G4).
    ///
    /// # Errors
    /// `unknown_chat`, `unknown_secret`, a requester that is not live, or [`super::StoreError`].
    pub async fn fetch_secret(&self, who: Requester, request: &FetchSecret) -> Result<SealedSecret, Failure> {
        let (chat_id, secret_id) = (request.chat_id, request.secret_id);
        self.write("fetch_secret", async |tx| {
            turn_away(tx, who, chat_id).await?;
            require_live(tx, who.user_id, who.session_id).await?;
            let statement = "SELECT revision, signed, value, kept_signed, kept_value FROM group_secrets \
                 WHERE chat_id = $1 AND id = $2 AND deleted_at IS NULL";
            let row = tx.query_opt(statement, &[&chat_id.0, &secret_id.0]).await?.ok_or_else(unknown_secret)?;
            let noted = Noted { secret_id, action: SecretAction::Read, revision: number(&row, "revision")? };
            note(tx, who, chat_id, noted, None).await?;
            let current = sealed(&row, "signed", "value")?.ok_or_else(unknown_secret)?;
            let last_seq = last_seq(tx, chat_id).await?;
            Ok(SealedSecret { last_seq, current, kept: sealed(&row, "kept_signed", "kept_value")? })
        })
        .await
    }

    /// Forgets what a re-encryption was made of: a second member has opened both (G3). Also if that was done before.
    ///
    /// # Errors
    /// `unknown_chat`, `unknown_secret`, `edit_conflict` if it is not the newest revision, `malformed` if the requester's
    /// user made it, a requester that is not live, or [`super::StoreError`].
    pub async fn confirm_secret(&self, who: Requester, request: &ConfirmSecret) -> Result<(), Failure> {
        let (chat_id, secret_id) = (request.chat_id, request.secret_id);
        self.write("confirm_secret", async |tx| {
            turn_away(tx, who, chat_id).await?;
            if ChatHead::lock(tx, chat_id).await?.is_none() {
                return Err(unknown_chat().into());
            }
            member(tx, who, chat_id).await?;
            let stored = stored(tx, chat_id, secret_id).await?.ok_or_else(unknown_secret)?;
            let live = stored.live.ok_or_else(unknown_secret)?;
            if stored.revision != request.revision {
                return Err(conflict(stored.revision.next(), "not the newest revision").into());
            }
            if live.kept.is_none() {
                return Ok(());
            }
            if live.sealed_by == who.user_id {
                let message = "whoever sealed it again is not a second member";
                return Err(Refusal::new(ErrorCode::Malformed, message).into());
            }
            let statement = "UPDATE group_secrets SET kept_signed = NULL, kept_value = NULL, kept_hash = NULL, \
                     kept_generation = NULL WHERE chat_id = $1 AND id = $2";
            tx.execute(statement, &[&chat_id.0, &secret_id.0]).await?;
            let noted = Noted { secret_id, action: SecretAction::Confirm, revision: stored.revision };
            note(tx, who, chat_id, noted, None).await
        })
        .await
    }

    /// Reads what was done with a chat's secrets, the newest first.
    ///
    /// # Errors
    /// `unknown_chat`, a requester that is not live, or [`super::StoreError`].
    pub async fn secret_log(&self, who: Requester, request: &FetchSecretLog) -> Result<SecretLog, Failure> {
        let chat_id = request.chat_id;
        let limit = usize::try_from(SECRET_LOG_ENTRIES_PER_REQUEST_MAX).unwrap_or(usize::MAX);
        self.read("secret_log", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            turn_away(tx, who, chat_id).await?;
            let statement = "SELECT id, secret_id, user_id, session_id, action, revision, created_at \
                 FROM group_secret_audit WHERE chat_id = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
            let before: Option<i64> = request.before.map(bigint);
            let one_more = i64::from(SECRET_LOG_ENTRIES_PER_REQUEST_MAX) + 1;
            let rows = tx.query(statement, &[&chat_id.0, &before, &one_more]).await?;
            let mut entries = Vec::new();
            for row in rows.iter().take(limit) {
                let action = SecretAction::from_word(get(row, "action")?);
                entries.push(SecretLogEntry {
                    number: number(row, "id")?,
                    secret_id: id(row, "secret_id", SecretId)?,
                    user_id: id(row, "user_id", UserId)?,
                    session_id: id(row, "session_id", SessionId)?,
                    action: action.ok_or(super::StoreError::Corrupt { what: "group_secret_audit.action" })?,
                    revision: number(row, "revision")?,
                    created_at: timestamp(row, "created_at")?,
                });
            }
            Ok(SecretLog { entries, more: rows.len() > limit })
        })
        .await
    }
}

fn check_form(request: &SetSecret) -> Result<(), Refusal> {
    let secret = &request.secret.secret;
    for (part, limit) in [(&secret.name, SECRET_NAME_BYTES_MAX), (&request.value, SECRET_VALUE_BYTES_MAX)] {
        if part.len() > limit {
            return Err(Refusal::limit(ErrorCode::TooLarge, "a secret's name or value is too long", limit as u64));
        }
    }
    let is_sealed = secret.name.len() >= SEAL_BYTES && request.value.len() >= SEAL_BYTES;
    let is_signed_value = crate::protocol::canonical::sha256(request.value.as_ref()) == secret.value_hash;
    if !secret.is_whole() || !is_sealed || !is_signed_value {
        return Err(Refusal::new(ErrorCode::Malformed, "not a revision of a secret, or of another value"));
    }
    Ok(())
}

/// Bytes of a ciphertext of nothing: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

fn bad_signature() -> Refusal {
    Refusal::new(ErrorCode::BadSignature, "not signed by the session that is logged in")
}

fn unknown_secret() -> Refusal {
    Refusal::new(ErrorCode::UnknownSecret, "no such secret, or no longer")
}

fn conflict(next: Revision, message: &'static str) -> Refusal {
    let details = ErrorDetails { revision: Some(next), ..ErrorDetails::default() };
    Refusal::with(ErrorCode::EditConflict, message, details)
}

async fn check_right(
    tx: &Transaction<'_>,
    who: Requester,
    chat_id: ChatId,
    right: &str,
    code: ErrorCode,
) -> Result<(), Failure> {
    let statement = format!("SELECT 1 FROM user_in_chat WHERE chat_id = $1 AND user_id = $2 AND {right}");
    match tx.query_opt(&statement, &[&chat_id.0, &who.user_id.0]).await? {
        Some(_) => Ok(()),
        None => Err(Refusal::new(code, "may not change this secret").into()),
    }
}

/// The generation must be the current one (G2).
async fn check_generation(tx: &Transaction<'_>, head: &ChatHead, generation: GenerationNo) -> Result<(), Failure> {
    let seq = Some(head.last_seq);
    match head.recovery_key() {
        Some(current) if current.generation == generation => Ok(()),
        Some(_) => {
            let details = ErrorDetails { seq, ..ErrorDetails::default() };
            let message = "sealed under another generation than the current one";
            Err(Refusal::with(ErrorCode::GroupKeyExists, message, details).into())
        }
        None => {
            let member_keys = super::group_keys::member_keys(tx, head.chat_id).await?.len();
            let details = ErrorDetails { seq, generation: head.generation_due(member_keys), ..ErrorDetails::default() };
            Err(Refusal::with(ErrorCode::GroupKeyDue, "there is no current group key to seal under", details).into())
        }
    }
}

/// The revision is the next, after the one that it names (G1).
fn check_place(stored: Option<&Stored>, revision: Revision, previous: Option<&Hash>) -> Result<(), Refusal> {
    let next = stored.map_or(Revision::default(), |stored| stored.revision).next();
    let is_next = revision == next && previous == stored.map(|stored| &stored.hash);
    let is_over = stored.is_some_and(|stored| stored.live.is_none());
    if is_over {
        return Err(unknown_secret());
    }
    if is_next { Ok(()) } else { Err(conflict(next, "the revision is not the next")) }
}

async fn check_set(
    tx: &Transaction<'_>,
    head: &ChatHead,
    secret: &SecretRevision,
    stored: Option<&Stored>,
) -> Result<(), Failure> {
    if secret.changed_seq > head.last_seq {
        return Err(Refusal::new(ErrorCode::Malformed, "the log is not that long").into());
    }
    if stored.is_some() {
        return Ok(());
    }
    let statement = "SELECT count(*) AS count FROM group_secrets WHERE chat_id = $1 AND deleted_at IS NULL";
    let count: i64 = get(&tx.query_one(statement, &[&head.chat_id.0]).await?, "count")?;
    if count.unsigned_abs() >= SECRETS_MAX {
        return Err(Refusal::limit(ErrorCode::LimitReached, "the chat has too many secrets", SECRETS_MAX).into());
    }
    Ok(())
}

/// What is sealed again says when it was set, names what stays beside it, and is needed.
fn check_reseal(secret: &SecretRevision, stored: Option<&Stored>) -> Result<(), Refusal> {
    let Some((stored, live)) = stored.and_then(|stored| Some((stored, stored.live.as_ref()?))) else {
        return Err(unknown_secret());
    };
    let source = live.kept.unwrap_or(stored.hash);
    let is_needed = live.kept.is_some() || live.generation < secret.generation;
    if !is_needed || secret.source != Some(source) || secret.changed_seq != live.changed_seq {
        let message = "sealed again for nothing, or made of something else than what is kept";
        return Err(Refusal::new(ErrorCode::Malformed, message));
    }
    Ok(())
}

async fn check_rate(tx: &Transaction<'_>, who: Requester, chat_id: ChatId) -> Result<(), Failure> {
    let statement = "SELECT count(*) AS count FROM group_secret_audit WHERE chat_id = $1 AND user_id = $2 \
         AND action IN ('create', 'change', 'delete') AND created_at > clock_timestamp() - interval '1 minute'";
    let count: i64 = get(&tx.query_one(statement, &[&chat_id.0, &who.user_id.0]).await?, "count")?;
    if count.unsigned_abs() >= SECRET_WRITES_PER_MINUTE_MAX {
        return Err(Refusal::later("too many secrets are written", WRITES_PAUSE).into());
    }
    Ok(())
}

async fn stored(tx: &Transaction<'_>, chat_id: ChatId, secret_id: SecretId) -> Result<Option<Stored>, Failure> {
    let statement = "SELECT revision, hash, generation, changed_seq, writer_id, sealed_by, kept_hash FROM group_secrets \
         WHERE chat_id = $1 AND id = $2";
    let Some(row) = tx.query_opt(statement, &[&chat_id.0, &secret_id.0]).await? else { return Ok(None) };
    let live = match get::<Option<i64>>(&row, "generation")? {
        Some(generation) => Some(Live {
            generation: number_of(generation, "group_secrets.generation")?,
            changed_seq: number(&row, "changed_seq")?,
            writer_id: id(&row, "writer_id", UserId)?,
            sealed_by: id(&row, "sealed_by", UserId)?,
            kept: fixed_or_null(&row, "kept_hash")?,
        }),
        None => None,
    };
    Ok(Some(Stored { revision: number(&row, "revision")?, hash: fixed(&row, "hash")?, live }))
}

async fn last_seq(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Seq, Failure> {
    Ok(number(&tx.query_one("SELECT last_seq FROM chats WHERE id = $1", &[&chat_id.0]).await?, "last_seq")?)
}

/// A revision with its value; none where there is none.
fn sealed(row: &Row, signed: &'static str, value: &'static str) -> Result<Option<SealedRevision>, Failure> {
    let (Some(packed), Some(value)) = (get::<Option<&[u8]>>(row, signed)?, get::<Option<Vec<u8>>>(row, value)?) else {
        return Ok(None);
    };
    Ok(Some(SealedRevision { secret: unpack(packed, signed)?, value: Blob::from(value) }))
}

/// Whether a request was done before: also when others have written since, for to do it again would undo that.
async fn is_repeat(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    secret_id: SecretId,
    signature: &Signature,
) -> Result<bool, Failure> {
    let statement = "SELECT 1 FROM group_secret_audit WHERE chat_id = $1 AND secret_id = $2 AND signature = $3 LIMIT 1";
    Ok(tx.query_opt(statement, &[&chat_id.0, &secret_id.0, &signature.as_ref()]).await?.is_some())
}

async fn save(tx: &Transaction<'_>, who: Requester, request: &SetSecret) -> Result<(), Failure> {
    let (chat_id, signed) = (request.chat_id, &request.secret);
    let secret = &signed.secret;
    let (hash, packed) = (signed.hash(chat_id), pack(signed, "group_secrets.signed")?);
    let revision = bigint(secret.revision);
    let generation = bigint(secret.generation);
    // Of what is sealed again the oldest that nobody has compared yet is kept, and it stays whose it was.
    let statement = match secret.write {
        SecretWrite::Set => {
            "INSERT INTO group_secrets AS s (chat_id, id, revision, hash, signed, generation, value, sealed_by, \
                 changed_seq, writer_id, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, clock_timestamp()) \
             ON CONFLICT (chat_id, id) DO UPDATE SET revision = excluded.revision, hash = excluded.hash, \
                 signed = excluded.signed, generation = excluded.generation, value = excluded.value, \
                 sealed_by = excluded.sealed_by, changed_seq = excluded.changed_seq, writer_id = excluded.writer_id, \
                 changed_at = excluded.changed_at, kept_signed = NULL, kept_value = NULL, kept_hash = NULL, \
                 kept_generation = NULL"
        }
        SecretWrite::Reseal => {
            "UPDATE group_secrets SET kept_signed = coalesce(kept_signed, signed), \
                 kept_value = coalesce(kept_value, value), kept_hash = coalesce(kept_hash, hash), \
                 kept_generation = coalesce(kept_generation, generation), revision = $3, hash = $4, signed = $5, \
                 generation = $6, value = $7, sealed_by = $8 WHERE chat_id = $1 AND id = $2 AND changed_seq = $9"
        }
    };
    tx.execute(
        statement,
        &[
            &chat_id.0,
            &secret.secret_id.0,
            &revision,
            &hash.as_ref(),
            &packed,
            &generation,
            &request.value.as_ref(),
            &who.user_id.0,
            &bigint(secret.changed_seq),
        ],
    )
    .await?;
    Ok(())
}

/// What is noted of an action.
#[derive(Clone, Copy)]
struct Noted {
    secret_id: SecretId,
    action: SecretAction,
    revision: Revision,
}

/// Notes who did what, and forgets what is older than so many others.
async fn note(
    tx: &Transaction<'_>,
    who: Requester,
    chat_id: ChatId,
    noted: Noted,
    signature: Option<&Signature>,
) -> Result<(), Failure> {
    let insert = "INSERT INTO group_secret_audit (chat_id, secret_id, user_id, session_id, action, revision, signature) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let signature: Option<&[u8]> = signature.map(|signature| signature.as_ref());
    let (action, revision) = (noted.action.as_str(), bigint(noted.revision));
    let who = (&who.user_id.0, &who.session_id.0);
    tx.execute(insert, &[&chat_id.0, &noted.secret_id.0, who.0, who.1, &action, &revision, &signature]).await?;
    let prune = "DELETE FROM group_secret_audit WHERE chat_id = $1 AND id <= \
         (SELECT id FROM group_secret_audit WHERE chat_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)";
    tx.execute(prune, &[&chat_id.0, &bigint(SECRET_LOG_MAX)]).await?;
    Ok(())
}

/// Members who hold wraps of generations.
async fn openers(tx: &Transaction<'_>, chat_id: ChatId, mut generations: Vec<i64>) -> Result<Vec<Openers>, Failure> {
    generations.sort_unstable();
    generations.dedup();
    let statement = "SELECT o.generation, h.user_id FROM chats c \
         CROSS JOIN unnest($2::bigint[]) AS o (generation) \
         LEFT JOIN LATERAL (SELECT DISTINCT g.user_id FROM group_keys g \
             JOIN user_in_chat m ON m.chat_id = g.group_id AND m.user_id = g.user_id \
             WHERE g.group_id = c.id AND g.generation = o.generation ORDER BY g.user_id LIMIT $3) h ON true \
         WHERE c.id = $1 ORDER BY o.generation, h.user_id";
    let mut openers: Vec<Openers> = Vec::new();
    for row in tx.query(statement, &[&chat_id.0, &generations, &i64::from(SECRET_OPENERS_MAX)]).await? {
        let generation = number(&row, "generation")?;
        if openers.last().is_none_or(|last| last.generation != generation) {
            openers.push(Openers { generation, users: Vec::new() });
        }
        let user_id: Option<Uuid> = get(&row, "user_id")?;
        if let (Some(last), Some(user_id)) = (openers.last_mut(), user_id) {
            last.users.push(UserId(user_id));
        }
    }
    Ok(openers)
}

/// The sessions that are told of a change.
async fn listeners(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Vec<SessionId>, Failure> {
    let statement = "SELECT s.id FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = $1";
    let found = tx.query(statement, &[&chat_id.0]).await?;
    Ok(found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?)
}
