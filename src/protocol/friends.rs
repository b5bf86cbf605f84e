//! Recovery by friends: who holds a share of a recovery code, who asks for it back, and what is signed about both.
//!
//! Lives here: the set of shares, user keys as others see them, the HTTP bodies of a device that has nothing yet, and the
//! bytes that are signed, committed to or bound. The server can open nothing of it. Floor 0.
//! Invariants: a share's place in its set is its number, from 1 on. Whoever checks a set checks it by
//! [`SignedShareSet::verify`] alone.

use serde::{Deserialize, Serialize};

use super::binary::{Blob, ExchangeKey, Hash, IdentityKey, Signature, SigningKey, WrappedKey};
use super::canonical::{Canonical, label, sha256};
use super::ids::{RecoveryRequestId, SessionId, ShareSetId, Timestamp, UserId, UserKeyId};
use super::limits::{SHARES_MAX, SHARES_NEEDED_MIN};
use super::username::Username;
use super::verify::Verifier;

/// Where a device that has nothing asks a user's friends.
pub const RECOVERY_REQUESTS_PATH: &str = "/v1/recovery-requests";

/// Where it fetches what they gave.
pub const RECOVERY_RELEASES_PATH: &str = "/v1/recovery-requests/releases";

/// Bytes of a request's code: 120 bits, so that a server cannot find another key with the same code.
pub const REQUEST_CODE_BYTES: usize = 15;

/// A friend who holds a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareHolder {
    /// The friend.
    pub user_id: UserId,
    /// The friend's user key that the share is wrapped to.
    pub key_id: UserKeyId,
    /// [`share_commitment`]: a share that is not this one is found out, and whose it is.
    pub commitment: Hash,
    /// SHA-256 of the wrapped share: a set comes with its own shares or with none.
    pub wrap_hash: Hash,
}

/// Who holds shares of a recovery code, and how many of them recover it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareSet {
    /// The set.
    pub set_id: ShareSetId,
    /// Whose recovery code it is.
    pub user_id: UserId,
    /// The X25519 key of the recovery code: what is recovered must yield it.
    pub recovery_key: ExchangeKey,
    /// Its Ed25519 key.
    pub login_key: SigningKey,
    /// Shares that recover it.
    pub needed: u32,
    /// The friends; the first one's share is number 1.
    pub holders: Vec<ShareHolder>,
    /// By its maker's clock; nobody judges it.
    pub created_at: Timestamp,
}

impl ShareSet {
    /// The signed bytes: set, user, X25519 key, Ed25519 key, shares needed, the number of holders, and of each: user, user
    /// key, commitment, SHA-256 of the wrapped share; the time.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Canonical::new(label::SHARE_SET)
            .id(self.set_id.0)
            .id(self.user_id.0)
            .bytes(self.recovery_key.as_ref())
            .bytes(self.login_key.as_ref())
            .u64(u64::from(self.needed))
            .u64(self.holders.len() as u64);
        for holder in &self.holders {
            bytes = bytes
                .id(holder.user_id.0)
                .id(holder.key_id.0)
                .bytes(holder.commitment.as_ref())
                .bytes(holder.wrap_hash.as_ref());
        }
        bytes.u64(self.created_at.get()).finish()
    }

    /// The number of a friend's share, from 1 on.
    #[must_use]
    pub fn number_of(&self, user_id: UserId) -> Option<u32> {
        let place = self.holders.iter().position(|holder| holder.user_id == user_id)?;
        u32::try_from(place + 1).ok()
    }

    /// The friend who holds the share of a number.
    #[must_use]
    pub fn holder(&self, number: u32) -> Option<&ShareHolder> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        self.holders.get(place)
    }

    /// What is bound to the share of a number when it is wrapped: user, set, shares needed, number of holders, number of the
    /// share, friend, friend's user key.
    #[must_use]
    pub fn share_aad(&self, number: u32, holder: UserId, key_id: UserKeyId) -> Vec<u8> {
        Canonical::new(label::AAD_SHARE)
            .id(self.user_id.0)
            .id(self.set_id.0)
            .u64(u64::from(self.needed))
            .u64(self.holders.len() as u64)
            .u64(u64::from(number))
            .id(holder.0)
            .id(key_id.0)
            .finish()
    }

    fn check_form(&self) -> Result<(), ShareSetError> {
        if self.holders.len() > SHARES_MAX {
            return Err(ShareSetError::TooMany);
        }
        let is_enough = self.needed >= SHARES_NEEDED_MIN
            && usize::try_from(self.needed).is_ok_and(|needed| needed <= self.holders.len());
        let mut users: Vec<UserId> = self.holders.iter().map(|holder| holder.user_id).collect();
        users.push(self.user_id);
        users.sort_unstable();
        let are_distinct = users.windows(2).all(|pair| matches!(pair, [one, two] if one != two));
        let are_sound = self.recovery_key.is_sound() && self.login_key.is_sound();
        if is_enough && are_distinct && are_sound { Ok(()) } else { Err(ShareSetError::Form) }
    }
}

