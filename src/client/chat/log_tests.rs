//! Tests of what a session takes from a log, and what it does not.

use super::fake::{FakeChat, FakeSession, expect_send, next_step, push_text};
use super::log::{ChatLog, Content, Taken};
use super::outbox::Draft;
use super::state::Chat;
use crate::client::body::Body;
use crate::client::failure::VerificationFailure;
use crate::protocol::binary::Hash;
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::fold::FoldError;
use crate::protocol::ids::{Counter, Epoch, Revision, Seq, Timestamp};
use crate::protocol::log::{EntryBody, LogEntry, SessionOut, log_hash};
use crate::protocol::membership::{Change, MembershipChange, SignedChange, Target};

type Tamper = fn(&mut Envelope);

fn contents(taken: Vec<Taken>) -> Vec<Result<Content, VerificationFailure>> {
    let messages = taken.into_iter().filter_map(|taken| match taken {
        Taken::Message(message) => Some(message.content),
        Taken::Refused(failure) => Some(Err(failure)),
        _ => None,
    });
    messages.collect()
}

fn text(text: &str) -> Result<Content, VerificationFailure> {
    Ok(Content::Body(Body::text(text)))
}

/// Ann's chat with Bob in it, and both their states.
fn two() -> (FakeChat, FakeSession, Chat, FakeSession, Chat) {
    let (ann, bob) = (FakeSession::new(), FakeSession::new());
    let mut log = FakeChat::create(&ann);
    log.add(&ann, &bob);
    let (anns, bobs) = (log.of(&ann), log.of(&bob));
    (log, ann, anns, bob, bobs)
}

#[test]
fn p3_p4_everybody_opens_the_same_log_in_order() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    log.send(&mut anns, &ann, "one");
    log.feed(&mut bobs, &bob);
    log.send(&mut bobs, &bob, "two");
    log.feed(&mut anns, &ann);
    log.send(&mut anns, &ann, "three");
    let mut late = log.joined(&bob);
    assert_eq!(contents(log.feed(&mut late, &bob)), [text("one"), text("two"), text("three")]);
    log.feed(&mut anns, &ann);
    log.feed(&mut bobs, &bob);
    assert_eq!(anns.log.head(), log.head());
    assert_eq!(bobs.log.head(), log.head());
    assert_eq!(late.log.head(), log.head());
}

#[test]
fn a_state_that_was_kept_goes_on_where_it_was() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    log.send(&mut anns, &ann, "one");
    log.feed(&mut bobs, &bob);
    let kept = rmp_serde::to_vec_named(&bobs).unwrap();
    log.feed(&mut anns, &ann);
    log.send(&mut anns, &ann, "two");
    let mut again: Chat = rmp_serde::from_slice(&kept).unwrap();
    assert_eq!(contents(log.feed(&mut again, &bob)), [text("two")]);
    assert!(matches!(again.take(&log.entries[2], &bob.me), Ok(Taken::Duplicate)));
}

#[test]
fn p3_a_withheld_or_altered_entry_breaks_the_chain_and_changes_nothing() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    log.send(&mut anns, &ann, "one");
    log.feed(&mut anns, &ann);
    log.send(&mut anns, &ann, "two");
    let [.., first, second] = &log.entries[..] else { panic!() };
    let before = bobs.log.head();
    let gap = bobs.take(second, &bob.me).unwrap_err();
    assert_eq!(gap, VerificationFailure::Gap { expected: first.seq, found: second.seq });
    let moved = LogEntry { seq: first.seq, ..second.clone() };
    assert_eq!(bobs.take(&moved, &bob.me).unwrap_err(), VerificationFailure::LogHash);
    let dated = LogEntry { created_at: Timestamp::saturating(7), ..first.clone() };
    assert_eq!(bobs.take(&dated, &bob.me).unwrap_err(), VerificationFailure::LogHash);
    assert!(gap.breaks_chain());
    assert_eq!(bobs.log.head(), before);
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [text("one"), text("two")]);
}

