//! Processes that are killed at any moment: the broker (D1), its database or one backend of it (D2), and a database that
//! is started anew in the midst of everything (D4).

use std::time::Duration;

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Nothing, Reply, Request, Send, ServerFrame};
use sealcast::protocol::ids::{ChatId, MessageId, RequestId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::super::messages::Pair;
use super::super::support::broker::{Broker, Settings};
use super::super::support::chat::{submit, view, whole_log};
use super::super::support::device::{Device, Socket};
use super::super::support::{eventually, trials, within};
use super::send_until_taken;

/// Messages of one burst.
const BURST: usize = 20;

/// A number below a bound that nobody can foresee.
fn any_below(bound: usize) -> usize {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    usize::from_le_bytes(bytes) % bound
}

/// A burst on its way: the messages with the numbers of their requests.
async fn burst(ada: &Device, socket: &mut Socket, chat_id: ChatId) -> Vec<(RequestId, Send)> {
    let now = view(socket, chat_id).await;
    let mut key = ada.sender_key(&now, chat_id);
    let mut open = Vec::new();
    for _ in 0..BURST {
        let message = ada.seal(&now, &mut key, b"durable");
        open.push((socket.send(Request::Send(Box::new(message.clone()))).await, message));
    }
    open
}

/// What was pushed so far of a chat, as places and messages.
fn shown(pushes: Vec<ServerFrame>) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    for push in pushes {
        match push {
            ServerFrame::Entry(push) => entries.push(push.entry),
            ServerFrame::Page(page) => entries.extend(page.entries),
            _ => {}
        }
    }
    entries
}

/// The log has each of these once, at its place, and nothing else but its first entries.
async fn check_log(socket: &mut Socket, chat_id: ChatId, acknowledged: &[(MessageId, Seq)]) -> Vec<LogEntry> {
    let log = whole_log(socket, chat_id).await;
    let messages: Vec<(MessageId, Seq)> = log
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::Message(envelope) => Some((envelope.message_id, entry.seq)),
            _ => None,
        })
        .collect();
    assert_eq!(messages.len(), acknowledged.len(), "lost or twice");
    let mut sorted = acknowledged.to_vec();
    sorted.sort_by_key(|(_, seq)| *seq);
    assert_eq!(messages, sorted);
    log
}

#[tokio::test]
async fn d1_a_broker_killed_at_any_moment_loses_nothing_and_doubles_nothing() {
    let mut pair = Pair::start().await;
    let mut acknowledged: Vec<(MessageId, Seq)> = Vec::new();
    let mut seen_by_bob = Vec::new();
    for trial in 0..trials(4, 1_000) {
        let open = burst(&pair.ada, &mut pair.ada_socket, pair.chat_id).await;
        let mut told = Vec::new();
        for (id, message) in open.iter().take(any_below(BURST)) {
            let Ok(Reply::Sent(sent)) = pair.ada_socket.answer(*id).await else { panic!("refused") };
            told.push((message.envelope.message_id, sent.seq));
        }
        // Not a wait for anything: the moment is any.
        tokio::time::sleep(Duration::from_micros(any_below(3_000) as u64)).await;
        pair.broker.kill();
        while let Some(push) = pair.bob_socket.push().await {
            seen_by_bob.push(push);
        }
        pair.broker.restart().await;
        pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
        for (_, message) in &open {
            let sent = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
            let message_id = message.envelope.message_id;
            if let Some((_, seq)) = told.iter().find(|(told, _)| *told == message_id) {
                assert_eq!((sent.seq, sent.duplicate), (*seq, true), "trial {trial}");
            }
            acknowledged.push((message_id, sent.seq));
        }
        pair.bob_socket = pair.bob.connect_live(&pair.broker).await;
    }
    let log = check_log(&mut pair.ada_socket, pair.chat_id, &acknowledged).await;
    // Whatever anybody was shown is in the log, as it was shown.
    for entry in shown(seen_by_bob) {
        assert!(log.contains(&entry), "shown and not committed: {}", entry.seq);
    }
}

/// A broker with a Postgres of its own, in a folder of its own, and a user in a chat.
struct Own {
    broker: Broker,
    ada: Device,
    socket: Socket,
    chat_id: ChatId,
    folder: TempDir,
}

impl Own {
    async fn start(settings: Settings) -> Self {
        let folder = tempfile::Builder::new().prefix("sealcast-it-").tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let broker = Broker::start_with(settings.with("data_dir", folder.path().join("data").display())).await;
        let ada = Device::register(&broker, "ada").await;
        let mut socket = ada.connect_live(&broker).await;
        let chat_id = ada.create_chat(&mut socket).await;
        Self { broker, ada, socket, chat_id, folder }
    }

