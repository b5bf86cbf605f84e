//! Sending, reading, repeating: P1 to P5 and P9 as far as one chat shows them.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Cursor, Direction, Nothing, Reply, Request, Resume, ServerFrame};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::log::EntryBody;

use super::support::broker::{Broker, Settings};
use super::support::chat::{check_chain, history, submit, view, whole_log};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::{eventually, within};

/// Two users in one chat, both connected and live.
pub struct Pair {
    pub broker: Broker,
    pub ada: Device,
    pub ada_socket: Socket,
    pub bob: Device,
    pub bob_socket: Socket,
    pub chat_id: ChatId,
    // Dropped last: the broker's connections go first.
    pub database: Database,
}

impl Pair {
    pub async fn start() -> Self {
        let database = Database::create().await;
        let settings = Settings::on(&database);
        Self::start_on(database, settings).await
    }

    pub async fn start_on(database: Database, settings: Settings) -> Self {
        let broker = Broker::start_with(settings).await;
        let ada = Device::register(&broker, "ada").await;
        let bob = Device::register(&broker, "bob").await;
        let mut ada_socket = ada.connect_live(&broker).await;
        let bob_socket = bob.connect_live(&broker).await;
        let chat_id = ada.create_chat(&mut ada_socket).await;
        ada.add(&mut ada_socket, chat_id, &bob).await.unwrap();
        Self { broker, ada, ada_socket, bob, bob_socket, chat_id, database }
    }
}

/// Reads entries of a chat as they are pushed, in pages or live, until one has this seq.
pub async fn entries_until(socket: &mut Socket, chat_id: ChatId, seq: Seq) -> Vec<sealcast::protocol::log::LogEntry> {
    let mut entries = Vec::new();
    while entries.last().is_none_or(|entry: &sealcast::protocol::log::LogEntry| entry.seq < seq) {
        match socket.push().await.expect("open") {
            ServerFrame::Entry(push) if push.chat_id == chat_id => entries.push(push.entry),
            ServerFrame::Page(page) if page.chat_id == chat_id => entries.extend(page.entries),
            _ => {}
        }
    }
    entries
}

#[tokio::test]
async fn the_thin_line_register_create_add_send_deliver_read_remove() {
    let mut pair = Pair::start().await;
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "hello").await.unwrap();
    let entries = entries_until(&mut pair.bob_socket, pair.chat_id, sent.seq).await;
    let EntryBody::Message(envelope) = &entries.last().unwrap().body else { panic!() };
    assert_eq!(envelope.data.as_ref().unwrap().as_ref(), b"hello");
    let page = history(&mut pair.bob_socket, pair.chat_id, Direction::Before, sent.seq.next(), 10).await.unwrap();
    assert_eq!(page.entries.last().unwrap().log_hash, sent.log_hash);
    assert!(page.keys.iter().any(|key| key.key.is_some()), "a page brings the reader's own copies");
    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let refused = history(&mut pair.bob_socket, pair.chat_id, Direction::Before, sent.seq, 10).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownChat);
}

#[tokio::test]
async fn both_encodings_carry_the_same_chat() {
    let mut pair = Pair::start().await;
    let mut packed = pair.bob.connect_with(&pair.broker, Encoding::MessagePack).await;
    packed.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "both").await.unwrap();
    let entries = entries_until(&mut packed, pair.chat_id, sent.seq).await;
    check_chain(pair.chat_id, &entries);
    assert_eq!(entries.last().unwrap().log_hash, sent.log_hash);
    let answer = pair.bob.say(&mut packed, pair.chat_id, "packed").await.unwrap();
    let entries = entries_until(&mut pair.ada_socket, pair.chat_id, answer.seq).await;
    assert_eq!(entries.last().unwrap().log_hash, answer.log_hash);
}

