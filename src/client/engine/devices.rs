//! The user's own sessions: listed, approved, revoked.

use std::sync::Arc;
use std::time::Duration;

use super::backups;
use super::call::expect_reply;
use super::copies::{self, Errand};
use super::state::{Shared, State};
use crate::client::error::{ClientError, UNSIGNED};
use crate::client::failure::VerificationFailure;
use crate::client::keyring::{Anchor, HandoverContent};
use crate::crypto::link_code::LinkCode;
use crate::crypto::{handover, random};
use crate::protocol::binary::ExchangeKey;
use crate::protocol::certificate::{Certificate, Revocation, Revoker, SignedCertificate, SignedRevocation};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ApproveSession, Nothing, PendingSession, Reply, Request, RevokeSession, Sessions};
use crate::protocol::group_key::{SignedWithdrawal, Withdrawal};
use crate::protocol::ids::{SessionId, Timestamp, UserKeyId};
use crate::protocol::limits::HANDOVER_BYTES_MAX;
use crate::protocol::verify::Verifier;

/// How often an entry of the user's chain is made again because another session was faster.
const TRIES_MAX: u32 = 8;

/// Bytes kept free in a hand-over for what sealing adds.
const HANDOVER_SPARE_BYTES: usize = 256;

/// Lists the user's sessions; certificates and the head of the user's chain are checked.
pub(crate) async fn list(shared: &Shared) -> Result<Sessions, ClientError> {
    let sessions = expect_reply!(shared.call(Request::ListSessions(Nothing {})).await??, Sessions)?;
    let failure = {
        let mut state = shared.lock();
        let me = state.account.me.clone();
        let bad = sessions
            .sessions
            .iter()
            .map(|session| &session.certificate)
            .find(|signed| signed.certificate.user_id != me.user_id || signed.verify(&me.identity_key).is_err());
        let failure = match bad {
            Some(signed) => Some(VerificationFailure::Certificate(signed.certificate.session_id)),
            None => {
                for session in &sessions.sessions {
                    state.account.take_own_certificate(&session.certificate);
                }
                state.account.advance_chain(sessions.place, sessions.hash).err()
            }
        };
        state.is_account_dirty = true;
        if failure.is_none() {
            state.adopt_certificate(&sessions);
        }
        failure
    };
    if let Some(failure) = failure {
        shared.alarm(None, None, failure);
        return Err(ClientError::Verification(failure));
    }
    Ok(sessions)
}

