//! What comes over the wire that no honest client sends, in both encodings; and lists too long for one frame.

use sealcast::protocol::account::SOCKET_PATH;
use sealcast::protocol::certificate::Certificate;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{ClientFrame, Nothing, Reply, Request, ServerFrame, StageCopies};
use sealcast::protocol::ids::{ChatId, Place, RequestId, Seq};
use sealcast::protocol::keys::{KeyCopy, staged_hash};
use sealcast::protocol::limits::COPIES_PER_FRAME_MAX;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{copy_for, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::within;

/// Writes any JSON value in an encoding.
fn write(encoding: Encoding, value: &Value) -> Message {
    match encoding {
        Encoding::Json => Message::text(value.to_string()),
        Encoding::MessagePack => {
            let mut bytes = Vec::new();
            pack(value, &mut bytes);
            Message::binary(bytes)
        }
    }
}

/// MessagePack by hand, with the longest form of every length; maps are in order of their names.
fn pack(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Value::Number(number) => match number.as_u64() {
            Some(number) => {
                out.push(0xcf);
                out.extend(number.to_be_bytes());
            }
            None => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(text) => {
            out.push(0xdb);
            out.extend((text.len() as u32).to_be_bytes());
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            out.push(0xdd);
            out.extend((items.len() as u32).to_be_bytes());
            items.iter().for_each(|item| pack(item, out));
        }
        Value::Object(fields) => {
            out.push(0xdf);
            out.extend((fields.len() as u32).to_be_bytes());
            for (name, value) in fields {
                pack(&Value::String(name.clone()), out);
                pack(value, out);
            }
        }
    }
}

/// What a bad frame is answered with.
async fn answer(socket: &mut Socket, message: Message) -> (Option<u64>, ErrorCode) {
    socket.send_raw(message).await;
    loop {
        match socket.push().await.expect("open") {
            ServerFrame::Error(error) => {
                assert_eq!(error.details, None);
                return (error.id.map(RequestId::get), error.code);
            }
            ServerFrame::Ok(ok) => panic!("taken: {ok:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn w4_bad_frames_get_their_code_and_their_number() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let (malformed, unknown) = (ErrorCode::Malformed, ErrorCode::UnknownFrame);
    let chat_id = ChatId::generate().to_string();
    let frames = [
        (json!({"id": 1, "request": {"type": "fly", "data": {}}}), Some(1), unknown),
        (json!({"id": 2, "request": {"type": "", "data": {}}}), Some(2), unknown),
        (json!({"id": 3, "request": {"type": "Ping", "data": {}}}), Some(3), unknown),
        (json!({"id": 4, "request": {"type": "ping"}}), Some(4), malformed),
        (json!({"id": 5, "request": {"data": {}}}), Some(5), malformed),
        (json!({"id": 6}), Some(6), malformed),
        (json!({"request": {"type": "ping", "data": {}}}), None, malformed),
        (json!({"id": null, "request": {"type": "ping", "data": {}}}), None, malformed),
        (json!({"id": "7", "request": {"type": "ping", "data": {}}}), None, malformed),
        (json!({"id": -1, "request": {"type": "ping", "data": {}}}), None, malformed),
        (json!({"id": 1.5, "request": {"type": "ping", "data": {}}}), None, malformed),
        (json!({"id": 9_007_199_254_740_992_u64, "request": {"type": "ping", "data": {}}}), None, malformed),
        (json!({"id": 8, "request": {"type": "ping", "data": null}}), Some(8), malformed),
        (json!({"id": 9, "request": {"type": "history", "data": {"chat_id": chat_id}}}), Some(9), malformed),
        (json!({"id": 10, "request": {"type": "keys", "data": {"chat_id": 5, "key_ids": []}}}), Some(10), malformed),
        (json!({"id": 11, "request": {"type": "lookup_user", "data": {"username": "a b"}}}), Some(11), malformed),
        (
            json!({"id": 12, "request": {"type": "lookup_user", "data": {"username": "x".repeat(100_000)}}}),
            Some(12),
            malformed,
        ),
        (json!({"id": 13, "request": {"type": "resume", "data": {"cursors": {}}}}), Some(13), malformed),
        (json!({"id": 14, "request": {"type": 5, "data": {}}}), None, malformed),
        (json!([1, {"type": "fly", "data": {}}]), Some(1), unknown),
        (json!({}), None, malformed),
        (json!([]), None, malformed),
        (json!(null), None, malformed),
        (json!("ping"), None, malformed),
    ];
    for encoding in Encoding::ALL {
        let mut socket = ada.connect_with(&broker, encoding).await;
        for (frame, id, code) in &frames {
            let (told, answered) = answer(&mut socket, write(encoding, frame)).await;
            assert_eq!(answered, *code, "{frame} in {encoding:?}");
            // A frame that is no map at all has no number to be told; a list may be read as one or not.
            if !frame.is_array() {
                assert_eq!(told, *id, "{frame} in {encoding:?}");
            }
        }
        // Fields that nobody knows are ignored, wherever they are, and fields come in any order.
        let more =
            json!({"zzz": [1, {"a": null}], "id": 100, "request": {"data": {"new": true}, "more": 1, "type": "ping"}});
        socket.send_raw(write(encoding, &more)).await;
        assert!(matches!(socket.answer(RequestId::saturating(100)).await, Ok(Reply::Done(_))), "{encoding:?}");
    }
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 0);
}

#[tokio::test]
async fn fields_come_in_any_order_in_both_encodings() {
    let mut pair = Pair::start().await;
    // In JSON a whole login and creation.
    let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
    for (id, request) in
        [(1, pair.bob.login(&socket.hello)), (2, Request::CreateChat(pair.bob.creation(ChatId::generate())))]
    {
        let frame = ClientFrame { id: RequestId::saturating(id), request };
        // A map in order of its names: `data` before `type`, everywhere.
        let value = serde_json::to_value(&frame).unwrap();
        assert!(value.to_string().starts_with(&format!("{{\"id\":{id},\"request\":{{\"data\":")));
        socket.send_raw(Message::text(value.to_string())).await;
        assert!(socket.answer(RequestId::saturating(id)).await.is_ok());
    }
    // In MessagePack a login, whose identifier and signature are bin there, and a page.
    let mut socket = Socket::open(&pair.broker, Encoding::MessagePack).await;
    let Request::Authenticate(login) = pair.bob.login(&socket.hello) else { panic!() };
    let mut bytes = b"\x82\xa2id\x31\xa7request\x82\xa4data\x82".to_vec();
    bytes.extend(b"\xaasession_id\xc4\x10");
    bytes.extend(login.session_id.as_bytes());
    bytes.extend(b"\xa9signature\xc4\x40");
    bytes.extend(login.signature.as_ref());
    bytes.extend(b"\xa4type\xacauthenticate");
    socket.send_raw(Message::binary(bytes)).await;
    let reply = socket.answer(RequestId::saturating(0x31)).await;
    assert!(matches!(reply, Ok(Reply::Authenticated(_))), "{reply:?}");
    let mut bytes = b"\x82\xa2id\x32\xa7request\x82\xa4data\x84".to_vec();
    bytes.extend(b"\xa7chat_id\xc4\x10");
    bytes.extend(pair.chat_id.as_bytes());
    bytes.extend(b"\xa9direction\xa5after\xa3seq\x00\xa5limit\x0a\xa4type\xa7history");
    socket.send_raw(Message::binary(bytes)).await;
    let reply = socket.answer(RequestId::saturating(0x32)).await;
    assert!(matches!(reply, Ok(Reply::Page(_))), "{reply:?}");
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn w3_nesting_lies_and_noise_are_malformed_and_nothing_more() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let before_mib = broker.rss_mib();
    let mut socket = ada.connect(&broker).await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000));
    for text in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        // What stands before `type` is kept until it is known, and so is followed.
        format!("{{\"id\":1,\"request\":{{\"data\":{{\"x\":{}}},\"type\":\"ping\"}}}}", deep("[", "]")),
        "{\"id\":1,\"request\":".to_owned(),
        "{\"id\":1,\"id\":2,\"request\":{\"type\":\"ping\",\"data\":{}}}".to_owned(),
        "{\"id\":1,\"request\":{\"type\":\"ping\",\"type\":\"ping\",\"data\":{}}}".to_owned(),
        "{\"id\":1,\"request\":{\"type\":\"ping\",\"data\":{}}} {}".to_owned(),
        "{\"id\":1e400,\"request\":{\"type\":\"ping\",\"data\":{}}}".to_owned(),
        "\u{feff}{\"id\":1,\"request\":{\"type\":\"ping\",\"data\":{}}}".to_owned(),
        "\0".repeat(1_000),
        String::new(),
    ] {
        let (_, code) = answer(&mut socket, Message::text(text.clone())).await;
        assert_eq!(code, ErrorCode::Malformed, "{}", &text[..text.len().min(60)]);
    }
    // A field that nobody knows is skipped, and not followed at all.
    let skipped = format!("{{\"id\":60,\"request\":{{\"type\":\"ping\",\"data\":{{\"x\":{}}}}}}}", deep("[", "]"));
    socket.send_raw(Message::text(skipped)).await;
    assert!(socket.answer(RequestId::saturating(60)).await.is_ok());
    let mut socket = ada.connect_with(&broker, Encoding::MessagePack).await;
    let ping = Encoding::MessagePack
        .encode(&ClientFrame { id: RequestId::saturating(5), request: Request::Ping(Nothing {}) })
        .unwrap();
    let lying =
        |head: &[u8]| [b"\x82\xa2id\x01\xa7request\x82\xa4type\xa4ping\xa4data\x81\xa1x".as_slice(), head].concat();
    for bytes in [
        vec![0x91; 200_000],
        vec![0x81; 200_000],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0xdd, 0xff, 0xff, 0xff, 0xff],
        vec![0xc6, 0xff, 0xff, 0xff, 0xff],
        vec![0xc1],
        Vec::new(),
        lying(&[0xc6, 0xff, 0xff, 0xff, 0xff]),
        lying(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0]),
        lying(&[0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, b'y', 0xc0]),
        lying(&vec![0x91; 100_000]),
        [ping.as_ref(), &[0xc0]].concat(),
        [ping.as_ref(), ping.as_ref()].concat(),
        ping[..ping.len() - 1].to_vec(),
    ] {
        let (_, code) = answer(&mut socket, Message::binary(bytes.clone())).await;
        assert_eq!(code, ErrorCode::Malformed, "{:?}", &bytes[..bytes.len().min(40)]);
    }
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    let grown_mib = broker.rss_mib().saturating_sub(before_mib);
    assert!(grown_mib < 32, "{grown_mib} MiB for lies");
}

