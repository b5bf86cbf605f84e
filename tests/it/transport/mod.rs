//! The rules that the transport must hold, each seen from a raw socket.

mod floods;
mod framing;
mod opening;
pub(crate) mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::support::{Client, Event, Read, Setup, TestServer, frame, frame_declaring, within};
use futures_util::{SinkExt, StreamExt};
use sealcast::broker::outbox::{OutboxLimits, PushError};
use sealcast::broker::ready_frame::ReadyFrame;
use sealcast::gateway::reaper::ReaperLimits;
use sealcast::gateway::transport::{Closed, KillSwitch, Linger, MessageKind, TransportLimits, Violation};
use tokio::io::AsyncWriteExt;

/// What the kernel may hold on both ends of one connection with the buffers that these tests set (it doubles them),
/// plus the HTTP layer's own two buffers of 32 KiB and some.
const IN_FLIGHT_MAX: usize = 768 * 1024;

fn limits(message_bytes_max: usize, outstanding_messages_max: usize) -> TransportLimits {
    TransportLimits { message_bytes_max, outstanding_bytes_max: message_bytes_max, outstanding_messages_max }
}

fn echoing(message_bytes_max: usize) -> Setup {
    Setup {
        limits: limits(message_bytes_max, 64),
        outbox: OutboxLimits { frames_max: 1024, bytes_max: 8 << 20, reserve_bytes: 1 << 20 },
        echoes: true,
        ..Setup::default()
    }
}

#[actix_web::test]
async fn g1_a_declared_length_above_the_limit_is_refused_from_the_header_alone() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    client.send(&frame_declaring(0x82, 1 << 40, b"")).await;
    assert_eq!(client.read().await, Read::close(1009, "message too large"));
    assert_eq!(client.read().await, Read::Eof);
    assert_eq!(served.closed().await, Closed::Violation(Violation::TooLarge));
    server.stop().await;
}

#[actix_web::test]
async fn g1_payload_behind_a_refused_header_is_never_taken_in() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    client.send(&frame_declaring(0x82, 1 << 40, b"")).await;
    let taken = client.flood(&[0; 1024], 64 << 20).await;
    assert!(taken < IN_FLIGHT_MAX, "{taken} bytes taken");
    assert_eq!(client.read().await.close_code(), Some(1009), "a reset must not overtake the close frame");
    assert_eq!(client.read().await, Read::Eof);
    assert_eq!(served.closed().await, Closed::Violation(Violation::TooLarge));
    server.stop().await;
}

#[actix_web::test]
async fn g1_the_sum_of_fragments_is_refused_from_the_header_that_exceeds_it() {
    let mut server = TestServer::start(Setup { limits: limits(1000, 8), ..Setup::default() });
    let (mut client, mut served) = server.open().await;
    client.send(&frame(0x02, &[0; 600])).await;
    client.send(&frame_declaring(0x00, 401, b"")).await;
    assert_eq!(client.read().await.close_code(), Some(1009));
    assert_eq!(served.closed().await, Closed::Violation(Violation::TooLarge));
    server.stop().await;
}

