//! Info keys sealed to recovery keys: what the broker takes, whom it asks, and to whom it gives them.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{FetchGroupKeys, Reply, Request, ServerFrame, SetChatInfo, UploadInfoKeys};
use sealcast::protocol::ids::{ChatId, GenerationNo, InfoKeyId};
use sealcast::protocol::info_seal::InfoKeySeal;

use super::super::codes::contents;
use super::super::support::chat::view;
use super::super::support::device::{Device, Socket};
use super::super::support::generations::NO_SIGNATURE;
use super::pair_with_password;

const fn generation(number: u64) -> GenerationNo {
    GenerationNo::saturating(number)
}

fn upload(chat_id: ChatId, seal: InfoKeySeal) -> Request {
    Request::UploadInfoKeys(UploadInfoKeys { chat_id, info_keys: Vec::new(), seal: Some(seal) })
}

/// For what generation the next `info_key_requested` asks.
async fn asked(socket: &mut Socket, key_id: InfoKeyId) -> GenerationNo {
    socket
        .push_that(|frame| match frame {
            ServerFrame::InfoKeyRequested(asked) if asked.key_id == key_id => asked.generation,
            _ => None,
        })
        .await
}

#[tokio::test]
async fn p10_a_seal_is_taken_of_the_current_key_for_the_current_generation_by_who_signs_it_alone() {
    let (mut pair, _halves) = pair_with_password().await;
    let (chat_id, key_id) = (pair.chat_id, InfoKeyId::generate());
    let good = pair.ada.named(chat_id, 1, key_id, b"a name of bytes that only look sealed");
    let with =
        |set: &SetChatInfo, seal| Request::SetChatInfo(Box::new(SetChatInfo { seal: Some(seal), ..set.clone() }));
    let seal = |device: &Device, number| device.info_key_seal(chat_id, key_id, generation(number));
    let refused = pair.ada_socket.request(with(&good, seal(&pair.ada, 1))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecipientsChanged, "there is no generation yet");
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let unsigned = InfoKeySeal { signature: NO_SIGNATURE, ..seal(&pair.ada, 1) };
    let other_key = pair.ada.info_key_seal(chat_id, InfoKeyId::generate(), generation(1));
    for (bad, code) in [
        (seal(&pair.ada, 2), ErrorCode::RecipientsChanged),
        (seal(&pair.bob, 1), ErrorCode::BadSignature),
        (unsigned, ErrorCode::BadSignature),
        (other_key.clone(), ErrorCode::Malformed),
    ] {
        let before = contents(&pair.database).await;
        let refused = pair.ada_socket.request(with(&good, bad.clone())).await.unwrap_err();
        assert_eq!(refused.code, code, "{bad:?}");
        assert_eq!(contents(&pair.database).await, before, "{bad:?}");
    }
    // Without a seal it is saved too, and the session that holds the key is asked for one.
    pair.ada_socket.request(Request::SetChatInfo(Box::new(good))).await.unwrap();
    assert_eq!(asked(&mut pair.ada_socket, key_id).await, generation(1));
    let unsigned = InfoKeySeal { signature: NO_SIGNATURE, ..seal(&pair.ada, 1) };
    for (bad, code) in [
        (other_key, ErrorCode::UnknownKey),
        (seal(&pair.ada, 2), ErrorCode::RecipientsChanged),
        (seal(&pair.bob, 1), ErrorCode::BadSignature),
        (unsigned, ErrorCode::BadSignature),
    ] {
        let before = contents(&pair.database).await;
        let refused = pair.ada_socket.request(upload(chat_id, bad.clone())).await.unwrap_err();
        assert_eq!(refused.code, code, "{bad:?}");
        assert_eq!(contents(&pair.database).await, before, "{bad:?}");
    }
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eves = eve.connect_live(&pair.broker).await;
    assert_eq!(eves.request(upload(chat_id, seal(&eve, 1))).await.unwrap_err().code, ErrorCode::UnknownChat);
    pair.ada_socket.request(upload(chat_id, seal(&pair.ada, 1))).await.unwrap();
    // The first one stays, also against another member's.
    let before = contents(&pair.database).await;
    pair.ada_socket.request(upload(chat_id, seal(&pair.ada, 1))).await.unwrap();
    pair.bob_socket.request(upload(chat_id, seal(&pair.bob, 1))).await.unwrap();
    assert_eq!(contents(&pair.database).await, before);
    // Whoever has the group key gets it with that; who has none gets nothing.
    let fetch = Request::FetchGroupKeys(FetchGroupKeys { chat_id, after: GenerationNo::default() });
    let Reply::GroupKeys(found) = pair.ada_socket.request(fetch.clone()).await.unwrap() else { panic!() };
    assert_eq!(found.keys[0].info_key, Some(seal(&pair.ada, 1)));
    let Reply::GroupKeys(none) = pair.bob_socket.request(fetch).await.unwrap() else { panic!() };
    assert!(none.keys.is_empty());
    // Under the current key none is saved with a name.
    let mut second = pair.ada.named(chat_id, 2, key_id, b"the second name");
    second.info_keys.clear();
    let refused = pair.ada_socket.request(with(&second, seal(&pair.ada, 1))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Malformed);
    pair.ada_socket.request(Request::SetChatInfo(Box::new(second))).await.unwrap();
}

