//! How far each session has come: the server's word, told to the members alone.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    AdvanceCursor, Cursor, Delivered, Deliveries, Delivery, ListDeliveries, Reply, Request, Resume, ServerFrame,
};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::limits::DELIVERED_RECIPIENTS_MAX;

use super::messages::Pair;
use super::support::broker::Settings;
use super::support::chat::view;
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::eventually;

async fn advance(socket: &mut Socket, chat_id: ChatId, seq: u64) {
    let cursor = AdvanceCursor { chat_id, seq: Seq::saturating(seq) };
    assert!(matches!(socket.request(Request::AdvanceCursor(cursor)).await, Ok(Reply::Done(_))));
}

async fn list(socket: &mut Socket, chat_id: ChatId) -> Result<Vec<Delivery>, ErrorCode> {
    match socket.request(Request::ListDeliveries(ListDeliveries { chat_id })).await {
        Ok(Reply::Deliveries(Deliveries { deliveries })) => Ok(deliveries),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    }
}

fn of(device: &Device, seq: u64) -> Delivery {
    Delivery { session_id: device.session_id, user_id: device.user_id, seq: Seq::saturating(seq) }
}

fn sorted<const N: usize>(mut deliveries: [Delivery; N]) -> [Delivery; N] {
    deliveries.sort_by_key(|delivery| delivery.session_id);
    deliveries
}

async fn told(socket: &mut Socket) -> Delivered {
    socket
        .push_that(|push| match push {
            ServerFrame::Delivered(delivered) => Some(*delivered),
            _ => None,
        })
        .await
}

async fn told_so_far(socket: &mut Socket) -> Vec<Delivered> {
    let pushes = socket.pushes_so_far().await;
    let told = |push| match push {
        ServerFrame::Delivered(delivered) => Some(delivered),
        _ => None,
    };
    pushes.into_iter().filter_map(told).collect()
}

#[tokio::test]
async fn a_cursor_that_moves_is_told_to_the_others_once_and_newest() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    view(&mut pair.bob_socket, chat_id).await;
    eventually("both to be live", async || {
        advance(&mut pair.ada_socket, chat_id, 1).await;
        advance(&mut pair.bob_socket, chat_id, 1).await;
        !told_so_far(&mut pair.ada_socket).await.is_empty() && !told_so_far(&mut pair.bob_socket).await.is_empty()
    })
    .await;
    // Several within one gathering are one word; what does not move is none.
    for seq in [2, 3, 4, 4, 1] {
        advance(&mut pair.bob_socket, chat_id, seq).await;
    }
    let mut word = told(&mut pair.ada_socket).await;
    while word.delivery.seq < Seq::saturating(4) {
        // On a slow machine the five may span two gatherings; they still grow.
        let next = told(&mut pair.ada_socket).await;
        assert!(next.delivery.seq > word.delivery.seq);
        word = next;
    }
    assert_eq!(word, Delivered { chat_id, delivery: of(&pair.bob, 4) });
    // The next word that Ada hears is of the next move, so nothing came twice; Bob heard nothing of himself.
    pair.ada.say(&mut pair.ada_socket, chat_id, "five").await.unwrap();
    advance(&mut pair.bob_socket, chat_id, 5).await;
    assert_eq!(told(&mut pair.ada_socket).await, Delivered { chat_id, delivery: of(&pair.bob, 5) });
    assert_eq!(told_so_far(&mut pair.bob_socket).await, []);
    assert!(pair.broker.metric("sealcast_deliveries_told_total", "").await >= 3.0);
}

