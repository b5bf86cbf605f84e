//! An account comes back with the help of friends: all of the way, and what stops it on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{
    Body, Client, ClientError, Event, FriendRecovery, FriendsError, MemoryStorage, Progress, Storage,
};
use sealcast::protocol::ids::RecoveryRequestId;

use super::super::passwords::{new_account, password};
use super::super::support::broker::Broker;
use super::super::support::clients::{self, event, message};
use super::super::support::database::Database;
use super::super::support::{eventually, within};
use super::super::verify::program::verify_url;
use super::{
    Scene, approve, ask, chat_with, config, heard, names, password_of, reason, register, register_with, share,
};

async fn logged_in(broker: &Broker, name: &str, text: &str) -> Result<Client, ClientError> {
    let storage = Arc::new(MemoryStorage::default());
    let (account, password) = (new_account(broker, name), password(text));
    within("a login", Client::log_in(config(), account, &password, storage)).await
}

#[tokio::test]
async fn p8_two_of_three_friends_bring_back_an_account_that_lost_everything() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ann, bob) = (register(&broker, "ann").await, register(&broker, "bob").await);
    let (carol, dave) = (register(&broker, "carol").await, register(&broker, "dave").await);
    let chat_id = chat_with(&ann, &[&bob, &carol, &dave]).await;
    assert_eq!(ann.shares().await.unwrap(), None);
    let old_code = share(&ann, 2, &["bob", "carol", "dave"]).await;
    let shares = ann.shares().await.unwrap().unwrap();
    assert_eq!((shares.needed, shares.friends.len()), (2, 3));
    assert!(shares.friends.iter().all(|(_, name, is_present)| name.is_some() && *is_present));
    let user_id = ann.user_id();
    let mut ann_events = ann.events();
    let mut bob_events = bob.events();

    // A device that has nothing but the name.
    let mut recovery = ask(&broker, "Ann").await;
    let request_id = recovery.request_id();
    for (events, own) in [(&mut ann_events, true), (&mut bob_events, false)] {
        let told = event("the request", events, |event| match event {
            Event::RecoveryRequested { request_id, user_id, username, is_own } => {
                Some((*request_id, *user_id, username.to_string(), *is_own))
            }
            _ => None,
        });
        let (told_id, told_user, name, is_own) = told.await;
        assert_eq!((told_id, told_user, name.as_str()), (request_id, user_id, "ann"));
        assert_eq!(is_own, own);
    }
    // Who comes online later is told then.
    drop((ann, ann_events));
    heard(&carol, request_id).await;
    let Progress::Waiting { good: 0, needed: None, bad } = recovery.look().await.unwrap() else {
        panic!("nobody gave")
    };
    assert_eq!(bad, []);

    // One friend is none.
    approve(&bob, &recovery).await.unwrap();
    let Progress::Waiting { good: 1, needed: Some(2), bad } = recovery.look().await.unwrap() else {
        panic!("one of two")
    };
    assert_eq!(bad, []);
    approve(&bob, &recovery).await.unwrap();
    assert!(matches!(recovery.look().await.unwrap(), Progress::Waiting { good: 1, .. }), "the same friend twice");

    approve(&dave, &recovery).await.unwrap();
    let gathered = within("enough shares", recovery.wait()).await.unwrap();
    let mut from: Vec<String> = gathered.from.iter().map(ToString::to_string).collect();
    from.sort();
    assert_eq!((from, gathered.bad.len()), (names(&["bob", "dave"]), 0));
    assert!(!recovery.is_reset());
    let new_code = within("a new password", recovery.reset(&gathered, &password("a brand new horse"))).await.unwrap();
    assert!(recovery.is_reset());
    assert_eq!(reason(recovery.look().await), FriendsError::AlreadyReset);
    let ann = within("a login", recovery.log_in(&password("a brand new horse"))).await.unwrap();
    within("a live client", ann.live()).await.unwrap();
    assert_eq!(ann.user_id(), user_id);
    assert!(!ann.holds_identity());

    // The account goes on where it was, under the same identity.
    let mut bob_events = bob.events();
    within("a message", ann.send(chat_id, "here I am again")).await.unwrap();
    let said = message(&mut bob_events, "here I am again").await;
    assert_eq!((said.sender_id, said.body), (user_id, Body::text("here I am again")));

    // What was before is good for nothing: the old password, the old code, the shares, the request.
    let old = logged_in(&broker, "ann", &password_of("ann")).await;
    assert!(matches!(old, Err(ClientError::LoginFailed)), "{old:?}");
    let by_code = Client::recover(config(), new_account(&broker, "ann"), &old_code, Arc::new(MemoryStorage::default()));
    assert!(matches!(within("a login", by_code).await, Err(ClientError::LoginFailed)));
    assert_eq!(ann.shares().await.unwrap(), None);
    assert_eq!(bob.recovery_requests().await.unwrap(), []);
    for table in ["share_sets", "recovery_requests", "recovery_releases"] {
        assert_eq!(database.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(database.count("SELECT count(*) FROM vault_backup_session_keys").await, 0);
    verify_url(database.url(), &[]).await.good();
    let by_code = Client::recover(config(), new_account(&broker, "ann"), &new_code, Arc::new(MemoryStorage::default()));
    within("a login", by_code).await.unwrap();
}

#[tokio::test]
async fn a_request_goes_on_after_its_device_was_restarted() {
    let scene = Scene::new().await;
    drop(scene.ann);
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let begin = || FriendRecovery::begin(config(), new_account(&scene.broker, "ann"), Arc::clone(&storage));
    let first = begin().await.unwrap();
    let (request_id, code) = (first.request_id(), first.code());
    approve(&scene.bob, &first).await.unwrap();
    drop(first);
    let second = begin().await.unwrap();
    assert_eq!((second.request_id(), second.code()), (request_id, code));
    approve(&scene.carol, &second).await.unwrap();
    let mut second = second;
    let gathered = within("enough shares", second.wait()).await.unwrap();
    within("a new password", second.reset(&gathered, &password("a brand new horse"))).await.unwrap();
    drop(second);
    // It was ended between the new password and the login.
    let third = begin().await.unwrap();
    assert!(third.is_reset());
    let ann = within("a login", third.log_in(&password("a brand new horse"))).await.unwrap();
    within("a live client", ann.live()).await.unwrap();
    assert!(!storage.load().unwrap().contains_key("recovery"), "nothing of the request is kept");
    assert!(matches!(begin().await, Err(ClientError::ProfileTaken)));
}

/// What a friend's profile says of when a request was first seen.
#[derive(serde::Deserialize)]
struct Account {
    seen_requests: BTreeMap<RecoveryRequestId, First>,
}

#[derive(serde::Deserialize)]
struct First {
    at: u64,
}

/// Puts the first sight of a request into the past, as time would.
fn let_pass(storage: &dyn Storage, request_id: RecoveryRequestId, time: Duration) {
    let mut record = storage.load().unwrap().remove("account").unwrap();
    let account: Account = rmp_serde::from_slice(&record).unwrap();
    let at = account.seen_requests[&request_id].at;
    let earlier = at - u64::try_from(time.as_micros()).unwrap();
    let (old, new) = (at.to_be_bytes(), earlier.to_be_bytes());
    let found = record.windows(8).position(|window| window == old).expect("the time is in the record");
    record[found..found + 8].copy_from_slice(&new);
    storage.write(&[("account".to_owned(), Some(record))]).unwrap();
}

#[tokio::test]
async fn a_friends_device_waits_a_day_whatever_happens_to_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let usual = clients::config;
    let (ann, carol) = (register(&broker, "ann").await, register(&broker, "carol").await);
    let bob = register_with(&broker, "bob", usual(), Arc::clone(&storage)).await;
    chat_with(&ann, &[&bob, &carol]).await;
    share(&ann, 2, &["bob", "carol"]).await;
    let recovery = ask(&broker, "ann").await;
    let request_id = recovery.request_id();
    let hours = |count: u64| Duration::from_secs(count * 3_600);

    let FriendsError::TooEarly { left } = reason(approve(&bob, &recovery).await) else {
        panic!("it was not asked to wait")
    };
    assert!(left > hours(23) && left <= hours(24), "{left:?}");
    assert_eq!(database.count("SELECT count(*) FROM recovery_releases").await, 0);
    bob.close().await.unwrap();
    drop(bob);
    let_pass(&*storage, request_id, hours(23));
    let bob = Client::open(usual(), Arc::clone(&storage)).await.unwrap();
    within("a live client", bob.live()).await.unwrap();
    let FriendsError::TooEarly { left } = reason(approve(&bob, &recovery).await) else {
        panic!("it was not asked to wait")
    };
    assert!(left <= hours(1), "the window began anew: {left:?}");
    let held = bob.recovery_requests().await.unwrap()[0].held.unwrap();
    assert!(held.left <= left && !held.is_released);
    bob.close().await.unwrap();
    drop(bob);
    let_pass(&*storage, request_id, hours(1));
    let bob = Client::open(usual(), storage).await.unwrap();
    within("a live client", bob.live()).await.unwrap();
    approve(&bob, &recovery).await.unwrap();
    assert!(bob.recovery_requests().await.unwrap()[0].held.unwrap().is_released);
}

