//! A chat as its actor loads it: head, members, recipients, and which current keys lack whose copies.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::head::ChatHead;
use super::rows::{bigint, fixed, get, id, number, number_of, timestamp, unpack};
use super::transaction::Transaction;
use crate::protocol::binary::{ExchangeKey, Hash};
use crate::protocol::ids::{ChatId, Counter, Epoch, GenerationNo, KeyId, Seq, SessionId, Timestamp, UserId};
use crate::protocol::keys::SignedAnnouncement;
use crate::protocol::log::LogEntry;

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedMember {
    /// May send messages.
    pub can_write: bool,
    /// The seq of the entry that made them a member.
    pub joined_seq: Seq,
    /// Its time.
    pub joined_at: Timestamp,
    /// May change the members, and delete what others wrote.
    pub can_manage: bool,
    /// The seq from which on they may read.
    pub readable_from: Seq,
    /// Whether the log shows a user key of theirs.
    pub has_user_key: bool,
}

/// A session that receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedRecipient {
    /// Its user.
    pub user_id: UserId,
    /// Its X25519 key.
    pub public_key: ExchangeKey,
}

/// A sender key of the current epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedKey {
    /// What its session says of it.
    pub announcement: SignedAnnouncement,
    /// Its last counter.
    pub last_counter: Counter,
    /// When it was stored.
    pub created_at: Timestamp,
    /// Recipients without a copy.
    pub missing: BTreeSet<SessionId>,
    /// The generation to whose recovery key its sender archived it last.
    pub archived: Option<GenerationNo>,
    /// Recipients who refused a copy, and whether for good: then the copy that is there counts as present.
    pub refused: BTreeMap<SessionId, bool>,
}

/// A chat at one place of its log.
#[derive(Debug, Clone)]
pub struct LoadedChat {
    /// The newest entry.
    pub last_seq: Seq,
    /// The log's hash with it.
    pub log_hash: Hash,
    /// Its time.
    pub last_at: Timestamp,
    /// The epoch.
    pub epoch: Epoch,
    /// The seq of the last entry that changed the recipients.
    pub roster_version: Seq,
    /// The hash of the recipients.
    pub roster_hash: Hash,
    /// Whether an expiry waits to be written down.
    pub expiry_due: bool,
    /// Who is in it.
    pub members: BTreeMap<UserId, LoadedMember>,
    /// Who receives.
    pub recipients: BTreeMap<SessionId, LoadedRecipient>,
    /// The generation whose recovery key receives beside them.
    pub recovery: Option<GenerationNo>,
    /// The generation that must be made before the next message.
    pub generation_due: Option<GenerationNo>,
    /// The newest key of the current epoch of each session that has one.
    pub keys: BTreeMap<KeyId, LoadedKey>,
    /// What came since the seq that was asked for; none if that is more than a page.
    pub since: Option<Vec<LogEntry>>,
}

impl Store {
    /// Loads a chat; none if there is no such chat.
    ///
    /// The chat's row is locked for it. So the answer is conclusive after an outcome that was unknown: whatever
    /// held the lock has either committed, and is seen, or never will.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub async fn load_chat(&self, chat_id: ChatId, since: Option<Seq>) -> Result<Option<LoadedChat>, Failure> {
        self.write("load_chat", async |tx| {
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Ok(None) };
            let members = members(tx, chat_id).await?;
            let recipients = recipients(tx, chat_id).await?;
            let keys = keys(tx, &head).await?;
            let member_keys = members.values().filter(|member| member.has_user_key).count();
            let since = match since {
                Some(seq) => Store::entries_since(tx, chat_id, seq, head.last_seq).await?,
                None => Some(Vec::new()),
            };
            Ok(Some(LoadedChat {
                last_seq: head.last_seq,
                log_hash: head.log_hash,
                last_at: head.last_at,
                epoch: head.epoch,
                roster_version: head.roster_version,
                roster_hash: head.roster_hash,
                expiry_due: head.expiry_due,
                members,
                recipients,
                recovery: head.recovery_key().map(|key| key.generation),
                generation_due: head.generation_due(member_keys),
                keys,
                since,
            }))
        })
        .await
    }
}

async fn members(tx: &Transaction<'_>, chat_id: ChatId) -> Result<BTreeMap<UserId, LoadedMember>, Failure> {
    let statement = "SELECT m.user_id, m.can_write, m.can_manage, m.joined_seq, m.readable_from, m.user_key_id IS NOT NULL AS has_user_key, \
             e.created_at \
         FROM user_in_chat m JOIN chat_events e ON e.chat_id = m.chat_id AND e.seq = m.joined_seq WHERE m.chat_id = $1";
    let mut members = BTreeMap::new();
    for row in tx.query(statement, &[&chat_id.0]).await? {
        let member = LoadedMember {
            can_write: get(&row, "can_write")?,
            joined_seq: number(&row, "joined_seq")?,
            joined_at: timestamp(&row, "created_at")?,
            can_manage: get(&row, "can_manage")?,
            readable_from: number(&row, "readable_from")?,
            has_user_key: get(&row, "has_user_key")?,
        };
        members.insert(id(&row, "user_id", UserId)?, member);
    }
    Ok(members)
}

