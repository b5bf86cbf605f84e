//! What may go wrong around a broker, each with what is seen of it in the figures: nothing that was acknowledged is lost.
//!
//! Faults whose tests are elsewhere are named beside these in the table "Faults" of `docs/operations.md`.

mod away;
mod connections;
mod held;

use sealcast::protocol::frame::{Send, SendOk};
use sealcast::protocol::ids::{MessageId, Seq};
use sealcast::protocol::log::EntryBody;

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{SenderKey, View, submit, view, whole_log};
use super::support::database::Database;
use super::support::device::Socket;
use super::support::eventually;

/// Ada talks, and knows what was acknowledged.
struct Talk {
    pair: Pair,
    view: View,
    key: SenderKey,
    acknowledged: Vec<(MessageId, Seq)>,
}

impl Talk {
    /// With a deadline of the database of so many seconds.
    async fn start(deadline_s: u64) -> Self {
        let database = Database::create().await;
        let settings = Settings::on(&database)
            .with("database.deadline_s", deadline_s)
            .with("limits.requests_per_s", 100_000)
            .with("limits.requests_burst", 100_000);
        let mut pair = Pair::start_on(database, settings).await;
        let view = view(&mut pair.ada_socket, pair.chat_id).await;
        let key = pair.ada.sender_key(&view, pair.chat_id);
        Self { pair, view, key, acknowledged: Vec::new() }
    }

    fn seal(&mut self) -> Send {
        self.pair.ada.renew(&self.view, &mut self.key);
        self.pair.ada.seal(&self.view, &mut self.key, b"said")
    }

    /// Sends the same bytes until they are taken.
    async fn say(&mut self) {
        let message = self.seal();
        self.repeat(&message).await;
    }

    async fn repeat(&mut self, message: &Send) {
        let sent = until_taken(&mut self.pair.ada_socket, message).await;
        self.acknowledged.push((message.envelope.message_id, sent.seq));
    }

    /// The log is whole on the same socket: what was acknowledged is at its place, and nothing else is there.
    async fn end(mut self) {
        let log = whole_log(&mut self.pair.ada_socket, self.pair.chat_id).await;
        let messages = log.iter().filter_map(|entry| match &entry.body {
            EntryBody::Message(envelope) => Some((envelope.message_id, entry.seq)),
            _ => None,
        });
        assert_eq!(messages.collect::<Vec<_>>(), self.acknowledged);
        let broker = &self.pair.broker;
        eventually("the broker to be ready", async || broker.operator_get("/readyz").await.0 == 200).await;
        eventually("Postgres to be shown as up", async || broker.metric("sealcast_postgres_up", "").await == 1.0).await;
        // At rest every message that was submitted was committed or refused.
        eventually("the figures to agree", async || {
            let figure = async |name| broker.metric(name, "").await;
            figure("sealcast_messages_submitted_total").await
                == figure("sealcast_messages_committed_total").await + figure("sealcast_messages_refused_total").await
        })
        .await;
    }
}

/// Every refusal before it is taken says that the same may be sent again.
async fn until_taken(socket: &mut Socket, message: &Send) -> SendOk {
    let mut taken = None;
    eventually("the message to be taken", async || {
        match submit(socket, message.clone()).await {
            Ok(sent) => taken = Some(sent),
            Err(refused) => assert!(refused.retryable, "{refused:?}"),
        }
        taken.is_some()
    })
    .await;
    taken.unwrap()
}

/// Batches that were not committed as far as the broker knows.
async fn failures(broker: &Broker) -> f64 {
    broker.metric("sealcast_batch_failures_total", "").await
}
