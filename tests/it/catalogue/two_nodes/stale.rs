//! What one broker believes of a chat that the other has changed: no older key is accepted for it, nothing is handed to who
//! is gone, and nobody is turned away who belongs there.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    ChatGone, ChatInfo, Cursor, Direction, Nothing, Reply, Request, Resume, ServerFrame, StageCopies,
};
use sealcast::protocol::ids::{KeyId, Seq};
use sealcast::protocol::log::EntryBody;

use super::super::super::support::chat::{copy_for, history, submit, view};
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::rights::listed;
use super::super::super::support::trials;
use super::Nodes;

/// What takes somebody's keys away, on the second broker.
#[derive(Debug, Clone, Copy)]
enum Change {
    Removed,
    Left,
    Revoked,
    Rekeyed,
    Added,
    Deleted,
}

impl Change {
    const ALL: [Self; 6] = [Self::Removed, Self::Left, Self::Revoked, Self::Rekeyed, Self::Added, Self::Deleted];

    /// What must be so before it can be made.
    async fn prepare(self, nodes: &mut Nodes, name: &str) -> Device {
        let dan = Device::register(&nodes.b, name).await;
        if !matches!(self, Self::Added) {
            nodes.ada[1].add(&mut nodes.ada_sockets[1], nodes.chat_id, &dan).await.unwrap();
        }
        dan
    }

    async fn make(self, nodes: &mut Nodes, dan: &Device, lost: &Device, socket: &mut Socket) {
        let Nodes { ada: [_, ada], ada_sockets: [_, adas], chat_id, .. } = nodes;
        match self {
            Self::Removed => drop(ada.remove(adas, *chat_id, dan).await.unwrap()),
            Self::Left => drop(dan.leave(socket, *chat_id).await.unwrap()),
            Self::Revoked => drop(dan.revoke(socket, lost.session_id).await.unwrap()),
            Self::Rekeyed => drop(ada.rekey(adas, *chat_id).await.unwrap()),
            Self::Added => drop(ada.add(adas, *chat_id, dan).await.unwrap()),
            Self::Deleted => drop(dan.delete_account(socket).await.unwrap()),
        }
    }
}

#[tokio::test]
async fn n6_a_node_that_was_not_told_accepts_nothing_under_an_older_key() {
    let mut nodes = Nodes::start().await;
    for trial in 0..trials(1, 5) {
        for change in Change::ALL {
            let dan = change.prepare(&mut nodes, &format!("dan-{trial}-{change:?}").to_lowercase()).await;
            let mut socket = dan.connect_live(&nodes.b).await;
            let lost = dan.linked(&nodes.b, &mut socket).await;
            let before = view(&mut nodes.bob_socket, nodes.chat_id).await;
            let mut key = nodes.bob.sender_key(&before, nodes.chat_id);
            let mut unused = nodes.bob.sender_key(&before, nodes.chat_id);
            let first = nodes.bob.seal(&before, &mut key, b"the first broker knows the chat");
            submit(&mut nodes.bob_socket, first).await.unwrap();
            change.make(&mut nodes, &dan, &lost, &mut socket).await;
            // The very next on the other broker, which nobody has told.
            let stale = nodes.bob.seal(&before, &mut key, b"stale");
            let refused = submit(&mut nodes.bob_socket, stale).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::KeyStale, "{change:?}");
            let after = view(&mut nodes.bob_socket, nodes.chat_id).await;
            assert_eq!(refused.details.unwrap().epoch, Some(after.fold.epoch()), "{change:?}");
            let late = nodes.bob.seal(&after, &mut unused, b"made before");
            let refused = submit(&mut nodes.bob_socket, late).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::KeyStale, "{change:?}");
            assert!(nodes.bob.say(&mut nodes.bob_socket, nodes.chat_id, "good").await.is_ok(), "{change:?}");
        }
    }
}

/// Reads pushes until an entry of the chat has this seq; gives the seqs.
async fn until(socket: &mut Socket, nodes_chat: sealcast::protocol::ids::ChatId, seq: Seq) -> Vec<Seq> {
    let mut seqs = Vec::new();
    while !seqs.contains(&seq) {
        seqs.extend(
            socket
                .push_that(|push| match push {
                    ServerFrame::Entry(push) if push.chat_id == nodes_chat => Some(vec![push.entry.seq]),
                    ServerFrame::Page(page) if page.chat_id == nodes_chat => {
                        Some(page.entries.iter().map(|entry| entry.seq).collect())
                    }
                    _ => None,
                })
                .await,
        );
    }
    seqs
}

