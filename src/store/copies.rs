//! Copies of sender keys that others than their senders hand on, and those that sessions ask for.
//!
//! Invariants: K1 a copy is never overwritten, unless its recipient refused it for good and another session has a
//! better one. K2 who is no sender hands a key on only to those who may read every message that it was used for.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Store;
use super::error::Failure;
use super::head::ChatHead;
use super::members::{Requester, turn_away, unknown_chat};
use super::rows::{bigint, get, id, number, number_of, unpack};
use super::sessions::require_live;
use super::statements::COVER_KEYS;
use super::transaction::Transaction;
use crate::protocol::binary::SigningKey;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{RequestKeys, UploadCopies};
use crate::protocol::ids::{ChatId, Epoch, KeyId, Seq, SessionId, UserId};
use crate::protocol::keys::{KeyCopy, SignedAnnouncement};
use crate::protocol::limits::{COPIES_PER_FRAME_MAX, KEY_REQUESTS_MAX, KEYS_PER_REQUEST_MAX};

/// Requests that a holder is told of when it comes online, at most.
const OPEN_REQUESTS_MAX: i64 = 1_000;

/// A copy that its recipient refused for good: it is there, and worth nothing.
pub(super) const IS_REFUSED: &str = "EXISTS (SELECT 1 FROM refused_copies f WHERE f.chat_id = v.chat_id \
     AND f.sender_key_id = v.sender_key_id AND f.session_id = v.session_id AND f.is_final AND f.copy_hash = sha256(v.key))";

/// Copies of one key that are stored now and were not before.
#[derive(Debug, Clone)]
pub struct StoredCopies {
    /// What the key's session says of it.
    pub announcement: SignedAnnouncement,
    /// The copies.
    pub copies: Vec<KeyCopy>,
}

/// A request for keys that was noted.
#[derive(Debug, Clone)]
pub struct RequestNoted {
    /// Keys that are lacking.
    pub key_ids: Vec<KeyId>,
    /// Sessions whose keys these are.
    pub senders: BTreeSet<SessionId>,
    /// The chat's recipients, in no order: not always the same are asked.
    pub recipients: Vec<(SessionId, UserId)>,
}

/// Keys that a session lacks in a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// The chat.
    pub chat_id: ChatId,
    /// Who lacks them.
    pub session_id: SessionId,
    /// Of which keys.
    pub key_ids: Vec<KeyId>,
}

/// A key as the rules of handing on see it.
struct HeldKey {
    sender_session_id: SessionId,
    announcement: SignedAnnouncement,
    epoch: Epoch,
    /// The first message under it.
    first_seq: Option<Seq>,
    /// Whether the session that asks has a copy that it has not refused for good.
    is_held: bool,
}