#[tokio::test]
async fn p1_nothing_is_acknowledged_or_delivered_before_the_commit() {
    let mut pair = Pair::start().await;
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "first").await.unwrap();
    entries_until(&mut pair.bob_socket, pair.chat_id, sent.seq).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"held");
    let outside = pair.database.client().await;
    outside.batch_execute("BEGIN; SELECT 1 FROM chats FOR NO KEY UPDATE").await.unwrap();
    let id = pair.ada_socket.send(Request::Send(Box::new(message))).await;
    // Both sockets answer other requests meanwhile, so what was not committed would have come with them.
    for _ in 0..20 {
        let pushes = pair.bob_socket.pushes_so_far().await;
        assert!(!pushes.iter().any(|push| matches!(push, ServerFrame::Entry(_) | ServerFrame::Page(_))), "{pushes:?}");
        let pushes = pair.ada_socket.pushes_so_far().await;
        assert!(!pushes.iter().any(|push| matches!(push, ServerFrame::Ok(_) | ServerFrame::Error(_))), "{pushes:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    outside.batch_execute("COMMIT").await.unwrap();
    assert!(pair.ada_socket.answer(id).await.is_ok());
    let seq = sent.seq.next();
    let entries = entries_until(&mut pair.bob_socket, pair.chat_id, seq).await;
    assert_eq!(entries.last().unwrap().seq, seq);
}

#[tokio::test]
async fn p1_what_was_acknowledged_survives_kill_9_and_a_retry_gets_the_same_seq() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut open = Vec::new();
        for _ in 0..20 {
            let message = pair.ada.seal(&now, &mut key, b"durable");
            let id = pair.ada_socket.send(Request::Send(Box::new(message.clone()))).await;
            open.push((id, message));
        }
        // Some are answered, some are on their way when the broker dies.
        for (id, message) in open.iter().take(5) {
            let reply = pair.ada_socket.answer(*id).await.unwrap();
            let Reply::Sent(sent) = reply else { panic!() };
            acknowledged.push((message.envelope.message_id, sent.seq));
        }
        pair.broker.kill_and_restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        for (_, message) in open {
            let message_id = message.envelope.message_id;
            let sent = submit(&mut pair.ada_socket, message).await.unwrap();
            if let Some((_, seq)) = acknowledged.iter().find(|(id, _)| *id == message_id) {
                assert_eq!((sent.seq, sent.duplicate), (*seq, true), "round {round}");
            } else {
                acknowledged.push((message_id, sent.seq));
            }
        }
    }
    let log = whole_log(&mut pair.ada_socket, pair.chat_id).await;
    for (message_id, seq) in acknowledged {
        let found: Vec<_> = log
            .iter()
            .filter(|entry| matches!(&entry.body, EntryBody::Message(envelope) if envelope.message_id == message_id))
            .collect();
        assert_eq!(found.len(), 1, "once, and not twice");
        assert_eq!(found[0].seq, seq);
    }
}

#[tokio::test]
async fn p2_an_id_is_idempotent_for_ever_and_means_one_content() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"once");
    let first = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    let again = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    assert_eq!((again.seq, again.log_hash, again.duplicate), (first.seq, first.log_hash, true));

    let mut other = pair.ada.seal(&now, &mut key, b"other");
    other.envelope.message_id = message.envelope.message_id;
    pair.ada.sign_envelope(&mut other);
    let refused = submit(&mut pair.ada_socket, other).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IdReused);
    assert_eq!(refused.details.unwrap().stored.unwrap().seq, first.seq);

    let theirs = view(&mut pair.bob_socket, pair.chat_id).await;
    let mut bobs_key = pair.bob.sender_key(&theirs, pair.chat_id);
    let mut foreign = pair.bob.seal(&theirs, &mut bobs_key, b"foreign");
    foreign.envelope.message_id = message.envelope.message_id;
    pair.bob.sign_envelope(&mut foreign);
    let refused = submit(&mut pair.bob_socket, foreign).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IdReused);
    assert!(refused.details.is_none_or(|details| details.stored.is_none()), "a stranger's result is not told");

    pair.broker.kill_and_restart().await;
    let mut socket = pair.ada.connect_live(&pair.broker).await;
    let again = submit(&mut socket, message).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (first.seq, true));
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, 1);
    // And the chat goes on where it stood.
    let mut next = pair.ada.seal(&now, &mut key, b"next");
    next.envelope.counter = sealcast::protocol::ids::Counter::saturating(2);
    pair.ada.sign_envelope(&mut next);
    assert!(submit(&mut socket, next).await.is_ok());
}

