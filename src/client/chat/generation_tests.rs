//! Tests of user keys, generations and archives as a chat's log and outbox take them.

use super::fake::{FakeChat, FakeSession, expect_send, next_step, push_text};
use super::log::Taken;
use super::outbox::{Step, Verdict};
use super::own_key::KeyLimits;
use super::state::Chat;
use crate::client::error::SendError;
use crate::client::failure::VerificationFailure;
use crate::crypto::UserSecret;
use crate::crypto::group_key::{GroupKey, RecoverySecret};
use crate::protocol::binary::ExchangeKey;
use crate::protocol::certificate::Revoker;
use crate::protocol::error::{ErrorCode, ErrorDetails, MissingReason};
use crate::protocol::fold::FoldError;
use crate::protocol::frame::{MakeGeneration, Send};
use crate::protocol::group_key::{SignedGeneration, SignedWithdrawal, UserKeyEntry, Withdrawal};
use crate::protocol::ids::{ChatId, Epoch, GenerationNo, Seq, Timestamp};
use crate::protocol::keys::commitment;
use crate::protocol::limits::MEMBER_KEYS_MAX;
use crate::protocol::log::EntryBody;
use crate::protocol::membership::Change;
use crate::protocol::strongbox::PublicUserKey;

fn number(number: u64) -> GenerationNo {
    GenerationNo::saturating(number)
}

fn expect_generation(step: Step) -> MakeGeneration {
    match step {
        Step::Generate(generation) => *generation,
        other => panic!("expected a generation, found {other:?}"),
    }
}

/// Ann and Bob in a chat; Bob has a user key. Ann has one message in her outbox.
fn begun() -> (FakeChat, FakeSession, Chat, FakeSession, (PublicUserKey, UserSecret)) {
    let (ann, bob) = (FakeSession::new(), FakeSession::new());
    let mut log = FakeChat::create(&ann);
    log.add(&ann, &bob);
    let key = log.user_key(&bob);
    let mut chat = log.of(&ann);
    push_text(&mut chat, "one");
    (log, ann, chat, bob, key)
}

fn details(seq: Seq) -> ErrorDetails {
    ErrorDetails { seq: Some(seq), ..ErrorDetails::default() }
}

/// What the user key opens of a generation.
fn opened(made: &MakeGeneration, chat_id: ChatId, (key, secret): &(PublicUserKey, UserSecret)) -> RecoverySecret {
    let wrap = made.wraps.iter().find(|wrap| wrap.user_id == key.user_id).unwrap();
    let n = made.generation.generation.number;
    GroupKey::open(&wrap.key, chat_id, n, (key.user_id, key.key_id, secret)).unwrap().recovery()
}

/// Whether the archive of a frame opens to its key.
fn is_archived(send: &Send, recovery: &RecoverySecret) -> bool {
    let (archive, envelope) = (send.archive.as_ref().unwrap(), &send.envelope);
    let secret =
        recovery.open_archive(archive, send.chat_id, envelope.key_id.unwrap(), envelope.sender_session_id).unwrap();
    send.new_key.as_ref().is_none_or(|key| key.announcement.announcement.commitment == commitment(secret.expose()))
}

#[test]
fn p8_a_generation_that_is_due_is_made_before_the_message_and_the_key_goes_to_its_archive_with_it() {
    let (mut log, ann, mut chat, _, bobs_key) = begun();
    let made = expect_generation(next_step(&mut chat, &ann));
    let recovery = opened(&made, log.chat_id, &bobs_key);
    assert_eq!((made.generation.generation.number, made.wraps.len()), (number(1), 1));
    assert_eq!(recovery.public_key(), made.generation.generation.public_key);
    let seq = log.push(EntryBody::Generation(made.generation));
    chat.outbox.hold_until(seq, Epoch::default());
    assert!(matches!(next_step(&mut chat, &ann), Step::Fold(until) if until.seq == seq));
    log.feed(&mut chat, &ann);
    assert_eq!(chat.log.generations().get(number(1)).unwrap().maker, ann.me.session_id);
    let send = expect_send(next_step(&mut chat, &ann));
    assert!(send.new_key.is_some() && is_archived(&send, &recovery));
    assert_eq!(send.envelope.roster_hash, log.fold().roster_hash(), "the recovery key is a recipient");
    // The same bytes go again until there is an answer, out of the keyring too.
    let kept = rmp_serde::to_vec_named(&chat).unwrap();
    let mut again: Chat = rmp_serde::from_slice(&kept).unwrap();
    assert_eq!(expect_send(next_step(&mut again, &ann)), send);
    log.commit(&send);
    log.feed(&mut chat, &ann);
    push_text(&mut chat, "two");
    let second = expect_send(next_step(&mut chat, &ann));
    assert!(second.new_key.is_none() && second.archive.is_none(), "once is enough");
}

