//! Strangers: Z1, and Z9, what belongs to others.

use std::collections::BTreeMap;

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    ChatGone, Cursor, Direction, FurtherCopy, Keys, LookupUser, Nothing, Request, Resume, ServerFrame, UploadCopies,
};
use sealcast::protocol::ids::{ChatId, KeyId, Seq, SessionId};
use sealcast::protocol::username::Username;

use super::super::super::codes::{contents, info_key_wrap};
use super::super::super::messages::Pair;
use super::super::super::support::chat::{copy_for, events, history, submit, view};
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::every_request::Scene;
use super::super::super::support::link::sessions;
use super::super::super::support::rights::settings;

#[tokio::test]
async fn z1_a_stranger_is_answered_as_if_there_were_no_such_chat_whatever_they_ask() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut socket = eve.connect_live(&pair.broker).await;
    let own = eve.create_chat(&mut socket).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"ours");
    let (message_id, key_id) = (message.envelope.message_id, key.announcement.announcement.key_id);
    submit(&mut pair.ada_socket, message).await.unwrap();
    let theirs = view(&mut pair.ada_socket, pair.chat_id).await;

    for encoding in Encoding::ALL {
        let mut socket = eve.connect_with(&pair.broker, encoding).await;
        let before = contents(&pair.database).await;
        let mut answers = Vec::new();
        for chat_id in [pair.chat_id, ChatId::generate()] {
            let scene = Scene { device: &eve, other: &pair.bob, chat_id, view: &theirs, message_id, key_id };
            let mut told = Vec::new();
            for request in scene.of_chat() {
                let error = socket.request(request.clone()).await.expect_err(request.name());
                assert_eq!((error.code, &error.details), (ErrorCode::UnknownChat, &None), "{request:?}");
                told.push((error.code, error.message, error.retryable, error.details));
            }
            answers.push(told);
            // A cursor brings nothing of it, and the same is said of both.
            socket
                .request(Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq: now.seen.seq }] }))
                .await
                .unwrap();
            let gone = ServerFrame::ChatGone(ChatGone { chat_id });
            let pushes = socket.pushes_so_far().await;
            for push in &pushes {
                assert!(*push == gone || !format!("{push:?}").contains(&chat_id.to_string()), "{push:?}");
            }
            assert_eq!(pushes.iter().filter(|push| **push == gone).count(), 1);
        }
        assert_eq!(answers[0], answers[1], "a chat that is there and one that is not");
        assert_eq!(contents(&pair.database).await, before);
        eve.say(&mut socket, own, "good").await.unwrap();
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
        assert_ne!(contents(&pair.database).await, before, "a change would have been seen");
    }
}

/// Everything that a session can read by any list and get, as it comes over the wire.
async fn all_that_is_read(socket: &mut Socket, chat_id: ChatId, key_ids: &[KeyId]) -> String {
    let mut frames = Vec::new();
    for request in [
        Request::ListChats(Nothing {}),
        Request::ListSessions(Nothing {}),
        Request::FetchSettings(Nothing {}),
        Request::Keys(Keys { chat_id, key_ids: key_ids.to_vec() }),
        Request::LookupUser(LookupUser { username: Username::parse("ada").unwrap() }),
        Request::LookupUser(LookupUser { username: Username::parse("bob").unwrap() }),
    ] {
        frames.push(serde_json::to_string(&socket.request(request).await.unwrap()).unwrap());
    }
    for direction in [(Direction::After, Seq::default()), (Direction::Before, Seq::saturating(u64::MAX))] {
        let page = history(socket, chat_id, direction.0, direction.1, 200).await.unwrap();
        assert!(!page.keys.is_empty());
        frames.push(serde_json::to_string(&page).unwrap());
    }
    frames.push(serde_json::to_string(&events(socket, chat_id).await).unwrap());
    frames.extend(socket.pushes_so_far().await.iter().map(|push| serde_json::to_string(push).unwrap()));
    frames.join("\n")
}