#[tokio::test]
async fn w5_each_subprotocol_has_its_own_kind_of_message() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let mut other = ada.connect(&broker).await;
    let bob = Device::register(&broker, "bob").await;
    for encoding in Encoding::ALL {
        for logged_in in [false, true] {
            let mut socket = match logged_in {
                false => Socket::open(&broker, encoding).await,
                true => bob.connect_with(&broker, encoding).await,
            };
            let frame = ClientFrame { id: RequestId::saturating(50), request: Request::Ping(Nothing {}) };
            // The right bytes in the wrong kind of message.
            let bytes = Encoding::Json.encode(&frame).unwrap();
            let wrong = match encoding {
                Encoding::Json => Message::binary(bytes),
                Encoding::MessagePack => Message::text(String::from_utf8(bytes.to_vec()).unwrap()),
            };
            socket.send_raw(wrong).await;
            assert_eq!(socket.close_code().await, Some(CloseCode::UnsupportedData.number()), "{encoding:?}");
        }
    }
    assert!(other.request(Request::Ping(Nothing {})).await.is_ok());
}

/// The status of a handshake with these headers; 101 for one that succeeds.
async fn handshake(broker: &Broker, headers: &[(&'static str, &str)]) -> u16 {
    let mut request = format!("ws://{}{SOCKET_PATH}", broker.address()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match within("a handshake", tokio_tungstenite::connect_async(request)).await {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a15_origins_and_subprotocols_are_judged_at_the_handshake() {
    const JSON: (&str, &str) = ("sec-websocket-protocol", "sealcast.v1.json");
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.origins", "https://chat.example.org,https://two.example");
    let broker = Broker::start_with(settings).await;
    assert_eq!(handshake(&broker, &[]).await, 400, "no subprotocol");
    assert_eq!(handshake(&broker, &[("sec-websocket-protocol", "sealcast.v2.json")]).await, 400);
    assert_eq!(handshake(&broker, &[("sec-websocket-protocol", "chat, sealcast.v1.json")]).await, 101);
    assert_eq!(handshake(&broker, &[JSON]).await, 101, "who names no origin is no browser");
    for (origin, status) in [
        ("https://chat.example.org", 101),
        ("https://two.example", 101),
        ("https://CHAT.example.org", 101),
        ("https://evil.example", 403),
        ("http://chat.example.org", 403),
        ("https://chat.example.org.evil.example", 403),
        ("https://chat.example.org:8443", 403),
        ("null", 403),
    ] {
        assert_eq!(handshake(&broker, &[JSON, ("origin", origin)]).await, status, "{origin}");
    }
    let closed = Broker::start(&database).await;
    assert_eq!(handshake(&closed, &[JSON, ("origin", "https://chat.example.org")]).await, 403, "none is listed");
    let open = Broker::start_with(Settings::on(&database).with("server.origins", "*")).await;
    assert_eq!(handshake(&open, &[JSON, ("origin", "https://anybody.example")]).await, 101);
    for path in ["/", "/v1", "/v1/socket/", "/v2/socket", "/v1/users", "/v1/../metrics"] {
        let (status, body) = broker.request("GET", path, "").await;
        assert_eq!(status, 404, "{path}: {body}");
        assert!(body.contains("\"unknown_frame\""), "{path}: {body}");
    }
    assert_eq!(broker.request("GET", "/v1/info", "").await.0, 200);
}

#[tokio::test]
async fn w16_request_numbers_may_be_reused_and_have_a_bound() {
    let mut pair = Pair::start().await;
    // The same number twice while the first is open: one answer each.
    let number = RequestId::saturating(9_007_199_254_740_991);
    let ping = Encoding::Json.encode(&ClientFrame { id: number, request: Request::Ping(Nothing {}) }).unwrap();
    let list = Encoding::Json.encode(&ClientFrame { id: number, request: Request::ListChats(Nothing {}) }).unwrap();
    for bytes in [&list, &ping, &list] {
        pair.ada_socket.send_raw(Message::text(String::from_utf8(bytes.to_vec()).unwrap())).await;
    }
    let (mut done, mut chats) = (0, 0);
    for _ in 0..3 {
        match pair.ada_socket.answer(number).await.unwrap() {
            Reply::Done(_) => done += 1,
            Reply::Chats(_) => chats += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((done, chats), (1, 2));
    for push in pair.ada_socket.pushes_so_far().await {
        assert!(!matches!(push, ServerFrame::Ok(_) | ServerFrame::Error(_)), "{push:?}");
    }
    // A number of a hundred thousand digits, and a text of as many.
    for id in ["9".repeat(100_000), format!("\"{}\"", "9".repeat(100_000))] {
        let text = format!("{{\"id\":{id},\"request\":{{\"type\":\"ping\",\"data\":{{}}}}}}");
        assert_eq!(answer(&mut pair.ada_socket, Message::text(text)).await, (None, ErrorCode::Malformed));
    }
    // Zero is a number like any other.
    let text = "{\"id\":0,\"request\":{\"type\":\"ping\",\"data\":{}}}";
    pair.ada_socket.send_raw(Message::text(text)).await;
    assert!(pair.ada_socket.answer(RequestId::default()).await.is_ok());
}

/// Puts live sessions of a user into the database, as approvals would: certified, and in the user's chain.
async fn certify_many(database: &Database, device: &Device, count: usize) {
    let mut client = database.client().await;
    let transaction = client.transaction().await.unwrap();
    let mut previous = device.certificate.clone();
    for _ in 0..count {
        let place = previous.certificate.place.next();
        let next = Device::certified(
            device.user_id,
            &device.username,
            device.identity.clone(),
            place,
            previous.chain_hash(),
            86_400_000_000,
        );
        previous = next.certificate.clone();
        let Certificate { session_id, public_key, signing_public_key, .. } = previous.certificate.clone();
        let body = Encoding::MessagePack.encode(&previous).unwrap().to_vec();
        let hash = previous.chain_hash();
        let place = place_of(place);
        transaction
            .execute(
                "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, certificate, state) \
                 VALUES ($1, $2, clock_timestamp() + interval '1 day', $3, $4, $5, 'live')",
                &[&session_id.0, &device.user_id.0, &public_key.as_ref(), &signing_public_key.as_ref(), &body],
            )
            .await
            .unwrap();
        transaction
            .execute(
                "INSERT INTO user_events (user_id, place, kind, session_id, body, hash) \
                 VALUES ($1, $2, 'certificate', $3, $4, $5)",
                &[&device.user_id.0, &place, &session_id.0, &body, &hash.as_ref()],
            )
            .await
            .unwrap();
        transaction
            .execute(
                "UPDATE users SET chain_place = $2, chain_hash = $3 WHERE id = $1",
                &[&device.user_id.0, &place, &hash.as_ref()],
            )
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
}

fn place_of(place: Place) -> i64 {
    i64::try_from(place.get()).unwrap()
}

#[tokio::test]
async fn k15_a_list_for_more_recipients_than_fit_in_a_frame_goes_ahead_in_parts() {
    let mut pair = Pair::start().await;
    let crowd = Device::register(&pair.broker, "crowd").await;
    certify_many(&pair.database, &crowd, 620).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &crowd).await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    assert_eq!(now.fold.recipients().len(), 623);
    let chat_id = pair.chat_id;

    let mut key = pair.ada.sender_key(&now, chat_id);
    // All at once is above the bound of a frame.
    let mut packed = pair.ada.connect_with(&pair.broker, Encoding::MessagePack).await;
    let whole = pair.ada.seal(&now, &mut key.clone(), b"in one frame");
    let error = submit(&mut packed, whole).await.unwrap_err();
    assert_eq!((error.code, error.details.unwrap().limit), (ErrorCode::TooLarge, Some(500)));

    let copies: Vec<KeyCopy> = std::mem::take(&mut key.copies);
    let key_id = key.announcement.announcement.key_id;
    let parts: Vec<&[KeyCopy]> = copies.chunks(COPIES_PER_FRAME_MAX).collect();
    let part = |index: usize| {
        let (part, parts_count) = (index as u32, parts.len() as u32);
        Request::StageCopies(StageCopies { chat_id, key_id, part, parts: parts_count, copies: parts[index].to_vec() })
    };
    let mut message = pair.ada.seal(&now, &mut key, b"to the crowd");
    message.new_key.as_mut().unwrap().staged = Some(staged_hash(copies.iter()));
    // Half a list is worth nothing, nor is a whole one by another's word or under another hash.
    packed.request(part(1)).await.unwrap();
    assert_eq!(submit(&mut packed, message.clone()).await.unwrap_err().code, ErrorCode::CopiesMissing);
    packed.request(part(0)).await.unwrap();
    let mut other = message.clone();
    other.new_key.as_mut().unwrap().staged = Some(staged_hash(copies[1..].iter()));
    let error = submit(&mut packed, other).await.unwrap_err();
    assert_eq!((error.code, error.details), (ErrorCode::CopiesMissing, None));
    assert_eq!(pair.database.count("SELECT count(*) FROM sender_keys").await, 0, "nothing was stored");
    assert_eq!(view(&mut packed, chat_id).await.seen, now.seen);

    let sent = submit(&mut packed, message).await.unwrap();
    assert_eq!(sent.seq, now.seen.seq.next());
    assert_eq!(pair.database.count("SELECT count(*) FROM vault_chat_sender_keys").await, 623);
    let next = pair.ada.seal(&now, &mut key, b"and on");
    submit(&mut packed, next).await.unwrap();

    // A list that lacks one, and one that has one too many.
    for (change, code) in [(-1_i32, ErrorCode::CopiesMissing), (1, ErrorCode::RecipientsChanged)] {
        let mut key = pair.ada.sender_key(&now, chat_id);
        let mut copies: Vec<KeyCopy> = std::mem::take(&mut key.copies);
        let left_out = copies[600].session_id;
        match change {
            1 => copies.push(copy_for(sealcast::protocol::ids::SessionId::generate())),
            _ => drop(copies.remove(600)),
        }
        let key_id = key.announcement.announcement.key_id;
        for (index, part) in copies.chunks(COPIES_PER_FRAME_MAX).enumerate() {
            let part = StageCopies { chat_id, key_id, part: index as u32, parts: 2, copies: part.to_vec() };
            packed.request(Request::StageCopies(part)).await.unwrap();
        }
        let mut message = pair.ada.seal(&now, &mut key, b"not exactly");
        message.new_key.as_mut().unwrap().staged = Some(staged_hash(copies.iter()));
        let error = submit(&mut packed, message.clone()).await.unwrap_err();
        assert_eq!(error.code, code);
        let details = error.details.unwrap();
        if code == ErrorCode::CopiesMissing {
            assert_eq!(details.missing, [left_out]);
            message.new_key = None;
            message.add_copies = vec![copy_for(left_out)];
            submit(&mut packed, message).await.unwrap();
        } else {
            assert_eq!(details.extra, [copies[623].session_id]);
        }
    }
    // Five hundred in the frame, the others beside them in a second one.
    let mut key = pair.ada.sender_key(&now, chat_id);
    let rest = key.copies.split_off(COPIES_PER_FRAME_MAX);
    let mut message = pair.ada.seal(&now, &mut key, b"in two");
    let error = submit(&mut packed, message.clone()).await.unwrap_err();
    assert_eq!((error.code, error.details.unwrap().missing.len()), (ErrorCode::CopiesMissing, 123));
    message.new_key = None;
    message.add_copies = rest;
    let sent = submit(&mut packed, message).await.unwrap();
    assert_eq!(sent.seq.get(), now.seen.seq.get() + 4);
    assert!(view(&mut pair.bob_socket, chat_id).await.seen.seq > Seq::default());
}
