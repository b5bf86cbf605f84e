//! Renewal: a new certificate over the keys of a session that is live or has expired.
//!
//! Copies that were made for the session stay as they are. Ahead of its time a session comes in anew without having
//! gone out; after it, each log shows the expiry first.

use super::Store;
use super::error::Failure;
use super::head::{self, ChatHead};
use super::linking::{check_certificates, check_live_count};
use super::members::Requester;
use super::rows::{get, pack, system_time, timestamp};
use super::sessions::{SessionsChanged, append_user_event, check_chain, locked, require_unsuspended, state_of};
use super::transaction::Transaction;
use super::users::{SessionLimits, certificate_of, check_lifetime};
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{ApproveSession, SessionState};
use crate::protocol::ids::{ChatId, Timestamp, UserId};
use crate::protocol::log::{EntryBody, SessionOut};

impl Store {
    /// Gives a session a later certificate over the same keys, by its own request. The same request again gets the
    /// same answer for as long as the session lives by it.
    ///
    /// # Errors
    /// `session_revoked`, `session_pending`, `bad_certificate`, `event_conflict`, `limit_reached`, `malformed` for a
    /// hand-over, or [`StoreError`](super::StoreError).
    pub async fn renew_session(
        &self,
        who: Requester,
        request: &ApproveSession,
        limits: &SessionLimits,
    ) -> Result<SessionsChanged, Failure> {
        let signed = &request.certificate;
        let certificate = &signed.certificate;
        self.write("renew_session", async |tx| {
            let user = locked(tx, who.user_id).await?;
            require_unsuspended(&user)?;
            let statement = "SELECT public_key, signing_public_key, state, expired_at, certificate, \
                 expired_at <= clock_timestamp() AS is_over FROM user_sessions WHERE id = $1 AND user_id = $2";
            let Some(row) = tx.query_opt(statement, &[&who.session_id.0, &who.user_id.0]).await? else {
                return Err(Refusal::new(ErrorCode::UnknownSession, "no such session").into());
            };
            let state = state_of(&row)?;
            let code = match state {
                SessionState::Pending => Some((ErrorCode::SessionPending, "the session waits for approval")),
                SessionState::Revoked => Some((ErrorCode::SessionRevoked, "the session was revoked")),
                SessionState::Live | SessionState::Expired => None,
            };
            if let Some((code, message)) = code {
                return Err(Refusal::new(code, message).into());
            }
            if !request.handover.is_empty() || request.renewal.is_some() || !request.backups.is_empty() {
                return Err(Refusal::new(ErrorCode::Malformed, "a session hands itself nothing over").into());
            }
            let is_live = state == SessionState::Live && !get::<bool>(&row, "is_over")?;
            if is_live && certificate_of(get(&row, "certificate")?)? == *signed {
                return Ok(SessionsChanged::default());
            }
            let names_its_keys = certificate.user_id == who.user_id
                && certificate.session_id == who.session_id
                && get::<&[u8]>(&row, "public_key")? == certificate.public_key.as_ref()
                && get::<&[u8]>(&row, "signing_public_key")? == certificate.signing_public_key.as_ref();
            if !names_its_keys || signed.verify(&user.identity_key).is_err() {
                return Err(Refusal::new(ErrorCode::BadCertificate, "the certificate does not verify").into());
            }
            check_chain(&user, certificate.place, &certificate.previous)?;
            check_lifetime(signed, user.now, limits)?;
            check_certificates(tx, who.user_id, Some(who.session_id), limits).await?;
            let was_in_until = match state {
                SessionState::Live => Some(timestamp(&row, "expired_at")?),
                _ => {
                    check_live_count(tx, who.user_id, limits).await?;
                    None
                }
            };
            let body = pack(signed, "user_sessions.certificate")?;
            let update = "UPDATE user_sessions SET state = 'live', certificate = $2, expired_at = $3 WHERE id = $1";
            tx.execute(update, &[&who.session_id.0, &body, &system_time(certificate.expired_at)]).await?;
            let (place, hash) = (certificate.place, signed.chain_hash());
            append_user_event(tx, who.user_id, place, "certificate", who.session_id, &body, hash.as_ref()).await?;
            let entering = Entering { signed, was_in_until, has_its_keys: true };
            let chats = bring_in(tx, who.user_id, &[entering]).await?;
            Ok(SessionsChanged { chats, gone: Vec::new() })
        })
        .await
    }
}

/// A session that comes into its user's chats, or stays in them by another certificate.
pub(super) struct Entering<'a> {
    /// The certificate.
    pub(super) signed: &'a SignedCertificate,
    /// When it expires by the one before, if it is a recipient already.
    pub(super) was_in_until: Option<Timestamp>,
    /// Whether the certificate is over the same keys as the one before.
    pub(super) has_its_keys: bool,
}

/// Writes a `session_in` for each certificate to the log of each of a user's chats, under the user's lock, and gives the
/// chats.
///
/// The log of a chat shows first that a session has expired, if it has come so far.
pub(super) async fn bring_in(
    tx: &Transaction<'_>,
    user_id: UserId,
    certificates: &[Entering<'_>],
) -> Result<Vec<ChatId>, Failure> {
    let chats = head::chats_of_user(tx, user_id).await?;
    let mut heads = ChatHead::lock_all(tx, &chats).await?;
    for head in &mut heads {
        for Entering { signed, was_in_until, has_its_keys } in certificates {
            // The locks may have taken longer than it was to live: readers would refuse it.
            if signed.certificate.expired_at <= head.now {
                return Err(Refusal::new(ErrorCode::BadCertificate, "the certificate has run out meanwhile").into());
            }
            if was_in_until.is_some_and(|until| until <= head.now) {
                // Readers take nobody back over other keys.
                if !has_its_keys {
                    return Err(Refusal::new(ErrorCode::SessionExpired, "the session has expired meanwhile").into());
                }
                let session_id = signed.certificate.session_id;
                head.append(EntryBody::SessionOut(SessionOut::Expired { user_id, session_id }));
            }
            head.append(EntryBody::SessionIn(SignedCertificate::clone(signed)));
        }
    }
    head::write_back(tx, &heads).await?;
    Ok(chats)
}
