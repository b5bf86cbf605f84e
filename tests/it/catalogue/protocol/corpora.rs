//! W3: published corpora over a real socket, in both subprotocols, as whole messages and inside them.

use std::collections::BTreeMap;

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Nothing, Request, ServerFrame};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::transport::support::frame;
use super::line::Line;
use super::{unharmed, unhurried};

const JSON: &str = include_str!("../../../fuzz/public/json-test-suite.json");
const PACKED: &str = include_str!("../../../fuzz/public/msgpack-test-suite.json");
const NAUGHTY: &str = include_str!("../../../fuzz/public/blns.json");

/// What is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Done,
    Refused(ErrorCode),
    /// Readers are free.
    Any,
}

const MALFORMED: Verdict = Verdict::Refused(ErrorCode::Malformed);

/// Sends messages, some at a time; each gets one answer, in its turn.
async fn judged(socket: &mut Socket, cases: &[(Message, Verdict)]) {
    for cases in cases.chunks(32) {
        for (message, _) in cases {
            socket.send_raw(message.clone()).await;
        }
        for (message, expected) in cases {
            let answer = socket
                .push_that(|push| match push {
                    ServerFrame::Error(error) => Some(Verdict::Refused(error.code)),
                    ServerFrame::Ok(_) => Some(Verdict::Done),
                    _ => None,
                })
                .await;
            let is_expected =
                answer == *expected || *expected == Verdict::Any && matches!(answer, MALFORMED | Verdict::Done);
            assert!(is_expected, "{answer:?} and not {expected:?} to {message:?}");
        }
    }
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
}

/// A ping in JSON with a text as the value of a field that nobody knows.
fn ping_with(text: &str) -> Message {
    Message::text(format!("{{\"id\":900,\"new\":{text},\"request\":{{\"type\":\"ping\",\"data\":{{}}}}}}"))
}

/// The same in MessagePack.
fn packed_ping_with(value: &[u8]) -> Message {
    let ping = b"\xa7request\x82\xa4type\xa4ping\xa4data\x80".as_slice();
    Message::binary([b"\x83\xa2id\xcd\x03\x84\xa3new", value, ping].concat())
}

/// The values of the MessagePack suite, in all their forms.
fn packed_forms() -> Vec<Vec<u8>> {
    let groups: BTreeMap<String, Vec<Value>> = serde_json::from_str(PACKED).unwrap();
    let forms = groups.values().flatten().flat_map(|case| case["msgpack"].as_array().unwrap());
    let bytes = |form: &Value| -> Vec<u8> {
        let digits = form.as_str().unwrap().split('-').filter(|digits| !digits.is_empty());
        digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
    };
    forms.map(bytes).collect()
}

#[tokio::test]
async fn w3_published_json_is_judged_as_published_in_both_subprotocols() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let suite: Vec<Value> = serde_json::from_str(JSON).unwrap();
    assert!(suite.len() > 300);
    let (mut whole, mut within, mut packed) = (Vec::new(), Vec::new(), Vec::new());
    for case in &suite {
        let text = case["input"].as_str().unwrap();
        let verdict = case.get("error").map_or(Verdict::Any, |error| match error.as_bool().unwrap() {
            false => Verdict::Done,
            true => MALFORMED,
        });
        whole.push((Message::text(text), MALFORMED));
        within.push((ping_with(text), verdict));
        packed.push((Message::binary(text.as_bytes().to_vec()), MALFORMED));
    }
    let mut socket = eve.connect(&broker).await;
    judged(&mut socket, &whole).await;
    judged(&mut socket, &within).await;
    judged(&mut eve.connect_with(&broker, Encoding::MessagePack).await, &packed).await;
    unharmed(&broker).await;
}

#[tokio::test]
async fn w3_published_messagepack_is_ignored_where_nobody_knows_it_and_no_frame_by_itself() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let forms = packed_forms();
    assert!(forms.len() > 200);
    let mut cases: Vec<_> = forms.iter().map(|form| (Message::binary(form.clone()), MALFORMED)).collect();
    cases.extend(forms.iter().map(|form| (packed_ping_with(form), Verdict::Done)));
    // Cut anywhere it is none.
    let cut = forms.iter().filter(|form| form.len() > 1);
    cases.extend(cut.map(|form| (packed_ping_with(&form[..form.len() / 2]), MALFORMED)));
    judged(&mut eve.connect_with(&broker, Encoding::MessagePack).await, &cases).await;

    // On the other subprotocol these bytes are texts that are no JSON, or no texts at all.
    let texts = forms.iter().filter_map(|form| String::from_utf8(form.clone()).ok());
    let texts: Vec<_> = texts.map(|text| (Message::text(text), MALFORMED)).collect();
    judged(&mut eve.connect(&broker).await, &texts).await;
    let mut none = 0;
    for form in forms.iter().filter(|form| std::str::from_utf8(form).is_err()) {
        let (mut line, _) = Line::open(&broker, Encoding::Json).await;
        line.client.send(&frame(0x81, form)).await;
        assert_eq!(line.close_code().await, Some(1007), "{form:02x?}");
        none += 1;
    }
    assert!(none > 50 && texts.len() > 10, "{none} and {}", texts.len());
    unharmed(&broker).await;
}

