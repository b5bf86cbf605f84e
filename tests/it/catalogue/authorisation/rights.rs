//! Rights: Z3 who may not write, Z4 who may not manage, Z5 who does not own, Z10 messages of others.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::envelope::MessageKind;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{self, ChangeMembership, DeleteChat, Request};
use sealcast::protocol::ids::{ChatId, MessageId};
use sealcast::protocol::membership::{Change, SignedChange};

use super::super::super::codes::contents;
use super::super::super::messages::Pair;
use super::super::super::support::chat::{change_membership, submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket, sign};
use super::super::super::support::every_request::every_change;

/// Sends what must be refused, and looks by SQL that nothing has changed.
async fn refused(database: &Database, socket: &mut Socket, request: Request) -> ErrorCode {
    let before = contents(database).await;
    let what = format!("{request:?}");
    let error: frame::Error = socket.request(request).await.expect_err(&what);
    assert_eq!(contents(database).await, before, "{what}: {} changed something", error.code);
    error.code
}

fn membership_change(chat_id: ChatId, change: SignedChange) -> Request {
    Request::ChangeMembership(ChangeMembership { chat_id, change, info_keys: Vec::new() })
}

#[tokio::test]
async fn z3_who_may_not_write_sends_edits_and_signals_nothing_and_deletes_their_own() {
    let mut pair = Pair::start().await;
    let (chat_id, database) = (pair.chat_id, &pair.database);
    let mut packed = pair.bob.connect_with(&pair.broker, Encoding::MessagePack).await;
    let now = view(&mut packed, chat_id).await;
    let mut key = pair.bob.sender_key(&now, chat_id);
    let message = pair.bob.seal(&now, &mut key, b"while he may");
    let message_id = message.envelope.message_id;
    submit(&mut packed, message).await.unwrap();
    pair.ada.set_rights(&mut pair.ada_socket, chat_id, &pair.bob, (false, false)).await.unwrap();

    let now = view(&mut packed, chat_id).await;
    let key_id = key.announcement.announcement.key_id;
    let mut fresh = pair.bob.sender_key(&now, chat_id);
    for kind in [MessageKind::Message, MessageKind::Edit, MessageKind::Delete] {
        let sends = match kind {
            MessageKind::Message => vec![
                pair.bob.seal(&now, &mut key.clone(), b"under the key in use"),
                pair.bob.seal(&now, &mut fresh.clone(), b"under a new key"),
            ],
            MessageKind::Edit => vec![
                pair.bob.edit(&now, &mut key.clone(), message_id, 1, b"under the key in use"),
                pair.bob.edit(&now, &mut fresh, message_id, 1, b"under a new key"),
            ],
            // His own he may delete: below.
            MessageKind::Delete => Vec::new(),
        };
        for send in sends {
            let code = refused(database, &mut packed, Request::Send(Box::new(send))).await;
            assert_eq!(code, ErrorCode::CannotWrite, "{kind:?}");
        }
    }
    let signal = Request::Signal(pair.bob.signal(chat_id, key_id));
    let before = contents(database).await;
    // Ada is live in the chat, so it is judged.
    assert_eq!(packed.request(signal).await.unwrap_err().code, ErrorCode::CannotWrite);
    assert_eq!(contents(database).await, before);

    let deletion = pair.bob.deletion(&now, chat_id, message_id, 1);
    submit(&mut packed, deletion).await.unwrap();
    let left = "SELECT count(*) FROM chat_messages WHERE data IS NOT NULL";
    assert_eq!(database.count(left).await, 0);
    pair.ada.set_rights(&mut pair.ada_socket, chat_id, &pair.bob, (true, false)).await.unwrap();
    pair.bob.say(&mut packed, chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn z4_who_may_not_manage_makes_no_change_but_to_leave() {
    let mut pair = Pair::start().await;
    let (chat_id, database) = (pair.chat_id, &pair.database);
    let (carol, dan) = (Device::register(&pair.broker, "carol").await, Device::register(&pair.broker, "dan").await);
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    let mut leave = None;
    for change in every_change(&now) {
        for target in [&pair.ada, &pair.bob, &carol, &dan] {
            let is_self = target.user_id == pair.bob.user_id;
            let signed = pair.bob.change_from(&now, chat_id, change.clone(), target);
            let expected = match &change {
                // Of these the form is judged first: about oneself, or never about oneself.
                Change::Leave if is_self => {
                    leave = Some(signed);
                    continue;
                }
                Change::Remove | Change::Transfer if is_self => ErrorCode::Malformed,
                Change::Leave | Change::Rekey | Change::SetHistory { .. } if !is_self => ErrorCode::Malformed,
                Change::Transfer => ErrorCode::NotOwner,
                _ => ErrorCode::CannotManage,
            };
            let code = refused(database, &mut pair.bob_socket, membership_change(chat_id, signed)).await;
            assert_eq!(code, expected, "{change:?} of {}", target.username);
        }
    }
    pair.bob.say(&mut pair.bob_socket, chat_id, "good").await.unwrap();
    change_membership(&mut pair.bob_socket, chat_id, leave.unwrap()).await.unwrap();
}

#[tokio::test]
async fn z4_a_managers_signed_change_works_once_and_is_worth_nothing_to_others() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let (carol, dan) = (Device::register(&pair.broker, "carol").await, Device::register(&pair.broker, "dan").await);
    let (mut carol_socket, mut dan_socket) =
        (carol.connect_live(&pair.broker).await, dan.connect_live(&pair.broker).await);
    pair.ada.add_with(&mut pair.ada_socket, chat_id, &carol, true, true).await.unwrap();
    pair.ada.add(&mut pair.ada_socket, chat_id, &dan).await.unwrap();
    // Signed while she managed: one that was made, one that she kept.
    let now = view(&mut carol_socket, chat_id).await;
    let made = carol.change_from(&now, chat_id, Change::Remove, &pair.bob);
    let kept = carol.change_from(&now, chat_id, Change::SetRights { can_write: false, can_manage: false }, &dan);
    let first = change_membership(&mut carol_socket, chat_id, made.clone()).await.unwrap();
    pair.ada.add(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
    let again = change_membership(&mut carol_socket, chat_id, made.clone()).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));

    let others = pair.ada.create_chat(&mut pair.ada_socket).await;
    for member in [&carol, &pair.bob, &dan] {
        pair.ada.add_with(&mut pair.ada_socket, others, member, true, true).await.unwrap();
    }
    let before = contents(&pair.database).await;
    for (device, socket) in
        [(&pair.ada, &mut pair.ada_socket), (&pair.bob, &mut pair.bob_socket), (&dan, &mut dan_socket)]
    {
        for signed in [&made, &kept] {
            // As it was signed, and in one's own name with its signature.
            let mut renamed = signed.clone();
            renamed.change.actor = device.change_from(&now, chat_id, Change::Leave, device).change.actor;
            for signed in [signed.clone(), renamed] {
                let code = change_membership(socket, chat_id, signed).await.unwrap_err().code;
                assert_eq!(code, ErrorCode::BadSignature, "{}", device.username);
            }
        }
    }
    // In another chat in which she manages, and moved to the place that is next.
    let error = change_membership(&mut carol_socket, others, made.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadSignature);
    let newest = view(&mut carol_socket, chat_id).await;
    let mut moved = made.clone();
    let next = carol.change_from(&newest, chat_id, Change::Remove, &pair.bob);
    (moved.change.n, moved.change.previous) = (next.change.n, next.change.previous);
    let error = change_membership(&mut carol_socket, chat_id, moved).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadSignature);
    let error = change_membership(&mut carol_socket, chat_id, kept.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::EventConflict, "its place was taken");
    assert_eq!(contents(&pair.database).await, before);

    // Once she manages no more, neither the old ones nor new ones do anything.
    pair.ada.set_rights(&mut pair.ada_socket, chat_id, &carol, (true, false)).await.unwrap();
    let newest = view(&mut carol_socket, chat_id).await;
    let fresh = carol.change_from(&newest, chat_id, Change::Remove, &pair.bob);
    let before = contents(&pair.database).await;
    for (signed, code) in [(kept, ErrorCode::EventConflict), (fresh, ErrorCode::CannotManage)] {
        let error = change_membership(&mut carol_socket, chat_id, signed).await.unwrap_err();
        assert_eq!(error.code, code);
    }
    let again = change_membership(&mut carol_socket, chat_id, made).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true), "the answer that she had, and nothing else");
    assert_eq!(contents(&pair.database).await, before);
    pair.bob.say(&mut pair.bob_socket, chat_id, "still here").await.unwrap();
    carol.say(&mut carol_socket, chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn z5_nobody_but_the_owner_ends_the_chat_and_nobody_touches_the_owner() {
    let mut pair = Pair::start().await;
    let (chat_id, database) = (pair.chat_id, &pair.database);
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add_with(&mut pair.ada_socket, chat_id, &carol, true, true).await.unwrap();
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    let now = view(&mut pair.ada_socket, chat_id).await;
    // A manager and a member who is none.
    for (device, socket) in [(&carol, &mut carol_socket), (&pair.bob, &mut pair.bob_socket)] {
        let may_manage = device.user_id == carol.user_id;
        let ending = |target: &Device| {
            let change = device.change_from(&now, chat_id, Change::Delete, target);
            Request::DeleteChat(DeleteChat { chat_id, change })
        };
        assert_eq!(refused(database, socket, ending(device)).await, ErrorCode::NotOwner);
        assert_eq!(refused(database, socket, ending(&pair.ada)).await, ErrorCode::Malformed);
        let of_owner = if may_manage { ErrorCode::NotOwner } else { ErrorCode::CannotManage };
        for (change, target, expected) in [
            (Change::Remove, &pair.ada, of_owner),
            (Change::SetRights { can_write: false, can_manage: false }, &pair.ada, of_owner),
            (Change::SetRights { can_write: true, can_manage: false }, &pair.ada, of_owner),
            // Ownership for oneself, and for an accomplice.
            (Change::Transfer, device, ErrorCode::Malformed),
            (Change::Transfer, if may_manage { &pair.bob } else { &carol }, ErrorCode::NotOwner),
            (Change::Transfer, &pair.ada, ErrorCode::NotOwner),
        ] {
            let signed = device.change_from(&now, chat_id, change.clone(), target);
            let code = refused(database, socket, membership_change(chat_id, signed)).await;
            assert_eq!(code, expected, "{change:?} by {}", device.username);
            // In the owner's name, by one's own key.
            let mut named = pair.ada.change_from(&now, chat_id, change.clone(), target).change;
            let stolen = device.sign_change(chat_id, named.clone());
            let code = refused(database, socket, membership_change(chat_id, stolen)).await;
            assert_eq!(code, ErrorCode::BadSignature, "{change:?} by {}", device.username);
            named.actor.session_id = device.session_id;
            let stolen = device.sign_change(chat_id, named);
            let code = refused(database, socket, membership_change(chat_id, stolen)).await;
            assert_eq!(code, ErrorCode::BadSignature, "{change:?} by {}", device.username);
        }
    }
    // Who owned it is an ordinary member once it has passed on: also with what was signed before.
    let deletion = pair.ada.change_from(&now, chat_id, Change::Delete, &pair.ada);
    let back = pair.ada.change_from(&now, chat_id, Change::Transfer, &pair.bob);
    pair.ada.transfer(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let before = contents(database).await;
    let request = Request::DeleteChat(DeleteChat { chat_id, change: deletion });
    assert_eq!(pair.ada_socket.request(request).await.unwrap_err().code, ErrorCode::EventConflict);
    let error = change_membership(&mut pair.ada_socket, chat_id, back).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::EventConflict);
    assert_eq!(pair.ada.delete(&mut pair.ada_socket, chat_id).await.unwrap_err().code, ErrorCode::NotOwner);
    assert_eq!(contents(database).await, before);
    pair.ada.say(&mut pair.ada_socket, chat_id, "good").await.unwrap();
    carol.delete(&mut carol_socket, chat_id).await.unwrap();
}

#[tokio::test]
async fn z10_nobody_edits_anothers_message_and_only_managers_delete_it() {
    let mut pair = Pair::start().await;
    let (chat_id, database) = (pair.chat_id, &pair.database);
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add_with(&mut pair.ada_socket, chat_id, &carol, true, true).await.unwrap();
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    let dan = Device::register(&pair.broker, "dan").await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &dan).await.unwrap();
    let mut dan_socket = dan.connect_live(&pair.broker).await;
    let phone = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut phone_socket = phone.connect_live(&pair.broker).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&now, chat_id);
    let mut bobs = Vec::new();
    for _ in 0..2 {
        let message = pair.bob.seal(&now, &mut key, b"bob's");
        bobs.push(message.envelope.message_id);
        submit(&mut pair.bob_socket, message).await.unwrap();
    }
    // The owner, a manager and a member.
    for (device, socket) in [(&pair.ada, &mut pair.ada_socket), (&carol, &mut carol_socket), (&dan, &mut dan_socket)] {
        let now = view(socket, chat_id).await;
        for message_id in [bobs[0], MessageId::generate()] {
            let mut key = device.sender_key(&now, chat_id);
            let edit = device.edit(&now, &mut key, message_id, 1, b"what he never said");
            let code = refused(database, socket, Request::Send(Box::new(edit.clone()))).await;
            assert_eq!(code, ErrorCode::UnknownMessage, "{}", device.username);
            // In his name: by one's own key, and as one's own session.
            for sender_session_id in [pair.bob.session_id, device.session_id] {
                let mut named = edit.clone();
                named.envelope.sender_id = pair.bob.user_id;
                named.envelope.sender_session_id = sender_session_id;
                named.envelope.signature = sign(&device.signing, &named.envelope.signed_bytes(chat_id));
                let code = refused(database, socket, Request::Send(Box::new(named))).await;
                assert_eq!(code, ErrorCode::BadSignature, "{}", device.username);
            }
        }
    }
    let now = view(&mut dan_socket, chat_id).await;
    let deletion = dan.deletion(&now, chat_id, bobs[0], 1);
    let code = refused(database, &mut dan_socket, Request::Send(Box::new(deletion))).await;
    assert_eq!(code, ErrorCode::UnknownMessage);
    // A deletion that he signed for one message is worth nothing for another, nor in other hands.
    let signed = pair.bob.deletion(&now, chat_id, bobs[1], 1);
    let mut moved = signed.clone();
    moved.envelope.message_id = bobs[0];
    let code = refused(database, &mut pair.bob_socket, Request::Send(Box::new(moved))).await;
    assert_eq!(code, ErrorCode::BadSignature);
    let code = refused(database, &mut dan_socket, Request::Send(Box::new(signed.clone()))).await;
    assert_eq!(code, ErrorCode::BadSignature);

    let now = view(&mut phone_socket, chat_id).await;
    let mut key = phone.sender_key(&now, chat_id);
    let edit = phone.edit(&now, &mut key, bobs[0], 1, b"his own, from another device");
    submit(&mut phone_socket, edit).await.unwrap();
    let deletion = carol.deletion(&now, chat_id, bobs[0], 2);
    submit(&mut carol_socket, deletion).await.unwrap();
    submit(&mut pair.bob_socket, signed).await.unwrap();
    dan.say(&mut dan_socket, chat_id, "good").await.unwrap();
}
