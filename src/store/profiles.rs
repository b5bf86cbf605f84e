//! What users say of themselves: saved under keys that nobody holds who may not read, and those keys handed on.
//!
//! A key is stale once a session that was ever given it is no reader any more, or the user key to which it is sealed is
//! not the one to seal to. That is found by counting at the save: the number of sessions that were given the key is
//! kept beside it and outlives their wraps, and the readers among the wraps must be as many. So nothing that takes
//! access away (a membership, a session, a chat, an account, a block) has to mark anything.
//! Invariants: I1 each save is the revision after the one before. I2 nothing is saved under a key that is stale: the
//! user's row and the rows of the user's chats are locked, and whatever changes the readers locks one of them. I3 a
//! wrap is stored only of the current key, for a reader, signed by the session of the user that brings it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::group_keys::active_key;
use super::head::{chats_of_user, lock_user};
use super::members::Requester;
use super::profile_readers::{READERS, is_reader, not_theirs, shares_chat};
use super::rows::{bigint, get, id, number};
use super::sealed_info::{check_parts, check_wrap_count, part_bytes};
use super::sessions::require_live;
use super::transaction::Transaction;
use crate::protocol::binary::SigningKey;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{RequestProfileKey, SetProfile, UploadProfileKeys};
use crate::protocol::ids::{InfoKeyId, Revision, SessionId, UserId};
use crate::protocol::limits::{
    PROFILE_DESCRIPTION_BYTES_MAX, PROFILE_EMAIL_BYTES_MAX, PROFILE_KEY_WRAPS_MAX, PROFILE_NAME_BYTES_MAX,
};
use crate::protocol::profile::{OwnKeyWrap, ProfileKeyWrap, SealedProfile, SignedProfile};
use crate::protocol::verify::Verifier;

/// Saves that a repeat is known by: what is older than so many others is not waited for any more.
const RECENT_MAX: i32 = 16;

/// What a user's row says of their profile.
struct Current {
    key_id: Option<Uuid>,
    revision: Revision,
    /// Signatures of the newest saves.
    recent: Vec<Vec<u8>>,
    /// Sessions that were ever given the key.
    given: i64,
    /// The user key to which it is sealed.
    user_key_id: Option<Uuid>,
}

impl Store {
    /// Saves a user's own profile. `false`: it is saved already, by this very request.
    ///
    /// # Errors
    /// `too_large`, `bad_signature`, `edit_conflict`, `info_key_stale`, `malformed`, `recipients_changed`, a requester
    /// that is not live, or [`StoreError`](super::StoreError).
    pub async fn set_profile(&self, who: Requester, request: &SetProfile) -> Result<bool, Failure> {
        let signed = &request.profile;
        let profile = &signed.profile;
        check_sizes(profile)?;
        check_wrap_count(request.keys.len(), PROFILE_KEY_WRAPS_MAX)?;
        self.write("set_profile", async |tx| {
            let signing_key = lock_reach(tx, who).await?;
            let is_own = profile.user_id == who.user_id && profile.session_id == who.session_id;
            if !is_own || !signed.verifies(&signing_key) {
                let message = "the profile is not signed by the session that is logged in";
                return Err(Refusal::new(ErrorCode::BadSignature, message).into());
            }
            let current = current(tx, who.user_id).await?;
            // Also when another session has saved since: to save it again would undo what that one saved.
            if current.recent.iter().any(|known| *known == signed.signature.as_ref()) {
                return Ok(false);
            }
            if profile.revision != current.revision.next() {
                let details = ErrorDetails { revision: Some(current.revision.next()), ..ErrorDetails::default() };
                let message = "the revision is not the next";
                return Err(Refusal::with(ErrorCode::EditConflict, message, details).into());
            }
            if current.key_id == Some(profile.key_id.0) {
                if !request.keys.is_empty() || request.own_key.is_some() {
                    let message = "wraps of the current info key are not saved with a profile";
                    return Err(Refusal::new(ErrorCode::Malformed, message).into());
                }
                check_fresh(tx, who.user_id, &current).await?;
                save(tx, signed).await?;
            } else {
                check_wraps(tx, who, profile.key_id, &request.keys, &signing_key).await?;
                if !request.keys.iter().any(|wrap| wrap.session_id == who.session_id) {
                    let message = "a new info key is wrapped to the session that saves, too";
                    return Err(Refusal::new(ErrorCode::Malformed, message).into());
                }
                check_own_key(tx, who, profile.key_id, request.own_key.as_ref(), &signing_key).await?;
                tx.execute("DELETE FROM vault_user_info_keys WHERE user_id = $1", &[&who.user_id.0]).await?;
                save(tx, signed).await?;
                change_key(tx, who.user_id, request.own_key.as_ref()).await?;
                put_wraps(tx, who.user_id, &request.keys).await?;
            }
            Ok(true)
        })
        .await
    }

