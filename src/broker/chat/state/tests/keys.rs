//! Which key a message may be under, and who must have a copy of it (P4, P5).

use super::super::CopyChange;
use super::scene::{
    Decided, EPOCH, LAST_COUNTER, LAST_SEQ, LIMITS, NOW, ROSTER_VERSION, Scene, Stamp, copies_for, is_refused, submit,
};
use crate::protocol::binary::{ExchangeKey, Hash};
use crate::protocol::error::{ErrorCode, ErrorDetails, MissingReason};
use crate::protocol::frame::Send;
use crate::protocol::ids::{Counter, Epoch, KeyId, Seq, SessionId, Timestamp};
use crate::store::loaded::LoadedRecipient;
use crate::store::members::Requester;

/// The first message under a new key of Ada's, with copies for these.
fn first(scene: &Scene, copies: &[Requester]) -> Send {
    let key_id = KeyId::generate();
    let mut send = scene.message(scene.ada, key_id, 1);
    send.new_key = Some(scene.new_key(scene.ada, key_id, copies));
    send
}

fn places(details: &ErrorDetails) -> (Option<u64>, Option<u64>) {
    (details.seq.map(Seq::get), details.epoch.map(Epoch::get))
}

#[test]
fn p4_a_new_key_with_a_copy_for_each_recipient_is_taken_and_replaces_the_older_one() {
    let scene = Scene::new();
    let mut state = scene.state();
    let send = first(&scene, &scene.everybody());
    let new_key = send.new_key.clone().unwrap();
    let key_id = send.envelope.key_id.unwrap();
    let item = submit(&mut state, scene.ada, &send).appended();
    assert_eq!(item.new_key.as_ref(), Some(&new_key.announcement));
    assert_eq!(item.copies, new_key.copies);
    assert_eq!((item.key_id, item.counter.get()), (Some(key_id), 1));
    assert_eq!(state.announcement(key_id), Some(&new_key.announcement));
    assert_eq!(state.announcement(scene.key_id), None);
    submit(&mut state, scene.ada, &scene.message(scene.ada, key_id, 2)).appended();
    let older = scene.message(scene.ada, scene.key_id, LAST_COUNTER + 1);
    assert_eq!(submit(&mut state, scene.ada, &older).refused().code, ErrorCode::KeyStale);
}

#[test]
fn a_key_of_another_session_stays_when_one_is_replaced() {
    let scene = Scene::new();
    let mut state = scene.state();
    let mut send = scene.message(scene.laptop, KeyId::generate(), 1);
    send.new_key = Some(scene.new_key(scene.laptop, send.envelope.key_id.unwrap(), &scene.everybody()));
    submit(&mut state, scene.laptop, &send).appended();
    submit(&mut state, scene.ada, &scene.next()).appended();
}

#[test]
fn p5_a_key_is_of_the_epoch_that_its_maker_signed() {
    let mut scene = Scene::new();
    for epoch in [EPOCH - 1, EPOCH + 1] {
        let mut send = first(&scene, &scene.everybody());
        let announcement = scene.announcement(scene.ada, send.envelope.key_id.unwrap(), epoch);
        send.new_key.as_mut().unwrap().announcement = announcement;
        let (code, details) = is_refused(&scene, scene.ada, &send);
        assert_eq!((code, places(&details)), (ErrorCode::KeyStale, (Some(ROSTER_VERSION), Some(EPOCH))));
    }
    // One that is held here and of an older epoch is no better.
    scene.loaded.epoch = Epoch::saturating(EPOCH + 1);
    let (code, details) = is_refused(&scene, scene.ada, &scene.next());
    assert_eq!((code, places(&details)), (ErrorCode::KeyStale, (Some(ROSTER_VERSION), Some(EPOCH + 1))));
}

#[test]
fn p5_a_key_that_is_not_here_is_stale() {
    let scene = Scene::new();
    let send = scene.message(scene.ada, KeyId::generate(), 1);
    let (code, details) = is_refused(&scene, scene.ada, &send);
    assert_eq!((code, places(&details)), (ErrorCode::KeyStale, (Some(ROSTER_VERSION), Some(EPOCH))));
}

