//! Two brokers on one database, with nothing between them: what one of them believes of a chat is old as soon as the other
//! has changed it, and P1 to P5 hold by what the commit finds.

mod crossed;
#[cfg(feature = "client")]
mod flips;
mod held;
mod races;
mod stale;
mod twice;

use sealcast::protocol::frame::Direction;
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::log::{LogEntry, log_hash};

use super::super::support::broker::{Broker, Settings};
use super::super::support::chat::{View, history};
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket};
use super::super::support::eventually;
use super::super::support::proxy::Proxy;

/// Ada with a device on each of two brokers, Bob on the first and Carol on the second, in one chat of Ada's.
struct Nodes {
    a: Broker,
    b: Broker,
    ada: [Device; 2],
    ada_sockets: [Socket; 2],
    bob: Device,
    bob_socket: Socket,
    carol: Device,
    carol_socket: Socket,
    chat_id: ChatId,
    // Dropped last: the brokers' connections go first.
    database: Database,
}

/// Settings under which trials are bounded by nothing but time. Who is done waits for the others unread and answers no
/// ping, so none is sent.
fn unbounded(database: &Database) -> Settings {
    Settings::on(database)
        .with("limits.membership_changes_per_minute", 1_000_000)
        .with("limits.requests_per_s", 1_000_000)
        .with("limits.requests_burst", 1_000_000)
        .with("session.certificates_per_hour_max", 1_000_000)
        .with("server.ping_interval_s", 3_600)
}

impl Nodes {
    async fn start() -> Self {
        let database = Database::create().await;
        let settings = unbounded(&database);
        Self::start_on(database, settings.clone(), settings).await
    }

    /// The same, with a path between the first broker and the database that can be held for as long as a test takes.
    async fn behind_a_path() -> (Self, Proxy) {
        let database = Database::create().await;
        let (path, url) = Proxy::before(&database).await;
        let settings = unbounded(&database).with("database.deadline_s", 60);
        (Self::start_on(database, settings.clone().with("database.url", url), settings).await, path)
    }

    async fn start_on(database: Database, first: Settings, second: Settings) -> Self {
        let (a, b) = (Broker::start_with(first).await, Broker::start_with(second).await);
        let ada = Device::register(&a, "ada").await;
        let (bob, carol) = (Device::register(&a, "bob").await, Device::register(&b, "carol").await);
        let mut ada_socket = ada.connect_live(&a).await;
        let other = ada.linked(&b, &mut ada_socket).await;
        let other_socket = other.connect_live(&b).await;
        let (bob_socket, carol_socket) = (bob.connect_live(&a).await, carol.connect_live(&b).await);
        let chat_id = ada.create_chat(&mut ada_socket).await;
        ada.add(&mut ada_socket, chat_id, &bob).await.unwrap();
        ada.add(&mut ada_socket, chat_id, &carol).await.unwrap();
        let (ada, ada_sockets) = ([ada, other], [ada_socket, other_socket]);
        Self { a, b, ada, ada_sockets, bob, bob_socket, carol, carol_socket, chat_id, database }
    }
}

/// Takes in what has come since, with the chain checked.
async fn follow(view: &mut View, socket: &mut Socket, chat_id: ChatId) -> Vec<LogEntry> {
    let mut new = Vec::new();
    loop {
        let page = history(socket, chat_id, Direction::After, view.seen.seq, 200).await.unwrap();
        for entry in page.entries {
            assert_eq!(entry.seq, view.seen.seq.next(), "a gap in the log");
            let hash = log_hash(chat_id, &view.seen.log_hash, entry.seq, entry.created_at, &entry.body.digest(chat_id));
            assert_eq!(hash, entry.log_hash, "the chain breaks at {}", entry.seq);
            view.fold.apply(entry.seq, entry.created_at, &entry.body).unwrap();
            (view.seen.seq, view.seen.log_hash) = (entry.seq, entry.log_hash);
            new.push(entry);
        }
        if !page.more {
            return new;
        }
    }
}

/// Waits until a broker has taken in so many messages that have no answer.
async fn until_in_flight(broker: &Broker, count: usize) {
    eventually("messages on their way", async || {
        broker.metric("sealcast_messages_in_flight", "").await >= count as f64
    })
    .await;
}

/// Waits until somebody waits for the lock of a chat's row.
async fn until_a_chat_is_waited_for(database: &Database) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock' AND query LIKE '%FROM chats WHERE%FOR NO KEY UPDATE%'";
    eventually("somebody who waits for the chat", async || database.count(waiting).await > 0).await;
}
