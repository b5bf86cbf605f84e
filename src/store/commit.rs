//! One commit of the writer: locks, judges, writes, commits. Set-based: a few statements however many messages.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::try_join3;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Statement};
use uuid::Uuid;

use super::batch::Item;
use super::error::StoreError;
use super::rows::{bigint, get, pack, system_time};
use super::writer::Outcome;
use crate::protocol::ids::ChatId;
use crate::protocol::log::EntryBody;

/// What is to be said of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is over.
    Done(Outcome),
    /// Its chat's row is locked by somebody else: try again soon.
    Busy,
}

/// A connection of the writer.
#[derive(Debug)]
pub struct Lane {
    config: Config,
    deadline: Duration,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    statements: Statements,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[derive(Debug)]
struct Statements {
    lock: Statement,
    keys: Statement,
    messages_present: Statement,
    insert_messages: Statement,
    insert_keys: Statement,
    insert_copies: Statement,
    cover_keys: Statement,
    use_keys: Statement,
    move_heads: Statement,
}

/// Locks what can be locked at once; a row that somebody else holds is left out.
const LOCK: &str = "SELECT id, last_seq, epoch, roster_version, \
     coalesce(next_expiry <= clock_timestamp(), false) AS expiry_due \
     FROM chats WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

const KEYS: &str = "SELECT k.chat_id, k.key_id, k.sender_session_id, k.epoch, k.last_counter, k.covered_version \
     FROM unnest($1::uuid[], $2::uuid[]) AS wanted (chat_id, key_id) \
     JOIN sender_keys k ON k.chat_id = wanted.chat_id AND k.key_id = wanted.key_id";

const MESSAGES_PRESENT: &str = "SELECT m.chat_id, m.id, m.revision \
     FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS wanted (chat_id, id, revision) \
     JOIN chat_messages m ON m.chat_id = wanted.chat_id AND m.id = wanted.id AND m.revision = wanted.revision";

const INSERT_MESSAGES: &str = "INSERT INTO chat_messages (chat_id, seq, id, revision, kind, sender_id, sender_session_id, \
     key_id, counter, created_at, roster_hash, seen_seq, seen_log_hash, data, data_hash, signature, log_hash) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::uuid[], $7::uuid[], \
     $8::uuid[], $9::bigint[], $10::timestamptz[], $11::bytea[], $12::bigint[], $13::bytea[], $14::bytea[], \
     $15::bytea[], $16::bytea[], $17::bytea[])";

const INSERT_KEYS: &str = "INSERT INTO sender_keys (chat_id, key_id, sender_session_id, epoch, commitment, announcement, created_at) \
     SELECT n.chat_id, n.key_id, n.sender_session_id, n.epoch, n.commitment, n.announcement, clock_timestamp() \
     FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bytea[], $6::bytea[]) \
     AS n (chat_id, key_id, sender_session_id, epoch, commitment, announcement)";

/// The first copy stays: nobody overwrites a wrapped key.
const INSERT_COPIES: &str = "INSERT INTO vault_chat_sender_keys \
     (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
     SELECT n.chat_id, n.key_id, n.session_id, n.uploaded_by, n.key, n.uploaded_by \
     FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::uuid[]) \
     AS n (chat_id, key_id, session_id, key, uploaded_by) ON CONFLICT DO NOTHING";

/// Marks the keys whose copies are exactly the recipients: coverage by the database's own count.
const COVER_KEYS: &str = "UPDATE sender_keys k SET covered_version = c.roster_version \
     FROM unnest($1::uuid[], $2::uuid[]) AS wanted (chat_id, key_id) JOIN chats c ON c.id = wanted.chat_id \
     WHERE k.chat_id = wanted.chat_id AND k.key_id = wanted.key_id \
     AND NOT EXISTS (SELECT 1 FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = wanted.chat_id AND NOT EXISTS (SELECT 1 FROM vault_chat_sender_keys v \
             WHERE v.chat_id = wanted.chat_id AND v.sender_key_id = wanted.key_id AND v.session_id = s.id)) \
     AND NOT EXISTS (SELECT 1 FROM vault_chat_sender_keys v WHERE v.chat_id = wanted.chat_id \
         AND v.sender_key_id = wanted.key_id AND NOT EXISTS (SELECT 1 FROM user_sessions s \
             JOIN user_in_chat m ON m.user_id = s.user_id AND m.chat_id = wanted.chat_id \
             WHERE s.id = v.session_id AND s.state = 'live')) \
     RETURNING k.chat_id, k.key_id";

