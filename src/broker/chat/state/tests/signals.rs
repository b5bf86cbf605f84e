//! Signals: who may send one, and under which key.

use super::super::CopyChange;
use super::scene::{EPOCH, LIMITS, NOW, Scene};
use crate::protocol::binary::{Blob, Signature};
use crate::protocol::error::ErrorCode;
use crate::protocol::ids::{Counter, Epoch, KeyId, SessionId, SignalId, Timestamp};
use crate::protocol::signal::SignalEnvelope;
use crate::store::members::Requester;

fn signal(who: Requester, key_id: KeyId) -> SignalEnvelope {
    SignalEnvelope {
        sender_id: who.user_id,
        sender_session_id: who.session_id,
        key_id,
        signal_id: SignalId::generate(),
        created_at: Timestamp::saturating(NOW),
        data: Blob::default(),
        signature: Signature([0; 64]),
    }
}

fn judged(scene: &Scene, who: Requester, signal: &SignalEnvelope) -> Result<(), ErrorCode> {
    scene.state().judge_signal(Timestamp::saturating(NOW), who, signal).map_err(|refusal| refusal.code)
}

#[test]
fn a_signal_has_the_rules_of_a_message_but_for_the_count() {
    let mut scene = Scene::new();
    let (ada, key_id) = (scene.ada, scene.key_id);
    let own = signal(ada, key_id);
    assert_eq!(judged(&scene, ada, &own), Ok(()));
    assert_eq!(judged(&scene, scene.bob, &own), Err(ErrorCode::BadSignature));
    assert_eq!(judged(&scene, scene.laptop, &own), Err(ErrorCode::BadSignature));
    let mut in_bobs_name = own.clone();
    in_bobs_name.sender_id = scene.bob.user_id;
    assert_eq!(judged(&scene, ada, &in_bobs_name), Err(ErrorCode::BadSignature));
    let elsewhere = Requester { session_id: SessionId::generate(), ..ada };
    assert_eq!(judged(&scene, elsewhere, &signal(elsewhere, key_id)), Err(ErrorCode::UnknownChat));
    assert_eq!(judged(&scene, scene.bob, &signal(scene.bob, key_id)), Err(ErrorCode::UnknownKey));
    assert_eq!(judged(&scene, ada, &signal(ada, KeyId::generate())), Err(ErrorCode::KeyStale));

    scene.key().last_counter = Counter::saturating(LIMITS.messages_max);
    assert_eq!(judged(&scene, ada, &own), Ok(()), "no message, no count");
    scene.key().created_at = Timestamp::saturating(NOW - LIMITS.age_max_micros - 1);
    assert_eq!(judged(&scene, ada, &own), Err(ErrorCode::KeySpent));
    scene.key().created_at = Timestamp::saturating(NOW);

    scene.member(ada).can_write = false;
    assert_eq!(judged(&scene, ada, &own), Err(ErrorCode::CannotWrite));
    scene.member(ada).can_write = true;
    scene.loaded.epoch = Epoch::saturating(EPOCH + 1);
    assert_eq!(judged(&scene, ada, &own), Err(ErrorCode::KeyStale), "P5");
}

#[test]
fn p4_a_signal_goes_to_all_or_to_nobody() {
    let scene = Scene::new();
    let mut state = scene.state();
    let own = signal(scene.ada, scene.key_id);
    state.copy_changed(scene.key_id, scene.bob.session_id, CopyChange::Voided);
    let refusal = state.judge_signal(Timestamp::saturating(NOW), scene.ada, &own).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::CopiesMissing);
    assert_eq!(refusal.details.unwrap().missing, [scene.bob.session_id]);
}