impl Store {
    /// Stores further copies of keys that are there, for recipients of the chat. Those that are there stay, and the
    /// same request again is answered the same way.
    ///
    /// # Errors
    /// `unknown_chat`, `unknown_key`, `not_key_holder`, `history_not_allowed`, `recipients_changed`, `too_large`,
    /// `malformed`, or [`super::StoreError`].
    pub async fn upload_copies(&self, who: Requester, request: &UploadCopies) -> Result<Vec<StoredCopies>, Failure> {
        if request.copies.len() > COPIES_PER_FRAME_MAX {
            let limit = COPIES_PER_FRAME_MAX as u64;
            return Err(Refusal::limit(ErrorCode::TooLarge, "too many copies in one frame", limit).into());
        }
        let names: BTreeSet<_> = request.copies.iter().map(|copy| (copy.key_id, copy.session_id)).collect();
        if names.len() != request.copies.len() {
            return Err(Refusal::new(ErrorCode::Malformed, "two copies of one key for one session").into());
        }
        let chat_id = request.chat_id;
        self.write("upload_copies", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            member(tx, who, chat_id).await?;
            let key_ids: BTreeSet<KeyId> = request.copies.iter().map(|copy| copy.key_id).collect();
            let keys = held_keys(tx, who, chat_id, &key_ids).await?;
            let readable_from = readers(tx, request).await?;
            let sessions = request.copies.iter().map(|copy| copy.session_id);
            let extra: BTreeSet<SessionId> = sessions.filter(|id| !readable_from.contains_key(id)).collect();
            if !extra.is_empty() {
                let details = ErrorDetails {
                    seq: Some(head.roster_version),
                    epoch: Some(head.epoch),
                    extra: extra.into_iter().collect(),
                    ..ErrorDetails::default()
                };
                let message = "a copy for somebody who is no recipient";
                return Err(Refusal::with(ErrorCode::RecipientsChanged, message, details).into());
            }
            for copy in &request.copies {
                let key = keys.get(&copy.key_id).ok_or_else(unknown_key)?;
                may_hand_on(who, key, readable_from.get(&copy.session_id).copied())?;
            }
            let stored = insert(tx, who, request).await?;
            cover(tx, &head, &keys, &stored).await?;
            let mut copies_of: BTreeMap<KeyId, Vec<KeyCopy>> = BTreeMap::new();
            for copy in &request.copies {
                if stored.contains(&(copy.key_id, copy.session_id)) {
                    let stored = KeyCopy { session_id: copy.session_id, key: copy.key };
                    copies_of.entry(copy.key_id).or_default().push(stored);
                }
            }
            let with_announcement = |(key_id, copies)| {
                let key: &HeldKey = keys.get(&key_id)?;
                Some(StoredCopies { announcement: key.announcement.clone(), copies })
            };
            Ok(copies_of.into_iter().filter_map(with_announcement).collect())
        })
        .await
    }

    /// Notes that a session lacks copies of keys. Those that it has are left out.
    ///
    /// # Errors
    /// `unknown_chat`, `unknown_key`, `history_not_allowed`, `too_large`, `limit_reached`, or [`super::StoreError`].
    pub async fn request_keys(&self, who: Requester, request: &RequestKeys) -> Result<RequestNoted, Failure> {
        if request.key_ids.len() > KEYS_PER_REQUEST_MAX {
            let limit = KEYS_PER_REQUEST_MAX as u64;
            return Err(Refusal::limit(ErrorCode::TooLarge, "too many keys in one request", limit).into());
        }
        let chat_id = request.chat_id;
        self.write("request_keys", async |tx| {
            turn_away(tx, who, chat_id).await?;
            // Whoever uploads copies holds this lock, so a copy that comes meanwhile ends the request it answers.
            let Some(_) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let (_, readable_from) = member(tx, who, chat_id).await?;
            let wanted: BTreeSet<KeyId> = request.key_ids.iter().copied().collect();
            let keys = held_keys(tx, who, chat_id, &wanted).await?;
            if keys.len() != wanted.len() {
                return Err(unknown_key().into());
            }
            let lacking = || keys.iter().filter(|(_, key)| !key.is_held);
            if lacking().any(|(_, key)| key.first_seq.is_some_and(|seq| seq < readable_from)) {
                return Err(history_not_allowed(who.user_id).into());
            }
            let key_ids: Vec<KeyId> = lacking().map(|(key_id, _)| *key_id).collect();
            let senders = lacking().map(|(_, key)| key.sender_session_id).collect();
            note(tx, who, chat_id, &key_ids).await?;
            Ok(RequestNoted { key_ids, senders, recipients: recipients(tx, chat_id).await? })
        })
        .await
    }

    /// Which of some sessions may hand on which keys: those whose keys they are, and those that hold a copy.
    ///
    /// # Errors
    /// [`super::StoreError`].
    pub async fn key_holders(
        &self,
        chat_id: ChatId,
        key_ids: &[KeyId],
        among: &[SessionId],
    ) -> Result<BTreeMap<SessionId, Vec<KeyId>>, Failure> {
        let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
        let sessions: Vec<Uuid> = among.iter().map(|session_id| session_id.0).collect();
        self.read("key_holders", async |tx| {
            let statement = format!(
                "SELECT v.session_id, v.sender_key_id FROM vault_chat_sender_keys v WHERE v.chat_id = $1 \
                     AND v.sender_key_id = ANY($2) AND v.session_id = ANY($3) AND NOT {IS_REFUSED} \
                 UNION SELECT sender_session_id, key_id FROM sender_keys \
                     WHERE chat_id = $1 AND key_id = ANY($2) AND sender_session_id = ANY($3)"
            );
            let mut holders: BTreeMap<SessionId, Vec<KeyId>> = BTreeMap::new();
            for row in tx.query(&statement, &[&chat_id.0, &ids, &sessions]).await? {
                let session_id = id(&row, "session_id", SessionId)?;
                holders.entry(session_id).or_default().push(id(&row, "sender_key_id", KeyId)?);
            }
            Ok(holders)
        })
        .await
    }
}

