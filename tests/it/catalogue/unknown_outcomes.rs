//! Commits whose outcome the broker is not told, and items that the database refuses: D2, D11, D13 and what goes with
//! them.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Reply, Request, Send};
use sealcast::protocol::ids::ChatId;

use super::super::messages::Pair;
use super::super::support::broker::Settings;
use super::super::support::chat::{SenderKey, submit, view};
use super::super::support::database::Database;
use super::super::support::late_commits::LateCommits;
use super::super::support::proxy::{Path, Proxy};
use super::super::support::{eventually, trials};
use super::{send_until_taken, seq_of};

const ROWS: &str = "SELECT count(*) FROM chat_messages";

/// Two users whose broker reaches its database through a proxy, with COMMITs that can be made to wait.
async fn behind_a_proxy() -> (Pair, Proxy, LateCommits) {
    let database = Database::create().await;
    let (path, url) = Proxy::before(&database).await;
    let commits = LateCommits::of(&database).await;
    let settings = Settings::default().with("database.url", url).with("database.deadline_s", 1);
    (Pair::start_on(database, settings).await, path, commits)
}

#[tokio::test]
async fn d2_an_answer_of_the_database_that_is_lost_is_looked_up_before_the_sender_is_answered() {
    let (mut pair, path, commits) = behind_a_proxy().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for (trial, broken) in
        [Path::HoldAnswers, Path::Reset, Path::Cut].into_iter().cycle().take(trials(3, 60)).enumerate()
    {
        commits.hold().await;
        let message = pair.ada.seal(&now, &mut key, b"whose answer is lost");
        let message_id = message.envelope.message_id;
        let id = pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await;
        commits.until_waiting().await;
        // Now it commits, and nobody hears of it.
        let before = pair.broker.metric("sealcast_batch_failures_total", "unknown").await;
        path.set(broken);
        commits.release().await;
        eventually("the row", async || pair.database.count(ROWS).await == trial as i64 + 1).await;
        eventually("an outcome that is unknown", async || {
            pair.broker.metric("sealcast_batch_failures_total", "unknown").await > before
        })
        .await;
        path.set(Path::Open);
        let seq = now.seen.seq.get() + trial as u64 + 1;
        match pair.ada_socket.answer(id).await {
            Ok(Reply::Sent(sent)) => assert_eq!((sent.seq.get(), sent.duplicate), (seq, true), "{broken:?}"),
            Ok(other) => panic!("{other:?}"),
            // What took longer than the deadline: it may have happened.
            Err(refused) => assert_eq!(refused.code, ErrorCode::StorageUnavailable, "{broken:?}"),
        }
        assert_eq!(pair.bob_socket.push_that(|push| seq_of(push, message_id)).await.get(), seq, "{broken:?}");
        let again = submit(&mut pair.ada_socket, message).await.unwrap();
        assert_eq!((again.seq.get(), again.duplicate), (seq, true), "{broken:?}");
        assert_eq!(pair.database.count(ROWS).await, trial as i64 + 1, "once, and not twice");
    }
}

#[tokio::test]
async fn d2_a_commit_that_was_given_up_and_comes_through_after_all_counts_once() {
    let (mut pair, _path, commits) = behind_a_proxy().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    commits.hold().await;
    let given_up = pair.ada.seal(&now, &mut key, b"given up");
    let message_id = given_up.envelope.message_id;
    let refused = submit(&mut pair.ada_socket, given_up.clone()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageUnavailable, "a deadline, though the database hangs");
    assert_eq!(commits.waiting().await, 1, "its transaction is there still");
    // What comes now must not be judged before it is known what became of the first: neither a repeat, nor a new message
    // with the counter of the first, nor what would be refused if the first were not there.
    let repeat = pair.ada_socket.send(Request::Send(Box::new(given_up))).await;
    let mut other_key = pair.bob.sender_key(&now, pair.chat_id);
    let mut stolen = pair.bob.seal(&now, &mut other_key, b"the same id");
    stolen.envelope.message_id = message_id;
    pair.bob.sign_envelope(&mut stolen);
    let stolen = pair.bob_socket.send(Request::Send(Box::new(stolen))).await;
    pair.ada_socket.pushes_so_far().await;
    pair.bob_socket.pushes_so_far().await;
    commits.release().await;
    eventually("the row", async || pair.database.count(ROWS).await == 1).await;
    // Either may have waited too long meanwhile, which says that it is not known; it is then.
    let seq = now.seen.seq.next();
    match pair.ada_socket.answer(repeat).await {
        Ok(Reply::Sent(sent)) => assert_eq!((sent.seq, sent.duplicate), (seq, true)),
        Ok(other) => panic!("{other:?}"),
        Err(refused) => assert_eq!(refused.code, ErrorCode::StorageUnavailable),
    }
    let refused = pair.bob_socket.answer(stolen).await.unwrap_err();
    assert!(matches!(refused.code, ErrorCode::StorageUnavailable | ErrorCode::IdReused), "{refused:?}");
    assert_eq!(
        pair.bob_socket.push_that(|push| seq_of(push, message_id)).await,
        seq,
        "shown, though its sender was told nothing"
    );
    let next = pair.ada.seal(&now, &mut key, b"next");
    assert_eq!(submit(&mut pair.ada_socket, next).await.unwrap().seq, seq.next());
    assert_eq!(pair.database.count(ROWS).await, 2);
}

