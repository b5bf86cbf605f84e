//! What users say of themselves: taken from what the server shows, as far as their own sessions signed it.
//!
//! Pure. Invariants: I1 a profile and a wrap of its key are taken from sessions of its user alone, by the user's chain; a
//! wrap never from one that was revoked, and a profile from such a one only if it was taken before that. I2 what was
//! taken as revision n is never replaced by an older one, nor by another revision n.

use serde::{Deserialize, Serialize};

use super::failure::VerificationFailure;
use super::keyring::Me;
use crate::crypto::Secret;
use crate::crypto::user_profile::{self, PlainProfile};
use crate::protocol::binary::Signature;
use crate::protocol::frame::ShownProfile;
use crate::protocol::ids::{InfoKeyId, Revision, SessionId, UserId};
use crate::protocol::profile::{OwnKeyWrap, SignedProfile};
use crate::protocol::user_chain::UserChain;
use crate::protocol::verify::Verifier;

/// What is kept of a user's profile: its newest revision, and the key of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    pub(crate) revision: Revision,
    /// Of that revision.
    pub(crate) signature: Signature,
    /// The key, once it has come.
    pub(crate) key: Option<(InfoKeyId, Secret)>,
}

/// One's own info key as a login by password opened it; whoever wrapped it is checked when it is used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OwnKey {
    pub(crate) wrap: OwnKeyWrap,
    pub(crate) secret: Secret,
}

/// What a profile is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) me: &'a Me,
    /// The chain of the user whose profile it is, read after the profile was shown.
    pub(crate) chain: &'a UserChain,
    pub(crate) noted: Option<&'a Noted>,
    /// Of one's own.
    pub(crate) own_key: Option<&'a OwnKey>,
}

/// What comes of a profile that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judged {
    /// There is none, or none for this session.
    Nothing,
    /// Its key has not come.
    Waits {
        noted: Noted,
        /// The wrap that is there is of a session that was revoked since: another one is to be asked for.
        must_ask: bool,
    },
    /// It is open.
    Open { noted: Noted, plain: PlainProfile },
}

/// A key that is looked for.
enum Found {
    Key(Secret),
    Nothing,
    Departed,
}

/// Judges what the server shows of a user's profile.
///
/// # Errors
/// It does not verify; nothing of it is taken.
pub(crate) fn judge(user_id: UserId, shown: &ShownProfile, known: Known<'_>) -> Result<Judged, VerificationFailure> {
    let Some(signed) = &shown.profile else { return Ok(Judged::Nothing) };
    check(user_id, signed, known)?;
    let profile = &signed.profile;
    let noted = |key: Option<Secret>| Noted {
        revision: profile.revision,
        signature: signed.signature,
        key: key.map(|secret| (profile.key_id, secret)),
    };
    let secret = match find_key(user_id, shown, profile.key_id, known)? {
        Found::Key(secret) => secret,
        Found::Nothing => return Ok(Judged::Waits { noted: noted(None), must_ask: false }),
        Found::Departed => return Ok(Judged::Waits { noted: noted(None), must_ask: true }),
    };
    let plain = user_profile::open(&secret, profile).map_err(|_| VerificationFailure::Profile(user_id))?;
    Ok(Judged::Open { noted: noted(Some(secret)), plain })
}

/// Whether a session of the user signed this, as the one content of its revision, and none before has been newer.
fn check(user_id: UserId, signed: &SignedProfile, known: Known<'_>) -> Result<(), VerificationFailure> {
    let failure = VerificationFailure::Profile(user_id);
    let profile = &signed.profile;
    let session = known.chain.sessions().get(&profile.session_id).ok_or(failure)?;
    let is_theirs = profile.user_id == user_id && known.chain.user_id() == user_id;
    if !is_theirs || !signed.verifies(&session.signing_public_key) {
        return Err(failure);
    }
    if let Some(noted) = known.noted {
        if profile.revision < noted.revision {
            return Err(VerificationFailure::ProfileRollback(user_id));
        }
        if profile.revision == noted.revision {
            return if signed.signature == noted.signature { Ok(()) } else { Err(failure) };
        }
    }
    // Whoever has a lost device could have signed it after its end.
    if known.chain.is_revoked(profile.session_id) {
        return Err(VerificationFailure::ProfileOfRevoked(profile.session_id));
    }
    Ok(())
}

/// The key of a profile: the one that is known, else what was wrapped to this session, else what its login opened.
fn find_key(
    user_id: UserId,
    shown: &ShownProfile,
    key_id: InfoKeyId,
    known: Known<'_>,
) -> Result<Found, VerificationFailure> {
    if let Some((known_id, secret)) = known.noted.and_then(|noted| noted.key.as_ref())
        && *known_id == key_id
    {
        return Ok(Found::Key(secret.clone()));
    }
    if let Some(wrap) = shown.key.as_ref().filter(|wrap| wrap.key_id == key_id) {
        let maker = wrap.wrapped_by_session_id;
        if known.chain.is_revoked(maker) {
            return Ok(Found::Departed);
        }
        let is_for_this = wrap.user_id == user_id && wrap.session_id == known.me.session_id;
        let is_signed = is_for_this && signed_by(known.chain, maker, &wrap.signed_bytes(), &wrap.signature);
        let opened = user_profile::open_key(wrap, &known.me.secrets).ok().filter(|_| is_signed);
        return opened.map(Found::Key).ok_or(VerificationFailure::ProfileKey(maker));
    }
    if let Some(OwnKey { wrap, secret }) =
        known.own_key.filter(|own| user_id == known.me.user_id && own.wrap.key_id == key_id)
        && wrap.user_id == user_id
        && !known.chain.is_revoked(wrap.wrapped_by_session_id)
    {
        let maker = wrap.wrapped_by_session_id;
        let is_signed = signed_by(known.chain, maker, &wrap.signed_bytes(), &wrap.signature);
        return if is_signed { Ok(Found::Key(secret.clone())) } else { Err(VerificationFailure::ProfileKey(maker)) };
    }
    Ok(Found::Nothing)
}

fn signed_by(chain: &UserChain, session_id: SessionId, bytes: &[u8], signature: &Signature) -> bool {
    chain.sessions().get(&session_id).is_some_and(|session| session.signing_public_key.verifies(bytes, signature))
}
