//! W11: sessions that ask far more than they may, or ask and do not read.

use std::time::{Duration, Instant};

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Direction, History, Nothing, Request, ServerFrame};
use sealcast::protocol::ids::Seq;
use sealcast::protocol::limits::{DATA_BYTES_MAX, PAGE_ENTRIES_MAX};
use tokio::io::AsyncWriteExt;

use super::super::super::messages::Pair;
use super::super::super::support::broker::Settings;
use super::super::super::support::chat::{submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{eventually, trials, within};
use super::super::super::transport::support::{Client, Read};
use super::line::Line;
use super::unharmed;

/// The middle of the times that some pings of somebody else take.
async fn ping_time(socket: &mut Socket) -> Duration {
    let mut times = Vec::new();
    for _ in 0..50 {
        let sent = Instant::now();
        socket.request(Request::Ping(Nothing {})).await.unwrap();
        times.push(sent.elapsed());
        // Below the rate that is allowed.
        tokio::time::sleep(Duration::from_millis(6)).await;
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Writes fifty thousand good requests as fast as they are taken, reads all answers, and comes back when it is closed.
async fn flood(port: u16, device: Device, until: tokio::sync::watch::Receiver<bool>) -> (usize, usize) {
    let (mut rounds, mut told_in_all) = (0, 0);
    while !*until.borrow() {
        let line = Line::logged_in_at(port, Encoding::Json, &device).await;
        let script: Vec<u8> = (2..50_002).flat_map(|id| line.message(id, Request::Ping(Nothing {}))).collect();
        let (encoding, stream) = (line.encoding, line.client.stream.into_std().unwrap());
        let writing = tokio::net::TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        let mut line = Line { client: Client { stream: tokio::net::TcpStream::from_std(stream).unwrap() }, encoding };
        let writer = tokio::spawn(async move {
            let mut writing = writing;
            let _ = writing.write_all(&script).await;
        });
        let mut told = 0;
        let end = loop {
            match line.next().await {
                Ok(ServerFrame::Error(error)) => {
                    assert_eq!(error.code, ErrorCode::RateLimited);
                    assert!(error.id.is_some() && error.details.unwrap().retry_after_ms.is_some());
                    told += 1;
                }
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        assert_eq!(end.close_code(), Some(CloseCode::PolicyViolation.number()), "after {told} times rate_limited");
        assert!(told >= 1_000, "told {told} times");
        writer.abort();
        rounds += 1;
        told_in_all += told;
    }
    (rounds, told_in_all)
}

#[tokio::test]
async fn w11_fifty_thousand_requests_at_once_again_and_again_slow_nobody_else_down() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let alone = ping_time(&mut pair.bob_socket).await;
    let before_mib = pair.broker.rss_mib();
    let (stop, until) = tokio::sync::watch::channel(false);
    let flooding = tokio::spawn(flood(super::line::port(&pair.broker), eve.clone(), until));
    let mut beside = Vec::new();
    for _ in 0..trials(2, 100) {
        beside.push(ping_time(&mut pair.bob_socket).await);
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "undisturbed").await.unwrap();
    }
    stop.send(true).unwrap();
    let (rounds, told) = within("the floods", flooding).await.unwrap();
    beside.sort_unstable();
    let beside = beside[beside.len() / 2];
    assert!(beside <= alone * 20 + Duration::from_millis(100), "{beside:?} instead of {alone:?}, {rounds} floods");
    assert!(told >= rounds * 1_000);
    let grown_mib = pair.broker.rss_mib().saturating_sub(before_mib);
    assert!(grown_mib < 48, "{grown_mib} MiB for floods");
    let mut socket = eve.connect(&pair.broker).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    unharmed(&pair.broker).await;
}

#[tokio::test]
async fn w11_ten_thousand_requests_whose_answers_are_not_read_cost_bounded_memory_and_an_end() {
    for is_limited in [true, false] {
        let database = Database::create().await;
        let settings = match is_limited {
            true => Settings::on(&database),
            false => super::unhurried(&database),
        };
        let mut pair = Pair::start_on(database, settings.with("server.stalled_timeout_s", 1)).await;
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        for _ in 0..8 {
            let message = pair.ada.seal(&now, &mut key, &vec![0; DATA_BYTES_MAX]);
            submit(&mut pair.ada_socket, message).await.unwrap();
        }
        let before_mib = pair.broker.rss_mib();
        let mut line = Line::logged_in(&pair.broker, Encoding::Json, &pair.bob).await;
        let history = History {
            chat_id: pair.chat_id,
            direction: Direction::After,
            seq: Seq::default(),
            limit: PAGE_ENTRIES_MAX,
        };
        let script: Vec<u8> = (2..10_002).flat_map(|id| line.message(id, Request::History(history.clone()))).collect();
        // Taken or not, it is written for as long as there is somebody to take it.
        let written = line.client.stream.write_all(&script);
        let cut = async {
            eventually("the connection's end", async || {
                pair.ada_socket.pushes_so_far().await;
                pair.broker.metric("sealcast_connections{", "authenticated").await == 1.0
            })
            .await;
        };
        let (written, ()) = tokio::join!(within("the end of writing", written), cut);
        let grown_mib = pair.broker.rss_mib().saturating_sub(before_mib);
        assert!(grown_mib < 64, "{grown_mib} MiB for answers that nobody reads");
        // What came through are answers, one to a request, and an end.
        let mut answered = std::collections::HashSet::new();
        let end = loop {
            match line.next().await {
                Ok(ServerFrame::Ok(ok)) => assert!(answered.insert(ok.id), "twice: {}", ok.id),
                Ok(ServerFrame::Error(error)) => {
                    assert_eq!(error.code, ErrorCode::RateLimited);
                    assert!(answered.insert(error.id.unwrap()), "twice: {:?}", error.id);
                }
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        assert!(answered.len() < 10_000, "all was answered, {written:?}");
        assert!(
            matches!(end.close_code(), None | Some(1008 | 1013)) || matches!(end, Read::Eof | Read::Reset),
            "{end:?}"
        );
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "undisturbed").await.unwrap();
        let mut socket = pair.bob.connect(&pair.broker).await;
        assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
        unharmed(&pair.broker).await;
    }
}
