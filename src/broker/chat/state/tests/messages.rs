//! Who may send what, and which place it gets.

use bytes::Bytes;

use super::scene::{
    Decided, EPOCH, LAST_COUNTER, LAST_SEQ, NOW, ROSTER_VERSION, Scene, Stamp, copies_for, is_refused, submit,
};
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::envelope::MessageKind;
use crate::protocol::error::{ErrorCode, ErrorDetails};
use crate::protocol::frame::Send;
use crate::protocol::ids::{AttachmentId, Counter, Epoch, KeyId, Revision, Seq, SessionId, Timestamp, UserId};
use crate::protocol::limits::{ATTACHMENTS_MAX, COPIES_PER_FRAME_MAX, DATA_BYTES_MAX};
use crate::protocol::log::{EntryBody, next_entry};
use crate::store::members::Requester;

#[test]
fn p3_what_is_accepted_gets_the_next_place_counter_and_hash() {
    let scene = Scene::new();
    let mut state = scene.state();
    assert_eq!(state.last_seq().get(), LAST_SEQ);
    let mut log_hash = scene.loaded.log_hash;
    for step in 0..3 {
        let send = scene.message(scene.ada, scene.key_id, LAST_COUNTER + 1 + step);
        let item = submit(&mut state, scene.ada, &send).appended();
        let entry = item.entry.unwrap();
        let body = EntryBody::Message(send.envelope.clone());
        let expected =
            next_entry(scene.chat_id, Seq::saturating(LAST_SEQ + step), &log_hash, Timestamp::saturating(NOW), body);
        assert_eq!(entry, expected);
        assert_eq!(item.previous.get(), LAST_SEQ + step);
        assert_eq!(item.counter.get(), LAST_COUNTER + 1 + step);
        assert_eq!((item.epoch.get(), item.roster_version.get()), (EPOCH, ROSTER_VERSION));
        assert_eq!((item.chat_id, item.key_id), (scene.chat_id, Some(scene.key_id)));
        assert_eq!(item.sender_session_id, scene.ada.session_id);
        assert!(item.new_key.is_none() && item.copies.is_empty());
        log_hash = entry.log_hash;
        assert_eq!(state.last_seq(), entry.seq);
    }
}

#[test]
fn p3_time_never_goes_back_within_a_log() {
    let mut scene = Scene::new();
    scene.loaded.last_at = Timestamp::saturating(NOW + 50);
    let item = submit(&mut scene.state(), scene.ada, &scene.next()).appended();
    assert_eq!(item.entry.unwrap().created_at.get(), NOW + 50);
}

#[test]
fn strangers_and_sessions_that_receive_nothing_get_the_answer_of_no_chat() {
    let mut scene = Scene::new();
    let stranger = Requester { user_id: UserId::generate(), session_id: SessionId::generate() };
    let elsewhere = Requester { session_id: SessionId::generate(), ..scene.ada };
    let next = scene.next();
    for who in [stranger, elsewhere] {
        assert_eq!(is_refused(&scene, who, &next).0, ErrorCode::UnknownChat);
    }
    // A recipient whose user is no member cannot be; if it is, it is a stranger.
    scene.loaded.members.remove(&scene.ada.user_id);
    assert_eq!(is_refused(&scene, scene.ada, &next).0, ErrorCode::UnknownChat);
}

#[test]
fn p7_nobody_sends_in_another_name() {
    let scene = Scene::new();
    let next = scene.next();
    for who in [scene.bob, scene.laptop] {
        assert_eq!(is_refused(&scene, who, &next).0, ErrorCode::BadSignature);
    }
    let mut send = scene.next();
    send.envelope.sender_id = scene.bob.user_id;
    assert_eq!(is_refused(&scene, scene.ada, &send).0, ErrorCode::BadSignature);
    let mut send = scene.next();
    send.envelope.sender_session_id = scene.laptop.session_id;
    assert_eq!(is_refused(&scene, scene.ada, &send).0, ErrorCode::BadSignature);
}

#[test]
fn who_may_not_write_may_not_send_nor_edit() {
    let mut scene = Scene::new();
    scene.member(scene.ada).can_write = false;
    assert_eq!(is_refused(&scene, scene.ada, &scene.next()).0, ErrorCode::CannotWrite);
    let edit = scene.revision(scene.ada, MessageKind::Edit, 2);
    assert_eq!(is_refused(&scene, scene.ada, &edit).0, ErrorCode::CannotWrite);
}

fn changed(scene: &Scene, change: impl FnOnce(&mut Send)) -> (ErrorCode, ErrorDetails) {
    let mut send = scene.next();
    change(&mut send);
    is_refused(scene, scene.ada, &send)
}

