//! What can go wrong in the store, and who is told what.

use tokio_postgres::error::SqlState;

use super::postgres_error::PostgresError;
use crate::protocol::error::{ErrorCode, Refusal};

/// The database failed, or what it holds is not what this crate wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A statement or the connection failed.
    #[error("the database failed")]
    Postgres(#[from] PostgresError),
    /// No connection could be had from the pool.
    #[error("no database connection could be had")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// The deadline passed; the outcome is unknown.
    #[error("the database did not answer in time")]
    Deadline,
    /// A stored value is not of its form: a fault of this crate, or a foreign hand in the database.
    #[error("a stored {what} cannot be read")]
    Corrupt {
        /// What was read.
        what: &'static str,
    },
    /// A migration failed.
    #[error("migrating the database failed")]
    Migration(#[from] Box<refinery::Error>),
    /// The schema is of another version, and nobody may change it now.
    #[error(
        "the schema is of version {found}, and this program works on {expected}: run its `migrate`, or a newer program"
    )]
    Schema {
        /// Its version; 0 if there is none.
        found: i64,
        /// The version that is known.
        expected: i64,
    },
    /// The connection string cannot be read.
    #[error("database.url cannot be read")]
    Url(#[source] tokio_postgres::Error),
    /// The pool cannot be built.
    #[error("the pool cannot be built")]
    Build(#[from] deadpool_postgres::BuildError),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl StoreError {
    /// Whether the same transaction may succeed at once: another one was in its way.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        error.code().is_some_and(|code| conflicts.contains(code))
    }

    /// Whether the database went away, or is not back yet.
    #[must_use]
    pub fn is_lost_connection(&self) -> bool {
        let code = match self {
            Self::Postgres(error) => error.code(),
            Self::Pool(deadpool_postgres::PoolError::Backend(error)) => error.code(),
            _ => return false,
        };
        let gone = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
        code.is_none_or(|code| gone.contains(code))
    }

    /// Whether the database itself is in trouble, and not the one transaction that met it: it is away, hangs, or has
    /// no room.
    #[must_use]
    pub fn is_of_the_database(&self) -> bool {
        if self.is_lost_connection() || matches!(self, Self::Deadline | Self::Pool(_)) {
            return true;
        }
        let classes = ["08", "53", "57P", "58"];
        self.sqlstate().is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
    }

    /// Whether what was to be written or read is refused for what it is: it would be refused again, and nothing of its
    /// transaction was done. What says something of the server or of the connection does not count, and neither
    /// does a database that was changed under it.
    #[must_use]
    pub fn is_refused_write(&self) -> bool {
        let error = match self {
            Self::Corrupt { .. } => return true,
            Self::Postgres(error) => error,
            _ => return false,
        };
        // Data exceptions, constraints, views, limits of a row, what triggers raise, broken data.
        let classes = ["22", "23", "44", "54", "P0", "XX"];
        let is_of_the_data = |code: &SqlState| classes.iter().any(|class| code.code().starts_with(class));
        error.is_of_a_statement() && error.code().is_some_and(is_of_the_data)
    }

    /// Postgres' own code of the error, if it has one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.code().map(SqlState::code),
            Self::Pool(deadpool_postgres::PoolError::Backend(error)) => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether a row of that key was there already.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether a row that another refers to is not there, or not any more.
    #[must_use]
    pub fn is_foreign_key_violation(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
    }
}

/// Why an operation of the store did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The request is not allowed; nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A recipient's time has run out: expire these users' sessions, then try again.
    #[error("a session's expiry is due")]
    ExpiryDue,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure {
    /// What the client is told.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::ExpiryDue => Refusal::new(ErrorCode::StorageUnavailable, "a session is expiring"),
            Self::Store(StoreError::Corrupt { .. }) => {
                Refusal::new(ErrorCode::Internal, "a stored value cannot be read")
            }
            Self::Store(_) => Refusal::new(ErrorCode::StorageUnavailable, "the database cannot be reached"),
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}
