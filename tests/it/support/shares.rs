//! Shares with friends by the bare protocol; what is wrapped and sealed is bytes that only look so.

use sealcast::protocol::binary::{Blob, ExchangeKey, Hash, SigningKey, WrappedKey};
use sealcast::protocol::canonical::sha256;
use sealcast::protocol::frame::{CancelRecoveryRequest, ReleaseShare, SetShares};
use sealcast::protocol::friends::{
    ShareHolder, ShareSet, SignedShareSet, WrappedShare, cancel_bytes, release_bytes, share_wrap_bytes,
};
use sealcast::protocol::ids::{RecoveryRequestId, ShareSetId, UserId, UserKeyId};

use super::device::{Device, now, sign};

impl Device {
    /// A set of shares, two of which would recover, of a recovery code that is nobody's.
    pub fn shares_with(&self, friends: &[UserId]) -> SetShares {
        let keys = &self.certificate.certificate;
        let friends: Vec<_> = friends.iter().map(|friend| (*friend, UserKeyId::generate())).collect();
        self.shares_of((keys.public_key, keys.signing_public_key), &friends)
    }

    /// The same of a recovery code with these public halves, for friends with these user keys.
    pub fn shares_of(
        &self,
        (recovery_key, login_key): (ExchangeKey, SigningKey),
        friends: &[(UserId, UserKeyId)],
    ) -> SetShares {
        let keys: Vec<WrappedKey> = (1..).take(friends.len()).map(|number| WrappedKey([number; 80])).collect();
        let holder = |((user_id, key_id), key): (&(UserId, UserKeyId), &WrappedKey)| ShareHolder {
            user_id: *user_id,
            key_id: *key_id,
            commitment: Hash([7; 32]),
            wrap_hash: sha256(key.as_ref()),
        };
        let set = ShareSet {
            set_id: ShareSetId::generate(),
            user_id: self.user_id,
            recovery_key,
            login_key,
            needed: 2,
            holders: friends.iter().zip(&keys).map(holder).collect(),
            created_at: now(),
        };
        self.signed_shares(set, &keys)
    }

    /// Signs a set and its wraps.
    pub fn signed_shares(&self, set: ShareSet, keys: &[WrappedKey]) -> SetShares {
        let shares = (1..).zip(keys).map(|(number, key)| {
            let bytes = share_wrap_bytes(&set, number, self.session_id, key).unwrap_or_default();
            WrappedShare { key: *key, signature: sign(&self.signing, &bytes) }
        });
        let shares = shares.collect();
        let signature = sign(&self.identity, &set.signed_bytes());
        SetShares { set: SignedShareSet { set, signature }, shares }
    }

    /// Something given to a request.
    pub fn released(&self, request_id: RecoveryRequestId, set_id: ShareSetId) -> ReleaseShare {
        let sealed = Blob::from(vec![7; 200]);
        let bytes = release_bytes(request_id, set_id, self.user_id, self.session_id, &sealed);
        ReleaseShare { request_id, set_id, sealed, signature: sign(&self.signing, &bytes) }
    }

    /// A cancellation that the identity key signs.
    pub fn cancellation(&self, request_id: RecoveryRequestId) -> CancelRecoveryRequest {
        let signature = sign(&self.identity, &cancel_bytes(self.user_id, request_id));
        CancelRecoveryRequest { request_id, signature: Some(signature) }
    }
}