#[tokio::test]
async fn a_cancelled_request_gets_no_share_and_loses_those_it_got() {
    let scene = Scene::new().await;
    let recovery = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &recovery).await.unwrap();
    let own = scene.ann.recovery_requests().await.unwrap();
    assert!(own[0].is_own && own[0].released == 1 && own[0].held.is_none(), "{own:?}");
    let mut events = scene.carol.events();
    scene.ann.cancel_recovery(recovery.request_id()).await.unwrap();
    event("the cancellation", &mut events, |event| match event {
        Event::RecoveryCancelled { request_id, .. } if *request_id == recovery.request_id() => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(reason(approve(&scene.carol, &recovery).await), FriendsError::UnknownRequest);
    assert_eq!(reason(recovery.look().await), FriendsError::Cancelled);
    assert_eq!(scene.database.count("SELECT count(*) FROM recovery_releases").await, 0);
    scene.ann.cancel_recovery(recovery.request_id()).await.unwrap();

    // The next one takes the password: a thief of a device must not stop the user for ever.
    let second = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &second).await.unwrap();
    let refused = scene.ann.cancel_recovery(second.request_id()).await;
    assert!(matches!(refused, Err(ClientError::NoIdentityKey)), "{refused:?}");
    assert!(matches!(second.look().await.unwrap(), Progress::Waiting { good: 1, .. }));
    let unlocked = scene.ann.unlock(&password(&password_of("ann"))).await.unwrap();
    scene.ann.cancel_recovery(second.request_id()).await.unwrap();
    drop(unlocked);
    assert_eq!(reason(second.look().await), FriendsError::Cancelled);
    assert_eq!(scene.ann.recovery_requests().await.unwrap(), []);
}

