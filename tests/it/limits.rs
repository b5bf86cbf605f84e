//! Every limit that a client can run into: at the limit accepted, one above refused by name, and then a good request.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use sealcast::protocol::account::LINKS_PATH;
use sealcast::protocol::binary::Blob;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{
    self, AdvanceCursor, ChangeMembership, Cursor, Direction, History, Keys, Nothing, Reply, Request, Resume, Send,
    ServerFrame, StageCopies,
};
use sealcast::protocol::ids::{AttachmentId, ChatId, InfoKeyId, KeyId, Seq, SessionId};
use sealcast::protocol::keys::{SealedName, staged_hash};
use sealcast::protocol::limits::{
    ATTACHMENTS_MAX, COPIES_PER_FRAME_MAX, CURSORS_MAX, DATA_BYTES_MAX, FRAME_BYTES_MAX, HANDOVER_BYTES_MAX,
    HTTP_BODY_BYTES_MAX, INFO_KEY_WRAPS_MAX, KEYS_PER_REQUEST_MAX, NAME_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ENTRIES_MAX,
    STAGED_PARTS_MAX, USERNAME_LENGTH_MAX, USERNAME_LENGTH_MIN,
};
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::membership::Change;
use tokio_tungstenite::tungstenite::Message;

use super::codes::info_key_wrap;
use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{copy_for, history, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::link::sessions;
use super::support::{eventually, within};

/// The limit that a refusal names.
fn limit(error: &frame::Error) -> (ErrorCode, Option<u64>) {
    (error.code, error.details.as_ref().and_then(|details| details.limit))
}

fn too_large(limit: usize) -> (ErrorCode, Option<u64>) {
    (ErrorCode::TooLarge, Some(limit as u64))
}

async fn good(pair: &mut Pair) {
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn a_frame_of_the_limit_is_read_and_one_byte_more_ends_the_connection() {
    let pair = Pair::start().await;
    let ping = "{\"id\":900,\"request\":{\"type\":\"ping\",\"data\":{}}}";
    let padded = |bytes: usize| Message::text(format!("{ping}{}", " ".repeat(bytes - ping.len())));
    let mut socket = pair.ada.connect(&pair.broker).await;
    socket.send_raw(padded(FRAME_BYTES_MAX)).await;
    assert!(socket.answer(frame_id(900)).await.is_ok());
    socket.send_raw(padded(FRAME_BYTES_MAX + 1)).await;
    assert_eq!(socket.close_code().await, Some(CloseCode::TooLarge.number()));

    let ping = b"\x82\xa2id\xcd\x03\x84\xa7request\x82\xa4type\xa4ping\xa4data\x81\xa3pad\xc6";
    let padded = |bytes: usize| {
        let pad = bytes - ping.len() - 4;
        Message::binary([ping.as_slice(), &(pad as u32).to_be_bytes(), &vec![0; pad]].concat())
    };
    let mut socket = pair.ada.connect_with(&pair.broker, Encoding::MessagePack).await;
    socket.send_raw(padded(FRAME_BYTES_MAX)).await;
    assert!(socket.answer(frame_id(900)).await.is_ok());
    socket.send_raw(padded(FRAME_BYTES_MAX + 1)).await;
    assert_eq!(socket.close_code().await, Some(CloseCode::TooLarge.number()));
    let mut socket = pair.ada.connect(&pair.broker).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
}

fn frame_id(id: u64) -> sealcast::protocol::ids::RequestId {
    sealcast::protocol::ids::RequestId::saturating(id)
}

#[tokio::test]
async fn sizes_of_messages_and_copies() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let whole = pair.ada.seal(&now, &mut key, &vec![1; DATA_BYTES_MAX]);
    submit(&mut pair.ada_socket, whole).await.unwrap();
    let mut spare = key.clone();
    let over = pair.ada.seal(&now, &mut spare, &vec![1; DATA_BYTES_MAX + 1]);
    let error = submit(&mut pair.ada_socket, over).await.unwrap_err();
    assert_eq!(limit(&error), too_large(DATA_BYTES_MAX));

    for (count, expected) in [
        // No attachment can be named yet: at the limit it is another refusal.
        (ATTACHMENTS_MAX, (ErrorCode::Malformed, None)),
        (ATTACHMENTS_MAX + 1, too_large(ATTACHMENTS_MAX)),
    ] {
        let mut spare = key.clone();
        let mut message = pair.ada.seal(&now, &mut spare, b"attached");
        message.envelope.attachments = (0..count).map(|_| AttachmentId::generate()).collect();
        pair.ada.sign_envelope(&mut message);
        assert_eq!(limit(&submit(&mut pair.ada_socket, message).await.unwrap_err()), expected);
    }

    // In a chat this small a full list is of others: what counts is which refusal it is.
    let strangers = |count: usize| (0..count).map(|_| copy_for(SessionId::generate())).collect::<Vec<_>>();
    for (count, code) in
        [(COPIES_PER_FRAME_MAX, ErrorCode::RecipientsChanged), (COPIES_PER_FRAME_MAX + 1, ErrorCode::TooLarge)]
    {
        let mut fresh = pair.ada.sender_key(&now, pair.chat_id);
        fresh.copies = strangers(count);
        let message = pair.ada.seal(&now, &mut fresh, b"in the new key");
        assert_eq!(submit(&mut pair.ada_socket, message).await.unwrap_err().code, code, "{count}");
        let mut spare = key.clone();
        let mut message = pair.ada.seal(&now, &mut spare, b"added");
        message.add_copies = strangers(count);
        assert_eq!(submit(&mut pair.ada_socket, message).await.unwrap_err().code, code, "{count}");
        let mut fresh = pair.ada.sender_key(&now, pair.chat_id);
        fresh.copies = strangers(count - 100);
        let mut message = pair.ada.seal(&now, &mut fresh, b"in both");
        message.add_copies = strangers(100);
        let error = submit(&mut pair.ada_socket, message).await.unwrap_err();
        assert_eq!(error.code, code, "{count}");
        if code == ErrorCode::TooLarge {
            assert_eq!(limit(&error), too_large(COPIES_PER_FRAME_MAX));
        }
    }
    let message = pair.ada.seal(&now, &mut key, b"good");
    assert_eq!(submit(&mut pair.ada_socket, message).await.unwrap().seq, now.seen.seq.next().next());
}

#[tokio::test]
async fn parts_of_a_staged_list() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let key_id = KeyId::generate();
    let chat_id = pair.chat_id;
    let part = |part, parts, copies: usize| {
        let copies = (0..copies).map(|_| copy_for(SessionId::generate())).collect();
        Request::StageCopies(StageCopies { chat_id, key_id, part, parts, copies })
    };
    let recipients = now.fold.recipients().len();
    let socket = &mut pair.ada_socket;
    socket.request(part(STAGED_PARTS_MAX - 1, STAGED_PARTS_MAX, COPIES_PER_FRAME_MAX)).await.unwrap();
    socket.request(part(0, STAGED_PARTS_MAX, recipients)).await.unwrap();
    let error = socket.request(part(1, STAGED_PARTS_MAX, 1)).await.unwrap_err();
    assert_eq!(limit(&error), too_large(recipients + COPIES_PER_FRAME_MAX));
    let error = socket.request(part(0, STAGED_PARTS_MAX + 1, 1)).await.unwrap_err();
    assert_eq!(limit(&error), too_large(STAGED_PARTS_MAX as usize));
    let error = socket.request(part(0, 1, COPIES_PER_FRAME_MAX + 1)).await.unwrap_err();
    assert_eq!(limit(&error), too_large(COPIES_PER_FRAME_MAX));
    assert_eq!(socket.request(part(2, 2, 1)).await.unwrap_err().code, ErrorCode::Malformed);

    // Sixty-four parts make a list, though most are empty.
    let mut key = pair.ada.sender_key(&now, chat_id);
    let copies = std::mem::take(&mut key.copies);
    let key_id = key.announcement.announcement.key_id;
    for part in 0..STAGED_PARTS_MAX {
        let copies = copies.get(part as usize).cloned().into_iter().collect();
        let part = StageCopies { chat_id, key_id, part, parts: STAGED_PARTS_MAX, copies };
        pair.ada_socket.request(Request::StageCopies(part)).await.unwrap();
    }
    let mut message = pair.ada.seal(&now, &mut key, b"ahead");
    message.new_key.as_mut().unwrap().staged = Some(staged_hash(copies.iter()));
    submit(&mut pair.ada_socket, message).await.unwrap();
}

