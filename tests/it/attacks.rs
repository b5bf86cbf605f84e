//! What one party tries in order to harm another: across chats in one commit, across connections of one session,
//! by floods.

use sealcast::protocol::binary::Hash;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Cursor, Nothing, Reply, Request, Resume, Send, ServerFrame, StageCopies};
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use sealcast::protocol::keys::{KeyCopy, staged_hash};

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{SenderKey, copy_for, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket, sign};
use super::support::link::sessions;
use super::support::{eventually, within};

/// Waits until so many messages are on their way.
async fn until_in_flight(broker: &Broker, count: usize) {
    eventually("messages on their way", async || {
        broker.metric("sealcast_messages_in_flight", "").await >= count as f64
    })
    .await;
}

/// A pair on a broker whose writer has one lane, and one more chat of both.
async fn one_lane() -> (Pair, ChatId) {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("writer.lanes", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let other = pair.ada.create_chat(&mut pair.ada_socket).await;
    pair.ada.add(&mut pair.ada_socket, other, &pair.bob).await.unwrap();
    (pair, other)
}

#[tokio::test]
async fn one_id_twice_in_one_commit_harms_only_its_sender() {
    let (mut pair, other) = one_lane().await;
    let theirs = view(&mut pair.bob_socket, other).await;
    let mut bobs_key = pair.bob.sender_key(&theirs, other);
    let first = pair.bob.seal(&theirs, &mut bobs_key, b"loaded");
    submit(&mut pair.bob_socket, first).await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let first = pair.ada.seal(&now, &mut key, b"loaded");
    submit(&mut pair.ada_socket, first).await.unwrap();

    let held = pair.database.hold_commits().await;
    let warm = pair.ada.seal(&now, &mut key, b"warm");
    let warm = pair.ada_socket.send(Request::Send(Box::new(warm))).await;
    pair.database.until_held().await;
    // One id, two contents, both counters in order: nothing that the chat holds in memory tells them apart.
    let one = pair.ada.seal(&now, &mut key, b"one");
    let mut two = pair.ada.seal(&now, &mut key, b"two");
    two.envelope.message_id = one.envelope.message_id;
    pair.ada.sign_envelope(&mut two);
    let one = pair.ada_socket.send(Request::Send(Box::new(one))).await;
    let two = pair.ada_socket.send(Request::Send(Box::new(two))).await;
    let neighbour = pair.bob.seal(&theirs, &mut bobs_key, b"neighbour");
    let neighbour = pair.bob_socket.send(Request::Send(Box::new(neighbour))).await;
    until_in_flight(&pair.broker, 4).await;
    held.batch_execute("COMMIT").await.unwrap();

    pair.ada_socket.answer(warm).await.unwrap();
    pair.bob_socket.answer(neighbour).await.unwrap();
    let Reply::Sent(stored) = pair.ada_socket.answer(one).await.unwrap() else { panic!() };
    let refused = pair.ada_socket.answer(two).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IdReused);
    assert_eq!(refused.details.unwrap().stored.unwrap().seq, stored.seq);
    assert_eq!(pair.broker.metric("sealcast_batch_failures_total", "").await, 0.0, "a commit failed as a whole");
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.is_ok());
}

/// A key of a given id.
fn key_of_id(device: &Device, key_id: KeyId, mut key: SenderKey) -> SenderKey {
    key.announcement.announcement.key_id = key_id;
    let bytes = key.announcement.announcement.signed_bytes(key.chat_id);
    key.announcement.signature = sign(&device.signing, &bytes);
    key
}

