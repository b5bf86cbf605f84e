//! Runs the published vectors of RFC 9180 for the suite in use, read at run time from beside the checkout.
//!
//! This crate seals once under a fresh encapsulated key, in base mode. So [`seal_with`] and [`open_with`] answer for the
//! base mode's first encryption, both ways and byte for byte. The later encryptions, the exports and the other modes are
//! none that it offers: the same library answers for them with the same algorithms, since whatever is wrong there is
//! wrong in what lies beneath both.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as TheKem;
use hpke::rand_core::{Infallible, TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use serde_json::Value;

use super::error::OpenError;
use super::hpke::{ENCAPSULATED_BYTES, open_with, seal_with};
use super::secret::Secret;
use crate::protocol::binary::ExchangeKey;
use crate::protocol::published::{self, hex};

/// Gives the bytes that the vectors drew, and nothing else.
struct Drawn(Vec<u8>);

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("the encapsulated key is all that is drawn");
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("the encapsulated key is all that is drawn");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

/// The vectors of the suite, of all modes; none where they are not there.
fn vectors() -> Option<Vec<Value>> {
    published::vectors("rfc9180-x25519-sha256-aes256gcm.json")
}

fn list<'a>(vector: &'a Value, name: &str) -> &'a [Value] {
    let list = vector[name].as_array().unwrap();
    assert!(!list.is_empty(), "{name}");
    list
}

#[test]
fn base_mode_is_sealed_and_opened_as_published() {
    let Some(vectors) = vectors() else { return };
    let base = vectors.iter().find(|vector| vector["mode"] == 0).unwrap();
    let first = &base["encryptions"][0];
    let (info, aad, plaintext) = (hex(&base["info"]), hex(&first["aad"]), hex(&first["pt"]));
    let published = [hex(&base["enc"]), hex(&first["ct"])].concat();
    let recipient = ExchangeKey::try_from(hex(&base["pkRm"]).as_slice()).unwrap();
    let sealed = seal_with(&mut Drawn(hex(&base["ikmE"])), &recipient, &info, &aad, &plaintext);
    assert_eq!(sealed.unwrap(), published);
    let private = Secret::new(hex(&base["skRm"]).try_into().unwrap());
    assert_eq!(open_with(&private, &info, &aad, &published).unwrap(), plaintext);
    // The other encryptions are of later sequence numbers, so a single shot must not open them.
    for later in &list(base, "encryptions")[1..] {
        let sealed = [hex(&base["enc"]), hex(&later["ct"])].concat();
        assert_eq!(open_with(&private, &info, &hex(&later["aad"]), &sealed), Err(OpenError));
    }
    // Nor anything that was sealed in another mode.
    for other in vectors.iter().filter(|vector| vector["mode"] != 0) {
        let private = Secret::new(hex(&other["skRm"]).try_into().unwrap());
        let first = &other["encryptions"][0];
        let sealed = [hex(&other["enc"]), hex(&first["ct"])].concat();
        assert_eq!(open_with(&private, &hex(&other["info"]), &hex(&first["aad"]), &sealed), Err(OpenError));
    }
}

fn private_key(value: &Value) -> <TheKem as Kem>::PrivateKey {
    Deserializable::from_bytes(&hex(value)).unwrap()
}

fn public_key(value: &Value) -> <TheKem as Kem>::PublicKey {
    Deserializable::from_bytes(&hex(value)).unwrap()
}

#[test]
fn every_mode_of_the_suite_is_as_published() {
    let Some(vectors) = vectors() else { return };
    let mut count = 0;
    for vector in &vectors {
        for (ikm, public) in [("ikmR", "pkRm"), ("ikmE", "pkEm"), ("ikmS", "pkSm")] {
            if vector[ikm].is_string() {
                let derived = TheKem::derive_keypair(&hex(&vector[ikm]));
                assert_eq!(derived.1.to_bytes()[..], hex(&vector[public]), "{public}");
            }
        }
        let text = |name: &str| if vector[name].is_string() { hex(&vector[name]) } else { Vec::new() };
        let (psk, psk_id) = (text("psk"), text("psk_id"));
        let bundle = || PskBundle::new(&psk, &psk_id).unwrap();
        let sender = || (private_key(&vector["skSm"]), public_key(&vector["pkSm"]));
        let (to, from) = match vector["mode"].as_u64().unwrap() {
            0 => (OpModeS::Base, OpModeR::Base),
            1 => (OpModeS::Psk(bundle()), OpModeR::Psk(bundle())),
            2 => (OpModeS::Auth(sender()), OpModeR::Auth(sender().1)),
            3 => (OpModeS::AuthPsk(sender(), bundle()), OpModeR::AuthPsk(sender().1, bundle())),
            mode => panic!("mode {mode}"),
        };
        let info = hex(&vector["info"]);
        let mut random = Drawn(hex(&vector["ikmE"]));
        let (encapsulated, mut sealer) = hpke::setup_sender_with_rng::<AesGcm256, HkdfSha256, TheKem>(
            &to,
            &public_key(&vector["pkRm"]),
            &info,
            &mut random,
        )
        .unwrap();
        assert_eq!(encapsulated.to_bytes()[..], hex(&vector["enc"]));
        assert_eq!(encapsulated.to_bytes().len(), ENCAPSULATED_BYTES);
        let mut opener = hpke::setup_receiver::<AesGcm256, HkdfSha256, TheKem>(
            &from,
            &private_key(&vector["skRm"]),
            &encapsulated,
            &info,
        )
        .unwrap();
        for encryption in list(vector, "encryptions") {
            let (aad, plaintext, sealed) = (hex(&encryption["aad"]), hex(&encryption["pt"]), hex(&encryption["ct"]));
            assert_eq!(sealer.seal(&plaintext, &aad).unwrap(), sealed);
            assert_eq!(opener.open(&sealed, &aad).unwrap(), plaintext);
            count += 1;
        }
        for export in list(vector, "exports") {
            let mut exported = vec![0; export["L"].as_u64().unwrap().try_into().unwrap()];
            opener.export(&hex(&export["exporter_context"]), &mut exported).unwrap();
            assert_eq!(exported, hex(&export["exported_value"]));
        }
    }
    assert_eq!((vectors.len(), count), (4, 160));
}