#[tokio::test]
async fn d2_a_commit_that_comes_through_after_all_is_shown_though_nobody_repeats_it() {
    let (mut pair, _path, commits) = behind_a_proxy().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    commits.hold().await;
    let message = pair.ada.seal(&now, &mut key, b"given up");
    let message_id = message.envelope.message_id;
    let refused = submit(&mut pair.ada_socket, message).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageUnavailable);
    // The chat looks, and cannot know yet: the look waits for the row, in vain.
    eventually("a look in vain", async || {
        let looks = "{name=\"load_chat\",outcome=\"failed\"}";
        pair.broker.metric("sealcast_transactions_total", looks).await >= 1.0
    })
    .await;
    assert_eq!(commits.waiting().await, 1, "its transaction is there still");
    commits.release().await;
    assert_eq!(pair.bob_socket.push_that(|push| seq_of(push, message_id)).await, now.seen.seq.next());
}

/// Chats of Ada's alone, each with a key that has been used, all in one lane.
async fn chats_of_one_lane(count: usize, deadline_s: u64) -> (Pair, Vec<(ChatId, SenderKey)>) {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("writer.lanes", 1).with("database.deadline_s", deadline_s);
    let mut pair = Pair::start_on(database, settings).await;
    let mut chats = Vec::new();
    for _ in 0..count {
        let chat_id = pair.ada.create_chat(&mut pair.ada_socket).await;
        let now = view(&mut pair.ada_socket, chat_id).await;
        let mut key = pair.ada.sender_key(&now, chat_id);
        let first = pair.ada.seal(&now, &mut key, b"first");
        submit(&mut pair.ada_socket, first).await.unwrap();
        chats.push((chat_id, key));
    }
    (pair, chats)
}

/// Sends messages so that all but the first are in one commit; gives their answers.
async fn send_as_one_batch(pair: &mut Pair, messages: Vec<Send>) -> Vec<Result<Reply, ErrorCode>> {
    let held = pair.database.hold_commits().await;
    let mut ids = Vec::new();
    for (index, message) in messages.into_iter().enumerate() {
        ids.push(pair.ada_socket.send(Request::Send(Box::new(message))).await);
        if index == 0 {
            pair.database.until_held().await;
        }
    }
    // A message is with the writer when a later request of its connection is answered and its chat has had a turn.
    let count = ids.len() as f64;
    eventually("all of them on their way", async || {
        pair.ada_socket.pushes_so_far().await;
        pair.broker.metric("sealcast_messages_in_flight", "").await == count
    })
    .await;
    held.batch_execute("COMMIT").await.unwrap();
    let mut answers = Vec::new();
    for id in ids {
        answers.push(pair.ada_socket.answer(id).await.map_err(|refused| refused.code));
    }
    answers
}

