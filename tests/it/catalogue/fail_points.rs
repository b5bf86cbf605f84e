//! Kills at named places: around a commit, in a fan-out, in a passivation (D1), and a rollback there (D14); and a
//! commit of which its chat has yet to be told (P13).

use sealcast::protocol::frame::{Cursor, Nothing, Request, Resume, Send, ServerFrame};
use sealcast::protocol::limits::PAGE_ENTRIES_MAX;
use sealcast::protocol::log::EntryBody;

use super::super::messages::Pair;
use super::super::support::broker::Settings;
use super::super::support::chat::{submit, view, whole_log};
use super::super::support::database::Database;
use super::super::support::{eventually, trials};
use super::{send_until_taken, seq_of};

const ROWS: &str = "SELECT count(*) FROM chat_messages";

#[tokio::test]
async fn d14_a_rollback_after_a_seq_was_taken_leaves_no_gap() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let first = pair.ada.seal(&now, &mut key, b"first");
    let first = submit(&mut pair.ada_socket, first).await.unwrap();
    for trial in 1..=trials(5, 200) as u64 {
        pair.broker.break_at("commit::before", "2*return").await;
        let next = pair.ada.seal(&now, &mut key, b"next");
        let next = submit(&mut pair.ada_socket, next).await.unwrap();
        assert_eq!(next.seq.get(), first.seq.get() + trial);
    }
}

#[tokio::test]
async fn d1_a_kill_at_each_place_around_a_commit_loses_nothing_and_doubles_nothing() {
    let mut pair = Pair::start().await;
    // Whether the message is committed at that place.
    let places = [
        ("commit::before_writing", false),
        ("commit::before", false),
        ("commit::after", true),
        ("chat::before_ok", true),
        // Its answer waits to leave at one stroke with what is handed out, and leaves with whatever is asked meanwhile.
        ("chat::fan_out", true),
    ];
    let kinds = [false, true]
        .into_iter()
        .flat_map(|is_plain| places.map(|(place, is_committed)| (place, is_committed, is_plain)));
    let mut rows = 0;
    for (place, is_committed, is_plain) in kinds.cycle().take(2 * places.len() * trials(1, 40)) {
        let mut now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        if is_plain {
            let first = pair.ada.seal(&now, &mut key, b"stores the key");
            submit(&mut pair.ada_socket, first).await.unwrap();
            rows += 1;
            now = view(&mut pair.ada_socket, pair.chat_id).await;
        }
        let message = pair.ada.seal(&now, &mut key, b"across the kill");
        let message_id = message.envelope.message_id;
        pair.broker.break_at(place, "pause").await;
        pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await;
        if is_committed {
            eventually("the row", async || pair.database.count(ROWS).await == rows + 1).await;
        } else if is_plain {
            eventually("it to be taken in", async || {
                pair.broker.metric("sealcast_messages_in_flight", "").await == 1.0
            })
            .await;
            assert_eq!(pair.database.count(ROWS).await, rows, "{place}");
        } else {
            let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND state = 'idle in transaction'";
            eventually("the open transaction", async || pair.database.count(open).await == 1).await;
            assert_eq!(pair.database.count(ROWS).await, rows, "{place}");
        }
        // Neither before the kill nor by it is anything said of what was not committed, nor said too early.
        let pushes = pair.ada_socket.pushes_so_far().await;
        let is_told = pushes.iter().any(|push| matches!(push, ServerFrame::Ok(_) | ServerFrame::Error(_)));
        assert!(!is_told || place == "chat::fan_out", "{place}");
        let pushes = pair.bob_socket.pushes_so_far().await;
        assert!(!pushes.iter().any(|push| seq_of(push, message_id).is_some()), "{place}");
        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        pair.bob_socket = pair.bob.connect_live(&pair.broker).await;
        let sent = send_until_taken(&mut pair.ada_socket, &message).await;
        assert_eq!((sent.seq, sent.duplicate), (now.seen.seq.next(), is_committed), "{place}");
        let delivered = pair.bob_socket.push_that(|push| seq_of(push, message_id)).await;
        assert_eq!(delivered, sent.seq, "{place}");
        rows += 1;
        assert_eq!(pair.database.count(ROWS).await, rows, "{place}");
    }
    let log = whole_log(&mut pair.ada_socket, pair.chat_id).await;
    assert_eq!(log.iter().filter(|entry| matches!(entry.body, EntryBody::Message(_))).count() as i64, rows);
}

