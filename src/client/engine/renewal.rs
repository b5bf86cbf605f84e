//! Renews this session's certificate over the same keys: ahead of its time while it is live, or after it over a
//! connection that is good for nothing else.
//!
//! Only who holds the identity key can, so where a password protects it the user is told that it is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{expect_reply, spawn};
use super::devices::{expiry, list};
use super::login::LoginError;
use super::state::{Shared, State, Status};
use crate::client::error::{ClientError, CloseReason, UNSIGNED};
use crate::client::event::Event;
use crate::client::net::wire::{CallError, Refused, Wire};
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::certificate::{Certificate, SignedCertificate};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ApproveSession, Reply, Request, Sessions};
use crate::protocol::ids::{Place, Timestamp};

/// How often the certificate is made again because another entry of the chain was faster.
const TRIES_MAX: u32 = 8;

/// How long after a try that failed the next one begins.
const PAUSE: Duration = Duration::from_secs(60);

/// What a client remembers of renewing.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    is_running: bool,
    tried_at: Option<Instant>,
    /// For which end of the session its user was told that the password is needed.
    told_of: Option<Timestamp>,
}

/// When a session is renewed by itself: at a moment within the last third of its life that its certificate decides, so
/// that those of many do not meet, and with a twelfth of its life left at least.
pub(crate) fn due_at(signed: &SignedCertificate) -> Timestamp {
    let Certificate { created_at, expired_at, .. } = signed.certificate;
    let third = expired_at.get().saturating_sub(created_at.get()) / 3;
    let [first, second, ..] = signed.chain_hash().0;
    let share = u64::from(u16::from_be_bytes([first, second]));
    let spread = (third / 4 * 3 / (1 << 16)).saturating_mul(share);
    Timestamp::saturating(expired_at.get().saturating_sub(third).saturating_add(spread))
}

/// Renews the session in the background if its time has come, or says that the password is needed.
pub(crate) fn look_if_due(shared: &Arc<Shared>) {
    if !shared.config.renews {
        return;
    }
    let now = Instant::now();
    let (needed, is_due) = {
        let mut state = shared.lock();
        if !state.is_renewal_due() {
            return;
        }
        match state.identity() {
            Err(_) => (state.password_needed(), false),
            Ok(_) => (None, state.renewal.begins(now)),
        }
    };
    shared.publish(needed.into_iter().collect());
    if is_due {
        let task = Arc::clone(shared);
        spawn(shared, async move {
            if let Err(error) = renew(&task, None).await {
                tracing::warn!(%error, "the session is not renewed now");
            }
            task.lock().renewal.is_running = false;
        });
    }
}

/// Renews the session at once if its time has come and it is connected; a failure is left to the next try.
pub(crate) async fn renew_if_due(shared: &Arc<Shared>) {
    let is_live = matches!(&*shared.status.borrow(), Status::Live(_));
    if is_live
        && shared.lock().is_renewal_due()
        && let Err(error) = renew(shared, None).await
    {
        tracing::warn!(%error, "the session is not renewed now");
    }
}

