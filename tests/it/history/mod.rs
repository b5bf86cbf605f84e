//! P8 with the password: what was said before a device is opened on it with nobody else online, end to end.

mod covered;
mod liars;
mod lost;
mod pages;
mod removed;
mod shared;
mod terminal;
mod titles;
mod withdrawn;

use sealcast::client::Client;
use sealcast::protocol::ids::ChatId;

use super::passwords::{log_in, register};
use super::support::broker::Broker;
use super::support::clients::{self, read_all, texts};
use super::support::database::Database;
use super::support::{eventually, within};

/// Ada, who has a password, and bob, who has none, in a chat that ada made.
struct Two {
    broker: Broker,
    ada: Client,
    bob: Client,
    chat_id: ChatId,
    // Dropped last: the broker's connections go first.
    database: Database,
}

const PASSWORD: &str = "correct horse";

impl Two {
    /// Loses the keys of older sessions that were handed on: what a server can do, or a device that was never online.
    async fn keep_backups_back(&self) {
        let statement = "DELETE FROM vault_backup_session_keys";
        self.database.client().await.batch_execute(statement).await.unwrap();
    }

    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let ada = register(&broker, "ada", PASSWORD).await;
        let bob = clients::register(&broker, "bob").await;
        let chat_id = ada.create_chat("history").await.unwrap();
        ada.add_member(chat_id, "bob", true, true).await.unwrap();
        let two = Self { broker, ada, bob, chat_id, database };
        two.same(&two.bob).await;
        two
    }

    /// Waits until a client has come as far in the chat as the newest entry that there is.
    async fn same(&self, client: &Client) {
        let newest = format!("SELECT last_seq FROM chats WHERE id = '{}'", self.chat_id);
        let newest = self.database.count(&newest).await;
        eventually("the newest entry", async || {
            client.head(self.chat_id).is_some_and(|head| head.seq.get().cast_signed() >= newest)
        })
        .await;
    }

    /// Ada's only device lies at the bottom of the sea, and nobody knows.
    async fn lose_ada(&self) {
        self.ada.close().await.unwrap();
    }

    /// Ada on a device that has nothing but the password; everything is opened that the password opens.
    async fn ada_again(&self) -> Client {
        let ada = log_in(&self.broker, "ada", PASSWORD).await.unwrap();
        within("the recovery", ada.recovered()).await.expect("it has come to its end");
        ada
    }

    /// Everything that a client can read, with nothing locked and nothing wrong.
    async fn all(&self, client: &Client) -> Vec<String> {
        self.same(client).await;
        let page = read_all(client, self.chat_id, 200).await;
        assert_eq!((page.locked, page.alarms.len()), (0, 0), "{:?} {:?}", page.locked_messages, page.alarms);
        texts(&page)
    }
}

/// Sends texts one after the other.
async fn say(client: &Client, chat_id: ChatId, said: &[&str]) {
    for text in said {
        within(text, client.send(chat_id, text)).await.unwrap();
    }
}
