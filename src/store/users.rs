//! Accounts: registration and lookup by exact name.

use super::Store;
use super::error::{Failure, StoreError};
use super::invitations;
use super::rows::{fixed, get, id, pack, system_time, timestamp, unpack};
use super::strongboxes::{check_upload, write_strongbox};
use crate::config::RegistrationMode;
use crate::protocol::account::{Register, Registered};
use crate::protocol::certificate::{SignedCertificate, chain_start};
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::UserInfo;
use crate::protocol::ids::{Timestamp, UserId};
use crate::protocol::username::Username;
use crate::protocol::verify::Verifier;

/// Bounds on a session's life, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// A session's life at most, in seconds.
    pub lifetime_max_s: u64,
    /// Live sessions of a user at most.
    pub live_max: u64,
    /// Certificates of a user in an hour at most.
    pub certificates_per_hour_max: u64,
    /// Chats of a user at most.
    pub chats_max: u64,
    /// How long a pending session waits, in seconds.
    pub pending_s: u64,
}

const MICROS: u64 = 1_000_000;

/// Checks what a certificate says of time.
///
/// Only the end counts, and on the database's clock: a client's own may be a day off.
pub(super) fn check_lifetime(
    certificate: &SignedCertificate,
    now: Timestamp,
    limits: &SessionLimits,
) -> Result<(), Refusal> {
    let expired_at = certificate.certificate.expired_at;
    if expired_at <= now || expired_at > now.plus_micros(limits.lifetime_max_s.saturating_mul(MICROS)) {
        let message = "the session must expire in the future, and not after the longest life allowed";
        return Err(Refusal::limit(ErrorCode::BadCertificate, message, limits.lifetime_max_s));
    }
    Ok(())
}

impl Store {
    /// Makes an account with its first session, certified by its identity key. The same request again gets the
    /// same answer.
    ///
    /// # Errors
    /// `username_invalid`, `username_taken`, `bad_certificate`, `registration_closed`, `invitation_needed`,
    /// `invitation_invalid`, or [`StoreError`].
    pub async fn register(
        &self,
        request: &Register,
        mode: RegistrationMode,
        limits: &SessionLimits,
    ) -> Result<Registered, Failure> {
        let username = Username::parse(&request.username).map_err(|_| {
            Refusal::new(ErrorCode::UsernameInvalid, "a username is 3 to 32 of a-z, 0-9, '.', '_', '-'")
        })?;
        let certificate = &request.certificate.certificate;
        let is_first = certificate.user_id == request.user_id
            && certificate.place.get() == 1
            && certificate.previous == chain_start(request.user_id);
        if !request.identity_key.is_sound() || !is_first || request.certificate.verify(&request.identity_key).is_err() {
            return Err(Refusal::new(ErrorCode::BadCertificate, "the first certificate does not verify").into());
        }
        if let Some(upload) = &request.strongbox {
            check_upload(request.user_id, &request.identity_key, upload)?;
            if upload.strongbox.version != 1 {
                return Err(Refusal::new(ErrorCode::Malformed, "the first version of a strongbox is 1").into());
            }
        }
        if mode == RegistrationMode::Closed {
            // A repeat whose first answer was lost is told that it is done.
            return match self.registered_before(request, &username).await {
                Err(Failure::Refused(_)) => Err(invitations::closed().into()),
                done => done.map(|()| Registered { user_id: request.user_id, username }),
            };
        }
        let result = self.write("register", async |tx| {
            if mode == RegistrationMode::Invitation {
                invitations::require_good(tx, request.invitation.as_deref()).await?;
            }
            let now_row = tx.query_one("SELECT clock_timestamp() AS now", &[]).await?;
            check_lifetime(&request.certificate, timestamp(&now_row, "now")?, limits)?;
            let chain_hash = request.certificate.chain_hash();
            let body = pack(&request.certificate, "user_sessions.certificate")?;
            let user = "INSERT INTO users (id, username, identity_public_key, chain_place, chain_hash) VALUES ($1, $2, $3, 1, $4)";
            tx.execute(user, &[&request.user_id.0, &username.as_str(), &request.identity_key.as_ref(), &chain_hash.as_ref()])
                .await?;
            // After the insertion: it waits for an account of that name that is just ending, and then sees its end.
            let taken = "SELECT EXISTS (SELECT 1 FROM retired_usernames WHERE username = $1) AS taken";
            if get(&tx.query_one(taken, &[&username.as_str()]).await?, "taken")? {
                return Err(Refusal::new(ErrorCode::UsernameTaken, "the username belongs to somebody").into());
            }
            if mode == RegistrationMode::Invitation {
                // After the insertion, which finds whoever was faster with the same name.
                invitations::use_up(tx, request.invitation.as_deref()).await?;
            }
            let session = "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, certificate, state) \
                 VALUES ($1, $2, $3, $4, $5, $6, 'live')";
            tx.execute(session, &[
                &certificate.session_id.0,
                &request.user_id.0,
                &system_time(certificate.expired_at),
                &certificate.public_key.as_ref(),
                &certificate.signing_public_key.as_ref(),
                &body,
            ])
            .await?;
            if let Some(upload) = &request.strongbox {
                write_strongbox(tx, request.user_id, upload).await?;
                // It made the halves, and so it knows them.
                let update = "UPDATE user_sessions SET logged_in_at = clock_timestamp() WHERE id = $1";
                tx.execute(update, &[&certificate.session_id.0]).await?;
            }
            let event = "INSERT INTO user_events (user_id, place, kind, session_id, body, hash) \
                 VALUES ($1, 1, 'certificate', $2, $3, $4)";
            tx.execute(event, &[&request.user_id.0, &certificate.session_id.0, &body, &chain_hash.as_ref()]).await?;
            Ok(())
        });
        match result.await {
            Ok(()) => {}
            Err(Failure::Store(error)) if error.is_unique_violation() => {
                self.registered_before(request, &username).await?
            }
            // A repeat whose first answer was lost has used its code up.
            Err(Failure::Refused(refusal)) if refusal.code == ErrorCode::InvitationInvalid => {
                let before = self.registered_before(request, &username).await;
                before.map_err(|failure| match failure {
                    Failure::Refused(_) => Failure::Refused(refusal),
                    failure => failure,
                })?;
            }
            Err(failure) => return Err(failure),
        }
        Ok(Registered { user_id: request.user_id, username })
    }