#[tokio::test]
async fn p4_a_key_id_used_in_two_chats_is_two_keys() {
    let (mut pair, later) = one_lane().await;
    let earlier = pair.chat_id;
    let key_id = KeyId::generate();
    let in_earlier = view(&mut pair.ada_socket, earlier).await;
    let in_later = view(&mut pair.ada_socket, later).await;
    let mut key_earlier = key_of_id(&pair.ada, key_id, pair.ada.sender_key(&in_earlier, earlier));
    let mut key_later = key_of_id(&pair.ada, key_id, pair.ada.sender_key(&in_later, later));
    for _ in 0..2 {
        let message = pair.ada.seal(&in_earlier, &mut key_earlier, b"in the one");
        submit(&mut pair.ada_socket, message).await.unwrap();
    }
    let message = pair.ada.seal(&in_later, &mut key_later, b"in the other");
    submit(&mut pair.ada_socket, message).await.unwrap();

    let held = pair.database.hold_commits().await;
    let third = pair.bob.create_chat(&mut pair.bob_socket).await;
    let own = view(&mut pair.bob_socket, third).await;
    let mut own_key = pair.bob.sender_key(&own, third);
    let warm = pair.bob.seal(&own, &mut own_key, b"warm");
    let warm = pair.bob_socket.send(Request::Send(Box::new(warm))).await;
    pair.database.until_held().await;
    // Behind the actors' back a copy goes in one chat, and both keys are to be counted again.
    let bob = pair.bob.session_id;
    let sql = format!(
        "DELETE FROM vault_chat_sender_keys WHERE session_id = '{bob}' AND chat_id = '{earlier}'; \
         UPDATE sender_keys SET covered_version = NULL"
    );
    pair.database.client().await.batch_execute(&sql).await.unwrap();
    let whole = pair.ada.seal(&in_later, &mut key_later, b"whole");
    let lacking = pair.ada.seal(&in_earlier, &mut key_earlier, b"lacking");
    let whole = pair.ada_socket.send(Request::Send(Box::new(whole))).await;
    let lacking = pair.ada_socket.send(Request::Send(Box::new(lacking))).await;
    until_in_flight(&pair.broker, 3).await;
    held.batch_execute("COMMIT").await.unwrap();

    pair.bob_socket.answer(warm).await.unwrap();
    pair.ada_socket.answer(whole).await.unwrap();
    let refused = pair.ada_socket.answer(lacking).await.expect_err("a message without a recipient's copy");
    assert_eq!(refused.code, ErrorCode::CopiesMissing);
    assert_eq!(refused.details.unwrap().missing, [bob]);
    let conflicts = "SELECT count(*) FROM chat_messages";
    assert_eq!(pair.database.count(conflicts).await, 5);
}

#[tokio::test]
async fn a_new_key_of_an_id_that_another_chat_uses_is_stored() {
    let (mut pair, other) = one_lane().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut adas_key = pair.ada.sender_key(&now, pair.chat_id);
    let key_id = adas_key.announcement.announcement.key_id;
    let message = pair.ada.seal(&now, &mut adas_key, b"mine");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let theirs = view(&mut pair.bob_socket, other).await;
    let mut bobs_key = key_of_id(&pair.bob, key_id, pair.bob.sender_key(&theirs, other));

    let held = pair.database.hold_commits().await;
    let warm = pair.ada.seal(&now, &mut adas_key, b"warm");
    let warm = pair.ada_socket.send(Request::Send(Box::new(warm))).await;
    pair.database.until_held().await;
    let bobs = pair.bob.seal(&theirs, &mut bobs_key, b"same id, other chat");
    let bobs = pair.bob_socket.send(Request::Send(Box::new(bobs))).await;
    let next = pair.ada.seal(&now, &mut adas_key, b"next");
    let next = pair.ada_socket.send(Request::Send(Box::new(next))).await;
    until_in_flight(&pair.broker, 3).await;
    held.batch_execute("COMMIT").await.unwrap();
    pair.ada_socket.answer(warm).await.unwrap();
    pair.bob_socket.answer(bobs).await.expect("a key of that id exists in another chat only");
    pair.ada_socket.answer(next).await.unwrap();
}

