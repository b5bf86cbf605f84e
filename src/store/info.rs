//! What chats are called: saved under keys that nobody holds who has lost access, and those keys handed on.
//!
//! A key is stale if the log has an entry that took a recipient away (a member removed, leaving or whose account ended,
//! a live session revoked or expired) after the newest one that the key's maker had folded. Whether that session had a
//! wrap does not matter: a hand-over may have brought it the key. The next save brings a new key.
//! Invariants: I1 each save is the revision after the one before. I2 nothing is saved under a key that is stale. I3 a
//! wrap is stored only of the current key, for a recipient, signed by the session that brings it.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::copies::member;
use super::error::{Failure, StoreError};
use super::head::ChatHead;
use super::info_seals::{IS_SEAL_DUE, check_seal, forget_seals, put_seal};
use super::members::{Requester, turn_away, unknown_chat};
use super::rows::{bigint, fixed, get, id, number, number_of};
use super::sealed_info::{check_parts, check_wrap_count, part_bytes};
use super::transaction::Transaction;
use crate::protocol::binary::{Blob, SigningKey};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{ChatInfoChanged, RequestInfoKey, SetChatInfo, UploadInfoKeys};
use crate::protocol::ids::{ChatId, GenerationNo, InfoKeyId, Revision, Seq, SessionId};
use crate::protocol::info::{SealedInfo, SignedInfo};
use crate::protocol::keys::{InfoKeyWrap, SealedName};
use crate::protocol::limits::{DESCRIPTION_BYTES_MAX, INFO_KEY_WRAPS_PER_CHAT_MAX, NAME_BYTES_MAX};
use crate::protocol::verify::Verifier;

/// Sessions that are told of at most for one holder that comes online.
const OPEN_MAX: i64 = 2_000;

/// Saves that a repeat is known by: what is older than so many others is not waited for any more.
const RECENT_MAX: i32 = 16;

/// Who lacks a chat's info key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingInfoKey {
    /// The chat.
    pub chat_id: ChatId,
    /// Its newest entry.
    pub last_seq: Seq,
    /// Its current key.
    pub key_id: InfoKeyId,
    /// The sessions, the oldest request first.
    pub session_ids: Vec<SessionId>,
    /// The generation to whose recovery key it is not sealed yet.
    pub generation: Option<GenerationNo>,
}

/// What a chat's row says of its name.
struct Current {
    key_id: Option<Uuid>,
    revision: Revision,
    /// Signatures of the newest saves.
    recent: Vec<Vec<u8>>,
    key_seq: Seq,
    lost_seq: Seq,
}

