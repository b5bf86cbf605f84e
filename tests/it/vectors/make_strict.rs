//! Makes the signatures that a lax verifier would take, and keys that nobody may use.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use serde_json::{Value, json};

use crate::stranger::bytes::{hex, unhex};
use crate::stranger::crypto;

/// The identity of the group, with y written as p + 1.
const IDENTITY_ABOVE_PRIME: &str = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";

/// The group order, little-endian (RFC 8032 section 5.1).
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    use curve25519_dalek::scalar::Scalar as S;
    use sha2::{Digest, Sha512};
    let mut hash = Sha512::new();
    hash.update(r);
    hash.update(key);
    hash.update(message);
    S::from_bytes_mod_order_wide(&hash.finalize().into())
}

fn case(name: &str, key: &[u8; 32], message: &[u8], signature: &[u8], sound: bool, verifies: bool) -> Value {
    json!({
        "name": name,
        "public_key": hex(key),
        "message": hex(message),
        "signature": hex(signature),
        "key_is_sound": sound,
        "verifies": verifies,
    })
}

/// Ed25519.
pub fn ed25519() -> Vec<Value> {
    let message = b"sealcast";
    let secret = [0x21; 32];
    let signer = ed25519_dalek::SigningKey::from_bytes(&secret);
    let key = crypto::public(&secret);
    let a = signer.to_scalar();
    let good: [u8; 64] = unhex_signature(&crypto::sign(&secret, message));
    let mut all = vec![case("an honest signature", &key, message, &good, true, true)];

    let (r, s) = good.split_first_chunk::<32>().unwrap();
    let mut carry = 0_u16;
    let above: Vec<u8> = s
        .iter()
        .zip(unhex(ORDER))
        .map(|(one, other)| {
            carry += u16::from(*one) + u16::from(other);
            let byte = carry as u8;
            carry >>= 8;
            byte
        })
        .collect();
    all.push(case("S is above the group order", &key, message, &[&r[..], &above].concat(), true, false));
    let order = [&r[..], &unhex(ORDER)].concat();
    all.push(case("S is the group order", &key, message, &order, true, false));

    // With R of small order and r = 0, S = k·a satisfies the equation.
    let identity: [u8; 32] = EIGHT_TORSION[0].compress().to_bytes();
    let not_canonical: [u8; 32] = unhex(IDENTITY_ABOVE_PRIME).try_into().unwrap();
    for (name, r) in [("R is of small order", identity), ("R is not canonical, and of small order", not_canonical)] {
        let s = challenge(&r, &key, message) * a;
        all.push(case(name, &key, message, &[r, s.to_bytes()].concat(), true, false));
    }
    let zero = [0; 32];
    for (index, point) in EIGHT_TORSION.iter().enumerate() {
        let key = point.compress().to_bytes();
        let name = format!("A is of small order, torsion point {index}");
        all.push(case(&name, &key, message, &[identity, zero].concat(), false, false));
    }
    let weak = [identity, zero].concat();
    all.push(case("A is not canonical", &not_canonical, message, &weak, false, false));
    let mut negative_zero = identity;
    negative_zero[31] |= 0x80;
    all.push(case("A has x = 0 and the sign bit", &negative_zero, message, &weak, false, false));
    let mut no_point = [0; 32];
    no_point[0] = 2;
    all.push(case("A is no point", &no_point, message, &good, false, false));

    // Of mixed order: with the cofactor it verifies, without it does not.
    let public = ED25519_BASEPOINT_POINT * a;
    let mixed: EdwardsPoint = public + EIGHT_TORSION[1];
    let mixed = mixed.compress().to_bytes();
    let nonce = Scalar::from(7_u64);
    let (r, k) = (0_u32..)
        .map(|round| nonce + Scalar::from(round))
        .map(|nonce| (nonce, (ED25519_BASEPOINT_POINT * nonce).compress().to_bytes()))
        .map(|(nonce, r)| (nonce, challenge(&r, &mixed, message)))
        .find(|(_, k)| !k.to_bytes()[0].is_multiple_of(8))
        .unwrap();
    let signature = [(ED25519_BASEPOINT_POINT * r).compress().to_bytes(), (r + k * a).to_bytes()].concat();
    all.push(case("verifies with the cofactor alone", &mixed, message, &signature, true, false));
    all
}

fn unhex_signature(value: &Value) -> [u8; 64] {
    crate::stranger::bytes::array(value)
}

/// X25519.
pub fn x25519() -> Vec<Value> {
    let keys = [
        ("the base point", "0900000000000000000000000000000000000000000000000000000000000000", true),
        ("u = 0, of small order", "0000000000000000000000000000000000000000000000000000000000000000", false),
        ("u = 1, of small order", "0100000000000000000000000000000000000000000000000000000000000000", false),
        ("of order 8", "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", false),
        ("of order 8, the other", "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", false),
        ("p - 1, of small order", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", false),
        ("p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", false),
        ("p + 1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", false),
        (
            "p + 9, the base point not canonical",
            "f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            false,
        ),
        ("2^255 - 1", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", false),
        ("the base point with the top bit", "0900000000000000000000000000000000000000000000000000000000000080", false),
        ("2^256 - 1", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", false),
    ];
    keys.map(|(name, key, sound)| json!({"name": name, "public_key": key, "is_sound": sound})).to_vec()
}