#[tokio::test]
async fn cursors_keys_and_pages() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let cursors = |count: usize| {
        let mut cursors: Vec<Cursor> =
            (1..count).map(|_| Cursor { chat_id: ChatId::generate(), seq: Seq::default() }).collect();
        cursors.push(Cursor { chat_id, seq: Seq::saturating(1) });
        Request::Resume(Resume { cursors })
    };
    assert!(pair.ada_socket.request(cursors(CURSORS_MAX)).await.is_ok());
    let error = pair.ada_socket.request(cursors(CURSORS_MAX + 1)).await.unwrap_err();
    assert_eq!(limit(&error), too_large(CURSORS_MAX));
    let keys = |count: usize| Request::Keys(Keys { chat_id, key_ids: (0..count).map(|_| KeyId::generate()).collect() });
    assert!(matches!(pair.ada_socket.request(keys(KEYS_PER_REQUEST_MAX)).await, Ok(Reply::Keys(_))));
    let error = pair.ada_socket.request(keys(KEYS_PER_REQUEST_MAX + 1)).await.unwrap_err();
    assert_eq!(limit(&error), too_large(KEYS_PER_REQUEST_MAX));

    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let mut open = Vec::new();
    for index in 0..220 {
        // The first nine fill a page by their bytes.
        let size = if index < 9 { DATA_BYTES_MAX } else { 10 };
        let message = pair.ada.seal(&now, &mut key, &vec![0; size]);
        open.push(pair.ada_socket.send(Request::Send(Box::new(message))).await);
    }
    for id in open {
        pair.ada_socket.answer(id).await.unwrap();
    }
    let socket = &mut pair.ada_socket;
    let first = now.seen.seq;
    let page = history(socket, chat_id, Direction::After, first, 200).await.unwrap();
    assert_eq!(page.entries.len(), PAGE_BYTES_MAX / DATA_BYTES_MAX, "a page ends when its bytes are full");
    assert!(page.more && page.up_to == page.entries.last().unwrap().seq);
    let after = Seq::saturating(first.get() + 9);
    for asked in [PAGE_ENTRIES_MAX, PAGE_ENTRIES_MAX + 1, u32::MAX] {
        let page = history(socket, chat_id, Direction::After, after, asked).await.unwrap();
        assert_eq!(page.entries.len(), PAGE_ENTRIES_MAX as usize, "{asked}");
        assert!(page.more);
    }
    assert_eq!(history(socket, chat_id, Direction::After, after, 0).await.unwrap().entries.len(), 1);
    let end = Seq::saturating(u64::MAX);
    let page = history(socket, chat_id, Direction::Before, end, PAGE_ENTRIES_MAX).await.unwrap();
    assert_eq!(page.entries.len(), PAGE_ENTRIES_MAX as usize);
    let back = history(socket, chat_id, Direction::Before, Seq::saturating(first.get() + 10), 200).await.unwrap();
    let bytes: usize = back
        .entries
        .iter()
        .map(|entry| match &entry.body {
            EntryBody::Message(envelope) => envelope.data.as_ref().unwrap().len(),
            _ => 0,
        })
        .sum();
    assert_eq!((bytes, back.more), (PAGE_BYTES_MAX, true));
    let advance = AdvanceCursor { chat_id, seq: after };
    assert!(socket.request(Request::AdvanceCursor(advance)).await.is_ok());
}

