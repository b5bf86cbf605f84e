//! Ephemeral signals: judged like messages, passed on to those who are live, stored nowhere, and in nobody's way (P9).

use sealcast::protocol::binary::Blob;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{self, Cursor, Nothing, Reply, Request, Resume, ServerFrame, Signal};
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use sealcast::protocol::limits::SIGNAL_BYTES_MAX;

use super::messages::Pair;
use super::support::broker::Settings;
use super::support::chat::{SenderKey, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::eventually;

/// Sends a message under a fresh key, so that there is one for signals.
async fn begin(pair: &mut Pair) -> SenderKey {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"begin");
    submit(&mut pair.ada_socket, message).await.unwrap();
    key
}

fn id_of(key: &SenderKey) -> KeyId {
    key.announcement.announcement.key_id
}

async fn pass(socket: &mut Socket, signal: &Signal) -> Result<(), ErrorCode> {
    match socket.request(Request::Signal(signal.clone())).await {
        Ok(Reply::Done(_)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    }
}

/// Waits for a signal.
async fn heard(socket: &mut Socket) -> Signal {
    socket
        .push_that(|push| match push {
            ServerFrame::Signal(signal) => Some(signal.clone()),
            _ => None,
        })
        .await
}

/// Signals that have come so far.
async fn heard_so_far(socket: &mut Socket) -> Vec<Signal> {
    let pushes = socket.pushes_so_far().await;
    pushes
        .into_iter()
        .filter_map(|push| match push {
            ServerFrame::Signal(signal) => Some(signal),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_signal_reaches_who_is_live_as_it_was_signed_and_not_its_sender() {
    let mut pair = Pair::start().await;
    let key = begin(&mut pair).await;
    let mut sibling = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    sibling.username = "bob".to_owned();
    let mut packed = sibling.connect_with(&pair.broker, Encoding::MessagePack).await;
    packed.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    // The new session needs a copy, or no signal goes.
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = SenderKey { counter: 1, sent: true, ..key };
    let mut message = pair.ada.seal(&now, &mut key, b"with a copy");
    message.add_copies = vec![super::support::chat::copy_for(sibling.session_id)];
    let sent = submit(&mut pair.ada_socket, message).await.unwrap();
    for socket in [&mut pair.bob_socket, &mut packed, &mut pair.ada_socket] {
        socket
            .push_that(|push| match push {
                ServerFrame::Entry(push) if push.entry.seq == sent.seq => Some(()),
                ServerFrame::Page(page) if page.up_to == sent.seq => Some(()),
                _ => None,
            })
            .await;
    }
    eventually("everybody to be live", async || {
        let signal = pair.ada.signal(pair.chat_id, id_of(&key));
        pass(&mut pair.ada_socket, &signal).await.unwrap();
        heard_so_far(&mut packed).await.contains(&signal) && heard_so_far(&mut pair.bob_socket).await.contains(&signal)
    })
    .await;
    let log = pair.database.count("SELECT last_seq FROM chats").await;
    let signal = pair.ada.signal(pair.chat_id, id_of(&key));
    assert_eq!(pass(&mut pair.ada_socket, &signal).await, Ok(()));
    assert_eq!(heard(&mut pair.bob_socket).await, signal);
    assert_eq!(heard(&mut packed).await, signal, "both encodings carry the same");
    assert_eq!(heard_so_far(&mut pair.ada_socket).await, [], "not to the session that sends");
    assert_eq!(pair.database.count("SELECT last_seq FROM chats").await, log, "nothing is stored");
    assert!(pair.broker.metric("sealcast_signals_accepted_total", "").await >= 1.0);
    assert!(pair.broker.metric("sealcast_signals_delivered_total", "").await >= 2.0);
    assert_eq!(pair.broker.metric("sealcast_signals_dropped_total", "").await, 0.0);
}

#[tokio::test]
async fn a_signal_is_judged_like_a_message() {
    let mut pair = Pair::start().await;
    let key = begin(&mut pair).await;
    let (chat_id, key_id) = (pair.chat_id, id_of(&key));
    let good = pair.ada.signal(chat_id, key_id);

    let stranger = Device::register(&pair.broker, "eve").await;
    let mut stranger_socket = stranger.connect_live(&pair.broker).await;
    let strange = stranger.signal(chat_id, key_id);
    assert_eq!(pass(&mut stranger_socket, &strange).await, Err(ErrorCode::UnknownChat));
    let nowhere = stranger.signal(ChatId::generate(), key_id);
    assert_eq!(pass(&mut stranger_socket, &nowhere).await, Err(ErrorCode::UnknownChat));

    let another_name = |change: &dyn Fn(&mut Signal)| {
        let mut signal = good.clone();
        change(&mut signal);
        signal
    };
    let other_session = another_name(&|signal| signal.signal.sender_session_id = SessionId::generate());
    assert_eq!(pass(&mut pair.ada_socket, &other_session).await, Err(ErrorCode::BadSignature));
    let other_user = another_name(&|signal| signal.signal.sender_id = pair.bob.user_id);
    assert_eq!(pass(&mut pair.ada_socket, &other_user).await, Err(ErrorCode::BadSignature));
    let no_key = pair.ada.signal(chat_id, KeyId::generate());
    assert_eq!(pass(&mut pair.ada_socket, &no_key).await, Err(ErrorCode::KeyStale));
    let foreign_key = pair.bob.signal(chat_id, key_id);
    assert_eq!(pass(&mut pair.bob_socket, &foreign_key).await, Err(ErrorCode::UnknownKey));

    // A further device of Bob's lacks a copy; a message mends that, a signal never does.
    pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let refused = pair.ada_socket.request(Request::Signal(good.clone())).await.unwrap_err();
    assert_eq!((refused.code, refused.details.unwrap().missing.len()), (ErrorCode::CopiesMissing, 1));

    // A removal: the key is of another epoch at once.
    let carol = Device::register(&pair.broker, "carol").await;
    let carol_socket = &mut carol.connect_live(&pair.broker).await;
    pair.ada.add_with(&mut pair.ada_socket, chat_id, &carol, false, false).await.unwrap();
    let refused = pair.ada_socket.request(Request::Signal(good.clone())).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::KeyStale);
    assert!(refused.details.unwrap().epoch.is_some());
    let now = view(carol_socket, chat_id).await;
    let mute = carol.signal(chat_id, id_of(&carol.sender_key(&now, chat_id)));
    assert_eq!(pass(carol_socket, &mute).await, Err(ErrorCode::CannotWrite));
    pair.ada.remove(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    assert_eq!(pass(carol_socket, &mute).await, Err(ErrorCode::UnknownChat));

    pair.bob_socket.pushes_so_far().await;
    let fresh = begin(&mut pair).await;
    let signal = pair.ada.signal(chat_id, id_of(&fresh));
    assert_eq!(pass(&mut pair.ada_socket, &signal).await, Ok(()));
    assert_eq!(heard(&mut pair.bob_socket).await, signal, "and nothing that was refused came before");
}

#[tokio::test]
async fn a_signal_of_the_limit_passes_and_one_byte_more_does_not() {
    let mut pair = Pair::start().await;
    let key = begin(&mut pair).await;
    let mut signal = pair.ada.signal(pair.chat_id, id_of(&key));
    signal.signal.data = Blob::from(vec![1; SIGNAL_BYTES_MAX]);
    assert_eq!(pass(&mut pair.ada_socket, &signal).await, Ok(()));
    assert_eq!(heard(&mut pair.bob_socket).await, signal);
    signal.signal.data = Blob::from(vec![1; SIGNAL_BYTES_MAX + 1]);
    let refused = pair.ada_socket.request(Request::Signal(signal)).await.unwrap_err();
    let limit = refused.details.and_then(|details| details.limit);
    assert_eq!((refused.code, limit), (ErrorCode::TooLarge, Some(SIGNAL_BYTES_MAX as u64)));
    let good = pair.ada.signal(pair.chat_id, id_of(&key));
    assert_eq!(pass(&mut pair.ada_socket, &good).await, Ok(()));
    assert_eq!(heard(&mut pair.bob_socket).await, good);
}

#[tokio::test]
async fn signals_have_a_rate_of_their_own() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.signals_per_s", 1).with("limits.signals_burst", 3);
    let mut pair = Pair::start_on(database, settings).await;
    let key = begin(&mut pair).await;
    let signal = || pair.ada.signal(pair.chat_id, id_of(&key));
    let (mut passed, mut refused): (u32, Option<frame::Error>) = (0, None);
    while refused.is_none() {
        match pair.ada_socket.request(Request::Signal(signal())).await {
            Ok(_) => passed += 1,
            Err(error) => refused = Some(error),
        }
        assert!(passed < 1_000, "a rate of one a second lets a burst of three pass");
    }
    assert!(passed >= 3, "{passed}");
    let refused = refused.unwrap();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.details.unwrap().retry_after_ms.is_some_and(|wait| (1..=1_000).contains(&wait)));
    assert!(pair.ada_socket.request(Request::Ping(Nothing {})).await.is_ok(), "other requests are not held up");
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "nor are messages").await.is_ok());
    // Another session has its own.
    let theirs = view(&mut pair.bob_socket, pair.chat_id).await;
    let mut bobs_key = pair.bob.sender_key(&theirs, pair.chat_id);
    let message = pair.bob.seal(&theirs, &mut bobs_key, b"mine");
    submit(&mut pair.bob_socket, message).await.unwrap();
    let signal = pair.bob.signal(pair.chat_id, id_of(&bobs_key));
    assert_eq!(pass(&mut pair.bob_socket, &signal).await, Ok(()));
}