#[tokio::test]
async fn who_is_no_friend_or_has_no_password_is_given_no_share() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ann, bob, carol) =
        (register(&broker, "ann").await, register(&broker, "bob").await, register(&broker, "carol").await);
    let dave = clients::register(&broker, "dave").await;
    chat_with(&ann, &[&bob, &dave]).await;
    let code = ann.make_recovery_code(&password(&password_of("ann"))).await.unwrap();
    let share = async |needed, friends: &[&str]| ann.share_recovery_code(&code, needed, &names(friends)).await;
    assert!(
        matches!(reason(share(2, &["bob", "carol"]).await), FriendsError::NotAFriend(name) if name.as_str() == "carol")
    );
    assert!(
        matches!(reason(share(2, &["bob", "dave"]).await), FriendsError::NoUserKey(name) if name.as_str() == "dave")
    );
    assert!(matches!(reason(share(2, &["bob", "ann"]).await), FriendsError::NotAFriend(_)));
    for (needed, friends) in
        [(1, &["bob", "dave"][..]), (0, &["bob"]), (2, &["bob"]), (3, &["bob", "dave"]), (2, &["bob", "bob"])]
    {
        assert!(matches!(reason(share(needed, friends).await), FriendsError::Numbers { .. }), "{needed} {friends:?}");
    }
    assert_eq!(ann.shares().await.unwrap(), None);
    // With a chat and a password they are friends.
    drop(carol);
    dave.change_password(None, &password("dave's correct horse")).await.unwrap();
    share(2, &["bob", "dave"]).await.unwrap();
    // A wrong code shares nothing.
    let wrong = sealcast::crypto::recovery_code::RecoveryCode::generate();
    let refused = ann.share_recovery_code(&wrong, 2, &names(&["bob", "dave"])).await;
    assert!(matches!(refused, Err(ClientError::LoginFailed)), "{refused:?}");
    eventually("the shares are there", async || ann.shares().await.unwrap().is_some()).await;
}
