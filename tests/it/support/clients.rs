//! Users of the client library, with real cryptography.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sealcast::client::{
    Client, ClientConfig, Connector, Event, EventStream, HistoryPage, Message, NewAccount, PendingLink, Storage,
    VerificationFailure,
};
use sealcast::protocol::ids::ChatId;

use super::broker::Broker;
use super::within;

/// The way to brokers: it is shared, since making one reads all certificates that the system trusts.
static CONNECTOR: LazyLock<Connector> = LazyLock::new(|| Connector::new(None).unwrap());

/// A client that looks at chains only when it is told to.
pub fn config() -> ClientConfig {
    let mut config = ClientConfig::new(CONNECTOR.clone());
    config.chains_interval = Duration::MAX;
    config
}

/// An account at a URL that has a name and a session of the usual life.
pub fn new_account(url: &str, name: &str) -> NewAccount {
    NewAccount { server: url.to_owned(), username: name.to_owned(), ttl: None }
}

fn account(broker: &Broker, name: &str) -> NewAccount {
    new_account(&broker.public, name)
}

/// Makes an account, kept in `storage`.
pub async fn register_in(broker: &Broker, name: &str, storage: Arc<dyn Storage>) -> Client {
    let client = within("a registration", Client::register(config(), account(broker, name), storage)).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    client
}

/// Makes an account.
pub async fn register(broker: &Broker, name: &str) -> Client {
    register_in(broker, name, Arc::new(sealcast::client::MemoryStorage::default())).await
}

/// Opens the account that is kept in `storage`.
pub async fn open(storage: Arc<dyn Storage>) -> Client {
    let client = Client::open(config(), storage).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    client
}

/// Links one more device to the account of a client.
pub async fn link(broker: &Broker, client: &Client, name: &str) -> Client {
    let storage = Arc::new(sealcast::client::MemoryStorage::default());
    let pending = PendingLink::begin(config(), account(broker, name), storage).await.unwrap();
    client.approve_session(&pending.code().parse().unwrap(), None).await.unwrap();
    let linked = within("a linked client", pending.wait()).await.unwrap();
    within("a live client", linked.live()).await.unwrap();
    linked
}

/// Waits for an event.
pub async fn event<T>(what: &str, events: &mut EventStream, mut fits: impl FnMut(&Event) -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = fits(&events.next().await.unwrap().expect("the client is there")) {
                return found;
            }
        }
    })
    .await
}

/// Waits for a message with a text.
pub async fn message(events: &mut EventStream, text: &str) -> Message {
    event(text, events, |event| match event {
        Event::Message(message) if says(message, text) => Some(message.clone()),
        _ => None,
    })
    .await
}

/// Waits for an alarm.
pub async fn alarm(events: &mut EventStream, failure: VerificationFailure) {
    event("an alarm", events, |event| match event {
        Event::Alarm(alarm) if alarm.failure == failure => Some(()),
        _ => None,
    })
    .await;
}

fn says(message: &Message, text: &str) -> bool {
    matches!(&message.body, sealcast::client::Body::Message { text: found, .. } if found == text)
}

/// Everything that a client can read of a chat, from its end backwards, in pages of `limit` entries.
pub async fn read_all(client: &Client, chat_id: ChatId, limit: u32) -> HistoryPage {
    let mut history = client.history(chat_id).await.unwrap();
    let mut all = history.before(sealcast::protocol::ids::Seq::saturating(u64::MAX), limit).await.unwrap();
    while all.more {
        let page = history.before(all.after.next(), limit).await.unwrap();
        all.messages.splice(0..0, page.messages);
        all.alarms.extend(page.alarms);
        all.locked += page.locked;
        all.after = page.after;
        all.more = page.more;
    }
    all
}

/// The texts of a page.
pub fn texts(page: &HistoryPage) -> Vec<String> {
    let text = |message: &Message| match &message.body {
        sealcast::client::Body::Message { text, .. } => Some(text.clone()),
        _ => None,
    };
    page.messages.iter().filter_map(text).collect()
}