async fn recipients(tx: &Transaction<'_>, chat_id: ChatId) -> Result<BTreeMap<SessionId, LoadedRecipient>, Failure> {
    let statement = "SELECT s.id, s.user_id, s.public_key FROM user_in_chat m \
         JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' WHERE m.chat_id = $1";
    let mut recipients = BTreeMap::new();
    for row in tx.query(statement, &[&chat_id.0]).await? {
        let recipient =
            LoadedRecipient { user_id: id(&row, "user_id", UserId)?, public_key: fixed(&row, "public_key")? };
        recipients.insert(id(&row, "id", SessionId)?, recipient);
    }
    Ok(recipients)
}

async fn keys(tx: &Transaction<'_>, head: &ChatHead) -> Result<BTreeMap<KeyId, LoadedKey>, Failure> {
    let statement = "SELECT DISTINCT ON (sender_session_id) key_id, announcement, last_counter, created_at, covered_version, \
             (SELECT max(a.generation) FROM sender_key_archives a WHERE a.chat_id = k.chat_id \
                 AND a.sender_key_id = k.key_id AND a.archived_by_session_id = k.sender_session_id) AS archived \
         FROM sender_keys k WHERE chat_id = $1 AND epoch = $2 ORDER BY sender_session_id, created_at DESC, key_id DESC";
    let mut keys = BTreeMap::new();
    let mut uncovered = Vec::new();
    for row in tx.query(statement, &[&head.chat_id.0, &bigint(head.epoch)]).await? {
        let key_id = id(&row, "key_id", KeyId)?;
        let covered: Option<i64> = get(&row, "covered_version")?;
        if covered != Some(bigint(head.roster_version)) {
            uncovered.push(key_id.0);
        }
        let key = LoadedKey {
            announcement: unpack(get(&row, "announcement")?, "sender_keys.announcement")?,
            last_counter: number(&row, "last_counter")?,
            created_at: timestamp(&row, "created_at")?,
            missing: BTreeSet::new(),
            archived: get::<Option<i64>>(&row, "archived")?
                .map(|generation| number_of(generation, "archived"))
                .transpose()?,
            refused: BTreeMap::new(),
        };
        keys.insert(key_id, key);
    }
    let statement = "SELECT k.key_id, s.id FROM unnest($2::uuid[]) AS k (key_id) CROSS JOIN user_in_chat m \
         JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         LEFT JOIN vault_chat_sender_keys v ON v.chat_id = $1 AND v.sender_key_id = k.key_id AND v.session_id = s.id \
         WHERE m.chat_id = $1 AND v.session_id IS NULL";
    for row in tx.query(statement, &[&head.chat_id.0, &uncovered]).await? {
        let session_id = id(&row, "id", SessionId)?;
        if let Some(key) = keys.get_mut(&id(&row, "key_id", KeyId)?) {
            key.missing.insert(session_id);
        }
    }
    refusals(tx, head, &mut keys).await?;
    Ok(keys)
}

/// Notes whose copies were refused: those that are missing for it, and those that stay and are worth nothing.
async fn refusals(tx: &Transaction<'_>, head: &ChatHead, keys: &mut BTreeMap<KeyId, LoadedKey>) -> Result<(), Failure> {
    let ids: Vec<Uuid> = keys.keys().map(|key_id| key_id.0).collect();
    let statement = "SELECT f.sender_key_id, f.session_id, bool_or(f.is_final) AS is_final FROM refused_copies f \
         LEFT JOIN vault_chat_sender_keys v \
             ON v.chat_id = f.chat_id AND v.sender_key_id = f.sender_key_id AND v.session_id = f.session_id \
         WHERE f.chat_id = $1 AND f.sender_key_id = ANY($2) AND f.has_effect \
             AND (v.key IS NULL OR f.is_final AND sha256(v.key) = f.copy_hash) \
         GROUP BY f.sender_key_id, f.session_id";
    for row in tx.query(statement, &[&head.chat_id.0, &ids]).await? {
        let session_id = id(&row, "session_id", SessionId)?;
        if let Some(key) = keys.get_mut(&id(&row, "sender_key_id", KeyId)?) {
            key.refused.insert(session_id, get(&row, "is_final")?);
        }
    }
    Ok(())
}
