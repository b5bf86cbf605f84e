//! User keys as chats' logs show them, and the generations that are made for them.
//!
//! A user key enters a chat's log with its user, and whenever the strongbox brings another one, in the same
//! transaction. A generation is a change of the recipients: made under the chat's lock, for the newest membership change
//! and the user keys of now alone.

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::head::{self, ChatHead};
use super::info_seals::seal_of;
use super::members::{Requester, turn_away, unknown_chat};
use super::rows::{bigint, fixed, get, id, number, unpack};
use super::sessions::require_live;
use super::transaction::Transaction;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{Changed, FetchGroupKeys, GroupKeys, MakeGeneration, OwnGroupKey, RefuseGeneration};
use crate::protocol::group_key::{GroupKeyWrap, UserKeyEntry, member_keys_hash, wraps_hash};
use crate::protocol::ids::{ChatId, GenerationNo, Seq, UserId, UserKeyId};
use crate::protocol::limits::{GENERATION_REFUSALS_PER_HOUR_MAX, GROUP_KEYS_PER_REQUEST_MAX};
use crate::protocol::log::EntryBody;
use crate::protocol::strongbox::PublicUserKey;
use crate::protocol::verify::Verifier;

impl Store {
    /// Makes the generation that is due. The same request again gets the same answer.
    ///
    /// # Errors
    /// `unknown_chat`, `bad_signature`, `malformed`, `group_key_exists`, `roster_changed` when it was made for other
    /// members or user keys than those of now, or [`super::StoreError`].
    pub async fn make_generation(&self, who: Requester, request: &MakeGeneration) -> Result<Changed, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.generation);
        let generation = &signed.generation;
        self.write("make_generation", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(mut head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            turn_away(tx, who, chat_id).await?;
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            if generation.session_id != who.session_id || !signed.verifies(chat_id, &signing_key) {
                return Err(Refusal::new(ErrorCode::BadSignature, "the generation's signature does not verify").into());
            }
            if !generation.public_key.is_sound() || wraps_hash(&request.wraps) != generation.wraps_hash {
                let message = "the recovery key is unsound, or the wraps are not those that are signed";
                return Err(Refusal::new(ErrorCode::Malformed, message).into());
            }
            if let Some(repeat) = repeat_of(tx, chat_id, &EntryBody::Generation(*signed)).await? {
                return Ok(repeat);
            }
            let keys = member_keys(tx, chat_id).await?;
            let details = ErrorDetails { seq: Some(head.last_seq), ..ErrorDetails::default() };
            if head.generation_due(keys.len()) != Some(generation.number) {
                let message = "another generation came first, or none is due";
                return Err(Refusal::with(ErrorCode::GroupKeyExists, message, details).into());
            }
            let is_current = generation.change_no == head.change_no
                && generation.member_keys_hash == member_keys_hash(keys.iter())
                && are_for(&request.wraps, &keys);
            if !is_current {
                let message = "made for other members or user keys than those of now";
                return Err(Refusal::with(ErrorCode::RosterChanged, message, details).into());
            }
            if head.expiry_due {
                return Err(Failure::ExpiryDue);
            }
            let seq = head.append(EntryBody::Generation(*signed));
            insert_wraps(tx, request, seq).await?;
            head::write_back(tx, &[head]).await?;
            Ok(Changed { seq, duplicate: false })
        })
        .await
    }

    /// Takes a member's word that the current generation is bad: the next one is due.
    ///
    /// # Errors
    /// `unknown_chat`, `bad_signature`, `group_key_exists` if it is not the current one, `limit_reached`, or
    /// [`super::StoreError`].
    pub async fn refuse_generation(&self, who: Requester, request: &RefuseGeneration) -> Result<Changed, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.refusal);
        let refusal = &signed.refusal;
        self.write("refuse_generation", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(mut head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            turn_away(tx, who, chat_id).await?;
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            let verifies = signing_key.verifies(&refusal.signed_bytes(chat_id), &signed.signature);
            if refusal.session_id != who.session_id || !verifies {
                return Err(Refusal::new(ErrorCode::BadSignature, "the refusal's signature does not verify").into());
            }
            if let Some(repeat) = repeat_of(tx, chat_id, &EntryBody::GenerationRefused(*signed)).await? {
                return Ok(repeat);
            }
            if head.recovery_key().is_none_or(|key| key.generation != refusal.number) {
                let details = ErrorDetails { seq: Some(head.last_seq), ..ErrorDetails::default() };
                let message = "the generation is not the current one";
                return Err(Refusal::with(ErrorCode::GroupKeyExists, message, details).into());
            }
            if head.expiry_due {
                return Err(Failure::ExpiryDue);
            }
            note_refusal(tx, who, chat_id, refusal.number).await?;
            let seq = head.append(EntryBody::GenerationRefused(*signed));
            head::write_back(tx, &[head]).await?;
            Ok(Changed { seq, duplicate: false })
        })
        .await
    }

    /// Reads a chat's group keys that were wrapped to one user's keys.
    ///
    /// # Errors
    /// `unknown_chat`, or [`super::StoreError`].
    pub async fn group_keys(&self, who: Requester, request: &FetchGroupKeys) -> Result<GroupKeys, Failure> {
        let limit = usize::try_from(GROUP_KEYS_PER_REQUEST_MAX).unwrap_or(usize::MAX);
        self.read("group_keys", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            turn_away(tx, who, request.chat_id).await?;
            let statement = "SELECT k.generation, k.key_id, k.encrypted_key, s.key_id AS seal_key_id, s.key AS seal_key, \
                     s.sealed_by_session_id, s.signature AS seal_signature \
                 FROM group_keys k JOIN chats c ON c.id = k.group_id \
                 LEFT JOIN info_key_seals s ON s.chat_id = c.id AND s.generation = k.generation AND s.key_id = c.info_key_id \
                 WHERE k.group_id = $1 AND k.user_id = $2 AND k.generation > $3 ORDER BY k.generation, k.key_id LIMIT $4";
            let one_more = i64::from(GROUP_KEYS_PER_REQUEST_MAX) + 1;
            let after = bigint(request.after);
            let rows = tx.query(statement, &[&request.chat_id.0, &who.user_id.0, &after, &one_more]).await?;
            let mut keys = Vec::new();
            for row in rows.iter().take(limit) {
                let generation = number(row, "generation")?;
                keys.push(OwnGroupKey {
                    generation,
                    key_id: id(row, "key_id", UserKeyId)?,
                    key: fixed(row, "encrypted_key")?,
                    info_key: seal_of(row, generation)?,
                });
            }
            Ok(GroupKeys { keys, more: rows.len() > limit })
        })
        .await
    }
}