impl Store {
    /// Saves what a chat is called. `false`: it is saved already, by this very request.
    ///
    /// # Errors
    /// `too_large`, `unknown_chat`, `bad_signature`, `cannot_manage`, `edit_conflict`, `info_key_stale`, `malformed`,
    /// `recipients_changed`, a requester that is not live, [`Failure::ExpiryDue`], or [`StoreError`].
    pub async fn set_chat_info(&self, who: Requester, request: &SetChatInfo) -> Result<bool, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.info);
        let info = &signed.info;
        check_sizes(info)?;
        check_wrap_count(request.info_keys.len(), INFO_KEY_WRAPS_PER_CHAT_MAX)?;
        self.write("set_chat_info", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let (signing_key, _) = member(tx, who, chat_id).await?;
            if info.session_id != who.session_id || !signed.verifies(chat_id, &signing_key) {
                let message = "what is saved is not signed by the session that is logged in";
                return Err(Refusal::new(ErrorCode::BadSignature, message).into());
            }
            let current = current(tx, chat_id).await?;
            // Also when others have saved since: to save it again would undo what they saved.
            if current.recent.iter().any(|known| *known == signed.signature.as_ref()) {
                return Ok(false);
            }
            check_manager(tx, who, chat_id).await?;
            if head.expiry_due {
                return Err(Failure::ExpiryDue);
            }
            if info.revision != current.revision.next() {
                let details = ErrorDetails { revision: Some(current.revision.next()), ..ErrorDetails::default() };
                let message = "the revision is not the next";
                return Err(Refusal::with(ErrorCode::EditConflict, message, details).into());
            }
            let is_new_key = current.key_id != Some(info.key_id.0);
            if !is_new_key && info.key_seq != current.key_seq || info.key_seq > head.last_seq {
                return Err(Refusal::new(ErrorCode::Malformed, "the key was not made after that entry").into());
            }
            if current.lost_seq > info.key_seq {
                let details = ErrorDetails { seq: Some(current.lost_seq), ..ErrorDetails::default() };
                let message = "somebody who could open the info key has lost access since";
                return Err(Refusal::with(ErrorCode::InfoKeyStale, message, details).into());
            }
            if is_new_key {
                check_wraps(tx, who, &head, info.key_id, &request.info_keys, &signing_key).await?;
                if !request.info_keys.iter().any(|wrap| wrap.session_id == who.session_id) {
                    let message = "a new info key is wrapped to the session that saves, too";
                    return Err(Refusal::new(ErrorCode::Malformed, message).into());
                }
                if let Some(seal) = &request.seal {
                    check_seal(who, &head, info.key_id, seal, &signing_key)?;
                }
                tx.execute("DELETE FROM vault_chat_info_keys WHERE chat_id = $1", &[&chat_id.0]).await?;
                forget_seals(tx, chat_id).await?;
                insert_wraps(tx, chat_id, &request.info_keys).await?;
                if let Some(seal) = &request.seal {
                    put_seal(tx, chat_id, seal).await?;
                }
            } else if !request.info_keys.is_empty() || request.seal.is_some() {
                let message = "wraps of the current info key are not saved with a name";
                return Err(Refusal::new(ErrorCode::Malformed, message).into());
            }
            save(tx, chat_id, signed).await?;
            Ok(true)
        })
        .await
    }

    /// Stores wraps and a seal of a chat's current info key where there are none; gives the sessions that have one now and had
    /// none before.
    ///
    /// # Errors
    /// `too_large`, `unknown_chat`, `unknown_key` unless all are of the current key, `malformed`, `bad_signature`,
    /// `recipients_changed`, a requester that is not live, or [`StoreError`].
    pub async fn upload_info_keys(&self, who: Requester, request: &UploadInfoKeys) -> Result<Vec<SessionId>, Failure> {
        let chat_id = request.chat_id;
        check_wrap_count(request.info_keys.len(), INFO_KEY_WRAPS_PER_CHAT_MAX)?;
        self.write("upload_info_keys", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let (signing_key, _) = member(tx, who, chat_id).await?;
            let current = current(tx, chat_id).await?;
            let key_id = request.info_keys.first().map(|wrap| wrap.key_id);
            let key_id = key_id.or_else(|| request.seal.as_ref().map(|seal| seal.key_id));
            let Some(key_id) = key_id else { return Ok(Vec::new()) };
            if current.key_id != Some(key_id.0) {
                return Err(Refusal::new(ErrorCode::UnknownKey, "not the chat's current info key").into());
            }
            check_wraps(tx, who, &head, key_id, &request.info_keys, &signing_key).await?;
            if let Some(seal) = &request.seal {
                check_seal(who, &head, key_id, seal, &signing_key)?;
                put_seal(tx, chat_id, seal).await?;
            }
            insert_wraps(tx, chat_id, &request.info_keys).await
        })
        .await
    }

    /// Forgets the wrap that a session was given, and notes that it lacks the key.
    ///
    /// # Errors
    /// `unknown_chat`, `unknown_key` for a chat without an info key, a requester that is not live, or [`StoreError`].
    pub async fn request_info_key(&self, who: Requester, request: &RequestInfoKey) -> Result<(), Failure> {
        let chat_id = request.chat_id;
        self.write("request_info_key", async |tx| {
            turn_away(tx, who, chat_id).await?;
            if ChatHead::lock(tx, chat_id).await?.is_none() {
                return Err(unknown_chat().into());
            }
            member(tx, who, chat_id).await?;
            if current(tx, chat_id).await?.key_id.is_none() {
                return Err(Refusal::new(ErrorCode::UnknownKey, "the chat has no info key").into());
            }
            let statement = "DELETE FROM vault_chat_info_keys WHERE chat_id = $1 AND session_id = $2";
            tx.execute(statement, &[&chat_id.0, &who.session_id.0]).await?;
            let statement =
                "INSERT INTO info_key_requests (chat_id, session_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            tx.execute(statement, &[&chat_id.0, &who.session_id.0]).await?;
            Ok(())
        })
        .await
    }

    /// Notes which recipients of some chats lack the info key; gives the chats in which any does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_lacking_info_keys(&self, chats: &[ChatId]) -> Result<BTreeSet<ChatId>, Failure> {
        let chats: Vec<Uuid> = chats.iter().map(|chat_id| chat_id.0).collect();
        self.note_lacking("c.id", &chats).await
    }

    /// The same of one session, in all of its chats.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn note_info_keys_lacking_to(&self, who: Requester) -> Result<BTreeSet<ChatId>, Failure> {
        self.note_lacking("s.id", &[who.session_id.0]).await
    }

    /// Notes who lacks a key, of the chats or sessions whose `column` is one of `ids`. Mostly nobody does, so it is
    /// looked before anything is written.
    async fn note_lacking(&self, column: &str, ids: &[Uuid]) -> Result<BTreeSet<ChatId>, Failure> {
        let chats = self.read("lacking_info_keys", async |tx| lacking(tx, column, ids).await).await?;
        if !chats.is_empty() {
            let lacking = who_lacks(column);
            let note = format!("INSERT INTO info_key_requests (chat_id, session_id) {lacking} ON CONFLICT DO NOTHING");
            self.write("note_lacking_info_keys", async |tx| {
                tx.execute(&note, &[&ids]).await?;
                Ok(())
            })
            .await?;
        }
        Ok(chats)
    }

    /// Who lacks a chat's current info key, the recovery key too, and which recipients have a wrap of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lacking_info_key(
        &self,
        chat_id: ChatId,
    ) -> Result<Option<(LackingInfoKey, BTreeSet<SessionId>)>, Failure> {
        self.read("lacking_info_key", async |tx| {
            let statement = format!(
                "SELECT c.last_seq, c.info_key_id, s.id, v.session_id IS NOT NULL AS is_held, \
                     CASE WHEN {IS_SEAL_DUE} THEN c.group_key_generation END AS generation \
                 FROM chats c JOIN user_in_chat m ON m.chat_id = c.id \
                 JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
                 LEFT JOIN vault_chat_info_keys v ON v.chat_id = c.id AND v.key_id = c.info_key_id AND v.session_id = s.id \
                 LEFT JOIN info_key_requests r ON r.chat_id = c.id AND r.session_id = s.id \
                 WHERE c.id = $1 AND c.info_key_id IS NOT NULL ORDER BY r.created_at, s.id"
            );
            let (mut lacking, mut holders, mut key) = (Vec::new(), BTreeSet::new(), None);
            for row in tx.query(&statement, &[&chat_id.0]).await? {
                let generation: Option<i64> = get(&row, "generation")?;
                let generation = generation.map(|number| number_of(number, "group_key_generation")).transpose()?;
                key = Some((number(&row, "last_seq")?, id(&row, "info_key_id", InfoKeyId)?, generation));
                let session_id = id(&row, "id", SessionId)?;
                if get(&row, "is_held")? {
                    holders.insert(session_id);
                } else {
                    lacking.push(session_id);
                }
            }
            lacking.truncate(INFO_KEY_WRAPS_PER_CHAT_MAX);
            Ok(key.map(|(last_seq, key_id, generation)| {
                (LackingInfoKey { chat_id, last_seq, key_id, session_ids: lacking, generation }, holders)
            }))
        })
        .await
    }

    /// What a chat is called, as its recipients are shown it, or those of them that are named.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shown_infos(
        &self,
        chat_id: ChatId,
        among: Option<&[SessionId]>,
    ) -> Result<Vec<(SessionId, ChatInfoChanged)>, Failure> {
        let among: Option<Vec<Uuid>> = among.map(|among| among.iter().map(|session_id| session_id.0).collect());
        self.read("shown_infos", async |tx| {
            let statement = "SELECT c.last_seq, c.name, c.description, c.info_key_id, c.info_revision, c.info_session_id, \
                 c.info_key_seq, c.info_signature, s.id, v.key, v.wrapped_by_session_id, v.signature \
                 FROM chats c JOIN user_in_chat m ON m.chat_id = c.id \
                 JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
                 LEFT JOIN vault_chat_info_keys v ON v.chat_id = c.id AND v.key_id = c.info_key_id AND v.session_id = s.id \
                 WHERE c.id = $1 AND c.info_key_id IS NOT NULL AND ($2::uuid[] IS NULL OR s.id = ANY($2))";
            let mut shown = Vec::new();
            for row in tx.query(statement, &[&chat_id.0, &among]).await? {
                let session_id = id(&row, "id", SessionId)?;
                let (name, info, info_key) = parts_of(&row, session_id)?;
                let last_seq: Seq = number(&row, "last_seq")?;
                shown.push((session_id, ChatInfoChanged { chat_id, last_seq, name, info, info_key }));
            }
            Ok(shown)
        })
        .await
    }
}