#[tokio::test]
async fn names_info_keys_and_hand_overs() {
    let mut pair = Pair::start().await;
    for (bytes, wraps, expected) in [
        (NAME_BYTES_MAX, INFO_KEY_WRAPS_MAX, None),
        (NAME_BYTES_MAX + 1, 1, Some(NAME_BYTES_MAX)),
        (1, INFO_KEY_WRAPS_MAX + 1, Some(INFO_KEY_WRAPS_MAX)),
    ] {
        let chats = pair.database.count("SELECT count(*) FROM chats").await;
        let mut creation = pair.ada.creation(ChatId::generate());
        creation.name = Some(SealedName { key_id: InfoKeyId::generate(), data: Blob::from(vec![1; bytes]) });
        let wrap = || info_key_wrap(&pair.ada, creation.chat_id, pair.ada.session_id);
        creation.info_keys = (0..wraps).map(|_| wrap()).collect();
        let result = pair.ada_socket.request(Request::CreateChat(creation)).await;
        let now = pair.database.count("SELECT count(*) FROM chats").await;
        match expected {
            None => assert!(result.is_ok() && now == chats + 1, "{result:?}"),
            Some(expected) => {
                assert_eq!(limit(&result.unwrap_err()), too_large(expected));
                assert_eq!(now, chats, "nothing is made");
            }
        }
    }
    let carol = Device::register(&pair.broker, "carol").await;
    for (wraps, expected) in [(INFO_KEY_WRAPS_MAX + 1, Some(INFO_KEY_WRAPS_MAX)), (INFO_KEY_WRAPS_MAX, None)] {
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let (roster_hash, epoch) = (now.fold.roster_hash(), now.fold.epoch());
        let add = Change::Add { can_write: true, can_manage: false, roster_hash, epoch };
        let change = pair.ada.change_from(&now, pair.chat_id, add, &carol);
        let info_keys = (0..wraps).map(|_| info_key_wrap(&pair.ada, pair.chat_id, carol.session_id)).collect();
        let request = ChangeMembership { chat_id: pair.chat_id, change, info_keys };
        let result = pair.ada_socket.request(Request::ChangeMembership(request)).await;
        match expected {
            None => assert!(result.is_ok(), "{result:?}"),
            Some(expected) => {
                assert_eq!(limit(&result.unwrap_err()), too_large(expected));
                assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, now.seen);
            }
        }
    }
    let mut pending = pair.ada.pending(&pair.broker).await;
    let chain = sessions(&mut pair.ada_socket).await;
    pending.certify_at(chain.place.next(), chain.hash);
    for (bytes, expected) in [(HANDOVER_BYTES_MAX + 1, Some(HANDOVER_BYTES_MAX)), (HANDOVER_BYTES_MAX, None)] {
        let mut approval = pending.approval();
        approval.handover = Blob::from(vec![1; bytes]);
        let result = pair.ada_socket.request(Request::ApproveSession(approval)).await;
        match expected {
            None => assert!(result.is_ok(), "{result:?}"),
            Some(expected) => assert_eq!(limit(&result.unwrap_err()), too_large(expected)),
        }
    }
    let mut socket = pending.connect(&pair.broker).await;
    let reply = socket.request(Request::FetchHandover(Nothing {})).await.unwrap();
    assert!(matches!(reply, Reply::Handover(handover) if handover.handover.len() == HANDOVER_BYTES_MAX));
    good(&mut pair).await;
}

