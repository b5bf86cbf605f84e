//! The end of the process, as those see it who are in the midst of something.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::CloseCode;
use sealcast::protocol::frame::{Authenticate, DeleteChat, Nothing, Reply, Request, ServerFrame, login_bytes};
use sealcast::protocol::membership::Change;

use super::messages::Pair;
use super::support::broker::Broker;
use super::support::database::Database;
use super::support::device::{Socket, sign};
use super::support::{eventually, within};

/// The pushes up to the close; then `bye` must be the last of them, and the close 1012.
async fn says_bye(socket: &mut Socket) {
    let code = within("a close", socket.close_code()).await;
    assert_eq!(code, Some(CloseCode::Restart.number()));
    let last = socket.pushes.pop_back();
    assert!(matches!(last, Some(ServerFrame::Bye(_))), "{last:?}");
}

#[tokio::test]
async fn p11_who_has_not_logged_in_is_told_to_come_back_too() {
    let database = Database::create().await;
    let mut broker = Broker::start(&database).await;
    let mut newcomers = Vec::new();
    for encoding in Encoding::ALL {
        for _ in 0..5 {
            newcomers.push(Socket::open(&broker, encoding).await);
        }
    }
    broker.signal("TERM");
    for newcomer in &mut newcomers {
        says_bye(newcomer).await;
    }
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn p11_newcomers_are_forgotten_when_they_leave_or_log_in() {
    let mut pair = Pair::start().await;
    for _ in 0..5 {
        drop(Socket::open(&pair.broker, Encoding::Json).await);
    }
    let mut refused = Socket::open(&pair.broker, Encoding::Json).await;
    let session_id = pair.ada.session_id;
    let signature = sign(&pair.bob.signing, &login_bytes(&refused.hello.nonce, "sealcast", session_id));
    assert!(refused.request(Request::Authenticate(Authenticate { session_id, signature })).await.is_err());
    assert_eq!(refused.close_code().await, Some(CloseCode::LoginRefused.number()));
    eventually("all of them are gone", async || {
        pair.broker.metric("sealcast_connections", "new").await == 0.0
            && pair.broker.metric("sealcast_connections", "authenticated").await == 2.0
    })
    .await;
    pair.broker.signal("TERM");
    says_bye(&mut pair.ada_socket).await;
    says_bye(&mut pair.bob_socket).await;
    // One that was kept by mistake would hold the drain up until its grace is over, which is a failure.
    assert_eq!(pair.broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn p11_what_was_taken_in_is_answered_before_bye_also_when_it_is_no_message() {
    let mut pair = Pair::start().await;
    let change = pair.ada.change(&mut pair.ada_socket, pair.chat_id, Change::Delete, &pair.ada).await;
    // Requests that wait in the database, and are none of the messages on their way.
    let held = pair.database.client().await;
    held.batch_execute("BEGIN; LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let chat_id = pair.chat_id;
    let deletion = pair.ada_socket.send(Request::DeleteChat(DeleteChat { chat_id, change })).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits for the lock", async || pair.database.count(waits).await > 0).await;
    pair.broker.signal("TERM");
    eventually("the drain has begun", async || pair.broker.operator_get("/readyz").await.0 == 503).await;
    let refused = pair.bob_socket.request(Request::Ping(Nothing {})).await;
    assert!(refused.is_err_and(|error| error.retryable), "nothing new begins, and nobody is sent away yet");
    held.batch_execute("COMMIT").await.unwrap();
    assert!(matches!(pair.ada_socket.answer(deletion).await, Ok(Reply::Changed(_))));
    assert!(!pair.ada_socket.pushes.iter().any(|push| matches!(push, ServerFrame::Bye(_))), "bye came first");
    says_bye(&mut pair.ada_socket).await;
    says_bye(&mut pair.bob_socket).await;
    assert_eq!(pair.broker.exit_code().await, Some(0));
}
