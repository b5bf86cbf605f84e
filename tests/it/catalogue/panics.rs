//! Panics in one actor: a chat, a lane of the writer, a session (L10). Whoever has nothing to do with it notices nothing.

use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Nothing, Reply, Request};

use super::super::messages::Pair;
use super::super::support::broker::Settings;
use super::super::support::chat::{submit, view, whole_log};
use super::super::support::database::Database;
use super::super::support::late_commits::LateCommits;
use super::super::support::{eventually, trials};
use super::{send_until_taken, seq_of};

#[tokio::test]
async fn l10_a_panic_in_a_chat_costs_that_chat_a_load_and_loses_nothing() {
    let mut pair = Pair::start().await;
    let sibling = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut sibling_socket = sibling.connect_live(&pair.broker).await;
    // What the sender is told at once, and whether the message is committed by then.
    let places = [("chat::turn", false, false), ("chat::before_ok", false, true), ("chat::fan_out", true, true)];
    for (place, is_told, is_committed) in places.into_iter().cycle().take(places.len() * trials(2, 100)) {
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let message = pair.ada.seal(&now, &mut key, b"in the panic");
        let message_id = message.envelope.message_id;
        pair.broker.break_at(place, "1*panic").await;
        match submit(&mut pair.ada_socket, message.clone()).await {
            Ok(sent) => assert!(is_told && !sent.duplicate, "{place}"),
            Err(refused) => assert!(!is_told && refused.code == ErrorCode::Internal && refused.retryable, "{place}"),
        }
        let sent = send_until_taken(&mut pair.ada_socket, &message).await;
        assert_eq!((sent.seq, sent.duplicate), (now.seen.seq.next(), is_committed), "{place}");
        for socket in [&mut pair.bob_socket, &mut sibling_socket] {
            assert_eq!(socket.push_that(|push| seq_of(push, message_id)).await, sent.seq, "{place}");
        }
        assert_eq!(pair.broker.metric("sealcast_chats_loaded", "").await, 1.0, "{place}");
    }
    let log = whole_log(&mut pair.ada_socket, pair.chat_id).await;
    let rows = pair.database.count("SELECT count(*) FROM chat_messages").await;
    assert_eq!(rows as usize, places.len() * trials(2, 100), "{}", log.len());
}

#[tokio::test]
async fn l10_a_panic_in_a_chat_touches_no_other_chat_of_its_thread_and_lane() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("chat.workers", 1).with("writer.lanes", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let other = pair.bob.create_chat(&mut pair.bob_socket).await;
    pair.bob.say(&mut pair.bob_socket, other, "it is loaded").await.unwrap();
    let theirs = view(&mut pair.bob_socket, other).await;
    let mut their_key = pair.bob.sender_key(&theirs, other);
    let held = pair.database.hold_commits().await;
    let message = pair.bob.seal(&theirs, &mut their_key, b"on its way");
    let on_its_way = pair.bob_socket.send(Request::Send(Box::new(message))).await;
    pair.database.until_held().await;
    pair.broker.break_at("chat::turn", "1*panic").await;
    let refused = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "in the panic").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Internal);
    held.batch_execute("COMMIT").await.unwrap();
    let answer = pair.bob_socket.answer(on_its_way).await;
    assert!(matches!(answer, Ok(Reply::Sent(ref sent)) if !sent.duplicate), "{answer:?}");
    let message = pair.bob.seal(&theirs, &mut their_key, b"and on");
    assert!(submit(&mut pair.bob_socket, message).await.is_ok());
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.is_ok());
}

#[tokio::test]
async fn l10_what_a_chat_left_on_its_way_is_shown_though_nobody_repeats_it() {
    let database = Database::create().await;
    let commits = LateCommits::of(&database).await;
    let settings = Settings::on(&database).with("database.deadline_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    commits.hold().await;
    let message = pair.ada.seal(&now, &mut key, b"left on its way");
    let message_id = message.envelope.message_id;
    let id = pair.ada_socket.send(Request::Send(Box::new(message))).await;
    commits.until_waiting().await;
    pair.broker.break_at("chat::turn", "1*panic").await;
    let refused = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "in the panic").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Internal);
    assert_eq!(pair.ada_socket.answer(id).await.unwrap_err().code, ErrorCode::Internal);
    commits.release().await;
    assert_eq!(pair.bob_socket.push_that(|push| seq_of(push, message_id)).await, now.seen.seq.next());
}

#[tokio::test]
async fn l10_a_panic_in_the_writer_starts_its_lane_anew_and_loses_nothing() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("writer.lanes", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let other = pair.bob.create_chat(&mut pair.bob_socket).await;
    // Whether the message was committed when the lane ended.
    let places = [("commit::before_writing", false), ("commit::before", false), ("commit::after", true)];
    let rounds = places.len() * trials(1, 100);
    for (place, is_committed) in places.into_iter().cycle().take(rounds) {
        let theirs = view(&mut pair.bob_socket, other).await;
        let mut their_key = pair.bob.sender_key(&theirs, other);
        let theirs = pair.bob.seal(&theirs, &mut their_key, b"in the same lane");
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let message = pair.ada.seal(&now, &mut key, b"in the panic");
        let held = pair.database.hold_commits().await;
        pair.broker.break_at(place, "1*panic").await;
        let id = pair.ada_socket.send(Request::Send(Box::new(message))).await;
        if place != "commit::before_writing" {
            pair.database.until_held().await;
        }
        let their_id = pair.bob_socket.send(Request::Send(Box::new(theirs))).await;
        pair.bob_socket.pushes_so_far().await;
        held.batch_execute("COMMIT").await.unwrap();
        // Nobody is told of it: the chats look at the store and go on with another lane.
        let Ok(Reply::Sent(sent)) = pair.ada_socket.answer(id).await else { panic!("{place}") };
        assert_eq!((sent.seq, sent.duplicate), (now.seen.seq.next(), is_committed), "{place}");
        assert!(pair.bob_socket.answer(their_id).await.is_ok(), "{place}");
        assert_eq!(pair.broker.operator_get("/readyz").await.0, 200, "{place}");
    }
    assert_eq!(pair.broker.metric("sealcast_batch_failures_total", "lane_ended").await, rounds as f64);
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, 2 * rounds as i64);
    pair.broker.signal("TERM");
    assert_eq!(pair.broker.exit_code().await, Some(0), "and it drains");
}

#[tokio::test]
async fn l10_a_panic_in_a_session_closes_its_connection_alone() {
    let mut pair = Pair::start().await;
    for _ in 0..trials(2, 100) {
        pair.broker.break_at("session::frame", "1*panic").await;
        pair.ada_socket.send(Request::Ping(Nothing {})).await;
        assert_eq!(pair.ada_socket.close_code().await, Some(CloseCode::Internal.number()));
        assert!(pair.bob_socket.request(Request::Ping(Nothing {})).await.is_ok());
        eventually("its place to be free", async || {
            pair.broker.metric("sealcast_connections", "authenticated").await == 1.0
        })
        .await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
        let is_it = |push: &_| {
            matches!(push, sealcast::protocol::frame::ServerFrame::Entry(entry) if entry.entry.seq == sent.seq)
                .then_some(())
        };
        pair.bob_socket.push_that(is_it).await;
    }
}
