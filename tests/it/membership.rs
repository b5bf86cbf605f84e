//! Chats and their members: who may do what, and that each refusal changes nothing.

use sealcast::protocol::binary::Hash;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Changed, Direction, Nothing, Reply, Request, ServerFrame};
use sealcast::protocol::ids::{ChatId, Epoch, Seq};
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::membership::Change;

use super::messages::Pair;
use super::support::chat::{change_membership, history, view};
use super::support::device::Device;

#[tokio::test]
async fn a_repeated_change_gets_the_first_answer() {
    let mut pair = Pair::start().await;
    let creation = pair.ada.creation(ChatId::generate());
    for duplicate in [false, true] {
        let reply = pair.ada_socket.request(Request::CreateChat(creation.clone())).await.unwrap();
        assert_eq!(reply, Reply::Changed(Changed { seq: Seq::saturating(1), duplicate }));
    }
    let carol = Device::register(&pair.broker, "carol").await;
    let add = Change::Add { can_write: true, can_manage: false, roster_hash: Hash([0; 32]), epoch: Epoch::default() };
    let change = pair.ada.change(&mut pair.ada_socket, pair.chat_id, add, &carol).await;
    let first = change_membership(&mut pair.ada_socket, pair.chat_id, change.clone()).await.unwrap();
    let again = change_membership(&mut pair.ada_socket, pair.chat_id, change).await.unwrap();
    assert_eq!((first.seq, false, true), (again.seq, first.duplicate, again.duplicate));
}

#[tokio::test]
async fn z1_a_stranger_gets_the_answer_of_a_chat_that_is_not_there() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut socket = eve.connect_live(&pair.broker).await;
    let theirs = view(&mut pair.ada_socket, pair.chat_id).await;
    for chat_id in [pair.chat_id, ChatId::generate()] {
        let mut key = eve.sender_key(&theirs, chat_id);
        let message = eve.seal(&theirs, &mut key, b"let me in");
        let refused = super::support::chat::submit(&mut socket, message).await.unwrap_err();
        assert_eq!((refused.code, refused.details), (ErrorCode::UnknownChat, None));
        let refused = history(&mut socket, chat_id, Direction::After, Seq::default(), 10).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::UnknownChat);
        let change = eve.change_from(&theirs, chat_id, Change::Leave, &eve);
        let refused = change_membership(&mut socket, chat_id, change).await.unwrap_err();
        assert_eq!((refused.code, refused.details), (ErrorCode::UnknownChat, None));
    }
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, theirs.seen);
}

#[tokio::test]
async fn z2_a_removed_member_is_told_and_gets_nothing_later() {
    let mut pair = Pair::start().await;
    // Whoever is still catching up when they are removed is not told; bob has caught up.
    let chat_id = pair.chat_id;
    pair.bob_socket
        .push_that(|push| matches!(push, ServerFrame::Page(page) if page.chat_id == chat_id).then_some(()))
        .await;
    pair.bob_socket.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;
    let removed = pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    for _ in 0..5 {
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "among us").await.unwrap();
    }
    let mut newest = Seq::default();
    for push in pair.bob_socket.pushes_so_far().await {
        match push {
            ServerFrame::Entry(push) => newest = push.entry.seq,
            ServerFrame::Page(page) => newest = page.up_to,
            _ => {}
        }
    }
    assert_eq!(newest, removed.seq, "the removal itself is the last that is told");
    let refused = pair.bob.say(&mut pair.ada_socket, pair.chat_id, "as somebody else").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadSignature);
    // A return is a fresh join.
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let page = history(&mut pair.bob_socket, pair.chat_id, Direction::After, Seq::default(), 100).await.unwrap();
    assert!(page.entries[0].seq > removed.seq);
    assert!(pair.bob.say(&mut pair.bob_socket, pair.chat_id, "back").await.is_ok());
}

