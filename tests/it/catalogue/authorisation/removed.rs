//! Z2: who was removed, with the socket open.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    ChangeMembership, Chats, Cursor, NewKey, Nothing, Reply, Request, Resume, ServerFrame, StageCopies,
};
use sealcast::protocol::ids::{ChatId, KeyId, MessageId, Seq};
use sealcast::protocol::keys::staged_hash;
use sealcast::protocol::membership::Change;

use super::super::super::codes::contents;
use super::super::super::messages::Pair;
use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::{submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::every_request::Scene;
use super::super::super::support::trials;

/// The newest seq of a chat that frames tell of, 0 if they tell of none.
fn newest_told(frames: &[ServerFrame], chat_id: ChatId) -> Seq {
    let told = frames.iter().filter_map(|frame| match frame {
        ServerFrame::Entry(push) if push.chat_id == chat_id => Some(push.entry.seq),
        ServerFrame::Page(page) if page.chat_id == chat_id => Some(page.up_to),
        ServerFrame::Delivered(delivered) if delivered.chat_id == chat_id => Some(delivered.delivery.seq),
        _ => None,
    });
    told.max().unwrap_or_default()
}

/// Whether a frame is of something that goes on in a chat now.
fn is_of_now(frame: &ServerFrame, chat_id: ChatId) -> bool {
    match frame {
        ServerFrame::Signal(signal) => signal.chat_id == chat_id,
        ServerFrame::Key(key) => key.chat_id == chat_id,
        ServerFrame::KeyRequested(requested) => requested.chat_id == chat_id,
        ServerFrame::CopyRefused(refused) => refused.chat_id == chat_id,
        _ => false,
    }
}

async fn listed_chats(socket: &mut Socket) -> Chats {
    match socket.request(Request::ListChats(Nothing {})).await.unwrap() {
        Reply::Chats(chats) => chats,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn z2_with_the_socket_open_a_removed_member_gets_nothing_by_any_request() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut packed = tablet.connect_with(&pair.broker, Encoding::MessagePack).await;
    packed.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut adas_key = pair.ada.sender_key(&now, chat_id);
    let message = pair.ada.seal(&now, &mut adas_key, b"to all of them");
    let message_id = message.envelope.message_id;
    submit(&mut pair.ada_socket, message).await.unwrap();
    // What Bob prepares while he may: a key in use, a further one whose copies went ahead.
    let mut bobs_key = pair.bob.sender_key(&now, chat_id);
    let bobs = pair.bob.seal(&now, &mut bobs_key, b"as a member");
    let first = submit(&mut pair.bob_socket, bobs.clone()).await.unwrap();
    let late = pair.bob.seal(&now, &mut bobs_key, b"too late, under the old key");
    let mut further = pair.bob.sender_key(&now, chat_id);
    let copies = std::mem::take(&mut further.copies);
    let key_id = further.announcement.announcement.key_id;
    let part = StageCopies { chat_id, key_id, part: 0, parts: 1, copies: copies.clone() };
    pair.bob_socket.request(Request::StageCopies(part)).await.unwrap();
    let mut staged = pair.bob.seal(&now, &mut further, b"too late, under the further key");
    staged.new_key = Some(NewKey { staged: Some(staged_hash(copies.iter())), ..further.new_key() });
    pair.bob.sign_envelope(&mut staged);
    let seen = view(&mut pair.bob_socket, chat_id).await;
    for socket in [&mut pair.bob_socket, &mut packed] {
        socket.pushes_so_far().await;
    }

    let removed = pair.ada.remove(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
    pair.ada.say(&mut pair.ada_socket, chat_id, "among us").await.unwrap();
    let after = view(&mut carol_socket, chat_id).await;
    let mut carols_key = carol.sender_key(&after, chat_id);
    let message = carol.seal(&after, &mut carols_key, b"yes");
    submit(&mut carol_socket, message).await.unwrap();
    let typing = carol.signal(chat_id, carols_key.announcement.announcement.key_id);
    carol_socket.request(Request::Signal(typing)).await.unwrap();

    let before = contents(&pair.database).await;
    for (device, socket) in [(&pair.bob, &mut pair.bob_socket), (&tablet, &mut packed)] {
        let mut told = socket.pushes_so_far().await;
        let scene = Scene {
            device,
            other: &pair.ada,
            chat_id,
            view: &seen,
            message_id,
            key_id: adas_key.announcement.announcement.key_id,
        };
        let old_view = scene.of_chat();
        // The same as if they could see what has become of it.
        let new_view = Scene { view: &after, ..scene }.of_chat();
        for request in old_view.into_iter().chain(new_view) {
            let error = socket.request(request.clone()).await.expect_err(request.name());
            assert_eq!((error.code, &error.details), (ErrorCode::UnknownChat, &None), "{request:?}");
        }
        for seq in [Seq::default(), first.seq, removed.seq, removed.seq.next(), Seq::saturating(1_000)] {
            let cursors = vec![Cursor { chat_id, seq }];
            socket.request(Request::Resume(Resume { cursors })).await.unwrap();
        }
        assert_eq!(listed_chats(socket).await.chats, []);
        told.extend(socket.pushes_so_far().await);
        assert!(newest_told(&told, chat_id) <= removed.seq, "{told:?}");
        assert!(!told.iter().any(|frame| is_of_now(frame, chat_id)), "{told:?}");
        assert_eq!(told.iter().filter(|frame| matches!(frame, ServerFrame::ChatGone(_))).count(), 5);
    }
    // Old keys: of a message that was sealed before, of a list that went ahead.
    for late in [late, staged] {
        assert_eq!(submit(&mut pair.bob_socket, late).await.unwrap_err().code, ErrorCode::UnknownChat);
    }
    // A repeat of his own gets the result that he has, and nothing newer.
    let again = submit(&mut pair.bob_socket, bobs).await.unwrap();
    assert_eq!((again.seq, again.log_hash, again.duplicate), (first.seq, first.log_hash, true));
    assert_eq!(contents(&pair.database).await, before);

    // A connection that is new knows no more.
    let mut anew = pair.bob.connect(&pair.broker).await;
    anew.request(Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq: first.seq }] })).await.unwrap();
    anew.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;
    assert_eq!(listed_chats(&mut anew).await.chats, []);
    assert_eq!(newest_told(&anew.pushes_so_far().await, chat_id), Seq::default());
    assert_eq!(contents(&pair.database).await, before);
    let own = pair.bob.create_chat(&mut anew).await;
    pair.bob.say(&mut anew, own, "good").await.unwrap();
}

