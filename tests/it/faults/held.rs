//! Statements that do not come to an end: behind a lock on a hot table, or because they are slow.

use std::time::{Duration, Instant};

use sealcast::protocol::error::ErrorCode;

use super::super::support::chat::submit;
use super::{Talk, failures};

/// Seconds that a statement may take.
const DEADLINE_S: u64 = 2;

/// Sends while it cannot be committed: refused in time, and once taken when it can be.
async fn is_told_in_time(talk: &mut Talk) -> sealcast::protocol::frame::Send {
    let before = failures(&talk.pair.broker).await;
    let message = talk.seal();
    let began = Instant::now();
    let refused = submit(&mut talk.pair.ada_socket, message.clone()).await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
    assert!(began.elapsed() < Duration::from_secs(DEADLINE_S * 5), "told after {:?}", began.elapsed());
    assert!(failures(&talk.pair.broker).await > before, "the figures show it");
    assert_eq!(talk.pair.broker.operator_get("/healthz").await.0, 200);
    message
}

#[tokio::test]
async fn p1_a_lock_on_a_hot_table_is_told_in_time_and_nothing_acknowledged_is_lost() {
    let mut talk = Talk::start(DEADLINE_S).await;
    talk.say().await;
    for table in ["chat_messages", "chats"] {
        let outside = talk.pair.database.client().await;
        outside.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
        let message = is_told_in_time(&mut talk).await;
        outside.batch_execute("COMMIT").await.unwrap();
        talk.repeat(&message).await;
        talk.say().await;
    }
    talk.end().await;
}

#[tokio::test]
async fn p1_a_statement_that_takes_too_long_is_ended_and_nothing_acknowledged_is_lost() {
    const SLOW: &str = "
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NEW; END $$;
        CREATE TRIGGER dawdle BEFORE INSERT ON chat_messages FOR EACH ROW EXECUTE FUNCTION dawdle()";
    let mut talk = Talk::start(DEADLINE_S).await;
    talk.say().await;
    let outside = talk.pair.database.client().await;
    outside.batch_execute(SLOW).await.unwrap();
    let message = is_told_in_time(&mut talk).await;
    // Nobody sleeps on in the database: its own timeout has ended the statement.
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    super::eventually("the end of the slow statement", async || talk.pair.database.count(asleep).await == 0).await;
    outside.batch_execute("DROP TRIGGER dawdle ON chat_messages").await.unwrap();
    talk.repeat(&message).await;
    talk.say().await;
    talk.end().await;
}
