//! The server's messages against the published ones of RFC 9807 appendix C, with the suite that the broker uses.

use opaque_ke::RegistrationUpload;
use serde_json::Value;

use super::*;
use crate::protocol::published::{Script, hex, opaque_vectors};

fn setup(inputs: &Value) -> ServerSetup<Suite> {
    let public = hex(&inputs["server_public_key"]);
    let bytes = [hex(&inputs["oprf_seed"]), hex(&inputs["server_private_key"]), public.clone()].concat();
    let setup = ServerSetup::deserialize(&bytes).unwrap();
    assert_eq!(setup.keypair().public().serialize().to_vec(), public);
    setup
}

#[test]
fn rfc_9807_registrations_are_answered_as_published() {
    for vector in opaque_vectors().iter().filter(|vector| vector["config"]["Fake"] == "False") {
        let (inputs, outputs) = (&vector["inputs"], &vector["outputs"]);
        let request = RegistrationRequest::deserialize(&hex(&outputs["registration_request"])).unwrap();
        let answer =
            ServerRegistration::start(&setup(inputs), request, &hex(&inputs["credential_identifier"])).unwrap();
        assert_eq!(answer.message.serialize().to_vec(), hex(&outputs["registration_response"]));
    }
}

#[test]
fn rfc_9807_logins_are_answered_as_published_and_made_up_ones_too() {
    for vector in opaque_vectors() {
        let (inputs, outputs) = (&vector["inputs"], &vector["outputs"]);
        let is_made_up = vector["config"]["Fake"] == "True";
        let record = if is_made_up {
            // As the broker makes one up: a public key, a masking key, an envelope of zeros.
            [hex(&inputs["client_public_key"]), hex(&inputs["masking_key"]), vec![0; 96]].concat()
        } else {
            hex(&outputs["registration_upload"])
        };
        let record = ServerRegistration::finish(RegistrationUpload::deserialize(&record).unwrap());
        let ke1 = hex(if is_made_up { &inputs["KE1"] } else { &outputs["KE1"] });
        // The library draws a masking key that serves where there is no record, and there is one.
        let drawn = [vec![0; 64], hex(&inputs["masking_nonce"]), hex(&inputs["server_keyshare_seed"])].concat();
        let mut script = Script::of(&[&drawn, &hex(&inputs["server_nonce"])]);
        let (client, server) = (hex(&inputs["client_identity"]), hex(&inputs["server_identity"]));
        let context = hex(&vector["config"]["Context"]);
        let named = |name: &'static str| inputs.get(name).is_some();
        let parameters = || ServerLoginParameters {
            context: Some(&context),
            identifiers: Identifiers {
                client: named("client_identity").then_some(client.as_slice()),
                server: named("server_identity").then_some(server.as_slice()),
            },
        };
        let answer = ServerLogin::start(
            &mut script,
            &setup(inputs),
            Some(record),
            CredentialRequest::deserialize(&ke1).unwrap(),
            &hex(&inputs["credential_identifier"]),
            parameters(),
        )
        .unwrap();
        assert_eq!(answer.message.serialize().to_vec(), hex(&outputs["KE2"]), "{}", vector["config"]);
        if !is_made_up {
            let ke3 = CredentialFinalization::deserialize(&hex(&outputs["KE3"])).unwrap();
            let done = answer.state.finish(ke3, parameters()).unwrap();
            assert_eq!(done.session_key.to_vec(), hex(&outputs["session_key"]));
        }
    }
}

#[test]
fn a_name_without_a_password_is_answered_by_the_same_record_always() {
    let passwords = Passwords::read(&Passwords::fresh(), "a server").unwrap();
    let (ada, bob) = (Username::parse("ada").unwrap(), Username::parse("bob").unwrap());
    let made_up = |name: &Username| {
        let stored = passwords.made_up(name);
        (stored.record, stored.credential_id)
    };
    assert_eq!(made_up(&ada), made_up(&ada));
    assert_ne!(made_up(&ada), made_up(&bob));
    passwords.check_record(&Blob::from(made_up(&ada).0)).unwrap();
    assert_eq!(format!("{passwords:?}"), "password secrets");
}
