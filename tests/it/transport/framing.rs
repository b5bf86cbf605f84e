//! Messages, fragments, control frames and goodbyes, point by point.
//!
//! Source: RFC 6455, sections 5 to 8.

use sealcast::broker::outbox::PushError;
use sealcast::broker::ready_frame::ReadyFrame;
use sealcast::gateway::transport::{Closed, MessageKind, TransportLimits, Violation};
use tokio::io::AsyncWriteExt;

use super::support::{Event, Read, Setup, TestServer, frame, frame_declaring, within};

/// Bytes that differ at every place, also modulo four and 4096.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

fn with_mask(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = frame(first, payload);
    let at = bytes.len() - payload.len();
    bytes[at - 4..at].copy_from_slice(&mask);
    for (index, (byte, clear)) in bytes[at..].iter_mut().zip(payload).enumerate() {
        *byte = clear ^ mask[index % 4];
    }
    bytes
}

#[actix_web::test]
async fn every_length_under_every_mask_comes_out_as_it_went_in() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    let masks = [[0; 4], [0xFF; 4], [1, 2, 3, 4], [0x80, 0, 0x7F, 0x81]];
    for length in
        [0, 1, 2, 3, 4, 124, 125, 126, 127, 128, 4095, 4096, 4097, 4099, 8191, 8192, 8193, 65535, 65536, 65537]
    {
        let payload = pattern(length);
        for mask in masks {
            client.send(&with_mask(0x82, &payload, mask)).await;
            let message = served.message().await;
            assert!(message.kind == MessageKind::Binary && message.data == payload, "{length} under {mask:?}");
        }
    }
    server.stop().await;
}

#[actix_web::test]
async fn what_is_sent_has_the_shortest_length_and_no_mask() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, served) = server.open().await;
    for length in [0_usize, 1, 125, 126, 127, 65535, 65536, 70_000] {
        let payload = pattern(length);
        while served.connection.outbox.try_push(&ReadyFrame::binary(&payload)) == Err(PushError::Full) {
            within(served.connection.outbox.drained()).await;
        }
        let mut head = vec![0; 2];
        within(tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut head)).await.unwrap();
        let form = match length {
            0..=125 => length as u8,
            126..=65535 => 126,
            _ => 127,
        };
        assert_eq!(head, [0x82, form], "{length}");
        let wide = [0, 2, 8][usize::from(form > 125) + usize::from(form > 126)];
        let mut rest = vec![0; wide + length];
        within(tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut rest)).await.unwrap();
        assert!(rest[wide..] == payload[..], "{length}");
    }
    server.stop().await;
}

#[actix_web::test]
async fn pings_between_and_within_fragments_are_answered_at_once_and_change_nothing() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    for (first, kind) in [(0x01, MessageKind::Text), (0x02, MessageKind::Binary)] {
        let payload = "fragmented κόσμε".as_bytes();
        client.send(&frame(first, &payload[..3])).await;
        for (index, piece) in payload[3..].chunks(1).enumerate() {
            // The payload of a ping is anything, also what is no UTF-8, and up to 125 bytes.
            let ping = vec![0x80 | index as u8; (index * 9).min(125)];
            client.send(&frame(0x89, &ping)).await;
            assert_eq!(client.read().await, Read::Frame(0x8A, ping), "before the message is complete");
            client.send(&frame(0x8A, b"unasked")).await;
            assert!(matches!(within(served.events.recv()).await, Some(Event::Pong)));
            client.send(&frame(0x00, piece)).await;
        }
        assert!(served.events.try_recv().is_err(), "told before it was complete");
        client.send(&frame(0x80, b"")).await;
        let message = served.message().await;
        assert_eq!((message.kind, &message.data[..]), (kind, payload));
    }
    server.stop().await;
}

#[actix_web::test]
async fn text_is_judged_across_fragments_and_across_the_pieces_of_a_large_frame() {
    let mut server = TestServer::start(Setup::default());
    // Characters of two, three and four bytes, which no multiple of 4096 can fall between every time.
    for character in ["é", "€", "🎈"] {
        for shift in 0..4 {
            let (mut client, mut served) = server.open().await;
            let text = format!("{}{}", "x".repeat(shift), character.repeat(6000));
            client.send(&frame(0x81, text.as_bytes())).await;
            let message = served.message().await;
            assert!(message.kind == MessageKind::Text && message.data == text.as_bytes(), "{character} {shift}");
            drop(message);
            // The same cut short within its last character.
            client.send(&frame(0x81, &text.as_bytes()[..text.len() - 1])).await;
            assert_eq!(client.read().await.close_code(), Some(1007), "{character} {shift}");
            assert_eq!(served.closed().await, Closed::Violation(Violation::Utf8));
        }
    }
    server.stop().await;
}

