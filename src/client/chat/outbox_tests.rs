//! Tests of what an outbox makes of answers, refusals and lost connections.

use super::fake::{FakeChat, FakeSession, LIMITS, NOW, expect_send, next_step, push_text, step_at};
use super::outbox::{Draft, Name, Step, Until, Verdict};
use super::own_key::KeyLimits;
use super::state::Chat;
use crate::client::error::SendError;
use crate::protocol::envelope::MessageKind;
use crate::protocol::error::{ErrorCode, ErrorDetails};
use crate::protocol::frame::Send;
use crate::protocol::ids::{Counter, Epoch, MessageId, Revision, Seq, SessionId};
use crate::protocol::keys::staged_hash;
use crate::protocol::limits::{COPIES_PER_FRAME_MAX, DATA_BYTES_MAX};
use crate::protocol::membership::Change;

/// Ann's chat with Bob in it; Ann has one message in her outbox and its first frame.
fn begun() -> (FakeChat, FakeSession, Chat, FakeSession, Send) {
    let (ann, bob) = (FakeSession::new(), FakeSession::new());
    let mut log = FakeChat::create(&ann);
    log.add(&ann, &bob);
    let mut chat = log.of(&ann);
    push_text(&mut chat, "one");
    let send = expect_send(next_step(&mut chat, &ann));
    (log, ann, chat, bob, send)
}

fn name_of(send: &Send) -> Name {
    (send.envelope.message_id, send.envelope.revision)
}

fn details(seq: Seq) -> ErrorDetails {
    ErrorDetails { seq: Some(seq), ..ErrorDetails::default() }
}

fn refuse(chat: &mut Chat, code: ErrorCode, details: &ErrorDetails) {
    assert!(matches!(chat.outbox.refused(code, details), Verdict::Again), "{code}");
}

fn key_of(send: &Send) -> (crate::protocol::ids::KeyId, Counter) {
    (send.envelope.key_id.unwrap(), send.envelope.counter)
}

#[test]
fn p2_the_same_bytes_go_until_an_answer_is_definite_even_from_the_keyring() {
    let (mut log, ann, mut chat, bob, first) = begun();
    let copied: Vec<SessionId> = first.new_key.iter().flat_map(|key| &key.copies).map(|copy| copy.session_id).collect();
    let mut expected = vec![ann.me.session_id, bob.me.session_id];
    expected.sort();
    assert_eq!(copied, expected);
    for code in [ErrorCode::StorageUnavailable, ErrorCode::RateLimited, ErrorCode::Internal] {
        assert!(matches!(chat.outbox.refused(code, &ErrorDetails::default()), Verdict::Later(None)));
        assert_eq!(expect_send(next_step(&mut chat, &ann)), first);
    }
    chat.outbox.disconnected();
    let kept = rmp_serde::to_vec_named(&chat).unwrap();
    // Somebody else changes the chat meanwhile: what may be in the log already stays as it is.
    log.session_in(&bob.sibling());
    log.feed(&mut chat, &ann);
    assert_eq!(expect_send(next_step(&mut chat, &ann)), first);
    let mut again: Chat = rmp_serde::from_slice(&kept).unwrap();
    assert_eq!(expect_send(next_step(&mut again, &ann)), first);
    assert!(again.outbox.withdraw(first.envelope.message_id).is_empty(), "it may be on its way");
    assert!(!again.outbox.give_up(name_of(&first)), "it may have left before");
}

#[test]
fn a_message_whose_answer_was_lost_is_done_when_the_log_shows_it() {
    let (mut log, ann, mut chat, _, first) = begun();
    log.commit(&first);
    log.feed(&mut chat, &ann);
    assert!(chat.outbox.is_empty());
    assert!(!chat.outbox.committed(name_of(&first)), "the answer comes second and changes nothing");
    push_text(&mut chat, "two");
    let second = expect_send(next_step(&mut chat, &ann));
    assert_eq!(key_of(&second), (key_of(&first).0, Counter::saturating(2)));
    assert!(second.new_key.is_none());
}

