//! Logins by password and recovery code: begun, counted, ended once, and the session that comes of one.

use tokio_postgres::Row;

use super::Store;
use super::error::{Failure, StoreError};
use super::group_keys::active_key;
use super::linking::{PENDING_MAX, forget_overdue};
use super::profiles::give_own_key;
use super::rows::{bigint, fixed, get, id, number_of, system_time, timestamp, unpack};
use super::sessions::{locked, require_unsuspended, state_of};
use super::strongboxes::strongbox_of;
use super::transaction::Transaction;
use super::users::SessionLimits;
use crate::protocol::binary::{CredentialId, ExchangeKey, SigningKey};
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{LoginId, SessionId, Timestamp, UserId};
use crate::protocol::password::{LoggedIn, NewSession};
use crate::protocol::strongbox::{Stretching, Strongbox};
use crate::protocol::username::Username;
use crate::protocol::verify::Verifier;

/// How often something may be tried: `per_hour` at once, and one more as each of its shares of an hour passes.
#[derive(Debug, Clone)]
pub struct TryLimit {
    /// What is counted by.
    pub bucket: Vec<u8>,
    /// Tries in an hour.
    pub per_hour: u32,
}

/// A user as a login finds them.
#[derive(Debug, Clone)]
pub struct LoginUser {
    /// The user.
    pub user_id: UserId,
    /// The version of what is to be opened.
    pub version: u64,
    /// OPAQUE's record.
    pub record: Vec<u8>,
    /// The password's credential.
    pub credential_id: CredentialId,
    /// How the password is stretched.
    pub stretching: Stretching,
    /// What a login by recovery code is checked by, where there is one.
    pub recovery_key: Option<SigningKey>,
}

/// A login that has begun, of somebody or nobody.
#[derive(Debug, Clone)]
pub struct Login {
    /// The login.
    pub login_id: LoginId,
    /// `password` or `recovery`.
    pub kind: &'static str,
    /// The name that was given.
    pub username: Username,
    /// Whose it is, and the version of what it opens; none for who cannot log in so.
    pub user: Option<(UserId, u64)>,
    /// What tries are counted by that a good login is forgiven.
    pub pair: Vec<u8>,
    /// What its end is judged by.
    pub state: Vec<u8>,
}

const HOUR_S: f64 = 3_600.0;