/// Whether there is one wrap for each user key, and none besides.
fn are_for(wraps: &[GroupKeyWrap], keys: &[PublicUserKey]) -> bool {
    let mut named: Vec<(UserId, UserKeyId)> = wraps.iter().map(|wrap| (wrap.user_id, wrap.key_id)).collect();
    named.sort_unstable();
    named.iter().copied().eq(keys.iter().map(|key| (key.user_id, key.key_id)))
}

/// The user keys that a chat's log shows of its members, in order of the user.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn member_keys(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Vec<PublicUserKey>, Failure> {
    let statement = "SELECT k.user_id, k.key_id, k.public_key, k.signature FROM user_in_chat m \
         JOIN user_keys k ON k.user_id = m.user_id AND k.key_id = m.user_key_id WHERE m.chat_id = $1 ORDER BY k.user_id";
    let mut keys = Vec::new();
    for row in tx.query(statement, &[&chat_id.0]).await? {
        keys.push(PublicUserKey {
            user_id: id(&row, "user_id", UserId)?,
            key_id: id(&row, "key_id", UserKeyId)?,
            public_key: fixed(&row, "public_key")?,
            signature: fixed(&row, "signature")?,
        });
    }
    Ok(keys)
}

/// A user's active key, unless it was withdrawn.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn active_key(tx: &Transaction<'_>, user_id: UserId) -> Result<Option<PublicUserKey>, Failure> {
    let statement = "SELECT key_id, public_key, signature FROM user_keys \
         WHERE user_id = $1 AND is_active AND withdrawn_at IS NULL";
    let Some(row) = tx.query_opt(statement, &[&user_id.0]).await? else { return Ok(None) };
    Ok(Some(PublicUserKey {
        user_id,
        key_id: id(&row, "key_id", UserKeyId)?,
        public_key: fixed(&row, "public_key")?,
        signature: fixed(&row, "signature")?,
    }))
}

/// Puts a user's active key into the logs of chats that show another or none, under the locks of user and chats.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn show_user_key(
    tx: &Transaction<'_>,
    heads: &mut [ChatHead],
    user_id: UserId,
) -> Result<(), Failure> {
    let Some(key) = active_key(tx, user_id).await? else { return Ok(()) };
    let shown = shown_keys(tx, heads, user_id).await?;
    let mut chats = Vec::new();
    for head in heads {
        let before = shown.iter().find(|(chat_id, _)| *chat_id == head.chat_id).and_then(|(_, shown)| *shown);
        if before != Some(key.key_id) {
            head.append_user_key(UserKeyEntry::Set(key), before.is_some());
            chats.push(head.chat_id.0);
        }
    }
    let update = "UPDATE user_in_chat SET user_key_id = $3 WHERE user_id = $1 AND chat_id = ANY($2)";
    tx.execute(update, &[&user_id.0, &chats, &Some(key.key_id.0)]).await?;
    Ok(())
}