    /// Stores wraps of a user's own current info key where there are none of use; gives the sessions that have one now
    /// and had none before.
    ///
    /// # Errors
    /// `too_large`, `unknown_key` unless all are of the current key, `malformed`, `bad_signature`, `recipients_changed`,
    /// a requester that is not live, or [`StoreError`](super::StoreError).
    pub async fn upload_profile_keys(
        &self,
        who: Requester,
        request: &UploadProfileKeys,
    ) -> Result<Vec<SessionId>, Failure> {
        check_wrap_count(request.keys.len(), PROFILE_KEY_WRAPS_MAX)?;
        self.write("upload_profile_keys", async |tx| {
            let signing_key = lock_reach(tx, who).await?;
            let Some(key_id) = request.keys.first().map(|wrap| wrap.key_id) else { return Ok(Vec::new()) };
            if current(tx, who.user_id).await?.key_id != Some(key_id.0) {
                return Err(Refusal::new(ErrorCode::UnknownKey, "not the user's current info key").into());
            }
            check_wraps(tx, who, key_id, &request.keys, &signing_key).await?;
            put_wraps(tx, who.user_id, &request.keys).await
        })
        .await
    }

    /// Notes that the wrap that a session was given, if any, is of no use. It still counts as given.
    ///
    /// # Errors
    /// `unknown_user` for who shares no chat with the user, `unknown_key` for a user without a profile for them, a
    /// requester that is not live, or [`StoreError`](super::StoreError).
    pub async fn request_profile_key(&self, who: Requester, request: &RequestProfileKey) -> Result<(), Failure> {
        self.write("request_profile_key", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            if request.user_id != who.user_id && !shares_chat(tx, who.user_id, request.user_id).await? {
                return Err(not_theirs().into());
            }
            // Who is blocked is told the same as of a user without a profile.
            let statement = "SELECT 1 FROM users WHERE id = $1 AND info_key_id IS NOT NULL";
            let has_profile = tx.query_opt(statement, &[&request.user_id.0]).await?.is_some();
            if !has_profile || !is_reader(tx, who, request.user_id).await? {
                return Err(Refusal::new(ErrorCode::UnknownKey, "the user has no info key").into());
            }
            let statement = "UPDATE vault_user_info_keys SET is_usable = false WHERE user_id = $1 AND session_id = $2";
            tx.execute(statement, &[&request.user_id.0, &who.session_id.0]).await?;
            Ok(())
        })
        .await
    }
}

/// Gives a session that a login makes the info key of its user, sealed to the user key that the login opens. From then
/// on it counts as one that was given the key, whatever becomes of it.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn give_own_key(
    tx: &Transaction<'_>,
    user_id: UserId,
    session_id: SessionId,
) -> Result<Option<OwnKeyWrap>, Failure> {
    let statement = "SELECT info_key_id, info_user_key_id, info_user_key, info_user_key_by, info_user_key_signature \
         FROM users WHERE id = $1 AND info_user_key_id IS NOT NULL";
    let Some(row) = tx.query_opt(statement, &[&user_id.0]).await? else { return Ok(None) };
    let own_key = super::profile_readers::own_key_of(&row, user_id)?;
    let statement = "INSERT INTO vault_user_info_keys \
         (user_id, key_id, session_id, key, wrapped_by_session_id, signature, is_usable) \
         VALUES ($1, $2, $3, $4, $5, $6, false) ON CONFLICT DO NOTHING";
    let (key, by, signature) = (own_key.key.as_ref(), own_key.wrapped_by_session_id.0, own_key.signature.as_ref());
    let given = tx.execute(statement, &[&user_id.0, &own_key.key_id.0, &session_id.0, &key, &by, &signature]).await?;
    count_given(tx, user_id, given).await?;
    Ok(Some(own_key))
}

