//! Links between generations: who may bring them, between which, and who is given them.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{FetchLinks, Links, Reply, Request, UploadLinks};
use sealcast::protocol::generation_link::GenerationLink;
use sealcast::protocol::ids::{ChatId, GenerationNo};
use sealcast::protocol::limits::LINKS_PER_REQUEST_MAX;
use sealcast::protocol::membership::HistoryPolicy;

use super::super::codes::contents;
use super::super::messages::Pair;
use super::super::support::chat::view;
use super::super::support::device::{Device, Socket};
use super::super::support::generations::NO_SIGNATURE;
use super::pair_with_password;

fn upload(chat_id: ChatId, links: Vec<GenerationLink>) -> Request {
    Request::UploadLinks(UploadLinks { chat_id, links })
}

async fn links(socket: &mut Socket, chat_id: ChatId, after: u64) -> Links {
    let request = Request::FetchLinks(FetchLinks { chat_id, after: GenerationNo::saturating(after) });
    let Reply::Links(found) = socket.request(request).await.unwrap() else { panic!() };
    found
}

/// The generation that is due, made by bob.
async fn generation(pair: &mut Pair) {
    let now = view(&mut pair.bob_socket, pair.chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, pair.chat_id).await.unwrap();
}

async fn policy(pair: &mut Pair, policy: HistoryPolicy) {
    // As if each were on a day of its own: the log itself says the same as before.
    pair.database.client().await.batch_execute("UPDATE chat_events SET change = NULL").await.unwrap();
    pair.ada.set_history(&mut pair.ada_socket, pair.chat_id, policy).await.unwrap();
}

/// Makes the current generation be followed by another one.
async fn next(pair: &mut Pair, number: u64) {
    let refusal = pair.ada.generation_refusal(pair.chat_id, GenerationNo::saturating(number));
    pair.ada_socket.request(Request::RefuseGeneration(refusal)).await.unwrap();
    generation(pair).await;
}

#[tokio::test]
async fn p10_links_are_taken_within_one_shared_stretch_alone_once_and_from_members() {
    let (mut pair, _halves) = pair_with_password().await;
    let chat_id = pair.chat_id;
    generation(&mut pair).await;
    next(&mut pair, 1).await;
    let link = |device: &Device, number| vec![device.generation_link(chat_id, number)];
    // Nothing is shared: generations 1 and 2.
    let refused = pair.bob_socket.request(upload(chat_id, link(&pair.bob, 2))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::HistoryNotAllowed);
    policy(&mut pair, HistoryPolicy::Shared).await;
    next(&mut pair, 2).await;
    next(&mut pair, 3).await;
    let unsigned = GenerationLink { signature: NO_SIGNATURE, ..pair.bob.generation_link(chat_id, 4) };
    let twice = [link(&pair.bob, 4), link(&pair.bob, 4)].concat();
    let many = (0..=LINKS_PER_REQUEST_MAX).map(|_| pair.bob.generation_link(chat_id, 4)).collect();
    for (what, bad, code) in [
        ("from before it was shared", link(&pair.bob, 3), ErrorCode::HistoryNotAllowed),
        ("both from before", link(&pair.bob, 2), ErrorCode::HistoryNotAllowed),
        ("the first", link(&pair.bob, 1), ErrorCode::HistoryNotAllowed),
        ("none", link(&pair.bob, 0), ErrorCode::HistoryNotAllowed),
        ("one that is not there", link(&pair.bob, 5), ErrorCode::HistoryNotAllowed),
        ("with a good one", [link(&pair.bob, 4), link(&pair.bob, 3)].concat(), ErrorCode::HistoryNotAllowed),
        ("another's", link(&pair.ada, 4), ErrorCode::BadSignature),
        ("unsigned", vec![unsigned], ErrorCode::BadSignature),
        ("two of one", twice, ErrorCode::Malformed),
        ("too many", many, ErrorCode::TooLarge),
    ] {
        let before = contents(&pair.database).await;
        let refused = pair.bob_socket.request(upload(chat_id, bad)).await.unwrap_err();
        assert_eq!(refused.code, code, "{what}");
        assert_eq!(contents(&pair.database).await, before, "{what}");
    }
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eves = eve.connect_live(&pair.broker).await;
    assert_eq!(eves.request(upload(chat_id, link(&eve, 4))).await.unwrap_err().code, ErrorCode::UnknownChat);
    let fetch = Request::FetchLinks(FetchLinks { chat_id, after: GenerationNo::default() });
    assert_eq!(eves.request(fetch.clone()).await.unwrap_err().code, ErrorCode::UnknownChat);

    let good = link(&pair.bob, 4);
    pair.bob_socket.request(upload(chat_id, good.clone())).await.unwrap();
    let before = contents(&pair.database).await;
    for (device, socket) in [(&pair.bob, &mut pair.bob_socket), (&pair.ada, &mut pair.ada_socket)] {
        socket.request(upload(chat_id, link(device, 4))).await.unwrap();
    }
    assert_eq!(contents(&pair.database).await, before, "the first one stays");
    assert_eq!(links(&mut pair.ada_socket, chat_id, 0).await, Links { links: good.clone(), more: false });
    assert!(links(&mut pair.ada_socket, chat_id, 4).await.links.is_empty());

    // Eve comes while it is shared, and may read from there on.
    pair.ada.add(&mut pair.ada_socket, chat_id, &eve).await.unwrap();
    assert_eq!(links(&mut eves, chat_id, 0).await.links, good);
    // Who comes when it is not shared any more is shown none of before, and none is made to what was.
    policy(&mut pair, HistoryPolicy::FromJoin).await;
    let frank = Device::register(&pair.broker, "frank").await;
    let mut franks = frank.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &frank).await.unwrap();
    generation(&mut pair).await;
    assert!(links(&mut franks, chat_id, 0).await.links.is_empty());
    let refused = franks.request(upload(chat_id, link(&frank, 5))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::HistoryNotAllowed);
    // Not when it is shared again either: a time of its own lies between.
    policy(&mut pair, HistoryPolicy::Shared).await;
    next(&mut pair, 5).await;
    for number in [4, 5, 6] {
        let refused = pair.bob_socket.request(upload(chat_id, link(&pair.bob, number))).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::HistoryNotAllowed, "{number}");
    }
    // Who was removed is answered as a stranger.
    pair.ada.remove(&mut pair.ada_socket, chat_id, &eve).await.unwrap();
    assert_eq!(eves.request(fetch).await.unwrap_err().code, ErrorCode::UnknownChat);
}