/// Takes a user's key out of the logs of chats that show it.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn hide_user_key(
    tx: &Transaction<'_>,
    heads: &mut [ChatHead],
    entry: &UserKeyEntry,
    key_id: UserKeyId,
) -> Result<(), Failure> {
    let user_id = entry.user_id();
    let shown = shown_keys(tx, heads, user_id).await?;
    for head in heads {
        if shown.contains(&(head.chat_id, Some(key_id))) {
            head.append_user_key(entry.clone(), true);
        }
    }
    let update = "UPDATE user_in_chat SET user_key_id = NULL WHERE user_id = $1 AND user_key_id = $2";
    tx.execute(update, &[&user_id.0, &key_id.0]).await?;
    let update = "UPDATE user_keys SET withdrawn_at = clock_timestamp() WHERE user_id = $1 AND key_id = $2";
    tx.execute(update, &[&user_id.0, &key_id.0]).await?;
    Ok(())
}

async fn shown_keys(
    tx: &Transaction<'_>,
    heads: &[ChatHead],
    user_id: UserId,
) -> Result<Vec<(ChatId, Option<UserKeyId>)>, Failure> {
    let chats: Vec<Uuid> = heads.iter().map(|head| head.chat_id.0).collect();
    let statement = "SELECT chat_id, user_key_id FROM user_in_chat WHERE user_id = $1 AND chat_id = ANY($2)";
    let mut shown = Vec::new();
    for row in tx.query(statement, &[&user_id.0, &chats]).await? {
        let key_id: Option<Uuid> = get(&row, "user_key_id")?;
        shown.push((id(&row, "chat_id", ChatId)?, key_id.map(UserKeyId)));
    }
    Ok(shown)
}

/// The answer to an entry that is in the log already, byte for byte.
async fn repeat_of(tx: &Transaction<'_>, chat_id: ChatId, body: &EntryBody) -> Result<Option<Changed>, Failure> {
    let statement = "SELECT seq, body FROM chat_events WHERE chat_id = $1 \
         AND kind IN ('generation', 'generation_refused') ORDER BY seq DESC LIMIT 4";
    for row in tx.query(statement, &[&chat_id.0]).await? {
        let stored: EntryBody = unpack(get(&row, "body")?, "chat_events.body")?;
        if stored == *body {
            return Ok(Some(Changed { seq: number(&row, "seq")?, duplicate: true }));
        }
    }
    Ok(None)
}

async fn insert_wraps(tx: &Transaction<'_>, request: &MakeGeneration, seq: Seq) -> Result<(), Failure> {
    let (mut users, mut keys, mut wraps) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    for wrap in &request.wraps {
        users.push(wrap.user_id.0);
        keys.push(wrap.key_id.0);
        wraps.push(wrap.key.as_ref());
    }
    let signed = &request.generation;
    let statement = "INSERT INTO group_keys (group_id, user_id, key_id, generation, encrypted_key, wrapped_by_session_id, \
             signature, seq) \
         SELECT $1, n.user_id, n.key_id, $2, n.key, $3, $4, $8 \
         FROM unnest($5::uuid[], $6::uuid[], $7::bytea[]) AS n (user_id, key_id, key)";
    tx.execute(
        statement,
        &[
            &request.chat_id.0,
            &bigint(signed.generation.number),
            &signed.generation.session_id.0,
            &signed.signature.as_ref(),
            &users,
            &keys,
            &wraps,
            &bigint(seq),
        ],
    )
    .await?;
    Ok(())
}

async fn note_refusal(
    tx: &Transaction<'_>,
    who: Requester,
    chat_id: ChatId,
    generation: GenerationNo,
) -> Result<(), Failure> {
    let recent = "SELECT count(*) AS count FROM refused_generations \
         WHERE user_id = $1 AND created_at > clock_timestamp() - interval '1 hour'";
    let count: i64 = get(&tx.query_one(recent, &[&who.user_id.0]).await?, "count")?;
    if count.unsigned_abs() >= GENERATION_REFUSALS_PER_HOUR_MAX {
        let message = "too many generations refused in an hour";
        return Err(Refusal::limit(ErrorCode::LimitReached, message, GENERATION_REFUSALS_PER_HOUR_MAX).into());
    }
    let insert = "INSERT INTO refused_generations (chat_id, generation, user_id) VALUES ($1, $2, $3)";
    tx.execute(insert, &[&chat_id.0, &bigint(generation), &who.user_id.0]).await?;
    Ok(())
}
