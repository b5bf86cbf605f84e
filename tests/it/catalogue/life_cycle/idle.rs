//! L9: chats that leave memory while messages come for them.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use sealcast::protocol::frame::{Reply, Request, ServerFrame};
use sealcast::protocol::ids::{ChatId, MessageId, RequestId};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::super::super::support::broker::Broker;
use super::super::super::support::chat::{SenderKey, View, check_chain, view, whole_log};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{trials, within};
use super::crowd;

/// Milliseconds without work after which a chat leaves memory.
const IDLE_MS: u64 = 10;

/// Messages in each chat.
const MESSAGES: usize = 12;

/// One who writes in many chats.
struct Line {
    ada: Device,
    ada_socket: Socket,
    chats: Vec<(View, SenderKey)>,
}

/// Somebody who writes, and the socket of somebody who is live in all of their chats and only reads.
async fn line(broker: &Broker, index: usize, chats: usize) -> (Line, Socket) {
    let ada = Device::register(broker, &format!("ada-{index}")).await;
    let bob = Device::register(broker, &format!("bob-{index}")).await;
    let (mut ada_socket, bob_socket) = (ada.connect_live(broker).await, bob.connect_live(broker).await);
    let mut made = Vec::new();
    for _ in 0..chats {
        let chat_id = ada.create_chat(&mut ada_socket).await;
        ada.add(&mut ada_socket, chat_id, &bob).await.unwrap();
        let now = view(&mut ada_socket, chat_id).await;
        let key = ada.sender_key(&now, chat_id);
        made.push((now, key));
    }
    (Line { ada, ada_socket, chats: made }, bob_socket)
}

/// Up to so much, by chance.
fn chance(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % below.max(1)
}

/// Sends in every chat with pauses around the time after which it leaves memory; gives what was sent, by chat, in
/// order. Answers are not waited for in between.
async fn send_around_the_limit(line: &mut Line) -> BTreeMap<ChatId, Vec<MessageId>> {
    let mut sent: BTreeMap<ChatId, Vec<MessageId>> = BTreeMap::new();
    let mut open: HashSet<RequestId> = HashSet::new();
    // A chat's turn comes again after about twice the limit: sometimes before it is idle, sometimes while it leaves.
    let between_ms = 4 * IDLE_MS / line.chats.len() as u64;
    for _ in 0..MESSAGES {
        for (now, key) in &mut line.chats {
            let message = line.ada.seal(now, key, b"to an idle chat");
            sent.entry(message.chat_id).or_default().push(message.envelope.message_id);
            open.insert(line.ada_socket.send(Request::Send(Box::new(message))).await);
            // The pause is the fault: it is by chance on either side of the limit.
            let pause = tokio::time::sleep(Duration::from_millis(chance(between_ms + 1)));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    push = line.ada_socket.push() => answered(push.expect("open"), &mut open),
                }
            }
        }
    }
    while !open.is_empty() {
        let push = line.ada_socket.push().await.expect("open");
        answered(push, &mut open);
    }
    sent
}

fn answered(push: ServerFrame, open: &mut HashSet<RequestId>) {
    match push {
        ServerFrame::Ok(ok) => {
            assert!(matches!(ok.result, Reply::Sent(_)));
            assert!(open.remove(&ok.id), "one answer");
        }
        ServerFrame::Error(error) => panic!("{error:?}"),
        _ => {}
    }
}

/// Everything that a reader is handed, by chat, until it has as many messages as were sent.
async fn read(socket: &mut Socket, messages: usize) -> BTreeMap<ChatId, Vec<LogEntry>> {
    let mut read: BTreeMap<ChatId, Vec<LogEntry>> = BTreeMap::new();
    let mut count = 0;
    while count < messages {
        let (chat_id, entries) = match socket.push().await.expect("open") {
            ServerFrame::Entry(push) => (push.chat_id, vec![push.entry]),
            ServerFrame::Page(page) => (page.chat_id, page.entries),
            _ => continue,
        };
        count += entries.iter().filter(|entry| matches!(entry.body, EntryBody::Message(_))).count();
        read.entry(chat_id).or_default().extend(entries);
    }
    read
}

fn message_ids(entries: &[LogEntry]) -> Vec<MessageId> {
    let id = |entry: &LogEntry| match &entry.body {
        EntryBody::Message(envelope) => Some(envelope.message_id),
        _ => None,
    };
    entries.iter().filter_map(id).collect()
}

#[tokio::test]
async fn l9_messages_for_chats_that_are_leaving_memory_are_neither_lost_nor_out_of_order() {
    let (lines, chats) = (trials(3, 20), trials(12, 500));
    let database = Database::create().await;
    let broker = Broker::start_with(crowd::settings(&database)).await;
    broker.break_at("chat::idle_ms", &format!("return({IDLE_MS})")).await;
    for index in 0..lines {
        let (mut line, mut reader) = line(&broker, index, chats).await;
        let reading = tokio::spawn(async move { read(&mut reader, chats * MESSAGES).await });
        let sent = send_around_the_limit(&mut line).await;
        let read = within("what was sent to be read", reading).await.unwrap();
        for (chat_id, messages) in sent {
            let entries = &read[&chat_id];
            check_chain(chat_id, entries);
            assert_eq!(message_ids(entries), messages, "what a live reader was handed");
            let log = whole_log(&mut line.ada_socket, chat_id).await;
            assert_eq!(message_ids(&log), messages, "what is stored");
        }
    }
    let passivated = broker.metric("sealcast_chats_passivated_total", "").await;
    assert!(passivated >= (lines * chats * 2) as f64, "{passivated} times a chat has left memory");
}
