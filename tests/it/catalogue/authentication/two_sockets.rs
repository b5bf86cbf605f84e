//! A14: one session, two sockets at once.

use std::collections::BTreeSet;

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::CloseCode;
use sealcast::protocol::frame::{Cursor, Nothing, Request, Resume, ServerFrame};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::log::LogEntry;

use super::super::super::messages::Pair;
use super::super::super::support::broker::Settings;
use super::super::super::support::chat::{check_chain, submit, view, whole_log};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{eventually, trials, within};

/// Messages that are sent while the two log in.
const MESSAGES: u64 = 6;

/// What one connection of the two was given.
struct Given {
    socket: Socket,
    entries: Vec<LogEntry>,
    /// What came live.
    live: BTreeSet<Seq>,
}

/// Logs in, resumes, and reads until a place of the log, or until the end of the connection.
async fn read_up_to(mut socket: Socket, bob: Device, chat_id: ChatId, from: Seq, target: Seq) -> Given {
    let login = socket.send(bob.login(&socket.hello)).await;
    let mut is_in = false;
    let (mut entries, mut live) = (Vec::new(), BTreeSet::new());
    while entries.last().is_none_or(|entry: &LogEntry| entry.seq < target) {
        let Some(frame) = socket.push().await else { break };
        match frame {
            ServerFrame::Entry(push) if push.chat_id == chat_id => {
                assert!(is_in, "before its login");
                assert!(live.insert(push.entry.seq), "{} was delivered twice", push.entry.seq);
                if entries.last().is_none_or(|last| last.seq < push.entry.seq) {
                    entries.push(push.entry);
                }
            }
            ServerFrame::Page(page) if page.chat_id == chat_id => {
                // Around the moment at which the chat becomes live, one may come in a page as well.
                let newest = entries.last().map_or(from, |last: &LogEntry| last.seq);
                assert!(page.after <= newest, "a gap before a page");
                entries.extend(page.entries.into_iter().filter(|entry| entry.seq > newest));
            }
            ServerFrame::Ok(ok) if ok.id == login => {
                is_in = true;
                socket.send(Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq: from }] })).await;
            }
            ServerFrame::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
    Given { socket, entries, live }
}

#[tokio::test]
async fn a14_of_two_logins_at_once_one_stays_and_nothing_is_delivered_twice() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("limits.requests_per_s", 10_000)
        .with("limits.requests_burst", 10_000)
        .with("keys.messages_max", 10_000);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let mut from = now.seen.seq;
    let mut delivered = Vec::new();
    for trial in 0..trials(12, 100) {
        let target = Seq::saturating(from.get() + MESSAGES);
        let mut readers = Vec::new();
        for _ in 0..2 {
            let socket = Socket::open(&pair.broker, Encoding::ALL[trial % Encoding::ALL.len()]).await;
            readers.push(read_up_to(socket, pair.bob.clone(), chat_id, from, target));
        }
        let second = readers.pop().unwrap();
        let first = readers.pop().unwrap();
        let speaking = async {
            for _ in 0..MESSAGES {
                let message = pair.ada.seal(&now, &mut key, b"to the one who stays");
                submit(&mut pair.ada_socket, message).await.unwrap();
            }
        };
        let (first, second) = (tokio::spawn(first), tokio::spawn(second));
        let (first, second, ()) = within("both", async { tokio::join!(first, second, speaking) }).await;
        let mut stayed = 0;
        for Given { mut socket, entries, mut live } in [first.unwrap(), second.unwrap()] {
            assert!(entries.first().is_none_or(|entry| entry.seq == from.next()), "a gap behind the cursor");
            if !entries.is_empty() {
                check_chain(chat_id, &entries);
            }
            let ping = socket.send(Request::Ping(Nothing {})).await;
            let is_open = loop {
                match socket.push().await {
                    Some(ServerFrame::Ok(ok)) if ok.id == ping => break true,
                    Some(ServerFrame::Entry(push)) => {
                        assert!(live.insert(push.entry.seq), "{} was delivered twice", push.entry.seq);
                    }
                    Some(_) => {}
                    None => break false,
                }
            };
            if is_open {
                stayed += 1;
                assert_eq!(entries.last().map(|entry| entry.seq), Some(target), "who stays has everything");
                delivered.extend(entries);
            } else {
                assert_eq!(socket.closed, Some(CloseCode::Replaced.number()), "the other is told why");
            }
        }
        assert_eq!(stayed, 1, "trial {trial}");
        from = target;
    }
    // Strung together, what those who stayed were given is the log: each entry once.
    let log = whole_log(&mut pair.ada_socket, chat_id).await;
    let behind: Vec<_> = log.into_iter().filter(|entry| entry.seq > now.seen.seq).collect();
    assert_eq!(delivered, behind);
    eventually("no connection but ada's", async || pair.broker.metric("sealcast_connections{", "").await == 1.0).await;
    let mut socket = pair.bob.connect_live(&pair.broker).await;
    pair.bob.say(&mut socket, chat_id, "good").await.unwrap();
}