#[tokio::test]
async fn p2_the_same_id_twice_on_its_way_holds_up_nobody() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let opening = pair.ada.seal(&now, &mut key, b"opening");
    submit(&mut pair.ada_socket, opening).await.unwrap();
    // While the row is held nothing commits, so all of these are on their way at once.
    let outside = pair.database.client().await;
    outside.batch_execute("BEGIN; SELECT 1 FROM chats FOR NO KEY UPDATE").await.unwrap();
    let first = pair.ada.seal(&now, &mut key, b"one content");
    let mut second = pair.ada.seal(&now, &mut key, b"other content");
    second.envelope.message_id = first.envelope.message_id;
    pair.ada.sign_envelope(&mut second);
    let sent = pair.ada_socket.send(Request::Send(Box::new(first.clone()))).await;
    let reused = pair.ada_socket.send(Request::Send(Box::new(second))).await;
    let again = pair.ada_socket.send(Request::Send(Box::new(first))).await;
    pair.ada_socket.pushes_so_far().await;
    outside.batch_execute("COMMIT").await.unwrap();
    let Ok(Reply::Sent(sent)) = pair.ada_socket.answer(sent).await else { panic!("the first is committed") };
    let refused = pair.ada_socket.answer(reused).await.unwrap_err();
    assert_eq!((refused.code, refused.details.unwrap().stored.unwrap().seq), (ErrorCode::IdReused, sent.seq));
    let Ok(Reply::Sent(again)) = pair.ada_socket.answer(again).await else { panic!("a repeat is answered") };
    assert_eq!((again.seq, again.duplicate), (sent.seq, true));
    assert_eq!(pair.broker.metric("sealcast_batch_failures_total", "").await, 0.0);
}

#[tokio::test]
async fn p3_catch_up_of_any_depth_is_ordered_gapless_and_chained() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut last = Seq::default();
    for _ in 0..450 {
        let message = pair.ada.seal(&now, &mut key, &[7; 300]);
        last = submit(&mut pair.ada_socket, message).await.unwrap().seq;
    }
    let live = entries_until(&mut pair.bob_socket, pair.chat_id, last).await;
    check_chain(pair.chat_id, &live);
    let joined = live[0].seq;
    for from in [joined.get() - 1, joined.get() + 100, last.get() - 1, last.get()] {
        let mut socket = pair.bob.connect(&pair.broker).await;
        let cursor = Cursor { chat_id: pair.chat_id, seq: Seq::saturating(from) };
        socket.request(Request::Resume(Resume { cursors: vec![cursor] })).await.unwrap();
        let mut entries = Vec::new();
        loop {
            match socket.push().await.unwrap() {
                ServerFrame::Page(page) => {
                    assert_eq!(page.after.get(), from + entries.len() as u64, "a page begins where the last one ended");
                    assert_eq!(page.up_to, page.entries.last().unwrap().seq);
                    entries.extend(page.entries);
                }
                ServerFrame::Live(_) => break,
                other => panic!("{other:?}"),
            }
        }
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq.get()).collect();
        assert_eq!(seqs, (from + 1..=last.get()).collect::<Vec<_>>());
        if !entries.is_empty() {
            check_chain(pair.chat_id, &entries);
        }
    }
    // Pages backwards meet the pages forwards.
    pair.bob_socket = pair.bob.connect(&pair.broker).await;
    let mut back = Vec::new();
    let mut at = last.next();
    loop {
        let page = history(&mut pair.bob_socket, pair.chat_id, Direction::Before, at, 77).await.unwrap();
        at = page.entries.first().unwrap().seq;
        back.splice(0..0, page.entries);
        if !page.more {
            break;
        }
    }
    assert_eq!(back, live);
}

