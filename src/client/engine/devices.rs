//! The user's own sessions: listed, approved, revoked.

use std::time::Duration;

use super::call::expect_reply;
use super::state::{Shared, State};
use crate::client::error::{ClientError, UNSIGNED};
use crate::client::failure::VerificationFailure;
use crate::client::keyring::{Anchor, HandoverContent};
use crate::crypto::link_code::LinkCode;
use crate::crypto::{handover, random};
use crate::protocol::certificate::{Certificate, Revocation, Revoker, SignedCertificate, SignedRevocation};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ApproveSession, Nothing, PendingSession, Reply, Request, RevokeSession, Sessions};
use crate::protocol::ids::{SessionId, Timestamp};
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
            None => state.account.advance_chain(sessions.place, sessions.hash).err(),
        };
        state.is_account_dirty = true;
        failure
    };
    if let Some(failure) = failure {
        shared.alarm(None, None, failure);
        return Err(ClientError::Verification(failure));
    }
    Ok(sessions)
}

/// Approves the pending session that was made with a code.
pub(crate) async fn approve(shared: &Shared, code: &LinkCode, ttl: Duration) -> Result<SessionId, ClientError> {
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
        let (request, certificate) = shared.lock().approval(code, pending, &sessions, ttl)?;
        match shared.call(Request::ApproveSession(request)).await? {
            Ok(_) => {
                let mut state = shared.lock();
                // A newer entry of another session may have been seen meanwhile; then that one stays.
                let _ = state.account.advance_chain(certificate.certificate.place, certificate.chain_hash());
                state.is_account_dirty = true;
                return Ok(pending.session_id);
            }
            Err(refused) if refused.code == ErrorCode::EventConflict => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(ClientError::Conflict)
}

/// Ends a session of the user.
pub(crate) async fn revoke(shared: &Shared, session_id: SessionId) -> Result<(), ClientError> {
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
        match shared.call(Request::RevokeSession(RevokeSession { revocation: signed })).await? {
            Ok(_) => {
                let mut state = shared.lock();
                let _ = state.account.advance_chain(place, hash);
                state.is_account_dirty = true;
                return Ok(());
            }
            Err(refused) if refused.code == ErrorCode::EventConflict => {}
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
    fn approval(
        &mut self,
        code: &LinkCode,
        pending: &PendingSession,
        sessions: &Sessions,
        ttl: Duration,
    ) -> Result<(ApproveSession, SignedCertificate), ClientError> {
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
        Ok((ApproveSession { certificate: certificate.clone(), handover }, certificate))
    }
}

fn encode(content: &HandoverContent) -> Result<zeroize::Zeroizing<Vec<u8>>, ClientError> {
    let bytes = rmp_serde::to_vec_named(content).map_err(|error| ClientError::Profile(Box::new(error)))?;
    Ok(zeroize::Zeroizing::new(bytes))
}
