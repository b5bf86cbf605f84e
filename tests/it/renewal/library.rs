//! The client library renews by itself what it may: without a password its device holds the identity key.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{Client, Event, MemoryStorage, NewAccount, Storage};
use sealcast::protocol::ids::ChatId;

use super::super::support::broker::{Broker, Settings};
use super::super::support::clients::{config, link, message, open, read_all, register, register_in, texts};
use super::super::support::database::Database;
use super::super::support::{eventually, within};
use super::super::verify::program::verify_url;
use super::until_expired;

/// Makes an account whose session lives so long.
pub async fn register_for(broker: &Broker, name: &str, ttl: u64, storage: &Arc<dyn Storage>) -> Client {
    let account =
        NewAccount { server: broker.public.clone(), username: name.to_owned(), ttl: Some(Duration::from_secs(ttl)) };
    let client = Client::register(quick(), account, Arc::clone(storage)).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    client
}

/// A client that looks often whether something is due.
pub fn quick() -> sealcast::client::ClientConfig {
    let mut config = config();
    config.upkeep_interval = Duration::from_millis(20);
    config
}

pub fn storage() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

/// Waits until all of a chat can be read, and gives its texts.
pub async fn reads(client: &Client, chat: ChatId, text: &str) {
    eventually(text, async || texts(&read_all(client, chat, 50).await).contains(&text.to_owned())).await;
}

/// That nothing did not verify, of a client that has closed.
pub async fn no_alarm(mut events: sealcast::client::EventStream, client: Client) {
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
async fn p8_a_device_that_holds_the_identity_key_renews_its_session_after_its_end_and_reads_on() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (anns, bobs) = (storage(), storage());
    let bob = register_in(&broker, "bob", Arc::clone(&bobs)).await;
    let ann = register_for(&broker, "ann", 3_600, &anns).await;
    let session_id = ann.session_id();
    let mut events = ann.events();
    let chat = bob.create_chat("tea").await.unwrap();
    bob.add_member(chat, "ann", true, false).await.unwrap();
    bob.send(chat, "said before").await.unwrap();
    message(&mut events, "said before").await;
    drop(events);
    ann.renew(Some(Duration::from_secs(3))).await.unwrap();
    let ended = ann.expires_at().unwrap();
    ann.close().await.unwrap();
    drop(ann);
    until_expired(&database, session_id).await;
    bob.send(chat, "said meanwhile").await.unwrap();
    bob.close().await.unwrap();
    drop(bob);

    // Nobody else is online.
    let ann = Client::open(quick(), Arc::clone(&anns)).await.unwrap();
    let watched = ann.events();
    within("a live client", ann.live()).await.unwrap();
    assert_eq!(ann.session_id(), session_id);
    assert!(ann.expires_at().unwrap() > ended);
    eventually("the log's end", async || ann.send(chat, "here again").await.is_ok()).await;
    let page = read_all(&ann, chat, 50).await;
    assert!(page.alarms.is_empty(), "{:?}", page.alarms);
    assert_eq!((texts(&page), page.locked), (vec!["said before".to_owned(), "here again".to_owned()], 1));

    // Whoever has the key hands it on.
    let bob = open(bobs).await;
    reads(&bob, chat, "here again").await;
    reads(&ann, chat, "said meanwhile").await;
    bob.send(chat, "welcome back").await.unwrap();
    reads(&ann, chat, "welcome back").await;
    assert!(bob.check_sessions().await.unwrap().is_empty());
    assert!(ann.check_sessions().await.unwrap().is_empty());
    no_alarm(watched, ann).await;
}