#[test]
fn p4_missing_copies_follow_for_recipients_of_the_fold_alone() {
    let (mut log, ann, mut chat, bob, first) = begun();
    let tablet = bob.sibling();
    let seq = log.session_in(&tablet);
    log.take_copies(&first);
    let missing = ErrorDetails { missing: vec![tablet.me.session_id], ..details(seq) };
    refuse(&mut chat, ErrorCode::CopiesMissing, &missing);
    let until = Until { seq, epoch: Epoch::default() };
    assert!(matches!(next_step(&mut chat, &ann), Step::Fold(found) if found == until));
    log.feed(&mut chat, &ann);
    let second = expect_send(next_step(&mut chat, &ann));
    assert_eq!(key_of(&second), key_of(&first), "same key, same counter");
    assert_eq!(second.envelope.message_id, first.envelope.message_id);
    assert_eq!(second.envelope.data, first.envelope.data);
    assert_eq!(second.envelope.roster_hash, log.fold().roster_hash());
    assert!(second.new_key.is_none());
    assert_eq!(second.add_copies.iter().map(|copy| copy.session_id).collect::<Vec<_>>(), [tablet.me.session_id]);
}

#[test]
fn copies_that_the_fold_had_already_go_with_the_same_signed_bytes() {
    let (log, ann, mut chat, bob, first) = begun();
    let missing = ErrorDetails { missing: vec![bob.me.session_id], ..details(log.head().seq) };
    refuse(&mut chat, ErrorCode::CopiesMissing, &missing);
    let second = expect_send(next_step(&mut chat, &ann));
    assert_eq!(second.envelope, first.envelope);
    assert_eq!(second.add_copies.len(), 1);
    // Refused copies of a stored key are kept and go again beside those asked for next.
    let missing = ErrorDetails { missing: vec![ann.me.session_id], ..details(log.head().seq) };
    refuse(&mut chat, ErrorCode::CopiesMissing, &missing);
    assert_eq!(expect_send(next_step(&mut chat, &ann)).add_copies.len(), 2);
}

#[test]
fn p7_a_recipient_whom_the_log_does_not_know_gets_nothing() {
    let (log, ann, mut chat, _, first) = begun();
    let ghost = SessionId::generate();
    let missing = ErrorDetails { missing: vec![ghost], ..details(log.head().seq) };
    refuse(&mut chat, ErrorCode::CopiesMissing, &missing);
    let Step::Fail(message_id, SendError::GhostRecipient { session_id }) = next_step(&mut chat, &ann) else {
        panic!("a ghost is an alarm");
    };
    assert_eq!((message_id, session_id), (name_of(&first), ghost));
}

#[test]
fn p5_after_a_removal_there_is_a_new_key_without_the_removed() {
    let (mut log, ann, mut chat, bob, first) = begun();
    log.commit(&first);
    log.feed(&mut chat, &ann);
    push_text(&mut chat, "two");
    let stale = expect_send(next_step(&mut chat, &ann));
    let seq = log.change(&ann, Change::Remove, &bob);
    let epoch = Some(log.fold().epoch());
    refuse(&mut chat, ErrorCode::KeyStale, &ErrorDetails { epoch, ..ErrorDetails::default() });
    assert!(matches!(next_step(&mut chat, &ann), Step::Fold(until) if Some(until.epoch) == epoch));
    log.feed(&mut chat, &ann);
    let fresh = expect_send(next_step(&mut chat, &ann));
    assert_ne!(key_of(&fresh).0, key_of(&stale).0);
    assert_eq!(fresh.envelope.counter, Counter::saturating(1));
    assert_eq!(fresh.envelope.message_id, stale.envelope.message_id);
    let new_key = fresh.new_key.as_ref().unwrap();
    assert_eq!(new_key.copies.iter().map(|copy| copy.session_id).collect::<Vec<_>>(), [ann.me.session_id]);
    let previous = new_key.announcement.announcement.previous.unwrap();
    assert_eq!((previous.key_id, previous.last_counter), (key_of(&first).0, Counter::saturating(1)));
    assert_eq!(chat.log.head().seq, seq);
}

#[test]
fn a_roster_that_changed_is_signed_again_under_the_same_counter() {
    let (mut log, ann, mut chat, bob, first) = begun();
    let tablet = bob.sibling();
    let seq = log.session_in(&tablet);
    refuse(&mut chat, ErrorCode::RosterChanged, &details(seq));
    log.feed(&mut chat, &ann);
    let second = expect_send(next_step(&mut chat, &ann));
    assert_eq!(key_of(&second), key_of(&first));
    assert_ne!(second.envelope.signature, first.envelope.signature);
    let new_key = second.new_key.unwrap();
    assert_eq!(new_key.copies.len(), 3, "the key was never stored, so it goes whole");
    assert_eq!(new_key.announcement, first.new_key.unwrap().announcement);
}

