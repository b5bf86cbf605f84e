//! Reads what the tables say of a chat beside its log: head, members, recipients, and what must not be there.

use uuid::Uuid;

use super::Snapshot;
use crate::protocol::binary::{ExchangeKey, Hash, IdentityKey, SigningKey};
use crate::protocol::group_key::{GroupKeyWrap, RecoveryKey};
use crate::protocol::ids::{
    ChangeNo, ChatId, Epoch, GenerationNo, MessageId, Seq, SessionId, Timestamp, UserId, UserKeyId,
};
use crate::protocol::membership::Member;
use crate::store::error::StoreError;
use crate::store::rows::{bigint, fixed, fixed_or_null, get, id, number, number_of, timestamp, timestamp_of};

/// Rows that are listed of what must not be there, at most; the rest of them is found once these are mended.
const WRONG_MAX: i64 = 1_000;

/// A chat's row.
#[derive(Debug, Clone)]
pub struct ChatRow {
    /// Its owner.
    pub owner_id: UserId,
    /// The newest entry.
    pub last_seq: Seq,
    /// The log's hash with it.
    pub log_hash: Hash,
    /// The epoch.
    pub epoch: Epoch,
    /// The seq of the last entry that changed the recipients.
    pub roster_version: Seq,
    /// The hash of the recipients.
    pub roster_hash: Hash,
    /// Whether newcomers may read what was before.
    pub is_shared: bool,
    /// Where a shared history began.
    pub shared_since: Option<Seq>,
    /// The newest membership change.
    pub change_no: ChangeNo,
    /// Its hash.
    pub change_hash: Hash,
    /// The earliest expiry among the recipients.
    pub next_expiry: Option<Timestamp>,
    /// The newest generation's recovery key.
    pub generation: Option<RecoveryKey>,
    /// Whether there must be another before the next message.
    pub is_outdated: bool,
}

/// A member as the tables have them.
#[derive(Debug, Clone, Copy)]
pub struct MemberRow {
    /// The user.
    pub user_id: UserId,
    /// With the identity key that the user's own row has.
    pub member: Member,
    /// The user key that the log shows, by the column.
    pub user_key_id: Option<UserKeyId>,
}

/// A live session of a member.
#[derive(Debug, Clone, Copy)]
pub struct RecipientRow {
    /// The session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Where copies are wrapped to.
    pub public_key: ExchangeKey,
    /// What it signs with.
    pub signing_public_key: SigningKey,
    /// When it expires.
    pub expired_at: Timestamp,
}

/// One revision of a message that is there more than once.
#[derive(Debug, Clone, Copy)]
pub struct RepeatedRevision {
    /// The message.
    pub message_id: MessageId,
    /// The revision.
    pub revision: i64,
    /// How often it is there.
    pub count: i64,
    /// The last place where it is.
    pub seq: Seq,
}

/// A cursor or request of a session that has no business there.
#[derive(Debug, Clone)]
pub struct MisplacedRow {
    /// The session.
    pub session_id: SessionId,
    /// The seq of a cursor beyond the log; none if the session's user is no member.
    pub ahead: Option<i64>,
    /// What it is.
    pub what: &'static str,
}