#[test]
fn a_message_has_its_shape() {
    let scene = Scene::new();
    let refused = |change: fn(&mut Send)| changed(&scene, change);
    assert_eq!(refused(|send| send.envelope.revision = Revision::saturating(1)).0, ErrorCode::Malformed);
    assert_eq!(refused(|send| send.envelope.purged = Some(Hash([0; 32]))).0, ErrorCode::Malformed);
    assert_eq!(refused(|send| send.envelope.key_id = None).0, ErrorCode::Malformed);
    assert_eq!(refused(|send| send.envelope.data = None).0, ErrorCode::Malformed);
    assert_eq!(refused(|send| send.envelope.kind = MessageKind::Edit).0, ErrorCode::Malformed);
    assert_eq!(refused(|send| send.envelope.kind = MessageKind::Delete).0, ErrorCode::Malformed);
    let attach = |send: &mut Send, count| send.envelope.attachments = vec![AttachmentId::generate(); count];
    assert_eq!(changed(&scene, |send| attach(send, ATTACHMENTS_MAX)).0, ErrorCode::Malformed);
    let (code, details) = changed(&scene, |send| attach(send, ATTACHMENTS_MAX + 1));
    assert_eq!((code, details.limit), (ErrorCode::TooLarge, Some(ATTACHMENTS_MAX as u64)));
}

#[test]
fn data_and_copies_have_bounds_that_may_be_reached() {
    let scene = Scene::new();
    let sized = |size: usize| {
        let mut send = scene.next();
        send.envelope.data = Some(Blob(Bytes::from(vec![0; size])));
        send
    };
    submit(&mut scene.state(), scene.ada, &sized(DATA_BYTES_MAX)).appended();
    let (code, details) = is_refused(&scene, scene.ada, &sized(DATA_BYTES_MAX + 1));
    assert_eq!((code, details.limit), (ErrorCode::TooLarge, Some(DATA_BYTES_MAX as u64)));

    let many = |count| vec![copies_for(&[scene.bob]).remove(0); count];
    // At the bound another rule speaks: two copies for one session.
    let at_bound = changed(&scene, |send| send.add_copies = many(COPIES_PER_FRAME_MAX)).0;
    assert_eq!(at_bound, ErrorCode::Malformed);
    let (code, details) = changed(&scene, |send| send.add_copies = many(COPIES_PER_FRAME_MAX + 1));
    assert_eq!((code, details.limit), (ErrorCode::TooLarge, Some(COPIES_PER_FRAME_MAX as u64)));
    let split = |inline: usize, beside: usize, staged| {
        let mut send = scene.message(scene.ada, KeyId::generate(), 1);
        let mut new_key = scene.new_key(scene.ada, send.envelope.key_id.unwrap(), &[]);
        (new_key.copies, new_key.staged, send.add_copies) = (many(inline), staged, many(beside));
        send.new_key = Some(new_key);
        is_refused(&scene, scene.ada, &send).0
    };
    assert_eq!(split(COPIES_PER_FRAME_MAX - 1, 1, None), ErrorCode::Malformed);
    assert_eq!(split(COPIES_PER_FRAME_MAX, 1, None), ErrorCode::TooLarge);
    // A list that went ahead was bounded when it came.
    assert_eq!(split(COPIES_PER_FRAME_MAX, 1, Some(Hash([0; 32]))), ErrorCode::Malformed);
}

#[test]
fn p3_what_was_seen_is_no_longer_than_the_log() {
    let scene = Scene::new();
    let (code, details) = changed(&scene, |send| send.envelope.seen.seq = Seq::saturating(LAST_SEQ + 1));
    assert_eq!((code, details.seq.map(Seq::get)), (ErrorCode::AheadOfLog, Some(LAST_SEQ)));
    let mut send = scene.next();
    send.envelope.seen.seq = Seq::saturating(1);
    submit(&mut scene.state(), scene.ada, &send).appended();
}

#[test]
fn p4_the_roster_that_was_encrypted_for_is_the_current_one() {
    let scene = Scene::new();
    let (code, details) = changed(&scene, |send| send.envelope.roster_hash = Hash([8; 32]));
    assert_eq!(code, ErrorCode::RosterChanged);
    assert_eq!((details.seq.map(Seq::get), details.epoch.map(Epoch::get)), (Some(ROSTER_VERSION), Some(EPOCH)));
}

#[test]
fn p3_counters_have_no_gaps() {
    let scene = Scene::new();
    for counter in [0, LAST_COUNTER, LAST_COUNTER + 2] {
        let (code, details) = changed(&scene, |send| send.envelope.counter = Counter::saturating(counter));
        assert_eq!((code, details.counter.map(Counter::get)), (ErrorCode::CounterGap, Some(LAST_COUNTER + 1)));
    }
}

#[test]
fn the_answer_names_who_was_not_reached() {
    let mut scene = Scene::new();
    scene.loaded.recipients.remove(&scene.carol.session_id);
    let (bob, gone) = (scene.bob.session_id, SessionId::generate());
    scene.key().refused = [(bob, true), (scene.laptop.session_id, false), (gone, true)].into();
    let mut state = scene.state();
    let entry = submit(&mut state, scene.ada, &scene.next()).appended().entry.unwrap();
    let sent = state.sent(&entry);
    assert_eq!((sent.seq, sent.log_hash, sent.duplicate), (entry.seq, entry.log_hash, false));
    assert_eq!(sent.unreachable, [scene.carol.user_id]);
    assert_eq!(sent.refused, [bob]);
    assert!(state.is_recipient(bob) && !state.is_recipient(gone));
    assert_eq!(state.recipient_count(), 3);
}

#[test]
fn the_stamp_of_the_tests_is_no_signature_of_anything_else() {
    use crate::protocol::verify::Verifier;
    assert!(Stamp.verifies(b"a", &Stamp::sign(b"a")) && !Stamp.verifies(b"a", &Stamp::sign(b"b")));
}
