//! A broker with a Postgres of its own in a folder of the test's, and two users in a chat on it.

use std::path::Path;

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Request, Resume, Send};
use sealcast::protocol::ids::{ChatId, MessageId};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::super::support::broker::{Broker, Settings};
use super::super::support::chat::{submit, whole_log};
use super::super::support::device::{Device, Socket};
use super::super::support::eventually;

/// Ada and Bob in a chat.
pub struct Private {
    pub broker: Broker,
    pub ada: Device,
    pub bob: Device,
    pub chat_id: ChatId,
}

impl Private {
    /// Settings of a broker whose Postgres lives below a folder.
    pub fn settings(folder: &Path) -> Settings {
        Settings::default().with("data_dir", folder.join("sealcast").display())
    }

    pub async fn start(settings: Settings) -> Self {
        let broker = Broker::start_with(settings).await;
        let ada = Device::register(&broker, "ada").await;
        let bob = Device::register(&broker, "bob").await;
        let mut socket = ada.connect_live(&broker).await;
        let chat_id = ada.create_chat(&mut socket).await;
        ada.add(&mut socket, chat_id, &bob).await.unwrap();
        Self { broker, ada, bob, chat_id }
    }

    /// Ada's log, with its chain checked and no message in it twice.
    pub async fn log(&self) -> Vec<LogEntry> {
        let mut socket = self.ada.connect_live(&self.broker).await;
        let log = whole_log(&mut socket, self.chat_id).await;
        let mut ids: Vec<MessageId> = messages(&log).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "a message is in the log twice");
        log
    }

    /// Submits a message until it is taken. The database may go away once more and the connection with it, but
    /// nothing else may be said than that.
    pub async fn submit_until_taken(&self, message: &Send) {
        let mut socket = self.connect_when_up().await;
        eventually("a message to be taken", async || match submit(&mut socket, message.clone()).await {
            Ok(_) => true,
            Err(refused) => {
                assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
                false
            }
        })
        .await;
    }

    /// A live connection of Ada's, as soon as the database lets her in.
    async fn connect_when_up(&self) -> Socket {
        let mut live = None;
        eventually("a login", async || {
            let mut socket = Socket::open(&self.broker, sealcast::protocol::codec::Encoding::Json).await;
            let is_in = socket.request(self.ada.login(&socket.hello)).await.is_ok();
            let resume = Request::Resume(Resume { cursors: Vec::new() });
            let is_live = is_in && socket.request(resume).await.is_ok();
            live = is_live.then_some(socket);
            is_live
        })
        .await;
        live.unwrap()
    }
}

/// The messages of a log.
pub fn messages(log: &[LogEntry]) -> impl Iterator<Item = MessageId> {
    log.iter().filter_map(|entry| match &entry.body {
        EntryBody::Message(envelope) => Some(envelope.message_id),
        _ => None,
    })
}