#[test]
fn keys_are_changed_by_count_and_by_age() {
    let limits = KeyLimits { messages_max: 2, ..LIMITS };
    let (mut log, ann, mut chat, _, first) = begun();
    let mut keys = vec![key_of(&first)];
    log.commit(&first);
    log.feed(&mut chat, &ann);
    for _ in 0..3 {
        push_text(&mut chat, "more");
        let send = expect_send(step_at(&mut chat, &ann, limits, NOW));
        keys.push(key_of(&send));
        log.commit(&send);
        log.feed(&mut chat, &ann);
    }
    assert_eq!(keys.iter().map(|(_, counter)| counter.get()).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert_eq!(keys[0].0, keys[1].0);
    assert_ne!(keys[1].0, keys[2].0);
    push_text(&mut chat, "later");
    let late = NOW.plus_micros(LIMITS.age_max_micros);
    assert_ne!(key_of(&expect_send(step_at(&mut chat, &ann, LIMITS, late))).0, keys[3].0);
    // In a chat of more recipients than `recipients_large` the other limit counts.
    let large = KeyLimits { messages_max_large: 1, recipients_large: 1, ..LIMITS };
    let (mut log, ann, mut chat, _, first) = begun();
    log.commit(&first);
    log.feed(&mut chat, &ann);
    push_text(&mut chat, "two");
    assert_ne!(key_of(&expect_send(step_at(&mut chat, &ann, large, NOW))).0, key_of(&first).0);
}

#[test]
fn a_spent_or_unknown_key_is_replaced_or_uploaded_again() {
    let (_, ann, mut chat, _, first) = begun();
    refuse(&mut chat, ErrorCode::UnknownKey, &ErrorDetails::default());
    let again = expect_send(next_step(&mut chat, &ann));
    assert_eq!(again.envelope, first.envelope);
    assert_eq!(again.new_key.unwrap().announcement, first.new_key.unwrap().announcement);
    refuse(&mut chat, ErrorCode::KeySpent, &ErrorDetails::default());
    let fresh = expect_send(next_step(&mut chat, &ann));
    assert_ne!(key_of(&fresh).0, first.envelope.key_id.unwrap());
    assert_eq!(fresh.new_key.unwrap().announcement.announcement.previous, None, "the first was never stored");
}

#[test]
fn a_counter_that_this_very_frame_may_hold_is_waited_out() {
    let (mut log, ann, mut chat, _, first) = begun();
    let next = ErrorDetails { counter: Some(Counter::saturating(2)), ..ErrorDetails::default() };
    assert!(matches!(chat.outbox.refused(ErrorCode::CounterGap, &next), Verdict::Later(None)));
    assert_eq!(expect_send(next_step(&mut chat, &ann)), first);
    log.commit(&first);
    log.feed(&mut chat, &ann);
    assert!(chat.outbox.is_empty());
}

#[test]
fn a_counter_that_nobody_has_seen_leads_to_a_new_key() {
    let (_, ann, mut chat, _, first) = begun();
    let next = ErrorDetails { counter: Some(Counter::saturating(7)), ..ErrorDetails::default() };
    let mut waits = 0;
    while matches!(chat.outbox.refused(ErrorCode::CounterGap, &next), Verdict::Later(_)) {
        waits += 1;
        assert_eq!(expect_send(next_step(&mut chat, &ann)), first);
    }
    assert!((2..30).contains(&waits));
    let fresh = expect_send(next_step(&mut chat, &ann));
    assert_ne!(key_of(&fresh).0, key_of(&first).0);
    assert_eq!(fresh.envelope.counter, Counter::saturating(1));
}

#[test]
fn definite_answers_end_a_message_and_the_next_one_uses_its_counter() {
    let (log, ann, mut chat, _, first) = begun();
    push_text(&mut chat, "two");
    let failed = chat.outbox.refused(ErrorCode::CannotWrite, &ErrorDetails::default());
    assert!(matches!(failed, Verdict::Fail(SendError::Refused { code: ErrorCode::CannotWrite })));
    let second = expect_send(next_step(&mut chat, &ann));
    assert_ne!(second.envelope.message_id, first.envelope.message_id);
    assert_eq!(second.envelope.counter, first.envelope.counter);
    let stored = crate::protocol::frame::SendOk {
        seq: Seq::saturating(9),
        created_at: NOW,
        log_hash: log.head().log_hash,
        duplicate: false,
        unreachable: Vec::new(),
        refused: Vec::new(),
    };
    let reused = ErrorDetails { stored: Some(stored.clone()), ..ErrorDetails::default() };
    let done = chat.outbox.refused(ErrorCode::IdReused, &reused);
    assert!(matches!(done, Verdict::Done(found) if *found == stored));
    assert!(chat.outbox.is_empty());
}

#[test]
fn a_message_is_given_up_after_many_refusals_and_a_large_one_never_begins() {
    let (log, ann, mut chat, _, first) = begun();
    let mut tries = 0;
    let verdict = loop {
        match chat.outbox.refused(ErrorCode::RosterChanged, &details(log.head().seq)) {
            Verdict::Again => tries += 1,
            other => break other,
        }
        assert_eq!(expect_send(next_step(&mut chat, &ann)).envelope, first.envelope);
    };
    assert!(matches!(verdict, Verdict::Fail(SendError::GaveUp { code: ErrorCode::RosterChanged })));
    assert!((100..1_000).contains(&tries));
    let error = chat.outbox.push(Draft::message(first.envelope.message_id, vec![0; DATA_BYTES_MAX - 27])).unwrap_err();
    assert!(matches!(error, SendError::TooLarge { size_max, .. } if size_max == DATA_BYTES_MAX - 28));
    chat.outbox.push(Draft::message(first.envelope.message_id, vec![0; DATA_BYTES_MAX - 28])).unwrap();
    assert_eq!(expect_send(next_step(&mut chat, &ann)).envelope.data.unwrap().len(), DATA_BYTES_MAX);
}

#[test]
fn who_is_removed_or_may_not_write_fails_at_once() {
    let (mut log, ann, _, bob, _) = begun();
    let mut chat = log.of(&bob);
    log.change(&ann, Change::Remove, &bob);
    log.feed(&mut chat, &bob);
    push_text(&mut chat, "gone");
    assert!(matches!(next_step(&mut chat, &bob), Step::Fail(_, SendError::NotMember)));
}

#[test]
fn more_copies_than_fit_go_ahead_in_parts() {
    let ann = FakeSession::new();
    let mut log = FakeChat::create(&ann);
    let mut place = ann.sibling();
    for _ in 0..COPIES_PER_FRAME_MAX {
        log.session_in(&place);
        place = place.sibling();
    }
    let mut chat = log.of(&ann);
    push_text(&mut chat, "to all");
    let mut copies = Vec::new();
    let stage = |chat: &mut Chat, part| {
        let Step::Stage(stage) = next_step(chat, &ann) else { panic!("part {part} goes first") };
        assert_eq!((stage.part, stage.parts), (part, 2));
        chat.outbox.staged();
        stage.copies
    };
    copies.extend(stage(&mut chat, 0));
    // On another connection what was staged is gone, so it goes again.
    chat.outbox.disconnected();
    assert_eq!(stage(&mut chat, 0), copies);
    copies.extend(stage(&mut chat, 1));
    let send = expect_send(next_step(&mut chat, &ann));
    let new_key = send.new_key.clone().unwrap();
    assert!(new_key.copies.is_empty());
    assert_eq!(new_key.staged, Some(staged_hash(copies.iter())));
    assert_eq!(copies.len(), COPIES_PER_FRAME_MAX + 1);
    assert!(chat.outbox.committed(name_of(&send)));
    push_text(&mut chat, "again");
    let second = expect_send(next_step(&mut chat, &ann));
    assert!(second.new_key.is_none() && second.add_copies.is_empty());
}

fn revise(chat: &mut Chat, kind: MessageKind, of: &Send, revision: u64) -> Name {
    let (message_id, revision) = (of.envelope.message_id, Revision::saturating(revision));
    let draft = Draft { kind, message_id, revision, body: b"edited".to_vec(), is_receipt: false };
    let name = draft.name();
    chat.outbox.push(draft).unwrap();
    name
}

#[test]
fn an_edit_uses_the_key_and_a_deletion_none() {
    let (mut log, ann, mut chat, _, first) = begun();
    assert_eq!(chat.outbox.next_revision(first.envelope.message_id), Some(Revision::saturating(1)), "it is on its way");
    let edit = revise(&mut chat, MessageKind::Edit, &first, 1);
    let deletion = revise(&mut chat, MessageKind::Delete, &first, 2);
    assert!(chat.outbox.withdraw(MessageId::generate()).is_empty());
    log.commit(&first);
    assert!(chat.outbox.committed(name_of(&first)));
    let second = expect_send(next_step(&mut chat, &ann));
    assert_eq!((name_of(&second), key_of(&second)), (edit, (key_of(&first).0, Counter::saturating(2))));
    log.commit(&second);
    assert!(chat.outbox.committed(edit));
    // What the server has taken counts, though the log has not shown it.
    assert_eq!(chat.outbox.next_revision(edit.0), Some(Revision::saturating(3)));
    let third = expect_send(next_step(&mut chat, &ann));
    assert_eq!((name_of(&third), third.envelope.kind), (deletion, MessageKind::Delete));
    assert_eq!(
        (third.envelope.key_id, third.envelope.counter, &third.envelope.data),
        (None, Counter::default(), &None)
    );
    // The same bytes until an answer is definite, then for other recipients a new signature.
    assert!(matches!(chat.outbox.refused(ErrorCode::Internal, &ErrorDetails::default()), Verdict::Later(None)));
    assert_eq!(expect_send(next_step(&mut chat, &ann)), third);
    let seq = log.session_in(&ann.sibling());
    refuse(&mut chat, ErrorCode::RosterChanged, &details(seq));
    log.feed(&mut chat, &ann);
    let again = expect_send(next_step(&mut chat, &ann));
    assert_ne!(again.envelope.roster_hash, third.envelope.roster_hash);
    log.commit(&again);
    log.feed(&mut chat, &ann);
    assert!(chat.outbox.is_empty());
    assert_eq!(chat.outbox.next_revision(edit.0), None);
    assert_eq!(chat.log.messages().next_revision(edit.0), Some(Revision::saturating(3)));
}

#[test]
fn a_conflict_of_revisions_is_answered_and_never_mended_by_itself() {
    let revision = Some(Revision::saturating(4));
    let conflict = ErrorDetails { revision, ..ErrorDetails::default() };
    for kind in [MessageKind::Edit, MessageKind::Delete] {
        let (mut log, ann, mut chat, _, first) = begun();
        log.commit(&first);
        log.feed(&mut chat, &ann);
        for (code, details) in [
            (ErrorCode::EditConflict, conflict.clone()),
            (ErrorCode::UnknownMessage, ErrorDetails::default()),
            (ErrorCode::IdReused, ErrorDetails::default()),
        ] {
            revise(&mut chat, kind, &first, 1);
            expect_send(next_step(&mut chat, &ann));
            let verdict = chat.outbox.refused(code, &details);
            match code {
                ErrorCode::EditConflict => {
                    assert!(
                        matches!(verdict, Verdict::Fail(SendError::EditConflict { revision }) if revision.get() == 4)
                    );
                }
                ErrorCode::UnknownMessage => assert!(matches!(verdict, Verdict::Fail(SendError::UnknownMessage))),
                _ => assert!(matches!(verdict, Verdict::Fail(SendError::EditConflict { .. }))),
            }
            assert!(chat.outbox.is_empty());
        }
        // The counter of what was refused is used by the next.
        push_text(&mut chat, "next");
        assert_eq!(expect_send(next_step(&mut chat, &ann)).envelope.counter, Counter::saturating(2));
    }
}

#[test]
fn of_read_marks_one_is_on_its_way_and_the_newest_waits() {
    let (_, ann, mut chat, _, first) = begun();
    let mark = |body: u8| Draft { is_receipt: true, ..Draft::message(MessageId::generate(), vec![body]) };
    chat.outbox.push(mark(1)).unwrap();
    chat.outbox.push(mark(2)).unwrap();
    assert_eq!(chat.outbox.len(), 2);
    assert!(chat.outbox.committed(name_of(&first)));
    let open = expect_send(next_step(&mut chat, &ann));
    chat.outbox.push(mark(3)).unwrap();
    chat.outbox.push(mark(4)).unwrap();
    assert_eq!(chat.outbox.len(), 2, "what is open stays as it is");
    assert_eq!(expect_send(next_step(&mut chat, &ann)), open);
    assert!(chat.outbox.committed(name_of(&open)));
    assert_ne!(expect_send(next_step(&mut chat, &ann)).envelope.message_id, open.envelope.message_id);
}
