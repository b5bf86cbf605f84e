//! A server that is wrong writes hashes that fit: after a damage the chain is made good again, so that nothing but the
//! damage is left to be found.

use std::time::Duration;

use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::log::{log_hash, log_start};
use sealcast::store::inspect::Inspector;
use sealcast::store::pool::connection_config;

use super::super::support::database::Database;

/// Makes the hashes of a chat's log follow one another, and the chat's row name the last.
pub async fn rehash(database: &Database, chat_id: ChatId) {
    let config = connection_config(&database.url(), Duration::from_secs(30)).unwrap();
    let mut rows = Vec::new();
    let mut inspector = Inspector::connect(&config).await.unwrap();
    let snapshot = inspector.snapshot().await.unwrap();
    let mut place = Some(Seq::default());
    while let Some(after) = place {
        let page = snapshot.log_page(chat_id, after).await.unwrap();
        rows.extend(page.rows);
        place = page.next;
    }
    drop(snapshot);
    let client = database.client().await;
    let mut hash = log_start(chat_id);
    for row in rows {
        let digest = row.body.expect("an entry").digest(chat_id);
        hash = log_hash(chat_id, &hash, row.seq, row.created_at, &digest);
        for table in ["chat_messages", "chat_events"] {
            let update = format!("UPDATE {table} SET log_hash = $3 WHERE chat_id = $1 AND seq = $2");
            let seq = i64::try_from(row.seq.get()).unwrap();
            client.execute(&update, &[&chat_id.0, &seq, &hash.as_ref()]).await.unwrap();
        }
    }
    client.execute("UPDATE chats SET log_hash = $2 WHERE id = $1", &[&chat_id.0, &hash.as_ref()]).await.unwrap();
}