#[tokio::test]
async fn p3_what_was_missed_of_a_chat_at_rest_is_read_once_and_what_follows_comes_next() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut last = now.seen.seq;
    for _ in 0..3 {
        let message = pair.ada.seal(&now, &mut key, &[7; 300]);
        last = submit(&mut pair.ada_socket, message).await.unwrap().seq;
    }
    // After it no chat is loaded.
    pair.broker.kill_and_restart().await;
    pair.bob_socket = pair.bob.connect(&pair.broker).await;
    let cursor = Cursor { chat_id: pair.chat_id, seq: now.seen.seq };
    pair.bob_socket.request(Request::Resume(Resume { cursors: vec![cursor] })).await.unwrap();
    let Some(ServerFrame::Page(page)) = pair.bob_socket.push().await else { panic!("a page") };
    assert_eq!((page.entries.len(), page.up_to, page.more), (3, last, false));
    assert!(matches!(pair.bob_socket.push().await, Some(ServerFrame::Live(_))));
    assert_eq!(pair.broker.metric("sealcast_transactions_total", "name=\"page\"").await, 1.0);
    pair.ada_socket = pair.ada.connect(&pair.broker).await;
    let message = pair.ada.seal(&now, &mut key, &[8; 300]);
    let next = submit(&mut pair.ada_socket, message).await.unwrap().seq;
    let Some(ServerFrame::Entry(entry)) = pair.bob_socket.push().await else { panic!("an entry") };
    assert_eq!((entry.entry.seq, next), (last.next(), last.next()));
    assert_eq!(pair.broker.metric("sealcast_transactions_total", "name=\"page\"").await, 1.0);
}

#[tokio::test]
async fn p4_a_message_commits_only_with_exactly_the_recipients() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let before = now.seen;

    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let whole = key.copies.clone();
    key.copies.retain(|copy| copy.session_id != pair.bob.session_id);
    let message = pair.ada.seal(&now, &mut key, b"incomplete");
    let refused = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CopiesMissing);
    assert_eq!(refused.details.unwrap().missing, [pair.bob.session_id]);
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, before, "no seq is used");

    // The key was stored: only what is missing follows.
    let mut completed = message;
    completed.new_key = None;
    completed.add_copies = whole.into_iter().filter(|copy| copy.session_id == pair.bob.session_id).collect();
    let sent = submit(&mut pair.ada_socket, completed).await.unwrap();
    assert_eq!(sent.seq, before.seq.next());

    let stranger = Device::register(&pair.broker, "eve").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    key.copies.push(super::support::chat::copy_for(stranger.session_id));
    let message = pair.ada.seal(&now, &mut key, b"too many");
    let refused = submit(&mut pair.ada_socket, message).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecipientsChanged);
    assert_eq!(refused.details.unwrap().extra, [stranger.session_id]);
    let key_id = key.announcement.announcement.key_id;
    let stored = format!("SELECT count(*) FROM sender_keys WHERE key_id = '{key_id}'");
    assert_eq!(pair.database.count(&stored).await, 0, "nothing is stored");
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.is_ok());
}

#[tokio::test]
async fn p4_the_commit_itself_counts_the_copies() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let first = pair.ada.seal(&now, &mut key, b"one");
    submit(&mut pair.ada_socket, first).await.unwrap();
    // Behind the actor's back a copy goes, as another node's work might make it.
    let outside = pair.database.client().await;
    let bob = pair.bob.session_id;
    let sql = format!(
        "DELETE FROM vault_chat_sender_keys WHERE session_id = '{bob}'; UPDATE sender_keys SET covered_version = NULL"
    );
    outside.batch_execute(&sql).await.unwrap();
    let second = pair.ada.seal(&now, &mut key, b"two");
    let refused = submit(&mut pair.ada_socket, second).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CopiesMissing);
    assert_eq!(refused.details.unwrap().missing, [bob]);
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, 1);
}

