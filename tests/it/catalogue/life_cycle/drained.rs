//! L1 and L2: the end of the process when it is told to end, under load, twice, and without its database.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Nothing, Request, ServerFrame};
use sealcast::protocol::log::EntryBody;
use tokio::sync::Semaphore;

use super::super::super::messages::Pair;
use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::{submit, view, whole_log};
use super::super::super::support::database::Database;
use super::super::super::support::device::Socket;
use super::super::super::support::proxy::{Path, Proxy};
use super::super::super::support::{eventually, trials, within};
use super::crowd;

/// Milliseconds over which sessions are told to come back.
const SPREAD_MS: u64 = 4_000;

#[tokio::test]
async fn l1_sigterm_under_load_tells_all_to_come_back_and_loses_nothing() {
    let database = Database::create().await;
    let settings = crowd::settings(&database).with("drain.retry_spread_ms", SPREAD_MS);
    let mut broker = Broker::start_with(settings).await;
    let people = crowd::gather(&broker, "person", trials(60, 1_000), 10).await;
    let count = people.len();
    let begun = Arc::new(Semaphore::new(0));
    let pouring: Vec<_> = people.into_iter().map(|person| tokio::spawn(person.pour_out(Arc::clone(&begun)))).collect();
    within("all are sending", begun.acquire_many(count as u32)).await.unwrap().forget();
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
    let mut all = Vec::new();
    for pouring in pouring {
        all.push(pouring.await.unwrap());
    }
    let mut pauses = Vec::new();
    for poured in &all {
        assert_eq!(poured.close_code, Some(CloseCode::Restart.number()));
        pauses.push(poured.retry_after_ms.expect("the last words are a goodbye"));
        for (_, code) in &poured.refused {
            assert_eq!(*code, ErrorCode::StorageUnavailable, "told to send it again");
        }
    }
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > count / 2, "{} different times to come back at", pauses.len());
    assert!(pauses.iter().all(|pause| *pause < SPREAD_MS) && pauses.last() > Some(&(SPREAD_MS / 2)));

    broker.restart().await;
    for (chat_id, members) in crowd::by_chat(all) {
        let mut places = HashMap::new();
        let mut expected = 0;
        let mut reader = None;
        for member in members {
            let mut socket = member.device.connect_live(&broker).await;
            expected += member.acknowledged.len();
            places.extend(member.acknowledged.iter().map(|(send, seq)| (send.envelope.message_id, *seq)));
            // What was not acknowledged is sent again, in order, and is then there once.
            let mut again: Vec<_> = member.refused.into_iter().map(|(send, _)| send).collect();
            again.extend(member.unanswered);
            again.sort_by_key(|send| send.envelope.counter);
            for send in again {
                let message_id = send.envelope.message_id;
                let sent = submit(&mut socket, send).await.unwrap();
                places.insert(message_id, sent.seq);
                expected += 1;
            }
            reader = Some(socket);
        }
        let log = whole_log(&mut reader.unwrap(), chat_id).await;
        let mut found = 0;
        for entry in &log {
            if let EntryBody::Message(envelope) = &entry.body {
                assert_eq!(places.get(&envelope.message_id), Some(&entry.seq));
                found += 1;
            }
        }
        assert_eq!((found, places.len()), (expected, expected), "each is there, and once");
    }
}

/// The close, whose code must say that the process restarts, after a goodbye.
async fn is_sent_home(socket: &mut Socket) {
    assert_eq!(socket.close_code().await, Some(CloseCode::Restart.number()));
    assert!(matches!(socket.pushes.back(), Some(ServerFrame::Bye(_))), "{:?}", socket.pushes);
}

#[tokio::test]
async fn l2_a_second_sigterm_ends_the_drain_and_the_exit_code_says_so() {
    let database = Database::create().await;
    // Neither the database's deadline nor the grace would end it within the time that this test grants.
    let settings = Settings::on(&database).with("database.deadline_s", 300).with("drain.grace_s", 300);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let held = pair.database.hold_commits().await;
    let message = pair.ada.seal(&now, &mut key, b"held");
    let id = pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await;
    pair.database.until_held().await;
    pair.broker.signal("TERM");
    eventually("the drain has begun", async || pair.broker.operator_get("/readyz").await.0 == 503).await;
    pair.broker.signal("TERM");
    assert_eq!(pair.broker.exit_code().await, Some(1));
    for socket in [&mut pair.ada_socket, &mut pair.bob_socket] {
        is_sent_home(socket).await;
    }
    let is_ok = |push: &ServerFrame| matches!(push, ServerFrame::Ok(ok) if ok.id == id);
    assert!(!pair.ada_socket.pushes.iter().any(is_ok), "acknowledged before it was committed");
    held.batch_execute("COMMIT").await.unwrap();
    pair.broker.restart().await;
    let mut socket = pair.ada.connect_live(&pair.broker).await;
    let sent = submit(&mut socket, message).await.unwrap();
    let log = whole_log(&mut socket, pair.chat_id).await;
    assert_eq!(log.last().unwrap().seq, sent.seq);
    assert_eq!(log.len() as u64, now.seen.seq.get() + 1, "once");
}

/// Those who are connected besides: too many to be told in the moment that a process takes to end.
const NEWCOMERS: usize = 400;

/// Drains with the database away while a message waits for it; gives the exit code.
async fn drained_without_database(broken: Path, deadline_s: u64, grace_s: u64) -> Option<i32> {
    let database = Database::create().await;
    let (path, url) = Proxy::before(&database).await;
    let settings = Settings::default()
        .with("database.url", url)
        .with("database.deadline_s", deadline_s)
        .with("server.login_timeout_s", 300)
        .with("drain.grace_s", grace_s);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let newcomers = join_all((0..NEWCOMERS).map(|_| Socket::open(&pair.broker, Encoding::Json))).await;
    path.set(broken);
    let message = pair.ada.seal(&now, &mut key, b"while it is away");
    let id = pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await;
    // A connection is read in order: what follows is answered once the message was taken in.
    pair.ada_socket.request(Request::Ping(Nothing {})).await.unwrap();
    pair.broker.signal("TERM");
    let code = pair.broker.exit_code().await;
    for mut newcomer in newcomers {
        is_sent_home(&mut newcomer).await;
    }
    for socket in [&mut pair.ada_socket, &mut pair.bob_socket] {
        is_sent_home(socket).await;
    }
    let is_ok = |push: &ServerFrame| matches!(push, ServerFrame::Ok(ok) if ok.id == id);
    assert!(!pair.ada_socket.pushes.iter().any(is_ok), "acknowledged though the database was away");
    path.set(Path::Open);
    pair.broker.restart().await;
    let mut socket = pair.ada.connect_live(&pair.broker).await;
    submit(&mut socket, message).await.unwrap();
    assert_eq!(whole_log(&mut socket, pair.chat_id).await.len() as u64, now.seen.seq.get() + 1, "once");
    code
}

#[tokio::test]
async fn l2_sigterm_with_the_database_away_answers_all_and_exits_in_time() {
    for broken in [Path::Hold, Path::Reset] {
        // Everything was answered, if only with a refusal.
        assert_eq!(drained_without_database(broken, 1, 60).await, Some(0), "{broken:?}");
    }
}

#[tokio::test]
async fn l2_a_grace_that_is_too_short_is_told_by_the_exit_code_and_all_are_sent_home() {
    assert_eq!(drained_without_database(Path::Hold, 60, 1).await, Some(1));
}