#[tokio::test]
async fn w3_naughty_strings_are_refused_or_ignored_wherever_a_text_may_stand() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let strings: Vec<String> = serde_json::from_str(NAUGHTY).unwrap();
    assert!(strings.len() > 480);
    for encoding in Encoding::ALL {
        let write = |value: &Value| match encoding {
            Encoding::Json => Message::text(value.to_string()),
            Encoding::MessagePack => {
                let mut bytes = Vec::new();
                super::tree::Tree::of_json(value).write_packed(&mut bytes);
                Message::binary(bytes)
            }
        };
        let mut cases = Vec::new();
        for text in &strings {
            cases.push((write(&json!({"id": 900, "request": {"type": text, "data": {}}})), ErrorCode::UnknownFrame));
            cases.push((write(&json!({"id": text, "request": {"type": "ping", "data": {}}})), ErrorCode::Malformed));
            let policy = json!({"id": 900, "request": {"type": "set_add_policy", "data": {"policy": text}}});
            cases.push((write(&policy), ErrorCode::Malformed));
            let by_name = json!({"id": 900, "request": {"type": "lookup_user", "data": {"username": text}}});
            let is_name = sealcast::protocol::username::Username::parse(text).is_ok();
            cases.push((write(&by_name), if is_name { ErrorCode::UnknownUser } else { ErrorCode::Malformed }));
            if encoding == Encoding::Json {
                cases.push((Message::text(text.clone()), ErrorCode::Malformed));
            } else {
                cases.push((Message::binary(text.clone().into_bytes()), ErrorCode::Malformed));
            }
        }
        let mut socket = eve.connect_with(&broker, encoding).await;
        let cases: Vec<_> = cases.into_iter().map(|(message, code)| (message, Verdict::Refused(code))).collect();
        // Looking somebody up takes its time, and answers may overtake: one after the other.
        for case in &cases {
            judged_alone(&mut socket, case).await;
        }
        let known = ["id", "request"];
        let named = strings.iter().filter(|text| !known.contains(&text.as_str()));
        let named = named.map(|text| {
            let value =
                json!({text.as_str(): text, "id": 900, "request": {"type": "ping", "data": {text.as_str(): 1}}});
            (write(&value), Verdict::Done)
        });
        judged(&mut socket, &named.collect::<Vec<_>>()).await;
    }
    for text in &strings {
        // Every byte escaped, so that it is one segment of the path whatever it is.
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) = broker.request("GET", &format!("/v1/users/{escaped}"), "").await;
        assert_eq!(status, 404, "{text:?}: {body}");
        assert!(body.starts_with("{\"code\":\"unknown_"), "{text:?}: {body}");
    }
    assert_eq!(broker.request("GET", "/v1/users/eve", "").await.0, 200);
    unharmed(&broker).await;
}

async fn judged_alone(socket: &mut Socket, case: &(Message, Verdict)) {
    judged(socket, std::slice::from_ref(case)).await;
}

#[tokio::test]
async fn w3_a_depth_of_a_hundred_thousand_is_skipped_or_malformed() {
    const DEPTH: usize = 100_000;
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let eve = Device::register(&broker, "eve").await;
    let mut socket = eve.connect(&broker).await;
    let lists = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let maps = format!("{}1{}", "{\"a\":".repeat(DEPTH / 3), "}".repeat(DEPTH / 3));
    let before_type = |text: &str| format!("{{\"id\":1,\"request\":{{\"data\":{{\"x\":{text}}},\"type\":\"ping\"}}}}");
    let mut cases = Vec::new();
    for text in [&lists, &maps] {
        cases.push((Message::text(text.clone()), MALFORMED));
        cases.push((Message::text(&text[..text.len() / 2]), MALFORMED));
        cases.push((Message::text(before_type(text)), MALFORMED));
        cases.push((ping_with(text), Verdict::Done));
        cases.push((ping_with(&text[..text.len() - 1]), MALFORMED));
    }
    judged(&mut socket, &cases).await;
    let mut socket = eve.connect_with(&broker, Encoding::MessagePack).await;
    let mut cases = Vec::new();
    for nest in [b"\x91".as_slice(), b"\x81\xa1a", b"\xdd\x00\x00\x00\x01", b"\x81\xc0", b"\xdf\x00\x00\x00\x01\xa0"] {
        let depth = DEPTH.min(250_000 / nest.len());
        let deep = [nest.repeat(depth), vec![0xc0]].concat();
        cases.push((Message::binary(deep.clone()), MALFORMED));
        cases.push((packed_ping_with(&deep), MALFORMED));
    }
    judged(&mut socket, &cases).await;
    unharmed(&broker).await;
}