#[tokio::test]
async fn p5_after_a_removal_nothing_is_sealed_to_the_generation_of_before_and_another_is_asked_for() {
    let (mut pair, _halves) = pair_with_password().await;
    let (chat_id, key_id) = (pair.chat_id, InfoKeyId::generate());
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let now = view(&mut pair.ada_socket, chat_id).await;
    pair.ada.make_generation(&mut pair.ada_socket, &now, chat_id).await.unwrap();
    let named = pair.ada.named(chat_id, 1, key_id, b"a name");
    let seal = |number| pair.ada.info_key_seal(chat_id, key_id, generation(number));
    let request = SetChatInfo { seal: Some(seal(1)), ..named };
    pair.ada_socket.request(Request::SetChatInfo(Box::new(request))).await.unwrap();
    pair.ada.remove(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    for number in [1, 2] {
        let refused = pair.ada_socket.request(upload(chat_id, seal(number))).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RecipientsChanged, "{number} while one is due");
    }
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    assert_eq!(asked(&mut pair.ada_socket, key_id).await, generation(2));
    let refused = pair.ada_socket.request(upload(chat_id, seal(1))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecipientsChanged);
    pair.ada_socket.request(upload(chat_id, seal(2))).await.unwrap();
    let stored = "SELECT count(*) FROM info_key_seals WHERE generation = 2";
    assert_eq!(pair.database.count(stored).await, 1);
}

#[tokio::test]
async fn a_seal_by_a_session_that_is_gone_is_replaced_and_asked_for() {
    let (mut pair, _halves) = pair_with_password().await;
    let (chat_id, key_id) = (pair.chat_id, InfoKeyId::generate());
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let tablet = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let mut tablets = tablet.connect_live(&pair.broker).await;
    let named = pair.ada.named(chat_id, 1, key_id, b"a name");
    pair.ada_socket.request(Request::SetChatInfo(Box::new(named))).await.unwrap();
    let number = generation(1);
    assert_eq!(asked(&mut pair.ada_socket, key_id).await, number);
    tablets.request(upload(chat_id, tablet.info_key_seal(chat_id, key_id, number))).await.unwrap();
    pair.ada_socket.pushes_so_far().await;
    pair.ada.revoke(&mut pair.ada_socket, tablet.session_id).await.unwrap();
    assert_eq!(asked(&mut pair.ada_socket, key_id).await, number);
    pair.ada_socket.request(upload(chat_id, pair.ada.info_key_seal(chat_id, key_id, number))).await.unwrap();
    let of_ada = format!("SELECT count(*) FROM info_key_seals WHERE sealed_by_session_id = '{}'", pair.ada.session_id);
    assert_eq!(pair.database.count(&of_ada).await, 1);
}
