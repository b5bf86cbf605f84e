//! New devices: asked for, approved by a live session of the same user, and handed over what they need.

use super::Store;
use super::backups::{check_fresh, check_shape, store_backups};
use super::error::Failure;
use super::head::{LockedUser, lock_user};
use super::members::Requester;
use super::renewal::{Entering, bring_in};
use super::rows::{get, id, pack, system_time, timestamp};
use super::sessions::{
    SessionsChanged, append_user_event, check_chain, locked, require_live, require_unsuspended, state_of,
};
use super::transaction::Transaction;
use super::users::{SessionLimits, certificate_of, check_lifetime};
use crate::protocol::account::{Link, Linked};
use crate::protocol::binary::{Blob, SigningKey};
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{ApproveSession, Handover, SessionState};
use crate::protocol::ids::{SessionId, Timestamp, UserId};
use crate::protocol::limits::HANDOVER_BYTES_MAX;
use crate::protocol::verify::Verifier;

/// Sessions of one user that may be pending at once.
pub(super) const PENDING_MAX: i64 = 5;

impl Store {
    /// Makes a pending session. The same request again gets the same answer; the flag says whether it is the first.
    ///
    /// # Errors
    /// `unknown_user`, `bad_certificate` for unsound keys, `limit_reached`, `unknown_session` when the id is
    /// another session's, or [`StoreError`](super::StoreError).
    pub async fn link(&self, link: &Link, limits: &SessionLimits) -> Result<(Linked, bool), Failure> {
        if !link.public_key.is_sound() || !link.signing_public_key.is_sound() {
            return Err(
                Refusal::new(ErrorCode::BadCertificate, "a public key is not canonical or of small order").into()
            );
        }
        self.write("link", async |tx| {
            let Some(user) = lock_user(tx, link.user_id).await? else {
                return Err(Refusal::new(ErrorCode::UnknownUser, "no such user").into());
            };
            forget_overdue(tx, link.user_id).await?;
            let found = "SELECT public_key, signing_public_key, state, expired_at, user_id FROM user_sessions WHERE id = $1";
            if let Some(row) = tx.query_opt(found, &[&link.session_id.0]).await? {
                let is_same = state_of(&row)? == SessionState::Pending
                    && id(&row, "user_id", UserId)? == link.user_id
                    && get::<&[u8]>(&row, "public_key")? == link.public_key.as_ref()
                    && get::<&[u8]>(&row, "signing_public_key")? == link.signing_public_key.as_ref();
                if !is_same {
                    return Err(Refusal::new(ErrorCode::UnknownSession, "the session id is not free").into());
                }
                return Ok((Linked { expires_at: timestamp(&row, "expired_at")? }, false));
            }
            let pending = "SELECT count(*) AS count FROM user_sessions \
                 WHERE user_id = $1 AND state = 'pending' AND logged_in_at IS NULL";
            let count: i64 = get(&tx.query_one(pending, &[&link.user_id.0]).await?, "count")?;
            if count >= PENDING_MAX {
                let message = "too many sessions wait for approval";
                return Err(Refusal::limit(ErrorCode::LimitReached, message, PENDING_MAX.unsigned_abs()).into());
            }
            let expires_at = user.now.plus_micros(limits.pending_s.saturating_mul(1_000_000));
            let insert = "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, state, link_proof) \
                 VALUES ($1, $2, $3, $4, $5, 'pending', $6)";
            tx.execute(insert, &[
                &link.session_id.0,
                &link.user_id.0,
                &system_time(expires_at),
                &link.public_key.as_ref(),
                &link.signing_public_key.as_ref(),
                &link.proof.as_ref(),
            ])
            .await?;
            Ok((Linked { expires_at }, true))
        })
        .await
    }

    /// Makes a pending session live, by a live session of the same user. What names the approver itself renews it.
    ///
    /// # Errors
    /// `unknown_session`, `bad_certificate`, `event_conflict`, `limit_reached`, `too_large`, or [`StoreError`](super::StoreError).
    pub async fn approve_session(
        &self,
        user_id: UserId,
        approver: SessionId,
        request: &ApproveSession,
        limits: &SessionLimits,
    ) -> Result<SessionsChanged, Failure> {
        if request.handover.len() > HANDOVER_BYTES_MAX {
            let message = "the hand-over is too large";
            return Err(Refusal::limit(ErrorCode::TooLarge, message, HANDOVER_BYTES_MAX as u64).into());
        }
        let who = Requester { user_id, session_id: approver };
        if request.certificate.certificate.session_id == approver {
            return self.renew_session(who, request, limits).await;
        }
        check_shape(request.certificate.certificate.session_id, who, &request.backups)?;
        self.write("approve_session", async |tx| {
            let user = locked(tx, user_id).await?;
            let signing_key = require_live(tx, user_id, approver).await?;
            certify(tx, &user, who, Some(&signing_key), request, limits).await
        })
        .await
    }

