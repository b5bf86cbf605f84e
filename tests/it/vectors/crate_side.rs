//! What the crate makes of an object in wire form.

use sealcast::protocol::backup::SessionKeyBackup;
use sealcast::protocol::binary::{IdentityKey, Signature};
use sealcast::protocol::certificate::{SignedCertificate, SignedDeletion, SignedRevocation};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::envelope::Envelope;
use sealcast::protocol::friends::SignedShareSet;
use sealcast::protocol::generation_link::GenerationLink;
use sealcast::protocol::group_secret::{SignedSecret, SignedSecretDeletion};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::info::SignedInfo;
use sealcast::protocol::info_seal::InfoKeySeal;
use sealcast::protocol::keys::{InfoKeyWrap, SignedAnnouncement, SignedRefusal};
use sealcast::protocol::membership::SignedChange;
use sealcast::protocol::profile::{OwnKeyWrap, ProfileKeyWrap, SignedProfile};
use sealcast::protocol::signal::SignalEnvelope;
use sealcast::protocol::strongbox::{PublicUserKey, user_key_bytes};
use sealcast::protocol::verify::Verifier;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A signed object, as the crate reads it.
pub struct Object {
    /// What is signed.
    pub bytes: Vec<u8>,
    /// The hash by which the next one names it, if it is in a chain.
    pub chain_hash: Option<Vec<u8>>,
    /// In MessagePack.
    pub packed: Vec<u8>,
    /// In JSON again.
    pub json: Value,
    signature: Signature,
}

impl Object {
    /// Whether the signature is of this Ed25519 key.
    pub fn verifies(&self, key: &[u8]) -> bool {
        IdentityKey::try_from(key).unwrap().verifies(&self.bytes, &self.signature)
    }
}

/// Reads a type of the crate.
pub fn parse<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_str(&value.to_string()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// Writes MessagePack.
pub fn pack(value: &impl Serialize) -> Vec<u8> {
    Encoding::MessagePack.encode(value).unwrap().to_vec()
}

fn object(it: &impl Serialize, bytes: Vec<u8>, signature: Signature) -> Object {
    Object { bytes, chain_hash: None, packed: pack(it), json: serde_json::to_value(it).unwrap(), signature }
}

/// Reads a signed object by the name of its format.
pub fn signed(format: &str, chat_id: &Value, value: &Value) -> Object {
    let chat = || parse::<ChatId>(chat_id);
    match format {
        "certificate" => {
            let it: SignedCertificate = parse(value);
            let chain_hash = Some(it.chain_hash().as_ref().to_vec());
            Object { chain_hash, ..object(&it, it.certificate.signed_bytes(), it.signature) }
        }
        "revocation" => {
            let it: SignedRevocation = parse(value);
            let chain_hash = Some(it.chain_hash().as_ref().to_vec());
            Object { chain_hash, ..object(&it, it.revocation.signed_bytes(), it.signature) }
        }
        "account-deletion" => {
            let it: SignedDeletion = parse(value);
            let chain_hash = Some(it.chain_hash().as_ref().to_vec());
            Object { chain_hash, ..object(&it, it.deletion.signed_bytes(), it.signature) }
        }
        "membership" => {
            let it: SignedChange = parse(value);
            let chain_hash = Some(it.chain_hash(chat()).as_ref().to_vec());
            Object { chain_hash, ..object(&it, it.change.signed_bytes(chat()), it.signature) }
        }
        "message" => {
            let it: Envelope = parse(value);
            object(&it, it.signed_bytes(chat()), it.signature)
        }
        "announcement" => {
            let it: SignedAnnouncement = parse(value);
            object(&it, it.announcement.signed_bytes(chat()), it.signature)
        }
        "info-key-wrap" => {
            let it: InfoKeyWrap = parse(value);
            object(&it, it.signed_bytes(chat()), it.signature)
        }
        "info-key-seal" => {
            let it: InfoKeySeal = parse(value);
            object(&it, it.signed_bytes(chat()), it.signature)
        }
        "generation-link" => {
            let it: GenerationLink = parse(value);
            object(&it, it.signed_bytes(chat()), it.signature)
        }
        "session-key-backup" => {
            let it: SessionKeyBackup = parse(value);
            object(&it, it.signed_bytes(), it.signature)
        }
        "chat-info" => {
            let it: SignedInfo = parse(value);
            object(&it, it.info.signed_bytes(chat()), it.signature)
        }
        "profile-saved" => {
            let it: SignedProfile = parse(value);
            object(&it, it.profile.signed_bytes(), it.signature)
        }
        "profile-key-wrap" => {
            let it: ProfileKeyWrap = parse(value);
            object(&it, it.signed_bytes(), it.signature)
        }
        "own-key-wrap" => {
            let it: OwnKeyWrap = parse(value);
            object(&it, it.signed_bytes(), it.signature)
        }
        "copy-refusal" => {
            let it: SignedRefusal = parse(value);
            object(&it, it.refusal.signed_bytes(chat()), it.signature)
        }
        "signal" => {
            let it: SignalEnvelope = parse(value);
            object(&it, it.signed_bytes(chat()), it.signature)
        }
        "share-set" => {
            let it: SignedShareSet = parse(value);
            object(&it, it.set.signed_bytes(), it.signature)
        }
        "user-key" => {
            let it: PublicUserKey = parse(value);
            object(&it, user_key_bytes(it.user_id, it.key_id, &it.public_key), it.signature)
        }
        "group-secret" => {
            let it: SignedSecret = parse(value);
            let chain_hash = Some(it.hash(chat()).as_ref().to_vec());
            Object { chain_hash, ..object(&it, it.secret.signed_bytes(chat()), it.signature) }
        }
        "group-secret-deletion" => {
            let it: SignedSecretDeletion = parse(value);
            let chain_hash = Some(it.hash(chat()).as_ref().to_vec());
            Object { chain_hash, ..object(&it, it.deletion.signed_bytes(chat()), it.signature) }
        }
        other => panic!("{other}"),
    }
}