/// Renews the session, which is live: for so long from now on, or for as long as its certificate was made for.
pub(crate) async fn renew(shared: &Arc<Shared>, ttl: Option<Duration>) -> Result<(), ClientError> {
    let mut life_max = None;
    for _ in 0..TRIES_MAX {
        let sessions = list(shared).await?;
        let signed = {
            let state = shared.lock();
            state.renewed((sessions.place, sessions.hash), ttl, life_max)?
        };
        match shared.call(request(&signed)).await? {
            Ok(reply) => {
                expect_reply!(reply, Done)?;
                shared.lock().keep_certificate(signed);
                return shared.keep().await;
            }
            Err(refused) if refused.code == ErrorCode::EventConflict => {}
            Err(refused) if life_max.is_none() && is_too_long(&refused) => life_max = refused.details.limit,
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(ClientError::Conflict)
}

/// Renews the session, which has expired, if this device holds the identity key; says how the connection ends.
pub(crate) async fn after_expiry(shared: &Arc<Shared>, wire: &Wire) -> LoginError {
    let expired = LoginError::Closed(CloseReason::Login(ErrorCode::SessionExpired));
    if !shared.config.renews {
        return expired;
    }
    if shared.lock().identity().is_err() {
        let needed = shared.lock().password_needed();
        shared.publish(needed.into_iter().collect());
        return expired;
    }
    match over(shared, wire, None).await {
        Ok(Ok(())) => {
            if let Err(error) = shared.keep().await {
                tracing::error!(%error, "the certificate cannot be kept");
            }
            // It is live on its next connection, which need not wait.
            shared.hurry.notify_one();
            LoginError::Lost
        }
        Ok(Err(ClientError::Refused { code: code @ ErrorCode::LimitReached, .. })) => {
            shared.lock().last_failure = Some(format!("the session cannot be renewed now: {code}"));
            LoginError::Lost
        }
        Ok(Err(ClientError::Verification(failure))) => {
            shared.alarm(None, None, failure);
            LoginError::Closed(CloseReason::Verification(failure))
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the session is not renewed");
            expired
        }
        Err(error) => error,
    }
}

/// Renews the session over a connection on which it has logged in as one that has expired.
pub(crate) async fn over(
    shared: &Shared,
    wire: &Wire,
    ttl: Option<Duration>,
) -> Result<Result<(), ClientError>, LoginError> {
    let Some(mut newest) = shared.lock().account.chain else { return Ok(Err(ClientError::NotReady)) };
    let mut life_max = None;
    for _ in 0..TRIES_MAX {
        let signed = match shared.lock().renewed(newest, ttl, life_max) {
            Ok(signed) => signed,
            Err(error) => return Ok(Err(error)),
        };
        let refused = match wire.request(request(&signed), shared.config.request_timeout).await {
            Ok(_) => {
                shared.lock().keep_certificate(signed);
                return Ok(Ok(()));
            }
            Err(CallError::Lost) => return Err(LoginError::Lost),
            Err(CallError::Refused(refused)) => refused,
        };
        match (refused.code, refused.details.place, refused.details.hash) {
            (ErrorCode::EventConflict, Some(place), Some(hash)) => {
                // A chain that is shorter or other than the one seen before is not followed.
                if let Err(failure) = shared.lock().account.advance_chain(place, hash) {
                    return Ok(Err(failure.into()));
                }
                newest = (place, hash);
            }
            (ErrorCode::BadCertificate, ..) if life_max.is_none() && is_too_long(&refused) => {
                life_max = refused.details.limit;
            }
            (ErrorCode::SessionRevoked, ..) => {
                return Err(LoginError::Closed(CloseReason::Login(ErrorCode::SessionRevoked)));
            }
            (ErrorCode::StorageUnavailable | ErrorCode::Internal | ErrorCode::RateLimited, ..) => {
                return Err(LoginError::Lost);
            }
            _ => return Ok(Err(refused.into())),
        }
    }
    Ok(Err(ClientError::Conflict))
}

fn request(signed: &SignedCertificate) -> Request {
    let (certificate, handover) = (signed.clone(), Blob::default());
    Request::ApproveSession(ApproveSession { certificate, handover, renewal: None, backups: Vec::new() })
}

fn is_too_long(refused: &Refused) -> bool {
    refused.code == ErrorCode::BadCertificate && refused.details.limit.is_some()
}

impl Renewal {
    /// Whether a try may begin; it is then under way.
    fn begins(&mut self, now: Instant) -> bool {
        let is_early = self.tried_at.is_some_and(|tried_at| now.saturating_duration_since(tried_at) < PAUSE);
        if self.is_running || is_early {
            return false;
        }
        (self.is_running, self.tried_at) = (true, Some(now));
        true
    }
}

impl State {
    /// Whether it is time to renew this session.
    pub(crate) fn is_renewal_due(&self) -> bool {
        self.account.certificate.as_ref().is_some_and(|signed| self.now() >= due_at(signed))
    }

    /// What tells the user that the password is needed; once for each end.
    fn password_needed(&mut self) -> Option<Event> {
        let expired_at = self.account.certificate.as_ref().map(|signed| signed.certificate.expired_at)?;
        let is_news = self.renewal.told_of.replace(expired_at) != Some(expired_at);
        is_news.then_some(Event::PasswordNeeded { expired_at })
    }

    /// This session's next certificate, after the newest entry of its user's chain. It lives as long as the one before
    /// was made for, unless told otherwise, and for `life_max` seconds at most.
    fn renewed(
        &self,
        (place, previous): (Place, Hash),
        ttl: Option<Duration>,
        life_max: Option<u64>,
    ) -> Result<SignedCertificate, ClientError> {
        let identity = self.identity()?;
        let me = &self.account.me;
        let now = self.now();
        let before = self.account.certificate.as_ref().map(|signed| &signed.certificate);
        let life = before.map_or(0, |before| before.expired_at.get().saturating_sub(before.created_at.get()));
        let expired_at = match (life_max, ttl) {
            (Some(seconds), _) => expiry(now, Duration::from_secs(seconds)),
            (None, Some(ttl)) => expiry(now, ttl),
            // It has its spread from its first certificate, and would become shorter with each.
            (None, None) => now.plus_micros(life),
        };
        let certificate = Certificate {
            user_id: me.user_id,
            place: place.next(),
            previous,
            session_id: me.session_id,
            public_key: me.secrets.public_key(),
            signing_public_key: me.secrets.signing_public_key(),
            created_at: now,
            expired_at,
        };
        let mut signed = SignedCertificate { certificate, signature: UNSIGNED };
        signed.signature = identity.sign(&signed.certificate.signed_bytes());
        Ok(signed)
    }

    /// Notes the certificate that this session lives by from now on.
    fn keep_certificate(&mut self, signed: SignedCertificate) {
        // A newer entry of another session may have been seen meanwhile; then that one stays.
        let _ = self.account.advance_chain(signed.certificate.place, signed.chain_hash());
        self.account.certificate = Some(signed);
        self.is_account_dirty = true;
    }

    /// Takes this session's own certificate from a list that was checked: an answer to a renewal may have been lost.
    pub(crate) fn adopt_certificate(&mut self, sessions: &Sessions) {
        let me = &self.account.me;
        let newest = sessions.sessions.iter().map(|session| &session.certificate).find(|signed| {
            signed.certificate.session_id == me.session_id
                && signed.certificate.public_key == me.secrets.public_key()
                && signed.certificate.signing_public_key == me.secrets.signing_public_key()
        });
        let known = self.account.certificate.as_ref().map(|signed| signed.certificate.place);
        if let Some(signed) = newest.filter(|signed| Some(signed.certificate.place) > known) {
            self.account.certificate = Some(signed.clone());
            self.is_account_dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::{ExchangeKey, Signature, SigningKey};
    use crate::protocol::ids::{SessionId, UserId};

    #[test]
    fn a_session_is_renewed_in_the_last_third_of_its_life_and_not_all_at_once() {
        let due = |created_at: u64, expired_at: u64| {
            let certificate = Certificate {
                user_id: UserId::generate(),
                place: Place::saturating(1),
                previous: Hash([0; 32]),
                session_id: SessionId::generate(),
                public_key: ExchangeKey([9; 32]),
                signing_public_key: SigningKey([9; 32]),
                created_at: Timestamp::saturating(created_at),
                expired_at: Timestamp::saturating(expired_at),
            };
            due_at(&SignedCertificate { certificate, signature: Signature([0; 64]) }).get()
        };
        let (mut early, mut late) = (0, 0);
        for _ in 0..1_000 {
            let at = due(1_000_000_000, 4_000_000_000);
            assert!((3_000_000_000..=3_750_000_000).contains(&at), "{at}");
            early += u32::from(at < 3_375_000_000);
            late += u32::from(at >= 3_375_000_000);
        }
        assert!(early > 350 && late > 350, "{early} {late}");
        assert_eq!(due(10, 0), 0, "nonsense is due at once and overflows nothing");
        assert_eq!(due(10, 12), 12);
        assert!(due(0, u64::MAX) <= Timestamp::saturating(u64::MAX).get());
    }
}