#[tokio::test]
async fn z3_z4_z5_rights_are_enforced() {
    let mut pair = Pair::start().await;
    let (carol, dan) = (Device::register(&pair.broker, "carol").await, Device::register(&pair.broker, "dan").await);
    pair.ada.add_with(&mut pair.ada_socket, pair.chat_id, &carol, false, true).await.unwrap();
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    let before = view(&mut pair.ada_socket, pair.chat_id).await.seen;
    let code = |result: Result<Changed, sealcast::protocol::frame::Error>| result.unwrap_err().code;

    let refused = carol.say(&mut carol_socket, pair.chat_id, "read only").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CannotWrite);
    assert_eq!(code(pair.bob.add(&mut pair.bob_socket, pair.chat_id, &dan).await), ErrorCode::CannotManage);
    assert_eq!(code(pair.bob.remove(&mut pair.bob_socket, pair.chat_id, &carol).await), ErrorCode::CannotManage);
    assert_eq!(code(carol.remove(&mut carol_socket, pair.chat_id, &pair.ada).await), ErrorCode::NotOwner);
    assert_eq!(code(carol.delete(&mut carol_socket, pair.chat_id).await), ErrorCode::NotOwner);
    assert_eq!(code(pair.ada.leave(&mut pair.ada_socket, pair.chat_id).await), ErrorCode::OwnerMustTransfer);
    assert_eq!(code(pair.ada.add(&mut pair.ada_socket, pair.chat_id, &pair.bob).await), ErrorCode::AlreadyMember);
    assert_eq!(code(pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &dan).await), ErrorCode::NotMember);
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, before, "nothing has changed");

    // A manager's old signed change works once.
    let change = carol.change(&mut carol_socket, pair.chat_id, Change::Remove, &pair.bob).await;
    change_membership(&mut carol_socket, pair.chat_id, change.clone()).await.unwrap();
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let again = change_membership(&mut carol_socket, pair.chat_id, change).await.unwrap();
    assert!(again.duplicate);
    assert!(view(&mut pair.ada_socket, pair.chat_id).await.fold.membership().members.contains_key(&pair.bob.user_id));
    pair.bob.leave(&mut pair.bob_socket, pair.chat_id).await.unwrap();
}

#[tokio::test]
async fn conflicts_and_bad_signatures_change_nothing() {
    let mut pair = Pair::start().await;
    let carol = Device::register(&pair.broker, "carol").await;
    let old = view(&mut pair.ada_socket, pair.chat_id).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    let lost_race = pair.ada.change_from(&old, pair.chat_id, Change::Remove, &carol);
    let refused = change_membership(&mut pair.ada_socket, pair.chat_id, lost_race).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::EventConflict);
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let details = refused.details.unwrap();
    assert_eq!((details.n, details.hash), (Some(now.fold.membership().head), Some(now.fold.membership().hash)));

    let mut forged = pair.ada.change_from(&now, pair.chat_id, Change::Remove, &carol);
    forged.signature.0[0] ^= 1;
    let refused = change_membership(&mut pair.ada_socket, pair.chat_id, forged).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadSignature);

    let dan = Device::register(&pair.broker, "dan").await;
    let add = Change::Add { can_write: true, can_manage: false, roster_hash: Hash([1; 32]), epoch: now.fold.epoch() };
    let wrong_roster = pair.ada.change_from(&now, pair.chat_id, add, &dan);
    let refused = change_membership(&mut pair.ada_socket, pair.chat_id, wrong_roster).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RosterChanged);

    let ghost = Device::unregistered("ghost", 1_000);
    let refused = pair.ada.add(&mut pair.ada_socket, pair.chat_id, &ghost).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownUser);
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, now.seen);
    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
}

#[tokio::test]
async fn l6_a_deleted_chat_leaves_nothing_behind() {
    let mut pair = Pair::start().await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "soon gone").await.unwrap();
    pair.ada.delete(&mut pair.ada_socket, pair.chat_id).await.unwrap();
    let chat_id = pair.chat_id;
    pair.bob_socket
        .push_that(|push| match push {
            ServerFrame::ChatDeleted(deleted) if deleted.chat_id == chat_id => Some(()),
            _ => None,
        })
        .await;
    for table in [
        "chats",
        "user_in_chat",
        "chat_messages",
        "chat_events",
        "sender_keys",
        "vault_chat_sender_keys",
        "vault_chat_info_keys",
        "info_key_seals",
        "generation_links",
        "session_cursors",
    ] {
        assert_eq!(pair.database.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    let refused = history(&mut pair.bob_socket, chat_id, Direction::After, Seq::default(), 1).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownChat);
    assert!(pair.bob_socket.request(Request::Ping(Nothing {})).await.is_ok());
}

#[tokio::test]
async fn the_roster_is_the_fold_of_the_log() {
    let mut pair = Pair::start().await;
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let row = pair
        .database
        .client()
        .await
        .query_one("SELECT epoch, roster_version, roster_hash, last_seq FROM chats", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0) as u64, now.fold.epoch().get());
    assert_eq!(row.get::<_, i64>(1) as u64, now.fold.roster_version().get());
    assert_eq!(row.get::<_, &[u8]>(2), now.fold.roster_hash().as_ref());
    assert_eq!(row.get::<_, i64>(3) as u64, now.seen.seq.get());
    let page = history(&mut pair.ada_socket, pair.chat_id, Direction::After, Seq::default(), 200).await.unwrap();
    assert!(matches!(page.entries[0].body, EntryBody::Membership(_)));
    assert!(matches!(page.entries[1].body, EntryBody::SessionIn(_)), "the founding session follows its creation");
}
