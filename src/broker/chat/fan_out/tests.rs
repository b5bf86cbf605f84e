//! What is handed to whom: entries, copies of keys, signals; who lags, and who is gone.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::broker::connection::Connection;
use crate::broker::outbox::{Outbox, OutboxLimits};
use crate::protocol::binary::{Blob, ExchangeKey, Hash, IdentityKey, Signature, SigningKey, WrappedKey};
use crate::protocol::certificate::{Certificate, Deletion, SignedCertificate, SignedDeletion};
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::ids::{ChangeNo, Counter, Epoch, KeyId, MessageId, Place, Revision, SignalId, Timestamp};
use crate::protocol::keys::Announcement;
use crate::protocol::log::SessionOut;
use crate::protocol::membership::{Actor, MembershipChange, Target};
use crate::protocol::signal::SignalEnvelope;
use crate::store::loaded::{LoadedMember, LoadedRecipient};
use crate::store::members::Requester;

const FRAMES_MAX: usize = 8;

/// The chat stands at this entry when somebody comes in.
const POSITION: u64 = 4;

fn person() -> Requester {
    Requester { user_id: UserId::generate(), session_id: SessionId::generate() }
}

fn connect(who: Requester, encoding: Encoding) -> Arc<Connection> {
    let limits = OutboxLimits { frames_max: FRAMES_MAX, bytes_max: 1 << 20, reserve_bytes: 0 };
    let connection = Connection::new(encoding, Outbox::new(limits));
    connection.log_in(who);
    connection
}

/// A chat in which these are live.
fn fan_out(connections: &[&Arc<Connection>]) -> FanOut {
    let mut fan_out = FanOut::new(ChatId::generate(), Metrics::new().unwrap());
    for connection in connections {
        connection.stand(fan_out.chat_id);
        connection.stood(fan_out.chat_id);
        let subscriber = Subscriber { connection: Arc::clone(connection), position: Seq::saturating(POSITION) };
        fan_out.insert(connection.who().unwrap().session_id, subscriber);
    }
    fan_out
}

fn live(who: Requester) -> Arc<Connection> {
    connect(who, Encoding::MessagePack)
}

/// What a connection has been handed since it was asked last.
fn said(connection: &Connection) -> Vec<ServerFrame> {
    let mut bytes = Vec::new();
    while connection.outbox.bytes() > 0 {
        match connection.outbox.poll_chunk(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(chunk)) => bytes.extend_from_slice(&chunk),
            other => panic!("{other:?}"),
        }
    }
    let mut rest = &bytes[..];
    let mut frames = Vec::new();
    while let [first, length, after @ ..] = rest {
        assert_eq!(*first & 0xf, if connection.encoding == Encoding::Json { 1 } else { 2 });
        let (length, after) = match length {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            short => (usize::from(*short), after),
        };
        frames.push(connection.encoding.decode_server(&after[..length]).unwrap());
        rest = &after[length..];
    }
    frames
}

fn entry(seq: u64, body: EntryBody) -> LogEntry {
    LogEntry { seq: Seq::saturating(seq), created_at: Timestamp::saturating(1), log_hash: Hash([0; 32]), body }
}

fn message() -> EntryBody {
    let who = person();
    EntryBody::Message(Envelope {
        kind: MessageKind::Message,
        message_id: MessageId::generate(),
        revision: Revision::default(),
        sender_id: who.user_id,
        sender_session_id: who.session_id,
        key_id: Some(KeyId::generate()),
        counter: Counter::saturating(1),
        roster_hash: Hash([0; 32]),
        seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
        attachments: Vec::new(),
        data: Some(Blob(bytes::Bytes::from_static(b"sealed"))),
        purged: None,
        signature: Signature([0; 64]),
    })
}

fn membership(change: Change, target: Requester) -> EntryBody {
    let identity_key = IdentityKey([0; 32]);
    let actor = person();
    EntryBody::Membership(SignedChange {
        change: MembershipChange {
            n: ChangeNo::saturating(1),
            previous: Hash([0; 32]),
            seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
            actor: Actor { user_id: actor.user_id, session_id: actor.session_id, identity_key },
            change,
            target: Target { user_id: target.user_id, identity_key },
        },
        signature: Signature([0; 64]),
    })
}

/// The seqs of the entries among frames.
fn seqs(frames: &[ServerFrame]) -> Vec<u64> {
    let seq = |frame: &ServerFrame| match frame {
        ServerFrame::Entry(entry) => entry.entry.seq.get(),
        other => panic!("{other:?}"),
    };
    frames.iter().map(seq).collect()
}