#[tokio::test]
async fn usernames_and_bodies_over_http() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    for (length, status) in [
        (USERNAME_LENGTH_MIN - 1, 400),
        (USERNAME_LENGTH_MIN, 200),
        (USERNAME_LENGTH_MAX, 200),
        (USERNAME_LENGTH_MAX + 1, 400),
    ] {
        let body = serde_json::to_string(&Device::unregistered(&"a".repeat(length), 1_000).registration()).unwrap();
        let answer = broker.request("POST", "/v1/accounts", &body).await;
        assert_eq!(answer.0, status, "{length}: {}", answer.1);
        assert_eq!(answer.1.contains("\"username_invalid\""), status == 400);
    }
    for (bytes, status) in [(HTTP_BODY_BYTES_MAX, 200), (HTTP_BODY_BYTES_MAX + 1, 413)] {
        let body = serde_json::to_string(&Device::unregistered(&format!("ada{bytes}"), 1_000).registration()).unwrap();
        let body = format!("{body}{}", " ".repeat(bytes - body.len()));
        let answer = broker.request("POST", "/v1/accounts", &body).await;
        assert_eq!(answer.0, status, "{bytes}: {}", answer.1);
        if status == 413 {
            assert!(answer.1.contains("\"too_large\"") && answer.1.contains("16384"), "{}", answer.1);
        }
        let answer = broker.request("POST", LINKS_PATH, &body).await;
        // The same body is no link: but it is read, or it is not.
        assert_eq!(answer.0, if status == 200 { 400 } else { 413 }, "{}", answer.1);
    }
    assert_eq!(database.count("SELECT count(*) FROM users").await, 3);
}

