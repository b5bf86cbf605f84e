//! L6 and L7: a chat and an account that end while others are at work.

use std::collections::{BTreeMap, BTreeSet};

use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Direction, Reply, Request, ServerFrame};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::super::super::messages::Pair;
use super::super::super::support::broker::Broker;
use super::super::super::support::chat::{history, submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::eventually;
use super::super::super::support::link::sessions;
use super::crowd;
use super::crowd::Person;

/// The tables in which any row names an id, as such or as bytes.
async fn tables_that_name(database: &Database, id: ChatId) -> BTreeSet<String> {
    let client = database.client().await;
    let tables = "SELECT table_name::text FROM information_schema.tables \
         WHERE table_schema = 'public' AND table_type = 'BASE TABLE'";
    let plain = id.to_string();
    let hex = plain.replace('-', "");
    let mut naming = BTreeSet::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        let rows = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{plain}%' OR t::text LIKE '%{hex}%'");
        if client.query_one(&rows, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            naming.insert(table);
        }
    }
    naming
}

#[tokio::test]
async fn l6_a_chat_deleted_while_messages_are_sent_takes_them_before_and_none_after() {
    let database = Database::create().await;
    let broker = Broker::start_with(crowd::settings(&database)).await;
    let mut people = crowd::gather(&broker, "sender", 5, 5).await;
    let mut bystanders = crowd::gather(&broker, "bystander", 2, 2).await;
    let Person { writer: owner, socket: mut owner_socket } = people.remove(0);
    let (owner, chat_id) = (owner.device, owner.chat_id);
    let before = tables_that_name(&database, chat_id).await;
    let pouring: Vec<_> = people.into_iter().map(|person| tokio::spawn(person.pour())).collect();
    eventually("they send", async || broker.metric("sealcast_messages_committed_total", "").await >= 100.0).await;
    // All that a chat leaves in the database is there now, so that it can be missed later.
    let during = tables_that_name(&database, chat_id).await;
    assert!(before.is_subset(&during));
    for table in ["chats", "chat_events", "chat_messages", "sender_keys", "user_in_chat", "vault_chat_sender_keys"] {
        assert!(during.contains(table), "{table} is not among {during:?}");
    }
    owner.delete(&mut owner_socket, chat_id).await.unwrap();
    for pouring in pouring {
        let (poured, mut socket) = pouring.await.unwrap();
        assert!(!poured.acknowledged.is_empty());
        assert!(!poured.refused.is_empty(), "it stopped for another reason");
        for (_, code) in &poured.refused {
            assert_eq!(*code, ErrorCode::UnknownChat);
        }
        // Each is told once by the owner's own signed word, before the refusals or after.
        let is_it = |push: &ServerFrame| matches!(push, ServerFrame::ChatDeleted(it) if it.chat_id == chat_id);
        let mut told = poured.deleted;
        if told == 0 {
            socket.push_that(|push| is_it(push).then_some(())).await;
            told = 1;
        }
        told += socket.pushes_so_far().await.iter().filter(|push| is_it(push)).count();
        assert_eq!(told, 1);
        let refused = history(&mut socket, chat_id, Direction::Before, Seq::saturating(9), 1).await;
        assert_eq!(refused.unwrap_err().code, ErrorCode::UnknownChat);
    }
    assert_eq!(tables_that_name(&database, chat_id).await, BTreeSet::new());
    assert_eq!(broker.metric("sealcast_messages_in_flight", "").await, 0.0);
    bystanders[0].say().await;
}

/// The chats of which an account's end is told, live or in a page.
fn told_of(push: &ServerFrame, device: &Device) -> Option<ChatId> {
    let is_it = |entry: &LogEntry| matches!(&entry.body, EntryBody::AccountDeleted(signed) if signed.deletion.user_id == device.user_id);
    match push {
        ServerFrame::Entry(push) if is_it(&push.entry) => Some(push.chat_id),
        ServerFrame::Page(page) if page.entries.iter().any(is_it) => Some(page.chat_id),
        _ => None,
    }
}

/// Chats of the one who goes.
const CHATS: usize = 50;

#[tokio::test]
async fn l7_a_user_deleted_while_online_in_fifty_chats_leaves_all_and_others_go_on() {
    let database = Database::create().await;
    let settings = crowd::settings(&database);
    let mut pair = Pair::start_on(database, settings).await;
    let phone = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let mut phone_socket = phone.connect_live(&pair.broker).await;
    let mut chats = vec![pair.chat_id];
    while chats.len() < CHATS {
        let (owner, owner_socket, other) = if chats.len() % 2 == 0 {
            (&pair.ada, &mut pair.ada_socket, &pair.bob)
        } else {
            (&pair.bob, &mut pair.bob_socket, &pair.ada)
        };
        let chat_id = owner.create_chat(owner_socket).await;
        owner.add(owner_socket, chat_id, other).await.unwrap();
        chats.push(chat_id);
    }
    let mut keys = BTreeMap::new();
    for chat_id in &chats {
        let now = view(&mut pair.bob_socket, *chat_id).await;
        let mut key = pair.bob.sender_key(&now, *chat_id);
        let message = pair.bob.seal(&now, &mut key, b"she holds this key");
        submit(&mut pair.bob_socket, message).await.unwrap();
        keys.insert(*chat_id, (now, key));
    }
    let chain = sessions(&mut pair.ada_socket).await;
    let reply = pair.ada_socket.request(Request::DeleteAccount(pair.ada.account_deletion(&chain))).await.unwrap();
    assert!(matches!(reply, Reply::Done(_)));
    for socket in [&mut pair.ada_socket, &mut phone_socket] {
        assert_eq!(socket.close_code().await, Some(CloseCode::SessionRevoked.number()));
    }
    // On the socket that was open all the time, each chat says so once, and goes on under a new epoch.
    let mut told = BTreeSet::new();
    while told.len() < CHATS {
        let chat_id = pair.bob_socket.push_that(|push| told_of(push, &pair.ada)).await;
        assert!(told.insert(chat_id), "told twice");
    }
    assert_eq!(told, chats.iter().copied().collect());
    for (chat_id, (before, mut key)) in keys {
        let now = view(&mut pair.bob_socket, chat_id).await;
        assert_eq!(now.fold.epoch(), before.fold.epoch().next());
        assert_eq!(now.fold.recipients().keys().collect::<Vec<_>>(), [&pair.bob.session_id]);
        let message = pair.bob.seal(&now, &mut key, b"under the key that she holds");
        assert_eq!(submit(&mut pair.bob_socket, message).await.unwrap_err().code, ErrorCode::KeyStale);
        pair.bob.say(&mut pair.bob_socket, chat_id, "on").await.unwrap();
    }
}
