//! How far users have read: receipts between one's own devices and with others, unread counts on both sides.

use sealcast::client::{Body, Client, Event, ReceiptsTo};
use sealcast::protocol::frame::{AdvanceCursor, Nothing, Reply, Request};
use sealcast::protocol::ids::{ChatId, MessageId, Seq};
use sealcast::protocol::limits::UNREAD_MAX;

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{submit, view};
use super::support::database::Database;
use super::support::device::Socket;
use super::support::eventually;
use super::support::library::{ann_and_bob, caught_up, event_that, link};

/// How many unread messages the server counts for this session.
async fn counted(socket: &mut Socket, chat_id: ChatId) -> u64 {
    let Reply::Chats(chats) = socket.request(Request::ListChats(Nothing {})).await.unwrap() else { panic!() };
    chats.chats.iter().find(|chat| chat.chat_id == chat_id).unwrap().unread
}

#[tokio::test]
async fn the_server_counts_messages_of_others_after_the_cursor_up_to_a_bound() {
    let mut pair = Pair::start().await;
    assert_eq!(counted(&mut pair.bob_socket, pair.chat_id).await, 0);
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut seqs = Vec::new();
    for _ in 0..3 {
        let message = pair.ada.seal(&now, &mut key, b"unread");
        let message_id = message.envelope.message_id;
        seqs.push((submit(&mut pair.ada_socket, message).await.unwrap().seq, message_id));
    }
    let edit = pair.ada.edit(&now, &mut key, seqs[2].1, 1, b"an edit is no message");
    submit(&mut pair.ada_socket, edit).await.unwrap();
    assert_eq!(counted(&mut pair.bob_socket, pair.chat_id).await, 3);
    assert_eq!(counted(&mut pair.ada_socket, pair.chat_id).await, 0, "one's own");
    let advance = AdvanceCursor { chat_id: pair.chat_id, seq: seqs[1].0 };
    pair.bob_socket.request(Request::AdvanceCursor(advance)).await.unwrap();
    assert_eq!(counted(&mut pair.bob_socket, pair.chat_id).await, 1);
    for _ in 0..UNREAD_MAX {
        let message = pair.ada.seal(&now, &mut key, b"more");
        submit(&mut pair.ada_socket, message).await.unwrap();
    }
    assert_eq!(counted(&mut pair.bob_socket, pair.chat_id).await, UNREAD_MAX);
}

/// Ann, Bob, and Bob's phone in one chat.
struct Readers {
    ann: Client,
    bob: Client,
    phone: Client,
    chat_id: ChatId,
    _broker: Broker,
    // Dropped last: the broker's connections go first.
    database: Database,
}

impl Readers {
    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start_with(Settings::on(&database)).await;
        let url = format!("http://{}", broker.address());
        let (ann, bob, chat_id) = ann_and_bob(&url).await;
        let phone = link(&bob, &url).await;
        eventually("the phone to know the chat", async || phone.head(chat_id).is_some()).await;
        Self { ann, bob, phone, chat_id, _broker: broker, database }
    }

    async fn sends(&self) -> i64 {
        self.database.count("SELECT count(*) FROM chat_messages").await
    }
}

async fn unread(client: &Client, chat_id: ChatId, expected: u64) {
    eventually("the unread messages", async || client.unread(chat_id).unwrap() == expected).await;
}