/// The pair, with a second manager, and room for many changes.
async fn with_a_second_manager() -> (Pair, Device, Socket) {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("limits.membership_changes_per_minute", 10_000)
        .with("limits.requests_per_s", 10_000)
        .with("limits.requests_burst", 10_000);
    let mut pair = Pair::start_on(database, settings).await;
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add_with(&mut pair.ada_socket, pair.chat_id, &carol, true, true).await.unwrap();
    let carol_socket = carol.connect_live(&pair.broker).await;
    (pair, carol, carol_socket)
}

#[tokio::test]
async fn z2_of_a_flood_that_goes_on_a_removed_member_gets_nothing_behind_the_removal() {
    let (mut pair, carol, mut carol_socket) = with_a_second_manager().await;
    let chat_id = pair.chat_id;
    for _ in 0..trials(6, 100) {
        let now = view(&mut pair.ada_socket, chat_id).await;
        let mut key = pair.ada.sender_key(&now, chat_id);
        let removal = carol.change_from(&now, chat_id, Change::Remove, &pair.bob);
        let mut open = Vec::new();
        for index in 0..40 {
            let message = pair.ada.seal(&now, &mut key, b"flood");
            open.push(pair.ada_socket.send(Request::Send(Box::new(message))).await);
            if index == 20 {
                let request = ChangeMembership { chat_id, change: removal.clone(), info_keys: Vec::new() };
                carol_socket.send(Request::ChangeMembership(request)).await;
            }
        }
        let Reply::Changed(removed) = carol_socket
            .push_that(|push| match push {
                ServerFrame::Ok(ok) => Some(ok.result.clone()),
                ServerFrame::Error(error) => panic!("{error:?}"),
                _ => None,
            })
            .await
        else {
            panic!("no removal")
        };
        for id in open {
            // What comes behind the removal is under a stale key.
            match pair.ada_socket.answer(id).await {
                Ok(Reply::Sent(sent)) => assert!(sent.seq < removed.seq),
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert_eq!(error.code, ErrorCode::KeyStale),
            }
        }
        for _ in 0..3 {
            let sent = pair.ada.say(&mut pair.ada_socket, chat_id, "among us").await.unwrap();
            assert!(sent.seq > removed.seq);
        }
        let told = pair.bob_socket.pushes_so_far().await;
        assert!(newest_told(&told, chat_id) <= removed.seq, "{told:?}");
        pair.ada.add(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
        pair.bob.say(&mut pair.bob_socket, chat_id, "back").await.unwrap();
        pair.bob_socket.pushes_so_far().await;
    }
}

#[tokio::test]
async fn z2_who_was_removed_through_another_node_reads_nothing_later_through_this_one() {
    let (mut pair, carol, _) = with_a_second_manager().await;
    let chat_id = pair.chat_id;
    let other = Broker::start_with(Settings::on(&pair.database)).await;
    let mut carol_there = carol.connect_live(&other).await;
    // The chat is loaded here, and Bob stands in it.
    let spoken = pair.ada.say(&mut pair.ada_socket, chat_id, "all are here").await.unwrap();
    pair.bob_socket
        .push_that(|push| match push {
            ServerFrame::Entry(push) => (push.entry.seq == spoken.seq).then_some(()),
            ServerFrame::Page(page) => (page.up_to >= spoken.seq).then_some(()),
            _ => None,
        })
        .await;
    let seen = view(&mut pair.bob_socket, chat_id).await;
    let removed = carol.remove(&mut carol_there, chat_id, &pair.bob).await.unwrap();
    carol.say(&mut carol_there, chat_id, "said there").await.unwrap();

    let reads = |request: &Request| {
        use Request::{AdvanceCursor, Events, History, Keys, ListDeliveries, ListMembers, RefuseCopy, RequestKeys};
        matches!(
            request,
            AdvanceCursor(_)
                | Events(_)
                | History(_)
                | Keys(_)
                | ListDeliveries(_)
                | ListMembers(_)
                | RefuseCopy(_)
                | RequestKeys(_)
        )
    };
    let scene = Scene {
        device: &pair.bob,
        other: &pair.ada,
        chat_id,
        view: &seen,
        message_id: MessageId::generate(),
        key_id: KeyId::generate(),
    };
    let requests = scene.of_chat();
    let before = contents(&pair.database).await;
    for request in requests.into_iter().filter(reads) {
        let error = pair.bob_socket.request(request.clone()).await.expect_err(request.name());
        assert_eq!(error.code, ErrorCode::UnknownChat, "{request:?}");
    }
    // Whatever this node has in memory, the commit judges by the database.
    let mut key = pair.bob.sender_key(&seen, chat_id);
    let message = pair.bob.seal(&seen, &mut key, b"as if nothing had happened");
    assert_eq!(submit(&mut pair.bob_socket, message).await.unwrap_err().code, ErrorCode::UnknownChat);
    assert_eq!(contents(&pair.database).await, before);
    // Here it goes on, and the node learns of the removal by it.
    pair.ada.say(&mut pair.ada_socket, chat_id, "said here").await.unwrap();
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    carol.say(&mut carol_socket, chat_id, "and this").await.unwrap();
    let told = pair.bob_socket.pushes_so_far().await;
    assert!(newest_told(&told, chat_id) <= removed.seq, "{told:?}");
    let own = pair.bob.create_chat(&mut pair.bob_socket).await;
    pair.bob.say(&mut pair.bob_socket, own, "good").await.unwrap();
}
