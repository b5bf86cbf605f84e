//! What clients find out for themselves after they were away: that they were removed, that a message's outcome is not
//! known, that they were added.

use sealcast::client::{Event, SendError};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ChatGone, Nothing, Reply, Request, ServerFrame};
use sealcast::protocol::ids::{ChatId, KeyId, MessageId};
use sealcast::protocol::membership::Change;

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{View, submit, view};
use super::support::database::Database;
use super::support::device::Device;
use super::support::library::{caught_up, event_that, register};
use super::support::proxy::{Path, Proxy};
use super::support::{eventually, within};

/// A broker whose connections lag soon, and are not cut for taking nothing.
fn narrow(database: &Database) -> Settings {
    Settings::on(database)
        .with("limits.outbox_frames_max", 16)
        .with("limits.outbox_bytes_max", 65_536)
        .with("server.stalled_timeout_s", 600)
        .with("server.ping_interval_s", 120)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000)
}

/// More than the buffers of a connection that is not read hold, which is 4 MB: 7 MB.
const MESSAGES: usize = 120;
const MESSAGE_BYTES: usize = 60_000;

async fn lagged(broker: &Broker) -> f64 {
    broker.metric("sealcast_connections_lagged_total", "").await
}

#[tokio::test]
async fn who_is_removed_while_catching_up_is_told() {
    let database = Database::create().await;
    let settings = narrow(&database);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "first").await.unwrap();
    pair.bob_socket.pushes_so_far().await;
    let before = lagged(&pair.broker).await;
    let now = View { seen: view(&mut pair.ada_socket, pair.chat_id).await.seen, ..now };
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    // Bob does not read: what no buffer holds makes him lag, and he cannot catch up.
    for _ in 0..MESSAGES {
        let message = pair.ada.seal(&now, &mut key, &[1; MESSAGE_BYTES]);
        submit(&mut pair.ada_socket, message).await.unwrap();
    }
    assert!(lagged(&pair.broker).await > before);
    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let gone = pair
        .bob_socket
        .push_that(|push| match push {
            ServerFrame::ChatGone(gone) => Some(*gone),
            _ => None,
        })
        .await;
    assert_eq!(gone, ChatGone { chat_id: pair.chat_id });
    assert!(pair.bob_socket.request(Request::Ping(Nothing {})).await.is_ok());
    // Whoever names a chat that is none of theirs is told the same, whatever it is.
    let other = ChatId::generate();
    let cursor = sealcast::protocol::frame::Cursor { chat_id: other, seq: sealcast::protocol::ids::Seq::saturating(7) };
    let resume = sealcast::protocol::frame::Resume { cursors: vec![cursor] };
    pair.bob_socket.request(Request::Resume(resume)).await.unwrap();
    let pushes = pair.bob_socket.pushes_so_far().await;
    assert!(pushes.contains(&ServerFrame::ChatGone(ChatGone { chat_id: other })), "{pushes:?}");
}

#[tokio::test]
async fn a_client_that_is_removed_while_it_catches_up_knows_without_a_new_connection() {
    let database = Database::create().await;
    let broker = Broker::start_with(narrow(&database)).await;
    let ada = register(&broker.public, "ada").await;
    let path = Proxy::start(&broker).await;
    let bob = register(&path.url, "bob").await;
    let mut events = bob.events();
    let chat = ada.create_chat("Lunch").await.unwrap();
    ada.add_member(chat, "bob", true, false).await.unwrap();
    let sent = ada.send(chat, "hello").await.unwrap();
    caught_up(&bob, chat, sent.seq).await;
    let connections = bob.stats().connections;
    let before = lagged(&broker).await;
    path.set(Path::HoldAnswers);
    let long = "x".repeat(MESSAGE_BYTES);
    for _ in 0..MESSAGES {
        ada.send(chat, &long).await.unwrap();
    }
    assert!(lagged(&broker).await > before);
    ada.remove_member(chat, "bob").await.unwrap();
    path.set(Path::Open);
    event_that("the removal", &mut events, |event| match event {
        Event::Removed { chat_id } if *chat_id == chat => Some(()),
        Event::Alarm(alarm) => panic!("{alarm:?}"),
        _ => None,
    })
    .await;
    assert_eq!(bob.stats().connections, connections);
    within("the client to be live", bob.live()).await.unwrap();
}

#[tokio::test]
async fn a_message_whose_sender_was_removed_before_its_answer_is_not_said_to_be_lost() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker.public, "ada").await;
    let path = Proxy::start(&broker).await;
    let bob = register(&path.url, "bob").await;
    let mut events = ada.events();
    let chat = ada.create_chat("Lunch").await.unwrap();
    ada.add_member(chat, "bob", true, false).await.unwrap();
    let sent = bob.send(chat, "answered").await.unwrap();
    caught_up(&ada, chat, sent.seq).await;
    path.set(Path::HoldAnswers);
    let message_id = MessageId::generate();
    let (open, behind) = (bob.clone(), bob.clone());
    let body = sealcast::client::Body::text("taken, and not answered");
    let open = tokio::spawn(async move { open.send_body(chat, message_id, &body).await });
    event_that("the message that was taken", &mut events, |event| match event {
        Event::Message(message) if message.message_id == message_id => Some(()),
        _ => None,
    })
    .await;
    // Another waits behind it and never leaves.
    let behind = tokio::spawn(async move { behind.send(chat, "never left").await });
    eventually("both to wait", async || bob.waiting(chat) == 2).await;
    path.set(Path::Cut);
    ada.remove_member(chat, "bob").await.unwrap();
    path.set(Path::Open);
    let open = within("an answer", open).await.unwrap();
    assert!(matches!(open, Err(SendError::OutcomeUnknown)), "{open:?}");
    let behind = within("an answer", behind).await.unwrap();
    assert!(matches!(behind, Err(SendError::Refused { code: ErrorCode::UnknownChat })), "{behind:?}");
}

#[tokio::test]
async fn newcomers_are_welcomed_though_the_adder_never_learns_that_they_were_added() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("database.deadline_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let carol = Device::register(&pair.broker, "carol").await;
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    let add = Change::Add {
        can_write: true,
        can_manage: false,
        roster_hash: sealcast::protocol::binary::Hash([0; 32]),
        epoch: sealcast::protocol::ids::Epoch::default(),
    };
    let change = pair.ada.change(&mut pair.ada_socket, pair.chat_id, add, &carol).await;
    // The chat is loaded, and then a commit of members takes longer than the broker waits for its answer, and does not
    // heed that it was given up.
    let stale = pair.ada.signal(pair.chat_id, KeyId::generate());
    let _ = pair.ada_socket.request(Request::Signal(stale)).await;
    let slow = "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(10); RETURN NULL; \
         EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(1); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER dawdles AFTER INSERT ON user_in_chat DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION dawdle()";
    pair.database.client().await.batch_execute(slow).await.unwrap();
    let refused =
        super::support::chat::change_membership(&mut pair.ada_socket, pair.chat_id, change).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageUnavailable);
    // Ada does not ask again, and nobody else does anything.
    let chat_id = pair.chat_id;
    let page = carol_socket
        .push_that(|push| match push {
            ServerFrame::Page(page) if page.chat_id == chat_id => Some(page.clone()),
            _ => None,
        })
        .await;
    let reply = carol_socket.request(Request::ListChats(Nothing {})).await.unwrap();
    let Reply::Chats(chats) = reply else { panic!("{reply:?}") };
    assert_eq!(page.entries[0].seq, chats.chats[0].joined_seq);
}
