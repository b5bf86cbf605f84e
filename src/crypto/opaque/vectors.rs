//! The client's messages against the published ones of RFC 9807 appendix C: the same groups and key exchange, without
//! stretching, as the vectors are.

use std::collections::VecDeque;
use std::path::PathBuf;

use opaque_ke::ksf::Identity;
use opaque_ke::rand::{CryptoRng, Error, RngCore};
use serde_json::Value;

use super::*;

struct Unstretched;

impl CipherSuite for Unstretched {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2_v10::Sha512>;
    type Ksf = Identity;
}

/// Gives what the vectors say was drawn.
struct Script(VecDeque<u8>);

impl RngCore for Script {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.pop_front().expect("more is drawn than the vector has");
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Script {}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn vectors() -> Vec<Value> {
    let folder = std::env::var_os("SEALCAST_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("rfc9807-opaque.json")) else {
        eprintln!("SKIPPED: the published vectors of RFC 9807 are not there; set SEALCAST_VECTORS");
        return Vec::new();
    };
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let is_ours = |vector: &Value| vector["config"]["Group"] == "ristretto255" && vector["config"]["Fake"] == "False";
    let ours: Vec<Value> = all.into_iter().filter(is_ours).collect();
    assert_eq!(ours.len(), 2);
    ours
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A scalar as the library draws it: 64 bytes that are reduced.
fn wide(value: &Value) -> Vec<u8> {
    [hex(value), vec![0; 32]].concat()
}

#[test]
fn rfc_9807_registrations_and_logins_are_as_published() {
    for vector in vectors() {
        let (inputs, outputs) = (&vector["inputs"], &vector["outputs"]);
        let (client, server) = (hex(&inputs["client_identity"]), hex(&inputs["server_identity"]));
        let identifiers = || Identifiers {
            client: inputs.get("client_identity").map(|_| client.as_slice()),
            server: inputs.get("server_identity").map(|_| server.as_slice()),
        };
        let password = hex(&inputs["password"]);

        let mut script = Script(wide(&inputs["blind_registration"]).into());
        let started = ClientRegistration::<Unstretched>::start(&mut script, &password).unwrap();
        assert_eq!(started.message.serialize().to_vec(), hex(&outputs["registration_request"]));
        let answer = RegistrationResponse::deserialize(&hex(&outputs["registration_response"])).unwrap();
        let mut script = Script(hex(&inputs["envelope_nonce"]).into());
        let parameters = ClientRegistrationFinishParameters::new(identifiers(), None);
        let done = started.state.finish(&mut script, &password, answer, parameters).unwrap();
        assert_eq!(done.message.serialize().to_vec(), hex(&outputs["registration_upload"]));
        assert_eq!(done.export_key.to_vec(), hex(&outputs["export_key"]));

        let drawn = [wide(&inputs["blind_login"]), hex(&inputs["client_keyshare_seed"]), hex(&inputs["client_nonce"])];
        let mut script = Script(drawn.concat().into());
        let started = ClientLogin::<Unstretched>::start(&mut script, &password).unwrap();
        assert_eq!(started.message.serialize().to_vec(), hex(&outputs["KE1"]));
        let answer = CredentialResponse::deserialize(&hex(&outputs["KE2"])).unwrap();
        let context = hex(&vector["config"]["Context"]);
        let parameters = ClientLoginFinishParameters::new(Some(&context), identifiers(), None);
        let mut script = Script(VecDeque::new());
        let done = started.state.finish(&mut script, &password, answer, parameters).unwrap();
        assert_eq!(done.message.serialize().to_vec(), hex(&outputs["KE3"]));
        assert_eq!(done.export_key.to_vec(), hex(&outputs["export_key"]));
        assert_eq!(done.session_key.to_vec(), hex(&outputs["session_key"]));
    }
}