#[tokio::test]
async fn a_flood_of_signals_that_heeds_nothing_is_ended() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("limits.signals_per_s", 1)
        .with("limits.signals_burst", 1)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000);
    let mut pair = Pair::start_on(database, settings).await;
    let signal = pair.ada.signal(pair.chat_id, KeyId::generate());
    for _ in 0..1_200 {
        pair.ada_socket.send(Request::Signal(signal.clone())).await;
    }
    assert_eq!(pair.ada_socket.close_code().await, Some(CloseCode::PolicyViolation.number()));
}

#[tokio::test]
async fn a_signal_that_nobody_hears_loads_no_chat() {
    let database = Database::create().await;
    let settings = Settings::on(&database);
    let mut pair = Pair::start_on(database, settings).await;
    let key = begin(&mut pair).await;
    pair.broker.kill_and_restart().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eve_socket = eve.connect_live(&pair.broker).await;
    assert_eq!(pass(&mut eve_socket, &eve.signal(pair.chat_id, id_of(&key))).await, Err(ErrorCode::UnknownChat));
    let mut ada_socket = pair.ada.connect_live(&pair.broker).await;
    let seq = view(&mut ada_socket, pair.chat_id).await.seen.seq;
    let signal = pair.ada.signal(pair.chat_id, id_of(&key));
    assert_eq!(pass(&mut ada_socket, &signal).await, Ok(()));
    assert_eq!(pair.broker.metric("sealcast_chats_loaded", "").await, 0.0);
    // Bob is live in the chat, which is loaded for him alone.
    let mut bob_socket = pair.bob.connect(&pair.broker).await;
    let cursor = Cursor { chat_id: pair.chat_id, seq };
    bob_socket.request(Request::Resume(Resume { cursors: vec![cursor] })).await.unwrap();
    assert_eq!(pair.broker.metric("sealcast_chats_loaded", "").await, 0.0, "connecting loads no chat");
    let signal = pair.ada.signal(pair.chat_id, id_of(&key));
    assert_eq!(pass(&mut ada_socket, &signal).await, Ok(()));
    assert_eq!(heard(&mut bob_socket).await, signal);
}