/// The recipients that lack their chat's info key, where `column` is one of `$1`.
fn who_lacks(column: &str) -> String {
    format!(
        "SELECT c.id AS chat_id, s.id AS session_id FROM chats c \
             JOIN user_in_chat m ON m.chat_id = c.id \
             JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
             WHERE {column} = ANY($1) AND c.info_key_id IS NOT NULL AND NOT EXISTS \
                 (SELECT 1 FROM vault_chat_info_keys v \
                 WHERE v.chat_id = c.id AND v.key_id = c.info_key_id AND v.session_id = s.id)"
    )
}

async fn lacking(tx: &Transaction<'_>, column: &str, ids: &[Uuid]) -> Result<BTreeSet<ChatId>, Failure> {
    let found = tx.query(&who_lacks(column), &[&ids]).await?;
    Ok(found.iter().map(|row| id(row, "chat_id", ChatId)).collect::<Result<_, _>>()?)
}

/// The chats whose info key a session lacks.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn chats_lacking_to(tx: &Transaction<'_>, who: Requester) -> Result<BTreeSet<ChatId>, Failure> {
    lacking(tx, "s.id", &[who.session_id.0]).await
}

/// What others lack that a session holds, the oldest first, a bounded number of sessions.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn open_info_key_requests(
    tx: &Transaction<'_>,
    holder: Requester,
) -> Result<Vec<LackingInfoKey>, Failure> {
    let statement = "SELECT r.chat_id, c.last_seq, c.info_key_id, r.session_id FROM user_in_chat m \
         JOIN chats c ON c.id = m.chat_id \
         JOIN vault_chat_info_keys h ON h.chat_id = c.id AND h.key_id = c.info_key_id AND h.session_id = $2 \
         JOIN info_key_requests r ON r.chat_id = c.id AND r.session_id <> $2 \
         JOIN user_sessions s ON s.id = r.session_id AND s.state = 'live' \
         JOIN user_in_chat reader ON reader.chat_id = c.id AND reader.user_id = s.user_id \
         WHERE m.user_id = $1 ORDER BY r.chat_id, r.created_at LIMIT $3";
    let mut open: Vec<LackingInfoKey> = Vec::new();
    for row in tx.query(statement, &[&holder.user_id.0, &holder.session_id.0, &OPEN_MAX]).await? {
        let (chat_id, session_id) = (id(&row, "chat_id", ChatId)?, id(&row, "session_id", SessionId)?);
        match open.last_mut() {
            Some(last) if last.chat_id == chat_id && last.session_ids.len() < INFO_KEY_WRAPS_PER_CHAT_MAX => {
                last.session_ids.push(session_id);
            }
            Some(last) if last.chat_id == chat_id => {}
            _ => {
                let key_id = id(&row, "info_key_id", InfoKeyId)?;
                let last_seq = number(&row, "last_seq")?;
                let session_ids = vec![session_id];
                open.push(LackingInfoKey { chat_id, last_seq, key_id, session_ids, generation: None });
            }
        }
    }
    Ok(open)
}

