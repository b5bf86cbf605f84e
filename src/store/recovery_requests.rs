//! Requests for recovery by friends: made by devices that have nothing, told to those whom they concern, cancelled, and
//! answered with shares.
//!
//! A name that is nobody's, or without shares, is answered as any other, and nothing is stored for it.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::members::Requester;
use super::passwords::{TryLimit, count};
use super::rows::{fixed, get, id, timestamp};
use super::sessions::{locked, require_live};
use super::transaction::Transaction;
use crate::protocol::binary::Blob;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{CancelRecoveryRequest, RecoveryRequest, ReleaseShare};
use crate::protocol::friends::{AskFriends, Release, Releases, cancel_bytes, release_bytes};
use crate::protocol::ids::{RecoveryRequestId, SessionId, ShareSetId, UserId};
use crate::protocol::limits::{
    RECOVERY_CANCEL_REST_S, RECOVERY_REQUEST_KEPT_S, RECOVERY_REQUESTS_MAX, RELEASE_BYTES_MAX,
};
use crate::protocol::username::Username;
use crate::protocol::verify::Verifier;

/// Requests that concern a user: of the own account, or of one whose share the user holds. The first argument is the
/// user, the second one request or null for all.
const CONCERNED: &str = "SELECT q.id, q.user_id, u.username, q.public_key, q.created_at, q.expires_at, \
         ARRAY(SELECT r.user_id FROM recovery_releases r WHERE r.request_id = q.id ORDER BY r.user_id) AS released_by \
     FROM recovery_requests q JOIN users u ON u.id = q.user_id \
     WHERE q.cancelled_at IS NULL AND q.expires_at > clock_timestamp() AND ($2::uuid IS NULL OR q.id = $2) \
         AND ($1::uuid IS NULL OR q.user_id = $1 OR EXISTS (SELECT 1 FROM vault_backup_session_keys s \
             WHERE s.kind = 'share' AND s.backed_up_user_id = q.user_id AND s.holder_user_id = $1)) \
     ORDER BY q.created_at, q.id";

/// Who is told of a user's requests: the live sessions of the user and of the friends.
const AUDIENCE: &str = "SELECT s.id FROM user_sessions s WHERE s.state = 'live' AND (s.user_id = $1 OR s.user_id IN \
     (SELECT holder_user_id FROM vault_backup_session_keys WHERE kind = 'share' AND backed_up_user_id = $1))";

