//! Keys that were made or used before somebody lost them: K7 and K8.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Nothing, Reply, Request, StageCopies};
use sealcast::protocol::keys::staged_hash;

use super::super::super::messages::Pair;
use super::super::super::support::broker::Settings;
use super::super::super::support::chat::{submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::proxy::{Path, Proxy};
use super::super::super::support::{eventually, trials};

#[tokio::test]
async fn k7_a_key_made_before_a_removal_and_uploaded_after_is_refused() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 1_000_000);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    let carol = Device::register(&pair.broker, "carol").await;
    let path = Proxy::start(&pair.broker).await;
    let mut bobs = pair.bob.connect_at(path.address(), Encoding::Json).await;
    for trial in 0..trials(4, 200) {
        pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
        let before = view(&mut pair.ada_socket, chat_id).await;
        let mut key = pair.bob.sender_key(&before, chat_id);
        let mut message = pair.bob.seal(&before, &mut key.clone(), b"made before");
        if trial % 2 == 1 {
            // The copies went ahead, and are no better for it.
            let new_key = message.new_key.as_mut().unwrap();
            let key_id = key.announcement.announcement.key_id;
            let copies = std::mem::take(&mut new_key.copies);
            new_key.staged = Some(staged_hash(copies.iter()));
            let part = StageCopies { chat_id, key_id, part: 0, parts: 1, copies };
            assert_eq!(bobs.request(Request::StageCopies(part)).await, Ok(Reply::Done(Nothing {})));
        }
        path.set(Path::HoldRequests);
        let held = bobs.send(Request::Send(Box::new(message))).await;
        pair.ada.remove(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
        path.set(Path::Open);
        let refused = bobs.answer(held).await.unwrap_err();
        let after = view(&mut pair.ada_socket, chat_id).await;
        assert_eq!((refused.code, refused.details.unwrap().epoch), (ErrorCode::KeyStale, Some(after.fold.epoch())));

        // Trimmed, and signed for the roster as it is: the maker's epoch counts all the same.
        key.copies.retain(|copy| copy.session_id != carol.session_id);
        let trimmed = pair.bob.seal(&after, &mut key, b"trimmed");
        assert_eq!(submit(&mut bobs, trimmed).await.unwrap_err().code, ErrorCode::KeyStale);
        let key_id = key.announcement.announcement.key_id;
        let stored = format!("SELECT count(*) FROM sender_keys WHERE key_id = '{key_id}'");
        assert_eq!(pair.database.count(&stored).await, 0);
        let sent = pair.bob.say(&mut bobs, chat_id, "good").await.unwrap();
        assert_eq!(sent.seq, after.seen.seq.next(), "no seq was used");
    }
}

#[tokio::test]
async fn k8_a_session_that_expired_and_that_nobody_has_swept_makes_keys_stale_in_the_commit() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("database.deadline_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    let brief = Device::register_for(&pair.broker, "brief", 2_000_000).await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &brief).await.unwrap();
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let first = pair.ada.seal(&now, &mut key, b"while it is live");
    let first = submit(&mut pair.ada_socket, first).await.unwrap();
    // Nobody can write an expiry down: no sweep, and nobody who comes upon it.
    let never = "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'not now'; END $$; \
         CREATE TRIGGER never BEFORE UPDATE OF state ON user_sessions FOR EACH ROW EXECUTE FUNCTION never()";
    pair.database.client().await.batch_execute(never).await.unwrap();
    let due = "SELECT count(*) FROM user_sessions WHERE state = 'live' AND expired_at <= clock_timestamp()";
    eventually("the expiry", async || pair.database.count(due).await == 1).await;
    let message = pair.ada.seal(&now, &mut key, b"too late");
    let with_new_key = pair.ada.seal(&now, &mut pair.ada.sender_key(&now, chat_id), b"too late as well");
    for message in [&message, &with_new_key] {
        let refused = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (ErrorCode::StorageUnavailable, true));
        assert_eq!(pair.database.count(due).await, 1, "nobody has written it down");
    }
    assert_eq!(pair.database.count("SELECT last_seq FROM chats").await as u64, first.seq.get(), "nothing was taken");

    pair.database.client().await.batch_execute("DROP TRIGGER never ON user_sessions").await.unwrap();
    for message in [message, with_new_key] {
        let refused = submit(&mut pair.ada_socket, message).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::KeyStale);
    }
    let sent = pair.ada.say(&mut pair.ada_socket, chat_id, "good").await.unwrap();
    assert_eq!((sent.seq, sent.unreachable), (first.seq.next().next(), vec![brief.user_id]));
}
