//! An error of Postgres as it may be shown: without the rows that it speaks of.
//!
//! Lives here: [`PostgresError`]. Invariant: neither its text nor its source has the detail of the server's error, which
//! holds what stands in the rows (P12).

use std::error::Error;
use std::fmt;

use tokio_postgres::error::SqlState;

/// What the server said, or what is wrong with the way to it.
pub struct PostgresError(tokio_postgres::Error);

impl PostgresError {
    /// The server's code, if the server said anything.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        self.0.code()
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "{} {}: {}", error.severity(), error.code().code(), error.message()),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Debug for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for PostgresError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The source of what the server said is its detail.
        if self.0.as_db_error().is_some() { None } else { self.0.source() }
    }
}
