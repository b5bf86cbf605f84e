//! Start, health, kills and the end of the process.

use sealcast::protocol::error::CloseCode;
use sealcast::protocol::frame::{Nothing, Request, ServerFrame};

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{submit, view, whole_log};
use super::support::database::Database;
use super::support::device::Device;
use super::support::eventually;

#[tokio::test]
async fn the_operators_listener_tells_life_readiness_and_figures() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    assert_eq!(broker.operator_get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(broker.operator_get("/readyz").await, (200, "ready\n".to_owned()));
    let (status, text) = broker.operator_get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("# TYPE sealcast_messages_committed_total counter"));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(broker.request("GET", path, "").await.0, 404, "{path} is not for the public");
    }
}

#[tokio::test]
async fn p11_sigterm_commits_answers_says_bye_and_exits_0() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut open = Vec::new();
    for _ in 0..50 {
        let message = pair.ada.seal(&now, &mut key, b"on the way");
        open.push((pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await, message));
    }
    pair.broker.signal("TERM");
    let mut acknowledged = 0;
    for (id, _) in &open {
        // Committed, or told to send it again: but answered.
        match pair.ada_socket.answer(*id).await {
            Ok(_) => acknowledged += 1,
            Err(error) => assert!(error.retryable, "{error:?}"),
        }
    }
    assert!(pair.ada_socket.push_that(|push| matches!(push, ServerFrame::Bye(_)).then_some(true)).await);
    assert_eq!(pair.ada_socket.close_code().await, Some(CloseCode::Restart.number()));
    assert_eq!(pair.bob_socket.close_code().await, Some(CloseCode::Restart.number()));
    assert_eq!(pair.broker.exit_code().await, Some(0));
    pair.broker.restart().await;
    let mut socket = pair.ada.connect_live(&pair.broker).await;
    for (_, message) in open {
        submit(&mut socket, message).await.unwrap();
    }
    let log = whole_log(&mut socket, pair.chat_id).await;
    assert_eq!(log.len() as u64, now.seen.seq.get() + 50, "{acknowledged} were acknowledged, and none is there twice");
}

#[tokio::test]
async fn p1_the_broker_outlives_its_database_and_goes_on_by_itself() {
    let folder = tempfile::Builder::new().prefix("sealcast-it-").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let settings = Settings::default().with("data_dir", folder.path().join("data").display());
    let mut broker = Broker::start_with(settings).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let chat_id = ada.create_chat(&mut socket).await;
    let mut acknowledged = Vec::new();
    for _ in 0..2 {
        let now = view(&mut socket, chat_id).await;
        let mut key = ada.sender_key(&now, chat_id);
        let message = ada.seal(&now, &mut key, b"before");
        acknowledged.push(submit(&mut socket, message).await.unwrap().seq);
        let pid = std::fs::read_to_string(folder.path().join("data/postgres/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
        // The same bytes until there is a definite answer, on the same socket.
        let message = ada.seal(&now, &mut key, b"across");
        let mut answer = None;
        eventually("an answer", async || {
            match submit(&mut socket, message.clone()).await {
                Ok(sent) => answer = Some(sent.seq),
                Err(error) => assert!(error.retryable, "{error:?}"),
            }
            answer.is_some()
        })
        .await;
        acknowledged.push(answer.unwrap());
        assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    }
    let log = whole_log(&mut socket, chat_id).await;
    assert_eq!(log.len(), 2 + acknowledged.len());
    for seq in acknowledged {
        assert!(log.iter().any(|entry| entry.seq == seq));
    }
    // The broker dies too: the next start on the same folder finds everything.
    broker.kill_and_restart().await;
    let mut socket = ada.connect_live(&broker).await;
    assert_eq!(whole_log(&mut socket, chat_id).await, log);
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
}