const USE_KEYS: &str = "UPDATE sender_keys k SET last_counter = n.counter \
     FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS n (chat_id, key_id, counter) \
     WHERE k.chat_id = n.chat_id AND k.key_id = n.key_id";

const MOVE_HEADS: &str = "UPDATE chats c SET last_seq = n.last_seq, log_hash = n.log_hash \
     FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS n (id, last_seq, log_hash) WHERE c.id = n.id";

/// A chat's row under its lock, as the items of this batch move it on.
struct Locked {
    last_seq: i64,
    epoch: i64,
    roster_version: i64,
    expiry_due: bool,
}

/// A key by its chat and id: the ids are their makers' choice, so two chats may use the same one.
type KeyName = (Uuid, Uuid);

fn key_name(item: &Item) -> KeyName {
    (item.chat_id.0, item.key_id.0)
}

/// A revision of a message by its chat, id and number.
type MessageName = (Uuid, Uuid, i64);

fn message_name(item: &Item) -> Option<MessageName> {
    match item.entry.as_ref().map(|entry| &entry.body) {
        Some(EntryBody::Message(envelope)) => Some((item.chat_id.0, envelope.message_id.0, bigint(envelope.revision))),
        _ => None,
    }
}

/// A stored key, as the items of this batch move it on.
struct StoredKey {
    sender_session_id: Uuid,
    epoch: i64,
    last_counter: i64,
    /// Whether the store knew before this batch that its copies are the recipients; else it counts them.
    was_covered: bool,
}

/// Why a batch is tried again.
enum Retry {
    /// A message of some id is there: find out which.
    IdTaken,
    /// These keys' copies are not the recipients after all.
    Uncovered(HashSet<ChatId>),
}

enum Attempt {
    Committed(Vec<Verdict>),
    Again(Retry),
}

impl Lane {
    /// A lane that connects at its first commit.
    #[must_use]
    pub const fn new(config: Config, deadline: Duration) -> Self {
        Self { config, deadline, connection: None }
    }

    /// Commits items, in order for each chat. An item that may not be committed stops those behind it in its
    /// chat, and no others.
    ///
    /// # Errors
    /// [`StoreError`] when the outcome is unknown, or no connection could be had; then the next commit connects
    /// anew.
    pub async fn commit(&mut self, items: &[Item]) -> Result<Vec<Verdict>, StoreError> {
        let deadline = self.deadline;
        let result = match tokio::time::timeout(deadline, self.commit_within_deadline(items)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Deadline),
        };
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn commit_within_deadline(&mut self, items: &[Item]) -> Result<Vec<Verdict>, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => Connection::open(&self.config).await?,
        };
        let connection = self.connection.insert(connection);
        let mut look_for_ids = false;
        let mut uncovered = HashSet::new();
        loop {
            match connection.attempt(items, look_for_ids, &uncovered).await? {
                Attempt::Committed(verdicts) => return Ok(verdicts),
                Attempt::Again(Retry::IdTaken) => look_for_ids = true,
                Attempt::Again(Retry::Uncovered(chats)) => uncovered.extend(chats),
            }
        }
    }
}