    /// Makes the pending session live that a login has made, by its own request. What it hands over is nothing.
    ///
    /// # Errors
    /// As [`Store::approve_session`].
    pub async fn certify_session(
        &self,
        who: Requester,
        request: &ApproveSession,
        limits: &SessionLimits,
    ) -> Result<SessionsChanged, Failure> {
        if request.certificate.certificate.session_id != who.session_id {
            return Err(Refusal::new(ErrorCode::SessionPending, "the session waits for approval").into());
        }
        self.write("certify_session", async |tx| {
            let user = locked(tx, who.user_id).await?;
            require_unsuspended(&user)?;
            let statement = "SELECT 1 FROM user_sessions WHERE id = $1 AND logged_in_at IS NOT NULL";
            if tx.query_opt(statement, &[&who.session_id.0]).await?.is_none() {
                return Err(Refusal::new(ErrorCode::SessionPending, "the session waits for approval").into());
            }
            if !request.handover.is_empty() || request.renewal.is_some() || !request.backups.is_empty() {
                return Err(Refusal::new(ErrorCode::Malformed, "a session hands itself nothing over").into());
            }
            certify(tx, &user, who, None, request, limits).await
        })
        .await
    }

    /// Hands over what the approving session left for this one.
    ///
    /// # Errors
    /// `session_pending` before the approval, `unknown_session` when there is nothing, or [`StoreError`](super::StoreError).
    pub async fn handover(&self, session_id: SessionId) -> Result<Handover, Failure> {
        self.read("handover", async |tx| {
            let statement = "SELECT state, certificate, handover FROM user_sessions WHERE id = $1";
            let nothing = || Refusal::new(ErrorCode::UnknownSession, "nothing was handed over to this session");
            let Some(row) = tx.query_opt(statement, &[&session_id.0]).await? else { return Err(nothing().into()) };
            if state_of(&row)? == SessionState::Pending {
                return Err(Refusal::new(ErrorCode::SessionPending, "the session waits for approval").into());
            }
            let handover: Option<Vec<u8>> = get(&row, "handover")?;
            let handover = Blob::from(handover.ok_or_else(nothing)?);
            Ok(Handover { certificate: certificate_of(get(&row, "certificate")?)?, handover })
        })
        .await
    }
}

/// Deletes a user's pending sessions that nobody made live in time: they hold nothing that is worth keeping.
pub(super) async fn forget_overdue(tx: &Transaction<'_>, user_id: UserId) -> Result<(), Failure> {
    let forget =
        "DELETE FROM user_sessions WHERE user_id = $1 AND state = 'pending' AND expired_at <= clock_timestamp()";
    tx.execute(forget, &[&user_id.0]).await?;
    Ok(())
}

/// Makes a pending session live, under its user's lock, with an entry in the chain and in each of the user's chats; an
/// approving session may replace its own key and hand on what it has.
async fn certify(
    tx: &Transaction<'_>,
    user: &LockedUser,
    who: Requester,
    approver: Option<&SigningKey>,
    request: &ApproveSession,
    limits: &SessionLimits,
) -> Result<SessionsChanged, Failure> {
    let user_id = who.user_id;
    let certificate = &request.certificate.certificate;
    let statement = "SELECT public_key, signing_public_key, state, expired_at <= clock_timestamp() AS is_over, certificate \
                 FROM user_sessions WHERE id = $1 AND user_id = $2";
    let unknown = || Refusal::new(ErrorCode::UnknownSession, "no such session waits for approval");
    let Some(row) = tx.query_opt(statement, &[&certificate.session_id.0, &user_id.0]).await? else {
        return Err(unknown().into());
    };
    if state_of(&row)? == SessionState::Live && certificate_of(get(&row, "certificate")?)? == request.certificate {
        return Ok(SessionsChanged::default());
    }
    if state_of(&row)? != SessionState::Pending || get(&row, "is_over")? {
        return Err(unknown().into());
    }
    let names_its_keys = certificate.user_id == user_id
        && get::<&[u8]>(&row, "public_key")? == certificate.public_key.as_ref()
        && get::<&[u8]>(&row, "signing_public_key")? == certificate.signing_public_key.as_ref();
    if !names_its_keys || request.certificate.verify(&user.identity_key).is_err() {
        return Err(Refusal::new(ErrorCode::BadCertificate, "the certificate does not verify").into());
    }
    check_lifetime(&request.certificate, user.now, limits)?;
    check_chain(user, certificate.place, &certificate.previous)?;
    check_live_count(tx, user_id, limits).await?;
    check_certificates(tx, user_id, None, limits).await?;
    let body = pack(&request.certificate, "user_sessions.certificate")?;
    let update = "UPDATE user_sessions SET state = 'live', certificate = $2, expired_at = $3, handover = $4, \
                 created_at = clock_timestamp() WHERE id = $1";
    let expired_at = system_time(certificate.expired_at);
    let handover = Some(request.handover.as_ref()).filter(|handover: &&[u8]| !handover.is_empty());
    tx.execute(update, &[&certificate.session_id.0, &body, &expired_at, &handover]).await?;
    let hash = request.certificate.chain_hash();
    append_user_event(tx, user_id, certificate.place, "certificate", certificate.session_id, &body, hash.as_ref())
        .await?;
    let mut certificates = vec![Entering { signed: &request.certificate, was_in_until: None, has_its_keys: true }];
    if let (Some(renewal), Some(signing_key)) = (&request.renewal, approver) {
        let newest = LockedUser { place: certificate.place, hash, ..*user };
        let was_in_until = renew(tx, &newest, (who, signing_key), renewal, limits).await?;
        certificates.push(Entering { signed: renewal, was_in_until: Some(was_in_until), has_its_keys: false });
    }
    if let Some(signing_key) = approver {
        store_backups(tx, who, signing_key, &request.backups).await?;
    }
    let chats = bring_in(tx, user_id, &certificates).await?;
    Ok(SessionsChanged { chats, gone: Vec::new() })
}

