//! Group keys of a chat that has had many.

use sealcast::protocol::frame::{FetchGroupKeys, Reply, Request};
use sealcast::protocol::ids::GenerationNo;
use sealcast::protocol::limits::GROUP_KEYS_PER_REQUEST_MAX;

use super::super::generations::pair_with_password;

#[tokio::test]
async fn group_keys_come_in_pages() {
    let (mut pair, _halves) = pair_with_password().await;
    let page = u64::from(GROUP_KEYS_PER_REQUEST_MAX);
    let many = format!(
        "INSERT INTO group_keys (group_id, user_id, key_id, generation, encrypted_key, wrapped_by_session_id, signature) \
         SELECT '{}', k.user_id, k.key_id, n, decode(repeat('07', 80), 'hex'), '{}', decode(repeat('07', 64), 'hex') \
         FROM user_keys k, generate_series(1, {}) AS n",
        pair.chat_id,
        pair.bob.session_id,
        page + 1
    );
    pair.database.client().await.batch_execute(&many).await.unwrap();
    for (after, count, more) in [(0, page, true), (1, page, false), (page, 1, false), (page + 1, 0, false)] {
        let (chat_id, after) = (pair.chat_id, GenerationNo::saturating(after));
        let request = Request::FetchGroupKeys(FetchGroupKeys { chat_id, after });
        let Reply::GroupKeys(found) = pair.ada_socket.request(request.clone()).await.unwrap() else { panic!() };
        assert_eq!((found.keys.len() as u64, found.more), (count, more), "after {after}");
        assert!(found.keys.iter().all(|key| key.generation > after));
        let Reply::GroupKeys(none) = pair.bob_socket.request(request).await.unwrap() else { panic!() };
        assert_eq!((none.keys.len(), none.more), (0, false), "he has no user key");
    }
}
