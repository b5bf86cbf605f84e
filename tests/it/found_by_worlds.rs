//! What simulated worlds found wrong in the broker, once more over real sockets and a real Postgres.

use sealcast::protocol::canonical::sha256;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ChangeMembership, Cursor, Nothing, Reply, Request, Resume};
use sealcast::protocol::membership::Change;

use super::messages::Pair;
use super::support::chat::{submit, view};
use super::support::eventually;

#[tokio::test]
async fn who_resumes_while_a_change_is_under_way_is_answered_though_it_is_refused() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let sent = pair.ada.say(&mut pair.ada_socket, chat_id, "first").await.unwrap();
    let mut again = pair.bob.connect(&pair.broker).await;
    let rights = Change::SetRights { can_write: true, can_manage: false };
    let change = pair.ada.change(&mut pair.ada_socket, chat_id, rights, &pair.bob).await;
    let outside = pair.database.client().await;
    outside.batch_execute("BEGIN; SELECT 1 FROM chats FOR NO KEY UPDATE").await.unwrap();
    let request = ChangeMembership { chat_id, change, info_keys: Vec::new() };
    let changes = pair.ada_socket.send(Request::ChangeMembership(request)).await;
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the change to wait", async || pair.database.count(waiting).await > 0).await;
    let resumes = again.send(Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq: sent.seq }] })).await;
    assert_eq!(again.request(Request::Ping(Nothing {})).await.unwrap(), Reply::Done(Nothing {}));
    outside.batch_execute("COMMIT").await.unwrap();
    assert_eq!(pair.ada_socket.answer(changes).await.unwrap_err().code, ErrorCode::Malformed);
    assert_eq!(again.answer(resumes).await.unwrap(), Reply::Done(Nothing {}));
}

#[tokio::test]
async fn p2_a_repeat_gets_its_first_result_though_its_key_lacks_copies_by_now() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let message = pair.ada.seal(&now, &mut key, b"once");
    let sent = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    // Of the two copies that are missing now the repeat brings one: its key is stored, and it is not judged as a whole.
    let copy = key.copies.iter().find(|copy| copy.session_id == pair.bob.session_id).unwrap();
    let key_id = key.announcement.announcement.key_id;
    let refusal = pair.bob.refusal_of(chat_id, key_id, sha256(copy.key.as_ref()));
    pair.bob_socket.request(Request::RefuseCopy(refusal)).await.unwrap();
    pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let again = submit(&mut pair.ada_socket, message).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (sent.seq, true));
}
