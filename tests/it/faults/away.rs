//! A Postgres that stands still for a while: all of its processes are stopped, and go on later.

use std::time::{Duration, Instant};

use sealcast::protocol::error::ErrorCode;

use super::super::catalogue::private::{Private, messages};
use super::super::support::chat::{submit, view};
use super::super::support::{eventually, trials};

/// A postmaster and its children, stopped until this is dropped.
struct Stopped(Vec<String>);

impl Stopped {
    fn of(folder: &std::path::Path) -> Self {
        let file = std::fs::read_to_string(folder.join("sealcast/postgres/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap().to_owned();
        // The postmaster first: it makes no further children then.
        signal("STOP", std::slice::from_ref(&postmaster));
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let children: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
        signal("STOP", &children);
        Self([postmaster].into_iter().chain(children).collect())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

fn signal(name: &str, pids: &[String]) {
    // A child may have ended by itself meanwhile.
    let _ = std::process::Command::new("kill").arg(format!("-{name}")).args(pids).status();
}

/// Talks while Postgres stands still for so long each time, and after it.
async fn goes_on_after(stops: &[Duration]) {
    let folder = tempfile::Builder::new().prefix("sealcast-away-").tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let settings = Private::settings(folder.path())
        .with("database.deadline_s", 2)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000);
    let mut private = Private::start(settings).await;
    let mut socket = private.ada.connect_live(&private.broker).await;
    let now = view(&mut socket, private.chat_id).await;
    let mut key = private.ada.sender_key(&now, private.chat_id);
    let mut acknowledged = Vec::new();
    for stop in stops {
        private.ada.renew(&now, &mut key);
        let before = private.ada.seal(&now, &mut key, b"before");
        submit(&mut socket, before.clone()).await.unwrap();
        let message = private.ada.seal(&now, &mut key, b"while it is away");
        let stopped = Stopped::of(folder.path());
        let began = Instant::now();
        while began.elapsed() < *stop {
            // The same socket and the same bytes: taken as soon as it is back, and refused in time until then.
            let asked = Instant::now();
            let Some(left) = stop.checked_sub(began.elapsed()) else { break };
            match tokio::time::timeout(left, submit(&mut socket, message.clone())).await {
                Ok(Ok(sent)) => panic!("acknowledged while it stood still: {sent:?}"),
                Ok(Err(refused)) => {
                    assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
                    assert!(asked.elapsed() < Duration::from_secs(20), "told after {:?}", asked.elapsed());
                }
                Err(_) => break,
            }
        }
        if *stop >= Duration::from_secs(10) {
            assert_eq!(private.broker.operator_get("/readyz").await.0, 503);
            assert_eq!(private.broker.metric("sealcast_postgres_up", "").await, 0.0);
            assert_eq!(private.broker.operator_get("/healthz").await.0, 200);
        }
        drop(stopped);
        eventually("the message to be taken", async || match submit(&mut socket, message.clone()).await {
            Ok(_) => true,
            Err(refused) => {
                assert!(refused.retryable, "{refused:?}");
                false
            }
        })
        .await;
        acknowledged.extend([before.envelope.message_id, message.envelope.message_id]);
        eventually("the broker to be ready", async || private.broker.operator_get("/readyz").await.0 == 200).await;
        assert_eq!(private.broker.metric("sealcast_postgres_up", "").await, 1.0);
    }
    let log = private.log().await;
    assert_eq!(messages(&log).collect::<Vec<_>>(), acknowledged, "each once, and in order");
    private.broker.signal("TERM");
    assert_eq!(private.broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn p1_postgres_away_for_a_second_again_and_again_loses_nothing() {
    goes_on_after(&[Duration::from_secs(1); 3]).await;
}

#[tokio::test]
async fn p1_postgres_away_for_long_is_told_and_loses_nothing() {
    goes_on_after(&[Duration::from_secs(trials(30, 300) as u64)]).await;
}
