//! Edits and deletions: their rules, their races, and that what they make superfluous is gone (P2, P3, P13).

use sealcast::protocol::binary::{Hash, Signature};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{self, Direction, Reply, Request, Send, SendOk, ServerFrame};
use sealcast::protocol::ids::{Counter, MessageId, Revision, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::messages::Pair;
use super::support::chat::{SenderKey, check_chain, history, submit, view, whole_log};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::eventually;

/// What a dishonest client does to a deletion before it signs it.
type Spoil = fn(&mut Send);

/// The message of an entry.
fn envelope(entry: &LogEntry) -> &Envelope {
    match &entry.body {
        EntryBody::Message(envelope) => envelope,
        other => panic!("{other:?}"),
    }
}

/// Reads what is pushed until the entry of this seq.
async fn entry_at(socket: &mut Socket, seq: Seq) -> LogEntry {
    socket
        .push_that(|push| match push {
            ServerFrame::Entry(push) if push.entry.seq == seq => Some(push.entry.clone()),
            ServerFrame::Page(page) => page.entries.iter().find(|entry| entry.seq == seq).cloned(),
            _ => None,
        })
        .await
}

/// A message of `ada`'s, under a key that goes on.
async fn message(pair: &mut Pair, data: &[u8]) -> (SenderKey, MessageId, SendOk) {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let send = pair.ada.seal(&now, &mut key, data);
    let message_id = send.envelope.message_id;
    let sent = submit(&mut pair.ada_socket, send).await.unwrap();
    (key, message_id, sent)
}

/// Everything that the database says, as text; bytes in hex.
async fn dump(database: &Database) -> String {
    let client = database.client().await;
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let mut dump = String::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        for row in client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.unwrap() {
            dump.push_str(row.get(0));
            dump.push('\n');
        }
    }
    dump
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The counts of messages with data that keys carry are what there is.
async fn check_counts(database: &Database) {
    let wrong = "SELECT count(*) FROM sender_keys k WHERE messages_with_data <> (SELECT count(*) FROM chat_messages m \
         WHERE m.chat_id = k.chat_id AND m.key_id = k.key_id AND m.data IS NOT NULL)";
    assert_eq!(database.count(wrong).await, 0, "a key's count of messages with data is wrong");
}

async fn refused(socket: &mut Socket, send: Send) -> frame::Error {
    submit(socket, send).await.expect_err("refused")
}

#[tokio::test]
async fn any_session_of_the_sender_edits_and_the_sender_or_a_manager_deletes() {
    let mut pair = Pair::start().await;
    let phone = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut phone_socket = phone.connect_live(&pair.broker).await;
    let now = view(&mut pair.bob_socket, pair.chat_id).await;
    let mut key = pair.bob.sender_key(&now, pair.chat_id);
    let send = pair.bob.seal(&now, &mut key, b"first");
    let message_id = send.envelope.message_id;
    submit(&mut pair.bob_socket, send).await.unwrap();

    let mut phone_key = phone.sender_key(&now, pair.chat_id);
    let edit = phone.edit(&now, &mut phone_key, message_id, 1, b"second");
    let sent = submit(&mut phone_socket, edit).await.unwrap();
    let entry = entry_at(&mut pair.ada_socket, sent.seq).await;
    assert_eq!((envelope(&entry).kind, envelope(&entry).revision.get()), (MessageKind::Edit, 1));
    assert_eq!(envelope(&entry).data.as_ref().unwrap().as_ref(), b"second");

    // A manager deletes what another wrote; nothing but the signature is needed.
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 2);
    let deleted = submit(&mut pair.ada_socket, deletion).await.unwrap();
    assert_eq!(deleted.seq, sent.seq.next());
    let entry = entry_at(&mut pair.bob_socket, deleted.seq).await;
    assert_eq!((envelope(&entry).kind, envelope(&entry).sender_id), (MessageKind::Delete, pair.ada.user_id));

    // The counters of both keys go on, and the log is one chain.
    let next = pair.bob.seal(&now, &mut key, b"next");
    submit(&mut pair.bob_socket, next).await.unwrap();
    let log = whole_log(&mut pair.ada_socket, pair.chat_id).await;
    let revisions: Vec<(u64, bool)> = log
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::Message(envelope) => Some((envelope.revision.get(), envelope.data.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(revisions, [(0, false), (1, false), (2, false), (0, true)]);
    check_counts(&pair.database).await;
}

#[tokio::test]
async fn who_may_not_change_a_message_is_told_that_there_is_none() {
    let mut pair = Pair::start().await;
    let (mut key, message_id, _) = message(&mut pair, b"ada's").await;
    let now = view(&mut pair.bob_socket, pair.chat_id).await;
    let mut bobs_key = pair.bob.sender_key(&now, pair.chat_id);
    let foreign = pair.bob.edit(&now, &mut bobs_key, message_id, 1, b"bob's");
    assert_eq!(refused(&mut pair.bob_socket, foreign).await.code, ErrorCode::UnknownMessage);
    let foreign = pair.bob.deletion(&now, pair.chat_id, message_id, 1);
    assert_eq!(refused(&mut pair.bob_socket, foreign).await.code, ErrorCode::UnknownMessage);
    let nothing = pair.ada.edit(&now, &mut key, MessageId::generate(), 1, b"of nothing");
    assert_eq!(refused(&mut pair.ada_socket, nothing).await.code, ErrorCode::UnknownMessage);

    // From before the time of a newcomer, though a manager.
    let cyd = Device::register(&pair.broker, "cyd").await;
    pair.ada.add_with(&mut pair.ada_socket, pair.chat_id, &cyd, true, true).await.unwrap();
    let mut cyd_socket = cyd.connect_live(&pair.broker).await;
    let now = view(&mut cyd_socket, pair.chat_id).await;
    let before = cyd.deletion(&now, pair.chat_id, message_id, 1);
    assert_eq!(refused(&mut cyd_socket, before).await.code, ErrorCode::UnknownMessage);

    // A stranger learns nothing, and a deleted message is none any more.
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eve_socket = eve.connect_live(&pair.broker).await;
    let strange = eve.deletion(&now, pair.chat_id, message_id, 1);
    assert_eq!(refused(&mut eve_socket, strange).await.code, ErrorCode::UnknownChat);
    let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 1);
    submit(&mut pair.ada_socket, deletion).await.unwrap();
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for revision in [1, 2, 3] {
        let late = pair.ada.edit(&now, &mut key, message_id, revision, b"late");
        let code = refused(&mut pair.ada_socket, late).await.code;
        let expected = if revision == 1 { ErrorCode::IdReused } else { ErrorCode::UnknownMessage };
        assert_eq!(code, expected, "revision {revision}");
    }
    let again = pair.ada.deletion(&now, pair.chat_id, message_id, 2);
    assert_eq!(refused(&mut pair.ada_socket, again).await.code, ErrorCode::UnknownMessage);
}

#[tokio::test]
async fn who_may_not_write_may_not_edit_but_still_delete_their_own() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.bob_socket, pair.chat_id).await;
    let mut key = pair.bob.sender_key(&now, pair.chat_id);
    let send = pair.bob.seal(&now, &mut key, b"bob's");
    let message_id = send.envelope.message_id;
    submit(&mut pair.bob_socket, send).await.unwrap();
    let silence = format!("UPDATE user_in_chat SET can_write = false WHERE user_id = '{}'", pair.bob.user_id);
    pair.database.client().await.batch_execute(&silence).await.unwrap();
    pair.broker.kill_and_restart().await;
    pair.bob_socket = pair.bob.connect_live(&pair.broker).await;
    let now = view(&mut pair.bob_socket, pair.chat_id).await;
    let edit = pair.bob.edit(&now, &mut key, message_id, 1, b"more");
    assert_eq!(refused(&mut pair.bob_socket, edit).await.code, ErrorCode::CannotWrite);
    let deletion = pair.bob.deletion(&now, pair.chat_id, message_id, 1);
    submit(&mut pair.bob_socket, deletion).await.unwrap();
}

