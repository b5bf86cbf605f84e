//! Attacks on what stands beside the messages: locks that strangers take, ends of accounts in the way of others, logs that
//! are shown anew.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ChangeMembership, DeleteChat, FurtherCopy, Request, RequestKeys, UploadCopies};
use sealcast::protocol::ids::KeyId;
use sealcast::protocol::membership::Change;

use super::messages::Pair;
use super::support::chat::{copy_for, submit, view};
use super::support::device::Device;
use super::support::{eventually, within};

#[tokio::test]
async fn p13_a_deletion_waits_for_nobody_who_deletes_the_same_copies() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"said");
    let message_id = message.envelope.message_id;
    submit(&mut pair.ada_socket, message).await.unwrap();
    pair.ada.rekey(&mut pair.ada_socket, pair.chat_id).await.unwrap();

    // As the end of Bob's account has it: his copies are deleted, and his chats are not locked yet.
    let ending = pair.database.client().await;
    let copies = format!("DELETE FROM vault_chat_sender_keys WHERE session_id = '{}'", pair.bob.session_id.0);
    ending.batch_execute(&format!("BEGIN; {copies}")).await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let deletion = pair.ada.deletion(&now, pair.chat_id, message_id, 1);
    submit(&mut pair.ada_socket, deletion).await.expect("it is deleted meanwhile");
    let data = "SELECT count(*) FROM chat_messages WHERE data IS NOT NULL";
    assert_eq!(pair.database.count(data).await, 0);
    // Should that be given up, the sweep takes what was left.
    ending.batch_execute("ROLLBACK").await.unwrap();
    eventually("no copy is left", async || {
        pair.database.count("SELECT count(*) FROM vault_chat_sender_keys").await == 0
    })
    .await;
}

#[tokio::test]
async fn p9_a_stranger_takes_no_lock_and_waits_for_none() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eve_socket = eve.connect_live(&pair.broker).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "the chat is loaded").await.unwrap();

    let holder = pair.database.client().await;
    let (chat_id, bob) = (pair.chat_id, pair.bob.user_id);
    let users = format!("SELECT 1 FROM users WHERE id = '{}' FOR UPDATE", bob.0);
    holder.batch_execute(&format!("BEGIN; {users}; SELECT 1 FROM chats FOR UPDATE")).await.unwrap();
    let copies =
        vec![FurtherCopy { key_id: KeyId::generate(), session_id: eve.session_id, key: copy_for(eve.session_id).key }];
    let requests = [
        Request::UploadCopies(UploadCopies { chat_id, copies }),
        Request::RequestKeys(RequestKeys { chat_id, key_ids: vec![KeyId::generate()] }),
        Request::RefuseCopy(eve.copy_refusal(chat_id, KeyId::generate())),
        Request::ChangeMembership(ChangeMembership {
            chat_id,
            change: eve.change_from(&now, chat_id, Change::Remove, &pair.bob),
            info_keys: Vec::new(),
        }),
        Request::DeleteChat(DeleteChat { chat_id, change: eve.change_from(&now, chat_id, Change::Delete, &eve) }),
    ];
    for request in requests {
        let name = format!("{request:?}");
        let answer = within(&name, eve_socket.request(request)).await;
        assert_eq!(answer.unwrap_err().code, ErrorCode::UnknownChat, "{name}");
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
}

/// What the server shows of one chat, kept while it goes on.
#[cfg(feature = "client")]
const KEEP: &str =
    "CREATE TABLE kept_chats AS SELECT * FROM chats; CREATE TABLE kept_members AS SELECT * FROM user_in_chat";

/// The chat as it was when it was kept.
#[cfg(feature = "client")]
const ROLL_BACK: &str = "UPDATE chats SET (last_seq, log_hash, epoch, roster_version, roster_hash, change_no, change_hash) = \
         (SELECT last_seq, log_hash, epoch, roster_version, roster_hash, change_no, change_hash FROM kept_chats k WHERE k.id = chats.id); \
     DELETE FROM chat_events e USING chats c WHERE c.id = e.chat_id AND e.seq > c.last_seq; \
     DELETE FROM user_in_chat; INSERT INTO user_in_chat SELECT * FROM kept_members";

#[cfg(feature = "client")]
#[tokio::test]
async fn p7_a_chat_that_is_taken_away_and_shown_again_is_no_shorter() {
    use sealcast::client::{Event, VerificationFailure};

    use super::support::broker::Broker;
    use super::support::database::Database;
    use super::support::library::{caught_up, event_that, register};

    let database = Database::create().await;
    let mut broker = Broker::start(&database).await;
    let url = format!("http://{}", broker.address());
    let (ann, bob) = (register(&url, "ann").await, register(&url, "bob").await);
    let _carol = register(&url, "carol").await;
    let chat_id = ann.create_chat("Lunch").await.unwrap();
    ann.add_member(chat_id, "bob", true, false).await.unwrap();
    let seq = ann.add_member(chat_id, "carol", true, false).await.unwrap();
    caught_up(&bob, chat_id, seq).await;
    eventually("carol's session", async || bob.head(chat_id) == ann.head(chat_id)).await;
    let outside = database.client().await;
    outside.batch_execute(KEEP).await.unwrap();
    let removed = ann.remove_member(chat_id, "carol").await.unwrap();
    caught_up(&bob, chat_id, removed).await;
    ann.close().await.unwrap();

    // A server that would have Bob encrypt to Carol again: it says that the chat is gone, and shows it as it was.
    let mut events = bob.events();
    broker.kill();
    let bobs_id = bob.user_id();
    outside.batch_execute(&format!("DELETE FROM user_in_chat WHERE user_id = '{bobs_id}'")).await.unwrap();
    broker.restart().await;
    event_that("the chat to go", &mut events, |event| matches!(event, Event::Removed { .. }).then_some(())).await;
    broker.kill();
    outside.batch_execute(ROLL_BACK).await.unwrap();
    broker.restart().await;
    let failure = event_that("an alarm", &mut events, |event| match event {
        Event::Alarm(alarm) => Some(alarm.failure),
        _ => None,
    })
    .await;
    assert!(matches!(failure, VerificationFailure::Rollback { .. }), "{failure}");
    let sending = tokio::time::timeout(std::time::Duration::from_secs(2), bob.send(chat_id, "for ann alone")).await;
    assert!(sending.is_err(), "nothing is sent to who was removed: {sending:?}");
    assert_eq!(database.count("SELECT count(*) FROM chat_messages").await, 0);
}
