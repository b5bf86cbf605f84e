//! The client's messages against the published ones of RFC 9807 appendix C: the same groups and key exchange, without
//! stretching, as the vectors are.

use opaque_ke::ksf::Identity;
use serde_json::Value;

use super::*;
use crate::protocol::published::{Script, hex, opaque_vectors};

struct Unstretched;

impl CipherSuite for Unstretched {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, sha2_v10::Sha512>;
    type Ksf = Identity;
}

/// A scalar as the library draws it: 64 bytes that are reduced.
fn wide(value: &Value) -> Vec<u8> {
    [hex(value), vec![0; 32]].concat()
}

#[test]
fn rfc_9807_registrations_and_logins_are_as_published() {
    for vector in opaque_vectors().iter().filter(|vector| vector["config"]["Fake"] == "False") {
        let (inputs, outputs) = (&vector["inputs"], &vector["outputs"]);
        let (client, server) = (hex(&inputs["client_identity"]), hex(&inputs["server_identity"]));
        let identifiers = || Identifiers {
            client: inputs.get("client_identity").map(|_| client.as_slice()),
            server: inputs.get("server_identity").map(|_| server.as_slice()),
        };
        let password = hex(&inputs["password"]);

        let mut script = Script::of(&[&wide(&inputs["blind_registration"])]);
        let started = ClientRegistration::<Unstretched>::start(&mut script, &password).unwrap();
        assert_eq!(started.message.serialize().to_vec(), hex(&outputs["registration_request"]));
        let answer = RegistrationResponse::deserialize(&hex(&outputs["registration_response"])).unwrap();
        let mut script = Script::of(&[&hex(&inputs["envelope_nonce"])]);
        let parameters = ClientRegistrationFinishParameters::new(identifiers(), None);
        let done = started.state.finish(&mut script, &password, answer, parameters).unwrap();
        assert_eq!(done.message.serialize().to_vec(), hex(&outputs["registration_upload"]));
        assert_eq!(done.export_key.to_vec(), hex(&outputs["export_key"]));

        let drawn = [wide(&inputs["blind_login"]), hex(&inputs["client_keyshare_seed"]), hex(&inputs["client_nonce"])];
        let mut script = Script::of(&[&drawn.concat()]);
        let started = ClientLogin::<Unstretched>::start(&mut script, &password).unwrap();
        assert_eq!(started.message.serialize().to_vec(), hex(&outputs["KE1"]));
        let answer = CredentialResponse::deserialize(&hex(&outputs["KE2"])).unwrap();
        let context = hex(&vector["config"]["Context"]);
        let parameters = ClientLoginFinishParameters::new(Some(&context), identifiers(), None);
        let mut script = Script::of(&[]);
        let done = started.state.finish(&mut script, &password, answer, parameters).unwrap();
        assert_eq!(done.message.serialize().to_vec(), hex(&outputs["KE3"]));
        assert_eq!(done.export_key.to_vec(), hex(&outputs["export_key"]));
        assert_eq!(done.session_key.to_vec(), hex(&outputs["session_key"]));
    }
}
