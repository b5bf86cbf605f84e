//! What the client library writes, with real cryptography, is found good.

use sealcast::protocol::membership::HistoryPolicy;

use super::super::support::broker::Broker;
use super::super::support::database::Database;
use super::super::support::library::{ann_and_bob, caught_up, link, register};
use super::program::verify_url;

#[tokio::test]
async fn p12_a_conversation_of_the_client_library_is_found_good() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let sent = ann.send(chat_id, "lunch?").await.unwrap();
    let other = bob.send(chat_id, "yes").await.unwrap();
    caught_up(&ann, chat_id, other.seq).await;
    ann.edit(chat_id, sent.message_id, "lunch at one?").await.unwrap();
    let tablet = link(&bob, &broker.public).await;
    caught_up(&tablet, chat_id, other.seq).await;
    tablet.send(chat_id, "from my tablet").await.unwrap();
    ann.set_history(chat_id, HistoryPolicy::Shared).await.unwrap();
    let eve = register(&broker.public, "eve").await;
    let seq = ann.add_member(chat_id, "eve", true, true).await.unwrap();
    caught_up(&eve, chat_id, seq).await;
    let said = eve.send(chat_id, "me too").await.unwrap();
    caught_up(&ann, chat_id, said.seq).await;
    ann.delete_message(chat_id, said.message_id).await.unwrap();
    ann.remove_member(chat_id, "eve").await.unwrap();
    bob.revoke_session(tablet.session_id()).await.unwrap();
    bob.send(chat_id, "and now?").await.unwrap();
    eve.delete_account().await.unwrap();
    let called = verify_url(database.url(), &[]).await.good();
    assert_eq!(called.json["refused"].as_array().map(Vec::len), Some(0), "{}", called.table);
    assert_eq!(called.json["counts"]["messages"], 5);
}
