//! Who may read a user's profile, what they are given of it, and who of them lacks its key.
//!
//! Readers are the live sessions of the user, and those of everybody who shares a chat with the user and is not blocked
//! by them. All of it is asked in one place, `READERS`. Who is blocked is answered as if there were no profile.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::group_keys::active_key;
use super::members::Requester;
use super::rows::{fixed, get, id, number};
use super::sessions::require_live;
use super::transaction::Transaction;
use crate::protocol::binary::Blob;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{Cursor, ProfileKeyRequested, ShownProfile};
use crate::protocol::ids::{ChatId, InfoKeyId, Revision, SessionId, UserId, UserKeyId};
use crate::protocol::limits::PROFILE_KEY_WRAPS_MAX;
use crate::protocol::profile::{OwnKeyWrap, ProfileKeyWrap, SealedProfile, SignedProfile};

/// The sessions that may read the profile of user `$1`. One whose time has run out is none, written down or not.
pub(super) const READERS: &str = "SELECT s.id, s.user_id FROM user_sessions s \
     WHERE s.state = 'live' AND s.expired_at > clock_timestamp() AND s.user_id IN ( \
         SELECT $1::uuid UNION SELECT other.user_id FROM user_in_chat own \
         JOIN user_in_chat other ON other.chat_id = own.chat_id WHERE own.user_id = $1 AND NOT EXISTS ( \
             SELECT 1 FROM user_blocks b WHERE b.user_id = $1 AND b.blocked_user_id = other.user_id))";

/// Other users whose keys one session is found to lack at most, when it comes online.
const LACKING_MAX: i64 = 1_000;

/// Whom to ask for what a session lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderOf {
    /// A session of the user whose key it is.
    pub holder: SessionId,
    /// What to ask of it.
    pub requested: ProfileKeyRequested,
}

impl Store {
    /// A user's profile, with its key for the session that asks.
    ///
    /// # Errors
    /// `unknown_user` for who shares no chat with the user, a requester that is not live, or [`StoreError`].
    pub async fn fetch_profile(&self, who: Requester, user_id: UserId) -> Result<ShownProfile, Failure> {
        self.read("fetch_profile", async |tx| {
            require_live(tx, who.user_id, who.session_id).await?;
            let is_own = user_id == who.user_id;
            if !is_own && !shares_chat(tx, who.user_id, user_id).await? {
                return Err(not_theirs().into());
            }
            let user_key = if is_own { active_key(tx, user_id).await? } else { None };
            let nothing = ShownProfile { user_id, profile: None, key: None, user_key };
            if !is_reader(tx, who, user_id).await? {
                return Ok(nothing);
            }
            let statement = "SELECT u.name, u.email, u.description, u.info_key_id, u.info_revision, u.info_session_id, \
                 u.info_signature, v.key, v.wrapped_by_session_id, v.signature FROM users u \
                 LEFT JOIN vault_user_info_keys v ON v.user_id = u.id AND v.key_id = u.info_key_id \
                     AND v.session_id = $2 AND v.is_usable WHERE u.id = $1 AND u.info_key_id IS NOT NULL";
            let Some(row) = tx.query_opt(statement, &[&user_id.0, &who.session_id.0]).await? else {
                return Ok(nothing);
            };
            let (profile, key) = (profile_of(&row, user_id)?, wrap_of(&row, user_id, who.session_id)?);
            Ok(ShownProfile { profile: Some(profile), key, ..nothing })
        })
        .await
    }

