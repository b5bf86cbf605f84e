//! A database that is away (D5), and one whose connections are all in use (D7).

use std::time::{Duration, Instant};

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{AdvanceCursor, Direction, History, Nothing, Reply, Request};
use sealcast::protocol::ids::{ChatId, Seq};

use super::super::messages::Pair;
use super::super::support::broker::{Broker, Settings};
use super::super::support::chat::{history, submit, view};
use super::super::support::database::Database;
use super::super::support::device::Socket;
use super::super::support::proxy::{Path, Proxy};
use super::super::support::{eventually, trials};
use super::send_until_taken;

/// Every queue that shows its depth is within its bound.
async fn queues_are_bounded(broker: &Broker) {
    for lane in ["writer_0", "writer_1"] {
        let label = format!("queue=\"{lane}\"");
        let depth = broker.metric("sealcast_queue_depth", &label).await;
        assert!(depth <= broker.metric("sealcast_queue_bound", &label).await, "{lane}: {depth}");
    }
    let in_flight = broker.metric("sealcast_messages_in_flight", "").await;
    assert!(in_flight <= broker.metric("sealcast_queue_bound", "queue=\"chat\"").await, "{in_flight} in flight");
}

#[tokio::test]
async fn d5_a_database_that_is_away_is_told_in_time_and_forgotten_when_it_is_back() {
    let database = Database::create().await;
    let (path, url) = Proxy::before(&database).await;
    let settings = Settings::default()
        .with("database.url", url)
        .with("database.deadline_s", 1)
        .with("chat.in_flight_max", 8)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000);
    let mut pair = Pair::start_on(database, settings).await;
    let away = Duration::from_secs(trials(0, 60) as u64);
    for broken in [Path::Reset, Path::Hold] {
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let first = pair.ada.seal(&now, &mut key, b"while it is away");
        path.set(broken);
        let began = Instant::now();
        let mut rounds = 0;
        while rounds < 2 || began.elapsed() < away {
            rounds += 1;
            let mut ids = vec![pair.ada_socket.send(Request::Send(Box::new(first.clone()))).await];
            for _ in 0..20 {
                let message = pair.ada.seal(&now, &mut key.clone(), b"more than may wait");
                ids.push(pair.ada_socket.send(Request::Send(Box::new(message))).await);
            }
            for id in ids {
                let refused = pair.ada_socket.answer(id).await.unwrap_err();
                assert!(refused.retryable, "{refused:?}");
                assert!(matches!(refused.code, ErrorCode::StorageUnavailable | ErrorCode::RateLimited), "{refused:?}");
            }
            queues_are_bounded(&pair.broker).await;
            assert_eq!(pair.broker.operator_get("/readyz").await.0, 503);
            assert_eq!(pair.broker.operator_get("/healthz").await.0, 200);
        }
        let refused = submit(&mut pair.ada_socket, first.clone()).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
        path.set(Path::Open);
        let sent = send_until_taken(&mut pair.ada_socket, &first).await;
        assert_eq!(sent.seq, now.seen.seq.next());
        eventually("the broker to be ready", async || pair.broker.operator_get("/readyz").await.0 == 200).await;
    }
}

#[cfg(feature = "client")]
#[tokio::test]
async fn d5_an_outage_is_two_lines_of_the_log_however_many_requests_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let database = Database::create().await;
    let (path, url) = Proxy::before(&database).await;
    let settings = Settings::default().with("database.url", url).with("database.deadline_s", 1);
    let broker = Broker::start_logging(settings, &log).await;
    let ada = super::super::support::device::Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let chat_id = ada.create_chat(&mut socket).await;
    let lines = |what: &str| {
        let log = std::fs::read_to_string(&log).unwrap();
        log.lines().filter(|line| line.contains(what)).count()
    };
    for outage in 1..=2 {
        path.set(Path::Hold);
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.push(socket.send(advance(chat_id)).await);
        }
        let now = Request::History(History { chat_id, direction: Direction::After, seq: Seq::default(), limit: 10 });
        ids.push(socket.send(now).await);
        for id in ids {
            assert_eq!(socket.answer(id).await.unwrap_err().code, ErrorCode::StorageUnavailable);
        }
        path.set(Path::Open);
        eventually("an answer", async || socket.request(advance(chat_id)).await.is_ok()).await;
        eventually("the end of it in the log", async || lines("the database answers again") == outage).await;
        assert_eq!(lines("the database does not answer"), outage);
        assert_eq!(lines("transaction failed"), 0, "{}", std::fs::read_to_string(&log).unwrap());
    }
}

fn advance(chat_id: ChatId) -> Request {
    Request::AdvanceCursor(AdvanceCursor { chat_id, seq: Seq::saturating(1) })
}

#[tokio::test]
async fn d7_reads_that_find_no_connection_fail_in_time_and_writes_go_on() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("database.connections_max", 2)
        .with("limits.catch_up_readers", 2)
        .with("database.deadline_s", 2)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let opening = pair.ada.seal(&now, &mut key, b"opening");
    submit(&mut pair.ada_socket, opening).await.unwrap();
    for _ in 0..trials(1, 30) {
        // Two slow requests have the whole pool.
        let outside = pair.database.client().await;
        outside.batch_execute("BEGIN; LOCK TABLE session_cursors IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let mut slow = Vec::new();
        for _ in 0..20 {
            slow.push(pair.bob_socket.send(advance(pair.chat_id)).await);
        }
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO session_cursors%'";
        eventually("the pool to be used up", async || pair.database.count(waiting).await == 2).await;
        let began = Instant::now();
        let page = History { chat_id: pair.chat_id, direction: Direction::After, seq: Seq::default(), limit: 1 };
        let page = pair.bob_socket.send(Request::History(page)).await;
        for _ in 0..20 {
            pair.ada.renew(&now, &mut key);
            let message = pair.ada.seal(&now, &mut key, b"goes on");
            assert!(matches!(submit(&mut pair.ada_socket, message).await, Ok(sent) if !sent.duplicate));
        }
        // Whether a connection came free for a moment or not, every one of them is answered while the table is locked.
        for id in slow {
            match pair.bob_socket.answer(id).await {
                Ok(Reply::Done(Nothing {})) => panic!("the table is locked"),
                Ok(other) => panic!("{other:?}"),
                Err(refused) => assert_eq!(refused.code, ErrorCode::StorageUnavailable),
            }
        }
        // A read waits behind them, and no longer than any.
        match pair.bob_socket.answer(page).await {
            Ok(_) => {}
            Err(refused) => assert_eq!(refused.code, ErrorCode::StorageUnavailable),
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{:?} with a deadline of 2 s", began.elapsed());
        let message = pair.ada.seal(&now, &mut key, b"and still");
        assert!(submit(&mut pair.ada_socket, message).await.is_ok());
        outside.batch_execute("COMMIT").await.unwrap();
        assert!(read(&mut pair.bob_socket, pair.chat_id).await, "reads are back");
        assert!(pair.bob_socket.request(advance(pair.chat_id)).await.is_ok());
    }
}

async fn read(socket: &mut Socket, chat_id: ChatId) -> bool {
    history(socket, chat_id, Direction::After, Seq::default(), 1).await.is_ok()
}