#[tokio::test]
async fn p9_who_does_not_read_stops_no_signals_and_is_not_cut_over_by_them() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("limits.signals_per_s", 100_000)
        .with("limits.signals_burst", 100_000)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000)
        .with("limits.outbox_frames_max", 64);
    let mut pair = Pair::start_on(database, settings).await;
    let carol = Device::register(&pair.broker, "carol").await;
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    let key = begin(&mut pair).await;
    heard_so_far(&mut pair.bob_socket).await;
    let lagged = pair.broker.metric("sealcast_connections_lagged_total", "").await;
    // Bob reads nothing from here on; Carol beside him hears all the same, long after his outbox has no room.
    let mut rounds = 0;
    while pair.broker.metric("sealcast_signals_dropped_total", "").await < 100.0 {
        rounds += 1;
        assert!(rounds < 2_000, "a reader that stopped must fill its outbox");
        for _ in 0..50 {
            let mut signal = pair.ada.signal(pair.chat_id, id_of(&key));
            signal.signal.data = Blob::from(vec![1; SIGNAL_BYTES_MAX]);
            pass(&mut pair.ada_socket, &signal).await.unwrap();
            assert_eq!(heard(&mut carol_socket).await, signal);
        }
    }
    assert_eq!(pair.broker.metric("sealcast_connections_lagged_total", "").await, lagged, "nobody lags for signals");
    // There is room for what counts: Bob is live still, and gets the message as it comes.
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = SenderKey { counter: 1, sent: true, ..key };
    let message = pair.ada.seal(&now, &mut key, b"counts");
    let sent = submit(&mut pair.ada_socket, message).await.unwrap();
    let (mut signals, mut pages) = (0, 0);
    pair.bob_socket
        .push_that(|push| {
            match push {
                ServerFrame::Signal(_) => signals += 1,
                // One of before may still have been on its way.
                ServerFrame::Page(page) if page.up_to >= sent.seq => {
                    pages += 1;
                    return Some(());
                }
                ServerFrame::Entry(push) if push.entry.seq == sent.seq => return Some(()),
                _ => {}
            }
            None
        })
        .await;
    assert!(signals > 0);
    assert_eq!(pages, 0, "it was never sent to the store");
    assert_eq!(pair.broker.metric("sealcast_connections_lagged_total", "").await, lagged);
}