#[tokio::test]
async fn n6_who_was_removed_or_revoked_on_one_node_gets_nothing_on_the_other() {
    let mut nodes = Nodes::start().await;
    let chat_id = nodes.chat_id;
    // Carol and a further device of Bob's are live on the first broker too, and have caught up.
    let mut carols = nodes.carol.connect_live(&nodes.a).await;
    let lost = nodes.bob.linked(&nodes.a, &mut nodes.bob_socket).await;
    let mut losts = lost.connect_live(&nodes.a).await;
    let now = view(&mut nodes.bob_socket, chat_id).await;
    let mut key = nodes.carol.sender_key(&now, chat_id);
    let sent = nodes.bob.say(&mut nodes.bob_socket, chat_id, "for all").await.unwrap();
    until(&mut carols, chat_id, sent.seq).await;
    until(&mut losts, chat_id, sent.seq).await;

    let mut bob_elsewhere = nodes.bob.connect(&nodes.b).await;
    nodes.bob.revoke(&mut bob_elsewhere, lost.session_id).await.unwrap();
    let removed = nodes.ada[1].remove(&mut nodes.ada_sockets[1], chat_id, &nodes.carol).await.unwrap();
    for socket in [&mut carols, &mut losts] {
        let refused = history(socket, chat_id, Direction::Before, removed.seq.next(), 10).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::UnknownChat);
        let keys = Request::Keys(sealcast::protocol::frame::Keys { chat_id, key_ids: vec![KeyId::generate()] });
        assert_eq!(socket.request(keys).await.unwrap_err().code, ErrorCode::UnknownChat);
    }
    let message = nodes.carol.seal(&now, &mut key, b"I am still here");
    assert_eq!(submit(&mut carols, message).await.unwrap_err().code, ErrorCode::UnknownChat);
    for _ in 0..3 {
        nodes.bob.say(&mut nodes.bob_socket, chat_id, "among us").await.unwrap();
    }
    let resume = Resume { cursors: vec![Cursor { chat_id, seq: sent.seq }] };
    carols.request(Request::Resume(resume)).await.unwrap();
    let pushes = carols.pushes_so_far().await;
    assert!(pushes.contains(&ServerFrame::ChatGone(ChatGone { chat_id })), "{pushes:?}");
    for push in pushes.into_iter().chain(losts.pushes_so_far().await) {
        let newest = match push {
            ServerFrame::Entry(push) => push.entry.seq,
            ServerFrame::Page(page) => page.up_to,
            _ => continue,
        };
        assert!(newest <= removed.seq, "{newest} was handed out after the removal {}", removed.seq);
    }
}

#[tokio::test]
async fn who_was_added_on_one_node_reads_and_sends_on_the_other() {
    let mut nodes = Nodes::start().await;
    let chat_id = nodes.chat_id;
    for trial in 0..trials(4, 100) {
        let dan = Device::register(&nodes.a, &format!("dan-{trial}")).await;
        let mut socket = dan.connect_live(&nodes.a).await;
        // The first broker has the chat in memory, without Dan.
        nodes.bob.say(&mut nodes.bob_socket, chat_id, "before").await.unwrap();
        let added = nodes.ada[1].add(&mut nodes.ada_sockets[1], chat_id, &dan).await.unwrap();
        assert!(listed(&mut socket, chat_id).await.is_some_and(|chat: ChatInfo| chat.joined_seq == added.seq));
        if trial % 2 == 0 {
            let now = view(&mut socket, chat_id).await;
            let mut key = dan.sender_key(&now, chat_id);
            let part = StageCopies {
                chat_id,
                key_id: key.announcement.announcement.key_id,
                part: 0,
                parts: 1,
                copies: key.copies.iter().map(|copy| copy_for(copy.session_id)).collect(),
            };
            assert_eq!(socket.request(Request::StageCopies(part)).await, Ok(Reply::Done(Nothing {})));
            let message = dan.seal(&now, &mut key, b"here I am");
            submit(&mut socket, message).await.unwrap();
        } else {
            socket = dan.connect_live(&nodes.a).await;
        }
        // He is handed everything from his joining on, and what comes later.
        let sent = nodes.bob.say(&mut nodes.bob_socket, chat_id, "welcome").await.unwrap();
        let mut seqs = until(&mut socket, chat_id, sent.seq).await;
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs[0], added.seq);
        assert_eq!(seqs.len() as u64, sent.seq.get() - added.seq.get() + 1, "{seqs:?}");
    }
}

#[tokio::test]
async fn p3_who_comes_to_a_node_that_knows_less_is_brought_up_to_date_and_may_send() {
    let mut nodes = Nodes::start().await;
    let chat_id = nodes.chat_id;
    for _ in 0..trials(3, 100) {
        // The first broker believes that this is the newest entry; the second adds more.
        let known = nodes.bob.say(&mut nodes.bob_socket, chat_id, "here").await.unwrap();
        let mut newest = known.seq;
        for _ in 0..3 {
            newest = nodes.carol.say(&mut nodes.carol_socket, chat_id, "there").await.unwrap().seq;
        }
        let mut resumed = nodes.bob.connect(&nodes.a).await;
        let cursors = vec![Cursor { chat_id, seq: known.seq }];
        resumed.request(Request::Resume(Resume { cursors })).await.unwrap();
        let seqs = until(&mut resumed, chat_id, newest).await;
        let expected: Vec<Seq> = (known.seq.get() + 1..=newest.get()).map(Seq::saturating).collect();
        assert_eq!(seqs, expected);
        nodes.bob_socket = resumed;
    }
    // Who has seen more than a broker believes there is, is not ahead of the log.
    nodes.bob.say(&mut nodes.bob_socket, chat_id, "here").await.unwrap();
    nodes.carol.say(&mut nodes.carol_socket, chat_id, "there").await.unwrap();
    let mut moved = nodes.carol.connect(&nodes.a).await;
    let sent = nodes.carol.say(&mut moved, chat_id, "moved").await.unwrap();
    let log = history(&mut moved, chat_id, Direction::Before, sent.seq.next(), 1).await.unwrap();
    assert!(matches!(log.entries[0].body, EntryBody::Message(_)));
    // Who says more than the database knows, is.
    let mut ahead = view(&mut moved, chat_id).await;
    ahead.seen.seq = Seq::saturating(ahead.seen.seq.get() + 5);
    let mut key = nodes.carol.sender_key(&ahead, chat_id);
    let message = nodes.carol.seal(&ahead, &mut key, b"from the future");
    assert_eq!(submit(&mut moved, message).await.unwrap_err().code, ErrorCode::AheadOfLog);
}
