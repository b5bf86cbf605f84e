//! Keys that are in the store when the broker is killed: K16.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::SessionId;

use super::super::super::messages::Pair;
use super::super::super::support::chat::{submit, view};
use super::super::super::support::trials;

#[tokio::test]
async fn k16_after_kill_9_a_stored_key_serves_without_a_new_upload() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    for _ in 0..trials(2, 100) {
        let now = view(&mut pair.ada_socket, chat_id).await;
        let mut key = pair.ada.sender_key(&now, chat_id);
        let is_bobs = |session_id: SessionId| session_id == pair.bob.session_id;
        let (bobs, others) = key.copies.iter().cloned().partition(|copy| is_bobs(copy.session_id));
        key.copies = others;
        // Refused for what is missing: but the key is stored.
        let mut message = pair.ada.seal(&now, &mut key, b"half covered");
        let refused = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::CopiesMissing);
        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        (message.new_key, message.add_copies) = (None, bobs);
        let first = submit(&mut pair.ada_socket, message).await.unwrap();

        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        let next = pair.ada.seal(&now, &mut key, b"under the same key");
        assert!(next.new_key.is_none() && next.add_copies.is_empty());
        let next = submit(&mut pair.ada_socket, next).await.unwrap();
        assert_eq!(next.seq, first.seq.next());
    }
    pair.bob_socket = pair.bob.connect_live(&pair.broker).await;
    assert!(pair.bob.say(&mut pair.bob_socket, chat_id, "good").await.is_ok());
}