#[tokio::test]
async fn n3_an_older_connection_that_still_resumes_takes_nothing_from_the_newer() {
    let mut pair = Pair::start().await;
    let slow = pair.chat_id;
    let chat_id = pair.ada.create_chat(&mut pair.ada_socket).await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
    let at = view(&mut pair.ada_socket, chat_id).await.seen.seq;
    let slow_view = view(&mut pair.ada_socket, slow).await;
    let mut key = pair.ada.sender_key(&slow_view, slow);
    let message = pair.ada.seal(&slow_view, &mut key, b"slow");
    // Nothing is loaded; then one chat begins to load and cannot.
    pair.broker.kill_and_restart().await;
    let mut ada_socket = pair.ada.connect_live(&pair.broker).await;
    let outside = pair.database.client().await;
    outside.batch_execute(&format!("BEGIN; SELECT 1 FROM chats WHERE id = '{slow}' FOR UPDATE")).await.unwrap();
    let sending = ada_socket.send(Request::Send(Box::new(message))).await;
    until_in_flight(&pair.broker, 1).await;

    let mut older = pair.bob.connect(&pair.broker).await;
    let cursors = vec![Cursor { chat_id: slow, seq: slow_view.seen.seq }, Cursor { chat_id, seq: at }];
    older.send(Request::Resume(Resume { cursors })).await;
    older.request(Request::Ping(Nothing {})).await.unwrap();
    let mut newer = pair.bob.connect(&pair.broker).await;
    assert_eq!(older.close_code().await, Some(CloseCode::Replaced.number()));
    let cursors = vec![Cursor { chat_id, seq: at }];
    newer.request(Request::Resume(Resume { cursors })).await.unwrap();
    outside.batch_execute("COMMIT").await.unwrap();
    ada_socket.answer(sending).await.unwrap();
    newer.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;

    let sent = pair.ada.say(&mut ada_socket, chat_id, "to the newer one").await.unwrap();
    newer
        .push_that(|push| match push {
            ServerFrame::Entry(push) if push.chat_id == chat_id => (push.entry.seq == sent.seq).then_some(()),
            ServerFrame::Page(page) if page.chat_id == chat_id => (page.up_to == sent.seq).then_some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn w11_a_flood_is_told_to_wait_and_then_ended_and_nobody_else_notices() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut flooding = eve.connect(&pair.broker).await;
    within("the end of the flood", async {
        let mut told = 0;
        while flooding.closed.is_none() {
            // As many as are taken without reading, so that what passes is far below what does not.
            for _ in 0..200 {
                flooding.send(Request::Ping(Nothing {})).await;
            }
            for _ in 0..200 {
                match flooding.push().await {
                    Some(ServerFrame::Error(error)) => {
                        assert_eq!(error.code, ErrorCode::RateLimited);
                        told += 1;
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        }
        assert!(told >= 1_000, "told {told} times");
    })
    .await;
    assert_eq!(flooding.closed, Some(CloseCode::PolicyViolation.number()));
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "undisturbed").await.is_ok());
}

#[tokio::test]
async fn a_flood_of_membership_changes_never_gets_through() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("limits.membership_changes_per_minute", 1)
        .with("limits.requests_per_s", 1_000_000)
        .with("limits.requests_burst", 1_000_000);
    let broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect(&broker).await;
    ada.create_chat(&mut socket).await;
    let creation = ada.creation(ChatId::generate());
    for _ in 0..1_100 {
        socket.send(Request::CreateChat(creation.clone())).await;
    }
    let mut refused = 0;
    while let Some(push) = socket.push().await {
        match push {
            ServerFrame::Error(error) => {
                assert_eq!(error.code, ErrorCode::RateLimited);
                refused += 1;
            }
            ServerFrame::Ok(ok) => panic!("it got through: {ok:?}"),
            _ => {}
        }
    }
    assert!(refused >= 1_000, "{refused}");
    assert_eq!(socket.closed, Some(CloseCode::PolicyViolation.number()));
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 1);
}

#[tokio::test]
async fn a_request_to_link_that_is_repeated_disturbs_nobody_twice() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let pending = ada.pending(&broker).await;
    for _ in 0..20 {
        assert_eq!(pending.ask_to_link(&broker).await.0, 200);
    }
    let pushes = socket.pushes_so_far().await;
    let told = pushes.iter().filter(|push| matches!(push, ServerFrame::SessionPending(_))).count();
    assert_eq!(told, 1, "anybody may repeat a request, nobody is to be flooded by it");
    assert_eq!(sessions(&mut socket).await.pending.len(), 1);
}

fn staged(send: &mut Send, hash: Hash) {
    send.new_key.as_mut().unwrap().staged = Some(hash);
}

#[tokio::test]
async fn copies_in_the_frame_are_bounded_whatever_the_frame_says_went_ahead() {
    let pair = Pair::start().await;
    let mut packed = pair.ada.connect_with(&pair.broker, Encoding::MessagePack).await;
    let now = view(&mut packed, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    key.copies.extend((0..1_000).map(|_| copy_for(SessionId::generate())));
    let mut message = pair.ada.seal(&now, &mut key, b"both");
    staged(&mut message, Hash([0; 32]));
    let refused = submit(&mut packed, message).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Malformed);
    assert_eq!(view(&mut packed, pair.chat_id).await.seen, now.seen);
    assert!(pair.ada.say(&mut packed, pair.chat_id, "good").await.is_ok());
}

#[tokio::test]
async fn p2_a_repeat_of_a_message_whose_copies_went_ahead_gets_the_first_result() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let copies: Vec<KeyCopy> = std::mem::take(&mut key.copies);
    let key_id = key.announcement.announcement.key_id;
    let part = StageCopies { chat_id: pair.chat_id, key_id, part: 0, parts: 1, copies: copies.clone() };
    pair.ada_socket.request(Request::StageCopies(part)).await.unwrap();
    let mut message = pair.ada.seal(&now, &mut key, b"ahead");
    staged(&mut message, staged_hash(copies.iter()));
    let first = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    // The same bytes, when the list is long forgotten: on this connection, and after the broker's death.
    let again = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    pair.broker.kill_and_restart().await;
    let mut socket: Socket = pair.ada.connect_live(&pair.broker).await;
    let again = submit(&mut socket, message).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
}