/// After which entry a connection reads from the store, if it does.
fn lags_after(connection: &Connection) -> Option<u64> {
    connection.next_lagging().map(|lagging| lagging.after.get())
}

#[test]
fn p3_each_is_handed_every_entry_once_in_order_and_who_misses_one_reads_from_the_store() {
    let (json, packed) = (connect(person(), Encoding::Json), connect(person(), Encoding::MessagePack));
    let mut fan_out = fan_out(&[&json, &packed]);
    for seq in [POSITION, POSITION + 1, POSITION + 1, POSITION + 2, POSITION + 1] {
        fan_out.entry(entry(seq, message()));
    }
    for connection in [&json, &packed] {
        assert_eq!(seqs(&said(connection)), [POSITION + 1, POSITION + 2]);
        assert_eq!(lags_after(connection), None);
    }
    assert_eq!(fan_out.metrics.delivered.get(), 4);
    fan_out.entry(entry(POSITION + 4, message()));
    fan_out.entry(entry(POSITION + 5, message()));
    for connection in [&json, &packed] {
        assert!(said(connection).is_empty());
        assert_eq!(lags_after(connection), Some(POSITION + 2));
    }
    assert_eq!((fan_out.metrics.delivered.get(), fan_out.metrics.lagged.get()), (4, 2));
}

#[test]
fn p9_a_full_outbox_lags_and_holds_up_nobody() {
    let (slow, quick) = (live(person()), live(person()));
    let mut fan_out = fan_out(&[&slow, &quick]);
    let last = POSITION + FRAMES_MAX as u64 + 2;
    let mut handed = Vec::new();
    for seq in POSITION + 1..=last {
        fan_out.entry(entry(seq, message()));
        handed.extend(seqs(&said(&quick)));
    }
    assert_eq!(handed, (POSITION + 1..=last).collect::<Vec<_>>());
    assert_eq!(seqs(&said(&slow)), (POSITION + 1..=POSITION + FRAMES_MAX as u64).collect::<Vec<_>>());
    assert_eq!(lags_after(&slow), Some(POSITION + FRAMES_MAX as u64));
    assert_eq!(lags_after(&quick), None);
}

#[test]
fn p3_messages_that_were_committed_together_are_handed_to_each_from_where_it_is() {
    let (behind, ahead, slow, json) =
        (live(person()), live(person()), live(person()), connect(person(), Encoding::Json));
    let mut fan_out = fan_out(&[&behind, &ahead, &slow, &json]);
    for _ in 0..FRAMES_MAX - 2 {
        slow.push_reply(&ServerFrame::Bye(crate::protocol::frame::Bye { retry_after_ms: 0 }));
    }
    let ahead_of = Subscriber { connection: Arc::clone(&ahead), position: Seq::saturating(POSITION + 2) };
    fan_out.insert(ahead.who().unwrap().session_id, ahead_of);
    let together = |first: u64| (first..first + 3).map(|seq| entry(seq, message())).collect::<Vec<_>>();
    fan_out.messages(together(POSITION + 1));
    for connection in [&behind, &json] {
        assert_eq!(seqs(&said(connection)), [POSITION + 1, POSITION + 2, POSITION + 3]);
    }
    assert_eq!(seqs(&said(&ahead)), [POSITION + 3]);
    assert_eq!(lags_after(&slow), Some(POSITION + 2), "two of three had room");
    // What follows upon a gap is read from the store.
    fan_out.messages(together(POSITION + 5));
    fan_out.messages(Vec::new());
    for connection in [&behind, &json, &ahead] {
        assert_eq!((said(connection).len(), lags_after(connection)), (0, Some(POSITION + 3)));
    }
    assert_eq!(fan_out.metrics.delivered.get(), 3 + 3 + 1 + 2);
}