/// The name that a chat was made with, what was saved since, and the key of either.
pub(super) type Parts = (Option<SealedName>, Option<SignedInfo>, Option<InfoKeyWrap>);

/// Name, saved info and key of a row with the columns of a chat and of a wrap.
pub(super) fn parts_of(row: &Row, session_id: SessionId) -> Result<Parts, StoreError> {
    let Some(key_id) = get::<Option<Uuid>>(row, "info_key_id")?.map(InfoKeyId) else { return Ok((None, None, None)) };
    let wrapped_by: Option<Uuid> = get(row, "wrapped_by_session_id")?;
    let info_key = match wrapped_by {
        Some(wrapped_by) => Some(InfoKeyWrap {
            session_id,
            key_id,
            key: fixed(row, "key")?,
            wrapped_by_session_id: SessionId(wrapped_by),
            signature: fixed(row, "signature")?,
        }),
        None => None,
    };
    let name = get::<Option<Vec<u8>>>(row, "name")?.map(Blob::from);
    let Some(saved_by) = get::<Option<Uuid>>(row, "info_session_id")? else {
        return Ok((name.map(|data| SealedName { key_id, data }), None, info_key));
    };
    let description = get::<Option<Vec<u8>>>(row, "description")?.map(Blob::from);
    let revision = number(row, "info_revision")?;
    let (session_id, key_seq) = (SessionId(saved_by), number(row, "info_key_seq")?);
    let info = SealedInfo { revision, key_id, key_seq, session_id, name, description };
    Ok((None, Some(SignedInfo { info, signature: fixed(row, "info_signature")? }), info_key))
}