/// Locks everything that decides who may read a user's profile, and checks that the session that asks is live: the
/// user's row (chats, sessions and blocks of the user), then the rows of their chats in order of id (S1) for sharing,
/// which holds up whatever changes the other members and their sessions.
async fn lock_reach(tx: &Transaction<'_>, who: Requester) -> Result<SigningKey, Failure> {
    lock_user(tx, who.user_id).await?;
    let signing_key = require_live(tx, who.user_id, who.session_id).await?;
    let chats: Vec<Uuid> = chats_of_user(tx, who.user_id).await?.into_iter().map(|chat_id| chat_id.0).collect();
    tx.query("SELECT 1 FROM chats WHERE id = ANY($1) ORDER BY id FOR SHARE", &[&chats]).await?;
    Ok(signing_key)
}

fn check_sizes(profile: &SealedProfile) -> Result<(), Refusal> {
    let parts = [
        (&profile.name, PROFILE_NAME_BYTES_MAX),
        (&profile.email, PROFILE_EMAIL_BYTES_MAX),
        (&profile.description, PROFILE_DESCRIPTION_BYTES_MAX),
    ];
    check_parts(&parts, "name, email or description is too long")
}

async fn current(tx: &Transaction<'_>, user_id: UserId) -> Result<Current, Failure> {
    let statement =
        "SELECT info_key_id, info_revision, info_recent, info_given, info_user_key_id FROM users WHERE id = $1";
    let row = tx.query_one(statement, &[&user_id.0]).await?;
    Ok(Current {
        key_id: get(&row, "info_key_id")?,
        revision: number(&row, "info_revision")?,
        recent: get(&row, "info_recent")?,
        given: get(&row, "info_given")?,
        user_key_id: get(&row, "info_user_key_id")?,
    })
}

/// Refuses a key that somebody holds who may not read any more, and one that is sealed to another user key than the
/// one to seal to (I2).
async fn check_fresh(tx: &Transaction<'_>, user_id: UserId, current: &Current) -> Result<(), Failure> {
    let statement = format!(
        "SELECT count(*) AS count FROM vault_user_info_keys v JOIN ({READERS}) r ON r.id = v.session_id \
         WHERE v.user_id = $1 AND v.key_id = $2"
    );
    let readers: i64 = get(&tx.query_one(&statement, &[&user_id.0, &current.key_id]).await?, "count")?;
    let sealed_to = active_key(tx, user_id).await?.map(|key| key.key_id.0);
    if readers == current.given && sealed_to == current.user_key_id {
        return Ok(());
    }
    let message = "somebody who could open the info key has lost access since";
    Err(Refusal::new(ErrorCode::InfoKeyStale, message).into())
}

/// Each wrap is of the user's key, by the session that brings it, and for a reader (I3).
async fn check_wraps(
    tx: &Transaction<'_>,
    who: Requester,
    key_id: InfoKeyId,
    wraps: &[ProfileKeyWrap],
    signing_key: &SigningKey,
) -> Result<(), Failure> {
    let sessions: BTreeSet<Uuid> = wraps.iter().map(|wrap| wrap.session_id.0).collect();
    let is_of_key = |wrap: &ProfileKeyWrap| wrap.key_id == key_id && wrap.user_id == who.user_id;
    if sessions.len() != wraps.len() || !wraps.iter().all(is_of_key) {
        let message = "the wraps are not of one key of the user, each for another session";
        return Err(Refusal::new(ErrorCode::Malformed, message).into());
    }
    let is_signed = |wrap: &ProfileKeyWrap| {
        wrap.wrapped_by_session_id == who.session_id && signing_key.verifies(&wrap.signed_bytes(), &wrap.signature)
    };
    if !wraps.iter().all(is_signed) {
        return Err(Refusal::new(ErrorCode::BadSignature, "a wrap of the info key does not verify").into());
    }
    let sessions: Vec<Uuid> = sessions.into_iter().collect();
    let statement = format!("SELECT r.id FROM ({READERS}) r WHERE r.id = ANY($2)");
    let mut readers = BTreeSet::new();
    for row in tx.query(&statement, &[&who.user_id.0, &sessions]).await? {
        readers.insert(get::<Uuid>(&row, "id")?);
    }
    let extra: Vec<SessionId> =
        sessions.into_iter().filter(|session_id| !readers.contains(session_id)).map(SessionId).collect();
    if extra.is_empty() {
        return Ok(());
    }
    let details = ErrorDetails { extra, ..ErrorDetails::default() };
    let message = "a wrap of the info key is for a session that may not read the profile";
    Err(Refusal::with(ErrorCode::RecipientsChanged, message, details).into())
}