/// Gives a live session another X25519 key, by a certificate that is next in its user's chain; says until when it had
/// been in.
async fn renew(
    tx: &Transaction<'_>,
    user: &LockedUser,
    (who, signing_key): (Requester, &SigningKey),
    renewal: &SignedCertificate,
    limits: &SessionLimits,
) -> Result<Timestamp, Failure> {
    let certificate = &renewal.certificate;
    let is_theirs = certificate.user_id == who.user_id
        && certificate.session_id == who.session_id
        && certificate.signing_public_key == *signing_key;
    if !is_theirs || renewal.verify(&user.identity_key).is_err() {
        return Err(Refusal::new(ErrorCode::BadCertificate, "the renewed certificate does not verify").into());
    }
    check_lifetime(renewal, user.now, limits)?;
    check_chain(user, certificate.place, &certificate.previous)?;
    check_fresh(tx, who.user_id, who.session_id, &certificate.public_key).await?;
    let before = "SELECT expired_at FROM user_sessions WHERE id = $1";
    let was_in_until = timestamp(&tx.query_one(before, &[&who.session_id.0]).await?, "expired_at")?;
    let body = pack(renewal, "user_sessions.certificate")?;
    let update = "UPDATE user_sessions SET certificate = $2, expired_at = $3, public_key = $4 WHERE id = $1";
    let expired_at = system_time(certificate.expired_at);
    tx.execute(update, &[&who.session_id.0, &body, &expired_at, &certificate.public_key.as_ref()]).await?;
    let hash = renewal.chain_hash();
    append_user_event(tx, who.user_id, certificate.place, "certificate", who.session_id, &body, hash.as_ref()).await?;
    Ok(was_in_until)
}

/// Refuses one more live session than a user may have.
pub(super) async fn check_live_count(
    tx: &Transaction<'_>,
    user_id: UserId,
    limits: &SessionLimits,
) -> Result<(), Failure> {
    let live = "SELECT id FROM user_sessions WHERE user_id = $1 AND state = 'live' \
         ORDER BY coalesce(last_seen_at, created_at), id";
    let found = tx.query(live, &[&user_id.0]).await?;
    if (found.len() as u64) < limits.live_max {
        return Ok(());
    }
    let sessions = found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?;
    let details = ErrorDetails { limit: Some(limits.live_max), sessions, ..ErrorDetails::default() };
    Err(Refusal::with(ErrorCode::LimitReached, "too many live sessions", details).into())
}

/// Whether a session is pending by a login of just now, and not by a link.
pub(super) async fn has_logged_in(tx: &Transaction<'_>, session_id: SessionId) -> Result<bool, Failure> {
    let statement = "SELECT 1 FROM user_sessions WHERE id = $1 AND state = 'pending' \
         AND logged_in_at IS NOT NULL AND expired_at > clock_timestamp()";
    Ok(tx.query_opt(statement, &[&session_id.0]).await?.is_some())
}

/// Refuses one more certificate than a user may make in an hour for new sessions, or for one session that is renewed. A
/// session that approves another is renewed beside it, which does not count against new ones.
pub(super) async fn check_certificates(
    tx: &Transaction<'_>,
    user_id: UserId,
    renewed: Option<SessionId>,
    limits: &SessionLimits,
) -> Result<(), Failure> {
    let recent = "SELECT CASE WHEN $2::uuid IS NULL THEN count(DISTINCT session_id) \
             ELSE count(*) FILTER (WHERE session_id = $2) END AS count \
         FROM user_events WHERE user_id = $1 AND kind = 'certificate' \
         AND created_at > clock_timestamp() - interval '1 hour'";
    let renewed = renewed.map(|session_id| session_id.0);
    let count: i64 = get(&tx.query_one(recent, &[&user_id.0, &renewed]).await?, "count")?;
    if count.unsigned_abs() >= limits.certificates_per_hour_max {
        let limit = limits.certificates_per_hour_max;
        return Err(Refusal::limit(ErrorCode::LimitReached, "too many certificates in an hour", limit).into());
    }
    Ok(())
}
