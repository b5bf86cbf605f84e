//! A device that had been given the sealed halves is lost: what is said from then on is not for its user key.

use std::sync::Arc;

use sealcast::client::{Event, MemoryStorage, Openness, PendingLink};

use super::super::passwords::{log_in, new_account, password};
use super::super::support::clients::{config, event, read_all};
use super::super::support::within;
use super::{PASSWORD, Two, say};

#[tokio::test]
async fn p5_with_a_device_that_knew_the_user_key_it_goes_and_the_next_login_makes_another() {
    let two = Two::start().await;
    say(&two.bob, two.chat_id, &["first"]).await;
    let laptop = log_in(&two.broker, "ada", PASSWORD).await.unwrap();
    within("the recovery", laptop.recovered()).await.unwrap();
    let mut events = two.bob.events();
    two.ada.revoke_session(laptop.session_id()).await.unwrap();
    let is_withdrawn = |event: &Event| match event {
        Event::UserKeyChanged { user_id, is_there, .. } => Some((*user_id, *is_there)),
        _ => None,
    };
    assert_eq!(event("the withdrawal", &mut events, is_withdrawn).await, (two.ada.user_id(), false));
    let keys = "SELECT count(*) FROM user_keys WHERE withdrawn_at IS NULL";
    assert_eq!(two.database.count(keys).await, 0);

    // Without a live device and without a user key nobody can reach her, and senders are told.
    two.ada.revoke_session(two.ada.session_id()).await.unwrap();
    let out_of_reach = |event: &Event| match event {
        Event::OutOfReach { users, .. } => Some(users.clone()),
        _ => None,
    };
    say(&two.bob, two.chat_id, &["where are you?"]).await;
    assert_eq!(event("who is out of reach", &mut events, out_of_reach).await, [two.ada.user_id()]);

    let ada = two.ada_again().await;
    assert_eq!(two.database.count(keys).await, 1, "the login has made a new user key");
    assert_eq!(event("the new key", &mut events, is_withdrawn).await, (two.ada.user_id(), true));
    // What was said meanwhile bob has the key of, and hands it on.
    let page = read_all(&ada, two.chat_id, 50).await;
    assert!(page.locked_messages.iter().all(|message| message.why == Openness::NoCopyYet));
    ada.close().await.unwrap();
    two.same(&two.bob).await;
    say(&two.bob, two.chat_id, &["there you are"]).await;
    two.bob.close().await.unwrap();
    // And with that key the next device reads on.
    let phone = two.ada_again().await;
    assert_eq!(two.all(&phone).await, ["first", "where are you?", "there you are"]);
    while let Ok(Some(event)) = events.next().await {
        match &*event {
            Event::OutOfReach { .. } => panic!("she has a user key again"),
            Event::Alarm(alarm) => panic!("{alarm:?}"),
            Event::Closed(_) => break,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_device_that_never_knew_the_user_key_goes_without_it() {
    let two = Two::start().await;
    let linking = PendingLink::begin(config(), new_account(&two.broker, "ada"), Arc::new(MemoryStorage::default()));
    let linking = linking.await.unwrap();
    let unlocked = two.ada.unlock(&password(PASSWORD)).await.unwrap();
    two.ada.approve_session(&linking.code().parse().unwrap(), None).await.unwrap();
    drop(unlocked);
    let laptop = within("a linked device", linking.wait()).await.unwrap();
    two.ada.revoke_session(laptop.session_id()).await.unwrap();
    assert_eq!(two.database.count("SELECT count(*) FROM user_keys WHERE withdrawn_at IS NULL").await, 1);
    two.lose_ada().await;
    say(&two.bob, two.chat_id, &["you will read this"]).await;
    two.bob.close().await.unwrap();
    assert_eq!(two.all(&two.ada_again().await).await, ["you will read this"]);
}