#[tokio::test]
async fn edits_and_deletions_that_are_wrong_change_nothing() {
    let mut pair = Pair::start().await;
    let (mut key, message_id, sent) = message(&mut pair, b"stays").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    for revision in [2, 9] {
        let edit = pair.ada.edit(&now, &mut key.clone(), message_id, revision, b"too far");
        let error = refused(&mut pair.ada_socket, edit).await;
        assert_eq!(
            (error.code, error.details.unwrap().revision),
            (ErrorCode::EditConflict, Some(Revision::saturating(1)))
        );
        let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, revision);
        let error = refused(&mut pair.ada_socket, deletion).await;
        assert_eq!(
            (error.code, error.details.unwrap().revision),
            (ErrorCode::EditConflict, Some(Revision::saturating(1)))
        );
    }
    let spoils: [(Spoil, ErrorCode); 8] = [
        (
            |send| {
                send.envelope.message_id = MessageId::generate();
                send.envelope.revision = Revision::default();
            },
            ErrorCode::Malformed,
        ),
        (|send| send.envelope.purged = Some(Hash([1; 32])), ErrorCode::Malformed),
        (|send| send.envelope.key_id = Some(sealcast::protocol::ids::KeyId::generate()), ErrorCode::Malformed),
        (|send| send.envelope.counter = Counter::saturating(1), ErrorCode::Malformed),
        (|send| send.envelope.data = Some(b"data".to_vec().into()), ErrorCode::Malformed),
        (|send| send.envelope.roster_hash = Hash([9; 32]), ErrorCode::RosterChanged),
        (
            |send| send.envelope.seen = Seen { seq: Seq::saturating(1_000), log_hash: Hash([0; 32]) },
            ErrorCode::AheadOfLog,
        ),
        (
            |send| send.envelope.sender_session_id = sealcast::protocol::ids::SessionId::generate(),
            ErrorCode::BadSignature,
        ),
    ];
    for (index, (spoil, code)) in spoils.into_iter().enumerate() {
        let mut deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 1);
        spoil(&mut deletion);
        pair.ada.sign_envelope(&mut deletion);
        assert_eq!(refused(&mut pair.ada_socket, deletion).await.code, code, "spoil {index}");
    }
    // What purges data is checked by the server itself.
    let mut deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 1);
    deletion.envelope.signature = Signature([7; 64]);
    assert_eq!(refused(&mut pair.ada_socket, deletion).await.code, ErrorCode::BadSignature);
    let mut edit = pair.ada.edit(&now, &mut key.clone(), message_id, 1, b"unsigned");
    edit.envelope.data = Some(b"other".to_vec().into());
    assert_eq!(refused(&mut pair.ada_socket, edit).await.code, ErrorCode::BadSignature);

    let page = history(&mut pair.ada_socket, pair.chat_id, Direction::After, Seq::default(), 200).await.unwrap();
    let last = page.entries.last().unwrap();
    assert_eq!((last.seq, envelope(last).data.as_ref().unwrap().as_ref()), (sent.seq, &b"stays"[..]));
    let good = pair.ada.edit(&now, &mut key, message_id, 1, b"good");
    submit(&mut pair.ada_socket, good).await.unwrap();
    check_counts(&pair.database).await;
}