impl Connection {
    async fn open(config: &Config) -> Result<Self, StoreError> {
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // A lost connection shows as an error of the statement in flight, which is where it is handled.
            let _ = connection.await;
        });
        let statements = Statements {
            lock: client.prepare(LOCK).await?,
            keys: client.prepare(KEYS).await?,
            messages_present: client.prepare(MESSAGES_PRESENT).await?,
            insert_messages: client.prepare(INSERT_MESSAGES).await?,
            insert_keys: client.prepare(INSERT_KEYS).await?,
            insert_copies: client.prepare(INSERT_COPIES).await?,
            cover_keys: client.prepare(COVER_KEYS).await?,
            use_keys: client.prepare(USE_KEYS).await?,
            move_heads: client.prepare(MOVE_HEADS).await?,
        };
        Ok(Self { client, statements, driver })
    }

    async fn attempt(
        &self,
        items: &[Item],
        look_for_ids: bool,
        uncovered: &HashSet<ChatId>,
    ) -> Result<Attempt, StoreError> {
        let present = if look_for_ids { self.messages_present(items).await? } else { HashSet::new() };
        let (mut locked, mut keys) = self.lock(items).await?;
        let verdicts = judge(items, &mut locked, &mut keys, present, uncovered);
        let accepted: Vec<&Item> = items
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Done(Outcome::Committed))
            .map(|(item, _)| item)
            .collect();
        if accepted.is_empty() {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(Attempt::Committed(verdicts));
        }
        match self.write(&accepted, &keys).await {
            Ok(None) => Ok(Attempt::Committed(verdicts)),
            Ok(Some(retry)) => {
                self.client.batch_execute("ROLLBACK").await?;
                Ok(Attempt::Again(retry))
            }
            Err(error) if error.is_unique_violation() && !look_for_ids => {
                self.client.batch_execute("ROLLBACK").await?;
                Ok(Attempt::Again(Retry::IdTaken))
            }
            Err(error) => Err(error),
        }
    }

    /// Begins, locks the chats and reads the keys, in one round trip: the statements run one after the other,
    /// so the keys are read under the locks.
    async fn lock(&self, items: &[Item]) -> Result<(HashMap<ChatId, Locked>, HashMap<KeyName, StoredKey>), StoreError> {
        let chats: Vec<Uuid> = items.iter().map(|item| item.chat_id.0).collect::<BTreeSet<_>>().into_iter().collect();
        let (key_chats, key_ids): (Vec<Uuid>, Vec<Uuid>) =
            items.iter().map(key_name).collect::<BTreeSet<_>>().into_iter().unzip();
        let (_, chat_rows, key_rows) = try_join3(
            self.client.batch_execute("BEGIN"),
            self.client.query(&self.statements.lock, &[&chats]),
            self.client.query(&self.statements.keys, &[&key_chats, &key_ids]),
        )
        .await?;
        let mut locked = HashMap::new();
        for row in &chat_rows {
            let chat = Locked {
                last_seq: get(row, "last_seq")?,
                epoch: get(row, "epoch")?,
                roster_version: get(row, "roster_version")?,
                expiry_due: get(row, "expiry_due")?,
            };
            locked.insert(ChatId(get(row, "id")?), chat);
        }
        let mut keys = HashMap::new();
        for row in &key_rows {
            let covered: Option<i64> = get(row, "covered_version")?;
            let chat_id: Uuid = get(row, "chat_id")?;
            let chat = locked.get(&ChatId(chat_id));
            let key = StoredKey {
                sender_session_id: get(row, "sender_session_id")?,
                epoch: get(row, "epoch")?,
                last_counter: get(row, "last_counter")?,
                was_covered: chat.is_some_and(|chat| covered == Some(chat.roster_version)),
            };
            keys.insert((chat_id, get(row, "key_id")?), key);
        }
        Ok((locked, keys))
    }

    async fn messages_present(&self, items: &[Item]) -> Result<HashSet<MessageName>, StoreError> {
        let (mut chats, mut ids, mut revisions) = (Vec::new(), Vec::new(), Vec::new());
        for (chat_id, message_id, revision) in items.iter().filter_map(message_name) {
            chats.push(chat_id);
            ids.push(message_id);
            revisions.push(revision);
        }
        let rows = self.client.query(&self.statements.messages_present, &[&chats, &ids, &revisions]).await?;
        rows.iter().map(|row| Ok((get(row, "chat_id")?, get(row, "id")?, get(row, "revision")?))).collect()
    }

    /// Writes and commits; says why not when the items must be judged again.
    async fn write(&self, items: &[&Item], keys: &HashMap<KeyName, StoredKey>) -> Result<Option<Retry>, StoreError> {
        self.insert_messages(items).await?;
        if let Some(retry) = self.write_keys(items, keys).await? {
            return Ok(Some(retry));
        }
        let (mut key_chats, mut key_ids, mut counters) = (Vec::new(), Vec::new(), Vec::new());
        let mut counter_of = HashMap::new();
        for item in items {
            counter_of.insert(key_name(item), bigint(item.counter));
        }
        for ((chat_id, key_id), counter) in counter_of {
            key_chats.push(chat_id);
            key_ids.push(key_id);
            counters.push(counter);
        }
        let mut head_of = HashMap::new();
        for entry in items.iter().filter_map(|item| item.entry.as_ref().map(|entry| (item.chat_id, entry))) {
            head_of.insert(entry.0, (bigint(entry.1.seq), entry.1.log_hash));
        }
        let (mut chats, mut seqs, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        for (chat_id, (seq, log_hash)) in &head_of {
            chats.push(chat_id.0);
            seqs.push(*seq);
            hashes.push(log_hash.as_ref());
        }
        // One round trip. COMMIT of a transaction in which a statement failed rolls back, and the failure is
        // that statement's own error here.
        let (_, _, ()) = try_join3(
            self.client.execute(&self.statements.use_keys, &[&key_chats, &key_ids, &counters]),
            self.client.execute(&self.statements.move_heads, &[&chats, &seqs, &hashes]),
            self.client.batch_execute("COMMIT"),
        )
        .await?;
        Ok(None)
    }

    async fn insert_messages(&self, items: &[&Item]) -> Result<(), StoreError> {
        let mut rows = MessageRows::default();
        for item in items {
            rows.push(item);
        }
        if rows.chats.is_empty() {
            return Ok(());
        }
        self.client
            .execute(
                &self.statements.insert_messages,
                &[
                    &rows.chats,
                    &rows.seqs,
                    &rows.ids,
                    &rows.revisions,
                    &rows.kinds,
                    &rows.senders,
                    &rows.sessions,
                    &rows.keys,
                    &rows.counters,
                    &rows.times,
                    &rows.roster_hashes,
                    &rows.seen_seqs,
                    &rows.seen_hashes,
                    &rows.data,
                    &rows.data_hashes,
                    &rows.signatures,
                    &rows.log_hashes,
                ],
            )
            .await?;
        Ok(())
    }

    async fn write_keys(
        &self,
        items: &[&Item],
        keys: &HashMap<KeyName, StoredKey>,
    ) -> Result<Option<Retry>, StoreError> {
        let is_covered = |item: &Item| keys.get(&key_name(item)).is_some_and(|key| key.was_covered);
        let changed: Vec<&&Item> = items.iter().filter(|item| !item.copies.is_empty() || !is_covered(item)).collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let (mut chats, mut ids, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut epochs, mut commitments, mut announcements) = (Vec::new(), Vec::new(), Vec::new());
        let mut copies = CopyRows::default();
        for item in &changed {
            if let Some(new_key) = &item.new_key {
                chats.push(item.chat_id.0);
                ids.push(item.key_id.0);
                sessions.push(item.sender_session_id.0);
                epochs.push(bigint(new_key.announcement.epoch));
                commitments.push(new_key.announcement.commitment.as_ref());
                announcements.push(pack(new_key, "sender_keys.announcement")?);
            }
            copies.push(item);
        }
        self.client
            .execute(&self.statements.insert_keys, &[&chats, &ids, &sessions, &epochs, &commitments, &announcements])
            .await?;
        let (copy_chats, copy_keys) = (&copies.chats, &copies.keys);
        self.client
            .execute(
                &self.statements.insert_copies,
                &[copy_chats, copy_keys, &copies.sessions, &copies.wrapped, &copies.uploaders],
            )
            .await?;
        let (cover_chats, cover_keys): (Vec<Uuid>, Vec<Uuid>) =
            changed.iter().map(|item| key_name(item)).collect::<BTreeSet<_>>().into_iter().unzip();
        let rows = self.client.query(&self.statements.cover_keys, &[&cover_chats, &cover_keys]).await?;
        let name = |row| Ok((get(row, "chat_id")?, get(row, "key_id")?));
        let covered: HashSet<KeyName> = rows.iter().map(name).collect::<Result<_, StoreError>>()?;
        let uncovered: HashSet<ChatId> = changed
            .iter()
            .filter(|item| item.entry.is_some() && !covered.contains(&key_name(item)))
            .map(|item| item.chat_id)
            .collect();
        Ok(if uncovered.is_empty() { None } else { Some(Retry::Uncovered(uncovered)) })
    }
}

