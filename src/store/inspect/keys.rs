//! Reads a chat's sender keys with their copies and what was said of these, and the wraps of its info keys.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::Snapshot;
use crate::protocol::binary::{Hash, Signature};
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{ChatId, Counter, Epoch, GenerationNo, InfoKeyId, KeyId, Seq, SessionId, UserId};
use crate::protocol::keys::{CopyRefusal, InfoKeyWrap, RefusalReason, SignedAnnouncement, SignedRefusal};
use crate::store::error::StoreError;
use crate::store::rows::{fixed, get, id, number, number_of, unpack};
use crate::store::sessions::state_of;

/// Keys of one page; each may have a copy for every recipient.
const KEYS_MAX: i64 = 100;

/// Whether a newer key of its session has replaced a key, as the sweep judges it.
const IS_REPLACED: &str = "EXISTS (SELECT 1 FROM sender_keys n WHERE n.chat_id = k.chat_id AND n.epoch = k.epoch \
     AND n.sender_session_id = k.sender_session_id AND n.created_at > k.created_at)";

/// What the columns say of a sender key.
#[derive(Debug, Clone)]
pub struct KeyRow {
    /// The key.
    pub key_id: KeyId,
    /// Whose it is.
    pub session_id: SessionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its last counter.
    pub last_counter: Counter,
    /// The first message under it.
    pub first_seq: Option<Seq>,
    /// Messages under it whose data is there.
    pub messages_with_data: u64,
}

/// A sender key with all that is stored about it.
#[derive(Debug, Clone)]
pub struct StoredKeyRow {
    /// The columns.
    pub key: KeyRow,
    /// The hash of its secret, by the column.
    pub commitment: Hash,
    /// What its session says of it; none: it cannot be read.
    pub announcement: Option<SignedAnnouncement>,
    /// The roster version at which its copies were the recipients.
    pub covered_version: Option<Seq>,
    /// Whether a newer key of the same session and epoch is there.
    pub is_replaced: bool,
    /// Whether the first message under it is where the column says; none if it says nothing.
    pub is_first_there: Option<bool>,
    /// The newest generation to whose recovery key its sender archived it.
    pub archived: Option<GenerationNo>,
    /// Its copies, in order of session.
    pub copies: Vec<CopyRow>,
    /// What recipients said of its copies.
    pub refusals: Vec<RefusalRow>,
}

/// A copy of a sender key, without the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRow {
    /// Its recipient.
    pub session_id: SessionId,
    /// The recipient's user.
    pub user_id: UserId,
    /// The recipient's state.
    pub state: SessionState,
    /// Whose key it is, by the copy's own row.
    pub sender_session_id: SessionId,
}

/// The refusal of a copy.
#[derive(Debug, Clone)]
pub struct RefusalRow {
    /// Who refused it.
    pub session_id: SessionId,
    /// Whether it changed anything.
    pub has_effect: bool,
    /// What was signed; none: its reason is none of the protocol's.
    pub signed: Option<SignedRefusal>,
}

/// A chat's info key wrapped to one session.
#[derive(Debug, Clone)]
pub struct InfoKeyRow {
    /// The wrap.
    pub wrap: InfoKeyWrap,
    /// The recipient's user.
    pub user_id: UserId,
    /// The recipient's state.
    pub state: SessionState,
}

/// Keys of a chat, in order of id.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<StoredKeyRow>,
    /// Where the next page begins; none after the last.
    pub next: Option<KeyId>,
}