#[test]
fn p7_a_key_is_its_own_sessions() {
    let scene = Scene::new();
    let stolen = scene.message(scene.bob, scene.key_id, LAST_COUNTER + 1);
    assert_eq!(is_refused(&scene, scene.bob, &stolen).0, ErrorCode::UnknownKey);
    let changes: [fn(&Scene, &mut Send); 4] = [
        |scene, send| send.new_key.as_mut().unwrap().announcement.announcement.session_id = scene.laptop.session_id,
        |_, send| send.new_key.as_mut().unwrap().announcement.announcement.key_id = KeyId::generate(),
        |_, send| send.new_key.as_mut().unwrap().announcement.announcement.commitment = Hash([6; 32]),
        |_, send| send.new_key.as_mut().unwrap().announcement.signature = Stamp::sign(b"something else"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut send = first(&scene, &scene.everybody());
        change(&scene, &mut send);
        // What was changed is signed again, but for the signature itself.
        if index < 2 {
            let announcement = &mut send.new_key.as_mut().unwrap().announcement;
            announcement.signature = Stamp::sign(&announcement.announcement.signed_bytes(scene.chat_id));
        }
        assert_eq!(is_refused(&scene, scene.ada, &send).0, ErrorCode::BadSignature, "change {index}");
    }
}

#[test]
fn p2_a_key_that_is_sent_again_is_the_same_key_or_refused() {
    let mut scene = Scene::new();
    scene.key().last_counter = Counter::default();
    scene.key().missing = [scene.carol.session_id].into();
    let mut again = scene.message(scene.ada, scene.key_id, 1);
    again.new_key = Some(scene.new_key(scene.ada, scene.key_id, &scene.everybody()));
    let item = submit(&mut scene.state(), scene.ada, &again).appended();
    assert_eq!(item.new_key, None, "it is stored");
    assert_eq!(item.copies, copies_for(&[scene.carol]), "the first copies count");

    let mut other = again.clone();
    let announcement = &mut other.new_key.as_mut().unwrap().announcement;
    announcement.announcement.commitment = Hash([6; 32]);
    announcement.signature = Stamp::sign(&announcement.announcement.signed_bytes(scene.chat_id));
    assert_eq!(is_refused(&scene, scene.ada, &other).0, ErrorCode::KeyExists);
}

#[test]
fn p4_a_copy_for_somebody_who_is_no_recipient_refuses_the_whole() {
    let scene = Scene::new();
    let stranger = Requester { session_id: SessionId::generate(), ..scene.bob };
    let [ada, laptop, bob, carol] = scene.everybody();
    let with_stranger = first(&scene, &[ada, stranger, laptop, bob, carol]);
    let (code, details) = is_refused(&scene, scene.ada, &with_stranger);
    assert_eq!((code, places(&details)), (ErrorCode::RecipientsChanged, (Some(ROSTER_VERSION), Some(EPOCH))));
    assert_eq!(details.extra, [stranger.session_id]);
    let mut beside = scene.next();
    beside.add_copies = copies_for(&[stranger]);
    assert_eq!(is_refused(&scene, scene.ada, &beside).0, ErrorCode::RecipientsChanged);
    let twice = first(&scene, &[ada, laptop, bob, carol, bob]);
    assert_eq!(is_refused(&scene, scene.ada, &twice).0, ErrorCode::Malformed);
}

#[test]
fn p4_a_new_key_without_all_copies_is_stored_and_its_message_refused() {
    let scene = Scene::new();
    let [ada, laptop, bob, carol] = scene.everybody();
    let mut state = scene.state();
    let mut send = first(&scene, &[ada, laptop]);
    let key_id = send.envelope.key_id.unwrap();
    let (item, refusal) = submit(&mut state, scene.ada, &send).stored_key();
    let details = refusal.details.unwrap();
    assert_eq!((refusal.code, details.reason), (ErrorCode::CopiesMissing, Some(MissingReason::NewSession)));
    assert_eq!(places(&details), (Some(ROSTER_VERSION), Some(EPOCH)));
    let mut missing = [bob.session_id, carol.session_id];
    missing.sort();
    assert_eq!(details.missing, missing);
    assert!(item.entry.is_none() && item.new_key.is_some());
    assert_eq!((item.counter.get(), item.previous.get()), (0, LAST_SEQ));
    assert_eq!(item.copies, copies_for(&[ada, laptop]));
    assert_eq!(state.last_seq().get(), LAST_SEQ, "no place is used");
    // With the rest it goes, key and all or the rest alone.
    send.new_key = None;
    send.add_copies = copies_for(&[bob]);
    let (item, refusal) = submit(&mut state, scene.ada, &send).stored_key();
    assert_eq!(refusal.details.unwrap().missing, [carol.session_id]);
    assert_eq!((item.key_id, item.copies), (Some(key_id), copies_for(&[bob])));
    send.add_copies = copies_for(&[carol]);
    let item = submit(&mut state, scene.ada, &send).appended();
    assert_eq!((item.copies, item.counter.get()), (copies_for(&[carol]), 1));
}

#[test]
fn p4_a_known_key_that_lacks_a_copy_is_refused_until_it_comes() {
    let mut scene = Scene::new();
    scene.key().missing = [scene.carol.session_id].into();
    let (code, details) = is_refused(&scene, scene.ada, &scene.next());
    assert_eq!((code, details.missing), (ErrorCode::CopiesMissing, vec![scene.carol.session_id]));
    let mut state = scene.state();
    state.copy_changed(KeyId::generate(), scene.carol.session_id, CopyChange::Stored);
    assert_eq!(submit(&mut state, scene.ada, &scene.next()).refused().code, ErrorCode::CopiesMissing);
    state.copy_changed(scene.key_id, scene.carol.session_id, CopyChange::Stored);
    submit(&mut state, scene.ada, &scene.next()).appended();
}

#[test]
fn p4_a_copy_that_is_refused_is_missing_and_one_that_is_given_up_counts() {
    let scene = Scene::new();
    let (mut state, bob) = (scene.state(), scene.bob.session_id);
    // What concerns no recipient changes nothing.
    state.copy_changed(scene.key_id, SessionId::generate(), CopyChange::Voided);
    state.copy_changed(scene.key_id, bob, CopyChange::Voided);
    let refusal = submit(&mut state, scene.ada, &scene.next()).refused();
    let details = refusal.details.unwrap();
    assert_eq!((details.missing, details.reason), (vec![bob], Some(MissingReason::Refused)));
    state.copy_changed(scene.key_id, bob, CopyChange::Stored);
    let entry = submit(&mut state, scene.ada, &scene.next()).appended().entry.unwrap();
    assert!(state.sent(&entry).refused.is_empty(), "the refusal was of the older copy");
    state.copy_changed(scene.key_id, bob, CopyChange::GivenUp);
    let next = scene.message(scene.ada, scene.key_id, LAST_COUNTER + 2);
    let entry = submit(&mut state, scene.ada, &next).appended().entry.unwrap();
    assert_eq!(state.sent(&entry).refused, [bob]);
}

#[test]
fn a_missing_copy_says_whether_a_user_or_a_device_is_new() {
    let mut scene = Scene::new();
    let key_made = scene.key().created_at;
    scene.key().missing = [scene.carol.session_id].into();
    let reason = |scene: &Scene, send: &Send| match submit(&mut scene.state(), scene.ada, send) {
        super::super::Decision::Refuse(refusal) | super::super::Decision::StoreKey(_, refusal) => {
            refusal.details.unwrap().reason
        }
        other => panic!("{other:?}"),
    };
    // Of a stored key: who joined when it was there, or after.
    for (joined_at, expected) in [
        (key_made.get() - 1, MissingReason::NewSession),
        (key_made.get(), MissingReason::NewMember),
        (key_made.get() + 1, MissingReason::NewMember),
    ] {
        scene.member(scene.carol).joined_at = Timestamp::saturating(joined_at);
        assert_eq!(reason(&scene, &scene.next()), Some(expected), "{joined_at}");
    }
    // Somebody of whom another session has a copy has a new device.
    let phone = Requester { session_id: SessionId::generate(), ..scene.carol };
    let recipient = LoadedRecipient { user_id: phone.user_id, public_key: ExchangeKey([1; 32]) };
    scene.loaded.recipients.insert(phone.session_id, recipient);
    assert_eq!(reason(&scene, &scene.next()), Some(MissingReason::NewSession));
    scene.loaded.recipients.remove(&phone.session_id);
    // Of a key that is not stored: who joined after what its maker had seen.
    let [ada, laptop, bob, _] = scene.everybody();
    let mut send = first(&scene, &[ada, laptop, bob]);
    for (joined_seq, expected) in [
        (LAST_SEQ - 1, MissingReason::NewSession),
        (LAST_SEQ, MissingReason::NewSession),
        (LAST_SEQ + 1, MissingReason::NewMember),
    ] {
        scene.member(scene.carol).joined_seq = Seq::saturating(joined_seq);
        send.envelope.seen.seq = Seq::saturating(LAST_SEQ);
        assert_eq!(reason(&scene, &send), Some(expected), "{joined_seq}");
    }
}

#[test]
fn a_key_is_spent_by_messages_and_by_time() {
    let mut scene = Scene::new();
    // Four recipients are not yet a large chat, five are.
    let at = |scene: &mut Scene, last: u64| {
        scene.key().last_counter = Counter::saturating(last);
        scene.message(scene.ada, scene.key_id, last + 1)
    };
    let last = at(&mut scene, LIMITS.messages_max - 1);
    submit(&mut scene.state(), scene.ada, &last).appended();
    let spent = at(&mut scene, LIMITS.messages_max);
    let (code, details) = is_refused(&scene, scene.ada, &spent);
    assert_eq!((code, details.limit), (ErrorCode::KeySpent, Some(LIMITS.messages_max)));
    let recipient = LoadedRecipient { user_id: scene.bob.user_id, public_key: ExchangeKey([1; 32]) };
    scene.loaded.recipients.insert(SessionId::generate(), recipient);
    let spent = at(&mut scene, LIMITS.messages_max_large);
    let (code, details) = is_refused(&scene, scene.ada, &spent);
    assert_eq!((code, details.limit), (ErrorCode::KeySpent, Some(LIMITS.messages_max_large)));

    // The scene's key is as old as it may be; a microsecond more is too old.
    let mut scene = Scene::new();
    submit(&mut scene.state(), scene.ada, &scene.next()).appended();
    scene.key().created_at = Timestamp::saturating(NOW - LIMITS.age_max_micros - 1);
    let (code, details) = is_refused(&scene, scene.ada, &scene.next());
    assert_eq!((code, details.limit), (ErrorCode::KeySpent, Some(LIMITS.age_max_micros / 1_000_000)));
}