#[test]
fn p7_a_message_that_does_not_verify_is_named_and_stops_nobody() {
    let cases: [(&str, bool, Tamper, VerificationFailure); 8] = [
        ("signature", false, |envelope| envelope.signature.0[40] ^= 1, VerificationFailure::Signature),
        ("data", false, |envelope| envelope.data = Some(b"other".to_vec().into()), VerificationFailure::Signature),
        ("moved data", true, |envelope| envelope.data = Some(vec![0; 64].into()), VerificationFailure::Undecryptable),
        ("roster", true, |envelope| envelope.roster_hash = Hash([7; 32]), VerificationFailure::RosterHash),
        (
            "counter",
            true,
            |envelope| envelope.counter = Counter::saturating(9),
            VerificationFailure::Counter { expected: Counter::saturating(1), found: Counter::saturating(9) },
        ),
        (
            "seen, another hash",
            true,
            |envelope| envelope.seen.log_hash = Hash([7; 32]),
            VerificationFailure::Fork { seq: Seq::saturating(4) },
        ),
        (
            "seen, ahead",
            true,
            |envelope| envelope.seen = Seen { seq: Seq::saturating(5), log_hash: Hash([7; 32]) },
            VerificationFailure::Fork { seq: Seq::saturating(5) },
        ),
        (
            "another user's name",
            true,
            |envelope| envelope.sender_id = crate::protocol::ids::UserId::generate(),
            VerificationFailure::GhostSender,
        ),
    ];
    for (name, is_signed, tamper, expected) in cases {
        let (mut log, ann, mut anns, bob, mut bobs) = two();
        push_text(&mut anns, "bad");
        let mut send = expect_send(next_step(&mut anns, &ann));
        tamper(&mut send.envelope);
        if is_signed {
            send.envelope.signature = ann.me.secrets.sign(&send.envelope.signed_bytes(log.chat_id));
        }
        log.commit(&send);
        assert_eq!(contents(log.feed(&mut bobs, &bob)), [Err(expected)], "{name}");
        log.send(&mut bobs, &bob, "still here");
        log.feed(&mut bobs, &bob);
        assert_eq!(bobs.log.head(), log.head(), "{name}");
    }
}

#[test]
fn p7_a_session_whose_seen_goes_back_is_a_fork() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    log.send(&mut anns, &ann, "one");
    log.feed(&mut anns, &ann);
    let first = log.send(&mut anns, &ann, "two");
    log.feed(&mut anns, &ann);
    push_text(&mut anns, "three");
    let mut send = expect_send(next_step(&mut anns, &ann));
    send.envelope.seen = Seen { seq: Seq::saturating(4), log_hash: log.entries[3].log_hash };
    send.envelope.signature = ann.me.secrets.sign(&send.envelope.signed_bytes(log.chat_id));
    log.commit(&send);
    assert!(first.seen.seq > send.envelope.seen.seq);
    let fork = Err(VerificationFailure::Fork { seq: Seq::saturating(4) });
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [text("one"), text("two"), fork.clone()]);
    // The step back has made no room for another one.
    log.feed(&mut anns, &ann);
    push_text(&mut anns, "four");
    let mut send = expect_send(next_step(&mut anns, &ann));
    send.envelope.seen = Seen { seq: Seq::saturating(4), log_hash: log.entries[3].log_hash };
    send.envelope.signature = ann.me.secrets.sign(&send.envelope.signed_bytes(log.chat_id));
    log.commit(&send);
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [fork]);
}