#[actix_web::test]
async fn every_kind_of_bad_utf_8_is_1007_in_one_frame_in_two_and_in_a_goodbye() {
    let mut server = TestServer::start(Setup::default());
    let bad: [&[u8]; 12] = [
        &[0x80],
        &[0xBF],
        &[0xC0, 0xAF],
        &[0xC1, 0xBF],
        &[0xE0, 0x80, 0xAF],
        &[0xED, 0xA0, 0x80],
        &[0xED, 0xBF, 0xBF],
        &[0xF0, 0x8F, 0xBF, 0xBF],
        &[0xF4, 0x90, 0x80, 0x80],
        &[0xF8, 0x88, 0x80, 0x80, 0x80],
        &[0xFE],
        &[0xCE, b'x'],
    ];
    for sequence in bad {
        let whole = [b"ok ", sequence, b" ok"].concat();
        let goodbye = [&1000_u16.to_be_bytes()[..], &whole].concat();
        let (head, tail) = whole.split_at(3 + sequence.len() / 2);
        for script in [
            frame(0x81, &whole),
            [frame(0x01, head), frame(0x80, tail)].concat(),
            // Refused when it is seen, not when the message is complete.
            frame(0x01, &whole),
            frame(0x88, &goodbye),
        ] {
            let (mut client, mut served) = server.open().await;
            client.send(&script).await;
            assert_eq!(client.read().await.close_code(), Some(1007), "{sequence:x?} as {script:x?}");
            assert_eq!(client.read().await, Read::Eof);
            assert_eq!(served.closed().await, Closed::Violation(Violation::Utf8));
        }
    }
    // A large frame is refused before all of it is here.
    let (mut client, mut served) = server.open().await;
    client.send(&frame_declaring(0x81, 100_000, &[0xFF; 20_000])).await;
    assert_eq!(client.read().await.close_code(), Some(1007));
    assert_eq!(served.closed().await, Closed::Violation(Violation::Utf8));
    server.stop().await;
}

#[actix_web::test]
async fn every_reserved_bit_and_opcode_is_1002_wherever_it_stands() {
    let mut server = TestServer::start(Setup::default());
    for first in 0..=u8::MAX {
        let is_lawful = first & 0x70 == 0 && matches!(first & 0x0F, 0..=2 | 8..=10);
        if is_lawful {
            continue;
        }
        let (mut client, mut served) = server.open().await;
        let script = if first % 2 == 0 { frame(first, b"") } else { [frame(0x01, b"x"), frame(first, b"y")].concat() };
        client.send(&script).await;
        assert_eq!(client.read().await.close_code(), Some(1002), "{first:#x}");
        assert_eq!(client.read().await, Read::Eof, "{first:#x}");
        assert!(matches!(served.closed().await, Closed::Violation(Violation::Protocol(_))), "{first:#x}");
    }
    server.stop().await;
}

#[actix_web::test]
async fn control_frames_are_whole_short_and_masked() {
    let mut server = TestServer::start(Setup::default());
    for opcode in [0x8_u8, 0x9, 0xA] {
        for (name, script) in [
            ("fragmented", frame(opcode, b"")),
            ("126 bytes", frame(0x80 | opcode, &[b'x'; 126])),
            ("64-bit length", frame_declaring(0x80 | opcode, 70_000, b"")),
            ("unmasked", vec![0x80 | opcode, 0]),
            ("within a message, fragmented", [frame(0x02, b"x"), frame(opcode, b"")].concat()),
        ] {
            let (mut client, mut served) = server.open().await;
            client.send(&script).await;
            assert_eq!(client.read().await.close_code(), Some(1002), "{name} {opcode:#x}");
            assert!(matches!(served.closed().await, Closed::Violation(Violation::Protocol(_))), "{name} {opcode:#x}");
        }
        if opcode != 0x8 {
            let (mut client, _served) = server.open().await;
            client.send(&frame(0x80 | opcode, &[b'x'; 125])).await;
            client.send(&frame(0x89, b"still there")).await;
            if opcode == 0x9 {
                assert_eq!(client.read().await, Read::Frame(0x8A, vec![b'x'; 125]));
            }
            assert_eq!(client.read().await, Read::Frame(0x8A, b"still there".to_vec()));
        }
    }
    server.stop().await;
}

