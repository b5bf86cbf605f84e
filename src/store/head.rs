//! The head of a chat's log inside a transaction: locked, moved on by entries that are not messages, written back.
//!
//! Every transaction that changes a chat's log outside the writer goes through here (S2).

use tokio_postgres::Row;

use uuid::Uuid;

use super::error::{Failure, StoreError};
use super::rows::{bigint, fixed, fixed_or_null, get, id, number, number_of, pack, system_time, timestamp};
use super::transaction::Transaction;
use crate::protocol::binary::{ExchangeKey, Hash};
use crate::protocol::fold::{Before, Effect, roster_hash};
use crate::protocol::group_key::{RecoveryKey, UserKeyEntry};
use crate::protocol::ids::{ChangeNo, ChatId, Epoch, GenerationNo, Seq, SessionId, Timestamp, UserId};
use crate::protocol::limits::MEMBER_KEYS_MAX;
use crate::protocol::log::{EntryBody, LogEntry, SessionOut, next_entry};
use crate::protocol::membership::{Change, HistoryPolicy};

/// The columns of `chats` that a head is read from.
const COLUMNS: &str = "id, owner_id, shared_since, last_seq, log_hash, epoch, roster_version, roster_hash, change_no, change_hash, \
     group_key_generation, \
     recovery_public_key, generation_session_id, generation_outdated, next_expiry IS NOT NULL AND next_expiry <= clock_timestamp() AS expiry_due, clock_timestamp() AS now, \
     greatest((SELECT created_at FROM chat_messages m WHERE m.chat_id = chats.id AND m.seq = last_seq), \
         (SELECT created_at FROM chat_events e WHERE e.chat_id = chats.id AND e.seq = last_seq), chats.created_at) AS last_at";

/// A chat whose row is locked.
#[derive(Debug, Clone)]
pub struct ChatHead {
    /// The chat.
    pub chat_id: ChatId,
    /// Its owner.
    pub owner_id: UserId,
    /// Where a shared history began; none while newcomers read from their joining on.
    pub shared_since: Option<Seq>,
    /// The newest entry.
    pub last_seq: Seq,
    /// The log's hash with it.
    pub log_hash: Hash,
    /// The epoch.
    pub epoch: Epoch,
    /// How many began since the lock.
    epochs_begun: u64,
    /// The seq of the last entry that changed the recipients.
    pub roster_version: Seq,
    /// The hash of the recipients.
    pub roster_hash: Hash,
    /// The newest membership change.
    pub change_no: ChangeNo,
    /// Its hash.
    pub change_hash: Hash,
    /// The newest generation's recovery key, a recipient or not.
    pub generation: Option<RecoveryKey>,
    /// The session that made it.
    pub maker: Option<SessionId>,
    /// Whether something happened since after which there must be another.
    pub is_outdated: bool,
    /// Whether a recipient's time has run out and nobody has written it down.
    pub expiry_due: bool,
    /// The time of the newest entry.
    pub last_at: Timestamp,
    /// The database's clock after the lock, and never before the newest entry: time does not go back in a log.
    pub now: Timestamp,
    entries: Vec<LogEntry>,
}