/// Approves the pending session that was made with a code.
///
/// This session's X25519 key goes to the new one, and another takes its place in the same request: so the new session
/// opens all that was made for this one, and whoever steals it nothing that is made later.
pub(crate) async fn approve(shared: &Arc<Shared>, code: &LinkCode, ttl: Duration) -> Result<SessionId, ClientError> {
    for _ in 0..TRIES_MAX {
        let sessions = list(shared).await?;
        let user_id = shared.lock().account.me.user_id;
        let pending = sessions.pending.iter().find(|pending| {
            let (exchange, signing) = (&pending.public_key, &pending.signing_public_key);
            code.proves(user_id, pending.session_id, exchange, signing, &pending.proof)
        });
        let pending = pending.ok_or(ClientError::NoSuchPending)?;
        if !pending.public_key.is_sound() || !pending.signing_public_key.is_sound() {
            return Err(ClientError::NoSuchPending);
        }
        let next_key = {
            let mut state = shared.lock();
            state.is_account_dirty = true;
            state.account.me.next_key()
        };
        // Before the server is told of it: from then on copies are made for it.
        shared.keep().await?;
        let request = {
            let mut state = shared.lock();
            // It gets with its approval what it is to be handed.
            state.backed_up.insert(pending.session_id);
            state.approval(code, pending, &sessions, (next_key, ttl))?
        };
        let newest = request.renewal.clone().unwrap_or_else(|| request.certificate.clone());
        match shared.call(Request::ApproveSession(request)).await? {
            Ok(_) => {
                let mut state = shared.lock();
                // A newer entry of another session may have been seen meanwhile; then that one stays.
                let _ = state.account.advance_chain(newest.certificate.place, newest.chain_hash());
                state.account.take_own_certificate(&newest);
                state.is_account_dirty = true;
                return Ok(pending.session_id);
            }
            Err(refused) if refused.code == ErrorCode::EventConflict => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(ClientError::Conflict)
}

/// Ends a session of the user. With one that had been given the sealed halves goes the user key: the next login makes a
/// new one.
pub(crate) async fn revoke(shared: &Arc<Shared>, session_id: SessionId) -> Result<(), ClientError> {
    let mut user_key = None;
    for _ in 0..TRIES_MAX {
        let sessions = list(shared).await?;
        let signed = {
            let state = shared.lock();
            let me = &state.account.me;
            let revocation = Revocation {
                user_id: me.user_id,
                place: sessions.place.next(),
                previous: sessions.hash,
                session_id,
                revoker: Revoker::Session(me.session_id),
                created_at: state.now(),
            };
            let signature = me.secrets.sign(&revocation.signed_bytes());
            SignedRevocation { revocation, signature }
        };
        let (place, hash) = (signed.revocation.place, signed.chain_hash());
        let withdrawal = user_key.map(|key_id| shared.lock().withdrawal(key_id));
        match shared.call(Request::RevokeSession(RevokeSession { revocation: signed, withdrawal })).await? {
            Ok(_) => {
                let mut state = shared.lock();
                let _ = state.account.advance_chain(place, hash);
                state.is_account_dirty = true;
                // What the session said of its user is said again by one that is live.
                if state.account.profiles.contains_key(&state.account.me.user_id) {
                    state.errands.push(Errand::KeepProfile);
                }
                drop(state);
                copies::start(shared);
                return Ok(());
            }
            Err(refused) if refused.code == ErrorCode::EventConflict => {}
            Err(refused) if refused.code == ErrorCode::WithdrawalMissing && refused.details.user_key_id != user_key => {
                user_key = refused.details.user_key_id;
            }
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(ClientError::Conflict)
}

/// When a session made now with this lifetime expires: up to a tenth earlier, so that the sessions of many who
/// began together do not expire together.
pub(crate) fn expiry(now: Timestamp, ttl: Duration) -> Timestamp {
    let micros = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
    now.plus_micros(micros.saturating_sub(random::up_to(micros / 10)))
}

impl State {
    /// What ends a user key of this user, signed by this session.
    fn withdrawal(&self, key_id: UserKeyId) -> SignedWithdrawal {
        let me = &self.account.me;
        let revoker = Revoker::Session(me.session_id);
        let withdrawal = Withdrawal { user_id: me.user_id, key_id, revoker, created_at: self.now() };
        let signature = me.secrets.sign(&withdrawal.signed_bytes());
        SignedWithdrawal { withdrawal, signature }
    }

    fn approval(
        &mut self,
        code: &LinkCode,
        pending: &PendingSession,
        sessions: &Sessions,
        (next_key, ttl): (ExchangeKey, Duration),
    ) -> Result<ApproveSession, ClientError> {
        let now = self.now();
        let anchors: Vec<Anchor> = self.chats.values_mut().map(crate::client::chat::state::Chat::anchor).collect();
        let account = &self.account;
        let identity = self.identity()?;
        let certificate = Certificate {
            user_id: account.me.user_id,
            place: sessions.place.next(),
            previous: sessions.hash,
            session_id: pending.session_id,
            public_key: pending.public_key,
            signing_public_key: pending.signing_public_key,
            created_at: now,
            expired_at: expiry(now, ttl),
        };
        let mut certificate = SignedCertificate { certificate, signature: UNSIGNED };
        certificate.signature = identity.sign(&certificate.certificate.signed_bytes());
        let mut content = HandoverContent {
            server_name: account.server_name.clone(),
            identity: account.identity.clone(),
            identity_key: Some(account.me.identity_key),
            place: certificate.certificate.place,
            hash: certificate.chain_hash(),
            anchors,
            pins: account.pins.clone(),
            self_key: account.self_key.clone(),
            chain_heads: account.chain_heads.clone(),
        };
        let limit = HANDOVER_BYTES_MAX - HANDOVER_SPARE_BYTES;
        let mut bytes = encode(&content)?;
        if bytes.len() > limit {
            // The new session then pins anew, on first use.
            content.pins.clear();
            content.chain_heads.clear();
            bytes = encode(&content)?;
        }
        if bytes.len() > limit {
            // Chats that are not handed over are joined anew by the new session, from its user's join on.
            while bytes.len() > limit && !content.anchors.is_empty() {
                content.anchors.truncate(content.anchors.len() * 9 / 10);
                bytes = encode(&content)?;
            }
        }
        let recipient = (pending.session_id, &pending.public_key);
        let handover = handover::seal(code, account.me.user_id, account.me.session_id, recipient, &bytes)?;
        let own = sessions.sessions.iter().map(|session| &session.certificate.certificate);
        let own = own.filter(|own| own.session_id == account.me.session_id).max_by_key(|own| own.place);
        let renewal = own.map(|own| {
            let renewed = Certificate {
                place: certificate.certificate.place.next(),
                previous: certificate.chain_hash(),
                public_key: next_key,
                created_at: now,
                ..own.clone()
            };
            let mut renewed = SignedCertificate { certificate: renewed, signature: UNSIGNED };
            renewed.signature = identity.sign(&renewed.certificate.signed_bytes());
            renewed
        });
        let backups = backups::wrap(&account.me, recipient, renewal.is_some())?;
        Ok(ApproveSession { certificate, handover, renewal, backups })
    }
}

fn encode(content: &HandoverContent) -> Result<zeroize::Zeroizing<Vec<u8>>, ClientError> {
    let bytes = rmp_serde::to_vec_named(content).map_err(|error| ClientError::Profile(Box::new(error)))?;
    Ok(zeroize::Zeroizing::new(bytes))
}