#[actix_web::test]
async fn close_codes_are_those_of_the_registry() {
    let mut server = TestServer::start(Setup::default());
    let lawful = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    let codes =
        (0..=16_u16).map(|step| step * 60).chain(990..=1020).chain([1100, 1999, 2000, 2999, 3000, 3999, 4000, 4999]);
    for code in codes.chain([5000, 9999, 32768, 65535]) {
        let (mut client, mut served) = server.open().await;
        // A reason of 123 bytes is the longest.
        let reason = "ü".repeat(61);
        client.send(&frame(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat())).await;
        let wanted = if lawful(code) { code } else { 1002 };
        assert_eq!(client.read().await.close_code(), Some(wanted), "{code}");
        assert_eq!(client.read().await, Read::Eof, "{code}");
        match served.closed().await {
            Closed::ByPeer { code: told, reason: why } => assert_eq!((told, why), (Some(code), reason)),
            Closed::Violation(Violation::Protocol(_)) if !lawful(code) => {}
            other => panic!("{code}: {other:?}"),
        }
    }
    server.stop().await;
}

#[actix_web::test]
async fn a_goodbye_within_a_message_is_answered_and_the_message_never_told() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    client.send(&[frame(0x01, b"half"), frame(0x88, &1000_u16.to_be_bytes()), frame(0x80, b"way")].concat()).await;
    assert_eq!(client.read().await.close_code(), Some(1000));
    assert_eq!(client.read().await, Read::Eof);
    assert!(matches!(within(served.events.recv()).await, Some(Event::Closed(Closed::ByPeer { code: Some(1000), .. }))));
    assert!(within(served.events.recv()).await.is_none());
    server.stop().await;
}

#[actix_web::test]
async fn goodbyes_that_cross_are_one_close_frame_each_way() {
    let mut server = TestServer::start(Setup::default());
    for round in 0..50_u32 {
        let (mut client, mut served) = server.open().await;
        served.connection.outbox.try_push(&ReadyFrame::text(b"last")).unwrap();
        let goodbye = frame(0x88, &1001_u16.to_be_bytes());
        if round % 2 == 0 {
            client.send(&goodbye).await;
            served.connection.outbox.close(1012, "restart");
        } else {
            served.connection.outbox.close(1012, "restart");
            client.send(&goodbye).await;
        }
        assert_eq!(served.connection.outbox.try_push(&ReadyFrame::text(b"late")), Err(PushError::Closed));
        assert_eq!(client.read().await, Read::Frame(0x81, b"last".to_vec()), "round {round}");
        let code = client.read().await.close_code();
        assert!(matches!(code, Some(1001 | 1012)), "round {round}: {code:?}");
        assert!(matches!(client.read().await, Read::Eof), "round {round}: nothing after a close frame");
        served.closed().await;
    }
    server.stop().await;
}

#[actix_web::test]
async fn a_half_close_after_messages_tells_them_first() {
    let mut server = TestServer::start(Setup::default());
    let (mut client, mut served) = server.open().await;
    client.send(&[frame(0x81, b"one"), frame(0x82, &pattern(30_000)), frame(0x01, b"never whole")].concat()).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(served.message().await.data, "one");
    assert_eq!(served.message().await.data, pattern(30_000));
    assert_eq!(served.closed().await, Closed::Lost);
    assert_eq!(client.read().await, Read::Eof);
    server.stop().await;
}

#[actix_web::test]
async fn the_limit_counts_the_whole_message_and_nothing_else() {
    let limits = TransportLimits { message_bytes_max: 1000, outstanding_bytes_max: 1000, outstanding_messages_max: 8 };
    let mut server = TestServer::start(Setup { limits, ..Setup::default() });
    let (mut client, mut served) = server.open().await;
    // Pings within do not count, and the next message starts from nothing.
    for _ in 0..3 {
        for (first, size) in [(0x02, 400), (0x89, 125), (0x00, 400), (0x89, 125), (0x00, 0), (0x80, 200)] {
            client.send(&frame(first, &pattern(size))).await;
        }
        assert_eq!(served.message().await.data.len(), 1000);
    }
    for script in [
        [frame(0x02, &pattern(999)), frame(0x80, &pattern(2))].concat(),
        [frame(0x02, &pattern(1000)), frame(0x00, b""), frame_declaring(0x80, 1, b"")].concat(),
        frame_declaring(0x81, 1001, b""),
        frame_declaring(0x82, u64::MAX >> 1, b""),
        [frame(0x02, b"x"), frame_declaring(0x80, u64::MAX >> 1, b"")].concat(),
    ] {
        let (mut client, mut served) = server.open().await;
        client.send(&script).await;
        assert_eq!(client.read().await.close_code(), Some(1009));
        assert_eq!(client.read().await, Read::Eof);
        assert_eq!(served.closed().await, Closed::Violation(Violation::TooLarge));
    }
    server.stop().await;
}
