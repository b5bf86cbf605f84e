//! Renewal after the session's end: it goes out, comes in again, and reads what it could read before.

use sealcast::protocol::error::{ErrorCode, MissingReason};
use sealcast::protocol::frame::{Cursor, Keys, Reply, Request, Resume, ServerFrame, SessionState};
use sealcast::protocol::ids::Seq;

use super::super::messages::Pair;
use super::super::support::chat::{copy_for, submit, view};
use super::super::support::link::sessions;
use super::super::verify::program::verify_url;
use super::{brief, state_of, story, until_expired};

#[tokio::test]
async fn p4_p5_a_session_comes_back_after_its_end_with_its_old_copies_and_is_covered_again() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let mut brief = brief(&mut pair).await;
    let now_in = view(&mut pair.ada_socket, chat_id).await;
    let mut first = pair.ada.sender_key(&now_in, chat_id);
    let message = pair.ada.seal(&now_in, &mut first, b"before");
    submit(&mut pair.ada_socket, message).await.unwrap();
    until_expired(&pair.database, brief.session_id).await;

    // Out: what is sent now is not for it, and keys that it holds are stale.
    let out = view(&mut pair.ada_socket, chat_id).await;
    let late = pair.ada.seal(&out, &mut first, b"under a key that it holds");
    assert_eq!(submit(&mut pair.ada_socket, late).await.unwrap_err().code, ErrorCode::KeyStale);
    let mut second = pair.ada.sender_key(&out, chat_id);
    let message = pair.ada.seal(&out, &mut second, b"meanwhile");
    submit(&mut pair.ada_socket, message).await.unwrap();

    brief.come_back(&pair.broker).await.unwrap();
    assert_eq!(state_of(&pair.database, brief.session_id).await, "live");
    assert_eq!(story(&mut pair.ada_socket, chat_id, brief.session_id).await, ["in", "expired", "in"]);
    let back = view(&mut pair.ada_socket, chat_id).await;
    assert_eq!(back.fold.epoch(), out.fold.epoch(), "whoever comes in raises no epoch");
    let mut socket = brief.connect_live(&pair.broker).await;
    let listed = sessions(&mut socket).await;
    assert_eq!((listed.sessions[0].state, &listed.sessions[0].certificate), (SessionState::Live, &brief.certificate));

    // What it had it has; what came while it was out it lacks.
    let held = first.announcement.announcement.key_id;
    let lacked = second.announcement.announcement.key_id;
    let request = Request::Keys(Keys { chat_id, key_ids: vec![held, lacked] });
    let Reply::Keys(keys) = socket.request(request).await.unwrap() else { panic!() };
    let copy_of =
        |key_id| keys.keys.iter().find(|key| key.announcement.announcement.key_id == key_id).and_then(|key| key.key);
    let old_copy = first.copies.iter().find(|copy| copy.session_id == brief.session_id).unwrap();
    assert_eq!((copy_of(held), copy_of(lacked)), (Some(old_copy.key), None));

    // Senders cover it again.
    let message = pair.ada.seal(&back, &mut second, b"and now");
    let error = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
    let details = error.details.unwrap();
    assert_eq!((error.code, &details.missing), (ErrorCode::CopiesMissing, &vec![brief.session_id]));
    assert_eq!((details.reason, details.seq), (Some(MissingReason::NewSession), Some(back.fold.roster_version())));
    let mut completed = message;
    completed.add_copies = vec![copy_for(brief.session_id)];
    let sent = submit(&mut pair.ada_socket, completed).await.unwrap();
    socket.push_that(|push| matches!(push, ServerFrame::Entry(push) if push.entry.seq == sent.seq).then_some(())).await;
    brief.say(&mut socket, chat_id, "good").await.unwrap();
    pair.bob.say(&mut pair.bob_socket, chat_id, "good").await.unwrap();
    verify_url(pair.database.url(), &[]).await.good();
}

#[tokio::test]
async fn a_session_that_comes_back_is_shown_the_log_of_the_time_it_was_out() {
    let mut pair = Pair::start().await;
    let mut brief = brief(&mut pair).await;
    let known = view(&mut pair.ada_socket, pair.chat_id).await.seen.seq;
    until_expired(&pair.database, brief.session_id).await;
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "meanwhile").await.unwrap();
    brief.come_back(&pair.broker).await.unwrap();
    let mut socket = brief.connect(&pair.broker).await;
    let cursors = vec![Cursor { chat_id: pair.chat_id, seq: known }];
    socket.request(Request::Resume(Resume { cursors })).await.unwrap();
    let mut seqs: Vec<Seq> = Vec::new();
    while seqs.last() != Some(&sent.seq.next()) {
        match socket.push().await.unwrap() {
            ServerFrame::Page(page) => seqs.extend(page.entries.iter().map(|entry| entry.seq)),
            ServerFrame::Entry(push) => seqs.push(push.entry.seq),
            _ => {}
        }
    }
    let expected: Vec<Seq> = (known.get() + 1..=sent.seq.get() + 1).map(Seq::saturating).collect();
    assert_eq!(seqs, expected, "its end, what was said, its return");
}

#[tokio::test]
async fn a_session_that_is_in_no_chat_comes_back_too_and_is_in_chats_that_follow() {
    let mut pair = Pair::start().await;
    let mut brief = super::super::support::device::Device::register_for(&pair.broker, "brief", 1_000_000).await;
    until_expired(&pair.database, brief.session_id).await;
    // Added while it is out: a member whom nobody can write to.
    let added = pair.ada.add(&mut pair.ada_socket, pair.chat_id, &brief).await.unwrap();
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "hello?").await.unwrap();
    assert_eq!(sent.unreachable, [brief.user_id]);
    brief.come_back(&pair.broker).await.unwrap();
    assert_eq!(story(&mut pair.ada_socket, pair.chat_id, brief.session_id).await, ["in"]);
    let mut socket = brief.connect_live(&pair.broker).await;
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "hello").await.unwrap();
    assert!(sent.unreachable.is_empty() && sent.seq > added.seq);
    brief.say(&mut socket, pair.chat_id, "good").await.unwrap();
}