#[test]
fn who_loses_the_race_for_a_generation_archives_to_the_winners() {
    let (mut log, ann, mut chat, bob, _) = begun();
    expect_generation(next_step(&mut chat, &ann));
    let bobs = super::generations::make(log.fold(), &bob.me).unwrap();
    let seq = log.push(EntryBody::Generation(bobs.generation));
    let verdict = chat.outbox.generation_refused(ErrorCode::GroupKeyExists, &details(seq));
    assert!(matches!(verdict, Verdict::Again));
    assert!(matches!(next_step(&mut chat, &ann), Step::Fold(until) if until.seq == seq));
    log.feed(&mut chat, &ann);
    let send = expect_send(next_step(&mut chat, &ann));
    assert_eq!(send.archive.unwrap().generation, number(1));

    // Members who change meanwhile make another one due, for those who are there then.
    let (mut log, ann, mut chat, bob, _) = begun();
    expect_generation(next_step(&mut chat, &ann));
    let seq = log.change(&ann, Change::Remove, &bob);
    let verdict = chat.outbox.generation_refused(ErrorCode::RosterChanged, &details(seq));
    assert!(matches!(verdict, Verdict::Again));
    log.feed(&mut chat, &ann);
    let send = expect_send(next_step(&mut chat, &ann));
    assert!(send.archive.is_none(), "nobody is left who has a user key");

    let (_, ann, mut chat, _, _) = begun();
    expect_generation(next_step(&mut chat, &ann));
    let later = chat.outbox.generation_refused(ErrorCode::RateLimited, &ErrorDetails::default());
    assert!(matches!(later, Verdict::Later(None)));
    let refused = chat.outbox.generation_refused(ErrorCode::LimitReached, &ErrorDetails::default());
    assert!(matches!(refused, Verdict::Fail(SendError::Refused { code: ErrorCode::LimitReached })));
    assert!(chat.outbox.is_empty());
}

#[test]
fn a_server_that_refuses_every_generation_is_not_asked_for_ever() {
    let (log, ann, mut chat, _, _) = begun();
    for _ in 0..256 {
        expect_generation(next_step(&mut chat, &ann));
        let verdict = chat.outbox.generation_refused(ErrorCode::GroupKeyExists, &details(log.head().seq));
        assert!(matches!(verdict, Verdict::Again));
    }
    let verdict = chat.outbox.generation_refused(ErrorCode::GroupKeyExists, &details(log.head().seq));
    assert!(matches!(verdict, Verdict::Fail(SendError::GaveUp { code: ErrorCode::GroupKeyExists })));
}

#[test]
fn p8_a_key_that_goes_on_is_archived_to_each_new_generation() {
    let (ann, bob) = (FakeSession::new(), FakeSession::new());
    let mut log = FakeChat::create(&ann);
    log.add(&ann, &bob);
    let mut chat = log.of(&ann);
    let first = log.send(&mut chat, &ann, "before there is a user key");
    log.feed(&mut chat, &ann);
    let bobs_key = log.user_key(&bob);
    push_text(&mut chat, "two");
    // The server says it first.
    let sealed = expect_send(next_step(&mut chat, &ann));
    assert!(sealed.archive.is_none());
    let due = ErrorDetails { generation: Some(number(1)), ..details(log.head().seq) };
    assert!(matches!(chat.outbox.refused(ErrorCode::GroupKeyDue, &due), Verdict::Again));
    log.feed(&mut chat, &ann);
    let made = expect_generation(next_step(&mut chat, &ann));
    let recovery = opened(&made, log.chat_id, &bobs_key);
    log.push(EntryBody::Generation(made.generation));
    log.feed(&mut chat, &ann);
    let send = expect_send(next_step(&mut chat, &ann));
    assert_eq!((send.envelope.key_id, send.new_key.is_none()), (first.key_id, true), "the key goes on");
    assert!(is_archived(&send, &recovery));
    // The server does not have it: it goes again.
    let missing = ErrorDetails { reason: Some(MissingReason::Recovery), ..details(log.head().seq) };
    assert!(matches!(chat.outbox.refused(ErrorCode::CopiesMissing, &missing), Verdict::Again));
    let again = expect_send(next_step(&mut chat, &ann));
    assert_eq!(again.envelope, send.envelope);
    assert!(is_archived(&again, &recovery));
    log.commit(&again);
    log.feed(&mut chat, &ann);
    // A signal goes under a key that the recovery key has too, and under no other.
    let limits: KeyLimits = super::fake::LIMITS;
    assert!(chat.outbox.live_key(log.fold(), &limits, super::fake::NOW).is_some());
    let (ours, _) = log.user_key(&ann);
    log.feed(&mut chat, &ann);
    assert!(chat.outbox.live_key(log.fold(), &limits, super::fake::NOW).is_none(), "another generation is due");
    push_text(&mut chat, "three");
    let made = expect_generation(next_step(&mut chat, &ann));
    assert!(made.wraps.iter().any(|wrap| wrap.user_id == ours.user_id), "the maker's own user key gets a wrap too");
    assert_eq!((made.generation.generation.number, made.wraps.len()), (number(2), 2));
}