impl Snapshot<'_> {
    /// A chat's row; none if there is no such chat.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chat(&self, chat_id: ChatId) -> Result<Option<ChatRow>, StoreError> {
        let statement = "SELECT owner_id, last_seq, log_hash, epoch, roster_version, roster_hash, history_policy, \
             shared_since, change_no, change_hash, next_expiry, group_key_generation, recovery_public_key, \
             generation_outdated FROM chats WHERE id = $1";
        let Some(row) = self.tx.query_opt(statement, &[&chat_id.0]).await? else { return Ok(None) };
        let shared_since: Option<i64> = get(&row, "shared_since")?;
        let next_expiry: Option<std::time::SystemTime> = get(&row, "next_expiry")?;
        Ok(Some(ChatRow {
            owner_id: id(&row, "owner_id", UserId)?,
            last_seq: number(&row, "last_seq")?,
            log_hash: fixed(&row, "log_hash")?,
            epoch: number(&row, "epoch")?,
            roster_version: number(&row, "roster_version")?,
            roster_hash: fixed(&row, "roster_hash")?,
            is_shared: get::<&str>(&row, "history_policy")? == "shared",
            shared_since: shared_since.map(|seq| number_of(seq, "shared_since")).transpose()?,
            change_no: number(&row, "change_no")?,
            change_hash: fixed(&row, "change_hash")?,
            next_expiry: next_expiry.map(|time| timestamp_of(time, "next_expiry")).transpose()?,
            generation: match fixed_or_null(&row, "recovery_public_key")? {
                Some(public_key) => Some(RecoveryKey { generation: number(&row, "group_key_generation")?, public_key }),
                None => None,
            },
            is_outdated: get(&row, "generation_outdated")?,
        }))
    }

    /// A chat's members, in order of id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn members(&self, chat_id: ChatId) -> Result<Vec<MemberRow>, StoreError> {
        let statement = "SELECT m.user_id, m.can_write, m.can_manage, m.joined_seq, m.readable_from, m.user_key_id, \
             u.identity_public_key \
             FROM user_in_chat m JOIN users u ON u.id = m.user_id WHERE m.chat_id = $1 ORDER BY m.user_id";
        let mut members = Vec::new();
        for row in &self.tx.query(statement, &[&chat_id.0]).await? {
            let member = Member {
                identity_key: fixed::<IdentityKey>(row, "identity_public_key")?,
                can_write: get(row, "can_write")?,
                can_manage: get(row, "can_manage")?,
                joined_seq: number(row, "joined_seq")?,
                readable_from: number(row, "readable_from")?,
            };
            let user_key_id = get::<Option<Uuid>>(row, "user_key_id")?.map(UserKeyId);
            members.push(MemberRow { user_id: id(row, "user_id", UserId)?, member, user_key_id });
        }
        Ok(members)
    }

    /// The wraps of one generation of a chat's group key, in order of user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn group_keys(&self, chat_id: ChatId, generation: GenerationNo) -> Result<Vec<GroupKeyWrap>, StoreError> {
        let statement = "SELECT user_id, key_id, encrypted_key FROM group_keys \
             WHERE group_id = $1 AND generation = $2 ORDER BY user_id, key_id";
        let mut wraps = Vec::new();
        for row in &self.tx.query(statement, &[&chat_id.0, &bigint(generation)]).await? {
            wraps.push(GroupKeyWrap {
                user_id: id(row, "user_id", UserId)?,
                key_id: id(row, "key_id", UserKeyId)?,
                key: fixed(row, "encrypted_key")?,
            });
        }
        Ok(wraps)
    }

    /// The live sessions of a chat's members, in order of id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recipients(&self, chat_id: ChatId) -> Result<Vec<RecipientRow>, StoreError> {
        let statement = "SELECT s.id, s.user_id, s.public_key, s.signing_public_key, s.expired_at FROM user_in_chat m \
             JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' WHERE m.chat_id = $1 ORDER BY s.id";
        let mut recipients = Vec::new();
        for row in &self.tx.query(statement, &[&chat_id.0]).await? {
            recipients.push(RecipientRow {
                session_id: id(row, "id", SessionId)?,
                user_id: id(row, "user_id", UserId)?,
                public_key: fixed(row, "public_key")?,
                signing_public_key: fixed(row, "signing_public_key")?,
                expired_at: timestamp(row, "expired_at")?,
            });
        }
        Ok(recipients)
    }

    /// Revisions that are there more than once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn repeated_revisions(&self, chat_id: ChatId) -> Result<Vec<RepeatedRevision>, StoreError> {
        let statement = "SELECT id, revision, count(*) AS count, max(seq) AS seq FROM chat_messages WHERE chat_id = $1 \
             GROUP BY id, revision HAVING count(*) > 1 ORDER BY seq LIMIT $2";
        let mut repeated = Vec::new();
        for row in &self.tx.query(statement, &[&chat_id.0, &WRONG_MAX]).await? {
            repeated.push(RepeatedRevision {
                message_id: id(row, "id", MessageId)?,
                revision: get(row, "revision")?,
                count: get(row, "count")?,
                seq: number(row, "seq")?,
            });
        }
        Ok(repeated)
    }

    /// Cursors beyond the log's end, and cursors and requests of sessions whose users are no members; and how many
    /// rows were looked at.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn misplaced(&self, chat_id: ChatId, last_seq: Seq) -> Result<(u64, Vec<MisplacedRow>), StoreError> {
        let statement = "SELECT count(*) AS count FROM (SELECT 1 FROM session_cursors WHERE chat_id = $1 \
             UNION ALL SELECT 1 FROM key_requests WHERE chat_id = $1) both_of_them";
        let count: i64 = get(&self.tx.query_one(statement, &[&chat_id.0]).await?, "count")?;
        let is_stranger = "NOT EXISTS (SELECT 1 FROM user_sessions s JOIN user_in_chat m \
             ON m.user_id = s.user_id AND m.chat_id = $1 WHERE s.id = x.session_id)";
        let statement = format!(
            "SELECT x.session_id, CASE WHEN x.seq > $2 THEN x.seq END AS ahead, true AS is_cursor FROM session_cursors x \
                 WHERE x.chat_id = $1 AND (x.seq > $2 OR {is_stranger}) \
             UNION ALL SELECT x.session_id, NULL, false FROM key_requests x WHERE x.chat_id = $1 AND {is_stranger} LIMIT $3"
        );
        let chat: Uuid = chat_id.0;
        let mut wrong = Vec::new();
        for row in &self.tx.query(&statement, &[&chat, &bigint(last_seq), &WRONG_MAX]).await? {
            wrong.push(MisplacedRow {
                session_id: id(row, "session_id", SessionId)?,
                ahead: get(row, "ahead")?,
                what: if get(row, "is_cursor")? { "cursor" } else { "key request" },
            });
        }
        Ok((count.unsigned_abs(), wrong))
    }
}