#[test]
fn p5_who_is_taken_out_gets_the_entry_that_says_so_and_nothing_after_it() {
    let (gone, stays) = (person(), person());
    let laptop = Requester { session_id: SessionId::generate(), ..gone };
    let deletion = Deletion {
        user_id: gone.user_id,
        place: Place::saturating(1),
        previous: Hash([0; 32]),
        created_at: Timestamp::default(),
    };
    let ends = [
        membership(Change::Remove, gone),
        membership(Change::Leave, gone),
        EntryBody::AccountDeleted(SignedDeletion { deletion, signature: Signature([0; 64]) }),
    ];
    for end in ends {
        let (phone, laptop, other) = (live(gone), live(laptop), live(stays));
        let mut fan_out = fan_out(&[&phone, &laptop, &other]);
        fan_out.entry(entry(POSITION + 1, end));
        fan_out.entry(entry(POSITION + 2, message()));
        for connection in [&phone, &laptop] {
            assert_eq!(seqs(&said(connection)), [POSITION + 1]);
            assert!(!connection.is_in(fan_out.chat_id) && lags_after(connection).is_none());
        }
        assert_eq!(seqs(&said(&other)), [POSITION + 1, POSITION + 2]);
    }
    // Other changes take nobody out.
    let other = live(gone);
    let mut fan_out = fan_out(&[&other]);
    fan_out.entry(entry(POSITION + 1, membership(Change::Rekey, gone)));
    fan_out.entry(entry(POSITION + 2, message()));
    assert_eq!(seqs(&said(&other)), [POSITION + 1, POSITION + 2]);
}

#[test]
fn p3_a_session_that_goes_out_and_comes_in_again_reads_on_from_where_it_was() {
    let (renewed, other) = (live(person()), live(person()));
    let who = renewed.who().unwrap();
    let mut fan_out = fan_out(&[&renewed, &other]);
    let out = SessionOut::Expired { user_id: who.user_id, session_id: who.session_id };
    fan_out.entry(entry(POSITION + 1, EntryBody::SessionOut(out)));
    assert!(lags_after(&renewed).is_none(), "what is out is not shown");
    let certificate = Certificate {
        user_id: who.user_id,
        place: Place::saturating(2),
        previous: Hash([0; 32]),
        session_id: who.session_id,
        public_key: ExchangeKey([9; 32]),
        signing_public_key: SigningKey([9; 32]),
        created_at: Timestamp::default(),
        expired_at: Timestamp::default(),
    };
    let back = EntryBody::SessionIn(SignedCertificate { certificate, signature: Signature([0; 64]) });
    fan_out.entry(entry(POSITION + 2, back));
    assert_eq!(lags_after(&renewed), Some(POSITION));
    assert!(said(&renewed).is_empty(), "the store tells the rest");
    assert_eq!(said(&other).len(), 2);
}

#[test]
fn p5_a_session_that_is_out_is_handed_nothing_any_more() {
    let who = person();
    let laptop = Requester { session_id: SessionId::generate(), ..who };
    let (ended, other) = (live(who), live(laptop));
    let mut fan_out = fan_out(&[&ended, &other]);
    let out = SessionOut::Expired { user_id: who.user_id, session_id: who.session_id };
    fan_out.entry(entry(POSITION + 1, EntryBody::SessionOut(out)));
    assert!(said(&ended).is_empty());
    assert_eq!(seqs(&said(&other)), [POSITION + 1]);
}

#[test]
fn p4_a_copy_goes_to_its_recipient_alone_and_who_cannot_take_it_reads_from_the_store() {
    let (ada, bob, carol) = (live(person()), live(person()), live(person()));
    let mut fan_out = fan_out(&[&ada, &bob, &carol]);
    let announcement = SignedAnnouncement {
        announcement: Announcement {
            key_id: KeyId::generate(),
            session_id: ada.who().unwrap().session_id,
            epoch: Epoch::saturating(1),
            commitment: Hash([0; 32]),
            previous: None,
        },
        signature: Signature([0; 64]),
    };
    for seq in POSITION + 1..=POSITION + FRAMES_MAX as u64 {
        fan_out.entry(entry(seq, message()));
        said(&ada);
        said(&bob);
    }
    let copy = |connection: &Connection, byte| KeyCopy {
        session_id: connection.who().unwrap().session_id,
        key: WrappedKey([byte; WrappedKey::LENGTH]),
    };
    let elsewhere = KeyCopy { session_id: SessionId::generate(), key: WrappedKey([3; WrappedKey::LENGTH]) };
    fan_out.keys(&announcement, &[copy(&bob, 1), copy(&carol, 2), elsewhere]);
    assert!(said(&ada).is_empty());
    let key = OwnKey { announcement, key: Some(WrappedKey([1; WrappedKey::LENGTH])), backed_up: Vec::new() };
    assert_eq!(said(&bob), [ServerFrame::Key(Key { chat_id: fan_out.chat_id, key })]);
    assert_eq!((lags_after(&bob), lags_after(&carol)), (None, Some(POSITION + FRAMES_MAX as u64)));
}