impl Store {
    /// Gives a secret of the server; the first who asks puts it there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn server_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>, StoreError> {
        let secret = self.write("server_secret", async |tx| {
            let insert = "INSERT INTO server_secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            tx.execute(insert, &[&name, &fresh]).await?;
            let row = tx.query_one("SELECT value FROM server_secrets WHERE name = $1", &[&name]).await?;
            Ok(get::<Vec<u8>>(&row, "value")?)
        });
        secret.await.map_err(|failure| match failure {
            Failure::Store(error) => error,
            _ => StoreError::Corrupt { what: "server_secrets" },
        })
    }

    /// Counts a try, and finds the user of a name who has a password. Both are one transaction of the same statements
    /// for every name; what is refused is not counted.
    ///
    /// # Errors
    /// `rate_limited` with `retry_after_ms`, or [`StoreError`].
    pub async fn count_try(&self, limits: &[TryLimit], username: &Username) -> Result<Option<LoginUser>, Failure> {
        self.write("count_try", async |tx| {
            for limit in limits {
                count(tx, limit).await?;
            }
            find(tx, username).await
        })
        .await
    }

    /// Notes a login that has begun.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_login(&self, login: &Login, waits_s: u64) -> Result<(), Failure> {
        self.write("begin_login", async |tx| {
            let statement = "INSERT INTO password_logins (id, kind, username, user_id, strongbox_version, pair, state, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8))";
            let user_id = login.user.map(|(user_id, _)| user_id.0);
            let version = bigint(login.user.map_or(0, |(_, version)| version));
            #[expect(clippy::cast_precision_loss, reason = "seconds of a setting, far below 2^52")]
            let waits_s = waits_s as f64;
            tx.execute(statement, &[
                &login.login_id.0,
                &login.kind,
                &login.username.as_str(),
                &user_id,
                &version,
                &login.pair,
                &login.state,
                &waits_s,
            ])
            .await?;
            Ok(())
        })
        .await
    }

    /// Takes a login that has begun: it is used up, whatever comes of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_login(&self, login_id: LoginId, kind: &'static str) -> Result<Option<Login>, Failure> {
        self.write("take_login", async |tx| {
            let statement = "DELETE FROM password_logins WHERE id = $1 \
                 RETURNING kind, username, user_id, strongbox_version, pair, state, expires_at > clock_timestamp() AS waits";
            let Some(row) = tx.query_opt(statement, &[&login_id.0]).await? else { return Ok(None) };
            if !get::<bool>(&row, "waits")? || get::<&str>(&row, "kind")? != kind {
                return Ok(None);
            }
            let username = Username::parse(get(&row, "username")?);
            let version: u64 = number_of(get(&row, "strongbox_version")?, "strongbox_version")?;
            Ok(Some(Login {
                login_id,
                kind,
                username: username.map_err(|_| StoreError::Corrupt { what: "username" })?,
                user: get::<Option<uuid::Uuid>>(&row, "user_id")?.map(|user_id| (UserId(user_id), version)),
                pair: get(&row, "pair")?,
                state: get(&row, "state")?,
            }))
        })
        .await
    }

    /// Ends a good login: gives what the password protects, and makes the session that was asked for, or notes which
    /// one knows the sealed halves now.
    ///
    /// # Errors
    /// `account_suspended`, `login_failed` if the password has changed since the login began, `bad_certificate` for unsound keys,
    /// `unknown_session` when the id is another session's, `limit_reached`, or [`StoreError`].
    pub async fn log_in(
        &self,
        login: &Login,
        session: Option<&NewSession>,
        for_session: Option<SessionId>,
        limits: &SessionLimits,
    ) -> Result<LoggedIn, Failure> {
        let failed = || Failure::from(Refusal::new(ErrorCode::LoginFailed, "the login is refused"));
        let Some((user_id, version)) = login.user else { return Err(failed()) };
        self.write("log_in", async |tx| {
            let user = match locked(tx, user_id).await {
                Err(Failure::Refused(_)) => return Err(failed()),
                user => user?,
            };
            let found = strongbox_of(tx, user_id).await?.filter(|strongbox| strongbox.version == version);
            let strongbox = found.ok_or_else(failed)?;
            // Only who has proven the password learns it.
            require_unsuspended(&user)?;
            let expires_at = match session {
                Some(session) => Some(make_session(tx, user_id, session, user.now, limits).await?),
                None => None,
            };
            if let Some(session_id) = for_session {
                let update = "UPDATE user_sessions SET logged_in_at = clock_timestamp() WHERE id = $1 AND user_id = $2";
                tx.execute(update, &[&session_id.0, &user_id.0]).await?;
            }
            let own_key = match session {
                Some(session) => give_own_key(tx, user_id, session.session_id).await?,
                None => None,
            };
            tx.execute("DELETE FROM password_tries WHERE bucket = $1", &[&login.pair]).await?;
            Ok(LoggedIn {
                user_id,
                identity_key: user.identity_key,
                strongbox,
                place: user.place,
                hash: user.hash,
                is_withdrawn: active_key(tx, user_id).await?.is_none(),
                expires_at,
                own_key,
            })
        })
        .await
    }

    /// Forgets logins that nobody ended, and tries that count no more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_logins(&self) -> Result<(), Failure> {
        self.write("forget_logins", async |tx| {
            tx.execute("DELETE FROM password_logins WHERE expires_at <= statement_timestamp()", &[]).await?;
            // One that is just being counted is left to the next time.
            let statement = "DELETE FROM password_tries WHERE bucket IN (SELECT bucket FROM password_tries \
                 WHERE empty_at <= statement_timestamp() LIMIT 10000 FOR UPDATE SKIP LOCKED)";
            tx.execute(statement, &[]).await?;
            Ok(())
        })
        .await
    }
}

