//! Shares of a recovery code: split, wrapped to friends, given to a request, put together again.
//!
//! Shamir's secret sharing over GF(256), byte by byte, by a library that no other file names. A share is 32 bytes; its
//! number, which the set says, is the place at which its polynomials were evaluated.
//! Invariants: a share is good if it opens and is the one that its signed set commits to; a code is good if it yields the
//! keys that its set names. Neither is believed for any other reason.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

use super::error::{OpenError, SealError};
use super::hpke;
use super::keypair::{IdentitySecret, SessionSecrets, UserSecret};
use super::recovery_code::RecoveryCode;
use super::secret::Secret;
use super::typed;
use crate::protocol::binary::{Blob, ExchangeKey, IdentityKey, Signature, WrappedKey};
use crate::protocol::canonical::sha256;
use crate::protocol::friends::{
    REQUEST_CODE_BYTES, ShareHolder, ShareSet, SignedShareSet, WrappedShare, release_aad, share_commitment,
    share_wrap_bytes,
};
use crate::protocol::ids::{RecoveryRequestId, SessionId, ShareSetId, Timestamp, UserId};
use crate::protocol::strongbox::PublicUserKey;

/// The `info` of HPKE for a share that is wrapped to a friend.
pub const SHARE_INFO: &[u8] = b"sealcast/hpke/share";

/// The `info` of HPKE for a share that is given to a request.
pub const RELEASE_INFO: &[u8] = b"sealcast/hpke/release";

/// Who makes a set of shares.
#[derive(Debug, Clone, Copy)]
pub struct Sharer<'a> {
    /// The user.
    pub user_id: UserId,
    /// The identity key, which signs the set.
    pub identity: &'a IdentitySecret,
    /// The session, which signs each wrap.
    pub session: (SessionId, &'a SessionSecrets),
}

/// Splits a recovery code among friends: `needed` of them recover it. The set is signed, and each share wrapped to its
/// friend's user key, which the caller has verified.
///
/// # Errors
/// [`SealError::UnsoundKey`]; [`SealError::Cipher`] for numbers that make no set.
pub fn share(
    code: &RecoveryCode,
    needed: u32,
    friends: &[PublicUserKey],
    by: Sharer<'_>,
    now: Timestamp,
) -> Result<(SignedShareSet, Vec<WrappedShare>), SealError> {
    let set_id = ShareSetId::generate();
    let keys = code.keys();
    let mut set = ShareSet {
        set_id,
        user_id: by.user_id,
        recovery_key: keys.public_key(),
        login_key: keys.signing_public_key(),
        needed,
        holders: Vec::with_capacity(friends.len()),
        created_at: now,
    };
    let shares = split(code, needed, friends.len())?;
    // The number of holders is bound to each wrap, so they are all there before the first is made.
    for ((number, share), friend) in (1..).zip(&shares).zip(friends) {
        set.holders.push(ShareHolder {
            user_id: friend.user_id,
            key_id: friend.key_id,
            commitment: share_commitment(set_id, number, share.expose()),
            wrap_hash: sha256(&[]),
        });
    }
    let mut wraps = Vec::with_capacity(friends.len());
    for ((number, share), friend) in (1..).zip(&shares).zip(friends) {
        let aad = set.share_aad(number, friend.user_id, friend.key_id);
        let sealed = hpke::seal(&friend.public_key, SHARE_INFO, &aad, share.expose())?;
        wraps.push(WrappedKey::try_from(sealed.as_slice()).map_err(|_| SealError::Cipher)?);
    }
    for (holder, wrap) in set.holders.iter_mut().zip(&wraps) {
        holder.wrap_hash = sha256(wrap.as_ref());
    }
    let (session_id, secrets) = by.session;
    let mut shares = Vec::with_capacity(wraps.len());
    for (number, key) in (1..).zip(wraps) {
        let bytes = share_wrap_bytes(&set, number, session_id, &key).ok_or(SealError::Cipher)?;
        shares.push(WrappedShare { key, signature: secrets.sign(&bytes) });
    }
    let signature: Signature = by.identity.sign(&set.signed_bytes());
    Ok((SignedShareSet { set, signature }, shares))
}

/// Opens the share of a friend, who has verified the set, and checks that it is the one that the set commits to.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open_share(set: &ShareSet, friend: UserId, key: &WrappedKey, secret: &UserSecret) -> Result<Secret, OpenError> {
    let number = set.number_of(friend).ok_or(OpenError)?;
    let holder = set.holder(number).ok_or(OpenError)?;
    if sha256(key.as_ref()) != holder.wrap_hash {
        return Err(OpenError);
    }
    let aad = set.share_aad(number, friend, holder.key_id);
    let opened = Zeroizing::new(hpke::open_with(secret.expose(), SHARE_INFO, &aad, key.as_ref())?);
    let share: [u8; 32] = opened.as_slice().try_into().map_err(|_| OpenError)?;
    let share = Secret::new(share);
    if is_committed(set, number, &share) { Ok(share) } else { Err(OpenError) }
}

/// What a friend gives to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The number of the share.
    pub number: u32,
    /// The share.
    pub share: Secret,
    /// The set that it is of.
    pub set: SignedShareSet,
    /// The identity key of the set's user, as the friend has known it.
    pub identity_key: IdentityKey,
}

