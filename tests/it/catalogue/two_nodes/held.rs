//! A commit of one broker that is held while the other changes the chat: what was judged before counts for nothing, and
//! what waits for the row comes behind.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Reply, Request};

use super::super::super::support::chat::{copy_for, submit, view};
use super::super::super::support::late_commits::LateCommits;
use super::super::super::support::proxy::Path;
use super::super::super::support::trials;
use super::{Nodes, until_a_chat_is_waited_for, until_in_flight};

#[tokio::test]
async fn k5_a_message_that_was_judged_before_a_session_came_is_not_committed_without_its_copy() {
    let (mut nodes, path) = Nodes::behind_a_path().await;
    for _ in 0..trials(3, 100) {
        let before = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        let mut key = nodes.bob.sender_key(&before, nodes.chat_id);
        let loaded = nodes.bob.seal(&before, &mut key, b"the first broker knows the chat");
        submit(&mut nodes.bob_socket, loaded).await.unwrap();
        path.set(Path::Hold);
        let message = nodes.bob.seal(&before, &mut key, b"judged, not committed");
        let id = nodes.bob_socket.send(Request::Send(Box::new(message))).await;
        until_in_flight(&nodes.a, 1).await;
        let added = nodes.carol.linked(&nodes.b, &mut nodes.carol_socket).await;
        path.set(Path::Open);
        let refused = nodes.bob_socket.answer(id).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::CopiesMissing);
        let details = refused.details.unwrap();
        assert_eq!(details.missing, [added.session_id]);

        let after = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        assert_eq!(details.seq, Some(after.fold.roster_version()));
        key.counter -= 1;
        let mut again = nodes.bob.seal(&after, &mut key, b"for everybody");
        again.add_copies = vec![copy_for(added.session_id)];
        let sent = submit(&mut nodes.bob_socket, again).await.unwrap();
        assert_eq!(sent.seq, after.seen.seq.next());
        nodes.carol.revoke(&mut nodes.carol_socket, added.session_id).await.unwrap();
    }
}

#[tokio::test]
async fn k5_a_session_that_comes_while_a_message_is_committed_waits_and_comes_behind_it() {
    let mut nodes = Nodes::start().await;
    // Held with the chat's row locked.
    let commits = LateCommits::of(&nodes.database).await;
    for _ in 0..trials(3, 100) {
        let before = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        let mut key = nodes.bob.sender_key(&before, nodes.chat_id);
        // The first broker knows the chat, and has its connection for commits.
        let loaded = nodes.bob.seal(&before, &mut key, b"loaded");
        submit(&mut nodes.bob_socket, loaded).await.unwrap();
        commits.hold().await;
        let message = nodes.bob.seal(&before, &mut key, b"in the middle of its commit");
        let id = nodes.bob_socket.send(Request::Send(Box::new(message))).await;
        commits.until_waiting().await;
        let adding = nodes.carol.linked(&nodes.b, &mut nodes.carol_socket);
        let releasing = async {
            until_a_chat_is_waited_for(&nodes.database).await;
            commits.release().await;
        };
        let (added, ()) = tokio::join!(adding, releasing);
        let Ok(Reply::Sent(sent)) = nodes.bob_socket.answer(id).await else { panic!("it came first") };
        let after = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        assert_eq!(after.fold.roster_version(), sent.seq.next(), "the session comes right behind");
        let next = nodes.bob.seal(&after, &mut key, b"not for everybody");
        let refused = submit(&mut nodes.bob_socket, next.clone()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::CopiesMissing);
        assert_eq!(refused.details.unwrap().missing, [added.session_id]);
        let mut completed = next;
        completed.add_copies = vec![copy_for(added.session_id)];
        assert!(submit(&mut nodes.bob_socket, completed).await.is_ok());
        nodes.carol.revoke(&mut nodes.carol_socket, added.session_id).await.unwrap();
    }
}

#[tokio::test]
async fn k6_a_message_that_was_judged_before_a_removal_is_refused_behind_it() {
    let (mut nodes, path) = Nodes::behind_a_path().await;
    for trial in 0..trials(4, 100) {
        let before = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        let mut key = nodes.bob.sender_key(&before, nodes.chat_id);
        let loaded = nodes.bob.seal(&before, &mut key, b"the first broker knows the chat");
        submit(&mut nodes.bob_socket, loaded).await.unwrap();
        if trial % 2 == 1 {
            // A key that comes with the message that is held is no better.
            key = nodes.bob.sender_key(&before, nodes.chat_id);
        }
        path.set(Path::Hold);
        let message = nodes.bob.seal(&before, &mut key, b"judged, not committed");
        let id = nodes.bob_socket.send(Request::Send(Box::new(message))).await;
        until_in_flight(&nodes.a, 1).await;
        nodes.ada[1].remove(&mut nodes.ada_sockets[1], nodes.chat_id, &nodes.carol).await.unwrap();
        path.set(Path::Open);
        let refused = nodes.bob_socket.answer(id).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::KeyStale);
        let after = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        assert_eq!(refused.details.unwrap().epoch, Some(after.fold.epoch()));
        let key_id = key.announcement.announcement.key_id;
        let under_it = format!("SELECT count(*) FROM chat_messages WHERE key_id = '{key_id}'");
        assert_eq!(nodes.database.count(&under_it).await, i64::from(trial % 2 == 0), "what came before it alone");
        let sent = nodes.bob.say(&mut nodes.bob_socket, nodes.chat_id, "among us").await.unwrap();
        assert_eq!(sent.seq, after.seen.seq.next());
        nodes.ada[1].add(&mut nodes.ada_sockets[1], nodes.chat_id, &nodes.carol).await.unwrap();
    }
}

#[tokio::test]
async fn k6_a_removal_that_comes_while_a_message_is_committed_waits_and_comes_behind_it() {
    let mut nodes = Nodes::start().await;
    // Held with the chat's row locked.
    let commits = LateCommits::of(&nodes.database).await;
    for _ in 0..trials(3, 100) {
        let before = view(&mut nodes.ada_sockets[1], nodes.chat_id).await;
        let mut key = nodes.bob.sender_key(&before, nodes.chat_id);
        // The first broker knows the chat, and has its connection for commits.
        let loaded = nodes.bob.seal(&before, &mut key, b"loaded");
        submit(&mut nodes.bob_socket, loaded).await.unwrap();
        commits.hold().await;
        let message = nodes.bob.seal(&before, &mut key, b"in the middle of its commit");
        let id = nodes.bob_socket.send(Request::Send(Box::new(message))).await;
        commits.until_waiting().await;
        let removing = nodes.ada[1].remove(&mut nodes.ada_sockets[1], nodes.chat_id, &nodes.carol);
        let releasing = async {
            until_a_chat_is_waited_for(&nodes.database).await;
            commits.release().await;
        };
        let (removed, ()) = tokio::join!(removing, releasing);
        let Ok(Reply::Sent(sent)) = nodes.bob_socket.answer(id).await else { panic!("it came first") };
        assert_eq!(removed.unwrap().seq, sent.seq.next(), "the removal comes right behind");
        let next = nodes.bob.seal(&before, &mut key, b"not any more");
        let refused = submit(&mut nodes.bob_socket, next).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::KeyStale);
        assert!(nodes.bob.say(&mut nodes.bob_socket, nodes.chat_id, "among us").await.is_ok());
        nodes.ada[1].add(&mut nodes.ada_sockets[1], nodes.chat_id, &nodes.carol).await.unwrap();
    }
}