/// Counts one try. A bucket fills by a share of an hour with each, and is full with an hour's worth.
///
/// # Errors
/// `rate_limited` with `retry_after_ms`, or [`StoreError`].
pub(super) async fn count(tx: &Transaction<'_>, limit: &TryLimit) -> Result<(), Failure> {
    let share_s = HOUR_S / f64::from(limit.per_hour.max(1));
    let statement = "INSERT INTO password_tries AS t (bucket, empty_at) \
         VALUES ($1, clock_timestamp() + make_interval(secs => $2)) \
         ON CONFLICT (bucket) DO UPDATE SET empty_at = greatest(t.empty_at, clock_timestamp()) + make_interval(secs => $2) \
         WHERE greatest(t.empty_at, clock_timestamp()) + make_interval(secs => $2) \
             <= clock_timestamp() + make_interval(secs => $3)";
    if tx.execute(statement, &[&limit.bucket, &share_s, &HOUR_S]).await? > 0 {
        return Ok(());
    }
    let wait = "SELECT clock_timestamp() AS now, empty_at + make_interval(secs => $2::float8 - $3::float8) AS free_at \
         FROM password_tries WHERE bucket = $1";
    let row = tx.query_one(wait, &[&limit.bucket, &share_s, &HOUR_S]).await?;
    let (now, free_at) = (timestamp(&row, "now")?, timestamp(&row, "free_at")?);
    let wait = std::time::Duration::from_micros(free_at.get().saturating_sub(now.get()).max(1));
    Err(Refusal::later("too many tries", wait).into())
}

async fn find(tx: &Transaction<'_>, username: &Username) -> Result<Option<LoginUser>, Failure> {
    let statement = "SELECT id, opaque_record, strongbox FROM users WHERE username = $1 AND strongbox_version > 0";
    let Some(row) = tx.query_opt(statement, &[&username.as_str()]).await? else { return Ok(None) };
    let strongbox: Strongbox = unpack(get(&row, "strongbox")?, "users.strongbox")?;
    Ok(Some(LoginUser {
        user_id: id(&row, "id", UserId)?,
        version: strongbox.version,
        record: get(&row, "opaque_record")?,
        credential_id: strongbox.credential_id,
        stretching: strongbox.stretching,
        recovery_key: strongbox.recovery.map(|recovery| recovery.login_key),
    }))
}

/// Makes a pending session that may certify itself; the same again is the same.
async fn make_session(
    tx: &Transaction<'_>,
    user_id: UserId,
    session: &NewSession,
    now: Timestamp,
    limits: &SessionLimits,
) -> Result<Timestamp, Failure> {
    if !session.public_key.is_sound() || !session.signing_public_key.is_sound() {
        return Err(Refusal::new(ErrorCode::BadCertificate, "a public key is not canonical or of small order").into());
    }
    forget_overdue(tx, user_id).await?;
    let expires_at = now.plus_micros(limits.pending_s.saturating_mul(1_000_000));
    let found = "SELECT public_key, signing_public_key, state, user_id, logged_in_at IS NOT NULL AS has_logged_in \
         FROM user_sessions WHERE id = $1";
    if let Some(row) = tx.query_opt(found, &[&session.session_id.0]).await? {
        if !is_same(&row, user_id, session)? {
            return Err(Refusal::new(ErrorCode::UnknownSession, "the session id is not free").into());
        }
        let update = "UPDATE user_sessions SET expired_at = $2, logged_in_at = clock_timestamp() WHERE id = $1";
        tx.execute(update, &[&session.session_id.0, &system_time(expires_at)]).await?;
        return Ok(expires_at);
    }
    let pending = "SELECT count(*) AS count FROM user_sessions \
         WHERE user_id = $1 AND state = 'pending' AND logged_in_at IS NOT NULL";
    let count: i64 = get(&tx.query_one(pending, &[&user_id.0]).await?, "count")?;
    if count >= PENDING_MAX {
        let message = "too many logins wait for their certificates";
        return Err(Refusal::limit(ErrorCode::LimitReached, message, PENDING_MAX.unsigned_abs()).into());
    }
    let insert = "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, state, logged_in_at) \
         VALUES ($1, $2, $3, $4, $5, 'pending', clock_timestamp())";
    tx.execute(
        insert,
        &[
            &session.session_id.0,
            &user_id.0,
            &system_time(expires_at),
            &session.public_key.as_ref(),
            &session.signing_public_key.as_ref(),
        ],
    )
    .await?;
    Ok(expires_at)
}

fn is_same(row: &Row, user_id: UserId, session: &NewSession) -> Result<bool, StoreError> {
    Ok(state_of(row)? == SessionState::Pending
        && get::<bool>(row, "has_logged_in")?
        && id(row, "user_id", UserId)? == user_id
        && fixed::<ExchangeKey>(row, "public_key")? == session.public_key
        && fixed::<SigningKey>(row, "signing_public_key")? == session.signing_public_key)
}