impl Given {
    /// Seals it to a request.
    ///
    /// # Errors
    /// [`SealError::UnsoundKey`].
    pub fn seal(
        &self,
        request_id: RecoveryRequestId,
        public_key: &ExchangeKey,
        friend: UserId,
    ) -> Result<Blob, SealError> {
        let content = Zeroizing::new(rmp_serde::to_vec_named(self).map_err(|_| SealError::Cipher)?);
        let aad = release_aad(request_id, self.set.set.set_id, friend);
        Ok(Blob::from(hpke::seal(public_key, RELEASE_INFO, &aad, &content)?))
    }

    /// Whether it is that friend's share of a set that its identity key signed, and the one that was committed to.
    #[must_use]
    pub fn is_of(&self, friend: UserId) -> bool {
        self.set.verify(&self.identity_key).is_ok()
            && self.set.set.number_of(friend) == Some(self.number)
            && is_committed(&self.set.set, self.number, &self.share)
    }
}

/// The private half of a request's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestSecret(Secret);

impl RequestSecret {
    /// Makes a fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::generate())
    }

    /// The public half. Source: RFC 7748 section 6.1.
    #[must_use]
    pub fn public_key(&self) -> ExchangeKey {
        UserSecret::of(self.0.clone()).public_key()
    }

    /// Opens what a friend gave.
    ///
    /// # Errors
    /// [`OpenError`], whatever is wrong.
    pub fn open(
        &self,
        request_id: RecoveryRequestId,
        set_id: ShareSetId,
        friend: UserId,
        sealed: &Blob,
    ) -> Result<Given, OpenError> {
        let aad = release_aad(request_id, set_id, friend);
        let content = Zeroizing::new(hpke::open_with(&self.0, RELEASE_INFO, &aad, sealed.as_ref())?);
        let given: Given = rmp_serde::from_slice(&content).map_err(|_| OpenError)?;
        if given.set.set.set_id == set_id { Ok(given) } else { Err(OpenError) }
    }
}

/// The code of a request, which its maker tells the friends by another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestCode([u8; REQUEST_CODE_BYTES]);

impl RequestCode {
    /// The code of a request's bytes, as [`request_code`](crate::protocol::friends::request_code) gives them.
    #[must_use]
    pub const fn of(bytes: [u8; REQUEST_CODE_BYTES]) -> Self {
        Self(bytes)
    }

    /// The text for a person: six groups of four characters, as a link code has.
    #[must_use]
    pub fn to_text(&self) -> String {
        typed::write(&self.0)
    }
}

impl fmt::Display for RequestCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// Reads what a person typed, as with link codes.
impl FromStr for RequestCode {
    type Err = RequestCodeInvalid;

    fn from_str(text: &str) -> Result<Self, RequestCodeInvalid> {
        let mut code = [0; REQUEST_CODE_BYTES];
        typed::read(text, &mut code).ok_or(RequestCodeInvalid)?;
        Ok(Self(code))
    }
}

/// Not the code of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the code of a request has six groups of four letters and digits")]
pub struct RequestCodeInvalid;

/// Splits a code into shares, the first one's number being 1.
fn split(code: &RecoveryCode, needed: u32, count: usize) -> Result<Vec<Secret>, SealError> {
    let needed = usize::try_from(needed).map_err(|_| SealError::Cipher)?;
    let split =
        Gf256::split_bytes(needed, count, code.secret().expose(), rand::rng()).map_err(|_| SealError::Cipher)?;
    let mut shares = Vec::with_capacity(count);
    for (number, bytes) in (1..).zip(split) {
        let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(bytes);
        let (at, share) = bytes.split_first().ok_or(SealError::Cipher)?;
        // The library counts from 1 as sets do, and puts the number first.
        if u32::from(*at) != number {
            return Err(SealError::Cipher);
        }
        shares.push(Secret::new(share.try_into().map_err(|_| SealError::Cipher)?));
    }
    Ok(shares)
}

/// Puts shares of one set together, each with its number, as many as are needed.
///
/// # Errors
/// [`OpenError`] if they do not yield the keys that the set names.
pub fn combine(set: &ShareSet, shares: &[(u32, &Secret)]) -> Result<RecoveryCode, OpenError> {
    let mut all: Zeroizing<Vec<Vec<u8>>> = Zeroizing::new(Vec::with_capacity(shares.len()));
    for (number, share) in shares {
        let mut bytes = Vec::with_capacity(33);
        bytes.push(u8::try_from(*number).map_err(|_| OpenError)?);
        bytes.extend_from_slice(share.expose());
        all.push(bytes);
    }
    let secret = Zeroizing::new(Gf256::combine_bytes(all.as_slice()).map_err(|_| OpenError)?);
    let code = RecoveryCode::of(Secret::new(secret.as_slice().try_into().map_err(|_| OpenError)?));
    let keys = code.keys();
    let is_right = keys.public_key() == set.recovery_key && keys.signing_public_key() == set.login_key;
    if is_right { Ok(code) } else { Err(OpenError) }
}

fn is_committed(set: &ShareSet, number: u32, share: &Secret) -> bool {
    set.holder(number).is_some_and(|holder| {
        let commitment = share_commitment(set.set_id, number, share.expose());
        commitment.as_ref().ct_eq(holder.commitment.as_ref()).into()
    })
}

#[cfg(test)]
mod tests;
