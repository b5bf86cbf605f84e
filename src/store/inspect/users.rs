//! Reads users with their sessions, and users' chains; those of accounts that have ended too.

use tokio_postgres::Row;
use uuid::Uuid;

use super::{IDS_MAX, Inspector, Snapshot};
use crate::protocol::binary::{ExchangeKey, Hash, IdentityKey, SigningKey};
use crate::protocol::certificate::{SignedCertificate, UserEvent};
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{Place, SessionId, Timestamp, UserId};
use crate::store::chains::event_of;
use crate::store::error::StoreError;
use crate::store::rows::{bigint, fixed, get, id, number, timestamp, unpack};
use crate::store::sessions::state_of;

/// Entries of a chain in one page.
const EVENTS_MAX: i64 = 1_000;

/// A user's row.
#[derive(Debug, Clone, Copy)]
pub struct UserRow {
    /// The identity key.
    pub identity_key: IdentityKey,
    /// The place of the chain's newest entry.
    pub chain_place: Place,
    /// Its hash.
    pub chain_hash: Hash,
    /// Whether the name was retired with another account.
    pub is_name_retired: bool,
}

/// One entry of a user's chain as it is stored.
#[derive(Debug, Clone)]
pub struct ChainRow {
    /// Its place, by the column.
    pub place: Place,
    /// Its kind, by the column.
    pub kind: String,
    /// Its session, by the column.
    pub session_id: Option<SessionId>,
    /// What it says; none: it cannot be read.
    pub event: Option<UserEvent>,
    /// The hash of the chain with it, by the column.
    pub hash: Hash,
}

/// Entries of a user's chain, in order.
#[derive(Debug, Clone)]
pub struct ChainPage {
    /// The entries.
    pub rows: Vec<ChainRow>,
    /// Where the next page begins; none after the last.
    pub next: Option<Place>,
}

/// A session's row.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// The session.
    pub session_id: SessionId,
    /// Its state.
    pub state: SessionState,
    /// When it expires.
    pub expired_at: Timestamp,
    /// Where copies are wrapped to.
    pub public_key: ExchangeKey,
    /// What it signs with.
    pub signing_public_key: SigningKey,
    /// Its certificate; none if there is none, or it cannot be read.
    pub certificate: Option<SignedCertificate>,
}

impl Inspector {
    /// Users after one, in order of id: all who have a row or a chain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users_after(&self, after: Option<UserId>) -> Result<Vec<UserId>, StoreError> {
        let statement = "(SELECT id FROM users WHERE id > $1 OR $2 ORDER BY id LIMIT $3) UNION \
             (SELECT DISTINCT user_id FROM user_events e WHERE (user_id > $1 OR $2) \
                 AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = e.user_id) ORDER BY user_id LIMIT $3) \
             ORDER BY id LIMIT $3";
        let place = after.map_or_else(Uuid::nil, |user_id| user_id.0);
        let rows = self.client.query(statement, &[&place, &after.is_none(), &IDS_MAX]).await?;
        rows.iter().map(|row| id(row, "id", UserId)).collect()
    }
}

impl Snapshot<'_> {
    /// A user's row; none of an account that has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, user_id: UserId) -> Result<Option<UserRow>, StoreError> {
        let statement = "SELECT identity_public_key, chain_place, chain_hash, \
             EXISTS (SELECT 1 FROM retired_usernames r WHERE r.username = u.username) AS is_name_retired \
             FROM users u WHERE id = $1";
        let Some(row) = self.tx.query_opt(statement, &[&user_id.0]).await? else { return Ok(None) };
        Ok(Some(UserRow {
            identity_key: fixed(&row, "identity_public_key")?,
            chain_place: number(&row, "chain_place")?,
            chain_hash: fixed(&row, "chain_hash")?,
            is_name_retired: get(&row, "is_name_retired")?,
        }))
    }

    /// Whether the operator ended the user's account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_removed(&self, user_id: UserId) -> Result<bool, StoreError> {
        let statement = "SELECT EXISTS (SELECT 1 FROM removed_users WHERE user_id = $1) AS is_removed";
        get(&self.tx.query_one(statement, &[&user_id.0]).await?, "is_removed")
    }

    /// The entries of a user's chain after a place, a bounded number of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn chain_page(&self, user_id: UserId, after: Place) -> Result<ChainPage, StoreError> {
        let statement = "SELECT place, kind, session_id, body, hash FROM user_events \
             WHERE user_id = $1 AND place > $2 ORDER BY place LIMIT $3";
        let found = self.tx.query(statement, &[&user_id.0, &bigint(after), &EVENTS_MAX]).await?;
        let rows: Vec<ChainRow> = found.iter().map(chain_row).collect::<Result<_, _>>()?;
        let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= EVENTS_MAX;
        let next = rows.last().filter(|_| is_full).map(|row| row.place);
        Ok(ChainPage { rows, next })
    }

    /// A user's sessions.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(&self, user_id: UserId) -> Result<Vec<SessionRow>, StoreError> {
        let statement = "SELECT id, state, expired_at, public_key, signing_public_key, certificate FROM user_sessions \
             WHERE user_id = $1 ORDER BY id";
        self.tx.query(statement, &[&user_id.0]).await?.iter().map(session_row).collect()
    }
}

fn chain_row(row: &Row) -> Result<ChainRow, StoreError> {
    let session_id: Option<Uuid> = get(row, "session_id")?;
    Ok(ChainRow {
        place: number(row, "place")?,
        kind: get(row, "kind")?,
        session_id: session_id.map(SessionId),
        event: event_of(row).ok().flatten(),
        hash: fixed(row, "hash")?,
    })
}

fn session_row(row: &Row) -> Result<SessionRow, StoreError> {
    let certificate: Option<&[u8]> = get(row, "certificate")?;
    Ok(SessionRow {
        session_id: id(row, "id", SessionId)?,
        state: state_of(row)?,
        expired_at: timestamp(row, "expired_at")?,
        public_key: fixed(row, "public_key")?,
        signing_public_key: fixed(row, "signing_public_key")?,
        certificate: certificate.and_then(|bytes| unpack(bytes, "certificate").ok()),
    })
}