/// A set of shares with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedShareSet {
    /// The set.
    pub set: ShareSet,
    /// The identity key's, over [`ShareSet::signed_bytes`]: a session alone can neither make a set nor spoil one.
    pub signature: Signature,
}

impl SignedShareSet {
    /// Checks form and signature. Server, friends and who recovers judge by this alone.
    ///
    /// # Errors
    /// [`ShareSetError`].
    pub fn verify(&self, identity_key: &IdentityKey) -> Result<(), ShareSetError> {
        self.set.check_form()?;
        let is_signed = identity_key.verifies(&self.set.signed_bytes(), &self.signature);
        if is_signed { Ok(()) } else { Err(ShareSetError::Signature) }
    }
}

/// Why a set of shares is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareSetError {
    /// More friends than allowed.
    #[error("too many friends")]
    TooMany,
    /// Fewer than two shares recover, or more than there are, a friend twice, the user among them, or an unsound key.
    #[error("not of the form of a set of shares")]
    Form,
    /// The identity key did not sign it.
    #[error("the signature is not the identity key's")]
    Signature,
}

/// A share that is wrapped to a friend's user key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedShare {
    /// The share, wrapped.
    pub key: WrappedKey,
    /// Of the session that wrapped it, over [`share_wrap_bytes`].
    pub signature: Signature,
}

/// What a session signs of a share that it wrapped: user, set, number, friend, friend's user key, session, wrapped share.
/// `None` if the set has no such number.
#[must_use]
pub fn share_wrap_bytes(set: &ShareSet, number: u32, session_id: SessionId, key: &WrappedKey) -> Option<Vec<u8>> {
    let holder = set.holder(number)?;
    let bytes = Canonical::new(label::SHARE_WRAP)
        .id(set.user_id.0)
        .id(set.set_id.0)
        .u64(u64::from(number))
        .id(holder.user_id.0)
        .id(holder.key_id.0)
        .id(session_id.0)
        .bytes(key.as_ref());
    Some(bytes.finish())
}

/// The commitment to a share: set, number, the share's 32 bytes. These are uniformly random by themselves, so the
/// commitment gives nothing of them away, also to who holds one share less than is needed.
#[must_use]
pub fn share_commitment(set_id: ShareSetId, number: u32, share: &[u8; 32]) -> Hash {
    Canonical::new(label::SHARE_COMMITMENT).id(set_id.0).u64(u64::from(number)).bytes(share).hash()
}

/// The code by which a request is known again: the first bytes of the hash over request, username and public key.
#[must_use]
pub fn request_code(
    request_id: RecoveryRequestId,
    username: &Username,
    public_key: &ExchangeKey,
) -> [u8; REQUEST_CODE_BYTES] {
    let hash = Canonical::new(label::RECOVERY_REQUEST)
        .id(request_id.0)
        .text(username.as_str())
        .bytes(public_key.as_ref())
        .hash();
    let mut code = [0; REQUEST_CODE_BYTES];
    for (to, from) in code.iter_mut().zip(hash.0) {
        *to = from;
    }
    code
}

/// What is bound to a share that is sealed to a request: request, set, friend.
#[must_use]
pub fn release_aad(request_id: RecoveryRequestId, set_id: ShareSetId, friend: UserId) -> Vec<u8> {
    Canonical::new(label::AAD_RELEASE).id(request_id.0).id(set_id.0).id(friend.0).finish()
}

/// What a friend's session signs when it gives a share: request, set, friend, session, SHA-256 of what is sealed.
#[must_use]
pub fn release_bytes(
    request_id: RecoveryRequestId,
    set_id: ShareSetId,
    friend: UserId,
    session_id: SessionId,
    sealed: &Blob,
) -> Vec<u8> {
    Canonical::new(label::SHARE_RELEASE)
        .id(request_id.0)
        .id(set_id.0)
        .id(friend.0)
        .id(session_id.0)
        .bytes(sha256(sealed.as_ref()).as_ref())
        .finish()
}

/// What the identity key signs to cancel a request: user, request.
#[must_use]
pub fn cancel_bytes(user_id: UserId, request_id: RecoveryRequestId) -> Vec<u8> {
    Canonical::new(label::RECOVERY_CANCEL).id(user_id.0).id(request_id.0).finish()
}

/// A device that has nothing asks a user's friends. The same request again is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskFriends {
    /// Made by the device.
    pub request_id: RecoveryRequestId,
    /// The name, in any case.
    pub username: String,
    /// To what shares are to be sealed (X25519).
    pub public_key: ExchangeKey,
}

/// The answer to it, the same for every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FriendsAsked {
    /// Seconds for which the request is kept.
    pub kept_s: u64,
}