/// Judges items against what the locked rows say (P4, P5).
///
/// `present` are messages that are in the log; those that are accepted join them, or one id twice in one batch
/// would fail the batch as a whole.
fn judge(
    items: &[Item],
    locked: &mut HashMap<ChatId, Locked>,
    keys: &mut HashMap<KeyName, StoredKey>,
    mut present: HashSet<MessageName>,
    uncovered: &HashSet<ChatId>,
) -> Vec<Verdict> {
    let mut stopped: HashSet<ChatId> = HashSet::new();
    let mut verdicts = Vec::with_capacity(items.len());
    for item in items {
        let verdict = match locked.get_mut(&item.chat_id) {
            None => Verdict::Busy,
            Some(_) if stopped.contains(&item.chat_id) => Verdict::Done(Outcome::Conflict),
            Some(_) if uncovered.contains(&item.chat_id) => Verdict::Done(Outcome::Conflict),
            Some(chat) => Verdict::Done(judge_item(item, chat, keys, &mut present)),
        };
        if matches!(verdict, Verdict::Done(outcome) if outcome != Outcome::Committed) {
            stopped.insert(item.chat_id);
        }
        verdicts.push(verdict);
    }
    verdicts
}

fn judge_item(
    item: &Item,
    chat: &mut Locked,
    keys: &mut HashMap<KeyName, StoredKey>,
    present: &mut HashSet<MessageName>,
) -> Outcome {
    let is_current = chat.last_seq == bigint(item.previous)
        && chat.epoch == bigint(item.epoch)
        && chat.roster_version == bigint(item.roster_version)
        && !chat.expiry_due;
    if !is_current {
        return Outcome::Conflict;
    }
    let message = message_name(item);
    if message.is_some_and(|message| present.contains(&message)) {
        return Outcome::IdTaken;
    }
    let counter = bigint(item.counter);
    match (&item.new_key, keys.get_mut(&key_name(item))) {
        (Some(_), Some(_)) => return Outcome::KeyTaken,
        (Some(new_key), None) => {
            if bigint(new_key.announcement.epoch) != chat.epoch {
                return Outcome::Conflict;
            }
            let key = StoredKey {
                sender_session_id: item.sender_session_id.0,
                epoch: chat.epoch,
                last_counter: counter,
                was_covered: false,
            };
            keys.insert(key_name(item), key);
        }
        (None, None) => return Outcome::Conflict,
        (None, Some(key)) => {
            let is_usable = key.sender_session_id == item.sender_session_id.0
                && key.epoch == chat.epoch
                && (item.entry.is_none() || key.last_counter + 1 == counter);
            if !is_usable {
                return Outcome::Conflict;
            }
            key.last_counter = counter;
        }
    }
    if let Some(entry) = &item.entry {
        chat.last_seq = bigint(entry.seq);
    }
    present.extend(message);
    Outcome::Committed
}

