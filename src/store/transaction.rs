//! A transaction whose statements are parsed and planned once on each connection.
//!
//! Invariant: a statement's text is one of a number that is known when the program is built, with all values as parameters.
//! Each connection keeps every statement that it has seen.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// A transaction of a connection of the pool.
pub struct Transaction<'a> {
    begun: deadpool_postgres::Transaction<'a>,
    epochs: AtomicU64,
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transaction")
    }
}

/// Parameters of a statement.
type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl<'a> Transaction<'a> {
    pub(super) const fn new(begun: deadpool_postgres::Transaction<'a>) -> Self {
        Self { begun, epochs: AtomicU64::new(0) }
    }

    /// Gives how many epochs it began.
    pub(super) async fn commit(self) -> Result<u64, Error> {
        self.begun.commit().await?;
        Ok(self.epochs.into_inner())
    }

    /// Notes how many epochs of chats begin when this is committed.
    pub(super) fn begins_epochs(&self, count: u64) {
        self.epochs.fetch_add(count, Ordering::Relaxed);
    }

    /// All rows.
    ///
    /// # Errors
    /// What the database says, or that it is away.
    pub async fn query(&self, statement: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let prepared = self.begun.prepare_cached(statement).await?;
        self.begun.query(&prepared, parameters).await
    }

    /// The one row, if there is any.
    ///
    /// # Errors
    /// As [`Transaction::query`], and more than one row.
    pub async fn query_opt(&self, statement: &str, parameters: Parameters<'_>) -> Result<Option<Row>, Error> {
        let prepared = self.begun.prepare_cached(statement).await?;
        self.begun.query_opt(&prepared, parameters).await
    }

    /// The one row.
    ///
    /// # Errors
    /// As [`Transaction::query`], and no row or more than one.
    pub async fn query_one(&self, statement: &str, parameters: Parameters<'_>) -> Result<Row, Error> {
        let prepared = self.begun.prepare_cached(statement).await?;
        self.begun.query_one(&prepared, parameters).await
    }

    /// Changes something; gives the number of rows.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    pub async fn execute(&self, statement: &str, parameters: Parameters<'_>) -> Result<u64, Error> {
        let prepared = self.begun.prepare_cached(statement).await?;
        self.begun.execute(&prepared, parameters).await
    }

    /// Runs statements that have neither parameters nor rows.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    pub async fn batch_execute(&self, statements: &str) -> Result<(), Error> {
        self.begun.batch_execute(statements).await
    }
}
