//! What happens at the same time: a client's own changes of a chat do not stand in each other's way, every entry has its
//! event, and who is removed meanwhile has nothing to complain of.

use std::sync::Arc;

use sealcast::client::{Client, Event, MemoryStorage, ReceiptsTo, Storage};
use sealcast::protocol::binary::{Hash, IdentityKey};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, Epoch, MessageId, Revision, Seq};
use sealcast::protocol::membership::{Change, MembershipChange, Target};
use tokio::task::JoinSet;

use super::support::broker::Broker;
use super::support::chat::{change_membership, copy_for, submit, view};
use super::support::clients::{config, event, message, new_account, open, register};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::proxy::{Path, Proxy};
use super::support::{eventually, within};

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

/// A change of a device's about somebody who uses the client library.
async fn change_user(device: &Device, socket: &mut Socket, chat_id: ChatId, change: Change, target: Target) {
    let now = view(socket, chat_id).await;
    let change = match change {
        Change::Add { can_write, can_manage, .. } => {
            Change::Add { can_write, can_manage, roster_hash: now.fold.roster_hash(), epoch: now.fold.epoch() }
        }
        other => other,
    };
    let unsigned = device.change_from(&now, chat_id, change, device).change;
    let signed = device.sign_change(chat_id, MembershipChange { target, ..unsigned });
    change_membership(socket, chat_id, signed).await.unwrap();
}

#[tokio::test]
async fn who_is_removed_while_a_key_is_asked_for_is_told_so_and_raises_no_alarm() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let path = Proxy::start(&broker).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let chat_id = ada.create_chat(&mut socket).await;
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let bob = Client::register(config(), new_account(&path.url, "bob"), Arc::clone(&storage)).await.unwrap();
    let identity = "SELECT identity_public_key FROM users WHERE username = 'bob'";
    let identity: Vec<u8> = database.client().await.query_one(identity, &[]).await.unwrap().get(0);
    let target = Target { user_id: bob.user_id(), identity_key: IdentityKey(identity.try_into().unwrap()) };
    let add = Change::Add { can_write: true, can_manage: false, roster_hash: Hash([0; 32]), epoch: Epoch::default() };
    change_user(&ada, &mut socket, chat_id, add, target).await;
    eventually("the chat", async || bob.head(chat_id).is_some()).await;
    let bobs_session = bob.session_id();
    bob.close().await.unwrap();

    // While bob is away, a key is stored with his copy, and the message under it waits for carol's.
    let carol = Device::register(&broker, "carol").await;
    ada.add(&mut socket, chat_id, &carol).await.unwrap();
    let now = view(&mut socket, chat_id).await;
    let mut key = ada.sender_key_for(now.fold.epoch(), chat_id, &[ada.session_id, bobs_session]);
    let mut message = ada.seal(&now, &mut key, b"sealed");
    assert_eq!(submit(&mut socket, message.clone()).await.unwrap_err().code, ErrorCode::CopiesMissing);
    let bob = open(storage).await;
    let mut events = bob.events();
    path.set(Path::HoldRequests);
    (message.new_key, message.add_copies) = (None, vec![copy_for(carol.session_id)]);
    submit(&mut socket, message).await.unwrap();
    change_user(&ada, &mut socket, chat_id, Change::Remove, target).await;
    path.set(Path::Open);
    within("the removal", async { while !matches!(&*events.next().await.unwrap().unwrap(), Event::Removed { .. }) {} })
        .await;
    assert_eq!(bob.stats().alarms, 0);
    assert!(bob.is_live(), "and goes on");
}