#[tokio::test]
async fn the_list_names_every_recipient_and_nobody_else_and_is_for_members_alone() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    advance(&mut pair.ada_socket, chat_id, 3).await;
    let expected = sorted([of(&pair.ada, 3), of(&pair.bob, 0)]);
    assert_eq!(list(&mut pair.bob_socket, chat_id).await.unwrap(), expected);
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eve_socket = eve.connect_live(&pair.broker).await;
    assert_eq!(list(&mut eve_socket, chat_id).await, Err(ErrorCode::UnknownChat));
    assert_eq!(list(&mut eve_socket, ChatId::generate()).await, Err(ErrorCode::UnknownChat));

    // A session that is revoked is named no longer.
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    advance(&mut tablet_socket, chat_id, 2).await;
    let expected = sorted([of(&pair.ada, 3), of(&pair.bob, 0), of(&tablet, 2)]);
    assert_eq!(list(&mut pair.ada_socket, chat_id).await.unwrap(), expected);
    pair.bob.revoke(&mut pair.bob_socket, tablet.session_id).await.unwrap();
    let expected = sorted([of(&pair.ada, 3), of(&pair.bob, 0)]);
    assert_eq!(list(&mut pair.ada_socket, chat_id).await.unwrap(), expected);

    // Who leaves takes their cursors along, and starts from nothing on a return.
    advance(&mut pair.bob_socket, chat_id, 3).await;
    pair.ada.remove(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
    assert_eq!(list(&mut pair.ada_socket, chat_id).await.unwrap(), [of(&pair.ada, 3)]);
    assert_eq!(list(&mut pair.bob_socket, chat_id).await, Err(ErrorCode::UnknownChat));
    pair.ada.add(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
    let expected = sorted([of(&pair.ada, 3), of(&pair.bob, 0)]);
    assert_eq!(list(&mut pair.ada_socket, chat_id).await.unwrap(), expected);
}

#[tokio::test]
async fn nothing_is_told_of_or_to_who_was_removed() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let carol = Device::register(&pair.broker, "carol").await;
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    eventually("all to be live", async || {
        let seq = view(&mut pair.ada_socket, chat_id).await.seen.seq.get() + 1;
        pair.ada.say(&mut pair.ada_socket, chat_id, "more").await.unwrap();
        advance(&mut pair.ada_socket, chat_id, seq).await;
        !told_so_far(&mut carol_socket).await.is_empty() && !told_so_far(&mut pair.bob_socket).await.is_empty()
    })
    .await;
    // The removal comes between the word and its telling.
    advance(&mut carol_socket, chat_id, 3).await;
    pair.ada.remove(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    advance(&mut pair.bob_socket, chat_id, 2).await;
    while told(&mut pair.ada_socket).await.delivery != of(&pair.bob, 2) {}
    carol_socket.pushes_so_far().await;
    advance(&mut pair.bob_socket, chat_id, 3).await;
    assert_eq!(told(&mut pair.ada_socket).await, Delivered { chat_id, delivery: of(&pair.bob, 3) });
    assert_eq!(told_so_far(&mut carol_socket).await, []);
}

#[tokio::test]
async fn who_comes_back_to_an_idle_chat_is_told_of_to_who_is_there() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("chat.idle_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    let sent = pair.ada.say(&mut pair.ada_socket, chat_id, "while you were away").await.unwrap();
    pair.ada_socket
        .push_that(|push| match push {
            ServerFrame::Entry(push) if push.entry.seq == sent.seq => Some(()),
            ServerFrame::Page(page) if page.up_to == sent.seq => Some(()),
            _ => None,
        })
        .await;
    eventually("the chat to be idle", async || pair.broker.metric("sealcast_chats_loaded", "").await == 0.0).await;
    let mut bob_socket = pair.bob.connect(&pair.broker).await;
    let cursor = Cursor { chat_id, seq: sent.seq };
    bob_socket.request(Request::Resume(Resume { cursors: vec![cursor] })).await.unwrap();
    assert_eq!(pair.broker.metric("sealcast_chats_loaded", "").await, 0.0, "connecting loads no chat");
    advance(&mut bob_socket, chat_id, sent.seq.get()).await;
    assert_eq!(told(&mut pair.ada_socket).await, Delivered { chat_id, delivery: of(&pair.bob, sent.seq.get()) });
}

#[tokio::test]
async fn in_a_chat_above_the_limit_nobody_is_told_and_the_list_still_says() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let mut others = Vec::new();
    for index in 2..DELIVERED_RECIPIENTS_MAX {
        let device = Device::register(&pair.broker, &format!("user{index}")).await;
        pair.ada.add(&mut pair.ada_socket, chat_id, &device).await.unwrap();
        others.push(device);
    }
    assert_eq!(list(&mut pair.ada_socket, chat_id).await.unwrap().len(), DELIVERED_RECIPIENTS_MAX);
    eventually("a word in a chat of the limit", async || {
        let seq = view(&mut pair.ada_socket, chat_id).await.seen.seq.get() + 1;
        pair.ada.say(&mut pair.ada_socket, chat_id, "more").await.unwrap();
        advance(&mut pair.bob_socket, chat_id, seq).await;
        !told_so_far(&mut pair.ada_socket).await.is_empty()
    })
    .await;
    let one_more = Device::register(&pair.broker, "onemore").await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &one_more).await.unwrap();
    let small = pair.ada.create_chat(&mut pair.ada_socket).await;
    pair.ada.add(&mut pair.ada_socket, small, &pair.bob).await.unwrap();
    eventually("a word in a small chat", async || {
        let seq = pair.ada.say(&mut pair.ada_socket, small, "more").await.unwrap().seq.get();
        advance(&mut pair.bob_socket, small, seq).await;
        told_so_far(&mut pair.ada_socket).await.iter().any(|told| told.chat_id == small)
    })
    .await;
    let above = view(&mut pair.ada_socket, chat_id).await.seen.seq.get();
    advance(&mut pair.bob_socket, chat_id, above).await;
    // A word of the small chat that gathers later comes, and none of the large one has come before it.
    let later = pair.ada.say(&mut pair.ada_socket, small, "later").await.unwrap().seq;
    advance(&mut pair.bob_socket, small, later.get()).await;
    pair.ada_socket
        .push_that(|push| match push {
            ServerFrame::Delivered(told) => {
                assert!(told.chat_id == small || told.delivery.seq.get() < above, "{told:?}");
                (told.chat_id == small && told.delivery.seq == later).then_some(())
            }
            _ => None,
        })
        .await;
    // Back at the limit words come again.
    pair.ada.remove(&mut pair.ada_socket, chat_id, &one_more).await.unwrap();
    let seq = view(&mut pair.ada_socket, chat_id).await.seen.seq.get();
    advance(&mut pair.bob_socket, chat_id, seq).await;
    let word = pair
        .ada_socket
        .push_that(|push| match push {
            ServerFrame::Delivered(told) if told.chat_id == chat_id && told.delivery.seq.get() >= above => {
                Some(told.delivery.seq.get())
            }
            _ => None,
        })
        .await;
    assert_eq!(word, seq);
    let listed = list(&mut pair.ada_socket, chat_id).await.unwrap();
    assert!(listed.contains(&of(&pair.bob, seq)));
}

