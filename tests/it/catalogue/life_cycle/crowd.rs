//! Many people in chats of a few, each with one connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Reply, Request, Send, ServerFrame};
use sealcast::protocol::ids::{ChatId, MessageId, RequestId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};
use tokio::sync::Semaphore;

use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::{SenderKey, View, submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};

/// Groups that are made at the same time.
const AT_ONCE: usize = 8;

/// Requests of one person that are open at the same time.
const OPEN: usize = 4;

/// A session with a key to write in a chat with.
pub struct Writer {
    pub device: Device,
    pub chat_id: ChatId,
    now: View,
    key: SenderKey,
}

/// Somebody who is connected and live.
pub struct Person {
    pub writer: Writer,
    pub socket: Socket,
}

/// For one broker on one database, with rates that no crowd comes near. Who waits for the rest of the crowd is not read
/// meanwhile and answers no ping, so none is sent.
pub fn settings(database: &Database) -> Settings {
    Settings::on(database)
        .with("limits.requests_per_s", 10_000)
        .with("limits.requests_burst", 10_000)
        .with("limits.membership_changes_per_minute", 10_000)
        .with("server.ping_interval_s", 3_600)
}

/// So many people in chats of `members` each; the first of each group owns its chat. Their names begin with `name`.
pub async fn gather(broker: &Broker, name: &str, people: usize, members: usize) -> Vec<Person> {
    let groups = stream::iter(0..people.div_ceil(members)).map(|group| {
        let members = members.min(people - group * members);
        async move { gather_group(broker, &format!("{name}-{group}"), members).await }
    });
    groups.buffered(AT_ONCE).concat().await
}

async fn gather_group(broker: &Broker, name: &str, members: usize) -> Vec<Person> {
    let mut devices = Vec::new();
    for member in 0..members {
        let device = Device::register(broker, &format!("{name}-{member}")).await;
        let socket = device.connect_live(broker).await;
        devices.push((device, socket));
    }
    let (owner, owner_socket) = &mut devices[0];
    let (owner, chat_id) = (owner.clone(), owner.create_chat(owner_socket).await);
    for index in 1..members {
        let newcomer = devices[index].0.clone();
        owner.add(&mut devices[0].1, chat_id, &newcomer).await.unwrap();
    }
    let mut people = Vec::new();
    for (device, mut socket) in devices {
        let writer = Writer::new(device, &mut socket, chat_id).await;
        people.push(Person { writer, socket });
    }
    people
}

/// What came of sending until the connection ended.
pub struct Poured {
    pub device: Device,
    pub chat_id: ChatId,
    /// What was acknowledged, and where it is.
    pub acknowledged: Vec<(Send, Seq)>,
    /// What was refused, and why.
    pub refused: Vec<(Send, ErrorCode)>,
    /// What had no answer when the connection ended.
    pub unanswered: Vec<Send>,
    /// What the last words said, if they were a goodbye.
    pub retry_after_ms: Option<u64>,
    pub close_code: Option<u16>,
    /// How often it was told that its chat was deleted.
    pub deleted: usize,
}

impl Writer {
    /// With a key for the chat as it is now.
    pub async fn new(device: Device, socket: &mut Socket, chat_id: ChatId) -> Self {
        let now = view(socket, chat_id).await;
        let key = device.sender_key(&now, chat_id);
        Self { device, chat_id, now, key }
    }

    /// The next message.
    pub fn message(&mut self) -> Send {
        self.device.seal(&self.now, &mut self.key, b"one of many")
    }
}

impl Person {
    /// Sends the next message, and waits until it is acknowledged.
    pub async fn say(&mut self) -> (Send, Seq) {
        let message = self.writer.message();
        let seq = submit(&mut self.socket, message.clone()).await.unwrap().seq;
        (message, seq)
    }

    async fn send_next(&mut self, open: &mut HashMap<RequestId, Send>) {
        let message = self.writer.message();
        let id = self.socket.send(Request::Send(Box::new(message.clone()))).await;
        open.insert(id, message);
    }

    /// Sends without a pause, a few messages at a time, until one is refused, and reads until the connection ends
    /// or nothing that waits for an answer is open any more.
    pub async fn pour(mut self) -> (Poured, Socket) {
        let mut poured = Poured {
            device: self.writer.device.clone(),
            chat_id: self.writer.chat_id,
            acknowledged: Vec::new(),
            refused: Vec::new(),
            unanswered: Vec::new(),
            retry_after_ms: None,
            close_code: None,
            deleted: 0,
        };
        let mut open = HashMap::new();
        for _ in 0..OPEN {
            self.send_next(&mut open).await;
        }
        while !open.is_empty() {
            let Some(frame) = self.socket.push().await else { break };
            poured.retry_after_ms = None;
            match frame {
                ServerFrame::Ok(ok) => {
                    let (Some(message), Reply::Sent(sent)) = (open.remove(&ok.id), ok.result) else { panic!() };
                    poured.acknowledged.push((message, sent.seq));
                    if poured.refused.is_empty() {
                        self.send_next(&mut open).await;
                    }
                }
                ServerFrame::Error(error) => {
                    let message = error.id.and_then(|id| open.remove(&id)).expect("an answer to a message");
                    poured.refused.push((message, error.code));
                }
                ServerFrame::Bye(bye) => poured.retry_after_ms = Some(bye.retry_after_ms),
                ServerFrame::ChatDeleted(deleted) => poured.deleted += usize::from(deleted.chat_id == poured.chat_id),
                _ => {}
            }
        }
        let accepted = poured.acknowledged.iter().map(|(message, _)| message.envelope.counter).max();
        let refused = poured.refused.iter().map(|(message, _)| message.envelope.counter).min();
        assert!(refused.is_none_or(|refused| accepted < Some(refused)), "accepted after a refusal");
        poured.unanswered = open.into_values().collect();
        poured.close_code = self.socket.closed;
        (poured, self.socket)
    }

    /// Sends as [`Person::pour`] does, until the connection ends. The first acknowledgement adds a permit.
    pub async fn pour_out(mut self, begun: Arc<Semaphore>) -> Poured {
        let first = self.say().await;
        begun.add_permits(1);
        let (mut poured, mut socket) = self.pour().await;
        poured.acknowledged.push(first);
        while let Some(frame) = socket.push().await {
            poured.retry_after_ms = match frame {
                ServerFrame::Bye(bye) => Some(bye.retry_after_ms),
                _ => None,
            };
        }
        poured.close_code = socket.closed;
        poured
    }
}

/// What each chat acknowledged, by chat.
pub fn by_chat(all: Vec<Poured>) -> BTreeMap<ChatId, Vec<Poured>> {
    let mut chats: BTreeMap<ChatId, Vec<Poured>> = BTreeMap::new();
    for poured in all {
        chats.entry(poured.chat_id).or_default().push(poured);
    }
    chats
}

/// Whether a push brings a message, live or in a page.
pub fn is_message(chat_id: ChatId, message_id: MessageId) -> impl Fn(&ServerFrame) -> bool {
    let is_it = move |entry: &LogEntry| matches!(&entry.body, EntryBody::Message(envelope) if envelope.message_id == message_id);
    move |push| match push {
        ServerFrame::Entry(push) => push.chat_id == chat_id && is_it(&push.entry),
        ServerFrame::Page(page) => page.chat_id == chat_id && page.entries.iter().any(is_it),
        _ => false,
    }
}