#[tokio::test]
async fn p5_after_a_removal_no_older_key_is_accepted() {
    let mut pair = Pair::start().await;
    let carol = Device::register(&pair.broker, "carol").await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    let before = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut used = pair.ada.sender_key(&before, pair.chat_id);
    let message = pair.ada.seal(&before, &mut used, b"before");
    submit(&mut pair.ada_socket, message).await.unwrap();
    // Made before the removal, uploaded after it.
    let mut held = pair.bob.sender_key(&before, pair.chat_id);

    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    let after = view(&mut pair.ada_socket, pair.chat_id).await;
    let stale = pair.ada.seal(&after, &mut used, b"stale");
    let refused = submit(&mut pair.ada_socket, stale).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::KeyStale);
    assert_eq!(refused.details.unwrap().epoch, Some(after.fold.epoch()));

    held.copies.retain(|copy| copy.session_id != carol.session_id);
    let late = pair.bob.seal(&after, &mut held, b"late");
    let refused = submit(&mut pair.bob_socket, late).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::KeyStale);
    assert!(pair.ada.say(&mut pair.ada_socket, pair.chat_id, "fresh").await.is_ok());
    assert!(pair.bob.say(&mut pair.bob_socket, pair.chat_id, "fresh too").await.is_ok());
}

#[tokio::test]
async fn p5_a_session_that_expires_makes_older_keys_stale_at_once() {
    let mut pair = Pair::start().await;
    let brief = Device::register_for(&pair.broker, "brief", 3_000_000).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &brief).await.unwrap();
    let before = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&before, pair.chat_id);
    let message = pair.ada.seal(&before, &mut key, b"while live");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let due = "SELECT count(*) FROM user_sessions WHERE expired_at <= clock_timestamp()";
    eventually("the expiry", async || pair.database.count(due).await == 1).await;
    let message = pair.ada.seal(&before, &mut key, b"too late");
    let refused = submit(&mut pair.ada_socket, message).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::KeyStale);
    let after = view(&mut pair.ada_socket, pair.chat_id).await;
    assert!(!after.fold.recipients().contains_key(&brief.session_id));
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "after").await.unwrap();
    assert_eq!(sent.unreachable, [brief.user_id]);
}

#[tokio::test]
async fn p9_a_reader_that_stops_reading_slows_nobody_and_misses_nothing() {
    const MESSAGES: usize = 10_000;
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("keys.messages_max", 10_000)
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000);
    let mut pair = Pair::start_on(database, settings).await;
    // Bob's second device reads on; his first one stops.
    let carol = Device::register(&pair.broker, "carol").await;
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    pair.bob_socket.pushes_so_far().await;
    let before_mib = pair.broker.rss_mib();

    let chat_id = pair.chat_id;
    let last = Seq::saturating(now.seen.seq.get() + MESSAGES as u64);
    let reading = tokio::spawn(async move {
        let entries = entries_until(&mut carol_socket, chat_id, last).await;
        check_chain(chat_id, &entries);
    });
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut open = std::collections::VecDeque::new();
    for _ in 0..MESSAGES {
        let message = pair.ada.seal(&now, &mut key, &[3; 1_000]);
        open.push_back(pair.ada_socket.send(Request::Send(Box::new(message))).await);
        if open.len() == 32 {
            pair.ada_socket.answer(open.pop_front().unwrap()).await.unwrap();
        }
    }
    for id in open {
        pair.ada_socket.answer(id).await.unwrap();
    }
    within("the reader beside it", reading).await.unwrap();
    let grown_mib = pair.broker.rss_mib().saturating_sub(before_mib);
    assert!(grown_mib < 64, "{grown_mib} MiB for one reader that stopped");

    let entries = entries_until(&mut pair.bob_socket, pair.chat_id, last).await;
    check_chain(pair.chat_id, &entries);
    let messages = entries.iter().filter(|entry| matches!(entry.body, EntryBody::Message(_))).count();
    assert_eq!(messages, MESSAGES);
    assert!(pair.broker.metric("sealcast_connections_lagged_total", "").await >= 1.0, "it must have lagged");
    assert!(pair.bob_socket.request(Request::Ping(Nothing {})).await.is_ok());
}