    /// Ends the broker and its server in good order, so that nothing is left in the folder.
    async fn stop(mut self) {
        self.broker.signal("TERM");
        assert_eq!(self.broker.exit_code().await, Some(0));
    }

    fn postmaster(&self) -> Option<String> {
        let file = std::fs::read_to_string(self.folder.path().join("data/postgres/postmaster.pid")).ok()?;
        file.lines().next().map(str::to_owned)
    }

    /// A connection behind the broker's back, as soon as there is a server.
    async fn client(&self) -> Client {
        let socket = self.folder.path().join("data/run");
        let url = format!("host='{}' user=sealcast dbname=sealcast", socket.display());
        let connect = async {
            loop {
                if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
                    tokio::spawn(connection);
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("a connection", connect).await
    }

    /// A backend that works for the broker.
    async fn backend(&self) -> String {
        let client = self.client().await;
        let backends = "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'sealcast'";
        let rows = client.query(backends, &[]).await.unwrap();
        rows[any_below(rows.len())].get(0)
    }
}

fn signal(name: &str, pid: &str) {
    let status = std::process::Command::new("kill").args([format!("-{name}").as_str(), pid]).status().unwrap();
    assert!(status.success(), "{name} to {pid}");
}

#[tokio::test]
async fn d2_a_database_killed_in_a_batch_is_a_retryable_answer_or_none_and_never_two_rows() {
    let mut own = Own::start(Settings::default()).await;
    let mut acknowledged = Vec::new();
    for trial in 0..trials(2, 200) {
        let victim = if trial % 2 == 0 { own.postmaster().unwrap() } else { own.backend().await };
        let open = burst(&own.ada, &mut own.socket, own.chat_id).await;
        let before = any_below(BURST);
        let mut answers = Vec::new();
        for (index, (id, _)) in open.iter().enumerate() {
            if index == before {
                signal("KILL", &victim);
            }
            answers.push(own.socket.answer(*id).await);
        }
        for ((_, message), answer) in open.iter().zip(answers) {
            let sent = send_until_taken(&mut own.socket, message).await;
            match answer {
                Ok(Reply::Sent(told)) => assert_eq!((sent.seq, sent.duplicate), (told.seq, true), "trial {trial}"),
                Ok(other) => panic!("{other:?}"),
                // What is behind one that was refused has a counter too high.
                Err(refused) => {
                    assert!(refused.retryable || refused.code == ErrorCode::CounterGap, "trial {trial}: {refused:?}");
                }
            }
            acknowledged.push((message.envelope.message_id, sent.seq));
        }
        assert!(own.socket.request(Request::Ping(Nothing {})).await.is_ok(), "no session is dropped");
    }
    let client = own.client().await;
    let rows: i64 = client.query_one("SELECT count(*) FROM chat_messages", &[]).await.unwrap().get(0);
    assert_eq!(rows, acknowledged.len() as i64, "never two rows");
    check_log(&mut own.socket, own.chat_id, &acknowledged).await;
    own.stop().await;
}

#[tokio::test]
async fn d4_a_database_that_is_started_anew_drops_no_session() {
    let mut own = Own::start(Settings::default()).await;
    let mut sockets = Vec::new();
    for index in 0..trials(20, 1_000) {
        let device = Device::register(&own.broker, &format!("user{index}")).await;
        sockets.push(device.connect_live(&own.broker).await);
    }
    // Fast and immediate, as the server's own signals have it.
    for name in ["INT", "QUIT"].into_iter().cycle().take(trials(2, 20)) {
        let before = own.postmaster().unwrap();
        let now = view(&mut own.socket, own.chat_id).await;
        let mut key = own.ada.sender_key(&now, own.chat_id);
        let message = own.ada.seal(&now, &mut key, b"across the restart");
        signal(name, &before);
        eventually("another server", async || own.postmaster().is_some_and(|pid| pid != before)).await;
        let sent = send_until_taken(&mut own.socket, &message).await;
        assert_eq!(sent.seq, now.seen.seq.next(), "{name}");
        for socket in &mut sockets {
            assert!(socket.request(Request::Ping(Nothing {})).await.is_ok(), "{name}");
        }
        let open = own.broker.metric("sealcast_connections", "authenticated").await;
        assert_eq!(open as usize, sockets.len() + 1, "{name}");
        assert_eq!(own.broker.metric("sealcast_connections_closed_total", "").await, 0.0, "{name}");
    }
    own.stop().await;
}