fn check_sizes(info: &SealedInfo) -> Result<(), Refusal> {
    let parts = [(&info.name, NAME_BYTES_MAX), (&info.description, DESCRIPTION_BYTES_MAX)];
    check_parts(&parts, "name or description is too long")
}

async fn current(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Current, Failure> {
    let statement =
        "SELECT info_key_id, info_revision, info_recent, info_key_seq, info_lost_seq FROM chats WHERE id = $1";
    let row = tx.query_one(statement, &[&chat_id.0]).await?;
    Ok(Current {
        key_id: get(&row, "info_key_id")?,
        revision: number(&row, "info_revision")?,
        recent: get(&row, "info_recent")?,
        key_seq: number(&row, "info_key_seq")?,
        lost_seq: number(&row, "info_lost_seq")?,
    })
}

async fn check_manager(tx: &Transaction<'_>, who: Requester, chat_id: ChatId) -> Result<(), Failure> {
    let statement = "SELECT 1 FROM user_in_chat WHERE chat_id = $1 AND user_id = $2 AND can_manage";
    match tx.query_opt(statement, &[&chat_id.0, &who.user_id.0]).await? {
        Some(_) => Ok(()),
        None => Err(Refusal::new(ErrorCode::CannotManage, "may not say what the chat is called").into()),
    }
}

/// Each wrap is of the key, by the session that brings it, and for a recipient of the chat (I3).
async fn check_wraps(
    tx: &Transaction<'_>,
    who: Requester,
    head: &ChatHead,
    key_id: InfoKeyId,
    wraps: &[InfoKeyWrap],
    signing_key: &SigningKey,
) -> Result<(), Failure> {
    let sessions: BTreeSet<Uuid> = wraps.iter().map(|wrap| wrap.session_id.0).collect();
    if sessions.len() != wraps.len() || wraps.iter().any(|wrap| wrap.key_id != key_id) {
        let message = "the wraps are not of one key, each for another session";
        return Err(Refusal::new(ErrorCode::Malformed, message).into());
    }
    let is_signed = |wrap: &InfoKeyWrap| {
        wrap.wrapped_by_session_id == who.session_id
            && signing_key.verifies(&wrap.signed_bytes(head.chat_id), &wrap.signature)
    };
    if !wraps.iter().all(is_signed) {
        return Err(Refusal::new(ErrorCode::BadSignature, "a wrap of the info key does not verify").into());
    }
    let sessions: Vec<Uuid> = sessions.into_iter().collect();
    let statement = "SELECT s.id FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = $1 AND s.id = ANY($2)";
    let mut recipients = BTreeSet::new();
    for row in tx.query(statement, &[&head.chat_id.0, &sessions]).await? {
        recipients.insert(get::<Uuid>(&row, "id")?);
    }
    let extra: Vec<SessionId> =
        sessions.into_iter().filter(|session_id| !recipients.contains(session_id)).map(SessionId).collect();
    if extra.is_empty() {
        return Ok(());
    }
    let details = ErrorDetails { seq: Some(head.last_seq), extra, ..ErrorDetails::default() };
    let message = "a wrap of the info key is for a session that is no recipient";
    Err(Refusal::with(ErrorCode::RecipientsChanged, message, details).into())
}

/// Stores wraps where there are none; gives their sessions.
async fn insert_wraps(tx: &Transaction<'_>, chat_id: ChatId, wraps: &[InfoKeyWrap]) -> Result<Vec<SessionId>, Failure> {
    let (mut key_ids, mut sessions, mut keys) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    let (mut wrapped_by, mut signatures) = (Vec::new(), Vec::<&[u8]>::new());
    for wrap in wraps {
        key_ids.push(wrap.key_id.0);
        sessions.push(wrap.session_id.0);
        keys.push(wrap.key.as_ref());
        wrapped_by.push(wrap.wrapped_by_session_id.0);
        signatures.push(wrap.signature.as_ref());
    }
    let statement = "INSERT INTO vault_chat_info_keys (chat_id, key_id, session_id, key, wrapped_by_session_id, signature) \
         SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::uuid[], $6::bytea[]) \
         ON CONFLICT DO NOTHING RETURNING session_id";
    let found = tx.query(statement, &[&chat_id.0, &key_ids, &sessions, &keys, &wrapped_by, &signatures]).await?;
    let stored = found.iter().map(|row| id(row, "session_id", SessionId)).collect::<Result<Vec<_>, _>>()?;
    let statement = "DELETE FROM info_key_requests WHERE chat_id = $1 AND session_id = ANY($2)";
    tx.execute(statement, &[&chat_id.0, &sessions]).await?;
    Ok(stored)
}

async fn save(tx: &Transaction<'_>, chat_id: ChatId, signed: &SignedInfo) -> Result<(), Failure> {
    let info = &signed.info;
    let statement = "UPDATE chats SET name = $2, description = $3, info_key_id = $4, info_revision = $5, \
         info_session_id = $6, info_signature = $7, info_key_seq = $8, \
         info_recent = (array_prepend($7, info_recent))[1:$9] WHERE id = $1";
    tx.execute(
        statement,
        &[
            &chat_id.0,
            &part_bytes(&info.name),
            &part_bytes(&info.description),
            &info.key_id.0,
            &bigint(info.revision),
            &info.session_id.0,
            &signed.signature.as_ref(),
            &bigint(info.key_seq),
            &RECENT_MAX,
        ],
    )
    .await?;
    Ok(())
}