#[derive(Default)]
struct MessageRows<'a> {
    chats: Vec<Uuid>,
    seqs: Vec<i64>,
    ids: Vec<Uuid>,
    revisions: Vec<i64>,
    kinds: Vec<&'static str>,
    senders: Vec<Uuid>,
    sessions: Vec<Uuid>,
    keys: Vec<Option<Uuid>>,
    counters: Vec<i64>,
    times: Vec<std::time::SystemTime>,
    roster_hashes: Vec<&'a [u8]>,
    seen_seqs: Vec<i64>,
    seen_hashes: Vec<&'a [u8]>,
    data: Vec<Option<&'a [u8]>>,
    data_hashes: Vec<Vec<u8>>,
    signatures: Vec<&'a [u8]>,
    log_hashes: Vec<&'a [u8]>,
}

impl<'a> MessageRows<'a> {
    fn push(&mut self, item: &'a Item) {
        let Some(entry) = &item.entry else { return };
        let EntryBody::Message(envelope) = &entry.body else { return };
        self.chats.push(item.chat_id.0);
        self.seqs.push(bigint(entry.seq));
        self.ids.push(envelope.message_id.0);
        self.revisions.push(bigint(envelope.revision));
        self.kinds.push(envelope.kind.as_str());
        self.senders.push(envelope.sender_id.0);
        self.sessions.push(envelope.sender_session_id.0);
        self.keys.push(envelope.key_id.map(|key_id| key_id.0));
        self.counters.push(bigint(envelope.counter));
        self.times.push(system_time(entry.created_at));
        self.roster_hashes.push(envelope.roster_hash.as_ref());
        self.seen_seqs.push(bigint(envelope.seen.seq));
        self.seen_hashes.push(envelope.seen.log_hash.as_ref());
        self.data.push(envelope.data.as_ref().map(AsRef::as_ref));
        self.data_hashes.push(envelope.data_hash().as_ref().to_vec());
        self.signatures.push(envelope.signature.as_ref());
        self.log_hashes.push(entry.log_hash.as_ref());
    }
}

#[derive(Default)]
struct CopyRows<'a> {
    chats: Vec<Uuid>,
    keys: Vec<Uuid>,
    sessions: Vec<Uuid>,
    wrapped: Vec<&'a [u8]>,
    uploaders: Vec<Uuid>,
}

impl<'a> CopyRows<'a> {
    fn push(&mut self, item: &'a Item) {
        for copy in &item.copies {
            self.chats.push(item.chat_id.0);
            self.keys.push(item.key_id.0);
            self.sessions.push(copy.session_id.0);
            self.wrapped.push(copy.key.as_ref());
            self.uploaders.push(item.sender_session_id.0);
        }
    }
}