impl ChatHead {
    /// Locks a chat's row and reads it; none if there is no such chat.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn lock(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Option<Self>, Failure> {
        Ok(Self::lock_all(tx, &[chat_id]).await?.pop())
    }

    /// Locks chats' rows in order of id (S1) and reads them.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn lock_all(tx: &Transaction<'_>, chat_ids: &[ChatId]) -> Result<Vec<Self>, Failure> {
        let ids: Vec<Uuid> = chat_ids.iter().map(|chat_id| chat_id.0).collect();
        // The lock and the read are two statements: the second sees what was committed while the first waited.
        let lock = "SELECT 1 FROM chats WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
        tx.query(lock, &[&ids]).await?;
        let read = format!("SELECT {COLUMNS} FROM chats WHERE id = ANY($1) ORDER BY id");
        let found = tx.query(&read, &[&ids]).await?;
        Ok(found.iter().map(Self::read).collect::<Result<_, _>>()?)
    }

    /// The head of a chat that is being made: before its first entry.
    #[must_use]
    pub fn new(chat_id: ChatId, owner_id: UserId, log_start: Hash, now: Timestamp) -> Self {
        Self {
            chat_id,
            owner_id,
            shared_since: None,
            last_seq: Seq::default(),
            log_hash: log_start,
            epoch: Epoch::saturating(1),
            epochs_begun: 0,
            roster_version: Seq::default(),
            roster_hash: roster_hash(std::iter::empty::<(SessionId, ExchangeKey)>(), None),
            change_no: ChangeNo::default(),
            change_hash: crate::protocol::membership::chain_start(chat_id),
            generation: None,
            maker: None,
            is_outdated: false,
            expiry_due: false,
            last_at: now,
            now,
            entries: Vec::new(),
        }
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        let last_at = timestamp(row, "last_at")?;
        Ok(Self {
            chat_id: id(row, "id", ChatId)?,
            owner_id: id(row, "owner_id", UserId)?,
            shared_since: get::<Option<i64>>(row, "shared_since")?
                .map(|seq| number_of(seq, "shared_since"))
                .transpose()?,
            last_seq: number(row, "last_seq")?,
            log_hash: fixed(row, "log_hash")?,
            epoch: number(row, "epoch")?,
            epochs_begun: 0,
            roster_version: number(row, "roster_version")?,
            roster_hash: fixed(row, "roster_hash")?,
            change_no: number(row, "change_no")?,
            change_hash: fixed(row, "change_hash")?,
            generation: match fixed_or_null(row, "recovery_public_key")? {
                Some(public_key) => Some(RecoveryKey { generation: number(row, "group_key_generation")?, public_key }),
                None => None,
            },
            maker: get::<Option<Uuid>>(row, "generation_session_id")?.map(SessionId),
            is_outdated: get(row, "generation_outdated")?,
            expiry_due: get(row, "expiry_due")?,
            last_at,
            now: timestamp(row, "now")?.max(last_at),
            entries: Vec::new(),
        })
    }

    /// Appends an entry that is not a message, and moves epoch and roster version as the log's fold does.
    pub fn append(&mut self, body: EntryBody) -> Seq {
        self.append_knowing(body, false)
    }

    /// Appends an entry about a member's user key; says whether the log showed another one of them before.
    pub fn append_user_key(&mut self, entry: UserKeyEntry, has_user_key: bool) -> Seq {
        self.append_knowing(EntryBody::UserKey(entry), has_user_key)
    }

    /// The recovery key that receives beside the sessions.
    #[must_use]
    pub fn recovery_key(&self) -> Option<RecoveryKey> {
        self.generation.filter(|_| !self.is_outdated)
    }

    /// The generation that must be made before the next message, of a chat whose members have so many user keys.
    #[must_use]
    pub fn generation_due(&self, member_keys: usize) -> Option<GenerationNo> {
        let is_due = self.is_outdated && (1..=MEMBER_KEYS_MAX).contains(&member_keys);
        is_due.then(|| self.generation.map_or(GenerationNo::default(), |key| key.generation).next())
    }

    fn append_knowing(&mut self, body: EntryBody, has_user_key: bool) -> Seq {
        let history = if self.shared_since.is_some() { HistoryPolicy::Shared } else { HistoryPolicy::FromJoin };
        let effect = Effect::of(&body, &Before { history, maker: self.maker, has_user_key });
        match &body {
            EntryBody::Membership(signed) => {
                self.change_no = signed.change.n;
                self.change_hash = signed.chain_hash(self.chat_id);
            }
            EntryBody::Generation(signed) => {
                let made = &signed.generation;
                self.generation = Some(RecoveryKey { generation: made.number, public_key: made.public_key });
                self.maker = Some(made.session_id);
                self.is_outdated = false;
            }
            _ => {}
        }
        self.is_outdated |= effect.outdates_generation;
        let entry = next_entry(self.chat_id, self.last_seq, &self.log_hash, self.now, body);
        self.last_seq = entry.seq;
        self.log_hash = entry.log_hash;
        if effect.changes_roster {
            self.roster_version = entry.seq;
        }
        if effect.raises_epoch {
            self.epoch = self.epoch.next();
            self.epochs_begun += 1;
        }
        self.entries.push(entry);
        self.last_seq
    }
}

