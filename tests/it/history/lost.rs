//! All devices are lost, and the password or the recovery code is left.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{Client, ClientError, Event, MemoryStorage, NewAccount, Openness, PendingLink, Storage};

use super::super::passwords::{log_in, new_account, password};
use super::super::support::clients::{config, message, open, read_all, texts};
use super::super::support::{eventually, within};
use super::{PASSWORD, Two, say};

#[tokio::test]
async fn p8_the_password_alone_brings_a_thousand_messages_back_with_nobody_online() {
    let two = Two::start().await;
    say(&two.ada, two.chat_id, &["ada's own", "and another"]).await;
    two.lose_ada().await;
    let mut expected = vec!["ada's own".to_owned(), "and another".to_owned()];
    for number in 0..1_000 {
        let text = format!("bob {number}");
        two.bob.send(two.chat_id, &text).await.unwrap();
        expected.push(text);
    }
    two.bob.close().await.unwrap();

    let storage = Arc::new(MemoryStorage::default());
    let (account, secret) = (new_account(&two.broker, "ada"), password(PASSWORD));
    let ada = Client::log_in(config(), account, &secret, Arc::clone(&storage) as Arc<dyn Storage>).await.unwrap();
    let mut events = ada.events();
    let recovered = within("the recovery", ada.recovered()).await.unwrap();
    assert!(recovered.keys >= 3 && recovered.locked_keys == 0, "{recovered:?}");
    assert_eq!(two.all(&ada).await, expected);
    let coverage = ada.coverage(two.chat_id).await.unwrap();
    assert_eq!((coverage.ranges.len(), coverage.recoverable), (1, 0), "{coverage:?}");
    assert_eq!(coverage.ranges[0].openness, Openness::Open);
    assert_eq!(Some(coverage.ranges[0].to), ada.head(two.chat_id).map(|head| head.seq));
    assert_eq!(ada.unread(two.chat_id).unwrap(), 1_000);
    // What was opened is kept: the next start needs no password.
    ada.close().await.unwrap();
    while let Ok(Some(event)) = events.next().await {
        match &*event {
            Event::Alarm(alarm) => panic!("{alarm:?}"),
            Event::Closed(_) => break,
            _ => {}
        }
    }
    let ada = open(storage).await;
    assert_eq!(two.all(&ada).await, expected);
}

#[tokio::test]
async fn k10_p8_messages_that_came_while_the_last_device_was_expired_are_readable() {
    let two = Two::start().await;
    let carol = NewAccount { ttl: Some(Duration::from_secs(12)), ..new_account(&two.broker, "carol") };
    let storage = Arc::new(MemoryStorage::default());
    let secret = password("battery staple");
    let carol = Client::register_with_password(config(), carol, &secret, storage).await.unwrap();
    carol.live().await.unwrap();
    two.bob.add_member(two.chat_id, "carol", true, false).await.unwrap();
    two.same(&carol).await;
    // She makes the group key too, and is trusted with it no longer than her session lasts.
    say(&carol, two.chat_id, &["I am here"]).await;
    let live = "SELECT count(*) FROM user_sessions s JOIN users u ON u.id = s.user_id \
        WHERE username = 'carol' AND state = 'live'";
    eventually("the session's end", async || two.database.count(live).await == 0).await;
    say(&two.bob, two.chat_id, &["where are you?", "still there?"]).await;
    two.bob.close().await.unwrap();
    two.ada.close().await.unwrap();
    let again = log_in(&two.broker, "carol", "battery staple").await.unwrap();
    within("the recovery", again.recovered()).await.unwrap();
    say(&again, two.chat_id, &["here I am"]).await;
    assert_eq!(two.all(&again).await, ["I am here", "where are you?", "still there?", "here I am"]);
}

#[tokio::test]
async fn p8_the_recovery_code_brings_history_back_too() {
    let two = Two::start().await;
    let code = two.ada.make_recovery_code(&password(PASSWORD)).await.unwrap();
    say(&two.ada, two.chat_id, &["before"]).await;
    two.ada.close().await.unwrap();
    say(&two.bob, two.chat_id, &["one", "two"]).await;
    two.bob.close().await.unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let ada = Client::recover(config(), new_account(&two.broker, "ada"), &code, storage).await.unwrap();
    within("the recovery", ada.recovered()).await.unwrap();
    assert_eq!(two.all(&ada).await, ["before", "one", "two"]);
}

