//! Three users with two sessions each: their names, ids, keys, and what they sign.
//!
//! Keys and signatures are real, since [`ChatFold`](sealcast::protocol::fold::ChatFold) checks them; what was signed once
//! is kept.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use ed25519_dalek::Signer;
use sealcast::protocol::binary::{ExchangeKey, Hash, IdentityKey, Signature, SigningKey};
use sealcast::protocol::certificate::{Certificate, Revocation, Revoker, SignedCertificate, SignedRevocation};
use sealcast::protocol::ids::{ChatId, KeyId, MessageId, Place, SessionId, Timestamp, UserId};
use uuid::Uuid;

pub const USERS: usize = 3;
pub const SESSIONS: usize = 6;

/// By number: sessions 0 and 1 are user 0's, 2 and 3 user 1's, 4 and 5 user 2's.
pub type User = usize;
pub type Session = usize;
pub type Chat = usize;

/// When something happens by the database's clock, unless it is an expiry.
pub const NOW: u64 = 10;

pub const fn user_of(session: Session) -> User {
    session / 2
}

/// Whether a change of both would be the same change.
pub const fn sibling(session: Session) -> Session {
    session ^ 1
}

pub fn user_name(user: User) -> &'static str {
    ["Ada", "Bob", "Cleo"][user]
}

pub fn session_name(session: Session) -> String {
    format!("{}'s {}", user_name(user_of(session)), ["phone", "laptop"][session % 2])
}

struct Secrets {
    identities: Vec<ed25519_dalek::SigningKey>,
    sessions: Vec<ed25519_dalek::SigningKey>,
}

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let key = |first: u8| move |index| ed25519_dalek::SigningKey::from_bytes(&[first + index as u8; 32]);
    Secrets { identities: (0..USERS).map(key(10)).collect(), sessions: (0..SESSIONS).map(key(30)).collect() }
});

type PublicHalves = Mutex<HashMap<[u8; 2], ExchangeKey>>;

static PUBLIC_HALVES: LazyLock<PublicHalves> = LazyLock::new(PublicHalves::default);

/// The public half of an X25519 key, whose private half is these bytes over and over.
pub fn public_half(secret: [u8; 2]) -> ExchangeKey {
    *PUBLIC_HALVES.lock().unwrap().entry(secret).or_insert_with(|| {
        let secret = std::array::from_fn(|index| secret[index % 2]);
        ExchangeKey(x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES))
    })
}

type Signed = Mutex<HashMap<(bool, usize, Vec<u8>), Signature>>;

static SIGNED: LazyLock<Signed> = LazyLock::new(Signed::default);

fn sign(is_identity: bool, index: usize, bytes: Vec<u8>) -> Signature {
    let mut signed = SIGNED.lock().unwrap();
    *signed.entry((is_identity, index, bytes)).or_insert_with_key(|(_, _, bytes)| {
        let keys = if is_identity { &SECRETS.identities } else { &SECRETS.sessions };
        Signature(keys[index].sign(bytes).to_bytes())
    })
}

pub fn sign_as(session: Session, bytes: Vec<u8>) -> Signature {
    sign(false, session, bytes)
}

pub fn sign_as_identity(user: User, bytes: Vec<u8>) -> Signature {
    sign(true, user, bytes)
}

pub fn user_id(user: User) -> UserId {
    UserId(Uuid::from_u128(0xa0 + user as u128))
}

pub fn session_id(session: Session) -> SessionId {
    SessionId(Uuid::from_u128(0x50 + session as u128))
}

/// The number of a session, from its id.
pub fn session_of(id: SessionId) -> Session {
    (id.0.as_u128() - 0x50) as usize
}

pub fn user_number(id: UserId) -> User {
    (id.0.as_u128() - 0xa0) as usize
}

pub fn chat_id(chat: Chat) -> ChatId {
    ChatId(Uuid::from_u128(0xc0 + chat as u128))
}

/// A session makes one key at most of what it knows of the log at one time.
pub fn key_id(session: Session, view: usize) -> KeyId {
    KeyId(Uuid::from_u128((0x100 * (1 + session as u128)) + view as u128))
}

/// A message's id is as good as its key and counter.
pub fn message_id(session: Session, view: usize, counter: u64) -> MessageId {
    MessageId(Uuid::from_u128((u128::from(counter) << 64) + (0x100 * (1 + session as u128)) + view as u128))
}

pub fn identity_key(user: User) -> IdentityKey {
    IdentityKey(SECRETS.identities[user].verifying_key().to_bytes())
}

pub fn exchange_key(session: Session) -> ExchangeKey {
    public_half([50, session as u8])
}

/// When the time of a certificate runs out: long after all that happens before it has.
pub fn expired_at(place: u64) -> Timestamp {
    Timestamp::saturating(1_000 * place)
}

pub fn certificate(session: Session, place: u64) -> SignedCertificate {
    let certificate = Certificate {
        user_id: user_id(user_of(session)),
        place: Place::saturating(place),
        previous: Hash([0; 32]),
        session_id: session_id(session),
        public_key: exchange_key(session),
        signing_public_key: SigningKey(SECRETS.sessions[session].verifying_key().to_bytes()),
        created_at: Timestamp::saturating(1),
        expired_at: expired_at(place),
    };
    let signature = sign_as_identity(user_of(session), certificate.signed_bytes());
    SignedCertificate { certificate, signature }
}

/// Signs as one of a user's sessions, or with the identity key where there is none that could.
pub fn sign_as_revoker(user: User, signer: Option<Session>, bytes: Vec<u8>) -> Signature {
    match signer {
        Some(signer) => sign_as(signer, bytes),
        None => sign_as_identity(user, bytes),
    }
}

pub fn revoker(signer: Option<Session>) -> Revoker {
    signer.map_or(Revoker::Identity, |signer| Revoker::Session(session_id(signer)))
}

pub fn revocation(session: Session, place: u64, signer: Option<Session>) -> SignedRevocation {
    let revocation = Revocation {
        user_id: user_id(user_of(session)),
        place: Place::saturating(place),
        previous: Hash([0; 32]),
        session_id: session_id(session),
        revoker: revoker(signer),
        created_at: Timestamp::saturating(1),
    };
    let signature = sign_as_revoker(user_of(session), signer, revocation.signed_bytes());
    SignedRevocation { revocation, signature }
}