/// What others lack that a session may hand on, the oldest first, a bounded number of keys.
///
/// # Errors
/// [`super::StoreError`].
pub(super) async fn open_requests(tx: &Transaction<'_>, holder: Requester) -> Result<Vec<OpenRequest>, Failure> {
    let statement = format!(
        "SELECT r.chat_id, r.session_id, r.sender_key_id FROM user_in_chat m \
         JOIN key_requests r ON r.chat_id = m.chat_id AND r.session_id <> $2 \
         JOIN user_sessions s ON s.id = r.session_id AND s.state = 'live' \
         JOIN user_in_chat reader ON reader.chat_id = r.chat_id AND reader.user_id = s.user_id \
         JOIN sender_keys k ON k.chat_id = r.chat_id AND k.key_id = r.sender_key_id \
         WHERE m.user_id = $1 AND (k.sender_session_id = $2 OR EXISTS (SELECT 1 FROM vault_chat_sender_keys v \
             WHERE v.chat_id = r.chat_id AND v.sender_key_id = r.sender_key_id AND v.session_id = $2 \
             AND NOT {IS_REFUSED})) \
         ORDER BY r.created_at LIMIT $3"
    );
    let mut open: BTreeMap<(ChatId, SessionId), Vec<KeyId>> = BTreeMap::new();
    for row in tx.query(&statement, &[&holder.user_id.0, &holder.session_id.0, &OPEN_REQUESTS_MAX]).await? {
        let asker = (id(&row, "chat_id", ChatId)?, id(&row, "session_id", SessionId)?);
        open.entry(asker).or_default().push(id(&row, "sender_key_id", KeyId)?);
    }
    let request = |((chat_id, session_id), key_ids)| OpenRequest { chat_id, session_id, key_ids };
    Ok(open.into_iter().map(request).collect())
}

fn unknown_key() -> Refusal {
    Refusal::new(ErrorCode::UnknownKey, "no such key in this chat")
}

fn history_not_allowed(user_id: UserId) -> Refusal {
    let details = ErrorDetails { user_id: Some(user_id), ..ErrorDetails::default() };
    let message = "the key was used for what the recipient may not read";
    Refusal::with(ErrorCode::HistoryNotAllowed, message, details)
}

/// Whether a session may hand a key on to a user who reads from some seq on (K2).
fn may_hand_on(who: Requester, key: &HeldKey, reader: Option<(UserId, Seq)>) -> Result<(), Refusal> {
    if key.sender_session_id == who.session_id {
        return Ok(());
    }
    if !key.is_held {
        return Err(Refusal::new(ErrorCode::NotKeyHolder, "this session holds no copy of the key"));
    }
    match reader {
        Some((user_id, from)) if key.first_seq.is_some_and(|first| first < from) => Err(history_not_allowed(user_id)),
        _ => Ok(()),
    }
}

/// Checks that a session is live and its user a member; gives its key, and the seq from which on it may read.
pub(super) async fn member(
    tx: &Transaction<'_>,
    who: Requester,
    chat_id: ChatId,
) -> Result<(SigningKey, Seq), Failure> {
    let statement = "SELECT readable_from FROM user_in_chat WHERE chat_id = $1 AND user_id = $2";
    let row = tx.query_opt(statement, &[&chat_id.0, &who.user_id.0]).await?.ok_or_else(unknown_chat)?;
    let signing_key = require_live(tx, who.user_id, who.session_id).await?;
    Ok((signing_key, number(&row, "readable_from")?))
}

async fn held_keys(
    tx: &Transaction<'_>,
    who: Requester,
    chat_id: ChatId,
    key_ids: &BTreeSet<KeyId>,
) -> Result<BTreeMap<KeyId, HeldKey>, Failure> {
    let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
    let statement = format!(
        "SELECT k.key_id, k.sender_session_id, k.announcement, k.epoch, k.first_seq, \
             EXISTS (SELECT 1 FROM vault_chat_sender_keys v WHERE v.chat_id = k.chat_id AND v.sender_key_id = k.key_id \
                 AND v.session_id = $3 AND NOT {IS_REFUSED}) AS is_held \
         FROM sender_keys k WHERE k.chat_id = $1 AND k.key_id = ANY($2)"
    );
    let mut keys = BTreeMap::new();
    for row in tx.query(&statement, &[&chat_id.0, &ids, &who.session_id.0]).await? {
        let first_seq: Option<i64> = get(&row, "first_seq")?;
        let key = HeldKey {
            sender_session_id: id(&row, "sender_session_id", SessionId)?,
            announcement: unpack(get(&row, "announcement")?, "sender_keys.announcement")?,
            epoch: number(&row, "epoch")?,
            first_seq: first_seq.map(|seq| number_of(seq, "first_seq")).transpose()?,
            is_held: get(&row, "is_held")?,
        };
        keys.insert(id(&row, "key_id", KeyId)?, key);
    }
    Ok(keys)
}

/// The recipients of copies who are recipients of the chat, each with their user and from where that one may read.
async fn readers(tx: &Transaction<'_>, request: &UploadCopies) -> Result<BTreeMap<SessionId, (UserId, Seq)>, Failure> {
    let sessions: BTreeSet<Uuid> = request.copies.iter().map(|copy| copy.session_id.0).collect();
    let sessions: Vec<Uuid> = sessions.into_iter().collect();
    let statement = "SELECT s.id, s.user_id, m.readable_from FROM user_in_chat m \
         JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' WHERE m.chat_id = $1 AND s.id = ANY($2)";
    let mut readers = BTreeMap::new();
    for row in tx.query(statement, &[&request.chat_id.0, &sessions]).await? {
        let reader = (id(&row, "user_id", UserId)?, number(&row, "readable_from")?);
        readers.insert(id(&row, "id", SessionId)?, reader);
    }
    Ok(readers)
}