#[actix_web::test]
async fn g1_every_broken_rule_has_its_code_and_ends_only_its_own_connection() {
    let mut server = TestServer::start(Setup { limits: limits(1000, 8), ..Setup::default() });
    let (mut witness, mut witness_served) = server.open().await;
    let long_control = frame_declaring(0x89, 126, &[]);
    let unmasked = [0x81, 1, b'x'];
    let not_minimal = [0x82, 0xFE, 0, 5, 0, 0, 0, 0];
    let not_minimal_64 = [0x82, 0xFF, 0, 0, 0, 0, 0, 0, 1, 0];
    let highest_bit = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0];
    let text_in_text = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
    let bad_text_in_parts = [frame(0x01, &[0xF0, 0x9F]), frame(0x80, b"x")].concat();
    let text_cut_short = [frame(0x01, b"a"), frame(0x80, &[0xF0, 0x9F])].concat();
    let close = |payload: &[u8]| frame(0x88, payload);
    for (name, bytes, code) in [
        ("reserved bit 1", frame(0xC1, b"x"), 1002),
        ("reserved bit 2", frame(0xA1, b"x"), 1002),
        ("reserved bit 3 on a ping", frame(0x99, b"x"), 1002),
        ("unmasked", unmasked.to_vec(), 1002),
        ("unknown data opcode", frame(0x83, b"x"), 1002),
        ("unknown control opcode", frame(0x8B, b"x"), 1002),
        ("fragmented ping", frame(0x09, b"x"), 1002),
        ("long ping", long_control, 1002),
        ("length not minimal", not_minimal.to_vec(), 1002),
        ("64-bit length not minimal", not_minimal_64.to_vec(), 1002),
        ("length with its highest bit", highest_bit.to_vec(), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("continuation after a whole message", [frame(0x81, b"a"), frame(0x80, b"b")].concat(), 1002),
        ("message inside a message", text_in_text, 1002),
        ("text not utf-8", frame(0x81, &[b'a', 0xFF]), 1007),
        ("text not utf-8 across fragments", bad_text_in_parts, 1007),
        ("text that ends within a character", text_cut_short, 1007),
        ("close of one byte", close(&[3]), 1002),
        ("close with code 1005", close(&1005_u16.to_be_bytes()), 1002),
        ("close with code 2999", close(&2999_u16.to_be_bytes()), 1002),
        ("close reason not utf-8", close(&[3, 232, 0xFF]), 1007),
        ("one byte too many", frame(0x82, &[0; 1001]), 1009),
    ] {
        let (mut client, mut served) = server.open().await;
        client.send(&bytes).await;
        assert_eq!(client.read().await.close_code(), Some(code), "{name}");
        assert_eq!(client.read().await, Read::Eof, "{name}");
        match served.closed().await {
            Closed::Violation(violation) => assert_eq!(violation.close_code(), code, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    witness.send(&frame(0x81, b"still here")).await;
    assert_eq!(witness_served.message().await.data, "still here");
    server.stop().await;
}

#[actix_web::test]
async fn g1_frames_cut_anywhere_read_the_same() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    let big: Vec<u8> = (0..10_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    let script = [
        frame(0x81, "κόσμε".as_bytes()),
        frame(0x01, "frag".as_bytes()),
        frame(0x89, b"ping"),
        frame(0x00, &[]),
        frame(0x80, "ment".as_bytes()),
        frame(0x82, &[]),
        frame(0x8A, b"unasked"),
        frame(0x82, &big),
    ]
    .concat();
    for size in [1, 2, 3, 7, 100, 4099, script.len()] {
        for chunk in script.chunks(size) {
            client.send(chunk).await;
        }
        let text = served.message().await;
        assert_eq!((text.kind, &text.data[..]), (MessageKind::Text, "κόσμε".as_bytes()), "chunks of {size}");
        let fragments = served.message().await;
        assert_eq!((fragments.kind, &fragments.data[..]), (MessageKind::Text, &b"fragment"[..]));
        let empty = served.message().await;
        assert_eq!((empty.kind, empty.data.len()), (MessageKind::Binary, 0));
        assert!(matches!(within(served.events.recv()).await, Some(Event::Pong)));
        assert_eq!(served.message().await.data, big);
        assert_eq!(client.read().await, Read::Frame(0x8A, b"ping".to_vec()));
    }
    server.stop().await;
}

#[actix_web::test]
async fn m2_without_credits_a_flood_stops_at_the_bounds_and_credits_let_it_go_on() {
    for size in [0, 1, 1000] {
        let mut server = TestServer::start(Setup { limits: limits(20_000, 16), ..Setup::default() });
        let (mut client, mut served) = server.open().await;
        let message = frame(0x82, &vec![7; size]);
        let taken = client.flood(&message, 256 << 20).await;
        assert!(taken < IN_FLIGHT_MAX, "{taken} bytes taken of messages of {size}");

        let mut held = Vec::new();
        while let Ok(event) = served.events.try_recv() {
            match event {
                Event::Message(message) => held.push(message),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(held.len(), 16, "messages of {size}");
        // Each credit lets in exactly one more.
        for _ in 0..100 {
            held.remove(0);
            held.push(served.message().await);
            assert!(served.events.try_recv().is_err());
        }
        held.clear();
        assert_eq!(served.message().await.data.len(), size);
        drop(client);
        assert_eq!(served.closed().await, Closed::Lost);
        server.stop().await;
    }
}

#[actix_web::test]
async fn m2_the_byte_bound_holds_too() {
    let mut server = TestServer::start(Setup { limits: limits(10_000, 64), ..Setup::default() });
    let (mut client, mut served) = server.open().await;
    let taken = client.flood(&frame(0x82, &[7; 4000]), 64 << 20).await;
    assert!(taken < IN_FLIGHT_MAX, "{taken} bytes taken");
    let held = [served.message().await, served.message().await];
    assert!(served.events.try_recv().is_err(), "a third message exceeds 10,000 bytes");
    drop(held);
    served.message().await;
    server.stop().await;
}

#[actix_web::test]
async fn m2_a_message_of_exactly_the_limit_passes_in_many_fragments() {
    let mut server = TestServer::start(Setup { limits: limits(3000, 1), ..Setup::default() });
    let (mut client, mut served) = server.open().await;
    client.send(&frame(0x82, b"first")).await;
    let first = served.message().await;
    for index in 0..3000 {
        client.send(&frame(if index == 0 { 0x02 } else { 0x00 }, b"x")).await;
    }
    client.send(&frame(0x80, b"")).await;
    assert!(served.events.try_recv().is_err());
    drop(first);
    assert_eq!(served.message().await.data.len(), 3000);
    server.stop().await;
}

#[actix_web::test]
async fn m2_a_mebibyte_in_seven_pieces_comes_back_whole() {
    let mut server = TestServer::start(echoing(1 << 20));
    let (client, _served) = server.open().await;
    let message: Vec<u8> = (0..1_u32 << 20).map(|index| (index % 251).to_le_bytes()[0]).collect();
    let mut script = Vec::new();
    let pieces: Vec<_> = message.chunks((message.len() / 7) + 1).collect();
    assert_eq!(pieces.len(), 7);
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = if index == 0 { 0x02 } else { 0x00 };
        script.extend(frame(if index == 6 { opcode | 0x80 } else { opcode }, piece));
    }
    // Written while being read: with small kernel buffers neither end takes it all at once.
    let (mut reading, mut writing) = client.stream.into_split();
    let writer = actix_web::rt::spawn(async move {
        writing.write_all(&script).await.unwrap();
        writing
    });
    let mut echoed = vec![0; message.len() + 10];
    within(tokio::io::AsyncReadExt::read_exact(&mut reading, &mut echoed)).await.unwrap();
    assert_eq!(echoed[..10], [0x82, 127, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert!(echoed[10..] == message[..]);
    drop(writer.await);
    server.stop().await;
}

#[actix_web::test]
async fn m2_a_ping_flood_from_one_who_reads_no_pongs_stays_bounded() {
    let outbox = OutboxLimits { frames_max: 32, bytes_max: 4096, reserve_bytes: 4096 };
    let mut server = TestServer::start(Setup { outbox, ..Setup::default() });
    let (mut client, served) = server.open().await;
    let taken = client.flood(&frame(0x89, &[1; 125]), 64 << 20).await;
    assert!(taken < 2 * IN_FLIGHT_MAX, "{taken} bytes of pings taken");
    assert!(served.connection.outbox.frames() <= 33 && served.connection.outbox.bytes() <= 4096 + 127);
    assert!(!served.connection.outbox.is_closed());
    server.stop().await;
}

#[actix_web::test]
async fn f3_a_goodbye_is_answered_with_its_code_and_tcp_ends_at_once() {
    let mut server = TestServer::start(Setup::default());
    for code in [1000_u16, 1001, 1012, 3000, 4999] {
        let (mut client, mut served) = server.open().await;
        client.send(&frame(0x88, &[&code.to_be_bytes()[..], b"bye"].concat())).await;
        assert_eq!(client.read().await, Read::close(code, ""));
        let before = Instant::now();
        assert_eq!(client.read().await, Read::Eof);
        assert!(before.elapsed() < Duration::from_millis(500));
        let reason = "bye".to_owned();
        assert_eq!(served.closed().await, Closed::ByPeer { code: Some(code), reason });
    }
    let (mut client, mut served) = server.open().await;
    client.send(&frame(0x88, b"")).await;
    assert_eq!(client.read().await, Read::Frame(0x88, vec![]));
    assert_eq!(served.closed().await, Closed::ByPeer { code: None, reason: String::new() });
    server.stop().await;
}

#[actix_web::test]
async fn f3_messages_before_a_goodbye_are_told_and_those_after_are_not() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    let script = [frame(0x81, b"before"), frame(0x88, &[3, 232]), frame(0x81, b"after")].concat();
    client.send(&script).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(served.message().await.data, "before");
    assert!(matches!(within(served.events.recv()).await, Some(Event::Closed(Closed::ByPeer { .. }))));
    assert!(within(served.events.recv()).await.is_none());
    server.stop().await;
}

#[actix_web::test]
async fn h4_the_handshake_is_judged_and_says_what_is_wrong() {
    let listed = Setup {
        subprotocols: &["sealcast.v1.json", "sealcast.v1.msgpack"],
        origins: Some(vec!["https://chat.example".to_owned()]),
        ..Setup::default()
    };
    let mut server = TestServer::start(listed);
    let lawful = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                  Sec-WebSocket-Protocol: sealcast.v1.json\r\n\r\n";
    for (from, to, status) in [
        ("GET /", "POST /", 405),
        ("Upgrade: websocket\r\n", "", 400),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: anything", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("sealcast.v1.json", "chat", 400),
        ("Sec-WebSocket-Protocol: sealcast.v1.json\r\n", "", 400),
        ("Host: localhost", "Host: localhost\r\nOrigin: https://evil.example", 403),
        ("Host: localhost", "Host: localhost\r\nContent-Length: 3", 400),
    ] {
        let request = lawful.replacen(from, to, 1);
        assert_ne!(request, lawful);
        let (_client, head) = Client::request(server.port, &request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{from} -> {to}: {head}");
        let names_version = head.to_ascii_lowercase().contains("sec-websocket-version: 13\r\n");
        assert_eq!(names_version, status == 426, "{head}");
    }
    for (offer, picked) in [("sealcast.v1.msgpack, sealcast.v1.json", 1), ("x, sealcast.v1.json", 0)] {
        let headers = format!("Origin: https://chat.example\r\nSec-WebSocket-Protocol: {offer}\r\n");
        let (_client, head) = Client::handshake(server.port, &headers).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let name = ["sealcast.v1.json", "sealcast.v1.msgpack"][picked];
        assert!(head.to_ascii_lowercase().contains(&format!("sec-websocket-protocol: {name}\r\n")), "{head}");
        // Source: RFC 6455, section 1.3, the example.
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert_eq!(server.accepted().await.connection.subprotocol, Some(picked));
    }
    server.stop().await;
}

#[actix_web::test]
async fn o5_pushes_from_another_thread_arrive_whole_and_in_order() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, served) = server.open().await;
    let outbox = Arc::clone(&served.connection.outbox);
    let runtime = tokio::runtime::Handle::current();
    let pusher = std::thread::spawn(move || {
        for index in 0..2000_u32 {
            let payload = [&index.to_be_bytes()[..], &vec![b'x'; (index as usize * 37) % 30_000]].concat();
            let pushed = ReadyFrame::binary(&payload);
            while outbox.try_push(&pushed) == Err(PushError::Full) {
                runtime.block_on(async { within(outbox.drained()).await });
            }
        }
    });
    for index in 0..2000_u32 {
        match client.read().await {
            Read::Frame(0x82, payload) => {
                assert_eq!(payload[..4], index.to_be_bytes());
                assert_eq!(payload.len(), 4 + (index as usize * 37) % 30_000);
            }
            other => panic!("{index}: {other:?}"),
        }
    }
    pusher.join().unwrap();
    assert_eq!((served.connection.outbox.frames(), served.connection.outbox.bytes()), (0, 0));
    server.stop().await;
}

#[actix_web::test]
async fn o5_every_way_to_end_is_told_once() {
    let mut server = TestServer::start(Setup::default());

    let (mut client, mut served) = server.open().await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(served.closed().await, Closed::Lost, "half-close");
    assert_eq!(client.read().await, Read::Eof);
    assert!(served.connection.outbox.is_closed());

    let (client, mut served) = server.open().await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(served.closed().await, Closed::Lost, "reset");

    let (mut client, mut served) = server.open().await;
    client.send(&frame(0x81, b"cut")[..5]).await;
    drop(client);
    assert_eq!(served.closed().await, Closed::Lost, "end of file within a frame");

    let (mut client, mut served) = server.open().await;
    served.connection.outbox.try_push(&ReadyFrame::text(b"last")).unwrap();
    served.connection.outbox.close(1012, "restart");
    assert_eq!(client.read().await, Read::Frame(0x81, b"last".to_vec()));
    assert_eq!(client.read().await, Read::close(1012, "restart"));
    assert_eq!(client.read().await, Read::Eof);
    assert_eq!(served.closed().await, Closed::ByUs { code: 1012 });

    let (mut client, mut served) = server.open().await;
    served.connection.outbox.abort();
    assert_eq!(client.read().await, Read::Eof);
    assert_eq!(served.closed().await, Closed::Cut, "abort");

    let (mut client, mut served) = server.open().await;
    assert!(served.connection.kill.kill());
    assert!(!served.connection.kill.kill());
    assert_eq!(client.read().await, Read::Eof);
    assert_eq!(served.closed().await, Closed::Cut, "kill");
    server.stop().await;
}

#[actix_web::test]
async fn o5_a_close_by_us_is_seen_even_while_the_other_end_floods() {
    let mut server = TestServer::start(Setup { limits: limits(1000, 1), ..Setup::default() });
    let (mut client, mut served) = server.open().await;
    // The withheld credit leaves the flood unread in the server's socket: closing that would make a reset.
    client.flood(&frame(0x82, &[0; 500]), 64 << 20).await;
    let _held = served.message().await;
    served.connection.outbox.close(1012, "restart");
    assert_eq!(served.closed().await, Closed::ByUs { code: 1012 });
    assert_eq!(client.read().await, Read::close(1012, "restart"));
    assert_eq!(client.read().await, Read::Eof);

    let kill = served.connection.kill.clone();
    within(async {
        while !matches!(kill.linger(Instant::now()), Linger::Waiting(_)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.reaper.sweep(Instant::now());
    assert!(matches!(kill.linger(Instant::now()), Linger::Waiting(_)));
    server.reaper.sweep(Instant::now() + Duration::from_secs(2));
    assert_eq!(kill.linger(Instant::now()), Linger::Released);
    server.stop().await;
}

/// Pushes until the outbox is full and nothing of it is taken for a while: the other end has stopped reading.
///
/// The pause judges "no more" and is no wait for a fact.
async fn jam(served: &support::Served) {
    let pushed = ReadyFrame::binary(&[0; 1000]);
    let outbox = &served.connection.outbox;
    loop {
        while outbox.try_push(&pushed).is_ok() {}
        let _ = tokio::time::timeout(Duration::from_millis(500), outbox.drained()).await;
        if outbox.try_push(&pushed) == Err(PushError::Full) {
            return;
        }
    }
}

/// Waits until the HTTP layer has dropped its socket and ours with it.
async fn released(kill: &KillSwitch) {
    within(async {
        while kill.linger(Instant::now()) != Linger::Released {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[actix_web::test]
async fn j6_one_who_stops_reading_costs_a_bounded_outbox_and_is_cut_by_the_reaper() {
    let mut server = TestServer::start(Setup::default());
    let (_client, mut served) = server.open().await;
    jam(&served).await;
    let outbox = Arc::clone(&served.connection.outbox);
    assert_eq!(outbox.try_push(&ReadyFrame::binary(&[0; 1000])), Err(PushError::Full));
    assert!(outbox.bytes() <= 64 * 1024 && outbox.frames() <= 256);
    assert!(!outbox.below_low_water());

    server.reaper.sweep(Instant::now());
    assert_eq!(server.reaper.counts().stalled, 0);
    let cut_at = Instant::now();
    server.reaper.sweep(Instant::now() + Duration::from_secs(31));
    assert_eq!(served.closed().await, Closed::Cut);
    assert!(cut_at.elapsed() < Duration::from_secs(2));
    released(&served.connection.kill).await;
    server.reaper.sweep(Instant::now() + Duration::from_secs(40));
    assert_eq!((server.reaper.counts().stalled, server.reaper.counts().watched), (1, 0));
    server.stop().await;
}

#[actix_web::test]
async fn j6_a_close_that_does_not_get_through_is_cut_by_the_reaper() {
    let mut server = TestServer::start(Setup::default());
    let (_client, mut served) = server.open().await;
    jam(&served).await;
    served.connection.outbox.close(1001, "");
    server.reaper.sweep(Instant::now() + Duration::from_secs(4));
    assert_eq!(server.reaper.counts().unfinished_close, 0);
    server.reaper.sweep(Instant::now() + Duration::from_secs(6));
    assert_eq!(served.closed().await, Closed::Cut);
    assert_eq!(server.reaper.counts().unfinished_close, 1);
    server.stop().await;
}

#[actix_web::test]
async fn j6_a_slow_reader_gets_everything() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, served) = server.open().await;
    jam(&served).await;
    let pushed = ReadyFrame::text(b"the end");
    let outbox = Arc::clone(&served.connection.outbox);
    let pusher = actix_web::rt::spawn(async move {
        while outbox.try_push(&pushed) == Err(PushError::Full) {
            within(outbox.drained()).await;
        }
    });
    loop {
        match client.read().await {
            Read::Frame(0x82, payload) => assert_eq!(payload.len(), 1000),
            Read::Frame(0x81, payload) => {
                assert_eq!(payload, b"the end");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    pusher.await.unwrap();
    server.stop().await;
}

#[actix_web::test]
async fn j6_with_short_times_the_running_reaper_cuts_by_itself() {
    let reaper = ReaperLimits { stalled_timeout: Duration::from_millis(200), ..ReaperLimits::default() };
    let mut server = TestServer::start(Setup { reaper, ..Setup::default() });
    let sweeper = actix_web::rt::spawn(Arc::clone(&server.reaper).run(Duration::from_millis(20)));
    let (_jammed, mut served) = server.open().await;
    let (mut idle, mut idle_served) = server.open().await;
    let pushed = ReadyFrame::binary(&[0; 1000]);
    while served.connection.outbox.try_push(&pushed) != Err(PushError::Closed) {
        within(served.connection.outbox.drained()).await;
    }
    assert_eq!(served.closed().await, Closed::Cut);
    idle.send(&frame(0x81, b"idle is not stalled")).await;
    assert_eq!(idle_served.message().await.data, "idle is not stalled");
    sweeper.abort();
    server.stop().await;
}

#[actix_web::test]
async fn an_independent_client_agrees() {
    let mut server = TestServer::start(Setup { subprotocols: &["sealcast.v1.json"], ..echoing(1 << 20) });
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!(
        "ws://127.0.0.1:{}/",
        server.port
    ))
    .unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "sealcast.v1.json".parse().unwrap());
    let (mut client, answer) = within(tokio_tungstenite::connect_async(request)).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "sealcast.v1.json");
    let mut served = server.accepted().await;
    use tokio_tungstenite::tungstenite::Message;
    for message in [
        Message::text("héllo"),
        Message::binary(vec![0_u8, 255]),
        Message::text(""),
        Message::binary(vec![3_u8; 70_000]),
        Message::binary(vec![4_u8; 1 << 20]),
    ] {
        within(client.send(message.clone())).await.unwrap();
        assert_eq!(within(client.next()).await.unwrap().unwrap(), message);
    }
    server.echoes.store(false, Ordering::SeqCst);
    within(client.close(None)).await.unwrap();
    while let Some(message) = within(client.next()).await {
        assert!(matches!(message.unwrap(), Message::Close(_)));
    }
    assert!(matches!(served.closed().await, Closed::ByPeer { .. }));
    server.stop().await;
}
