//! A4: connections that never log in.

use std::time::Duration;

use futures_util::future::join_all;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::CloseCode;
use sealcast::protocol::frame::{Nothing, Request};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{eventually, trials, within};

/// Descriptors that the broker has open.
fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count()
}

/// Opens so many sockets that say nothing, and waits until each was closed for it.
async fn crowd(broker: &Broker, size: usize) {
    let silent = (0..size).map(|index| async move {
        let encoding = Encoding::ALL[index % Encoding::ALL.len()];
        let mut socket = Socket::open(broker, encoding).await;
        assert_eq!(socket.close_code().await, Some(CloseCode::LoginTimeout.number()));
    });
    join_all(silent).await;
}

#[tokio::test]
async fn a4_a_thousand_silent_sockets_are_closed_in_time_and_leave_nothing_behind() {
    let size = trials(200, 1_000);
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.login_timeout_s", 2);
    let broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    // The first crowd makes room in the allocator's pools; what grows with every further one is a leak.
    crowd(&broker, size).await;
    let gone = async || {
        eventually("all gone", async || broker.metric("sealcast_connections{", "").await == 1.0).await;
    };
    gone().await;
    let (open, resident) = (descriptors(&broker), broker.rss_mib());
    for round in 1..=trials(2, 5) {
        let (_, others) = tokio::join!(crowd(&broker, size), async {
            // Who is in is not concerned, and who comes gets in.
            assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
            Device::register(&broker, &format!("round-{round}")).await.connect(&broker).await
        });
        drop(others);
        gone().await;
        eventually("its descriptors closed", async || descriptors(&broker) <= open + 8).await;
        let now = broker.rss_mib();
        assert!(now <= resident + 16, "{resident} MiB before, {now} MiB after {round} crowds of {size}");
    }
    let closed = broker.metric("sealcast_connections_closed_total", "login_timeout").await;
    assert_eq!(closed as usize, size * (1 + trials(2, 5)));
}

#[tokio::test]
async fn a4_signs_of_life_that_are_no_login_buy_no_time() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.login_timeout_s", 1).with("server.ping_interval_s", 1);
    let broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    // Pings of its own, an empty message, half a frame, and requests without end.
    let mut pinging = Socket::open(&broker, Encoding::Json).await;
    let mut asking = Socket::open(&broker, Encoding::Json).await;
    let mut empty = Socket::open(&broker, Encoding::Json).await;
    empty.send_raw(Message::text(String::new())).await;
    let pings = async {
        for _ in 0..200 {
            pinging.send_raw(Message::Ping(b"here".to_vec().into())).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        pinging.close_code().await
    };
    let questions = async {
        for _ in 0..200 {
            asking.send(Request::ListChats(Nothing {})).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        asking.close_code().await
    };
    let mut half = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    let head = format!(
        "GET /v1/socket HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: sealcast.v1.json\r\n\r\n",
        broker.address()
    );
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(&[0x81, 0xfe]).await.unwrap();
    let half_ends = async {
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut half, &mut answer).await;
    };
    let expected = Some(CloseCode::LoginTimeout.number());
    let (pinged, asked, (), emptied) =
        within("their ends", async { tokio::join!(pings, questions, half_ends, empty.close_code()) }).await;
    assert_eq!((pinged, asked, emptied), (expected, expected, expected));
    eventually("all gone", async || broker.metric("sealcast_connections{", "").await == 0.0).await;
    assert!(ada.connect(&broker).await.request(Request::Ping(Nothing {})).await.is_ok());
}