#[tokio::test]
async fn d13_an_item_that_the_database_refuses_fails_alone_and_at_once() {
    let (mut pair, mut chats) = chats_of_one_lane(6, 20).await;
    let outside = pair.database.client().await;
    let raises = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF octet_length(NEW.data) = 13 THEN RAISE EXCEPTION 'planted'; END IF; RETURN NEW; END $$;";
    // What raises, a constraint, one that is looked at in COMMIT, and a value that cannot be.
    let planted = [
        (
            format!(
                "{raises} CREATE TRIGGER planted BEFORE INSERT ON chat_messages FOR EACH ROW EXECUTE FUNCTION refuse()"
            ),
            "DROP TRIGGER planted ON chat_messages",
        ),
        (
            "ALTER TABLE chat_messages ADD CONSTRAINT planted CHECK (octet_length(data) <> 13) NOT VALID".to_owned(),
            "ALTER TABLE chat_messages DROP CONSTRAINT planted",
        ),
        (
            "CREATE CONSTRAINT TRIGGER planted AFTER INSERT ON chat_messages DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION refuse()"
                .to_owned(),
            "DROP TRIGGER planted ON chat_messages",
        ),
        (
            "CREATE UNIQUE INDEX planted ON chat_messages ((1 / (octet_length(data) - 13)), chat_id, seq)".to_owned(),
            "DROP INDEX planted",
        ),
    ];
    let views = {
        let mut views = Vec::new();
        for (chat_id, _) in &chats {
            views.push(view(&mut pair.ada_socket, *chat_id).await);
        }
        views
    };
    for (plant, pull) in &planted {
        outside.batch_execute(plant).await.unwrap();
        let before = pair.broker.metric("sealcast_batch_failures_total", "refused").await;
        let mut messages = Vec::new();
        for ((_, key), view) in chats.iter_mut().zip(&views) {
            messages.push(pair.ada.seal(view, key, b"good"));
        }
        let (third, view) = (&mut chats[2].1, &views[2]);
        messages.push(pair.ada.seal(view, third, b"thirteen long"));
        messages.push(pair.ada.seal(view, third, b"behind it"));
        let bad = messages[6].clone();
        let answers = send_as_one_batch(&mut pair, messages).await;
        for (index, answer) in answers.iter().enumerate() {
            match index {
                6 => assert_eq!(answer.as_ref().unwrap_err(), &ErrorCode::Internal, "{plant}"),
                7 => assert_eq!(answer.as_ref().unwrap_err(), &ErrorCode::CounterGap, "{plant}"),
                _ => assert!(matches!(answer, Ok(Reply::Sent(_))), "{plant}: {index} {answer:?}"),
            }
        }
        assert!(pair.broker.metric("sealcast_batch_failures_total", "refused").await > before);
        // Again and alone it fares the same, and its chat goes on without it.
        let refused = submit(&mut pair.ada_socket, bad).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (ErrorCode::Internal, true), "{plant}");
        chats[2].1.counter -= 2;
        let good = pair.ada.seal(&views[2], &mut chats[2].1, b"good again");
        assert!(submit(&mut pair.ada_socket, good).await.is_ok(), "{plant}");
        outside.batch_execute(pull).await.unwrap();
    }
    assert_eq!(pair.broker.metric("sealcast_batch_failures_total", "unknown").await, 0.0, "no outcome was in doubt");
    let planted = pair.database.count("SELECT count(*) FROM chat_messages WHERE octet_length(data) = 13").await;
    assert_eq!(planted, 0);
}

#[tokio::test]
async fn d13_a_deadlock_and_a_failed_serialization_are_tried_again_inside_the_lane() {
    let (mut pair, mut chats) = chats_of_one_lane(2, 20).await;
    let outside = pair.database.client().await;
    let planted = "CREATE SEQUENCE tries; \
         CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN CASE nextval('tries') % 4 \
             WHEN 1 THEN RAISE EXCEPTION USING ERRCODE = '40001'; \
             WHEN 2 THEN RAISE EXCEPTION USING ERRCODE = '40P01'; ELSE RETURN NEW; END CASE; END $$; \
         CREATE TRIGGER planted BEFORE INSERT ON chat_messages FOR EACH ROW EXECUTE FUNCTION conflict()";
    outside.batch_execute(planted).await.unwrap();
    for _ in 0..trials(3, 100) {
        let mut messages = Vec::new();
        for (chat_id, key) in &mut chats {
            let now = view(&mut pair.ada_socket, *chat_id).await;
            messages.push(pair.ada.seal(&now, key, b"in the way"));
        }
        for answer in send_as_one_batch(&mut pair, messages).await {
            assert!(matches!(answer, Ok(Reply::Sent(_))), "{answer:?}");
        }
    }
    assert!(pair.database.count("SELECT last_value FROM tries").await > 3, "there were conflicts");
    outside.batch_execute("DROP TRIGGER planted ON chat_messages").await.unwrap();

    // A true one: the lane holds the chat's row and wants the key's, and somebody else has them the other way round.
    let (chat_id, key) = &mut chats[0];
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let before = pair.database.count(deadlocks).await;
    outside.batch_execute("BEGIN; SELECT 1 FROM sender_keys FOR UPDATE").await.unwrap();
    let now = view(&mut pair.ada_socket, *chat_id).await;
    let message = pair.ada.seal(&now, key, b"crossed");
    let id = pair.ada_socket.send(Request::Send(Box::new(message))).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock' AND query LIKE 'UPDATE sender_keys%'";
    eventually("the lane to wait", async || pair.database.count(waits).await == 1).await;
    // Whichever of the two the database picks, the message is committed.
    let crossed = outside.batch_execute("SELECT 1 FROM chats ORDER BY id FOR UPDATE; COMMIT").await;
    if crossed.is_err() {
        outside.batch_execute("ROLLBACK").await.unwrap();
    }
    let answer = pair.ada_socket.answer(id).await;
    assert!(matches!(answer, Ok(Reply::Sent(ref sent)) if !sent.duplicate), "{answer:?}");
    eventually("the deadlock in the statistics", async || pair.database.count(deadlocks).await > before).await;
    assert_eq!(pair.broker.metric("sealcast_batch_failures_total", "").await, 0.0, "retried inside, not seen");
}