#[tokio::test]
async fn p2_edits_and_deletions_are_idempotent_for_ever() {
    let mut pair = Pair::start().await;
    let (mut key, message_id, _) = message(&mut pair, b"zero").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let edit = pair.ada.edit(&now, &mut key, message_id, 1, b"one");
    let edited = submit(&mut pair.ada_socket, edit.clone()).await.unwrap();
    let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 2);
    let deleted = submit(&mut pair.ada_socket, deletion.clone()).await.unwrap();
    for _ in 0..2 {
        for (send, first) in [(&edit, &edited), (&deletion, &deleted)] {
            let again = submit(&mut pair.ada_socket, send.clone()).await.unwrap();
            assert_eq!((again.seq, again.log_hash, again.duplicate), (first.seq, first.log_hash, true));
        }
        let mut other = pair.ada.edit(&now, &mut key.clone(), message_id, 1, b"other");
        pair.ada.sign_envelope(&mut other);
        let error = refused(&mut pair.ada_socket, other).await;
        assert_eq!((error.code, error.details.unwrap().stored.unwrap().seq), (ErrorCode::IdReused, edited.seq));
        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
    }
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, 3);
}

#[tokio::test]
async fn of_two_devices_that_edit_at_once_one_is_told_of_the_other() {
    let mut pair = Pair::start().await;
    let phone = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let mut phone_socket = phone.connect_live(&pair.broker).await;
    let (mut key, message_id, _) = message(&mut pair, b"zero").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut phone_key = phone.sender_key(&now, pair.chat_id);
    let outside = pair.database.hold_commits().await;
    let one = pair.ada.edit(&now, &mut key, message_id, 1, b"from the desk");
    let two = phone.edit(&now, &mut phone_key, message_id, 1, b"from the phone");
    let first = pair.ada_socket.send(Request::Send(Box::new(one))).await;
    pair.ada_socket.pushes_so_far().await;
    pair.database.until_held().await;
    let second = phone_socket.send(Request::Send(Box::new(two.clone()))).await;
    phone_socket.pushes_so_far().await;
    // What is on its way counts: a message behind it is not held up for long, and nothing is decided too early.
    outside.batch_execute("COMMIT").await.unwrap();
    let Ok(Reply::Sent(sent)) = pair.ada_socket.answer(first).await else { panic!("the first is committed") };
    let error = phone_socket.answer(second).await.expect_err("the second is refused");
    assert_eq!((error.code, error.details.unwrap().revision), (ErrorCode::EditConflict, Some(Revision::saturating(2))));
    assert!(error.retryable);
    // The phone makes the same change on top.
    let mut again = phone.edit(&now, &mut phone_key, message_id, 2, b"from the phone");
    again.envelope.counter = two.envelope.counter;
    again.new_key = two.new_key;
    phone.sign_envelope(&mut again);
    assert_eq!(submit(&mut phone_socket, again).await.unwrap().seq, sent.seq.next());
    check_counts(&pair.database).await;
}