impl Store {
    /// Counts a try, and notes a request of a name that has shares with friends. Gives whose it is if it is new.
    ///
    /// # Errors
    /// `rate_limited` with `retry_after_ms`, or [`StoreError`].
    pub async fn ask_friends(
        &self,
        limits: &[TryLimit],
        username: &Username,
        request: &AskFriends,
    ) -> Result<Option<UserId>, Failure> {
        self.write("ask_friends", async |tx| {
            for limit in limits {
                count(tx, limit).await?;
            }
            // Locked, so that two requests at once do not pass the bound together.
            let find = "SELECT u.id FROM users u JOIN share_sets s ON s.user_id = u.id WHERE u.username = $1 \
                 FOR NO KEY UPDATE OF u";
            let Some(row) = tx.query_opt(find, &[&username.as_str()]).await? else { return Ok(None) };
            let user_id = id(&row, "id", UserId)?;
            #[expect(clippy::cast_precision_loss, reason = "seconds of a constant, far below 2^52")]
            let kept_s = RECOVERY_REQUEST_KEPT_S as f64;
            let insert = "INSERT INTO recovery_requests (id, user_id, public_key, expires_at) \
                 VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4)) ON CONFLICT DO NOTHING";
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&request.request_id.0, &user_id.0, &request.public_key.as_ref(), &kept_s];
            let is_new = tx.execute(insert, &values).await? > 0;
            // Of those that are open: to which a friend gave something stay the longest.
            let bound = "DELETE FROM recovery_requests WHERE id IN (SELECT q.id FROM recovery_requests q \
                 WHERE q.user_id = $1 AND q.cancelled_at IS NULL AND q.id <> $2 \
                 ORDER BY EXISTS (SELECT 1 FROM recovery_releases r WHERE r.request_id = q.id) DESC, q.created_at DESC \
                 OFFSET $3)";
            tx.execute(bound, &[&user_id.0, &request.request_id.0, &(RECOVERY_REQUESTS_MAX - 1)]).await?;
            Ok(is_new.then_some(user_id))
        })
        .await
    }

    /// Gives a request that is open, with the live sessions that are to be told of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recovery_request(
        &self,
        request_id: RecoveryRequestId,
    ) -> Result<Option<(RecoveryRequest, Vec<SessionId>)>, Failure> {
        self.read("recovery_request", async |tx| {
            let nobody: Option<Uuid> = None;
            let Some(row) = tx.query_opt(CONCERNED, &[&nobody, &Some(request_id.0)]).await? else { return Ok(None) };
            let request = request_of(&row)?;
            let audience = audience(tx, request.user_id).await?;
            Ok(Some((request, audience)))
        })
        .await
    }

    /// Lists the open requests that concern a user, the oldest first.
    ///
    /// # Errors
    /// A requester that is not live, or [`StoreError`].
    pub async fn recovery_requests(&self, who: Requester) -> Result<Vec<RecoveryRequest>, Failure> {
        self.read("recovery_requests", async |tx| recovery_requests(tx, who).await).await
    }

    /// Cancels a request of one's own account. Gives the sessions to be told; none if it was cancelled before.
    ///
    /// # Errors
    /// `unknown_recovery_request`, `identity_needed`, `bad_signature`, or [`StoreError`].
    pub async fn cancel_recovery_request(
        &self,
        who: Requester,
        cancel: &CancelRecoveryRequest,
    ) -> Result<Vec<SessionId>, Failure> {
        self.write("cancel_recovery_request", async |tx| {
            let user = locked(tx, who.user_id).await?;
            require_live(tx, who.user_id, who.session_id).await?;
            let bytes = cancel_bytes(who.user_id, cancel.request_id);
            if cancel.signature.is_some_and(|signature| !user.identity_key.verifies(&bytes, &signature)) {
                return Err(Refusal::new(ErrorCode::BadSignature, "the signature is not the identity key's").into());
            }
            let find = "SELECT cancelled_at IS NOT NULL AS is_cancelled FROM recovery_requests \
                 WHERE id = $1 AND user_id = $2 AND expires_at > clock_timestamp() FOR UPDATE";
            let Some(row) = tx.query_opt(find, &[&cancel.request_id.0, &who.user_id.0]).await? else {
                return Err(unknown().into());
            };
            if get(&row, "is_cancelled")? {
                return Ok(Vec::new());
            }
            if cancel.signature.is_none() {
                #[expect(clippy::cast_precision_loss, reason = "seconds of a constant, far below 2^52")]
                let rest_s = RECOVERY_CANCEL_REST_S as f64;
                let note = "UPDATE users SET recovery_cancelled_at = clock_timestamp() WHERE id = $1 \
                     AND (recovery_cancelled_at IS NULL \
                         OR recovery_cancelled_at <= clock_timestamp() - make_interval(secs => $2))";
                if tx.execute(note, &[&who.user_id.0, &rest_s]).await? == 0 {
                    let message = "a session alone has cancelled one before: this takes the identity key";
                    return Err(Refusal::new(ErrorCode::IdentityNeeded, message).into());
                }
            }
            let update = "UPDATE recovery_requests SET cancelled_at = clock_timestamp() WHERE id = $1";
            tx.execute(update, &[&cancel.request_id.0]).await?;
            tx.execute("DELETE FROM recovery_releases WHERE request_id = $1", &[&cancel.request_id.0]).await?;
            Ok(audience(tx, who.user_id).await?)
        })
        .await
    }

    /// Takes the share that a friend gives to a request; a later one of the same friend replaces it.
    ///
    /// # Errors
    /// `too_large`, `unknown_recovery_request`, `no_share`, `bad_signature`, or [`StoreError`].
    pub async fn release_share(&self, who: Requester, release: &ReleaseShare) -> Result<(), Failure> {
        if release.sealed.len() > RELEASE_BYTES_MAX {
            let limit = RELEASE_BYTES_MAX as u64;
            return Err(Refusal::limit(ErrorCode::TooLarge, "more than a share with its set", limit).into());
        }
        self.write("release_share", async |tx| {
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            // Locked, so that nothing is given to a request while it is being cancelled.
            let find = "SELECT q.user_id FROM recovery_requests q \
                 WHERE q.id = $1 AND q.cancelled_at IS NULL AND q.expires_at > clock_timestamp() \
                     AND EXISTS (SELECT 1 FROM vault_backup_session_keys s WHERE s.kind = 'share' \
                         AND s.backed_up_user_id = q.user_id AND s.holder_user_id = $2) FOR UPDATE";
            let Some(row) = tx.query_opt(find, &[&release.request_id.0, &who.user_id.0]).await? else {
                return Err(unknown().into());
            };
            let owner = id(&row, "user_id", UserId)?;
            let is_current = "SELECT 1 FROM share_sets WHERE user_id = $1 AND set_id = $2";
            if tx.query_opt(is_current, &[&owner.0, &release.set_id.0]).await?.is_none() {
                return Err(Refusal::new(ErrorCode::NoShare, "the share is of a set that is no more").into());
            }
            let bytes = release_bytes(release.request_id, release.set_id, who.user_id, who.session_id, &release.sealed);
            if !signing_key.verifies(&bytes, &release.signature) {
                return Err(Refusal::new(ErrorCode::BadSignature, "the signature of the share does not verify").into());
            }
            let insert = "INSERT INTO recovery_releases (request_id, user_id, set_id, session_id, sealed, signature) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (request_id, user_id) DO UPDATE \
                 SET set_id = $3, session_id = $4, sealed = $5, signature = $6, created_at = clock_timestamp()";
            tx.execute(
                insert,
                &[
                    &release.request_id.0,
                    &who.user_id.0,
                    &release.set_id.0,
                    &who.session_id.0,
                    &release.sealed.as_ref(),
                    &release.signature.as_ref(),
                ],
            )
            .await?;
            Ok(())
        })
        .await
    }

    /// Gives what friends gave to a request; nothing of one that is not known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn releases(&self, request_id: RecoveryRequestId) -> Result<Releases, Failure> {
        self.read("releases", async |tx| {
            let find = "SELECT cancelled_at IS NOT NULL AS is_cancelled FROM recovery_requests \
                 WHERE id = $1 AND expires_at > clock_timestamp()";
            let row = tx.query_opt(find, &[&request_id.0]).await?;
            let is_cancelled = row.map_or(Ok(false), |row| get(&row, "is_cancelled"))?;
            let statement = "SELECT r.user_id, u.username, r.set_id, r.sealed FROM recovery_releases r \
                 JOIN users u ON u.id = r.user_id JOIN recovery_requests q ON q.id = r.request_id \
                 WHERE r.request_id = $1 AND q.expires_at > clock_timestamp() ORDER BY r.user_id";
            let rows = tx.query(statement, &[&request_id.0]).await?;
            Ok(Releases { is_cancelled, releases: rows.iter().map(release_of).collect::<Result<_, _>>()? })
        })
        .await
    }

    /// Forgets requests whose time is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_recovery_requests(&self) -> Result<(), Failure> {
        self.write("forget_recovery_requests", async |tx| {
            let statement = "DELETE FROM recovery_requests WHERE id IN (SELECT id FROM recovery_requests \
                 WHERE expires_at <= statement_timestamp() LIMIT 1000 FOR UPDATE SKIP LOCKED)";
            tx.execute(statement, &[]).await?;
            Ok(())
        })
        .await
    }
}