/// Writes the new entries and heads of locked chats. Set-based: a few statements however many chats there are.
///
/// Members and sessions must have been written before: roster hash and next expiry are read from them.
///
/// # Errors
/// [`Failure::Store`].
pub async fn write_back(tx: &Transaction<'_>, heads: &[ChatHead]) -> Result<(), Failure> {
    insert_entries(tx, heads).await?;
    let changed: Vec<Uuid> = heads.iter().filter(|head| !head.entries.is_empty()).map(|head| head.chat_id.0).collect();
    let rosters = rosters(tx, &changed).await?;
    let (mut chats, mut seqs, mut hashes) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    let (mut epochs, mut versions, mut roster_hashes) = (Vec::new(), Vec::new(), Vec::<Vec<u8>>::new());
    let (mut expiries, mut change_nos, mut change_hashes) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    let (mut owners, mut shared_sinces, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let (mut generations, mut recovery_keys) = (Vec::new(), Vec::<Option<Vec<u8>>>::new());
    let (mut makers, mut outdated) = (Vec::new(), Vec::new());
    tx.begins_epochs(heads.iter().map(|head| head.epochs_begun).sum());
    for head in heads.iter().filter(|head| !head.entries.is_empty()) {
        let roster = rosters.iter().find(|roster| roster.chat_id == head.chat_id);
        chats.push(head.chat_id.0);
        seqs.push(bigint(head.last_seq));
        hashes.push(head.log_hash.as_ref());
        epochs.push(bigint(head.epoch));
        versions.push(bigint(head.roster_version));
        let hash = roster.map_or(head.roster_hash, |roster| roster.hash(head.recovery_key().as_ref()));
        roster_hashes.push(hash.as_ref().to_vec());
        generations.push(bigint(head.generation.map_or(GenerationNo::default(), |key| key.generation)));
        recovery_keys.push(head.generation.map(|key| key.public_key.as_ref().to_vec()));
        makers.push(head.maker.map(|session_id| session_id.0));
        outdated.push(head.is_outdated);
        expiries.push(roster.and_then(Roster::next_expiry).map(system_time));
        change_nos.push(bigint(head.change_no));
        change_hashes.push(head.change_hash.as_ref());
        owners.push(head.owner_id.0);
        shared_sinces.push(head.shared_since.map(bigint));
        let lost = head.entries.iter().rev().find(|entry| takes_access(&entry.body));
        losses.push(lost.map(|entry| bigint(entry.seq)));
    }
    let statement = "UPDATE chats SET last_seq = new.last_seq, log_hash = new.log_hash, epoch = new.epoch, \
             roster_version = new.roster_version, roster_hash = new.roster_hash, next_expiry = new.next_expiry, \
             change_no = new.change_no, change_hash = new.change_hash, owner_id = new.owner_id, \
             shared_since = new.shared_since, info_lost_seq = greatest(chats.info_lost_seq, new.lost_seq), \
             group_key_generation = new.generation, recovery_public_key = new.recovery_public_key, \
             generation_session_id = new.maker, generation_outdated = new.is_outdated, \
             history_policy = CASE WHEN new.shared_since IS NULL THEN 'from_join' ELSE 'shared' END \
         FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[], \
             $7::timestamptz[], $8::bigint[], $9::bytea[], $10::uuid[], $11::bigint[], $12::bigint[], \
             $13::bigint[], $14::bytea[], $15::uuid[], $16::boolean[]) \
             AS new (id, last_seq, log_hash, epoch, roster_version, roster_hash, next_expiry, change_no, change_hash, \
             owner_id, shared_since, lost_seq, generation, recovery_public_key, maker, is_outdated) \
         WHERE chats.id = new.id";
    tx.execute(
        statement,
        &[
            &chats,
            &seqs,
            &hashes,
            &epochs,
            &versions,
            &roster_hashes,
            &expiries,
            &change_nos,
            &change_hashes,
            &owners,
            &shared_sinces,
            &losses,
            &generations,
            &recovery_keys,
            &makers,
            &outdated,
        ],
    )
    .await?;
    Ok(())
}

/// Whether an entry takes a recipient away, who may hold the chat's info key.
const fn takes_access(body: &EntryBody) -> bool {
    match body {
        EntryBody::Membership(signed) => matches!(signed.change.change, Change::Remove | Change::Leave),
        EntryBody::SessionOut(_) | EntryBody::AccountDeleted(_) | EntryBody::AccountRemoved { .. } => true,
        EntryBody::SessionIn(_)
        | EntryBody::Message(_)
        | EntryBody::UserKey(_)
        | EntryBody::Generation(_)
        | EntryBody::GenerationRefused(_) => false,
    }
}

async fn insert_entries(tx: &Transaction<'_>, heads: &[ChatHead]) -> Result<(), Failure> {
    let (mut chats, mut seqs, mut kinds, mut change_nos) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut times, mut bodies, mut hashes) = (Vec::new(), Vec::new(), Vec::<&[u8]>::new());
    let mut changes = Vec::new();
    for head in heads {
        for entry in &head.entries {
            let (kind, change) = match &entry.body {
                EntryBody::Membership(signed) => ("membership", Some(&signed.change)),
                EntryBody::SessionIn(_) => ("session_in", None),
                EntryBody::SessionOut(SessionOut::Revoked(_) | SessionOut::Expired { .. }) => ("session_out", None),
                EntryBody::AccountDeleted(_) => ("account_deleted", None),
                EntryBody::AccountRemoved { .. } => ("account_removed", None),
                EntryBody::UserKey(_) => ("user_key", None),
                EntryBody::Generation(_) => ("generation", None),
                EntryBody::GenerationRefused(_) => ("generation_refused", None),
                // Messages go through the writer alone.
                EntryBody::Message(_) => continue,
            };
            chats.push(head.chat_id.0);
            seqs.push(bigint(entry.seq));
            kinds.push(kind);
            change_nos.push(change.map(|change| bigint(change.n)));
            changes.push(change.map(|change| change.change.as_str()));
            times.push(system_time(entry.created_at));
            bodies.push(pack(&entry.body, "chat_events.body")?);
            hashes.push(entry.log_hash.as_ref());
        }
    }
    let statement = "INSERT INTO chat_events (chat_id, seq, kind, change_no, created_at, body, log_hash, change) \
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::timestamptz[], $6::bytea[], \
             $7::bytea[], $8::text[])";
    tx.execute(statement, &[&chats, &seqs, &kinds, &change_nos, &times, &bodies, &hashes, &changes]).await?;
    Ok(())
}

