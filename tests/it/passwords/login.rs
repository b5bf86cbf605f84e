//! A device that has nothing but the password.

use std::sync::Arc;

use sealcast::client::{Client, ClientError, Event, MemoryStorage, Storage};
use sealcast::protocol::error::ErrorCode;

use super::super::support::broker::{Broker, Settings};
use super::super::support::clients::{self, message, read_all, texts};
use super::super::support::database::Database;
use super::super::support::{eventually, within};
use super::{config, log_in, password, register, register_in};

/// No alarm has come.
async fn no_alarm(mut events: sealcast::client::EventStream, client: Client) {
    client.close().await.unwrap();
    while let Ok(Some(event)) = events.next().await {
        match &*event {
            Event::Alarm(alarm) => panic!("{alarm:?}"),
            Event::Closed(_) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn p8_a_new_device_is_live_by_the_password_alone_and_friends_accept_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada", "correct horse").await;
    let bob = clients::register(&broker, "bob").await;
    let mut bob_events = bob.events();
    let watched = bob.events();
    let chat = ada.create_chat("tea").await.unwrap();
    ada.add_member(chat, "bob", true, false).await.unwrap();
    ada.send(chat, "from the first device").await.unwrap();
    message(&mut bob_events, "from the first device").await;
    // All sessions that there are are gone.
    let first = ada.session_id();
    ada.revoke_session(first).await.unwrap();
    drop(ada);
    let live = "SELECT count(*) FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE username = 'ada' AND state = 'live'";
    assert_eq!(database.count(live).await, 0);

    let again = log_in(&broker, "ADA", "correct horse").await.unwrap();
    assert_ne!(again.session_id(), first);
    assert_eq!(database.count(live).await, 1);
    let mut events = again.events();
    // The chat comes with what it catches up on.
    eventually("the chat", async || again.send(chat, "from the new device").await.is_ok()).await;
    message(&mut bob_events, "from the new device").await;
    bob.send(chat, "welcome back").await.unwrap();
    message(&mut events, "welcome back").await;
    bob.check_sessions().await.unwrap();
    assert!(texts(&read_all(&again, chat, 50).await).contains(&"welcome back".to_owned()));
    // The identity is the one that bob knows: the number that both compare has not changed.
    assert_eq!(again.safety_number(bob.user_id()).unwrap(), bob.safety_number(again.user_id()).unwrap());
    no_alarm(watched, bob).await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_the_same_to_a_client() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    for (name, text) in [("ada", "another horse"), ("nobody", "correct horse")] {
        assert!(matches!(log_in(&broker, name, text).await, Err(ClientError::LoginFailed)), "{name}");
    }
    assert_eq!(database.count("SELECT count(*) FROM user_sessions").await, 1);
    log_in(&broker, "ada", "correct horse").await.unwrap();
}

#[tokio::test]
async fn the_profile_of_an_account_with_a_password_holds_no_identity_key() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (first, second) = (Arc::new(MemoryStorage::default()), Arc::new(MemoryStorage::default()));
    let ada = register_in(&broker, "ada", "correct horse", Arc::clone(&first) as Arc<dyn Storage>).await;
    let secret = password("correct horse");
    let account = super::new_account(&broker, "ada");
    let storage = Arc::clone(&second) as Arc<dyn Storage>;
    let other = Client::log_in(config(), account, &secret, storage).await.unwrap();
    other.live().await.unwrap();
    let (_, opened) = super::open(&broker, "ada", "correct horse").await;
    let identity = super::seed(&opened.identity);
    let mut kept = 0;
    for storage in [first, second] {
        for (name, content) in storage.load().unwrap() {
            assert!(!content.windows(32).any(|bytes| bytes == identity), "{name}");
            assert!(!content.windows(13).any(|bytes| bytes == b"correct horse"), "{name}");
            kept += content.len();
        }
    }
    assert!(kept > 500, "there is something to look at");
    // What needs it is done with the password, and no longer than it takes.
    let linking = sealcast::client::PendingLink::begin(
        config(),
        super::new_account(&broker, "ada"),
        Arc::new(MemoryStorage::default()),
    );
    let linking = linking.await.unwrap();
    let code = linking.code().parse().unwrap();
    assert!(matches!(ada.approve_session(&code, None).await, Err(ClientError::NoIdentityKey)));
    assert!(matches!(ada.unlock(&password("another horse")).await, Err(ClientError::LoginFailed)));
    let unlocked = ada.unlock(&secret).await.unwrap();
    ada.approve_session(&code, None).await.unwrap();
    drop(unlocked);
    let linked = within("a linked client", linking.wait()).await.unwrap();
    within("a live client", linked.live()).await.unwrap();
    assert!(!linked.holds_identity(), "a password protects it on the new device too");
    assert!(matches!(ada.delete_account().await, Err(ClientError::NoIdentityKey)));
    let _unlocked = linked.unlock(&secret).await.unwrap();
    linked.delete_account().await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM users").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM user_keys").await, 0);
}

#[tokio::test]
async fn any_node_ends_what_another_has_begun_and_restarts_change_nothing() {
    let database = Database::create().await;
    let mut one = Broker::start(&database).await;
    let other = Broker::start(&database).await;
    let _ada = register(&one, "ada", "correct horse").await;
    let (login, begun) = super::begin(&one, "ada", "correct horse").await;
    let (message, _) = super::answer(login, &begun, "ada", "correct horse");
    super::finish(&other, &begun, message, None).await.unwrap();
    one.kill_and_restart().await;
    log_in(&one, "ada", "correct horse").await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM server_secrets").await, 1);
}

#[tokio::test]
async fn a_pending_session_certifies_itself_only_after_a_login() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database)).await;
    let ada = super::super::support::device::Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    // Linked without a login, and with the right certificate of the identity key at that.
    let mut linked = ada.pending(&broker).await;
    let chain = super::super::support::link::sessions(&mut socket).await;
    linked.certify_at(chain.place.next(), chain.hash);
    let mut own = linked.connect(&broker).await;
    let mut approval = linked.approval();
    approval.handover = Default::default();
    let request = sealcast::protocol::frame::Request::ApproveSession(approval);
    let error = own.request(request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionPending);
    let live = "SELECT count(*) FROM user_sessions WHERE state = 'live'";
    assert_eq!(database.count(live).await, 1);
}