/// The open requests that concern a user, the oldest first.
///
/// # Errors
/// A requester that is not live, or [`StoreError`].
pub(super) async fn recovery_requests(tx: &Transaction<'_>, who: Requester) -> Result<Vec<RecoveryRequest>, Failure> {
    require_live(tx, who.user_id, who.session_id).await?;
    let any: Option<Uuid> = None;
    let rows = tx.query(CONCERNED, &[&Some(who.user_id.0), &any]).await?;
    Ok(rows.iter().map(request_of).collect::<Result<_, _>>()?)
}

async fn audience(tx: &Transaction<'_>, user_id: UserId) -> Result<Vec<SessionId>, StoreError> {
    let rows = tx.query(AUDIENCE, &[&user_id.0]).await?;
    rows.iter().map(|row| id(row, "id", SessionId)).collect()
}

fn request_of(row: &Row) -> Result<RecoveryRequest, StoreError> {
    let released_by: Vec<Uuid> = get(row, "released_by")?;
    Ok(RecoveryRequest {
        request_id: id(row, "id", RecoveryRequestId)?,
        user_id: id(row, "user_id", UserId)?,
        username: name_of(row)?,
        public_key: fixed(row, "public_key")?,
        created_at: timestamp(row, "created_at")?,
        expires_at: timestamp(row, "expires_at")?,
        released_by: released_by.into_iter().map(UserId).collect(),
    })
}

fn release_of(row: &Row) -> Result<Release, StoreError> {
    Ok(Release {
        user_id: id(row, "user_id", UserId)?,
        username: name_of(row)?,
        set_id: id(row, "set_id", ShareSetId)?,
        sealed: Blob::from(get::<Vec<u8>>(row, "sealed")?),
    })
}

fn name_of(row: &Row) -> Result<Username, StoreError> {
    Username::parse(get(row, "username")?).map_err(|_| StoreError::Corrupt { what: "username" })
}

const fn unknown() -> Refusal {
    Refusal::new(ErrorCode::UnknownRecoveryRequest, "no such request that is open and concerns this user")
}