/// Stores copies where there are none (K1), and forgets the requests that they answer. Gives those that are new.
async fn insert(
    tx: &Transaction<'_>,
    who: Requester,
    request: &UploadCopies,
) -> Result<BTreeSet<(KeyId, SessionId)>, Failure> {
    let (mut key_ids, mut sessions, mut wrapped) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    for copy in &request.copies {
        key_ids.push(copy.key_id.0);
        sessions.push(copy.session_id.0);
        wrapped.push(copy.key.as_ref());
    }
    let statement = format!(
        "INSERT INTO vault_chat_sender_keys AS v \
             (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
         SELECT $1, n.key_id, n.session_id, k.sender_session_id, n.key, $5 \
         FROM unnest($2::uuid[], $3::uuid[], $4::bytea[]) AS n (key_id, session_id, key) \
         JOIN sender_keys k ON k.chat_id = $1 AND k.key_id = n.key_id \
         ON CONFLICT (chat_id, sender_key_id, session_id) \
             DO UPDATE SET key = excluded.key, uploaded_by_session_id = excluded.uploaded_by_session_id \
             WHERE v.uploaded_by_session_id <> excluded.uploaded_by_session_id AND {IS_REFUSED} \
         RETURNING v.sender_key_id, v.session_id"
    );
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&request.chat_id.0, &key_ids, &sessions, &wrapped, &who.session_id.0];
    let mut stored = BTreeSet::new();
    for row in tx.query(&statement, &parameters).await? {
        stored.insert((id(&row, "sender_key_id", KeyId)?, id(&row, "session_id", SessionId)?));
    }
    // A copy that was refused for good, and did not give way to a better one, answers nothing.
    let answered = format!(
        "DELETE FROM key_requests r USING unnest($2::uuid[], $3::uuid[]) AS n (key_id, session_id) \
         JOIN vault_chat_sender_keys v ON v.chat_id = $1 AND v.sender_key_id = n.key_id AND v.session_id = n.session_id \
         WHERE r.chat_id = $1 AND r.sender_key_id = n.key_id AND r.session_id = n.session_id AND NOT {IS_REFUSED}"
    );
    tx.execute(&answered, &[&request.chat_id.0, &key_ids, &sessions]).await?;
    Ok(stored)
}

/// Marks the current keys whose copies are now exactly the recipients, so that their senders need not add any.
async fn cover(
    tx: &Transaction<'_>,
    head: &ChatHead,
    keys: &BTreeMap<KeyId, HeldKey>,
    stored: &BTreeSet<(KeyId, SessionId)>,
) -> Result<(), Failure> {
    let is_current = |key_id: &KeyId| keys.get(key_id).is_some_and(|key| key.epoch == head.epoch);
    let current: BTreeSet<Uuid> =
        stored.iter().map(|(key_id, _)| *key_id).filter(is_current).map(|key_id| key_id.0).collect();
    if current.is_empty() {
        return Ok(());
    }
    let current: Vec<Uuid> = current.into_iter().collect();
    let chats = vec![head.chat_id.0; current.len()];
    tx.query(COVER_KEYS, &[&chats, &current]).await?;
    Ok(())
}

/// Notes keys that are lacking; those noted before stay as they are.
async fn note(tx: &Transaction<'_>, who: Requester, chat_id: ChatId, key_ids: &[KeyId]) -> Result<(), Failure> {
    let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
    let insert = "INSERT INTO key_requests (chat_id, sender_key_id, session_id) \
         SELECT $1, key_id, $3 FROM unnest($2::uuid[]) AS n (key_id) ON CONFLICT DO NOTHING";
    tx.execute(insert, &[&chat_id.0, &ids, &who.session_id.0]).await?;
    let statement = "SELECT count(*) AS count FROM key_requests WHERE session_id = $1";
    let count: i64 = get(&tx.query_one(statement, &[&who.session_id.0]).await?, "count")?;
    if count > bigint(KEY_REQUESTS_MAX) {
        let message = "too many keys are asked for and not there yet";
        return Err(Refusal::limit(ErrorCode::LimitReached, message, KEY_REQUESTS_MAX).into());
    }
    Ok(())
}

async fn recipients(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Vec<(SessionId, UserId)>, Failure> {
    let statement = "SELECT s.id, s.user_id FROM user_in_chat m \
         JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' WHERE m.chat_id = $1 ORDER BY random()";
    let found = tx.query(statement, &[&chat_id.0]).await?;
    let session = |row| Ok((id(row, "id", SessionId)?, id(row, "user_id", UserId)?));
    found.iter().map(session).collect()
}