#[tokio::test]
async fn requests_of_one_connection() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.requests_per_s", 2).with("limits.requests_burst", 5);
    let broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect(&broker).await;
    // The login was one of the five.
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(socket.send(Request::Ping(Nothing {})).await);
    }
    let last = open.pop().unwrap();
    for id in open {
        assert!(socket.answer(id).await.is_ok());
    }
    let error = socket.answer(last).await.unwrap_err();
    let wait = error.details.unwrap().retry_after_ms.unwrap();
    assert_eq!((error.code, error.retryable), (ErrorCode::RateLimited, true));
    assert!((1..=500).contains(&wait), "{wait}");
    // Who waits as told is served. Waiting is what is tested here.
    tokio::time::sleep(Duration::from_millis(wait)).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    // Frames that cannot be read count too, and their number is told where it can be read.
    socket.send_raw(Message::text("{\"id\":77,\"request\":{\"type\":\"fly\",\"data\":{}}}")).await;
    assert_eq!(socket.answer(frame_id(77)).await.unwrap_err().code, ErrorCode::RateLimited);
    for _ in 0..1_000 {
        socket.send_raw(Message::text("nonsense")).await;
    }
    assert_eq!(socket.close_code().await, Some(CloseCode::PolicyViolation.number()));
    let mut other = ada.connect(&broker).await;
    assert!(other.request(Request::Ping(Nothing {})).await.is_ok());
}

#[tokio::test]
async fn membership_changes_in_a_minute() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 3);
    let mut pair = Pair::start_on(database, settings).await;
    // Two were used up by the pair's chat.
    pair.ada.create_chat(&mut pair.ada_socket).await;
    let chats = pair.database.count("SELECT count(*) FROM chats").await;
    let creation = pair.ada.creation(ChatId::generate());
    let error = pair.ada_socket.request(Request::CreateChat(creation)).await.unwrap_err();
    let wait = error.details.unwrap().retry_after_ms.unwrap();
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert!((10_000..=20_001).contains(&wait), "{wait}");
    let carol = Device::register(&pair.broker, "carol").await;
    let error = pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert_eq!(pair.database.count("SELECT count(*) FROM chats").await, chats);
    good(&mut pair).await;
    // Taking somebody out is never held up.
    assert!(pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.is_ok());
    assert!(pair.ada.delete(&mut pair.ada_socket, pair.chat_id).await.is_ok());
}

#[tokio::test]
async fn sessions_and_certificates_of_a_user() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.live_max", 3).with("session.certificates_per_hour_max", 4);
    let broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect(&broker).await;
    let second = ada.linked(&broker, &mut socket).await;
    let third = ada.linked(&broker, &mut socket).await;
    let mut fourth = ada.pending(&broker).await;
    let error = ada.approve(&mut socket, &mut fourth).await.unwrap_err();
    assert_eq!(limit(&error), (ErrorCode::LimitReached, Some(3)));
    let chain = sessions(&mut socket).await;
    assert_eq!((chain.sessions.len(), chain.pending.len(), chain.place.get()), (3, 1, 3));
    ada.revoke(&mut socket, second.session_id).await.unwrap();
    ada.approve(&mut socket, &mut fourth).await.unwrap();
    // Room for a session, but none for a certificate within this hour.
    ada.revoke(&mut socket, third.session_id).await.unwrap();
    let mut fifth = ada.pending(&broker).await;
    let error = ada.approve(&mut socket, &mut fifth).await.unwrap_err();
    assert_eq!(limit(&error), (ErrorCode::LimitReached, Some(4)));
    let age = "UPDATE user_events SET created_at = created_at - interval '61 minutes' WHERE place = 1";
    database.client().await.batch_execute(age).await.unwrap();
    ada.approve(&mut socket, &mut fifth).await.unwrap();
}

#[tokio::test]
async fn pending_sessions_of_a_user() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("session.pending_s", 30)).await;
    let ada = Device::register(&broker, "ada").await;
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(ada.pending(&broker).await);
    }
    let sixth = ada.sibling();
    let (status, body) = sixth.ask_to_link(&broker).await;
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("\"limit_reached\"") && body.contains("\"limit\":5"), "{body}");
    assert_eq!(asked[0].ask_to_link(&broker).await.0, 200, "a repeat is none more");
    let past = "UPDATE user_sessions SET expired_at = clock_timestamp() WHERE id = (SELECT id FROM user_sessions \
         WHERE state = 'pending' LIMIT 1)";
    database.client().await.batch_execute(past).await.unwrap();
    assert_eq!(sixth.ask_to_link(&broker).await.0, 200, "who waited in vain is forgotten");
    assert_eq!(database.count("SELECT count(*) FROM user_sessions WHERE state = 'pending'").await, 5);
}

