//! People who use the client library: real cryptography, a keyring in memory.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{Client, ClientConfig, Connector, Event, EventStream, MemoryStorage, PendingLink};
use sealcast::protocol::ids::{ChatId, Seq};

use super::clients::new_account;
use super::{eventually, within};

pub fn config() -> ClientConfig {
    let mut config = ClientConfig::new(Connector::new(None).unwrap());
    config.upkeep_interval = Duration::from_millis(20);
    // What holds answers up on purpose is not to cut the connection too.
    config.request_timeout = Duration::from_secs(120);
    config
}

/// A client that has registered and is live.
pub async fn register(url: &str, name: &str) -> Client {
    let storage = Arc::new(MemoryStorage::default());
    let client = within("a registration", Client::register(config(), new_account(url, name), storage)).await.unwrap();
    within("the client to be live", client.live()).await.unwrap();
    client
}

/// Ann and Bob, who have just registered, in a chat that Ann made.
pub async fn ann_and_bob(url: &str) -> (Client, Client, ChatId) {
    let (ann, bob) = (register(url, "ann").await, register(url, "bob").await);
    let chat_id = ann.create_chat("Lunch").await.unwrap();
    let seq = ann.add_member(chat_id, "bob", true, false).await.unwrap();
    caught_up(&bob, chat_id, seq).await;
    (ann, bob, chat_id)
}

/// A further session of a client's user, approved by it.
pub async fn link(client: &Client, url: &str) -> Client {
    let storage = Arc::new(MemoryStorage::default());
    let pending = PendingLink::begin(config(), new_account(url, client.username().as_str()), storage).await.unwrap();
    let code = pending.code().parse().unwrap();
    within("an approval", client.approve_session(&code, None)).await.unwrap();
    let linked = within("a linked session", pending.wait()).await.unwrap();
    within("the linked session to be live", linked.live()).await.unwrap();
    linked
}

/// The first event that fits.
pub async fn event_that<T>(what: &str, events: &mut EventStream, mut fits: impl FnMut(&Event) -> Option<T>) -> T {
    within(what, async {
        loop {
            let event = events.next().await.expect("no event is dropped").expect("the client lives");
            if let Some(found) = fits(&event) {
                return found;
            }
        }
    })
    .await
}

/// Waits until a client has taken a chat's log up to a seq.
pub async fn caught_up(client: &Client, chat_id: ChatId, seq: Seq) {
    eventually("the log up to a seq", async || client.head(chat_id).is_some_and(|head| head.seq >= seq)).await;
}