    /// Tells a repeat of a registration from one whose name or id belongs to somebody else.
    async fn registered_before(&self, request: &Register, username: &Username) -> Result<(), Failure> {
        let is_same = self.read("register_repeat", async |tx| {
            let statement = "SELECT 1 FROM users u JOIN user_events e ON e.user_id = u.id AND e.place = 1 \
                 WHERE u.id = $1 AND u.username = $2 AND u.identity_public_key = $3 AND e.hash = $4";
            let hash = request.certificate.chain_hash();
            let row = tx
                .query_opt(
                    statement,
                    &[&request.user_id.0, &username.as_str(), &request.identity_key.as_ref(), &hash.as_ref()],
                )
                .await?;
            Ok(row.is_some())
        });
        if is_same.await? {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::UsernameTaken, "the username, the user or the session is there already").into())
    }

    /// Finds a user by exact name, with the certificates of the live sessions.
    ///
    /// # Errors
    /// `unknown_user`, or [`StoreError`].
    pub async fn lookup_user(&self, username: &Username) -> Result<UserInfo, Failure> {
        self.read("lookup_user", async |tx| {
            let statement = "SELECT id, identity_public_key FROM users WHERE username = $1";
            let Some(user) = tx.query_opt(statement, &[&username.as_str()]).await? else {
                return Err(Refusal::new(ErrorCode::UnknownUser, "no user of that name").into());
            };
            let user_id = id(&user, "id", UserId)?;
            let statement = "SELECT certificate FROM user_sessions WHERE user_id = $1 AND state = 'live' \
                 AND expired_at > clock_timestamp() ORDER BY id";
            let mut sessions = Vec::new();
            for row in tx.query(statement, &[&user_id.0]).await? {
                sessions.push(certificate_of(get(&row, "certificate")?)?);
            }
            Ok(UserInfo {
                user_id,
                username: username.clone(),
                identity_key: fixed(&user, "identity_public_key")?,
                sessions,
            })
        })
        .await
    }
}

pub(super) fn certificate_of(bytes: Option<&[u8]>) -> Result<SignedCertificate, StoreError> {
    unpack(bytes.unwrap_or_default(), "certificate")
}