#[test]
fn p9_what_may_be_left_out_goes_to_the_others_and_nobody_lags_for_it() {
    let (ada, bob) = (live(person()), live(person()));
    let fan_out = fan_out(&[&ada, &bob]);
    let from = ada.who().unwrap();
    let signal = Signal {
        chat_id: fan_out.chat_id,
        signal: SignalEnvelope {
            sender_id: from.user_id,
            sender_session_id: from.session_id,
            key_id: KeyId::generate(),
            signal_id: SignalId::generate(),
            created_at: Timestamp::saturating(1),
            data: Blob::default(),
            signature: Signature([0; 64]),
        },
    };
    let room = (FRAMES_MAX / 4) as u64;
    for _ in 0..room + 3 {
        fan_out.signal(signal.clone());
    }
    assert_eq!((fan_out.metrics.signals_delivered.get(), fan_out.metrics.signals_dropped.get()), (room, 3));
    assert!(said(&ada).is_empty());
    assert_eq!(said(&bob), vec![ServerFrame::Signal(signal); room as usize]);
    let delivery = Delivery { user_id: from.user_id, session_id: from.session_id, seq: Seq::saturating(POSITION) };
    fan_out.delivered(delivery);
    assert!(said(&ada).is_empty());
    assert_eq!(said(&bob), [ServerFrame::Delivered(Delivered { chat_id: fan_out.chat_id, delivery })]);
    assert_eq!(fan_out.metrics.deliveries_told.get(), 1);
    assert_eq!((lags_after(&ada), lags_after(&bob)), (None, None));
}

#[test]
fn who_leaves_is_handed_nothing_and_a_newer_connection_stays() {
    let who = person();
    let (older, newer) = (live(who), live(who));
    let mut fan_out = fan_out(&[&older, &newer]);
    fan_out.remove(older.id);
    fan_out.entry(entry(POSITION + 1, message()));
    assert!(said(&older).is_empty());
    assert_eq!(seqs(&said(&newer)), [POSITION + 1]);
    // One that was closed does not take the place of one that is open.
    older.close(crate::protocol::error::CloseCode::Replaced);
    fan_out.insert(who.session_id, Subscriber { connection: Arc::clone(&older), position: Seq::saturating(POSITION) });
    fan_out.entry(entry(POSITION + 2, message()));
    assert_eq!(seqs(&said(&newer)), [POSITION + 2]);
    fan_out.remove(newer.id);
    fan_out.entry(entry(POSITION + 3, message()));
    assert!(said(&newer).is_empty());
    assert_eq!(lags_after(&newer), None);
}

#[test]
fn p3_a_session_that_reads_from_the_store_is_handed_nothing_newer_meanwhile() {
    let (reader, other) = (live(person()), live(person()));
    let mut fan_out = fan_out(&[&reader, &other]);
    fan_out.remove_session(reader.who().unwrap().session_id);
    fan_out.entry(entry(POSITION + 1, message()));
    assert!(said(&reader).is_empty());
    assert_eq!(seqs(&said(&other)), [POSITION + 1]);
    assert!(reader.is_in(fan_out.chat_id) && lags_after(&reader).is_none(), "its reader says where it stands");
}

#[test]
fn a_reload_sends_to_the_store_whom_it_must_and_forgets_who_is_no_recipient() {
    let (ahead, behind, stranger) = (live(person()), live(person()), live(person()));
    let mut fan_out = fan_out(&[&behind, &stranger]);
    let chat_id = fan_out.chat_id;
    let position = Seq::saturating(POSITION + 1);
    fan_out.insert(ahead.who().unwrap().session_id, Subscriber { connection: Arc::clone(&ahead), position });
    fan_out.retain(|session_id| session_id != stranger.who().unwrap().session_id);
    assert!(!stranger.is_in(chat_id) && behind.is_in(chat_id));
    fan_out.lag_those_behind(position);
    assert_eq!((lags_after(&ahead), lags_after(&behind)), (None, Some(POSITION)));
    fan_out.lag_all();
    assert_eq!((lags_after(&ahead), lags_after(&stranger)), (Some(POSITION + 1), None));
    assert_eq!(fan_out.metrics.lagged.get(), 2);
}