#[tokio::test]
async fn what_is_read_on_one_device_is_read_on_the_others_and_nobody_else_learns_it() {
    let readers = Readers::start().await;
    let chat_id = readers.chat_id;
    let mut seqs = Vec::new();
    for n in 0..5 {
        seqs.push(readers.ann.send(chat_id, &format!("message {n}")).await.unwrap().seq);
    }
    let own = readers.bob.send(chat_id, "mine").await.unwrap();
    let reaction = readers.ann.react(chat_id, own.message_id, "👍").await.unwrap();
    caught_up(&readers.ann, chat_id, reaction.seq).await;
    unread(&readers.bob, chat_id, 5).await;
    unread(&readers.phone, chat_id, 5).await;
    assert_eq!(readers.ann.unread(chat_id).unwrap(), 1, "Bob's message");

    let mut phones = readers.phone.events();
    let mut anns = readers.ann.events();
    readers.bob.mark_read(chat_id, seqs[2], ReceiptsTo::OwnDevices).await.unwrap();
    assert_eq!(readers.bob.unread(chat_id).unwrap(), 2);
    let read = event_that("a read mark", &mut phones, |event| match event {
        Event::Read { user_id, read_seq, .. } => Some((*user_id, *read_seq)),
        _ => None,
    })
    .await;
    assert_eq!(read, (readers.bob.user_id(), seqs[2]));
    assert_eq!((readers.phone.unread(chat_id).unwrap(), readers.phone.read_mark(chat_id).unwrap()), (2, seqs[2]));
    let listed = readers.phone.list_chats().await.unwrap();
    assert_eq!(listed[0].unread, 2);

    // Ann gets the entry and cannot tell what it says; a shared one she can.
    let last = *seqs.last().unwrap();
    readers.phone.mark_read(chat_id, last, ReceiptsTo::Everybody).await.unwrap();
    let read = event_that("a shared read mark", &mut anns, |event| match event {
        Event::Read { user_id, read_seq, .. } => Some((*user_id, *read_seq)),
        Event::Message(message) => panic!("a receipt is no message: {:?}", message.body),
        _ => None,
    })
    .await;
    assert_eq!(read, (readers.bob.user_id(), last), "the sealed one before it said nothing to Ann");
    unread(&readers.bob, chat_id, 0).await;
    assert_eq!(readers.ann.unread(chat_id).unwrap(), 1, "what Bob reads is not read by Ann");

    // A mark never goes back, and says nothing twice.
    let before = readers.sends().await;
    readers.bob.mark_read(chat_id, seqs[0], ReceiptsTo::Everybody).await.unwrap();
    readers.bob.mark_read(chat_id, last, ReceiptsTo::Everybody).await.unwrap();
    readers.bob.send(chat_id, "after").await.unwrap();
    assert_eq!(readers.sends().await, before + 1);
    for client in [&readers.ann, &readers.bob, &readers.phone] {
        assert_eq!(client.stats().alarms, 0);
    }
}

#[tokio::test]
async fn receipts_that_wait_become_one() {
    let readers = Readers::start().await;
    let chat_id = readers.chat_id;
    let mut seqs = Vec::new();
    for n in 0..20 {
        seqs.push(readers.ann.send(chat_id, &format!("message {n}")).await.unwrap().seq);
    }
    caught_up(&readers.bob, chat_id, seqs[19]).await;
    let before = readers.sends().await;
    let outside = readers.database.hold_commits().await;
    readers.bob.mark_read(chat_id, seqs[0], ReceiptsTo::OwnDevices).await.unwrap();
    readers.database.until_held().await;
    for seq in &seqs[1..] {
        readers.bob.mark_read(chat_id, *seq, ReceiptsTo::OwnDevices).await.unwrap();
    }
    assert_eq!(readers.bob.waiting(chat_id), 2, "one on its way, and one that waits");
    outside.batch_execute("COMMIT").await.unwrap();
    eventually("the receipts to leave", async || readers.bob.waiting(chat_id) == 0).await;
    assert_eq!(readers.sends().await, before + 2);
    eventually("the phone to know", async || readers.phone.read_mark(chat_id).unwrap() == seqs[19]).await;
    unread(&readers.phone, chat_id, 0).await;
}

#[tokio::test]
async fn a_deleted_message_is_not_unread_and_an_edited_one_is_unread_once() {
    let readers = Readers::start().await;
    let chat_id = readers.chat_id;
    let edited = readers.ann.send(chat_id, "edited").await.unwrap();
    let deleted = readers.ann.send(chat_id, "deleted").await.unwrap();
    unread(&readers.bob, chat_id, 2).await;
    readers.ann.edit(chat_id, edited.message_id, "better").await.unwrap();
    readers.ann.delete_message(chat_id, deleted.message_id).await.unwrap();
    unread(&readers.bob, chat_id, 1).await;
    // A stranger to the log reads nothing at all.
    let (unknown, seq) = (ChatId::generate(), Seq::saturating(1));
    assert!(readers.bob.mark_read(unknown, seq, ReceiptsTo::OwnDevices).await.is_err());
    let body = Body::SealedReceipt { sealed: vec![1; 36].into() };
    readers.ann.send_body(chat_id, MessageId::generate(), &body).await.unwrap();
    let last = readers.ann.send(chat_id, "last").await.unwrap();
    caught_up(&readers.bob, chat_id, last.seq).await;
    unread(&readers.bob, chat_id, 2).await;
    assert_eq!(readers.bob.read_mark(chat_id).unwrap(), Seq::default(), "another user's receipt is not one's own");
}
