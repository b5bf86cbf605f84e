//! A device that was approved, handed everything, and stolen: what its keys open after it was revoked.

use std::sync::Arc;

use sealcast::client::{Client, MemoryStorage};
use sealcast::crypto::link_code::LinkCode;
use sealcast::crypto::{ExchangeSecret, SessionSecrets, backup, wrap};
use sealcast::protocol::account::{LINKS_PATH, Link};
use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Authenticate, Reply, Request, login_bytes};
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use uuid::Uuid;

use crate::support::backup::fetch;
use crate::support::broker::Broker;
use crate::support::clients::{message, register_in};
use crate::support::database::Database;
use crate::support::device::Socket;
use crate::support::{eventually, within};

/// Copies of a session as the database has them, with the session that sent under each key.
async fn copies(database: &Database, session_id: SessionId) -> Vec<(KeyId, SessionId, WrappedKey)> {
    let statement = "SELECT sender_key_id, sender_session_id, key FROM vault_chat_sender_keys WHERE session_id = $1";
    let rows = database.client().await.query(statement, &[&session_id.0]).await.unwrap();
    let copy = |row: &tokio_postgres::Row| {
        let key: Vec<u8> = row.get(2);
        (KeyId(row.get::<_, Uuid>(0)), SessionId(row.get::<_, Uuid>(1)), WrappedKey::try_from(key.as_slice()).unwrap())
    };
    rows.iter().map(copy).collect()
}

/// How many copies of a session a key opens.
async fn opens(database: &Database, chat_id: ChatId, whose: SessionId, key: &ExchangeSecret) -> (usize, usize) {
    let all = copies(database, whose).await;
    let open = |(key_id, sender, copy): &&(KeyId, SessionId, WrappedKey)| {
        wrap::open_sender_key_with(copy, chat_id, *key_id, *sender, (whose, key)).is_ok()
    };
    (all.iter().filter(open).count(), all.len())
}

/// A device that is linked by hand, so that all its secrets are at hand too.
async fn stolen(broker: &Broker, phone: &Client) -> (SessionId, SessionSecrets) {
    let (code, session_id, secrets) = (LinkCode::generate(), SessionId::generate(), SessionSecrets::generate());
    let (user_id, public_key, signing_public_key) =
        (phone.user_id(), secrets.public_key(), secrets.signing_public_key());
    let proof = code.proof(user_id, session_id, &public_key, &signing_public_key);
    let link = Link { user_id, session_id, public_key, signing_public_key, proof };
    let (status, body) = broker.request("POST", LINKS_PATH, &serde_json::to_string(&link).unwrap()).await;
    assert_eq!(status, 200, "{body}");
    within("an approval", phone.approve_session(&code, None)).await.unwrap();
    (session_id, secrets)
}

#[tokio::test]
async fn p5_what_a_stolen_device_was_handed_opens_nothing_that_is_sent_after_its_revocation() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let phone = register_in(&broker, "ada", Arc::new(MemoryStorage::default())).await;
    let bob = register_in(&broker, "bob", Arc::new(MemoryStorage::default())).await;
    let chat_id = phone.create_chat("theft").await.unwrap();
    phone.add_member(chat_id, "bob", true, true).await.unwrap();
    eventually("bob's chat", async || bob.head(chat_id) == phone.head(chat_id) && bob.head(chat_id).is_some()).await;
    bob.send(chat_id, "before").await.unwrap();

    let (session_id, secrets) = stolen(&broker, &phone).await;
    let mut socket = Socket::open(&broker, Encoding::Json).await;
    let bytes = login_bytes(&socket.hello.nonce, &socket.hello.server_name, session_id);
    let login = Authenticate { session_id, signature: secrets.sign(&bytes) };
    assert!(matches!(socket.request(Request::Authenticate(login)).await, Ok(Reply::Authenticated(_))));
    let handed = fetch(&mut socket).await;
    assert_eq!(handed.len(), 1);
    let key = backup::open(&handed[0], &secrets.exchange_secret()).unwrap();
    assert_eq!(handed[0].backed_up_session_id, phone.session_id());
    // It opens what was made for the phone before: that is what it is for.
    assert_eq!(opens(&database, chat_id, phone.session_id(), &key).await, (1, 1));

    let mut events = phone.events();
    bob.send(chat_id, "between").await.unwrap();
    message(&mut events, "between").await;
    let (known, _) = opens(&database, chat_id, phone.session_id(), &key).await;
    phone.revoke_session(session_id).await.unwrap();
    eventually("the revocation", async || bob.head(chat_id) == phone.head(chat_id)).await;
    bob.send(chat_id, "after").await.unwrap();
    message(&mut events, "after").await;
    phone.send(chat_id, "mine").await.unwrap();
    let (opened, all) = opens(&database, chat_id, phone.session_id(), &key).await;
    assert_eq!(opened, known, "not one key of after the revocation");
    assert!(all >= known + 2, "{all}");
    let (own, _) = opens(&database, chat_id, phone.session_id(), &secrets.exchange_secret()).await;
    assert_eq!(own, 0);
    // Nobody but the stolen device is out.
    let live = "SELECT count(*) FROM user_sessions WHERE state = 'live'";
    assert_eq!(database.count(live).await, 2);
    assert_eq!(phone.check_sessions().await.unwrap(), []);
}
