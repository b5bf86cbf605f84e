//! What is lost: a secret whose group key no member can open any more.

use std::sync::Arc;

use sealcast::client::{ClientError, MemoryStorage, SecretState, Storage};
use sealcast::crypto::recovery_code::RecoveryCode;

use super::people::{add, open, password, register, register_in, summary};
use crate::support::broker::Broker;
use crate::support::database::Database;

#[tokio::test]
async fn p8_when_all_members_lose_passwords_and_codes_a_secret_is_lost_and_that_is_said() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let stores = [(); 2].map(|()| Arc::new(MemoryStorage::default()));
    let ada = register_in(&broker, "ada", Arc::clone(&stores[0]) as Arc<dyn Storage>).await;
    let bob = register_in(&broker, "bob", Arc::clone(&stores[1]) as Arc<dyn Storage>).await;
    let carol = register(&broker, "carol").await;
    let chat_id = ada.create_chat("Keys").await.unwrap();
    add(&ada, chat_id, &bob).await;
    let value = b"LOSTFOREVER";
    let door = open(&ada, chat_id).await.write("door", value).await.unwrap();
    assert_eq!(open(&bob, chat_id).await.read(door).await.unwrap().1.as_slice(), value);
    add(&ada, chat_id, &carol).await;

    // Their devices are live, and have neither the value nor a key to it. Whatever they type is wrong.
    for client in [&ada, &bob] {
        client.close().await.unwrap();
    }
    for store in &stores {
        for (name, record) in store.load().unwrap() {
            assert!(!record.windows(value.len()).any(|part| part == value), "{name}");
        }
    }
    let ada = crate::support::clients::open(Arc::clone(&stores[0]) as Arc<dyn Storage>).await;
    let bob = crate::support::clients::open(Arc::clone(&stores[1]) as Arc<dyn Storage>).await;
    for client in [&ada, &bob] {
        let forgotten = client.open_secrets(chat_id, &password("somebody else")).await;
        assert!(matches!(forgotten, Err(ClientError::LoginFailed)), "{forgotten:?}");
        let burnt = client.open_secrets_by_code(chat_id, &RecoveryCode::generate()).await;
        assert!(matches!(burnt, Err(ClientError::LoginFailed)), "{burnt:?}");
    }
    // Who came later has a password, and never had the group key of before.
    let carols = open(&carol, chat_id).await;
    let mut both = vec![ada.user_id(), bob.user_id()];
    both.sort_unstable();
    assert_eq!(summary(&carols, door).await.state, SecretState::Waits { openers: both });

    // They give up and leave, which takes no password.
    ada.transfer(chat_id, "carol").await.unwrap();
    ada.leave_chat(chat_id).await.unwrap();
    assert!(matches!(summary(&open(&carol, chat_id).await, door).await.state, SecretState::Waits { .. }), "Bob has it");
    bob.leave_chat(chat_id).await.unwrap();
    let mut carols = open(&carol, chat_id).await;
    assert_eq!(summary(&carols, door).await.state, SecretState::Lost);
    let lost = carols.read(door).await.map(|_| ());
    assert!(matches!(lost, Err(ClientError::SecretLost)), "{lost:?}");
    assert_eq!(lost.unwrap_err().to_string(), "the group secret is lost: no member can open it any more");
    // Nor does a return bring it back: whoever is added anew gets the group keys of now.
    let held = "SELECT count(*) FROM group_keys g JOIN group_secrets s ON g.group_id = s.chat_id \
         AND g.generation = s.generation JOIN user_in_chat m ON m.chat_id = g.group_id AND m.user_id = g.user_id";
    assert_eq!(database.count(held).await, 0);

    // The chat goes on.
    carols.write("door", b"a new lock").await.unwrap();
    carols.delete(door).await.unwrap();
    let listed = carols.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(carols.read(listed[0].secret_id).await.unwrap().1.as_slice(), b"a new lock");
}
