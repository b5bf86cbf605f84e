//! W1, W2 and what is beside them: broken frames, frames that lie about their size, what stands around a goodbye.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Nothing, Request};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::limits::FRAME_BYTES_MAX;

use super::super::super::messages::Pair;
use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::eventually;
use super::super::super::transport::support::{Client, Read, frame, frame_declaring};
use super::line::{Line, handshake, port};
use super::{unharmed, unhurried};

const CHATS: &str = "SELECT count(*) FROM chats";

/// Bytes that break a rule, with the code of it; `first` is the first byte of a message of the encoding.
fn violations(first: u8) -> Vec<(&'static str, Vec<u8>, u16)> {
    let start = first & 0x0F;
    let large = vec![b' '; FRAME_BYTES_MAX - 10];
    vec![
        ("reserved bit 1", frame(first | 0x40, b"x"), 1002),
        ("reserved bit 2", frame(first | 0x20, b"x"), 1002),
        ("reserved bit 3 on a ping", frame(0x99, b"x"), 1002),
        ("unmasked", vec![first, 1, b'x'], 1002),
        ("unknown data opcode", frame(0x83, b"x"), 1002),
        ("unknown control opcode", frame(0x8F, b"x"), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("long ping", frame_declaring(0x89, 126, b""), 1002),
        ("long goodbye", frame(0x88, &[[3, 232].as_slice(), &[b'x'; 124]].concat()), 1002),
        ("length not minimal", vec![first, 0xFE, 0, 5, 0, 0, 0, 0], 1002),
        ("64-bit length not minimal", vec![first, 0xFF, 0, 0, 0, 0, 0, 0, 1, 0], 1002),
        ("length with its highest bit", vec![first, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("message inside a message", [frame(start, b"{"), frame(first, b"}")].concat(), 1002),
        ("text not UTF-8", frame(0x81, &[b'{', 0xFF]), 1007),
        ("text not UTF-8 across fragments", [frame(0x01, &[0xF0, 0x9F]), frame(0x80, b"x")].concat(), 1007),
        ("goodbye of one byte", frame(0x88, &[3]), 1002),
        ("goodbye with code 1005", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("goodbye whose reason is not UTF-8", frame(0x88, &[3, 232, 0xFF]), 1007),
        ("one byte too many", frame_declaring(first, FRAME_BYTES_MAX as u64 + 1, b""), 1009),
        ("too many in two fragments", [frame(start, &large), frame_declaring(0x80, 11, b"")].concat(), 1009),
        ("more than there is", frame_declaring(first, 1 << 40, b""), 1009),
    ]
}

#[tokio::test]
async fn w1_every_broken_rule_has_its_code_executes_nothing_and_disturbs_nobody() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let chats = pair.database.count(CHATS).await;
    for encoding in Encoding::ALL {
        for is_logged_in in [false, true] {
            for (name, bytes, code) in violations(if encoding == Encoding::Json { 0x81 } else { 0x82 }) {
                let mut line = match is_logged_in {
                    true => Line::logged_in(&pair.broker, encoding, &eve).await,
                    false => Line::open(&pair.broker, encoding).await.0,
                };
                // What follows on its heels would be good, were it not for what stands before it.
                let creation = Request::CreateChat(eve.creation(ChatId::generate()));
                let bytes = [bytes, line.message(2, creation)].concat();
                line.client.send(&bytes).await;
                assert_eq!(line.close_code().await, Some(code), "{name}, {encoding:?}, logged in: {is_logged_in}");
                assert_eq!(line.client.read().await, Read::Eof, "{name}");
            }
            pair.ada.say(&mut pair.ada_socket, pair.chat_id, "undisturbed").await.unwrap();
        }
        let mut line = Line::logged_in(&pair.broker, encoding, &eve).await;
        let ping = line.message(2, Request::Ping(Nothing {}));
        line.client.send(&ping).await;
        line.answer(2).await;
    }
    assert_eq!(pair.database.count(CHATS).await, chats);
    unharmed(&pair.broker).await;
}

#[tokio::test]
async fn w1_what_follows_a_goodbye_or_is_never_whole_is_not_executed() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let eve = Device::register(&broker, "eve").await;
    let goodbye = frame(0x88, &1000_u16.to_be_bytes());
    for (chats, encoding) in (0..).zip(Encoding::ALL) {
        let mut line = Line::logged_in(&broker, encoding, &eve).await;
        let create = line.body(2, Request::CreateChat(eve.creation(ChatId::generate())));
        let (start, rest) = create.split_at(create.len() / 2);
        let opcode = line.first() & 0x0F;
        for (name, script, is_answered) in [
            ("after it", [goodbye.clone(), frame(line.first(), &create)].concat(), true),
            ("around it", [frame(opcode, start), goodbye.clone(), frame(0x80, rest)].concat(), true),
            ("the last fragment lacks", frame(opcode, &create), false),
            ("the last byte lacks", frame(line.first(), &create).split_last().unwrap().1.to_vec(), false),
        ] {
            line.client.send(&script).await;
            if is_answered {
                assert_eq!(line.close_code().await, Some(1000), "{name}");
                assert_eq!(line.client.read().await, Read::Eof, "{name}");
            }
            line = Line::logged_in(&broker, encoding, &eve).await;
        }
        // By the time that others have gone in order, what they left would have been executed.
        let ended = async || broker.metric("sealcast_connections{", "").await == 1.0;
        eventually("the end of the others", ended).await;
        assert_eq!(database.count(CHATS).await, chats, "{encoding:?}");
        // What stands before a goodbye is.
        line.client.send(&[frame(line.first(), &create), goodbye.clone()].concat()).await;
        assert_eq!(line.close_code().await, Some(1000));
        eventually("the chat", async || database.count(CHATS).await == chats + 1).await;
    }
    unharmed(&broker).await;
}

#[tokio::test]
async fn w2_fifty_at_once_that_declare_a_tebibyte_are_refused_from_the_header_and_cost_nothing() {
    const CONNECTIONS: usize = 50;
    const FLOOD_BYTES: usize = 4 << 20;
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let mut devices = Vec::new();
    for index in 0..CONNECTIONS / 5 {
        devices.push(Device::register(&broker, &format!("liar{index}")).await);
    }
    let open_all = async || {
        let mut lines = Vec::new();
        for index in 0..CONNECTIONS {
            let encoding = Encoding::ALL[index % 2];
            // Each fifth one has logged in.
            lines.push(match index % 5 {
                0 => Line::logged_in(&broker, encoding, &devices[index / 5]).await,
                _ => Line::open(&broker, encoding).await.0,
            });
        }
        lines
    };
    // What fifty connections cost by themselves is there before and after.
    drop(open_all().await);
    let mut lines = open_all().await;
    let before_mib = broker.rss_mib();
    let mut floods = Vec::new();
    for (index, mut line) in lines.drain(..).enumerate() {
        floods.push(tokio::spawn(async move {
            let header = match index % 3 {
                0 => frame_declaring(line.first(), 1 << 40, b""),
                1 => [frame(line.first() & 0x0F, b"{"), frame_declaring(0x80, 1 << 40, b"")].concat(),
                _ => frame_declaring(line.first(), (1 << 63) - 1, b""),
            };
            line.client.send(&header).await;
            let taken = match index % 2 {
                0 => 0,
                _ => line.client.flood(&[0; 1024], FLOOD_BYTES).await,
            };
            assert!(taken < FLOOD_BYTES, "all of it was taken");
            (line.close_code().await, line.client.read().await)
        }));
    }
    for flood in floods {
        let (code, end) = flood.await.unwrap();
        assert_eq!(code, Some(1009));
        assert_eq!(end, Read::Eof);
    }
    let grown_mib = broker.rss_mib().saturating_sub(before_mib);
    assert!(grown_mib < 24, "{grown_mib} MiB for headers");
    let mut socket = devices[0].connect(&broker).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    unharmed(&broker).await;
}

#[tokio::test]
async fn w5_a_subprotocol_that_is_offered_twice_is_agreed_to_once() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (json, packed) = ("sealcast.v1.json", "sealcast.v1.msgpack");
    for (lines, agreed) in [
        (format!("Sec-WebSocket-Protocol: {json}, {json}\r\n"), Some(json)),
        (format!("Sec-WebSocket-Protocol: {json}\r\nSec-WebSocket-Protocol: {json}\r\n"), Some(json)),
        (format!("Sec-WebSocket-Protocol: {packed}\r\nSec-WebSocket-Protocol: {json}\r\n"), Some(packed)),
        (format!("Sec-WebSocket-Protocol: ,, {json} ,\r\n"), Some(json)),
        (format!("Sec-WebSocket-Protocol: {}\r\n", json.to_uppercase()), None),
        (format!("Sec-WebSocket-Protocol: {json};{packed}\r\n"), None),
        (format!("Sec-WebSocket-Protocol: {json} {packed}\r\n"), None),
        ("Sec-WebSocket-Protocol:\r\n".to_owned(), None),
    ] {
        let (_client, head) = Client::request(port(&broker), &handshake(&lines)).await;
        let head = head.to_ascii_lowercase();
        let Some(agreed) = agreed else {
            assert!(head.starts_with("http/1.1 400 "), "{lines}: {head}");
            continue;
        };
        assert!(head.starts_with("http/1.1 101 "), "{lines}: {head}");
        assert_eq!(head.matches("sec-websocket-protocol").count(), 1, "{lines}: {head}");
        assert!(head.contains(&format!("sec-websocket-protocol: {agreed}\r\n")), "{lines}: {head}");
    }
    let eve = Device::register(&broker, "eve").await;
    assert!(eve.connect(&broker).await.request(Request::Ping(Nothing {})).await.is_ok());
}
