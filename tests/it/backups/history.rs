//! New devices that read the whole history with nobody else online, by the client library.

use std::sync::Arc;

use sealcast::client::{Client, MemoryStorage, NewAccount, PendingLink};
use sealcast::protocol::ids::ChatId;

use crate::support::broker::{Broker, Settings};
use crate::support::clients::{config, link, open, read_all, register_in, texts};
use crate::support::database::Database;
use crate::support::{eventually, within};
use crate::verify::program::verify_url;

struct Scene {
    ada: Client,
    adas_storage: Arc<MemoryStorage>,
    bob: Client,
    chat_id: ChatId,
    broker: Broker,
    database: Database,
}

impl Scene {
    /// Ada and Bob have talked for a while, under several keys.
    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start_with(Settings::on(&database).with("session.certificates_per_hour_max", 20)).await;
        let (adas_storage, bobs_storage) = (Arc::new(MemoryStorage::default()), Arc::new(MemoryStorage::default()));
        let ada = register_in(&broker, "ada", Arc::clone(&adas_storage) as _).await;
        let bob = register_in(&broker, "bob", bobs_storage).await;
        let chat_id = ada.create_chat("history").await.unwrap();
        ada.add_member(chat_id, "bob", true, true).await.unwrap();
        eventually("bob's chat", async || bob.head(chat_id) == ada.head(chat_id) && bob.head(chat_id).is_some()).await;
        for round in 0..3 {
            ada.send(chat_id, &format!("ada {round}")).await.unwrap();
            bob.send(chat_id, &format!("bob {round}")).await.unwrap();
            ada.rekey(chat_id).await.unwrap();
            let head = ada.head(chat_id);
            eventually("the rekey", async || bob.head(chat_id) == head).await;
        }
        Self { ada, adas_storage, bob, chat_id, broker, database }
    }

    fn account(&self) -> NewAccount {
        NewAccount { server: self.broker.public.clone(), username: "ada".to_owned(), ttl: None }
    }
}

const ALL: [&str; 6] = ["ada 0", "bob 0", "ada 1", "bob 1", "ada 2", "bob 2"];

/// Reads everything, and finds it as it should be.
async fn reads(client: &Client, chat_id: ChatId, expected: &[&str]) {
    let all = read_all(client, chat_id, 4).await;
    assert_eq!(texts(&all), expected);
    assert_eq!((all.locked, all.alarms.len()), (0, 0), "{:?}", all.alarms);
}

#[tokio::test]
async fn p8_a_device_that_the_phone_approved_reads_everything_when_everybody_else_is_offline() {
    let scene = Scene::start().await;
    let storage = Arc::new(MemoryStorage::default());
    let pending = PendingLink::begin(config(), scene.account(), Arc::clone(&storage) as _).await.unwrap();
    scene.ada.approve_session(&pending.code().parse().unwrap(), None).await.unwrap();
    // The hand-over is over with the answer.
    scene.ada.close().await.unwrap();
    scene.bob.close().await.unwrap();
    let laptop = within("a linked session", pending.wait()).await.unwrap();
    within("a live session", laptop.live()).await.unwrap();
    reads(&laptop, scene.chat_id, &ALL).await;
    assert_eq!(laptop.check_sessions().await.unwrap(), []);
    // It keeps what it was handed.
    laptop.close().await.unwrap();
    let laptop = open(storage).await;
    reads(&laptop, scene.chat_id, &ALL).await;

    // The phone receives with its new key, and so does the laptop with its own.
    laptop.send(scene.chat_id, "from the laptop").await.unwrap();
    let phone = open(Arc::clone(&scene.adas_storage) as _).await;
    phone.send(scene.chat_id, "from the phone").await.unwrap();
    let expected = [&ALL[..], &["from the laptop", "from the phone"]].concat();
    for client in [&phone, &laptop] {
        eventually("the newest", async || client.head(scene.chat_id) == phone.head(scene.chat_id)).await;
        reads(client, scene.chat_id, &expected).await;
        assert_eq!(client.check_sessions().await.unwrap(), []);
    }
    assert_eq!(scene.database.count("SELECT count(*) FROM refused_copies").await, 0);
    verify_url(scene.database.url(), &[]).await.good();
}

#[tokio::test]
async fn p8_history_reaches_back_through_generations_of_devices() {
    let scene = Scene::start().await;
    let tablet = link(&scene.broker, &scene.ada, "ada").await;
    tablet.send(scene.chat_id, "tablet").await.unwrap();
    scene.ada.close().await.unwrap();
    // The phone is offline; the tablet hands on what it was handed, and its own key.
    let laptop = link(&scene.broker, &tablet, "ada").await;
    laptop.send(scene.chat_id, "laptop").await.unwrap();
    let expected = [&ALL[..], &["tablet", "laptop"]].concat();
    // The phone is lost, and its session revoked: what was made for it stays for those who hold its key. What was made
    // for a session of which nobody holds the key goes.
    let other = link(&scene.broker, &tablet, "ada").await;
    scene.bob.send(scene.chat_id, "to all").await.unwrap();
    let copies =
        |of: &Client| format!("SELECT count(*) FROM vault_chat_sender_keys WHERE session_id = '{}'", of.session_id());
    eventually("copies for it", async || scene.database.count(&copies(&other)).await > 0).await;
    let of_phone = scene.database.count(&copies(&scene.ada)).await;
    tablet.revoke_session(scene.ada.session_id()).await.unwrap();
    tablet.revoke_session(other.session_id()).await.unwrap();
    eventually("the sweep", async || scene.database.count(&copies(&other)).await == 0).await;
    assert_eq!(scene.database.count(&copies(&scene.ada)).await, of_phone);
    tablet.close().await.unwrap();
    scene.bob.close().await.unwrap();
    reads(&laptop, scene.chat_id, &[&expected[..], &["to all"]].concat()).await;
    let newest = link(&scene.broker, &laptop, "ada").await;
    laptop.close().await.unwrap();
    reads(&newest, scene.chat_id, &[&expected[..], &["to all"]].concat()).await;
    assert_eq!(newest.check_sessions().await.unwrap(), []);
    verify_url(scene.database.url(), &[]).await.good();
}