#[tokio::test]
async fn z9_no_list_and_no_get_gives_what_is_wrapped_to_another_session() {
    let mut pair = Pair::start().await;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    // A chat whose name has a wrap for each of Bob's sessions; in it a key of each user's.
    let mut creation = pair.bob.creation(ChatId::generate());
    let chat_id = creation.chat_id;
    for session_id in [pair.bob.session_id, tablet.session_id] {
        let mut wrap = info_key_wrap(&pair.bob, chat_id, session_id);
        wrap.key = copy_for(session_id).key;
        wrap.key_id = creation.info_keys.first().map_or(wrap.key_id, |first| first.key_id);
        wrap.signature = super::super::super::support::device::sign(&pair.bob.signing, &wrap.signed_bytes(chat_id));
        creation.info_keys.push(wrap);
    }
    creation.name =
        Some(sealcast::protocol::keys::SealedName { key_id: creation.info_keys[0].key_id, data: vec![9; 40].into() });
    pair.bob_socket.request(Request::CreateChat(creation)).await.unwrap();
    pair.bob.add(&mut pair.bob_socket, chat_id, &pair.ada).await.unwrap();
    let mut key_ids = Vec::new();
    for (device, socket) in [(&pair.ada, &mut pair.ada_socket), (&pair.bob, &mut pair.bob_socket)] {
        let now = view(socket, chat_id).await;
        let mut key = device.sender_key(&now, chat_id);
        key_ids.push(key.announcement.announcement.key_id);
        let message = device.seal(&now, &mut key, b"for everybody");
        submit(socket, message).await.unwrap();
    }

    let client = pair.database.client().await;
    let rows =
        "SELECT session_id, key FROM vault_chat_sender_keys UNION ALL SELECT session_id, key FROM vault_chat_info_keys";
    let mut wrapped: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
    for row in client.query(rows, &[]).await.unwrap() {
        let key = sealcast::protocol::binary::WrappedKey(row.get::<_, &[u8]>(1).try_into().unwrap());
        let text = serde_json::to_string(&key).unwrap();
        wrapped.entry(SessionId(row.get(0))).or_default().push(text);
    }
    assert_eq!(wrapped.values().map(Vec::len).sum::<usize>(), 3 * 2 + 2);
    for (device, socket) in
        [(&pair.ada, &mut pair.ada_socket), (&pair.bob, &mut pair.bob_socket), (&tablet, &mut tablet_socket)]
    {
        let read = all_that_is_read(socket, chat_id, &key_ids).await;
        for (session_id, keys) in &wrapped {
            for key in keys {
                assert_eq!(
                    read.contains(key),
                    *session_id == device.session_id,
                    "{} and {session_id}",
                    device.session_id
                );
            }
        }
    }
    // Eve reads no chat, and no session, setting or hand-over but her own.
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eve_socket = eve.connect_live(&pair.broker).await;
    let own = sessions(&mut eve_socket).await;
    assert_eq!(own.sessions.iter().map(|session| &session.certificate).collect::<Vec<_>>(), [&eve.certificate]);
    assert!(own.pending.is_empty() && settings(&mut eve_socket).await.blocked.is_empty());
    let handover = eve_socket.request(Request::FetchHandover(Nothing {})).await.unwrap_err();
    assert_eq!(handover.code, ErrorCode::UnknownSession);
    // Who approved a session cannot fetch what was handed over to it.
    let handover = pair.bob_socket.request(Request::FetchHandover(Nothing {})).await.unwrap_err();
    assert_eq!(handover.code, ErrorCode::UnknownSession);
    assert!(tablet_socket.request(Request::FetchHandover(Nothing {})).await.is_ok());
    // A key that is there and one that is not, of a chat that is not hers and of one that is.
    let hers = eve.create_chat(&mut eve_socket).await;
    for key_id in [key_ids[0], KeyId::generate()] {
        let keys = Request::Keys(Keys { chat_id: hers, key_ids: vec![key_id] });
        let reply = eve_socket.request(keys).await.unwrap();
        assert_eq!(
            reply,
            sealcast::protocol::frame::Reply::Keys(sealcast::protocol::frame::KeyList { keys: Vec::new() })
        );
        let copies = vec![FurtherCopy { key_id, session_id: eve.session_id, key: copy_for(eve.session_id).key }];
        let upload = Request::UploadCopies(UploadCopies { chat_id: hers, copies });
        assert_eq!(eve_socket.request(upload).await.unwrap_err().code, ErrorCode::UnknownKey);
    }
    eve.say(&mut eve_socket, hers, "good").await.unwrap();
}