#[tokio::test]
async fn the_longest_life_of_a_session() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("session.lifetime_max_s", 3_600)).await;
    let register = async |name: &str, lifetime_s: u64| {
        let body = serde_json::to_string(&Device::unregistered(name, lifetime_s).registration()).unwrap();
        broker.request("POST", "/v1/accounts", &body).await
    };
    assert_eq!(register("ada", 3_600).await.0, 200);
    let (status, body) = register("bob", 3_630).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("\"bad_certificate\"") && body.contains("\"limit\":3600"), "{body}");
    let carol = Device::register_for(&broker, "carol", 3_000_000_000).await;
    let mut socket = carol.connect(&broker).await;
    let mut pending = carol.pending(&broker).await;
    // Its certificate would be for 30 days.
    let error = carol.approve(&mut socket, &mut pending).await.unwrap_err();
    assert_eq!(limit(&error), (ErrorCode::BadCertificate, Some(3_600)));
    pending.certificate.certificate.expired_at = pending.certificate.certificate.created_at.plus_micros(1_000_000_000);
    assert!(carol.approve(&mut socket, &mut pending).await.is_ok());
}

#[tokio::test]
async fn chats_of_a_user_and_members_of_a_chat() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.chats_max", 2).with("chat.members_max", 2);
    let mut pair = Pair::start_on(database, settings).await;
    let own = pair.ada.create_chat(&mut pair.ada_socket).await;
    let creation = pair.ada.creation(ChatId::generate());
    let error = pair.ada_socket.request(Request::CreateChat(creation)).await.unwrap_err();
    assert_eq!(limit(&error), (ErrorCode::LimitReached, Some(2)));
    let carol = Device::register(&pair.broker, "carol").await;
    let before = view(&mut pair.ada_socket, pair.chat_id).await.seen;
    let error = pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap_err();
    assert_eq!(limit(&error), (ErrorCode::LimitReached, Some(2)));
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, before);
    // Who is in as many chats as allowed cannot be added to one more.
    let mut carol_socket = carol.connect(&pair.broker).await;
    for _ in 0..2 {
        carol.create_chat(&mut carol_socket).await;
    }
    let error = pair.ada.add(&mut pair.ada_socket, own, &carol).await.unwrap_err();
    assert_eq!(limit(&error), (ErrorCode::LimitReached, Some(2)));
    pair.ada.add(&mut pair.ada_socket, own, &pair.bob).await.unwrap();
    good(&mut pair).await;
}

#[tokio::test]
async fn the_life_of_a_sender_key() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("keys.messages_max", 3)
        .with("keys.messages_max_large", 5)
        .with("keys.recipients_large", 2)
        .with("keys.age_max_s", 3_600);
    let mut pair = Pair::start_on(database, settings).await;
    let hello = &pair.ada_socket.hello;
    assert_eq!((hello.key_messages_max, hello.key_messages_max_large, hello.key_age_max_s), (3, 5, 3_600));
    let carol = Device::register(&pair.broker, "carol").await;
    for messages_max in [3, 5] {
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        for _ in 0..messages_max {
            let message = pair.ada.seal(&now, &mut key, b"carried");
            submit(&mut pair.ada_socket, message).await.unwrap();
        }
        let message = pair.ada.seal(&now, &mut key, b"too many");
        let error = submit(&mut pair.ada_socket, message).await.unwrap_err();
        assert_eq!(limit(&error), (ErrorCode::KeySpent, Some(messages_max)));
        good(&mut pair).await;
        if messages_max == 3 {
            // With a third recipient the chat is large.
            pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
        }
    }
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for (age_s, is_spent) in [(3_590, false), (3_601, true)] {
        let message = pair.ada.seal(&now, &mut key, b"young");
        let was = if is_spent { None } else { Some(submit(&mut pair.ada_socket, message.clone()).await.unwrap()) };
        let shift = "SET created_at = created_at + (clock_timestamp() - (SELECT max(created_at) FROM sender_keys))";
        let age = format!("UPDATE sender_keys {shift} - interval '{age_s} seconds'");
        pair.database.client().await.batch_execute(&age).await.unwrap();
        // What the chat holds in memory is from before.
        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        let result = match was {
            None => submit(&mut pair.ada_socket, message).await,
            Some(_) => {
                let message = pair.ada.seal(&now, &mut key, b"nearly an hour");
                submit(&mut pair.ada_socket, message).await
            }
        };
        match is_spent {
            false => assert!(result.is_ok(), "{result:?}"),
            true => assert_eq!(limit(&result.unwrap_err()), (ErrorCode::KeySpent, Some(3_600))),
        }
    }
    good(&mut pair).await;
}