#[cfg(feature = "client")]
mod with_the_library {
    use sealcast::client::Event;

    use super::super::support::broker::Broker;
    use super::super::support::library::{event_that, link, register};
    use super::*;

    #[tokio::test]
    async fn a_sender_learns_up_to_where_all_devices_of_a_friend_have_come() {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let (ada, bob) = (register(&broker.public, "ada").await, register(&broker.public, "bob").await);
        let mut events = ada.events();
        let chat = ada.create_chat("Lunch").await.unwrap();
        ada.add_member(chat, "bob", true, false).await.unwrap();
        let tablet = link(&bob, &broker.public).await;
        let sent = ada.send(chat, "hello").await.unwrap();
        let (mut phone_has, mut tablet_has) = (false, false);
        event_that("both devices to have it", &mut events, |event| {
            if let Event::Delivered { chat_id, user_id, session_id, seq } = event {
                assert_eq!((*chat_id, *user_id), (chat, bob.user_id()));
                phone_has |= *session_id == bob.session_id() && *seq >= sent.seq;
                tablet_has |= *session_id == tablet.session_id() && *seq >= sent.seq;
            }
            (phone_has && tablet_has).then_some(())
        })
        .await;
        let deliveries = ada.deliveries(chat).await.unwrap();
        assert_eq!(deliveries.of_user(bob.user_id()), Some(sent.seq));
        assert_eq!(deliveries.of_user(sealcast::protocol::ids::UserId::generate()), None);
        // One of the two is away: what it lacks is not delivered to all.
        tablet.close().await.unwrap();
        let sent_later = ada.send(chat, "later").await.unwrap();
        event_that("one device to have it", &mut events, |event| match event {
            Event::Delivered { session_id, seq, .. } if *session_id == bob.session_id() && *seq >= sent_later.seq => {
                Some(())
            }
            _ => None,
        })
        .await;
        let deliveries = ada.deliveries(chat).await.unwrap();
        assert!(deliveries.of_user(bob.user_id()) < Some(sent_later.seq));
        let of_phone = deliveries.deliveries.iter().find(|delivery| delivery.session_id == bob.session_id()).unwrap();
        assert_eq!(of_phone.seq, sent_later.seq);
    }
}