#[tokio::test]
async fn p7_a_session_that_came_back_hands_its_key_on_and_all_go_on_with_its_next_one() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.certificates_per_hour_max", 100);
    let broker = Broker::start_with(settings).await;
    let anns = storage();
    let bob = register(&broker, "bob").await;
    let ann = register_for(&broker, "ann", 3_600, &anns).await;
    let session_id = ann.session_id();
    let chat = bob.create_chat("tea").await.unwrap();
    bob.add_member(chat, "ann", true, false).await.unwrap();
    ann.renew(Some(Duration::from_secs(3))).await.unwrap();
    ann.close().await.unwrap();
    drop(ann);
    until_expired(&database, session_id).await;
    let ann = Client::open(quick(), anns).await.unwrap();
    // By itself it has come back for as short a time as before.
    eventually("a longer life", async || ann.renew(Some(Duration::from_secs(3_600))).await.is_ok()).await;
    eventually("the log's end", async || ann.send(chat, "here again").await.is_ok()).await;

    // A device that it approves is handed its key, and it goes on with another.
    let (watched, of_bob) = (ann.events(), bob.events());
    let phone = link(&broker, &ann, "ann").await;
    let (mut of_ann, mut of_phone) = (ann.events(), phone.events());
    bob.send(chat, "to both of you").await.unwrap();
    message(&mut of_ann, "to both of you").await;
    message(&mut of_phone, "to both of you").await;
    let mut heard = bob.events();
    ann.send(chat, "from the one").await.unwrap();
    message(&mut heard, "from the one").await;
    phone.send(chat, "from the other").await.unwrap();
    message(&mut heard, "from the other").await;
    assert!(bob.check_sessions().await.unwrap().is_empty());
    no_alarm(of_bob, bob).await;
    no_alarm(watched, ann).await;
    verify_url(database.url(), &[]).await.good();
}

#[tokio::test]
async fn a_session_that_runs_out_while_it_is_connected_goes_on_after_a_moment() {
    let database = Database::create().await;
    // No certificate but the first may be made ahead of time, so that the session runs out.
    let settings = Settings::on(&database).with("session.certificates_per_hour_max", 1);
    let broker = Broker::start_with(settings).await;
    let bob = register(&broker, "bob").await;
    let ann = register_for(&broker, "ann", 4, &storage()).await;
    let chat = ann.create_chat("tea").await.unwrap();
    ann.add_member(chat, "bob", true, false).await.unwrap();
    until_expired(&database, ann.session_id()).await;
    eventually("why it does not go on", async || {
        ann.last_failure().is_some_and(|failure| failure.contains("limit_reached"))
    })
    .await;
    let client = database.client().await;
    client.batch_execute("UPDATE user_events SET created_at = created_at - interval '2 hours'").await.unwrap();
    ann.reconnect();
    within("a live client", ann.live()).await.unwrap();
    let mut events = bob.events();
    ann.send(chat, "still here").await.unwrap();
    message(&mut events, "still here").await;
    bob.send(chat, "good").await.unwrap();
    reads(&ann, chat, "good").await;
}

#[tokio::test]
async fn a_live_session_is_renewed_ahead_of_its_time_by_itself_and_neither_comes_nor_goes() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let bob = register(&broker, "bob").await;
    let ann = register_for(&broker, "ann", 9, &storage()).await;
    let ended = ann.expires_at().unwrap();
    let chat = bob.create_chat("tea").await.unwrap();
    bob.add_member(chat, "ann", true, false).await.unwrap();
    let (mut events, watched) = (bob.events(), bob.events());
    ann.send(chat, "before").await.unwrap();
    message(&mut events, "before").await;
    bob.send(chat, "under a key").await.unwrap();
    let keys = database.count("SELECT count(*) FROM sender_keys").await;
    eventually("a renewal", async || ann.expires_at().unwrap() > ended).await;
    assert!(ann.is_live(), "the connection stands");
    bob.send(chat, "under the same key").await.unwrap();
    ann.send(chat, "after").await.unwrap();
    let mut renewed = None;
    within("what was said after", async {
        loop {
            match &*events.next().await.unwrap().unwrap() {
                Event::SessionChanged { .. } => panic!("no session came or went"),
                Event::SessionRenewed { session_id, .. } => renewed = Some(*session_id),
                Event::Message(message) if matches!(&message.body, sealcast::client::Body::Message { text, .. } if text == "after") => {
                    break;
                }
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(renewed, Some(ann.session_id()), "each entry of the log has an event");
    assert_eq!(database.count("SELECT count(*) FROM chat_events WHERE kind = 'session_out'").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM sender_keys").await, keys, "no key is new");
    assert_eq!(ann.expires_at().unwrap(), ann.sessions().await.unwrap().sessions[0].certificate.certificate.expired_at);
    assert!(bob.check_sessions().await.unwrap().is_empty());
    no_alarm(watched, bob).await;
}
