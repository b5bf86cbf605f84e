//! A device that logs in by password while another one of the same user is online is given what that one has.

use super::{log_in, register};
use crate::support::broker::Broker;
use crate::support::clients::{link, read_all, texts};
use crate::support::database::Database;
use crate::support::eventually;

#[tokio::test]
async fn p8_a_device_that_logs_in_beside_another_is_given_the_history() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let phone = register(&broker, "ada", "correct horse").await;
    let chat_id = phone.create_chat("siblings").await.unwrap();
    for text in ["one", "two", "three"] {
        phone.send(chat_id, text).await.unwrap();
        phone.rekey(chat_id).await.unwrap();
    }
    let laptop = log_in(&broker, "ada", "correct horse").await.unwrap();
    let held = format!("SELECT count(*) FROM vault_chat_sender_keys WHERE session_id = '{}'", laptop.session_id());
    eventually("copies of all keys", async || database.count(&held).await == 3).await;
    phone.close().await.unwrap();
    let all = read_all(&laptop, chat_id, 3).await;
    assert_eq!(texts(&all), ["one", "two", "three"]);
    assert_eq!((all.locked, all.alarms.len()), (0, 0));
    assert_eq!(laptop.check_sessions().await.unwrap(), []);
}

#[tokio::test]
async fn p8_what_a_device_was_handed_it_hands_on_to_one_that_logs_in() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let phone = register(&broker, "ada", "correct horse").await;
    let chat_id = phone.create_chat("siblings").await.unwrap();
    phone.send(chat_id, "one").await.unwrap();
    phone.rekey(chat_id).await.unwrap();
    let unlocked = phone.unlock(&super::password("correct horse")).await.unwrap();
    let tablet = link(&broker, &phone, "ada").await;
    drop(unlocked);
    assert!(!phone.holds_identity() && !tablet.holds_identity());
    phone.close().await.unwrap();
    // The tablet has never had a copy of the first key itself.
    let laptop = log_in(&broker, "ada", "correct horse").await.unwrap();
    let handed = format!("SELECT count(*) FROM vault_backup_session_keys WHERE session_id = '{}'", laptop.session_id());
    eventually("the phone's key", async || database.count(&handed).await == 1).await;
    eventually("the whole history", async || texts(&read_all(&laptop, chat_id, 10).await) == ["one"]).await;
    tablet.close().await.unwrap();
    assert_eq!(texts(&read_all(&laptop, chat_id, 10).await), ["one"]);
}