#[test]
fn p7_what_is_wrong_with_user_keys_and_generations_is_named_and_stops_nobody() {
    let (mut log, ann, mut chat, bob, (old, _)) = begun();
    let due = super::generations::make(log.fold(), &ann.me).unwrap().generation;
    let refused = |log: &mut FakeChat, chat: &mut Chat, body: EntryBody, expected: FoldError| {
        log.push(body);
        let taken = log.feed(chat, &ann);
        assert!(
            matches!(&taken[..], [Taken::Refused(VerificationFailure::Fold(error))] if *error == expected),
            "{taken:?} {expected:?}"
        );
    };
    let signed = |change: &dyn Fn(&mut SignedGeneration)| {
        let mut bad = due;
        change(&mut bad);
        bad.signature = ann.me.secrets.sign(&bad.generation.signed_bytes(log.chat_id));
        EntryBody::Generation(bad)
    };
    let small_order = signed(&|bad| bad.generation.public_key = ExchangeKey([0; 32]));
    let stale_members = signed(&|bad| bad.generation.change_no = bad.generation.change_no.next());
    let wrong_number = signed(&|bad| bad.generation.number = number(7));
    let mut forged = due;
    forged.generation.session_id = bob.me.session_id;
    for (body, expected) in [
        (small_order, FoldError::Generation),
        (stale_members, FoldError::Generation),
        (wrong_number, FoldError::Generation),
        (EntryBody::Generation(forged), FoldError::Signature),
    ] {
        refused(&mut log, &mut chat, body, expected);
    }
    // A user key that was replaced does not return, and nobody else withdraws one.
    let (new, _) = log.user_key(&bob);
    assert!(matches!(log.feed(&mut chat, &ann)[..], [Taken::UserKey { before, now, .. }]
        if (before, now) == (Some(old.key_id), Some(new.key_id))));
    refused(&mut log, &mut chat, EntryBody::UserKey(UserKeyEntry::Set(old)), FoldError::Over);
    let withdrawal = Withdrawal {
        user_id: bob.me.user_id,
        key_id: new.key_id,
        revoker: Revoker::Session(ann.me.session_id),
        created_at: Timestamp::saturating(1),
    };
    let signature = ann.me.secrets.sign(&withdrawal.signed_bytes());
    let withdrawn = UserKeyEntry::Withdrawn(SignedWithdrawal { withdrawal, signature });
    refused(&mut log, &mut chat, EntryBody::UserKey(withdrawn), FoldError::Signature);
    // The message goes.
    let made = expect_generation(next_step(&mut chat, &ann));
    log.push(EntryBody::Generation(made.generation));
    log.feed(&mut chat, &ann);
    expect_send(next_step(&mut chat, &ann));
}

#[test]
fn a_chat_with_more_user_keys_than_fit_in_a_frame_has_no_group_key() {
    let ann = FakeSession::new();
    let mut log = FakeChat::create(&ann);
    log.user_key(&ann);
    while log.fold().member_keys().len() < MEMBER_KEYS_MAX {
        let member = FakeSession::new();
        log.add_without_sessions(&ann, &member);
        log.user_key(&member);
    }
    let made = super::generations::make(log.fold(), &ann.me).unwrap();
    assert_eq!(made.wraps.len(), MEMBER_KEYS_MAX);
    let one_more = FakeSession::new();
    log.add_without_sessions(&ann, &one_more);
    log.user_key(&one_more);
    assert!(super::generations::make(log.fold(), &ann.me).is_none());
    assert_eq!((log.fold().generation_due(), log.fold().recovery_key()), (None, None));
}