impl Snapshot<'_> {
    /// Some of a chat's keys, as far as they are there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keys(&self, chat_id: ChatId, key_ids: &[KeyId]) -> Result<Vec<KeyRow>, StoreError> {
        let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
        let statement = "SELECT key_id, sender_session_id, epoch, last_counter, first_seq, messages_with_data \
             FROM sender_keys WHERE chat_id = $1 AND key_id = ANY($2)";
        self.tx.query(statement, &[&chat_id.0, &ids]).await?.iter().map(key_row).collect()
    }

    /// A chat's keys after one, with all that is stored about them, a bounded number of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn key_page(&self, chat_id: ChatId, after: Option<KeyId>) -> Result<KeyPage, StoreError> {
        let place = after.map_or_else(Uuid::nil, |key_id| key_id.0);
        let statement = format!(
            "SELECT k.key_id, k.sender_session_id, k.epoch, k.last_counter, k.first_seq, k.messages_with_data, k.commitment, \
                 k.announcement, k.covered_version, (SELECT max(a.generation) FROM sender_key_archives a \
                     WHERE a.chat_id = k.chat_id AND a.sender_key_id = k.key_id \
                     AND a.archived_by_session_id = k.sender_session_id) AS archived, {IS_REPLACED} AS is_replaced, CASE WHEN k.first_seq IS NOT NULL THEN \
                     EXISTS (SELECT 1 FROM chat_messages m WHERE m.chat_id = k.chat_id AND m.seq = k.first_seq \
                     AND m.key_id = k.key_id) END AS is_first_there \
             FROM sender_keys k WHERE k.chat_id = $1 AND (k.key_id > $2 OR $3) ORDER BY k.key_id LIMIT $4"
        );
        let rows = self.tx.query(&statement, &[&chat_id.0, &place, &after.is_none(), &KEYS_MAX]).await?;
        let mut keys: Vec<StoredKeyRow> = rows.iter().map(stored_key_row).collect::<Result<_, _>>()?;
        let ids: Vec<Uuid> = keys.iter().map(|key| key.key.key_id.0).collect();
        let mut copies = self.copies(chat_id, &ids).await?;
        let mut refusals = self.refusals(chat_id, &ids).await?;
        for key in &mut keys {
            key.copies = copies.remove(&key.key.key_id).unwrap_or_default();
            key.refusals = refusals.remove(&key.key.key_id).unwrap_or_default();
        }
        let is_full = i64::try_from(keys.len()).unwrap_or(i64::MAX) >= KEYS_MAX;
        let next = keys.last().filter(|_| is_full).map(|key| key.key.key_id);
        Ok(KeyPage { keys, next })
    }

    async fn copies(&self, chat_id: ChatId, keys: &[Uuid]) -> Result<HashMap<KeyId, Vec<CopyRow>>, StoreError> {
        let statement = "SELECT v.sender_key_id, v.session_id, v.sender_session_id, s.user_id, s.state \
             FROM vault_chat_sender_keys v JOIN user_sessions s ON s.id = v.session_id \
             WHERE v.chat_id = $1 AND v.sender_key_id = ANY($2) ORDER BY v.session_id";
        let mut copies: HashMap<KeyId, Vec<CopyRow>> = HashMap::new();
        for row in &self.tx.query(statement, &[&chat_id.0, &keys]).await? {
            let copy = CopyRow {
                session_id: id(row, "session_id", SessionId)?,
                user_id: id(row, "user_id", UserId)?,
                state: state_of(row)?,
                sender_session_id: id(row, "sender_session_id", SessionId)?,
            };
            copies.entry(id(row, "sender_key_id", KeyId)?).or_default().push(copy);
        }
        Ok(copies)
    }

    async fn refusals(&self, chat_id: ChatId, keys: &[Uuid]) -> Result<HashMap<KeyId, Vec<RefusalRow>>, StoreError> {
        let statement = "SELECT sender_key_id, session_id, copy_hash, reason, signature, has_effect FROM refused_copies \
             WHERE chat_id = $1 AND sender_key_id = ANY($2)";
        let mut refusals: HashMap<KeyId, Vec<RefusalRow>> = HashMap::new();
        for row in &self.tx.query(statement, &[&chat_id.0, &keys]).await? {
            let (key_id, session_id) = (id(row, "sender_key_id", KeyId)?, id(row, "session_id", SessionId)?);
            let (copy_hash, signature): (Hash, Signature) = (fixed(row, "copy_hash")?, fixed(row, "signature")?);
            let reason = reason_of(get(row, "reason")?);
            let signed = reason.map(|reason| SignedRefusal {
                refusal: CopyRefusal { key_id, session_id, reason, copy_hash },
                signature,
            });
            let refusal = RefusalRow { session_id, has_effect: get(row, "has_effect")?, signed };
            refusals.entry(key_id).or_default().push(refusal);
        }
        Ok(refusals)
    }

    /// The wraps of a chat's info keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn info_keys(&self, chat_id: ChatId) -> Result<Vec<InfoKeyRow>, StoreError> {
        let statement = "SELECT v.session_id, v.key_id, v.key, v.wrapped_by_session_id, v.signature, s.user_id, s.state \
             FROM vault_chat_info_keys v JOIN user_sessions s ON s.id = v.session_id \
             WHERE v.chat_id = $1 ORDER BY v.key_id, v.session_id";
        let mut wraps = Vec::new();
        for row in &self.tx.query(statement, &[&chat_id.0]).await? {
            let wrap = InfoKeyWrap {
                session_id: id(row, "session_id", SessionId)?,
                key_id: id(row, "key_id", InfoKeyId)?,
                key: fixed(row, "key")?,
                wrapped_by_session_id: id(row, "wrapped_by_session_id", SessionId)?,
                signature: fixed(row, "signature")?,
            };
            wraps.push(InfoKeyRow { wrap, user_id: id(row, "user_id", UserId)?, state: state_of(row)? });
        }
        Ok(wraps)
    }
}

fn key_row(row: &Row) -> Result<KeyRow, StoreError> {
    let first_seq: Option<i64> = get(row, "first_seq")?;
    Ok(KeyRow {
        key_id: id(row, "key_id", KeyId)?,
        session_id: id(row, "sender_session_id", SessionId)?,
        epoch: number(row, "epoch")?,
        last_counter: number(row, "last_counter")?,
        first_seq: first_seq.map(|seq| number_of(seq, "first_seq")).transpose()?,
        messages_with_data: number(row, "messages_with_data")?,
    })
}

fn stored_key_row(row: &Row) -> Result<StoredKeyRow, StoreError> {
    let covered: Option<i64> = get(row, "covered_version")?;
    Ok(StoredKeyRow {
        key: key_row(row)?,
        commitment: fixed(row, "commitment")?,
        announcement: unpack(get(row, "announcement")?, "sender_keys.announcement").ok(),
        covered_version: covered.map(|seq| number_of(seq, "covered_version")).transpose()?,
        is_replaced: get(row, "is_replaced")?,
        archived: get::<Option<i64>>(row, "archived")?.map(|number| number_of(number, "archived")).transpose()?,
        is_first_there: get(row, "is_first_there")?,
        copies: Vec::new(),
        refusals: Vec::new(),
    })
}

fn reason_of(word: &str) -> Option<RefusalReason> {
    use RefusalReason::{Announcement, Commitment, DoesNotOpen};
    [DoesNotOpen, Commitment, Announcement].into_iter().find(|reason| reason.as_str() == word)
}
