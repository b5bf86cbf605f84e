//! What is there, as the operator sees it: rows of names and values, never a ciphertext or a key.

use serde_json::{Map, Value};
use tokio_postgres::types::ToSql;

use crate::protocol::ids::UserId;
use crate::store::Store;
use crate::store::error::{Failure, StoreError};
use crate::store::rows::get;

/// Rows of one list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The names of the values, in the order in which they are shown.
    pub columns: &'static [&'static str],
    /// The values of each row, by their names. Times are in UTC.
    pub rows: Vec<Map<String, Value>>,
}

/// How chats are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatOrder {
    /// The largest first.
    Size,
    /// The oldest first.
    Age,
}

const USERS: &str = "SELECT u.id AS user_id, u.username, u.created_at, u.suspended_at, \
     u.strongbox_version > 0 AS has_password, \
     (SELECT count(*) FROM user_sessions s WHERE s.user_id = u.id AND s.state = 'live') AS sessions, \
     (SELECT max(last_seen_at) FROM user_sessions s WHERE s.user_id = u.id) AS last_seen_at, \
     (SELECT count(*) FROM user_in_chat m WHERE m.user_id = u.id) AS chats FROM users u";

const USER_COLUMNS: &[&str] =
    &["user_id", "username", "created_at", "suspended_at", "has_password", "sessions", "last_seen_at", "chats"];

const CHATS: &str = "SELECT c.id AS chat_id, u.username AS owner, \
     (SELECT count(*) FROM user_in_chat m WHERE m.chat_id = c.id) AS members, c.last_seq AS entries, \
     coalesce(m.messages, 0) AS messages, coalesce(m.data_bytes, 0) AS data_bytes, c.created_at, m.last_message_at \
     FROM chats c JOIN users u ON u.id = c.owner_id LEFT JOIN (SELECT chat_id, count(*) AS messages, \
         sum(octet_length(data)) AS data_bytes, max(created_at) AS last_message_at FROM chat_messages GROUP BY chat_id) m \
     ON m.chat_id = c.id";

const STORAGE: &str = "SELECT c.relname AS table, greatest(c.reltuples, 0)::bigint AS rows_about, \
     pg_table_size(c.oid) AS table_bytes, pg_indexes_size(c.oid) AS index_bytes, \
     pg_total_relation_size(c.oid) AS bytes FROM pg_class c \
     WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' ORDER BY bytes DESC, c.relname";

impl Store {
    /// Users in order of their names, after one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_users(&self, after: &str, limit: u32) -> Result<Listed, Failure> {
        let statement = format!("{USERS} WHERE u.username > $1 ORDER BY u.username LIMIT $2");
        self.list("list_users", USER_COLUMNS, &statement, &[&after, &i64::from(limit)]).await
    }

    /// One user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn show_user(&self, user_id: UserId) -> Result<Listed, Failure> {
        let statement = format!("{USERS} WHERE u.id = $1");
        self.list("show_user", USER_COLUMNS, &statement, &[&user_id.0]).await
    }

    /// A user's sessions, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn show_sessions(&self, user_id: UserId) -> Result<Listed, Failure> {
        let columns = &["session_id", "state", "created_at", "expires_at", "last_seen_at"];
        let statement = "SELECT id AS session_id, state, created_at, expired_at AS expires_at, last_seen_at \
             FROM user_sessions WHERE user_id = $1 ORDER BY created_at, id";
        self.list("show_sessions", columns, statement, &[&user_id.0]).await
    }

    /// Invitations, the newest first; their codes are not kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_invitations(&self, limit: u32) -> Result<Listed, Failure> {
        let columns = &["invitation_id", "uses_left", "expires_at", "created_at"];
        let statement = "SELECT id AS invitation_id, uses_left, expires_at, created_at FROM invitations \
             ORDER BY created_at DESC, id LIMIT $1";
        self.list("list_invitations", columns, statement, &[&i64::from(limit)]).await
    }

    /// Chats with their members, entries and bytes of ciphertext. Reads every message's length.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_all_chats(&self, order: ChatOrder, limit: u32) -> Result<Listed, Failure> {
        let columns =
            &["chat_id", "owner", "members", "entries", "messages", "data_bytes", "created_at", "last_message_at"];
        let order = match order {
            ChatOrder::Size => "coalesce(m.data_bytes, 0) DESC, c.id",
            ChatOrder::Age => "c.created_at, c.id",
        };
        let statement = format!("{CHATS} ORDER BY {order} LIMIT $1");
        self.list("list_all_chats", columns, &statement, &[&i64::from(limit)]).await
    }

    /// Tables with their bytes, and their rows as Postgres guesses them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn storage(&self) -> Result<Listed, Failure> {
        let columns = &["table", "rows_about", "table_bytes", "index_bytes", "bytes"];
        self.list("storage", columns, STORAGE, &[]).await
    }

    async fn list(
        &self,
        name: &'static str,
        columns: &'static [&'static str],
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Listed, Failure> {
        let statement = format!("SELECT row_to_json(listed)::text AS row FROM ({statement}) listed");
        self.write_slowly(name, async |tx| {
            tx.batch_execute("SET TRANSACTION READ ONLY; SET LOCAL TIME ZONE 'UTC'").await?;
            let mut rows = Vec::new();
            for row in tx.query(&statement, parameters).await? {
                let row: &str = get(&row, "row")?;
                rows.push(serde_json::from_str(row).map_err(|_| StoreError::Corrupt { what: "a listed row" })?);
            }
            Ok(Listed { columns, rows })
        })
        .await
    }
}
