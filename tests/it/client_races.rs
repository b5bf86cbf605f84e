//! What one client does at the same time: its own changes of a chat do not stand in each other's way, and every entry
//! has its event.

use sealcast::client::{Event, ReceiptsTo};
use sealcast::protocol::ids::{MessageId, Revision, Seq};
use tokio::task::JoinSet;

use super::support::broker::Broker;
use super::support::clients::{event, message, register};
use super::support::database::Database;

/// More than a change is made again for when others are faster.
const NEWCOMERS: usize = 14;

#[tokio::test]
async fn a_client_adds_many_members_at_the_same_time() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada").await;
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let mut adding = JoinSet::new();
    for index in 0..NEWCOMERS {
        let name = format!("newcomer-{index}");
        register(&broker, &name).await;
        let ada = ada.clone();
        adding.spawn(async move { ada.add_member(chat_id, &name, true, false).await });
    }
    while let Some(added) = adding.join_next().await {
        added.unwrap().unwrap();
    }
    assert_eq!(ada.members(chat_id).await.unwrap().len(), NEWCOMERS + 1);
    assert_eq!(ada.stats().alarms, 0);
}

#[tokio::test]
async fn every_entry_has_its_event_with_the_name_of_its_message() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let mut events = bob.events();
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
    event("bob is there", &mut events, |event| matches!(event, Event::Joined { .. }).then_some(())).await;
    ada.send(chat_id, "hello").await.unwrap();
    let last = message(&mut events, "hello").await.seq;

    let first = ada.send(chat_id, "one").await.unwrap();
    let edit = ada.edit(chat_id, first.message_id, "two").await.unwrap();
    assert_eq!((edit.message_id, edit.revision), (first.message_id, Revision::saturating(1)));
    let deletion = ada.delete_message(chat_id, first.message_id).await.unwrap();
    assert_eq!(deletion.revision, Revision::saturating(2));
    ada.mark_read(chat_id, deletion.seq, ReceiptsTo::OwnDevices).await.unwrap();
    let mut named: Vec<(Seq, MessageId, u64)> = Vec::new();
    while named.last().is_none_or(|(seq, ..)| *seq <= deletion.seq) {
        named.push(event("an entry", &mut events, entry).await);
    }
    let id = first.message_id;
    let expected = [(first.seq, id, 0), (edit.seq, id, 1), (deletion.seq, id, 2)];
    assert_eq!(named[..3], expected);
    assert_eq!(first.seq, last.next());
    let (seq, receipt, revision) = named[3];
    assert_eq!((seq, revision), (deletion.seq.next(), 0), "the receipt that bob cannot read");
    assert_ne!(receipt, id);
}

/// Place and name of the entry that an event is about.
fn entry(event: &Event) -> Option<(Seq, MessageId, u64)> {
    match event {
        Event::Message(message) | Event::Edited { message, .. } => {
            Some((message.seq, message.message_id, message.revision.get()))
        }
        Event::Deleted { deletion, .. } => Some((deletion.seq, deletion.message_id, deletion.revision.get())),
        Event::Silent { seq, message_id, revision, .. } => Some((*seq, *message_id, revision.get())),
        Event::Read { seq: Some(seq), message_id: Some(message_id), .. } => Some((*seq, *message_id, 0)),
        _ => None,
    }
}