#[test]
fn p7_a_change_of_members_whose_seen_goes_back_is_a_fork_and_counts_all_the_same() {
    let (mut log, ann, _, bob, mut bobs) = two();
    log.change(&ann, Change::Rekey, &ann);
    let membership = log.fold().membership();
    let change = MembershipChange {
        n: membership.head.next(),
        previous: membership.hash,
        seen: Seen { seq: Seq::saturating(3), log_hash: log.entries[2].log_hash },
        actor: ann.me.actor(),
        change: Change::Rekey,
        target: Target { user_id: ann.me.user_id, identity_key: ann.me.identity_key },
    };
    let signature = ann.me.secrets.sign(&change.signed_bytes(log.chat_id));
    log.push(EntryBody::Membership(SignedChange { change, signature }));
    let forks: Vec<Option<VerificationFailure>> = log
        .feed(&mut bobs, &bob)
        .into_iter()
        .filter_map(|taken| match taken {
            Taken::Member { fork, .. } => Some(fork),
            _ => None,
        })
        .collect();
    assert_eq!(forks, [None, Some(VerificationFailure::Fork { seq: Seq::saturating(3) })]);
    assert_eq!(bobs.log.fold().epoch(), log.fold().epoch());
}

#[test]
fn p5_a_key_from_before_a_removal_is_refused_after_it() {
    let (ann, bob, eve) = (FakeSession::new(), FakeSession::new(), FakeSession::new());
    let mut log = FakeChat::create(&ann);
    log.add(&ann, &bob);
    log.add(&ann, &eve);
    let (mut anns, mut bobs) = (log.of(&ann), log.of(&bob));
    push_text(&mut anns, "late");
    let mut late = expect_send(next_step(&mut anns, &ann));
    log.change(&ann, Change::Remove, &eve);
    log.feed(&mut bobs, &bob);
    // Ann's device is made to sign the new roster under the key that Eve holds.
    late.envelope.roster_hash = log.fold().roster_hash();
    late.envelope.signature = ann.me.secrets.sign(&late.envelope.signed_bytes(log.chat_id));
    log.commit(&late);
    let (key, chat) = (Epoch::saturating(3), Epoch::saturating(4));
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [Err(VerificationFailure::KeyEpoch { key, chat })]);
}

#[test]
fn p4_a_bad_or_missing_copy_is_named() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    let envelope = log.send(&mut anns, &ann, "one");
    let key_id = envelope.key_id.unwrap();
    log.copies.remove(&(key_id, bob.me.session_id));
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [Err(VerificationFailure::NoCopy)]);

    let (mut log, ann, mut anns, bob, mut bobs) = two();
    let envelope = log.send(&mut anns, &ann, "one");
    let key_id = envelope.key_id.unwrap();
    log.copies.get_mut(&(key_id, bob.me.session_id)).unwrap().0[50] ^= 1;
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [Err(VerificationFailure::BadCopy)]);

    // A copy of another key, rightly wrapped, is not what was announced.
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    let envelope = log.send(&mut anns, &ann, "one");
    let key_id = envelope.key_id.unwrap();
    let other = crate::crypto::wrap::sender_key(
        &crate::crypto::Secret::generate(),
        log.chat_id,
        key_id,
        ann.me.session_id,
        (bob.me.session_id, &bob.me.secrets.public_key()),
    );
    log.copies.insert((key_id, bob.me.session_id), other.unwrap().key);
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [Err(VerificationFailure::BadCopy)]);
}

#[test]
fn p7_ghosts_and_forged_events_change_nothing() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    let eve = FakeSession::new();
    let roster = bobs.log.roster_hash();
    // A session that Bob's identity never certified, and a member whom nobody with the right added.
    log.session_in(&eve);
    let mut ghost = bob.sibling();
    ghost.certificate.signature.0[3] ^= 1;
    log.session_in(&ghost);
    log.change(
        &eve,
        Change::Add { can_write: true, can_manage: true, roster_hash: roster, epoch: Epoch::saturating(2) },
        &eve,
    );
    log.change(&bob, Change::Remove, &ann);
    log.push(EntryBody::SessionOut(SessionOut::Expired { user_id: ann.me.user_id, session_id: ann.me.session_id }));
    let failures: Vec<_> = contents(log.feed(&mut bobs, &bob)).into_iter().map(Result::unwrap_err).collect();
    let expected = [
        FoldError::GhostMember,
        FoldError::Certificate,
        FoldError::GhostSession,
        FoldError::Membership(crate::protocol::membership::MembershipError::CannotManage),
        FoldError::NotExpired,
    ];
    assert_eq!(failures, expected.map(VerificationFailure::Fold));
    assert_eq!(bobs.log.roster_hash(), roster);
    log.feed(&mut anns, &ann);
    log.send(&mut anns, &ann, "unmoved");
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [text("unmoved")]);
}