/// Asks what friends gave to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchReleases {
    /// The request.
    pub request_id: RecoveryRequestId,
}

/// What friends gave to a request so far; nothing of a request that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Releases {
    /// Whether one of the account's sessions has cancelled it: nothing comes any more.
    pub is_cancelled: bool,
    /// In the order of their users' ids.
    pub releases: Vec<Release>,
}

/// What one friend gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The friend, as the server says.
    pub user_id: UserId,
    /// The friend's name, as the server says.
    pub username: Username,
    /// The set that the share is of.
    pub set_id: ShareSetId,
    /// The share with its set, sealed to the request's key.
    pub sealed: Blob,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(id: u128) -> ShareHolder {
        ShareHolder {
            user_id: UserId(uuid::Uuid::from_u128(id)),
            key_id: UserKeyId(uuid::Uuid::from_u128(id)),
            commitment: Hash([1; 32]),
            wrap_hash: Hash([2; 32]),
        }
    }

    fn set(needed: u32, holders: &[u128]) -> ShareSet {
        let mut sound = [0; 32];
        sound[0] = 9;
        ShareSet {
            set_id: ShareSetId(uuid::Uuid::from_u128(7)),
            user_id: UserId(uuid::Uuid::from_u128(99)),
            recovery_key: ExchangeKey(sound),
            // The base point of edwards25519.
            login_key: SigningKey(std::array::from_fn(|at| if at == 0 { 0x58 } else { 0x66 })),
            needed,
            holders: holders.iter().map(|id| holder(*id)).collect(),
            created_at: Timestamp::saturating(5),
        }
    }

    #[test]
    fn a_set_has_two_to_sixteen_different_friends_and_needs_two_of_them_at_least() {
        let all: Vec<u128> = (1..=16).collect();
        for (needed, holders) in [(2, &all[..2]), (2, &all[..]), (16, &all[..])] {
            assert_eq!(set(needed, holders).check_form(), Ok(()), "{needed} of {}", holders.len());
        }
        for (needed, holders) in [
            (0, &all[..2]),
            (1, &all[..2]),
            (3, &all[..2]),
            (u32::MAX, &all[..]),
            (2, &[1, 1][..]),
            (2, &[1, 2, 1][..]),
            (2, &[1, 99][..]),
            (2, &all[..0]),
        ] {
            assert_eq!(set(needed, holders).check_form(), Err(ShareSetError::Form), "{needed} {holders:?}");
        }
        let many: Vec<u128> = (1..=17).collect();
        assert_eq!(set(2, &many).check_form(), Err(ShareSetError::TooMany));
        let unsound = ShareSet { recovery_key: ExchangeKey([0; 32]), ..set(2, &all[..2]) };
        assert_eq!(unsound.check_form(), Err(ShareSetError::Form));
    }

    #[test]
    fn every_field_of_a_set_is_signed() {
        let whole = set(2, &[1, 2, 3]);
        let changes: [fn(&mut ShareSet); 10] = [
            |set| set.set_id = ShareSetId(uuid::Uuid::from_u128(8)),
            |set| set.user_id = UserId(uuid::Uuid::from_u128(8)),
            |set| set.recovery_key.0[0] ^= 1,
            |set| set.login_key.0[0] ^= 1,
            |set| set.needed += 1,
            |set| set.holders.truncate(2),
            |set| set.holders.swap(0, 1),
            |set| set.holders[1].commitment.0[0] ^= 1,
            |set| set.holders[1].wrap_hash.0[0] ^= 1,
            |set| set.created_at = Timestamp::saturating(6),
        ];
        for change in changes {
            let mut other = whole.clone();
            change(&mut other);
            assert_ne!(other.signed_bytes(), whole.signed_bytes());
        }
    }

    #[test]
    fn a_share_has_the_number_of_its_friend() {
        let set = set(2, &[5, 3]);
        assert_eq!(set.number_of(UserId(uuid::Uuid::from_u128(3))), Some(2));
        assert_eq!(set.number_of(UserId(uuid::Uuid::from_u128(4))), None);
        assert_eq!(set.holder(1).unwrap().user_id, UserId(uuid::Uuid::from_u128(5)));
        assert!(set.holder(0).is_none() && set.holder(3).is_none() && set.holder(u32::MAX).is_none());
    }

    #[test]
    fn another_key_name_or_request_has_another_code() {
        let id = |value| RecoveryRequestId(uuid::Uuid::from_u128(value));
        let name = |text| Username::parse(text).unwrap();
        let code = request_code(id(1), &name("ada"), &ExchangeKey([3; 32]));
        assert_ne!(code, request_code(id(2), &name("ada"), &ExchangeKey([3; 32])));
        assert_ne!(code, request_code(id(1), &name("adb"), &ExchangeKey([3; 32])));
        assert_ne!(code, request_code(id(1), &name("ada"), &ExchangeKey([4; 32])));
    }
}
