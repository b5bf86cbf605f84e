//! Certificates, revocations and deletions: what is signed can be read back, and nothing but what was signed verifies.

use std::sync::OnceLock;

use sealcast::crypto::{IdentitySecret, SealError, SessionSecrets, hpke};
use sealcast::protocol::binary::{ExchangeKey, Hash, Signature, SigningKey};
use sealcast::protocol::canonical::label;
use sealcast::protocol::certificate::{
    Certificate, CertificateError, Deletion, Revocation, Revoker, SignedCertificate, SignedDeletion, SignedRevocation,
    UserEvent,
};
use sealcast::protocol::ids::{Place, SessionId, Timestamp, UserId};
use sealcast::protocol::verify::Verifier;

use crate::bytes_of::Input;
use crate::canonical_reader::Fields;

/// The bytes of a signature that [`tamper`] may touch, in front of those of the certificate.
const SIGNATURE: usize = Signature::LENGTH;

/// Checks any bytes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(3) {
        0 => certificate(&mut input),
        1 => revocation(&mut input),
        _ => deletion(&mut input),
    }
}

fn certificate(input: &mut Input<'_>) {
    let flags = input.byte();
    let touched = usize::from(input.byte());
    let bit = input.below(8);
    let certificate = Certificate {
        user_id: UserId(input.id()),
        place: Place::saturating(input.u64()),
        previous: Hash(input.array()),
        session_id: SessionId(input.id()),
        created_at: Timestamp::saturating(input.u64()),
        expired_at: Timestamp::saturating(input.u64()),
        // Half of the inputs bring lawful keys, which are hard to come upon.
        public_key: if flags & 1 == 0 { session().public_key() } else { ExchangeKey(input.array()) },
        signing_public_key: if flags & 2 == 0 { session().signing_public_key() } else { SigningKey(input.array()) },
    };
    let bytes = certificate.signed_bytes();
    let mut fields = Fields::begin(&bytes, label::CERTIFICATE);
    assert_eq!(fields.id(), certificate.user_id.0);
    assert_eq!(fields.u64(), certificate.place.get());
    assert_eq!(Hash(fields.array()), certificate.previous);
    assert_eq!(fields.id(), certificate.session_id.0);
    assert_eq!(ExchangeKey(fields.array()), certificate.public_key);
    assert_eq!(SigningKey(fields.array()), certificate.signing_public_key);
    assert_eq!(fields.u64(), certificate.created_at.get());
    assert_eq!(fields.u64(), certificate.expired_at.get());
    fields.end();

    keys_are_judged_alike(&certificate);
    let is_sound = certificate.public_key.is_sound() && certificate.signing_public_key.is_sound();
    let expected = if !is_sound {
        Err(CertificateError::UnsoundKey)
    } else if certificate.expired_at.get() <= certificate.created_at.get() {
        Err(CertificateError::NoLifetime)
    } else {
        Ok(())
    };
    let signed = SignedCertificate { signature: identity().sign(&bytes), certificate };
    assert_eq!(signed.verify(&identity().public_key()), expected);
    comes_back(&UserEvent::Certificate(signed.clone()));
    if expected.is_ok() {
        let other = tamper(&signed, touched, bit);
        let is_other = other != signed;
        assert_eq!(other.verify(&identity().public_key()).is_err(), is_other, "touched {touched}, bit {bit}");
        assert_eq!(other.chain_hash() != signed.chain_hash(), is_other);
    }
}

/// A key is sound exactly if it can be sealed to: the server's test and the library's are one.
fn keys_are_judged_alike(certificate: &Certificate) {
    let key = certificate.public_key;
    let sealed = hpke::seal(&key, b"info", b"aad", b"x");
    assert_eq!(key.is_sound(), sealed.is_ok());
    if !key.is_sound() {
        assert_eq!(sealed, Err(SealError::UnsoundKey));
    }
    let ours = x25519_dalek::StaticSecret::from([0x77; 32]);
    let shared = ours.diffie_hellman(&x25519_dalek::PublicKey::from(key.0));
    let is_canonical = key.0.iter().rev().copied().cmp(field_prime()).is_lt();
    assert_eq!(key.is_sound(), is_canonical && shared.was_contributory(), "{key:?}");
    // What no sound key has signed must not verify under an unsound one either.
    let signing = certificate.signing_public_key;
    if !signing.is_sound() {
        assert!(!signing.verifies(b"x", &Signature([0; 64])));
    }
}

/// 2^255 - 19, most significant byte first (RFC 7748 section 4.1).
fn field_prime() -> impl Iterator<Item = u8> {
    std::iter::once(0x7f).chain(std::iter::repeat_n(0xff, 30)).chain(std::iter::once(0xed))
}