#[cfg(feature = "client")]
mod with_the_library {
    use super::super::support::broker::Broker;
    use sealcast::client::{ClientError, Event, EventStream, Signal};
    use sealcast::protocol::ids::{ChatId, SessionId, UserId};

    use super::super::support::library::{caught_up, event_that, link, register};
    use super::*;

    async fn next_signal(events: &mut EventStream) -> (ChatId, UserId, SessionId, Signal) {
        event_that("a signal", events, |event| match event {
            Event::Signal { chat_id, user_id, session_id, signal } => Some((*chat_id, *user_id, *session_id, *signal)),
            Event::Alarm(alarm) => panic!("{alarm:?}"),
            _ => None,
        })
        .await
    }

    #[tokio::test]
    async fn what_people_tell_of_this_moment_is_read_by_the_others_and_by_nobody_else() {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let (ada, bob) = (register(&broker.public, "ada").await, register(&broker.public, "bob").await);
        let mut events = bob.events();
        let chat = ada.create_chat("Lunch").await.unwrap();
        ada.add_member(chat, "bob", true, false).await.unwrap();
        assert!(!ada.signal(chat, Signal::Typing).await.unwrap(), "there is no key yet, and none is made for a signal");
        assert_eq!(database.count("SELECT count(*) FROM sender_keys").await, 0);
        let sent = ada.send(chat, "hello").await.unwrap();
        caught_up(&bob, chat, sent.seq).await;
        let expected = |signal| (chat, ada.user_id(), ada.session_id(), signal);
        for signal in [Signal::Typing, Signal::StoppedTyping, Signal::Here, Signal::Away] {
            assert!(ada.signal(chat, signal).await.unwrap());
            assert_eq!(next_signal(&mut events).await, expected(signal));
        }
        // A new device of Bob's: signals rest until a message has brought it a copy, and then it hears too.
        let tablet = link(&bob, &broker.public).await;
        let mut on_tablet = tablet.events();
        eventually("the new session in the log", async || {
            let members = ada.members(chat).await.unwrap();
            members.iter().any(|member| member.sessions.contains(&tablet.session_id()))
        })
        .await;
        assert!(!ada.signal(chat, Signal::Typing).await.unwrap());
        let sent = ada.send(chat, "to all of you").await.unwrap();
        for client in [&bob, &tablet, &ada] {
            caught_up(client, chat, sent.seq).await;
        }
        assert!(ada.signal(chat, Signal::Here).await.unwrap());
        assert_eq!(next_signal(&mut events).await, expected(Signal::Here));
        assert_eq!(next_signal(&mut on_tablet).await, expected(Signal::Here));
        // Who was removed may tell nothing, and is told nothing.
        ada.remove_member(chat, "bob").await.unwrap();
        eventually("the removal to be known", async || {
            matches!(bob.signal(chat, Signal::Away).await, Err(ClientError::UnknownChat))
        })
        .await;
        assert_eq!((ada.stats().alarms, bob.stats().alarms, tablet.stats().alarms), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_a_dishonest_server_repeats_or_makes_up_is_not_heard() {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let (ada, bob) = (register(&broker.public, "ada").await, register(&broker.public, "bob").await);
        let mut events = bob.events();
        let chat = ada.create_chat("Lunch").await.unwrap();
        ada.add_member(chat, "bob", true, false).await.unwrap();
        // A third who speaks the bare protocol: what it sends is signed, and is not encrypted under its key.
        let eve = Device::register(&broker, "eve").await;
        ada.add_member(chat, "eve", true, false).await.unwrap();
        let mut eve_socket = eve.connect_live(&broker).await;
        let now = view(&mut eve_socket, chat).await;
        let mut key = eve.sender_key(&now, chat);
        let message = eve.seal(&now, &mut key, b"not a ciphertext");
        submit(&mut eve_socket, message).await.unwrap();
        pass(&mut eve_socket, &eve.signal(chat, id_of(&key))).await.unwrap();
        let sent = ada.send(chat, "hello").await.unwrap();
        caught_up(&bob, chat, sent.seq).await;
        assert!(ada.signal(chat, Signal::Here).await.unwrap());
        let first = event_that("a signal", &mut events, |event| match event {
            Event::Signal { session_id, .. } => Some(*session_id),
            _ => None,
        })
        .await;
        assert_eq!(first, ada.session_id(), "of the other nothing was heard");
    }
}