/// What a page shows of a message may be gone by an edit that is committed and of which the chat has yet to be told.
#[tokio::test]
async fn p13_live_is_not_said_between_what_was_purged_and_what_purged_it() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let messages: Vec<Send> =
        (0..PAGE_ENTRIES_MAX).map(|_| pair.ada.seal(&now, &mut key, b"one of a whole page")).collect();
    for some in messages.chunks(50) {
        let mut open = Vec::new();
        for message in some {
            open.push(pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await);
        }
        for id in open {
            pair.ada_socket.answer(id).await.unwrap();
        }
    }
    let edit = pair.ada.edit(&now, &mut key, messages[0].envelope.message_id, 1, b"the first again");
    pair.broker.break_at("commit::after", "pause").await;
    let id = pair.ada_socket.send(Request::Send(Box::new(edit))).await;
    let rows = i64::from(PAGE_ENTRIES_MAX) + 1;
    eventually("the row", async || pair.database.count(ROWS).await == rows).await;
    let mut socket = pair.bob.connect(&pair.broker).await;
    let cursors = vec![Cursor { chat_id: pair.chat_id, seq: now.seen.seq }];
    socket.request(Request::Resume(Resume { cursors })).await.unwrap();
    let mut up_to = now.seen.seq;
    let told = socket.push_that(|push| {
        if let ServerFrame::Page(page) = push {
            up_to = page.up_to;
        }
        matches!(push, ServerFrame::Live(_)).then_some(())
    });
    told.await;
    assert_eq!(up_to.get(), now.seen.seq.get() + u64::from(PAGE_ENTRIES_MAX) + 1);
    pair.broker.break_at("commit::after", "off").await;
    assert!(pair.ada_socket.answer(id).await.is_ok());
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.is_ok());
}

/// What comes of one chat while the others have yet to be looked at is not everything up to now.
#[tokio::test]
async fn p13_live_is_not_said_while_a_resume_is_under_way() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let last = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "while bob was away").await.unwrap().seq;
    pair.broker.break_at("resume::look", "return").await;
    let mut socket = pair.bob.connect(&pair.broker).await;
    let cursors = vec![Cursor { chat_id: pair.chat_id, seq: now.seen.seq }];
    socket.send(Request::Resume(Resume { cursors })).await;
    // The answer to a later request: the resume stands in its chat by now.
    socket.request(Request::Ping(Nothing {})).await.unwrap();
    let other = pair.ada.create_chat(&mut pair.ada_socket).await;
    pair.ada.add(&mut pair.ada_socket, other, &pair.bob).await.unwrap();
    let mut was_live = false;
    // Whoever reads for bob has nothing left to read when he is handed what is new.
    let is_live_in_other = async || {
        let seq = pair.ada.say(&mut pair.ada_socket, other, "to bob").await.unwrap().seq;
        let comes = socket.push_that(|push| {
            was_live |= matches!(push, ServerFrame::Live(_));
            match push {
                ServerFrame::Entry(push) if push.chat_id == other && push.entry.seq == seq => Some(true),
                ServerFrame::Page(page) if page.chat_id == other && page.up_to >= seq => Some(false),
                _ => None,
            }
        });
        comes.await
    };
    eventually("bob to be live in the other chat", is_live_in_other).await;
    was_live |= socket.pushes_so_far().await.iter().any(|push| matches!(push, ServerFrame::Live(_)));
    assert!(!was_live, "what came while bob was away has yet to come");
    pair.broker.break_at("resume::look", "off").await;
    let mut up_to = now.seen.seq;
    let told = socket.push_that(|push| {
        if let ServerFrame::Page(page) = push
            && page.chat_id == pair.chat_id
        {
            up_to = page.up_to;
        }
        matches!(push, ServerFrame::Live(_)).then_some(())
    });
    told.await;
    assert_eq!(up_to, last);
}

#[tokio::test]
async fn d1_a_kill_in_a_passivation_loses_nothing() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("chat.idle_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    for _ in 0..trials(1, 50) {
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let first = pair.ada.seal(&now, &mut key, b"before");
        let sent = submit(&mut pair.ada_socket, first.clone()).await.unwrap();
        pair.broker.break_at("chat::passivation", "pause").await;
        let counted = "sealcast_chats_passivated_total";
        eventually("the passivation", async || pair.broker.metric(counted, "").await >= 1.0).await;
        // It comes into the mailbox of an actor that is going, and dies with it.
        let second = pair.ada.seal(&now, &mut key, b"meanwhile");
        pair.ada_socket.send(Request::Send(Box::new(second.clone()))).await;
        pair.ada_socket.pushes_so_far().await;
        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        let again = submit(&mut pair.ada_socket, first).await.unwrap();
        assert_eq!((again.seq, again.duplicate), (sent.seq, true));
        let next = submit(&mut pair.ada_socket, second).await.unwrap();
        assert_eq!((next.seq, next.duplicate), (sent.seq.next(), false));
    }
}
