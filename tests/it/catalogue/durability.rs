//! Durability: D1 to D16, but for what happens to the disk.

use sealcast::protocol::error::ErrorCode;

use super::super::messages::Pair;
use super::super::support::broker::Settings;
use super::super::support::chat::{submit, view};
use super::super::support::database::Database;
use super::super::support::eventually;
use super::super::support::proxy::{Path, Proxy};

#[tokio::test]
async fn d5_a_database_that_is_away_is_told_in_time_and_forgotten_when_it_is_back() {
    let database = Database::create().await;
    let (path, url) = Proxy::before(&database).await;
    let settings = Settings::default().with("database.url", url).with("database.deadline_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for broken in [Path::Hold, Path::Reset] {
        path.set(broken);
        let message = pair.ada.seal(&now, &mut key, b"while it is away");
        let refused = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
        assert_eq!(pair.broker.operator_get("/readyz").await.0, 503);
        assert_eq!(pair.broker.operator_get("/healthz").await.0, 200);
        path.set(Path::Open);
        eventually("the same message to be taken", async || {
            submit(&mut pair.ada_socket, message.clone()).await.is_ok()
        })
        .await;
    }
}
