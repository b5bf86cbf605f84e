//! Who was removed keeps what they had, and it opens nothing that came after.

use std::collections::BTreeMap;

use sealcast::crypto::UserSecret;
use sealcast::crypto::group_key::{GroupKey, RecoverySecret};
use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::group_key::Archive;
use sealcast::protocol::ids::{ChatId, GenerationNo, KeyId, SessionId, UserId, UserKeyId};

use super::super::passwords::{open, register};
use super::super::support::database::Database;
use super::{Two, say};

/// Every group key of a database that user keys open.
async fn group_keys(
    database: &Database,
    user_id: UserId,
    keys: &BTreeMap<UserKeyId, UserSecret>,
) -> Vec<RecoverySecret> {
    let statement = "SELECT group_id, key_id, generation, encrypted_key FROM group_keys";
    let mut opened = Vec::new();
    for row in database.client().await.query(statement, &[]).await.unwrap() {
        let (chat_id, key_id) = (ChatId(row.get("group_id")), UserKeyId(row.get("key_id")));
        let number = GenerationNo::saturating(row.get::<_, i64>("generation").cast_unsigned());
        let wrap = WrappedKey::try_from(row.get::<_, &[u8]>("encrypted_key")).unwrap();
        for secret in keys.values() {
            let key = GroupKey::open(&wrap, chat_id, number, (user_id, key_id, secret));
            opened.extend(key.ok().map(|key| key.recovery()));
        }
    }
    opened
}

/// Keys whose archives in a database open to one of these.
async fn archived(database: &Database, recovery: &[RecoverySecret]) -> Vec<KeyId> {
    let statement = "SELECT a.chat_id, a.sender_key_id, a.generation, a.key, k.sender_session_id \
        FROM sender_key_archives a JOIN sender_keys k ON k.key_id = a.sender_key_id";
    let mut opened = Vec::new();
    for row in database.client().await.query(statement, &[]).await.unwrap() {
        let (chat_id, key_id) = (ChatId(row.get("chat_id")), KeyId(row.get("sender_key_id")));
        let generation = GenerationNo::saturating(row.get::<_, i64>("generation").cast_unsigned());
        let key = WrappedKey::try_from(row.get::<_, &[u8]>("key")).unwrap();
        let (archive, sender) = (Archive { generation, key }, SessionId(row.get("sender_session_id")));
        if recovery.iter().any(|secret| secret.open_archive(&archive, chat_id, key_id, sender).is_ok()) {
            opened.push(key_id);
        }
    }
    opened
}

#[tokio::test]
async fn p5_a_removed_member_with_every_key_they_had_and_the_whole_database_opens_nothing_that_came_after() {
    let two = Two::start().await;
    let carol = register(&two.broker, "carol", "battery staple").await;
    two.ada.add_member(two.chat_id, "carol", true, false).await.unwrap();
    two.same(&carol).await;
    two.same(&two.bob).await;
    say(&two.bob, two.chat_id, &["for carol too"]).await;
    say(&two.ada, two.chat_id, &["and this"]).await;
    // Her keys of all kinds are open: that is the most that anybody could have kept.
    let (_, opened) = open(&two.broker, "carol", "battery staple").await;
    let hers = group_keys(&two.database, carol.user_id(), &opened.user_keys).await;
    let before = archived(&two.database, &hers).await;
    assert_eq!((hers.len(), before.len()), (1, 2), "while she was in she could");

    two.ada.remove_member(two.chat_id, "carol").await.unwrap();
    two.same(&two.bob).await;
    say(&two.bob, two.chat_id, &["without carol"]).await;
    say(&two.ada, two.chat_id, &["nor this"]).await;
    let keys = "SELECT count(*) FROM sender_key_archives";
    assert_eq!(two.database.count(keys).await, 4);
    let after = group_keys(&two.database, carol.user_id(), &opened.user_keys).await;
    assert_eq!(after.len(), 1, "no wrap of the next group key is for her");
    let all: Vec<RecoverySecret> = hers.into_iter().chain(after).collect();
    assert_eq!(archived(&two.database, &all).await, before);
    // Who stayed has them.
    two.lose_ada().await;
    two.bob.close().await.unwrap();
    let all = ["for carol too", "and this", "without carol", "nor this"];
    assert_eq!(two.all(&two.ada_again().await).await, all);
}