    /// The newest revision of a user's profile, and the sessions that may read it; none without a profile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn profile_audience(&self, user_id: UserId) -> Result<Option<(Revision, Vec<SessionId>)>, Failure> {
        self.read("profile_audience", async |tx| {
            let Some((revision, _)) = head(tx, user_id).await? else { return Ok(None) };
            let found = tx.query(READERS, &[&user_id.0]).await?;
            let readers = found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?;
            Ok(Some((revision, readers)))
        })
        .await
    }

    /// Who lacks a user's info key, a bounded number of them, and the user's own sessions that hold it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lacking_profile_key(
        &self,
        user_id: UserId,
    ) -> Result<Option<(ProfileKeyRequested, Vec<SessionId>)>, Failure> {
        self.read("lacking_profile_key", async |tx| {
            let Some((_, key_id)) = head(tx, user_id).await? else { return Ok(None) };
            let statement = format!(
                "SELECT r.id, r.user_id FROM ({READERS}) r WHERE NOT EXISTS (SELECT 1 FROM vault_user_info_keys v \
                 WHERE v.user_id = $1 AND v.key_id = $2 AND v.session_id = r.id AND v.is_usable) ORDER BY r.id LIMIT $3"
            );
            let limit = PROFILE_KEY_WRAPS_MAX as i64;
            let (mut session_ids, mut users) = (Vec::new(), Vec::<Uuid>::new());
            for row in tx.query(&statement, &[&user_id.0, &key_id.0, &limit]).await? {
                session_ids.push(id(&row, "id", SessionId)?);
                users.push(get(&row, "user_id")?);
            }
            if session_ids.is_empty() {
                return Ok(None);
            }
            // One chat for each of the others: the owner's clients find their sessions in its log.
            let statement = "SELECT c.id, c.last_seq FROM chats c WHERE c.id IN ( \
                 SELECT DISTINCT ON (other.user_id) other.chat_id FROM user_in_chat own \
                 JOIN user_in_chat other ON other.chat_id = own.chat_id \
                 WHERE own.user_id = $1 AND other.user_id = ANY($2) AND other.user_id <> $1 \
                 ORDER BY other.user_id, other.chat_id)";
            let mut chats = Vec::new();
            for row in tx.query(statement, &[&user_id.0, &users]).await? {
                chats.push(Cursor { chat_id: id(&row, "id", ChatId)?, seq: number(&row, "last_seq")? });
            }
            let statement = "SELECT v.session_id FROM vault_user_info_keys v \
                 JOIN user_sessions s ON s.id = v.session_id AND s.state = 'live' \
                 WHERE v.user_id = $1 AND v.key_id = $2 AND v.is_usable AND s.user_id = $1";
            let found = tx.query(statement, &[&user_id.0, &key_id.0]).await?;
            let holders = found.iter().map(|row| id(row, "session_id", SessionId)).collect::<Result<_, _>>()?;
            Ok(Some((ProfileKeyRequested { key_id, session_ids, chats }, holders)))
        })
        .await
    }

    /// Whose info keys one session lacks, and which of their sessions hold them: a bounded number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn profile_holders_for(&self, reader: Requester) -> Result<Vec<HolderOf>, Failure> {
        self.read("profile_holders_for", async |tx| profile_holders_for(tx, reader).await).await
    }
}

/// Whose info keys one session lacks, and which of their sessions hold them: a bounded number.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn profile_holders_for(tx: &Transaction<'_>, reader: Requester) -> Result<Vec<HolderOf>, Failure> {
    // Mostly few users have a profile: each of them is looked at, and not each pair of members.
    let statement = "SELECT s.id AS holder, u.info_key_id, shared.chat_id, c.last_seq FROM users u \
         JOIN LATERAL (SELECT own.chat_id FROM user_in_chat own \
             JOIN user_in_chat theirs ON theirs.chat_id = own.chat_id AND theirs.user_id = u.id \
             WHERE own.user_id = $1 ORDER BY own.chat_id LIMIT 1) shared ON true \
         JOIN chats c ON c.id = shared.chat_id \
         JOIN vault_user_info_keys h ON h.user_id = u.id AND h.key_id = u.info_key_id AND h.is_usable \
         JOIN user_sessions s ON s.id = h.session_id AND s.user_id = u.id AND s.state = 'live' \
         WHERE u.info_key_id IS NOT NULL AND u.id <> $1 \
             AND NOT EXISTS (SELECT 1 FROM user_blocks b WHERE b.user_id = u.id AND b.blocked_user_id = $1) \
             AND NOT EXISTS (SELECT 1 FROM vault_user_info_keys v WHERE v.user_id = u.id \
                 AND v.key_id = u.info_key_id AND v.session_id = $2 AND v.is_usable) LIMIT $3";
    let mut holders = Vec::new();
    for row in tx.query(statement, &[&reader.user_id.0, &reader.session_id.0, &LACKING_MAX]).await? {
        let chats = vec![Cursor { chat_id: id(&row, "chat_id", ChatId)?, seq: number(&row, "last_seq")? }];
        let key_id = id(&row, "info_key_id", InfoKeyId)?;
        let requested = ProfileKeyRequested { key_id, session_ids: vec![reader.session_id], chats };
        holders.push(HolderOf { holder: id(&row, "holder", SessionId)?, requested });
    }
    Ok(holders)
}