/// The recipients of a chat as the tables of members and sessions give them.
struct Roster {
    chat_id: ChatId,
    /// In order of session id.
    sessions: Vec<(SessionId, ExchangeKey, Timestamp)>,
}

impl Roster {
    fn hash(&self, recovery: Option<&RecoveryKey>) -> Hash {
        let sessions = self.sessions.iter().map(|(session_id, public_key, _)| (*session_id, *public_key));
        roster_hash(sessions, recovery)
    }

    fn next_expiry(&self) -> Option<Timestamp> {
        self.sessions.iter().map(|(_, _, expired_at)| *expired_at).min()
    }
}

async fn rosters(tx: &Transaction<'_>, chat_ids: &[Uuid]) -> Result<Vec<Roster>, Failure> {
    let statement = "SELECT m.chat_id, s.id, s.public_key, s.expired_at \
         FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = ANY($1) ORDER BY m.chat_id, s.id";
    let mut rosters: Vec<Roster> =
        chat_ids.iter().map(|chat_id| Roster { chat_id: ChatId(*chat_id), sessions: Vec::new() }).collect();
    rosters.sort_by_key(|roster| roster.chat_id);
    for row in tx.query(statement, &[&chat_ids]).await? {
        let chat_id = id(&row, "chat_id", ChatId)?;
        let session = (id(&row, "id", SessionId)?, fixed(&row, "public_key")?, timestamp(&row, "expired_at")?);
        if let Ok(index) = rosters.binary_search_by_key(&chat_id, |roster| roster.chat_id)
            && let Some(roster) = rosters.get_mut(index)
        {
            roster.sessions.push(session);
        }
    }
    Ok(rosters)
}

/// The chats of a user, in order of id.
///
/// # Errors
/// [`Failure::Store`].
pub async fn chats_of_user(tx: &Transaction<'_>, user_id: UserId) -> Result<Vec<ChatId>, Failure> {
    let statement = "SELECT chat_id FROM user_in_chat WHERE user_id = $1 ORDER BY chat_id";
    let found = tx.query(statement, &[&user_id.0]).await?;
    Ok(found.iter().map(|row| id(row, "chat_id", ChatId)).collect::<Result<_, _>>()?)
}

/// Locks a user's row, the first lock of whatever changes the user's sessions or chats (S1), and reads its chain's
/// head and the database's clock.
///
/// # Errors
/// [`Failure::Store`].
pub async fn lock_user(tx: &Transaction<'_>, user_id: UserId) -> Result<Option<LockedUser>, Failure> {
    tx.query("SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", &[&user_id.0]).await?;
    let statement = "SELECT identity_public_key, chain_place, chain_hash, suspended_at IS NOT NULL AS is_suspended, \
         clock_timestamp() AS now FROM users WHERE id = $1";
    let Some(row) = tx.query_opt(statement, &[&user_id.0]).await? else { return Ok(None) };
    Ok(Some(LockedUser {
        identity_key: fixed(&row, "identity_public_key")?,
        place: number_of(get(&row, "chain_place")?, "chain_place")?,
        hash: fixed(&row, "chain_hash")?,
        is_suspended: get(&row, "is_suspended")?,
        now: timestamp(&row, "now")?,
    }))
}

/// A user whose row is locked.
#[derive(Debug, Clone, Copy)]
pub struct LockedUser {
    /// The identity key.
    pub identity_key: crate::protocol::binary::IdentityKey,
    /// The newest entry of the chain.
    pub place: crate::protocol::ids::Place,
    /// Its hash.
    pub hash: Hash,
    /// Whether the operator has suspended the user.
    pub is_suspended: bool,
    /// The database's clock after the lock.
    pub now: Timestamp,
}