/// A new key is sealed to the user's own user key, where there is one to seal to.
async fn check_own_key(
    tx: &Transaction<'_>,
    who: Requester,
    key_id: InfoKeyId,
    own_key: Option<&OwnKeyWrap>,
    signing_key: &SigningKey,
) -> Result<(), Failure> {
    let sealed_to = active_key(tx, who.user_id).await?.map(|key| key.key_id);
    if sealed_to != own_key.map(|wrap| wrap.user_key_id) {
        let message = "the info key is not sealed to the user's own user key, and to no other";
        return Err(Refusal::new(ErrorCode::RecipientsChanged, message).into());
    }
    let Some(wrap) = own_key else { return Ok(()) };
    if wrap.key_id != key_id || wrap.user_id != who.user_id {
        return Err(Refusal::new(ErrorCode::Malformed, "the sealed info key is another one").into());
    }
    let is_signed =
        wrap.wrapped_by_session_id == who.session_id && signing_key.verifies(&wrap.signed_bytes(), &wrap.signature);
    if is_signed {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::BadSignature, "the sealed info key does not verify").into())
}

/// Stores wraps where there are none of use; gives their sessions.
async fn put_wraps(tx: &Transaction<'_>, user_id: UserId, wraps: &[ProfileKeyWrap]) -> Result<Vec<SessionId>, Failure> {
    let (mut key_ids, mut sessions, mut keys) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    let (mut wrapped_by, mut signatures) = (Vec::new(), Vec::<&[u8]>::new());
    for wrap in wraps {
        key_ids.push(wrap.key_id.0);
        sessions.push(wrap.session_id.0);
        keys.push(wrap.key.as_ref());
        wrapped_by.push(wrap.wrapped_by_session_id.0);
        signatures.push(wrap.signature.as_ref());
    }
    // Who has a row already was counted before.
    let statement = "INSERT INTO vault_user_info_keys AS v \
             (user_id, key_id, session_id, key, wrapped_by_session_id, signature) \
         SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::uuid[], $6::bytea[]) \
         ON CONFLICT (user_id, key_id, session_id) DO UPDATE SET key = excluded.key, is_usable = true, \
             wrapped_by_session_id = excluded.wrapped_by_session_id, signature = excluded.signature \
         WHERE NOT v.is_usable RETURNING session_id, v.xmax = 0 AS is_new";
    let found = tx.query(statement, &[&user_id.0, &key_ids, &sessions, &keys, &wrapped_by, &signatures]).await?;
    let mut given = 0;
    let mut stored = Vec::with_capacity(found.len());
    for row in &found {
        stored.push(id(row, "session_id", SessionId)?);
        given += u64::from(get::<bool>(row, "is_new")?);
    }
    count_given(tx, user_id, given).await?;
    Ok(stored)
}

async fn count_given(tx: &Transaction<'_>, user_id: UserId, given: u64) -> Result<(), Failure> {
    let statement = "UPDATE users SET info_given = info_given + $2 WHERE id = $1";
    tx.execute(statement, &[&user_id.0, &bigint(given)]).await?;
    Ok(())
}

async fn save(tx: &Transaction<'_>, signed: &SignedProfile) -> Result<(), Failure> {
    let profile = &signed.profile;
    let statement = "UPDATE users SET name = $2, email = $3, description = $4, info_key_id = $5, info_revision = $6, \
         info_session_id = $7, info_signature = $8, info_recent = (array_prepend($8, info_recent))[1:$9] WHERE id = $1";
    tx.execute(
        statement,
        &[
            &profile.user_id.0,
            &part_bytes(&profile.name),
            &part_bytes(&profile.email),
            &part_bytes(&profile.description),
            &profile.key_id.0,
            &bigint(profile.revision),
            &profile.session_id.0,
            &signed.signature.as_ref(),
            &RECENT_MAX,
        ],
    )
    .await?;
    Ok(())
}

/// Notes to which user key a new info key is sealed; nobody was given it yet.
async fn change_key(tx: &Transaction<'_>, user_id: UserId, own_key: Option<&OwnKeyWrap>) -> Result<(), Failure> {
    let user_key_id = own_key.map(|wrap| wrap.user_key_id.0);
    let key: Option<&[u8]> = own_key.map(|wrap| wrap.key.as_ref());
    let by = own_key.map(|wrap| wrap.wrapped_by_session_id.0);
    let signature: Option<&[u8]> = own_key.map(|wrap| wrap.signature.as_ref());
    let statement = "UPDATE users SET info_given = 0, info_user_key_id = $2, info_user_key = $3, info_user_key_by = $4, \
         info_user_key_signature = $5 WHERE id = $1";
    tx.execute(statement, &[&user_id.0, &user_key_id, &key, &by, &signature]).await?;
    Ok(())
}
