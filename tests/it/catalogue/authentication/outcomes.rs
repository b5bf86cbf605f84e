//! A6: what is told of a session that is none any more, and to whom; through another node too.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{self, Reply, Request, ServerFrame};
use sealcast::protocol::ids::{KeyId, MessageId};

use super::super::super::codes::contents;
use super::super::super::messages::Pair;
use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::view;
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::eventually;
use super::super::super::support::every_request::{About, Scene, about};
use super::super::super::support::link::sessions;

/// What a login is answered, without its number, and how the connection ends.
async fn outcome(broker: &Broker, encoding: Encoding, signer: &Device, of: &Device) -> (frame::Error, Option<u16>) {
    let mut socket = Socket::open(broker, encoding).await;
    let named = Device { session_id: of.session_id, ..signer.clone() };
    let login = named.login(&socket.hello);
    let mut error = socket.request(login).await.unwrap_err();
    error.id = None;
    let code = socket.close_code().await;
    assert!(socket.pushes.is_empty(), "{:?}", socket.pushes);
    (error, code)
}

#[tokio::test]
async fn a6_expired_revoked_deleted_and_unknown_sessions_are_one_to_a_stranger_on_every_node() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let other = Broker::start_with(Settings::on(&database)).await;
    let (ada, eve) = (Device::register(&broker, "ada").await, Device::register(&broker, "eve").await);
    let mut ada_socket = ada.connect_live(&broker).await;
    let revoked = ada.linked(&broker, &mut ada_socket).await;
    ada.revoke(&mut ada_socket, revoked.session_id).await.unwrap();
    let expired = Device::register_for(&broker, "brief", 1_000_000).await;
    let deleted = Device::register(&broker, "gone").await;
    let mut deleted_socket = deleted.connect_live(&broker).await;
    deleted.delete_account(&mut deleted_socket).await.unwrap();
    assert_eq!(deleted_socket.close_code().await, Some(CloseCode::SessionRevoked.number()));
    let unknown = Device::unregistered("nobody", 1_000);
    let over = format!(
        "SELECT count(*) FROM user_sessions WHERE id = '{}' AND \
         expired_at <= clock_timestamp()",
        expired.session_id
    );
    eventually("the end of its time", async || database.count(&over).await == 1).await;

    let stranger = (ErrorCode::Unauthenticated, Some(CloseCode::LoginRefused.number()));
    let mut told = Vec::new();
    for node in [&broker, &other] {
        for encoding in Encoding::ALL {
            for session in [&ada, &revoked, &expired, &deleted, &unknown] {
                told.push(outcome(node, encoding, &eve, session).await);
            }
            // Whose session it was is told which, but for the two of which nothing is left to sign by.
            for (session, expected) in [
                (&revoked, (ErrorCode::SessionRevoked, Some(CloseCode::SessionRevoked.number()))),
                (&deleted, stranger),
                (&unknown, stranger),
            ] {
                let (error, code) = outcome(node, encoding, session, session).await;
                assert_eq!((error.code, code), expected, "{}", session.username);
            }
            expired.connect_expired(node).await;
            told.push(outcome(node, encoding, &deleted, &deleted).await);
        }
    }
    assert_eq!((told[0].0.code, told[0].1), stranger);
    for other in &told {
        assert_eq!(other, &told[0], "the words are the same too");
    }
    assert!(ada_socket.request(Request::Ping(frame::Nothing {})).await.is_ok());
    assert!(ada.connect(&other).await.request(Request::Ping(frame::Nothing {})).await.is_ok());
}

#[tokio::test]
async fn a6_a_session_that_was_revoked_through_another_node_is_over_on_this_one() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let other = Broker::start_with(Settings::on(&pair.database)).await;
    let lost = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut lost_socket = lost.connect_live(&pair.broker).await;
    let waiting = pair.bob.pending(&pair.broker).await;
    let seen = view(&mut lost_socket, chat_id).await;
    let chain = sessions(&mut lost_socket).await;
    let mut bob_there = pair.bob.connect_live(&other).await;
    pair.bob.revoke(&mut bob_there, lost.session_id).await.unwrap();

    // A login is refused at once, also here.
    let (error, code) = outcome(&pair.broker, Encoding::Json, &lost, &lost).await;
    assert_eq!((error.code, code), (ErrorCode::SessionRevoked, Some(CloseCode::SessionRevoked.number())));
    // Its connection here may stand for a while: nobody told this node. Nothing is done for it, and nothing shown.
    let scene = Scene {
        device: &lost,
        other: &pair.ada,
        chat_id,
        view: &seen,
        message_id: MessageId::generate(),
        key_id: KeyId::generate(),
    };
    let before = contents(&pair.database).await;
    for request in scene.all(&chain, &waiting) {
        // What this node holds in memory alone: the next commit ends it.
        let is_of_memory = matches!(request, Request::StageCopies(_) | Request::Signal(_));
        let (name, about) = (request.name(), about(&request));
        match lost_socket.request(request).await {
            Err(_) => {}
            Ok(reply) => assert!(about == About::Public || is_of_memory, "{name}: {reply:?}"),
        }
    }
    assert_eq!(contents(&pair.database).await, before);
    let own = pair.ada.say(&mut pair.ada_socket, chat_id, "not for the lost one").await.unwrap();
    for push in lost_socket.pushes_so_far().await {
        match push {
            ServerFrame::Entry(push) => assert!(push.entry.seq <= seen.seen.seq, "{push:?}"),
            ServerFrame::Page(page) => assert!(page.up_to <= seen.seen.seq, "{page:?}"),
            ServerFrame::Key(key) => panic!("{key:?}"),
            _ => {}
        }
    }
    assert!(own.seq > seen.seen.seq);
    let mut bob_socket = pair.bob.connect_live(&pair.broker).await;
    let reply = bob_socket.request(Request::ListChats(frame::Nothing {})).await.unwrap();
    assert!(matches!(reply, Reply::Chats(_)));
    pair.bob.say(&mut bob_socket, chat_id, "good").await.unwrap();
}