/// The newest revision of a user's profile; none without one.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn profile_revision(tx: &Transaction<'_>, user_id: UserId) -> Result<Option<Revision>, Failure> {
    Ok(head(tx, user_id).await?.map(|(revision, _)| revision))
}

/// What a stranger is told of any user's profile, and of one that is not there.
pub(super) fn not_theirs() -> Refusal {
    Refusal::new(ErrorCode::UnknownUser, "no such user, or none with whom a chat is shared")
}

/// Whether a session may read a user's profile, as `READERS` says it.
pub(super) async fn is_reader(tx: &Transaction<'_>, who: Requester, user_id: UserId) -> Result<bool, Failure> {
    let statement = format!("SELECT 1 FROM ({READERS}) r WHERE r.id = $2");
    Ok(tx.query_opt(&statement, &[&user_id.0, &who.session_id.0]).await?.is_some())
}

/// Whether two users are in one chat.
pub(super) async fn shares_chat(tx: &Transaction<'_>, one: UserId, other: UserId) -> Result<bool, Failure> {
    let statement = "SELECT 1 FROM user_in_chat own JOIN user_in_chat theirs ON theirs.chat_id = own.chat_id \
         WHERE own.user_id = $1 AND theirs.user_id = $2 LIMIT 1";
    Ok(tx.query_opt(statement, &[&one.0, &other.0]).await?.is_some())
}

async fn head(tx: &Transaction<'_>, user_id: UserId) -> Result<Option<(Revision, InfoKeyId)>, Failure> {
    let statement = "SELECT info_revision, info_key_id FROM users WHERE id = $1 AND info_key_id IS NOT NULL";
    let Some(row) = tx.query_opt(statement, &[&user_id.0]).await? else { return Ok(None) };
    Ok(Some((number(&row, "info_revision")?, id(&row, "info_key_id", InfoKeyId)?)))
}

/// The info key of a row, sealed to its user's user key.
pub(super) fn own_key_of(row: &Row, user_id: UserId) -> Result<OwnKeyWrap, StoreError> {
    Ok(OwnKeyWrap {
        user_id,
        user_key_id: id(row, "info_user_key_id", UserKeyId)?,
        key_id: id(row, "info_key_id", InfoKeyId)?,
        key: fixed(row, "info_user_key")?,
        wrapped_by_session_id: id(row, "info_user_key_by", SessionId)?,
        signature: fixed(row, "info_user_key_signature")?,
    })
}

fn profile_of(row: &Row, user_id: UserId) -> Result<SignedProfile, StoreError> {
    let blob = |column| Ok::<_, StoreError>(get::<Option<Vec<u8>>>(row, column)?.map(Blob::from));
    let profile = SealedProfile {
        user_id,
        revision: number(row, "info_revision")?,
        key_id: id(row, "info_key_id", InfoKeyId)?,
        session_id: id(row, "info_session_id", SessionId)?,
        name: blob("name")?,
        email: blob("email")?,
        description: blob("description")?,
    };
    Ok(SignedProfile { profile, signature: fixed(row, "info_signature")? })
}

fn wrap_of(row: &Row, user_id: UserId, session_id: SessionId) -> Result<Option<ProfileKeyWrap>, StoreError> {
    let Some(wrapped_by) = get::<Option<Uuid>>(row, "wrapped_by_session_id")? else { return Ok(None) };
    Ok(Some(ProfileKeyWrap {
        user_id,
        session_id,
        key_id: id(row, "info_key_id", InfoKeyId)?,
        key: fixed(row, "key")?,
        wrapped_by_session_id: SessionId(wrapped_by),
        signature: fixed(row, "signature")?,
    }))
}