#[tokio::test]
async fn messages_on_their_way_in_a_chat_and_in_a_lane() {
    let database = Database::create().await;
    let settings =
        Settings::on(&database).with("chat.in_flight_max", 3).with("writer.queue_max", 4).with("writer.lanes", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let others = [pair.bob.create_chat(&mut pair.bob_socket).await, pair.bob.create_chat(&mut pair.bob_socket).await];
    let mut bobs = Vec::new();
    for chat_id in others {
        let now = view(&mut pair.bob_socket, chat_id).await;
        let mut key = pair.bob.sender_key(&now, chat_id);
        let message = pair.bob.seal(&now, &mut key, b"loaded");
        submit(&mut pair.bob_socket, message).await.unwrap();
        bobs.push((now, key));
    }
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"loaded");
    submit(&mut pair.ada_socket, message).await.unwrap();

    let held = pair.database.hold_commits().await;
    let mut messages: Vec<Send> = (0..4).map(|_| pair.ada.seal(&now, &mut key, b"held")).collect();
    let fourth = messages.pop().unwrap();
    let mut open = Vec::new();
    for (index, message) in messages.into_iter().enumerate() {
        open.push(pair.ada_socket.send(Request::Send(Box::new(message))).await);
        if index == 0 {
            pair.database.until_held().await;
        }
    }
    // One is being committed, two wait: the chat takes no fourth.
    let error = submit(&mut pair.ada_socket, fourth.clone()).await.unwrap_err();
    assert_eq!((error.code, error.details.unwrap().retry_after_ms), (ErrorCode::RateLimited, Some(100)));
    // The lane has room for two more, of another chat; then it takes none.
    let (now_bob, key_bob) = &mut bobs[0];
    let mut open_bob = Vec::new();
    for _ in 0..2 {
        let message = pair.bob.seal(now_bob, key_bob, b"held");
        open_bob.push(pair.bob_socket.send(Request::Send(Box::new(message))).await);
    }
    eventually("five on their way", async || pair.broker.metric("sealcast_messages_in_flight", "").await >= 5.0).await;
    let (now_bob, key_bob) = &mut bobs[1];
    let full = pair.bob.seal(now_bob, key_bob, b"one too many");
    let error = submit(&mut pair.bob_socket, full.clone()).await.unwrap_err();
    assert_eq!((error.code, error.details.unwrap().retry_after_ms), (ErrorCode::RateLimited, Some(100)));
    held.batch_execute("COMMIT").await.unwrap();
    for id in open {
        pair.ada_socket.answer(id).await.unwrap();
    }
    for id in open_bob {
        pair.bob_socket.answer(id).await.unwrap();
    }
    submit(&mut pair.ada_socket, fourth).await.unwrap();
    submit(&mut pair.bob_socket, full).await.unwrap();
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, 10);
}

#[tokio::test]
async fn connections_of_the_process() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.connections_max", 2).with("server.workers", 2);
    let broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    let mut first = ada.connect(&broker).await;
    let second = Socket::open(&broker, Encoding::Json).await;
    let refused = Socket::handshake(broker.address(), "sealcast.v1.json").await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else { panic!("{refused}") };
    assert_eq!(response.status().as_u16(), 503);
    assert!(first.request(Request::Ping(Nothing {})).await.is_ok());
    drop(second);
    eventually("room again", async || Socket::handshake(broker.address(), "sealcast.v1.json").await.is_ok()).await;
}

#[tokio::test]
async fn handshakes_at_once_are_no_way_around_the_limit() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.connections_max", 5).with("server.workers", 1);
    let broker = Broker::start_with(settings).await;
    let address = broker.address().to_owned();
    let attempts: Vec<_> = (0..60)
        .map(|_| {
            let address = address.clone();
            tokio::spawn(async move { Socket::handshake(&address, "sealcast.v1.json").await })
        })
        .collect();
    let mut open = Vec::new();
    for attempt in attempts {
        open.extend(within("an attempt", attempt).await.unwrap());
    }
    assert_eq!(open.len(), 5);
    drop(open);
    eventually("room again", async || Socket::handshake(&address, "sealcast.v1.json").await.is_ok()).await;
}