#[test]
fn a_newcomer_from_whom_an_event_was_withheld_does_not_join() {
    let (ann, bob, eve) = (FakeSession::new(), FakeSession::new(), FakeSession::new());
    let mut log = FakeChat::create(&ann);
    let sibling = ann.sibling();
    log.session_in(&sibling);
    log.revoke(&ann, &sibling);
    let joining = log.add(&ann, &bob);
    log.add(&ann, &eve);
    let entry = log.entries[usize::try_from(joining.get()).unwrap() - 1].clone();
    assert!(ChatLog::join(log.bootstrap(joining), &entry).is_ok());
    // Without the revocation the fold still holds the sibling; the anchor in the addition tells.
    let fold = log.bootstrap(Seq::saturating(4));
    let failure = ChatLog::join(fold, &entry).unwrap_err();
    assert_eq!(failure, VerificationFailure::Fold(FoldError::Anchor));
}

#[test]
fn a_linked_session_begins_at_its_anchor_and_reads_what_comes_after_its_entry() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    log.send(&mut anns, &ann, "before");
    log.feed(&mut anns, &ann);
    let anchor = anns.anchor();
    log.send(&mut anns, &ann, "between");
    let tablet = ann.sibling();
    log.session_in(&tablet);
    log.feed(&mut anns, &ann);
    push_text(&mut anns, "after");
    let send = expect_send(next_step(&mut anns, &ann));
    assert!(send.new_key.is_none() && send.add_copies.len() == 1, "the key goes on, with a copy for the newcomer");
    log.commit(&send);
    let fold = log.bootstrap(anchor.place.seq.next());
    assert_eq!((fold.fold.roster_hash(), fold.fold.epoch()), (anchor.roster_hash, anchor.epoch));
    let mut tablets = Chat::new(ChatLog::anchored(fold, anchor.place));
    // With the key's copy comes what was sent under it before the tablet was there.
    assert_eq!(contents(log.feed(&mut tablets, &tablet)), [text("between"), text("after")]);
    assert_eq!(tablets.log.head(), log.head());
    assert_eq!(contents(log.feed(&mut bobs, &bob)).len(), 3);
    log.revoke(&ann, &tablet);
    log.feed(&mut anns, &ann);
    log.send(&mut anns, &ann, "without the tablet");
    assert!(matches!(contents(log.feed(&mut tablets, &tablet))[..], [Ok(Content::NotForUs)]));
}

#[test]
fn a_reader_adrift_believes_one_hash_and_checks_the_rest() {
    let (mut log, ann, mut anns, bob, _) = two();
    for number in 0..4 {
        log.send(&mut anns, &ann, &number.to_string());
        log.feed(&mut anns, &ann);
    }
    let fold = log.bootstrap(Seq::saturating(7));
    let mut middle = Chat::new(ChatLog::adrift(fold, Seq::saturating(6)));
    assert_eq!(contents(log.feed(&mut middle, &bob)), [text("2"), text("3")]);
    assert_eq!(middle.log.head(), log.head());
    let [.., third, last] = &log.entries[..] else { panic!() };
    let mut other = Chat::new(ChatLog::adrift(log.bootstrap(Seq::saturating(7)), Seq::saturating(6)));
    let hash = log_hash(log.chat_id, &Hash([1; 32]), third.seq, third.created_at, &third.body.digest(log.chat_id));
    assert!(other.take(&LogEntry { log_hash: hash, ..third.clone() }, &bob.me).is_ok());
    assert_eq!(other.take(last, &bob.me).unwrap_err(), VerificationFailure::LogHash);
}

