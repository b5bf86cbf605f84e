//! What a password protects, by the bare protocol: signed for real, sealed to nobody.

use sealcast::protocol::binary::{Blob, CredentialId, ExchangeKey};
use sealcast::protocol::canonical::sha256;
use sealcast::protocol::ids::UserKeyId;
use sealcast::protocol::password::{ReplaceStrongbox, STRONGBOXES_PATH};
use sealcast::protocol::strongbox::{
    RECORD_BYTES, SEALED_IDENTITY_BYTES, SEALED_USER_KEY_BYTES, Stretching, Strongbox, StrongboxUpload, UserKey,
    user_key_bytes,
};

use super::broker::Broker;
use super::device::{Device, exchange_key, sign};
use super::generations::NO_SIGNATURE;

/// The base point of ristretto255 (RFC 9496 section 4), as a public key that nobody uses.
const BASE_POINT: [u8; 32] = [
    0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3, 0x0b,
    0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
];

/// As light as the protocol allows: nothing is opened here.
const LIGHT: Stretching = Stretching { memory_kib: 8 * 1024, passes: 1, lanes: 1 };

/// Of one user.
pub struct Halves {
    version: u64,
    /// The last one is active.
    keys: Vec<(UserKeyId, ExchangeKey)>,
    credential_id: CredentialId,
    record: Blob,
}

impl Halves {
    /// Of somebody without a password, who never logs in with one.
    pub fn none() -> Self {
        let mut record = BASE_POINT.to_vec();
        record.resize(RECORD_BYTES, 0);
        Self::under(CredentialId([7; 32]), Blob::from(record))
    }

    /// Of somebody whose password this is the record of.
    pub const fn under(credential_id: CredentialId, record: Blob) -> Self {
        Self { version: 0, keys: Vec::new(), credential_id, record }
    }

    /// The active key.
    pub fn active(&self) -> UserKeyId {
        self.keys.last().unwrap().0
    }

    /// Another version of it with a new user key.
    pub async fn renew(&mut self, broker: &Broker, device: &Device) {
        self.keys.push((UserKeyId::generate(), exchange_key().1));
        self.replace(broker, device).await;
    }

    /// Another version of it with a new user key whose private half somebody has.
    pub async fn renew_with(&mut self, broker: &Broker, device: &Device, key_id: UserKeyId, public_key: ExchangeKey) {
        self.keys.push((key_id, public_key));
        self.replace(broker, device).await;
    }

    /// Another version of it.
    pub async fn replace(&mut self, broker: &Broker, device: &Device) {
        let (status, text) = self.try_to_replace(broker, device).await;
        assert_eq!(status, 200, "{text}");
    }

    /// Asks for another version of it with a new user key; gives status and body of the answer.
    pub async fn try_to_renew(&mut self, broker: &Broker, device: &Device) -> (u16, String) {
        self.keys.push((UserKeyId::generate(), exchange_key().1));
        self.try_to_replace(broker, device).await
    }

    async fn try_to_replace(&mut self, broker: &Broker, device: &Device) -> (u16, String) {
        self.version += 1;
        let user_key = |(key_id, public_key): &(UserKeyId, ExchangeKey)| UserKey {
            key_id: *key_id,
            public_key: *public_key,
            signature: sign(&device.identity, &user_key_bytes(device.user_id, *key_id, public_key)),
            is_active: *key_id == self.active(),
            sealed: Blob::from(vec![1; SEALED_USER_KEY_BYTES]),
            recovery_sealed: None,
        };
        let mut strongbox = Strongbox {
            version: self.version,
            credential_id: self.credential_id,
            record_hash: sha256(self.record.as_ref()),
            stretching: LIGHT,
            sealed_identity: Blob::from(vec![1; SEALED_IDENTITY_BYTES]),
            recovery: None,
            user_keys: self.keys.iter().map(user_key).collect(),
            signature: NO_SIGNATURE,
        };
        strongbox.signature = sign(&device.identity, &strongbox.signed_bytes(device.user_id));
        let upload = StrongboxUpload { record: self.record.clone(), strongbox };
        let request = ReplaceStrongbox { user_id: device.user_id, upload };
        let body = serde_json::to_string(&request).unwrap();
        broker.request("POST", STRONGBOXES_PATH, &body).await
    }
}
