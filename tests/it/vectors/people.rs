//! The people of the known answers: fixed ids, fixed secrets, certificates until the year 2080.

use serde_json::{Value, json};

use crate::stranger::bytes::{hex, id_text, text};
use crate::stranger::{crypto, formats};

/// 2026-11-22T00:00:00Z in microseconds.
pub const NOW: u64 = 1_795_305_600_000_000;

/// 2080-01-01T00:00:00Z in microseconds.
pub const LATER: u64 = 3_471_292_800_000_000;

/// A device of a user.
#[derive(Clone)]
pub struct Person {
    /// The user's name.
    pub username: &'static str,
    /// The user's id.
    pub user_id: Value,
    /// The session's id.
    pub session_id: Value,
    /// Private halves.
    pub identity: [u8; 32],
    pub signing: [u8; 32],
    pub exchange: [u8; 32],
    /// The signed certificate.
    pub certificate: Value,
}

/// An id: the form of a UUID of version 7, with a number of one's own at its end.
pub fn id(millis: u16, last: u16) -> Value {
    let mut bytes = [0x01, 0x9a, 0xa6, 0xf0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0];
    bytes[4..6].copy_from_slice(&millis.to_be_bytes());
    bytes[14..].copy_from_slice(&last.to_be_bytes());
    id_text(&bytes).into()
}

impl Person {
    fn new(username: &'static str, user: (u16, u16), session: (u16, u16), seeds: [u8; 3]) -> Self {
        let [identity, signing, exchange] = seeds.map(|seed| [seed; 32]);
        let (user_id, session_id) = (id(user.0, user.1), id(session.0, session.1));
        let mut it = Self { username, user_id, session_id, identity, signing, exchange, certificate: Value::Null };
        let previous = formats::user_chain(&it.user_id).hash();
        it.certificate = it.certify(1, &previous, LATER);
        it
    }

    /// A certificate of this session at a place of its user's chain.
    pub fn certify(&self, place: u64, previous: &[u8], expired_at: u64) -> Value {
        let certificate = json!({
            "user_id": self.user_id,
            "place": place,
            "previous": text(previous),
            "session_id": self.session_id,
            "public_key": text(&crypto::exchange_public(&self.exchange)),
            "signing_public_key": text(&crypto::public(&self.signing)),
            "created_at": NOW,
            "expired_at": expired_at,
        });
        let signature = crypto::sign(&self.identity, &formats::certificate(&certificate));
        json!({"certificate": certificate, "signature": signature})
    }

    /// The public half of the identity key.
    pub fn identity_key(&self) -> Value {
        text(&crypto::public(&self.identity))
    }

    /// The X25519 key.
    pub fn public_key(&self) -> Value {
        text(&crypto::exchange_public(&self.exchange))
    }

    /// As the target of a change.
    pub fn target(&self) -> Value {
        json!({"user_id": self.user_id, "identity_key": self.identity_key()})
    }

    /// As the actor of a change.
    pub fn actor(&self) -> Value {
        json!({"user_id": self.user_id, "session_id": self.session_id, "identity_key": self.identity_key()})
    }

    /// All of it, for the file.
    pub fn to_json(&self) -> Value {
        json!({
            "username": self.username,
            "user_id": self.user_id,
            "session_id": self.session_id,
            "identity_secret": hex(&self.identity),
            "identity_key": self.identity_key(),
            "signing_secret": hex(&self.signing),
            "signing_public_key": text(&crypto::public(&self.signing)),
            "exchange_secret": hex(&self.exchange),
            "public_key": self.public_key(),
            "certificate": self.certificate,
        })
    }
}

/// The hash of a signed entry of a user's chain.
pub fn chain_hash(format: &str, it: &Value) -> [u8; 32] {
    formats::user_event(&formats::signed(format, &Value::Null, it), &it["signature"]).hash()
}

/// Ada.
pub fn ada() -> Person {
    Person::new("ada", (1, 0xa0), (1, 0xa1), [0x01, 0x03, 0x11])
}

/// Ada's second device, at place 2 of her chain.
pub fn ada_second() -> Person {
    let mut second = Person::new("ada", (1, 0xa0), (3, 0xa2), [0x01, 0x05, 0x13]);
    second.certificate = second.certify(2, &chain_hash("certificate", &ada().certificate), LATER);
    second
}

/// Bob.
pub fn bob() -> Person {
    Person::new("bob", (2, 0xb0), (2, 0xb1), [0x02, 0x04, 0x12])
}

/// Cyd, whose session runs out three hours later.
pub fn cyd() -> Person {
    let mut cyd = Person::new("cyd", (8, 0xc1), (8, 0xc2), [0x06, 0x07, 0x14]);
    let previous = formats::user_chain(&cyd.user_id).hash();
    cyd.certificate = cyd.certify(1, &previous, NOW + 3 * 3_600_000_000);
    cyd
}

/// The chat of the known answers.
pub fn chat() -> Value {
    id(4, 0xc0)
}