/// Puts a revision of a message into the log, by its session's own outbox.
fn revise(log: &mut FakeChat, chat: &mut Chat, by: &FakeSession, kind: MessageKind, of: &Envelope, revision: u64) {
    let draft = Draft {
        kind,
        message_id: of.message_id,
        revision: Revision::saturating(revision),
        body: Body::text("changed").to_bytes(),
        is_receipt: false,
    };
    let name = draft.name();
    chat.outbox.push(draft).unwrap();
    let send = expect_send(next_step(chat, by));
    log.commit(&send);
    assert!(chat.outbox.committed(name));
    log.feed(chat, by);
}

#[test]
fn p7_edits_and_deletions_are_judged_as_the_server_does() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    let of = log.send(&mut anns, &ann, "one");
    log.feed(&mut anns, &ann);
    log.feed(&mut bobs, &bob);
    let shown = |log: &FakeChat, chat: &mut Chat| contents(log.feed(chat, &ann));
    let skipped = |expected, found| {
        let (expected, found) = (Revision::saturating(expected), Revision::saturating(found));
        Err(VerificationFailure::Revision { expected, found })
    };
    // What a dishonest server takes of Bob, who manages nothing.
    revise(&mut log, &mut bobs, &bob, MessageKind::Edit, &of, 1);
    assert_eq!(shown(&log, &mut anns), [Err(VerificationFailure::NotTheirs)]);
    revise(&mut log, &mut bobs, &bob, MessageKind::Delete, &of, 1);
    assert_eq!(shown(&log, &mut anns), [Err(VerificationFailure::NotTheirs)]);
    // Bob sees what Ann does to her own.
    revise(&mut log, &mut anns, &ann, MessageKind::Edit, &of, 2);
    revise(&mut log, &mut anns, &ann, MessageKind::Edit, &of, 1);
    revise(&mut log, &mut anns, &ann, MessageKind::Delete, &of, 2);
    revise(&mut log, &mut anns, &ann, MessageKind::Edit, &of, 3);
    let seen = contents(log.feed(&mut bobs, &bob));
    let after = Err(VerificationFailure::AfterDeletion);
    assert_eq!(seen, [skipped(1, 2), text("changed"), Ok(Content::Deleted), after]);
    // Ann owns the chat, so she may delete what Bob wrote, and not edit it.
    let of = log.send(&mut bobs, &bob, "two");
    log.feed(&mut bobs, &bob);
    log.feed(&mut anns, &ann);
    revise(&mut log, &mut anns, &ann, MessageKind::Edit, &of, 1);
    revise(&mut log, &mut anns, &ann, MessageKind::Delete, &of, 1);
    assert_eq!(contents(log.feed(&mut bobs, &bob)), [Err(VerificationFailure::NotTheirs), Ok(Content::Deleted)]);
}

#[test]
fn p13_data_may_be_gone_where_a_later_revision_says_so_and_nowhere_else() {
    let (mut log, ann, mut anns, bob, mut bobs) = two();
    let edited = log.send(&mut anns, &ann, "edited");
    log.feed(&mut anns, &ann);
    let withheld = log.send(&mut anns, &ann, "withheld");
    log.feed(&mut anns, &ann);
    revise(&mut log, &mut anns, &ann, MessageKind::Edit, &edited, 1);
    let mut places = Vec::new();
    for entry in &mut log.entries {
        if let EntryBody::Message(envelope) = &mut entry.body
            && envelope.kind == MessageKind::Message
        {
            envelope.purged = Some(envelope.data_hash());
            envelope.data = None;
            places.push(entry.seq);
        }
    }
    let seen = contents(log.feed(&mut bobs, &bob));
    assert_eq!(seen, [Ok(Content::Purged), Ok(Content::Purged), text("changed")]);
    assert_eq!(bobs.log.messages().sender_of(withheld.message_id), Some(ann.me.user_id));
    assert_eq!(bobs.log.withheld(bobs.log.head().seq), [places[1]]);
}