#[tokio::test]
async fn an_edit_on_its_way_and_a_deletion_behind_it_are_one_after_the_other() {
    let mut pair = Pair::start().await;
    let (mut key, message_id, sent) = message(&mut pair, b"zero").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let outside = pair.database.hold_commits().await;
    let fresh = pair.ada.seal(&now, &mut key, b"fresh");
    let fresh_id = fresh.envelope.message_id;
    let sends = [
        fresh,
        pair.ada.edit(&now, &mut key, message_id, 1, b"one"),
        pair.ada.deletion(&now, pair.chat_id, message_id, 2),
        // Of a message that is itself on its way.
        pair.ada.edit(&now, &mut key, fresh_id, 1, b"fresher"),
        pair.ada.deletion(&now, pair.chat_id, fresh_id, 2),
        pair.ada.seal(&now, &mut key, b"last"),
    ];
    let mut open = Vec::new();
    for send in sends {
        open.push(pair.ada_socket.send(Request::Send(Box::new(send))).await);
    }
    pair.ada_socket.pushes_so_far().await;
    pair.database.until_held().await;
    outside.batch_execute("COMMIT").await.unwrap();
    for (id, seq) in open.into_iter().zip(sent.seq.get() + 1..) {
        let Ok(Reply::Sent(sent)) = pair.ada_socket.answer(id).await else { panic!("entry {seq}") };
        assert_eq!(sent.seq.get(), seq);
    }
    let log = whole_log(&mut pair.ada_socket, pair.chat_id).await;
    let with_data = log.iter().filter(|entry| matches!(&entry.body, EntryBody::Message(e) if e.data.is_some())).count();
    assert_eq!(with_data, 1, "only the last message has data");
    check_counts(&pair.database).await;
}

