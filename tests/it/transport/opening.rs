//! The opening handshake as browsers, libraries and attackers send it.
//!
//! Source: RFC 6455, sections 4.1, 4.2 and 9.1; RFC 9112, section 3.2 for the Host header.

use std::time::{Duration, Instant};

use sealcast::gateway::transport::MessageKind;
use tokio::io::AsyncReadExt;

use super::support::{Client, Read, Setup, TestServer, frame, within};

const LAWFUL: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// All that the server sends until it closes.
async fn all(client: &mut Client) -> String {
    let mut answer = Vec::new();
    let _ = within(client.stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[actix_web::test]
async fn what_browsers_and_libraries_send_is_accepted_and_works() {
    let mut server = TestServer::start(Setup::default());
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "connection: upgrade"),
        ("Upgrade: websocket", "Upgrade: WebSocket"),
        ("Host: localhost", "Host: localhost\r\nContent-Length: 0"),
        ("Host: localhost", "Host: localhost\r\nPragma: no-cache\r\nCookie: a=b"),
        ("GET / ", "GET /?a=b "),
        ("Version: 13", "Version:13"),
    ] {
        let request = LAWFUL.replacen(from, to, 1);
        assert_ne!(request, LAWFUL);
        let (mut client, head) = Client::request(server.port, &request).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{to}: {head}");
        let lower = head.to_ascii_lowercase();
        assert!(lower.contains("\r\nupgrade: websocket\r\n"), "{head}");
        assert!(lower.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        let mut served = server.accepted().await;
        client.send(&frame(0x81, b"works")).await;
        assert_eq!(served.message().await.data, "works", "{to}");
    }
    server.stop().await;
}

#[actix_web::test]
async fn keys_versions_and_hosts_are_judged() {
    let server = TestServer::start(Setup::default());
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (from, to, status) in [
        (key, "Sec-WebSocket-Key: ", 400),
        (key, "Sec-WebSocket-Key: ==", 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ", 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==", 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZXM=", 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j", 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j-Q==", 400),
        (key, &format!("{key}\r\n{key}"), 400),
        ("Version: 13", "Version: 12", 426),
        ("Version: 13", "Version: 14", 426),
        ("Version: 13", "Version: 0", 426),
        ("Version: 13", "Version: 013", 426),
        ("Version: 13", "Version: 13, 8", 426),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426),
        ("Version: 13", "Version: -13", 426),
        ("Host: localhost\r\n", "", 400),
        ("Host: localhost", "Host: localhost\r\nHost: elsewhere", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("GET ", "HEAD ", 405),
        ("GET ", "OPTIONS ", 405),
        ("Upgrade: websocket", "Upgrade: websockets", 400),
        ("Upgrade: websocket", "Upgrade: web socket", 400),
        // The layer below would take no frames after it: refused is better than dead.
        ("Upgrade: websocket", "Upgrade: h2c, websocket", 400),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket", 400),
        ("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: h2c", 400),
        ("Host: localhost", "Host: localhost\r\nTransfer-Encoding: chunked", 400),
    ] {
        let request = LAWFUL.replacen(from, to, 1);
        assert_ne!(request, LAWFUL);
        let (_client, head) = Client::request(server.port, &request).await;
        assert_eq!(head.split(' ').nth(1), Some(status.to_string().as_str()), "{from} -> {to}: {head}");
        assert!(!head.to_ascii_lowercase().contains("sec-websocket-accept"), "{head}");
    }
    server.stop().await;
}

#[actix_web::test]
async fn no_extension_and_no_unasked_subprotocol_is_ever_agreed_to() {
    let mut server = TestServer::start(Setup::default());
    for offer in [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        "Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-bzip2\r\n",
        "Sec-WebSocket-Protocol: chat, superchat\r\n",
    ] {
        let (mut client, head) = Client::handshake(server.port, offer).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let lower = head.to_ascii_lowercase();
        assert!(!lower.contains("sec-websocket-extensions") && !lower.contains("sec-websocket-protocol"), "{head}");
        let mut served = server.accepted().await;
        // What such an extension would have made of a text: its first bit says "compressed".
        client.send(&frame(0xC1, &[0xAA, 0x56, 0x4A, 0x4E, 0x4C, 0x4C, 0x04, 0x00])).await;
        assert_eq!(client.read().await.close_code(), Some(1002), "{offer}");
        served.closed().await;
    }
    server.stop().await;
}

#[actix_web::test]
async fn frames_on_the_heels_of_the_handshake_are_not_lost() {
    let mut server = TestServer::start(Setup::default());
    let big: Vec<u8> = (0..50_000_u32).map(|index| (index % 251).to_le_bytes()[0]).collect();
    for chunk in [1, 7, 1000, usize::MAX] {
        let frames = [frame(0x81, b"at once"), frame(0x82, &big), frame(0x89, b"?")].concat();
        let script = [LAWFUL.as_bytes(), &frames].concat();
        let mut client = Client::connect(server.port).await;
        // The head in pieces, and the frames in the same segment as its end.
        let head = &script[..LAWFUL.len() - 2];
        for part in head.chunks(chunk.min(head.len())) {
            client.send(part).await;
        }
        client.send(&script[LAWFUL.len() - 2..]).await;
        let mut served = server.accepted().await;
        let text = served.message().await;
        assert_eq!((text.kind, &text.data[..]), (MessageKind::Text, &b"at once"[..]), "chunks of {chunk}");
        drop(text);
        assert_eq!(served.message().await.data, big);
        client.head().await;
        assert_eq!(client.read().await, Read::Frame(0x8A, b"?".to_vec()));
    }
    server.stop().await;
}

#[actix_web::test]
async fn a_broken_frame_on_the_heels_of_the_handshake_gets_its_code() {
    let mut server = TestServer::start(Setup::default());
    let mut client = Client::connect(server.port).await;
    client.send(&[LAWFUL.as_bytes(), &[0x81, 1, b'x']].concat()).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.read().await.close_code(), Some(1002));
    assert_eq!(client.read().await, Read::Eof);
    server.accepted().await.closed().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_refused_handshake_ends_its_connection_whatever_follows_it() {
    let mut server = TestServer::start(Setup::default());
    for (from, to) in [("Version: 13", "Version: 8"), ("Key: dGhl", "Key: !!!!"), ("GET ", "POST ")] {
        let refused = LAWFUL.replacen(from, to, 1);
        let mut client = Client::connect(server.port).await;
        client.send([refused.as_str(), LAWFUL].concat().as_bytes()).await;
        let answer = all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    let (_client, _served) = server.open().await;
    server.stop().await;
}

#[actix_web::test]
async fn a_head_that_is_too_large_is_refused_and_the_connection_ended() {
    let mut server = TestServer::start(Setup::default());
    let long = format!("X-Long: {}\r\n", "a".repeat(300 * 1024));
    let many: String = (0..500).map(|index| format!("X-{index}: 1\r\n")).collect();
    let target = format!("GET /{} HTTP/1.1", "a".repeat(300 * 1024));
    for request in [
        LAWFUL.replacen("\r\n\r\n", &format!("\r\n{long}\r\n"), 1),
        LAWFUL.replacen("\r\n\r\n", &format!("\r\n{many}\r\n"), 1),
        LAWFUL.replacen("GET / HTTP/1.1", &target, 1),
    ] {
        let mut client = Client::connect(server.port).await;
        // The server may stop reading, and close, before it has taken all of it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, request.as_bytes()).await;
        let answer = all(&mut client).await;
        assert!(!answer.contains(" 101 "), "{answer}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // A head that never ends is not taken in without end either.
    let mut client = Client::connect(server.port).await;
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ").await;
    let taken = client.flood(b"a", 64 << 20).await;
    assert!(taken < 2 << 20, "{taken} bytes of a header taken");
    let (_client, _served) = server.open().await;
    server.stop().await;
}

#[actix_web::test]
async fn malformed_requests_are_refused_and_never_upgraded() {
    let mut server = TestServer::start(Setup::default());
    for request in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        LAWFUL.replacen("GET /", "GET", 1),
        LAWFUL.replacen("HTTP/1.1", "HTTP/9.9", 1),
        LAWFUL.replacen("HTTP/1.1", "HTTP/1.1 x", 1),
        LAWFUL.replacen("Host: localhost", "Host : localhost", 1),
        LAWFUL.replacen("Host: localhost", "Ho\0st: localhost", 1),
        LAWFUL.replacen("Host: localhost", "Host: local\0host", 1),
        LAWFUL.replacen("Host: localhost", "Host: localhost\r\n folded", 1),
        LAWFUL.replacen("Host: localhost", "Host: localhost\r\nContent-Length: -1", 1),
        LAWFUL.replacen("Host: localhost", "Host: localhost\r\nContent-Length: 0\r\nContent-Length: 5", 1),
        LAWFUL.replacen("Host: localhost", "Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", 1),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}\x03\x03\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut client = Client::connect(server.port).await;
        client.send(request.as_bytes()).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
        let answer = all(&mut client).await;
        assert!(!answer.contains(" 101 "), "{request:?}: {answer}");
    }
    let (_client, _served) = server.open().await;
    server.stop().await;
}

#[actix_web::test]
async fn slow_handshakes_are_ended_while_others_come_in() {
    let mut server = TestServer::start(Setup::default());
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(server.port).await;
        client.send(&LAWFUL.as_bytes()[..60]).await;
        slow.push(client);
    }
    // One that is never silent for long, but never comes to an end.
    let mut trickle = Client::connect(server.port).await;
    let trickling = async {
        for byte in LAWFUL.bytes().cycle().filter(|byte| *byte != b'\n') {
            let mut seen = [0];
            if tokio::io::AsyncWriteExt::write_all(&mut trickle.stream, &[byte]).await.is_err() {
                return;
            }
            if let Ok(Ok(0 | 1) | Err(_)) =
                tokio::time::timeout(Duration::from_millis(100), trickle.stream.read(&mut seen)).await
            {
                return;
            }
        }
    };
    let good = async {
        let before = Instant::now();
        let (mut client, mut served) = server.open().await;
        client.send(&frame(0x81, b"hello")).await;
        assert_eq!(served.message().await.data, "hello");
        assert!(before.elapsed() < Duration::from_secs(2));
    };
    tokio::join!(within(trickling), good);
    for client in &mut slow {
        let answer = all(client).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    server.stop().await;
}

#[actix_web::test]
async fn the_broker_itself_ends_slow_handshakes_too() {
    let database = crate::support::database::Database::create().await;
    let broker = crate::support::broker::Broker::start(&database).await;
    for address in [broker.address(), broker.operator.strip_prefix("http://").unwrap()] {
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        let mut client = Client::connect(port).await;
        client.send(&LAWFUL.as_bytes()[..60]).await;
        let answer = all(&mut client).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}
