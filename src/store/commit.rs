//! One commit of the writer: locks, judges, writes, commits. Set-based: a few statements however many messages.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{try_join3, try_join4};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use super::batch::Item;
use super::columns::{ArchiveRows, CopyRows, KeyUses, MessageRows};
use super::error::StoreError;
use super::judgement::{
    Evidence, KeyName, Locked, MessageName, NewestRevision, StoredKey, Verdict, judge, key_name, message_name,
    revision_of,
};
use super::parts::{halves, put};
use super::plain::PlainBatch;
use super::rows::{bigint, fixed, get, pack};
use super::statements::{PLANS, Statements};
use super::writer::Outcome;
use crate::protocol::ids::ChatId;

/// How often the same items are tried again because another transaction was in the way.
const CONFLICTS_MAX: u32 = 3;

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
    /// chat, and no others: what the database refuses is found by halves, and the rest is committed without it.
    ///
    /// Gives a verdict for each item, and why those have none whose outcome is unknown; then the next commit
    /// connects anew.
    ///
    /// # Cancel safety
    /// Given up halfway, the outcome of every item is unknown.
    pub async fn commit(&mut self, items: &[Arc<Item>]) -> (Vec<Verdict>, Option<StoreError>) {
        let mut verdicts = vec![Verdict::Done(Outcome::Unknown); items.len()];
        let deadline = self.deadline;
        let result = match tokio::time::timeout(deadline, self.commit_within_deadline(items, &mut verdicts)).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Deadline),
        };
        if result.is_err() {
            self.connection = None;
        }
        (verdicts, result.err())
    }

    async fn commit_within_deadline(
        &mut self,
        items: &[Arc<Item>],
        verdicts: &mut [Verdict],
    ) -> Result<(), StoreError> {
        let connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => Connection::open(&self.config).await?,
        };
        let connection = self.connection.insert(connection);
        // What is still to be committed, the next part last.
        let mut parts: Vec<Vec<usize>> = vec![(0..items.len()).collect()];
        while let Some(part) = parts.pop() {
            let chosen: Vec<Arc<Item>> = part.iter().filter_map(|index| items.get(*index)).map(Arc::clone).collect();
            match connection.commit(&chosen).await {
                Ok(found) => put(verdicts, &part, found),
                Err(error) if error.is_refused_write() || error.is_conflict() => match halves(items, &part) {
                    Some((first, second)) => parts.extend([second, first]),
                    // Somebody is in its way all the time: it waits as behind a locked row, and nobody waits for it.
                    None if error.is_conflict() => put(verdicts, &part, vec![Verdict::Busy; part.len()]),
                    None => {
                        // The error's own words may quote the row.
                        tracing::error!(sqlstate = error.sqlstate(), "the database refuses a message");
                        put(verdicts, &part, vec![Verdict::Done(Outcome::Refused); part.len()]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Connection {
    async fn open(config: &Config) -> Result<Self, StoreError> {
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // A lost connection shows as an error of the statement in flight, which is where it is handled.
            let _ = connection.await;
        });
        client.batch_execute(PLANS).await?;
        let statements = Statements::prepare(&client).await?;
        Ok(Self { client, statements, driver })
    }

    /// Commits items, a few times if another transaction is in the way. After an error nothing is committed, unless
    /// the connection is lost.
    async fn commit(&self, items: &[Arc<Item>]) -> Result<Vec<Verdict>, StoreError> {
        if self.commit_plain(items).await? {
            return Ok(vec![Verdict::Done(Outcome::Committed); items.len()]);
        }
        let mut conflicts = 0;
        let mut look_for_ids = false;
        let mut uncovered = HashSet::new();
        loop {
            match self.attempt(items, look_for_ids, &uncovered).await {
                Ok(Attempt::Committed(verdicts)) => return Ok(verdicts),
                Ok(Attempt::Again(Retry::IdTaken)) => look_for_ids = true,
                Ok(Attempt::Again(Retry::Uncovered(chats))) => uncovered.extend(chats),
                Err(error) if error.is_conflict() && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    self.client.batch_execute("ROLLBACK").await?;
                }
                Err(error) if error.is_refused_write() || error.is_conflict() => {
                    self.client.batch_execute("ROLLBACK").await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commits items that need nothing but what is stored, if all of it is as they were judged: in one statement and one
    /// round trip, which is how nearly every batch goes. Says whether; if not, nothing was done, and it is found out why.
    async fn commit_plain(&self, items: &[Arc<Item>]) -> Result<bool, StoreError> {
        let Some(batch) = PlainBatch::of(items) else { return Ok(false) };
        fail::fail_point!("commit::before_writing", |_| Err(StoreError::Deadline));
        fail::fail_point!("commit::before", |_| Err(StoreError::Deadline));
        let is_committed = match self.client.query_one(&self.statements.plain, &batch.columns()).await {
            Ok(row) => get(&row, "is_as_judged")?,
            Err(error) => {
                let error = StoreError::from(error);
                if error.is_refused_write() || error.is_conflict() || error.is_unique_violation() {
                    return Ok(false);
                }
                return Err(error);
            }
        };
        fail::fail_point!("commit::after", |_| Err(StoreError::Deadline));
        Ok(is_committed)
    }

    async fn attempt(
        &self,
        items: &[Arc<Item>],
        look_for_ids: bool,
        uncovered: &HashSet<ChatId>,
    ) -> Result<Attempt, StoreError> {
        let present = if look_for_ids { self.messages_present(items).await? } else { HashSet::new() };
        let mut evidence = self.lock(items).await?;
        let verdicts = judge(items, &mut evidence, present, uncovered);
        let accepted: Vec<&Item> = items
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Done(Outcome::Committed))
            .map(|(item, _)| &**item)
            .collect();
        if accepted.is_empty() {
            self.client.batch_execute("ROLLBACK").await?;
            return Ok(Attempt::Committed(verdicts));
        }
        match self.write(&accepted, &evidence.keys).await {
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
    async fn lock(&self, items: &[Arc<Item>]) -> Result<Evidence, StoreError> {
        let chats: Vec<Uuid> = items.iter().map(|item| item.chat_id.0).collect::<BTreeSet<_>>().into_iter().collect();
        let (key_chats, key_ids): (Vec<Uuid>, Vec<Uuid>) =
            items.iter().filter_map(|item| key_name(item)).collect::<BTreeSet<_>>().into_iter().unzip();
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
                log_hash: fixed(row, "log_hash")?,
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
        let newest = self.newest_revisions(items).await?;
        Ok(Evidence { chats: locked, keys, newest })
    }

    /// The newest revisions of what is edited or deleted, read under the locks; most batches do neither.
    async fn newest_revisions(&self, items: &[Arc<Item>]) -> Result<HashMap<(Uuid, Uuid), NewestRevision>, StoreError> {
        let revised: BTreeSet<(Uuid, Uuid)> =
            items.iter().filter_map(|item| revision_of(item)).map(|(chat_id, id, _)| (chat_id, id)).collect();
        if revised.is_empty() {
            return Ok(HashMap::new());
        }
        let (chats, ids): (Vec<Uuid>, Vec<Uuid>) = revised.into_iter().unzip();
        let rows = self.client.query(&self.statements.newest, &[&chats, &ids]).await?;
        let newest = |row| {
            let newest = NewestRevision { revision: get(row, "revision")?, is_deleted: get(row, "is_deleted")? };
            Ok(((get(row, "chat_id")?, get(row, "id")?), newest))
        };
        rows.iter().map(newest).collect()
    }

    async fn messages_present(&self, items: &[Arc<Item>]) -> Result<HashSet<MessageName>, StoreError> {
        let (mut chats, mut ids, mut revisions) = (Vec::new(), Vec::new(), Vec::new());
        for (chat_id, message_id, revision) in items.iter().filter_map(|item| message_name(item)) {
            chats.push(chat_id);
            ids.push(message_id);
            revisions.push(revision);
        }
        let rows = self.client.query(&self.statements.messages_present, &[&chats, &ids, &revisions]).await?;
        rows.iter().map(|row| Ok((get(row, "chat_id")?, get(row, "id")?, get(row, "revision")?))).collect()
    }

    /// Writes and commits; says why not when the items must be judged again.
    async fn write(&self, items: &[&Item], keys: &HashMap<KeyName, StoredKey>) -> Result<Option<Retry>, StoreError> {
        fail::fail_point!("commit::before_writing", |_| Err(StoreError::Deadline));
        self.insert_messages(items).await?;
        if let Some(retry) = self.write_keys(items, keys).await? {
            return Ok(Some(retry));
        }
        let uses = KeyUses::of(items);
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
        fail::fail_point!("commit::before", |_| Err(StoreError::Deadline));
        // One round trip. COMMIT of a transaction in which a statement failed rolls back, and the failure is
        // that statement's own error here.
        let (_, _, _, ()) = try_join4(
            self.client.execute(
                &self.statements.use_keys,
                &[&uses.chats, &uses.keys, &uses.counters, &uses.messages, &uses.first_seqs],
            ),
            self.purge(items),
            self.client.execute(&self.statements.move_heads, &[&chats, &seqs, &hashes]),
            self.client.batch_execute("COMMIT"),
        )
        .await?;
        fail::fail_point!("commit::after", |_| Err(StoreError::Deadline));
        Ok(None)
    }

    /// Takes the data of what is edited or deleted; most batches do neither.
    async fn purge(&self, items: &[&Item]) -> Result<(), tokio_postgres::Error> {
        let (mut chats, mut ids, mut revisions) = (Vec::new(), Vec::new(), Vec::new());
        for (chat_id, message_id, revision) in items.iter().filter_map(|item| revision_of(item)) {
            chats.push(chat_id);
            ids.push(message_id);
            revisions.push(revision);
        }
        if !chats.is_empty() {
            self.client.execute(&self.statements.purge, &[&chats, &ids, &revisions]).await?;
        }
        Ok(())
    }

    async fn insert_messages(&self, items: &[&Item]) -> Result<(), StoreError> {
        let mut rows = MessageRows::default();
        for item in items {
            rows.push(item);
        }
        if rows.chats.is_empty() {
            return Ok(());
        }
        self.client.execute(&self.statements.insert_messages, &rows.columns()).await?;
        Ok(())
    }

    async fn write_keys(
        &self,
        items: &[&Item],
        keys: &HashMap<KeyName, StoredKey>,
    ) -> Result<Option<Retry>, StoreError> {
        let is_covered = |name: KeyName| keys.get(&name).is_some_and(|key| key.was_covered);
        let is_changed = |item: &Item, name| !item.copies.is_empty() || item.archive.is_some() || !is_covered(name);
        let changed: Vec<(&Item, KeyName)> = items
            .iter()
            .filter_map(|item| key_name(item).filter(|name| is_changed(item, *name)).map(|name| (*item, name)))
            .collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let (mut chats, mut ids, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut epochs, mut commitments, mut announcements) = (Vec::new(), Vec::new(), Vec::new());
        let (mut copies, mut archives) = (CopyRows::default(), ArchiveRows::default());
        for (item, (chat_id, key_id)) in &changed {
            if let Some(new_key) = &item.new_key {
                chats.push(*chat_id);
                ids.push(*key_id);
                sessions.push(item.sender_session_id.0);
                epochs.push(bigint(new_key.announcement.epoch));
                commitments.push(new_key.announcement.commitment.as_ref());
                announcements.push(pack(new_key, "sender_keys.announcement")?);
            }
            copies.push(item, *key_id);
            archives.push(item, *key_id);
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
        if !archives.chats.is_empty() {
            self.client
                .execute(
                    &self.statements.insert_archives,
                    &[&archives.chats, &archives.keys, &archives.generations, &archives.sessions, &archives.sealed],
                )
                .await?;
        }
        let (cover_chats, cover_keys): (Vec<Uuid>, Vec<Uuid>) =
            changed.iter().map(|(_, name)| *name).collect::<BTreeSet<_>>().into_iter().unzip();
        let rows = self.client.query(&self.statements.cover_keys, &[&cover_chats, &cover_keys]).await?;
        let name = |row| Ok((get(row, "chat_id")?, get(row, "key_id")?));
        let covered: HashSet<KeyName> = rows.iter().map(name).collect::<Result<_, StoreError>>()?;
        let uncovered: HashSet<ChatId> = changed
            .iter()
            .filter(|(item, name)| item.entry.is_some() && !covered.contains(name))
            .map(|(item, _)| item.chat_id)
            .collect();
        Ok(if uncovered.is_empty() { None } else { Some(Retry::Uncovered(uncovered)) })
    }
}