#[tokio::test]
async fn p13_what_was_edited_or_deleted_is_gone_and_the_log_still_verifies() {
    let mut pair = Pair::start().await;
    let (edited_away, deleted, kept) = ([0xa1; 40], [0xb2; 40], [0xc3; 40]);
    let (mut key, edited_id, _) = message(&mut pair, &edited_away).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let gone = pair.ada.seal(&now, &mut key, &deleted);
    let deleted_id = gone.envelope.message_id;
    submit(&mut pair.ada_socket, gone).await.unwrap();
    let before = dump(&pair.database).await;
    assert!(before.contains(&hex(&edited_away)) && before.contains(&hex(&deleted)));

    let edit = pair.ada.edit(&now, &mut key, edited_id, 1, &kept);
    submit(&mut pair.ada_socket, edit).await.unwrap();
    let deletion = pair.ada.deletion(&now, pair.chat_id, deleted_id, 1);
    submit(&mut pair.ada_socket, deletion).await.unwrap();
    let after = dump(&pair.database).await;
    assert!(!after.contains(&hex(&edited_away)), "the first revision is still there");
    assert!(!after.contains(&hex(&deleted)), "the deleted message is still there");
    assert!(after.contains(&hex(&kept)));
    check_counts(&pair.database).await;

    // An old reader and a newcomer's fellow read one chain; the hashes of what is gone stand for it.
    let log = whole_log(&mut pair.ada_socket, pair.chat_id).await;
    for entry in &log {
        if let EntryBody::Message(envelope) = &entry.body {
            let is_gone = envelope.message_id == deleted_id || envelope.revision.get() == 0;
            assert_eq!(envelope.purged.is_some(), is_gone && envelope.kind != MessageKind::Delete);
            assert_eq!(envelope.data.is_some(), envelope.message_id == edited_id && envelope.revision.get() == 1);
            let key = pair.ada.certificate.certificate.signing_public_key;
            let bytes = envelope.signed_bytes(pair.chat_id);
            assert!(sealcast::protocol::verify::Verifier::verifies(&key, &bytes, &envelope.signature));
        }
    }
    let page = history(&mut pair.bob_socket, pair.chat_id, Direction::After, Seq::default(), 200).await.unwrap();
    check_chain(pair.chat_id, &page.entries);
}

#[tokio::test]
async fn p13_the_copies_of_a_stale_key_go_with_the_last_of_its_data() {
    let mut pair = Pair::start().await;
    let (key, message_id, _) = message(&mut pair, b"old").await;
    let key_id = key.announcement.announcement.key_id;
    let copies = format!("SELECT count(*) FROM vault_chat_sender_keys WHERE sender_key_id = '{key_id}'");
    assert_eq!(pair.database.count(&copies).await, 2);
    // Stale, but not empty: it opens what there is.
    let cyd = Device::register(&pair.broker, "cyd").await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &cyd).await.unwrap();
    assert_eq!(pair.database.count(&copies).await, 2);
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 1);
    submit(&mut pair.ada_socket, deletion).await.unwrap();
    assert_eq!(pair.database.count(&copies).await, 0, "in the very transaction");
    let announced = format!("SELECT count(*) FROM sender_keys WHERE key_id = '{key_id}'");
    assert_eq!(pair.database.count(&announced).await, 1, "what its session said of it stays: the log needs it");
}

#[tokio::test]
async fn p13_the_sweep_takes_the_copies_of_keys_that_become_stale_later_and_keys_that_were_never_used() {
    let mut pair = Pair::start().await;
    let (emptied, message_id, _) = message(&mut pair, b"old").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 1);
    submit(&mut pair.ada_socket, deletion).await.unwrap();
    // Replaced within its epoch by one that is used.
    let mut replaced = pair.ada.sender_key(&now, pair.chat_id);
    let send = pair.ada.seal(&now, &mut replaced, b"of the key after");
    submit(&mut pair.ada_socket, send).await.unwrap();
    // Stored without a message, since a copy is missing.
    let mut unused = pair.bob.sender_key(&now, pair.chat_id);
    unused.copies.pop();
    let send = pair.bob.seal(&now, &mut unused, b"incomplete");
    assert_eq!(refused(&mut pair.bob_socket, send).await.code, ErrorCode::CopiesMissing);
    let count = |key: &SenderKey, table: &str, column: &str| {
        format!("SELECT count(*) FROM {table} WHERE {column} = '{}'", key.announcement.announcement.key_id)
    };
    let copies = |key: &SenderKey| count(key, "vault_chat_sender_keys", "sender_key_id");
    let keys = |key: &SenderKey| count(key, "sender_keys", "key_id");
    eventually("the copies of the replaced key to go", async || pair.database.count(&copies(&emptied)).await == 0)
        .await;
    assert_eq!(pair.database.count(&keys(&unused)).await, 1, "of the current epoch: it may still be used");
    assert_eq!(pair.database.count(&copies(&unused)).await, 1);
    let cyd = Device::register(&pair.broker, "cyd").await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &cyd).await.unwrap();
    eventually("the key that was never used to go", async || pair.database.count(&keys(&unused)).await == 0).await;
    assert_eq!(pair.database.count(&copies(&unused)).await, 0);
    assert_eq!(pair.database.count(&copies(&replaced)).await, 2, "its message has data");
    assert_eq!(pair.database.count(&keys(&emptied)).await, 1);
}