#[tokio::test]
async fn d13_an_item_that_always_meets_another_transaction_waits_alone_and_no_longer_than_the_deadline() {
    let (mut pair, mut chats) = chats_of_one_lane(4, 4).await;
    let outside = pair.database.client().await;
    let planted = "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF octet_length(NEW.data) = 13 THEN RAISE EXCEPTION USING ERRCODE = '40001'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER planted BEFORE INSERT ON chat_messages FOR EACH ROW EXECUTE FUNCTION conflict()";
    outside.batch_execute(planted).await.unwrap();
    let mut messages = Vec::new();
    for (index, (chat_id, key)) in chats.iter_mut().enumerate() {
        let now = view(&mut pair.ada_socket, *chat_id).await;
        messages.push(pair.ada.seal(&now, key, if index == 3 { b"thirteen long".as_slice() } else { b"good" }));
    }
    let met = messages[3].clone();
    for (index, answer) in send_as_one_batch(&mut pair, messages).await.into_iter().enumerate() {
        match index {
            3 => assert_eq!(answer.unwrap_err(), ErrorCode::StorageUnavailable),
            _ => assert!(matches!(answer, Ok(Reply::Sent(_))), "{index} {answer:?}"),
        }
    }
    outside.batch_execute("DROP TRIGGER planted ON chat_messages").await.unwrap();
    assert!(!send_until_taken(&mut pair.ada_socket, &met).await.duplicate);
}

#[tokio::test]
async fn d11_an_id_means_one_content_after_a_day_and_from_another_session_of_the_same_user() {
    let mut pair = Pair::start().await;
    let sibling = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"once");
    let first = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    for _ in 0..3 {
        let later = pair.ada.seal(&now, &mut key, b"later");
        submit(&mut pair.ada_socket, later).await.unwrap();
    }
    let age = "UPDATE chat_messages SET created_at = created_at - interval '25 hours'; \
         UPDATE chat_events SET created_at = created_at - interval '25 hours'; \
         UPDATE chats SET created_at = created_at - interval '25 hours'";
    pair.database.client().await.batch_execute(age).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            pair.broker.kill_and_restart().await;
        }
        let mut socket = pair.ada.connect_live(&pair.broker).await;
        let again = submit(&mut socket, message.clone()).await.unwrap();
        assert_eq!((again.seq, again.log_hash, again.duplicate), (first.seq, first.log_hash, true));
        // Other bytes under the id, by the session that used it.
        let mut other = message.clone();
        other.envelope.data = Some(sealcast::protocol::binary::Blob::from(b"other".to_vec()));
        pair.ada.sign_envelope(&mut other);
        let refused = submit(&mut socket, other).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::IdReused);
        // The id by another session of the same user: its own signature, so other bytes too.
        let mut socket = sibling.connect_live(&pair.broker).await;
        let now = view(&mut socket, pair.chat_id).await;
        let mut siblings_key = sibling.sender_key(&now, pair.chat_id);
        let mut theirs = sibling.seal(&now, &mut siblings_key, b"once");
        theirs.envelope.message_id = message.envelope.message_id;
        sibling.sign_envelope(&mut theirs);
        let refused = submit(&mut socket, theirs).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::IdReused);
        assert!(refused.details.is_none_or(|details| details.stored.is_none()));
        assert!(sibling.say(&mut socket, pair.chat_id, "good").await.is_ok());
    }
    let named = format!("SELECT count(*) FROM chat_messages WHERE id = '{}'", message.envelope.message_id);
    assert_eq!(pair.database.count(&named).await, 1);
}
