//! All connections of the broker to its database are ended at once, again and again.

use super::super::support::eventually;
use super::Talk;

const END_ALL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE datname = current_database() AND application_name = 'sealcast'";

#[tokio::test]
async fn p1_all_connections_of_the_pool_are_ended_in_the_midst_of_talk_and_nothing_acknowledged_is_lost() {
    let mut talk = Talk::start(10).await;
    let outside = talk.pair.database.client().await;
    let before = talk.pair.broker.metric("sealcast_transactions_total", "outcome=\"error\"").await;
    for _ in 0..10 {
        talk.say().await;
        // One is ended while its commit waits, the others at rest.
        let held = talk.pair.database.hold_commits().await;
        let message = talk.seal();
        talk.pair.ada_socket.send(sealcast::protocol::frame::Request::Send(Box::new(message.clone()))).await;
        talk.pair.database.until_held().await;
        let ended: i64 = outside.query_one(END_ALL, &[]).await.unwrap().get(0);
        assert!(ended > 0, "nobody was connected");
        held.batch_execute("COMMIT").await.unwrap();
        talk.repeat(&message).await;
        talk.say().await;
    }
    eventually("the figures to show it", async || super::failures(&talk.pair.broker).await > before).await;
    talk.end().await;
}