#[tokio::test]
async fn p8_generations_of_before_open_across_removals_and_returns() {
    let two = Two::start().await;
    let carol = super::super::passwords::register(&two.broker, "carol", "battery staple").await;
    let mut expected = Vec::new();
    for round in 0..3 {
        two.ada.add_member(two.chat_id, "carol", true, false).await.unwrap();
        two.same(&carol).await;
        two.same(&two.bob).await;
        let [bobs, carols] = ["bob", "carol"].map(|name| format!("{name} {round}"));
        say(&two.bob, two.chat_id, &[&bobs]).await;
        say(&carol, two.chat_id, &[&carols]).await;
        two.ada.remove_member(two.chat_id, "carol").await.unwrap();
        two.same(&two.bob).await;
        let alone = format!("without carol {round}");
        say(&two.bob, two.chat_id, &[&alone]).await;
        expected.extend([bobs, carols, alone]);
    }
    let made = "SELECT group_key_generation FROM chats";
    assert_eq!(two.database.count(made).await, 6, "one for each change of the members");
    two.lose_ada().await;
    two.bob.close().await.unwrap();
    assert_eq!(two.all(&two.ada_again().await).await, expected);
}

#[tokio::test]
async fn p8_a_device_that_was_approved_opens_with_the_password_what_was_before_it() {
    let two = Two::start().await;
    say(&two.bob, two.chat_id, &["old"]).await;
    two.ada.rekey(two.chat_id).await.unwrap();
    two.same(&two.bob).await;
    two.bob.close().await.unwrap();
    let linking = PendingLink::begin(config(), new_account(&two.broker, "ada"), Arc::new(MemoryStorage::default()));
    let linking = linking.await.unwrap();
    let unlocked = two.ada.unlock(&password(PASSWORD)).await.unwrap();
    two.ada.approve_session(&linking.code().parse().unwrap(), None).await.unwrap();
    two.keep_backups_back().await;
    drop(unlocked);
    two.ada.close().await.unwrap();
    let laptop = within("a linked device", linking.wait()).await.unwrap();
    laptop.live().await.unwrap();
    assert_eq!(laptop.recovered().await, None, "nobody logged in here");
    let page = read_all(&laptop, two.chat_id, 50).await;
    assert_eq!((texts(&page).len(), page.locked), (0, 1));
    assert_eq!(page.locked_messages[0].why, Openness::NoCopyYet);
    let coverage = laptop.coverage(two.chat_id).await.unwrap();
    assert_eq!(coverage.recoverable, 1);
    let wrong = laptop.recover_history(&password("wrong horse")).await;
    assert!(matches!(wrong, Err(ClientError::LoginFailed)));
    let recovered = laptop.recover_history(&password(PASSWORD)).await.unwrap();
    assert_eq!((recovered.keys, recovered.locked_keys), (1, 0));
    assert_eq!(two.all(&laptop).await, ["old"]);
    assert_eq!(laptop.recover_history(&password(PASSWORD)).await.unwrap().keys, 0, "there is nothing left to open");
}

#[tokio::test]
async fn a_chat_goes_on_live_while_its_history_is_opened() {
    let two = Two::start().await;
    say(&two.bob, two.chat_id, &["before"]).await;
    two.lose_ada().await;
    say(&two.bob, two.chat_id, &["meanwhile"]).await;
    let ada = log_in(&two.broker, "ada", PASSWORD).await.unwrap();
    let mut events = ada.events();
    say(&two.bob, two.chat_id, &["now"]).await;
    message(&mut events, "now").await;
    within("the recovery", ada.recovered()).await.unwrap();
    say(&ada, two.chat_id, &["I am back"]).await;
    assert_eq!(two.all(&ada).await, ["before", "meanwhile", "now", "I am back"]);
    let bob = texts(&read_all(&two.bob, two.chat_id, 50).await);
    assert_eq!(bob, ["before", "meanwhile", "now", "I am back"]);
}
