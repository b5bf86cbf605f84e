//! What a session can open, and why not the rest.

use std::sync::Arc;

use sealcast::client::{Client, MemoryStorage, Openness, PendingLink};

use super::super::passwords::new_account;
use super::super::support::broker::Broker;
use super::super::support::clients::{config, message, read_all, register};
use super::super::support::database::Database;
use super::super::support::{eventually, within};
use super::{Two, say};

async fn ranges(client: &Client, two: &Two) -> Vec<(u64, u64, Openness)> {
    let coverage = within("the coverage", client.coverage(two.chat_id)).await.unwrap();
    let newest = client.head(two.chat_id).unwrap().seq;
    assert_eq!(coverage.ranges.last().map(|range| range.to), Some(newest));
    let mut next = 1;
    for range in &coverage.ranges {
        assert_eq!(range.from.get(), next, "every entry is in one range");
        next = range.to.get() + 1;
    }
    coverage.ranges.iter().map(|range| (range.from.get(), range.to.get(), range.openness)).collect()
}

#[tokio::test]
async fn p8_what_nobody_has_the_key_of_is_lost_is_said_to_be_and_the_chat_goes_on() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    // Nobody has a password: so it is when all of them are lost, and all recovery codes.
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let chat_id = ada.create_chat("lost").await.unwrap();
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
    let two = Two { broker, ada, bob, chat_id, database };
    two.same(&two.bob).await;
    say(&two.bob, chat_id, &["old"]).await;
    let lost = two.bob.send(chat_id, "old too").await.unwrap().seq.get();
    two.ada.rekey(chat_id).await.unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let linking = PendingLink::begin(config(), new_account(&two.broker, "ada"), storage).await.unwrap();
    two.ada.approve_session(&linking.code().parse().unwrap(), None).await.unwrap();
    two.keep_backups_back().await;
    let tablet = within("a linked device", linking.wait()).await.unwrap();
    within("a live device", tablet.live()).await.unwrap();
    two.same(&tablet).await;
    // Those who hold the key are gone before anybody asks them for it.
    two.ada.close().await.unwrap();
    two.bob.leave_chat(chat_id).await.unwrap();
    tablet.revoke_session(two.ada.session_id()).await.unwrap();
    two.same(&tablet).await;
    let holders = "SELECT count(*) FROM vault_chat_sender_keys v JOIN user_sessions s ON s.id = v.session_id \
        JOIN user_in_chat m ON m.user_id = s.user_id AND m.chat_id = v.chat_id WHERE s.state = 'live'";
    eventually("the end of all copies", async || two.database.count(holders).await == 0).await;

    let found = ranges(&tablet, &two).await;
    let expected = [(1, lost - 2, Openness::Open), (lost - 1, lost, Openness::KeyLost)];
    assert_eq!(found[..2], expected, "{found:?}");
    assert_eq!(found.len(), 3);
    let page = read_all(&tablet, chat_id, 50).await;
    assert_eq!(page.locked, 2);
    assert!(page.locked_messages.iter().all(|message| message.why == Openness::KeyLost));
    tablet.rekey(chat_id).await.unwrap();
    tablet.add_member(chat_id, "bob", true, false).await.unwrap();
    two.same(&two.bob).await;
    let mut events = two.bob.events();
    say(&tablet, chat_id, &["on we go"]).await;
    message(&mut events, "on we go").await;
}

#[tokio::test]
async fn p8_coverage_names_what_is_from_before_what_is_purged_and_what_is_refused() {
    let two = Two::start().await;
    say(&two.bob, two.chat_id, &["before carol"]).await;
    let carol = register(&two.broker, "carol").await;
    two.ada.add_member(two.chat_id, "carol", true, false).await.unwrap();
    two.same(&carol).await;
    two.same(&two.bob).await;
    let gone = two.bob.send(two.chat_id, "gone soon").await.unwrap();
    two.bob.delete_message(two.chat_id, gone.message_id).await.unwrap();
    let good = two.bob.send(two.chat_id, "good").await.unwrap();
    two.same(&carol).await;
    let joined = carol.members(two.chat_id).await.unwrap();
    let joined = joined.iter().find(|member| member.user_id == carol.user_id()).unwrap().joined_seq.get();
    let expected = [
        (1, joined - 1, Openness::BeforeJoin),
        (joined, gone.seq.get() - 1, Openness::Open),
        (gone.seq.get(), gone.seq.get(), Openness::Purged),
        (gone.seq.get() + 1, good.seq.get(), Openness::Open),
    ];
    assert_eq!(ranges(&carol, &two).await, expected);
    let spoil = format!(
        "UPDATE vault_chat_sender_keys SET key = set_byte(key, 50, get_byte(key, 50) # 1) WHERE session_id = '{}'",
        carol.session_id()
    );
    two.database.client().await.batch_execute(&spoil).await.unwrap();
    let found = ranges(&carol, &two).await;
    assert_eq!(found.last(), Some(&(good.seq.get(), good.seq.get(), Openness::Refused)), "{found:?}");
}
