//! Reads a database as whoever verifies it needs it: rows with what belongs to them, page by page.
//!
//! Lives here: a connection that only reads, snapshots on it, and one file for each family of rows. Judges nothing.
//! Invariants: I1 nothing is written. I2 ciphertext stays in the database, which hashes it there. I3 a page is bounded,
//! however long the log.

mod keys;
mod log;
mod standing;
mod users;

use std::fmt;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, IsolationLevel, NoTls, Transaction};
use uuid::Uuid;

pub use keys::{CopyRow, InfoKeyRow, KeyPage, KeyRow, RefusalRow, StoredKeyRow};
pub use log::{EarlierRevision, EventFacts, LogPage, LogRow, MessageFacts, RowFacts, removed_user, user_event};
pub use standing::{ChatRow, MemberRow, MisplacedRow, RecipientRow, RepeatedRevision};
pub use users::{ChainPage, ChainRow, SessionRow, UserRow};

use super::error::StoreError;
use super::migrate::check_schema;
use super::rows::{id, timestamp};
use crate::protocol::ids::{ChatId, Timestamp};

/// Ids of one page.
const IDS_MAX: i64 = 500;

/// A connection that only reads.
#[derive(Debug)]
pub struct Inspector {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Inspector {
    /// Connects, and sees to it that nothing can be written. The schema must be the one that this crate works on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connect(config: &Config) -> Result<Self, StoreError> {
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // A lost connection shows as an error of the statement in flight.
            let _ = connection.await;
        });
        let inspector = Self { client, driver };
        // A long chat takes longer than any statement in service.
        let settings = "SET default_transaction_read_only = on; SET statement_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0; SET application_name = 'sealcast verify'";
        inspector.client.batch_execute(settings).await?;
        check_schema(&inspector.client).await?;
        Ok(inspector)
    }

    /// What the database holds at one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn snapshot(&mut self) -> Result<Snapshot<'_>, StoreError> {
        let builder = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        Ok(Snapshot { tx: builder.start().await? })
    }

    /// Chats after one, in order of id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chats_after(&self, after: Option<ChatId>) -> Result<Vec<ChatId>, StoreError> {
        let statement = "SELECT id FROM chats WHERE id > $1 OR $2 ORDER BY id LIMIT $3";
        let place = after.map_or_else(Uuid::nil, |chat_id| chat_id.0);
        let rows = self.client.query(statement, &[&place, &after.is_none(), &IDS_MAX]).await?;
        rows.iter().map(|row| id(row, "id", ChatId)).collect()
    }
}

/// What the database holds at one moment. Ends when it is dropped.
pub struct Snapshot<'a> {
    tx: Transaction<'a>,
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot<'_> {
    /// The database's clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        timestamp(&self.tx.query_one("SELECT clock_timestamp() AS now", &[]).await?, "now")
    }
}