/// Flips one bit of the signature or of a field.
fn tamper(signed: &SignedCertificate, touched: usize, bit: usize) -> SignedCertificate {
    let mut other = signed.clone();
    let mask = 1_u8 << bit;
    let in_number = |number: u64, at: usize| number ^ 1 << (at % 6 * 8 + bit);
    let certificate = &mut other.certificate;
    match touched {
        0..SIGNATURE => flip(&mut other.signature.0, touched, mask),
        64..80 => certificate.user_id = UserId(flip_id(certificate.user_id.0, touched - 64, mask)),
        80..96 => certificate.session_id = SessionId(flip_id(certificate.session_id.0, touched - 80, mask)),
        96..128 => flip(&mut certificate.previous.0, touched - 96, mask),
        128..160 => flip(&mut certificate.public_key.0, touched - 128, mask),
        160..192 => flip(&mut certificate.signing_public_key.0, touched - 160, mask),
        192..198 => certificate.place = Place::saturating(in_number(certificate.place.get(), touched)),
        198..204 => certificate.created_at = Timestamp::saturating(in_number(certificate.created_at.get(), touched)),
        204..210 => certificate.expired_at = Timestamp::saturating(in_number(certificate.expired_at.get(), touched)),
        _ => {}
    }
    other
}

fn flip(bytes: &mut [u8], at: usize, mask: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
}

fn flip_id(id: uuid::Uuid, at: usize, mask: u8) -> uuid::Uuid {
    let mut bytes = id.into_bytes();
    flip(&mut bytes, at, mask);
    uuid::Uuid::from_bytes(bytes)
}

fn revocation(input: &mut Input<'_>) {
    let by_session = input.byte() & 1 == 1;
    let revocation = Revocation {
        user_id: UserId(input.id()),
        place: Place::saturating(input.u64()),
        previous: Hash(input.array()),
        session_id: SessionId(input.id()),
        revoker: if by_session { Revoker::Session(SessionId(input.id())) } else { Revoker::Identity },
        created_at: Timestamp::saturating(input.u64()),
    };
    let bytes = revocation.signed_bytes();
    let mut fields = Fields::begin(&bytes, label::REVOCATION);
    assert_eq!(fields.id(), revocation.user_id.0);
    assert_eq!(fields.u64(), revocation.place.get());
    assert_eq!(Hash(fields.array()), revocation.previous);
    assert_eq!(fields.id(), revocation.session_id.0);
    let revoker = match revocation.revoker {
        Revoker::Identity => None,
        Revoker::Session(session_id) => Some(session_id.0),
    };
    assert_eq!(fields.optional_id(), revoker);
    assert_eq!(fields.u64(), revocation.created_at.get());
    fields.end();
    let signature = if by_session { session().sign(&bytes) } else { identity().sign(&bytes) };
    assert_eq!(identity().public_key().verifies(&bytes, &signature), !by_session);
    assert_eq!(session().signing_public_key().verifies(&bytes, &signature), by_session);
    comes_back(&UserEvent::Revocation(SignedRevocation { revocation, signature }));
}

fn deletion(input: &mut Input<'_>) {
    let (touched, mask) = (input.below(SIGNATURE), input.byte());
    let deletion = Deletion {
        user_id: UserId(input.id()),
        place: Place::saturating(input.u64()),
        previous: Hash(input.array()),
        created_at: Timestamp::saturating(input.u64()),
    };
    let bytes = deletion.signed_bytes();
    let mut fields = Fields::begin(&bytes, label::ACCOUNT_DELETION);
    assert_eq!(fields.id(), deletion.user_id.0);
    assert_eq!(fields.u64(), deletion.place.get());
    assert_eq!(Hash(fields.array()), deletion.previous);
    assert_eq!(fields.u64(), deletion.created_at.get());
    fields.end();
    let mut signed = SignedDeletion { signature: identity().sign(&bytes), deletion };
    assert!(signed.verifies(&identity().public_key()));
    comes_back(&UserEvent::Deletion(signed.clone()));
    flip(&mut signed.signature.0, touched, mask);
    assert_eq!(signed.verifies(&identity().public_key()), mask == 0);
}

/// An entry of a chain comes back from both encodings with the same hash.
fn comes_back(event: &UserEvent) {
    let json = serde_json::to_vec(event).expect("an entry can be written");
    let read: UserEvent = serde_json::from_slice(&json).expect("what was written can be read");
    assert_eq!(&read, event);
    let packed = rmp_serde::to_vec_named(event).expect("an entry can be written");
    let read: UserEvent = rmp_serde::from_slice(&packed).expect("what was written can be read");
    assert_eq!(&read, event);
    assert_eq!(read.chain_hash(), event.chain_hash());
    assert_eq!((read.place(), read.previous()), (event.place(), event.previous()));
}

/// The identity key of all inputs.
pub(crate) fn identity() -> &'static IdentitySecret {
    static IDENTITY: OnceLock<IdentitySecret> = OnceLock::new();
    IDENTITY.get_or_init(|| fixed(&[0x11; 32]))
}

/// The session of all inputs.
pub(crate) fn session() -> &'static SessionSecrets {
    #[derive(serde::Serialize)]
    struct Halves {
        exchange: [u8; 32],
        signing: [u8; 32],
    }
    static SESSION: OnceLock<SessionSecrets> = OnceLock::new();
    SESSION.get_or_init(|| fixed(&Halves { exchange: [0x22; 32], signing: [0x33; 32] }))
}

/// Secrets have no constructor from bytes, but a keyring gives them back: so an input means the same in every process.
fn fixed<T: serde::de::DeserializeOwned>(kept: &impl serde::Serialize) -> T {
    let bytes = rmp_serde::to_vec_named(kept).expect("a keyring can be written");
    rmp_serde::from_slice(&bytes).expect("a keyring can be read")
}
