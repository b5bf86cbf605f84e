//! Signs, wraps and encrypts as section 11 of the document says.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use ed25519_dalek::Signer;
use hkdf::Hkdf;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use serde_json::Value;
use sha2::Sha256;

use super::bytes::{array, text};
use super::formats;

/// The public half of an Ed25519 key.
pub fn public(secret: &[u8; 32]) -> [u8; 32] {
    ed25519_dalek::SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// The public half of an X25519 key.
pub fn exchange_public(secret: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*secret)).to_bytes()
}

/// A signature as a JSON value.
pub fn sign(secret: &[u8; 32], message: &[u8]) -> Value {
    text(&ed25519_dalek::SigningKey::from_bytes(secret).sign(message).to_bytes())
}

/// Whether a signature of the wire verifies under a key of the wire.
pub fn verifies(key: &Value, message: &[u8], signature: &Value) -> bool {
    let Ok(key) = ed25519_dalek::VerifyingKey::from_bytes(&array(key)) else { return false };
    key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&array(signature))).is_ok()
}

/// HKDF-SHA-256 without salt, 32 bytes.
pub fn derive(secret: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, secret).expand(info, &mut key).unwrap();
    key
}

/// AES-256-GCM with the nonce before the ciphertext.
pub fn encrypt(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let sealed = Aes256Gcm::new(&(*key).into()).encrypt(&Nonce::from(nonce), Payload { msg, aad }).unwrap();
    [&nonce[..], &sealed].concat()
}

/// Opens what [`encrypt`] made.
pub fn decrypt(key: &[u8; 32], aad: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let (nonce, msg) = data.split_first_chunk::<12>()?;
    Aes256Gcm::new(&(*key).into()).decrypt(&Nonce::from(*nonce), Payload { msg, aad }).ok()
}

/// HPKE to a public key: encapsulated key, ciphertext, tag.
pub fn wrap(recipient: &[u8; 32], info: &[u8], aad: &[u8], secret: &[u8]) -> Vec<u8> {
    wrap_with(&mut rand::rng(), recipient, info, aad, secret)
}

/// As [`wrap`], with chosen randomness: for known answers alone.
pub fn wrap_with(
    random: &mut impl rand::CryptoRng,
    recipient: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    secret: &[u8],
) -> Vec<u8> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(recipient).unwrap();
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        info,
        secret,
        aad,
        random,
    )
    .unwrap();
    [&encapsulated.to_bytes()[..], &ciphertext].concat()
}

/// Opens what [`wrap`] made.
pub fn unwrap(private: &[u8; 32], info: &[u8], aad: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let (encapsulated, ciphertext) = wrapped.split_first_chunk::<32>()?;
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(private).ok()?;
    let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapsulated,
        info,
        ciphertext,
        aad,
    )
    .ok()
}

/// What a copy of a sender key is wrapped with.
pub const SENDER_KEY_INFO: &[u8] = b"sealcast/hpke/sender-key";

/// What an info key is wrapped with.
pub const INFO_KEY_INFO: &[u8] = b"sealcast/hpke/info-key";

/// What a group key is wrapped with.
pub const GROUP_KEY_INFO: &[u8] = b"sealcast/hpke/group-key";

/// What a sender key is archived with.
pub const ARCHIVE_INFO: &[u8] = b"sealcast/hpke/archive";

/// The private half of the recovery key that follows from a group key.
pub fn recovery_secret(group_key: &[u8; 32]) -> [u8; 32] {
    derive(group_key, &formats::bound("kdf/recovery-key", &Value::Null))
}

/// Whether an X25519 key of the wire is below the prime and not of small order.
pub fn is_sound_exchange(key: &Value) -> bool {
    let key: [u8; 32] = array(key);
    let [low, middle @ .., high] = &key;
    let is_below = *high < 0x7f || *high == 0x7f && (*low < 0xed || middle.iter().any(|byte| *byte != 0xff));
    // Whatever is clamped is a multiple of eight, which takes a point of small order to nothing.
    is_below && x25519_dalek::x25519([8; 32], key) != [0; 32]
}

/// What an info key is sealed to a recovery key with.
pub const INFO_KEY_SEAL_INFO: &[u8] = b"sealcast/hpke/info-key-seal";

/// What a group key is sealed to the recovery key of the next generation with.
pub const GENERATION_LINK_INFO: &[u8] = b"sealcast/hpke/generation-link";

/// The `info` of HPKE for a backup of a session's key.
pub const SESSION_KEY_INFO: &[u8] = b"sealcast/hpke/session-key";
/// The `info` of HPKE for a wrapped info key of a user.
pub const PROFILE_KEY_INFO: &[u8] = b"sealcast/hpke/profile-key";

/// Encrypts the body of an envelope, whose other fields are filled in.
pub fn seal_message(sender_key: &[u8; 32], nonce: [u8; 12], chat_id: &Value, envelope: &Value, body: &[u8]) -> Value {
    let place = place(chat_id, envelope);
    let key = derive(sender_key, &formats::bound("kdf/message", &place));
    text(&encrypt(&key, nonce, &formats::bound("aad/message", &place), body))
}

/// Opens the body of an envelope.
pub fn open_message(sender_key: &[u8; 32], chat_id: &Value, envelope: &Value) -> Option<Vec<u8>> {
    let place = place(chat_id, envelope);
    let key = derive(sender_key, &formats::bound("kdf/message", &place));
    decrypt(&key, &formats::bound("aad/message", &place), &super::bytes::bytes(&envelope["data"]))
}

fn place(chat_id: &Value, envelope: &Value) -> Value {
    let mut place = envelope.clone();
    place["chat_id"] = chat_id.clone();
    place
}

/// HMAC-SHA-256.
pub fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}