#[tokio::test]
async fn a4_a_silent_socket_is_closed_at_the_login_limit() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("server.login_timeout_s", 1)).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Socket::open(&broker, Encoding::Json).await);
    }
    let since = std::time::Instant::now();
    let mut busy = Socket::open(&broker, Encoding::Json).await;
    assert_eq!(busy.hello.login_timeout_s, 1);
    // Requests are no login.
    busy.request(Request::Ping(Nothing {})).await.unwrap_err();
    assert_eq!(busy.close_code().await, Some(CloseCode::LoginTimeout.number()));
    assert!(since.elapsed() >= Duration::from_millis(900) && since.elapsed() < Duration::from_secs(5));
    for mut socket in silent {
        assert_eq!(socket.close_code().await, Some(CloseCode::LoginTimeout.number()));
    }
    eventually("all gone", async || broker.metric("sealcast_connections{", "").await == 0.0).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect(&broker).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
}

#[tokio::test]
async fn w12_who_answers_no_ping_is_closed_and_who_does_is_not() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("server.ping_interval_s", 1)).await;
    let ada = Device::register(&broker, "ada").await;
    let mut alive = ada.connect(&broker).await;
    alive.request(Request::Ping(Nothing {})).await.unwrap();
    let port = broker.address().rsplit(':').next().unwrap().parse().unwrap();
    let request = "GET /v1/socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: sealcast.v1.json\r\n\r\n";
    let (mut mute, head) = super::transport::support::Client::request(port, request).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let since = std::time::Instant::now();
    // Who reads answers pings.
    let (tell, mut told) = tokio::sync::oneshot::channel::<()>();
    let alive = tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = &mut told => return alive,
                push = alive.push() => assert!(push.is_some(), "closed with {:?}", alive.closed),
            }
        }
    });
    let mut pings = 0;
    let code = loop {
        match mute.read().await {
            super::transport::support::Read::Frame(0x89, _) => pings += 1,
            other if other.close_code().is_some() => break other.close_code(),
            super::transport::support::Read::Frame(..) => {}
            other => panic!("{other:?}"),
        }
    };
    tell.send(()).unwrap();
    let mut alive = within("the one alive", alive).await.unwrap();
    assert_eq!(code, Some(CloseCode::IdleTimeout.number()));
    assert!(pings >= 1, "{pings}");
    assert!((1_800..5_000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
    assert!(alive.request(Request::Ping(Nothing {})).await.is_ok());
}

#[tokio::test]
async fn w13_who_takes_nothing_of_what_waits_is_cut() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("server.stalled_timeout_s", 1)
        .with("limits.requests_per_s", 10_000)
        .with("limits.requests_burst", 10_000);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for _ in 0..8 {
        let message = pair.ada.seal(&now, &mut key, &vec![0; DATA_BYTES_MAX]);
        submit(&mut pair.ada_socket, message).await.unwrap();
    }
    // Bob asks for far more than the kernel holds, and reads none of it.
    let stream = Socket::handshake(pair.broker.address(), "sealcast.v1.json").await.unwrap();
    let (mut sink, mut stream) = stream.split();
    let hello = within("hello", stream.next()).await.unwrap().unwrap();
    let Ok(ServerFrame::Hello(hello)) = Encoding::Json.decode_server(hello.to_text().unwrap().as_bytes()) else {
        panic!()
    };
    let write = |id: u64, request: Request| {
        let bytes = Encoding::Json.encode(&frame::ClientFrame { id: frame_id(id), request }).unwrap();
        Message::text(String::from_utf8(bytes.to_vec()).unwrap())
    };
    sink.send(write(1, pair.bob.login(&hello))).await.unwrap();
    within("the login", stream.next()).await.unwrap().unwrap();
    for id in 2..60 {
        let history = History {
            chat_id: pair.chat_id,
            direction: Direction::After,
            seq: Seq::default(),
            limit: PAGE_ENTRIES_MAX,
        };
        sink.send(write(id, Request::History(history))).await.unwrap();
    }
    let authenticated = async || pair.broker.metric("sealcast_connections{", "authenticated").await;
    // Bob's first connection was replaced by this one.
    eventually("its end", async || authenticated().await == 1.0).await;
    good(&mut pair).await;
}