#[test]
fn an_actor_that_dies_sends_its_subscribers_to_the_store_and_one_that_leaves_does_not() {
    let (ada, bob) = (live(person()), live(person()));
    let mut leaving = fan_out(&[&ada]);
    assert_eq!(leaving.take_all().len(), 1);
    drop(leaving);
    assert_eq!(lags_after(&ada), None);
    drop(fan_out(&[&bob]));
    assert_eq!(lags_after(&bob), Some(POSITION));
    // What is closed needs nothing.
    let closed = live(person());
    let fan_out = fan_out(&[&closed]);
    closed.close(crate::protocol::error::CloseCode::Replaced);
    let metrics = fan_out.metrics.clone();
    drop(fan_out);
    assert_eq!((lags_after(&closed), metrics.lagged.get()), (None, 0));
}

/// A directory in which these are connected.
fn directory(connections: &[&Arc<Connection>]) -> Directory {
    let directory = Directory::default();
    for connection in connections {
        let _ = directory.enter(connection.who().unwrap().session_id, connection);
    }
    directory
}

#[test]
fn p3_newcomers_read_from_their_own_addition_on() {
    let (phone, other, elsewhere) = (live(person()), live(person()), person());
    let (directory, chat_id) = (directory(&[&phone, &other]), ChatId::generate());
    let sessions = [phone.who().unwrap().session_id, elsewhere.session_id];
    welcome(&directory, chat_id, Seq::saturating(7), &sessions);
    let lagging = phone.next_lagging().unwrap();
    assert_eq!((lagging.chat_id, lagging.after.get()), (chat_id, 6));
    assert!(!other.is_in(chat_id));
}

#[test]
fn p3_who_came_in_unseen_reads_from_its_users_joining_on() {
    let connections: Vec<_> = (0..4).map(|_| live(person())).collect();
    let [unseen, waiting, inside, stranger] = &connections[..] else { panic!("four") };
    let (directory, chat_id) = (directory(&[unseen, waiting, inside, stranger]), ChatId::generate());
    // One has yet to resume, and is told then; one is there by now; one is no recipient.
    [unseen, inside, stranger].iter().for_each(|connection| connection.has_resumed.store(true, Ordering::Release));
    inside.stand(chat_id);
    inside.stood(chat_id);
    let mut chat = LoadedChat {
        last_seq: Seq::saturating(9),
        log_hash: Hash([0; 32]),
        last_at: Timestamp::default(),
        epoch: Epoch::default(),
        roster_version: Seq::saturating(9),
        roster_hash: Hash([0; 32]),
        expiry_due: false,
        members: std::collections::BTreeMap::new(),
        recipients: std::collections::BTreeMap::new(),
        recovery: None,
        generation_due: None,
        keys: std::collections::BTreeMap::new(),
        since: None,
    };
    for connection in [unseen, waiting, inside] {
        let who = connection.who().unwrap();
        let recipient = LoadedRecipient { user_id: who.user_id, public_key: ExchangeKey([0; 32]) };
        chat.recipients.insert(who.session_id, recipient);
        let (joined_seq, joined_at) = (Seq::saturating(7), Timestamp::default());
        let readable_from = Seq::saturating(1);
        let member = LoadedMember {
            can_write: true,
            joined_seq,
            joined_at,
            can_manage: false,
            readable_from,
            has_user_key: false,
        };
        chat.members.insert(who.user_id, member);
    }
    welcome_unseen(&directory, chat_id, &chat);
    assert_eq!(lags_after(unseen), Some(6));
    assert!([waiting, inside, stranger].iter().all(|connection| lags_after(connection).is_none()));
}

#[test]
fn who_received_is_told_that_a_chat_has_ended_and_is_in_it_no_more() {
    let (ahead, behind, other) = (live(person()), live(person()), live(person()));
    let (directory, chat_id) = (directory(&[&ahead, &behind, &other]), ChatId::generate());
    ahead.stand(chat_id);
    behind.lag(chat_id, Seq::saturating(3));
    let EntryBody::Membership(change) = membership(Change::Delete, person()) else { panic!("a change") };
    let recipients = [&ahead, &behind].map(|connection| connection.who().unwrap().session_id);
    say_deleted(&directory, chat_id, &change, &recipients);
    for connection in [&ahead, &behind] {
        assert_eq!(said(connection), [ServerFrame::ChatDeleted(ChatDeleted { chat_id, change: change.clone() })]);
        assert!(!connection.is_in(chat_id));
    }
    assert!(said(&other).is_empty());
}
