//! Backups by `pg_dump` of a database that is in use, restored into an empty one by `pg_restore`: a complete one, on which
//! everybody goes on, and one that is older than what clients have seen, of which they say so and lose nothing.

use std::path::{Path, PathBuf};

use sealcast::client::{Client, Event, EventStream, SendError, VerificationFailure};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, Seq};
use tempfile::TempDir;

use super::support::broker::Broker;
use super::support::clients::{event, message, read_all, register, texts};
use super::support::database::Database;
use super::support::library::caught_up;
use super::support::mount::{is_skipped, missing_program};
use super::support::within;
use super::terminal::two;
use super::verify::program::verify_url;

/// Postgres' own tools.
struct Tools {
    folder: PathBuf,
    backups: TempDir,
}

impl Tools {
    /// Those beside the server that runs, or else those of the machine; none where there are neither.
    async fn of(database: &Database) -> Option<Self> {
        let asked = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
        let folder: String = database.client().await.query_one(asked, &[]).await.unwrap().get(0);
        let mut folder = PathBuf::from(folder);
        if !folder.join("pg_dump").exists() || !folder.join("pg_restore").exists() {
            if is_skipped(missing_program(&["pg_dump", "pg_restore"])) {
                return None;
            }
            folder = PathBuf::new();
        }
        Some(Self { folder, backups: tempfile::tempdir().unwrap() })
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = tokio::process::Command::new(self.folder.join(program));
        let output = within(program, command.args(arguments).kill_on_drop(true).output()).await.unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    async fn back_up(&self, database: &Database, name: &str) -> PathBuf {
        let file = self.backups.path().join(name);
        self.run("pg_dump", &["--format=custom", "--dbname", &database.url(), "--file", &file.display().to_string()])
            .await;
        file
    }

    /// Restores into an empty database, which `sealcast verify` then finds good.
    async fn restore(&self, backup: &Path) -> Database {
        let database = Database::create_empty().await;
        let arguments = ["--exit-on-error", "--no-owner", "--dbname", &database.url(), &backup.display().to_string()];
        self.run("pg_restore", &arguments).await;
        verify_url(database.url(), &[]).await.good();
        database
    }
}

async fn stop(broker: &mut Broker) {
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
}

/// Waits for the alarm that the log of a chat was set back; shown is nothing meanwhile.
async fn set_back(events: &mut EventStream, chat_id: ChatId) -> Seq {
    event("an alarm that the log was set back", events, |event| match event {
        Event::Alarm(alarm) => match alarm.failure {
            VerificationFailure::Rollback { seq } if alarm.chat_id == Some(chat_id) => Some(seq),
            failure => panic!("{failure:?} of {:?}", alarm.chat_id),
        },
        Event::Message(message) => panic!("shown: {message:?}"),
        _ => None,
    })
    .await
}

/// That both read the same, and how many messages.
async fn read_alike(ada: &Client, bob: &Client, chat_id: ChatId) -> Vec<String> {
    let (adas, bobs) = (read_all(ada, chat_id, 100).await, read_all(bob, chat_id, 100).await);
    assert!(adas.alarms.is_empty() && bobs.alarms.is_empty(), "{:?} {:?}", adas.alarms, bobs.alarms);
    assert_eq!(texts(&adas), texts(&bobs));
    texts(&adas)
}

#[tokio::test]
async fn p1_clients_resume_on_a_restored_backup_and_come_through_one_that_is_too_old() {
    let database = Database::create().await;
    let Some(tools) = Tools::of(&database).await else { return };
    let mut broker = Broker::start(&database).await;
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let seq = ada.add_member(chat_id, "bob", true, false).await.unwrap();
    caught_up(&bob, chat_id, seq).await;

    // The first backup is made in the midst of talk.
    let (mut old, mut said) = (None, 0);
    let mut backing_up = std::pin::pin!(tools.back_up(&database, "old"));
    while old.is_none() {
        let text = format!("during {said}");
        let talk = async { ada.send(chat_id, &text).await.unwrap() };
        tokio::select! {
            file = &mut backing_up => old = Some(file),
            _ = talk => said += 1,
        }
    }
    let mut last = Seq::default();
    for number in 0..5 {
        last = ada.send(chat_id, &format!("after {number}")).await.unwrap().seq;
    }
    caught_up(&bob, chat_id, last).await;
    caught_up(&ada, chat_id, last).await;
    // A chat that the first backup does not know.
    let younger = ada.create_chat("Tea").await.unwrap();
    ada.add_member(younger, "bob", true, false).await.unwrap();
    let end_of_younger = ada.send(younger, "in the younger chat").await.unwrap().seq;
    caught_up(&bob, younger, end_of_younger).await;
    let complete = tools.back_up(&database, "complete").await;
    let before = read_alike(&ada, &bob, chat_id).await;
    stop(&mut broker).await;

    // Older than what both have seen: they say so, and keep what they have.
    let older = tools.restore(&old.unwrap()).await;
    let (mut adas, mut bobs, mut bobs_chats) = (ada.events(), bob.events(), bob.events());
    let written = older.count("SELECT count(*) FROM chat_messages").await;
    broker.restart_on(&older).await;
    let end = set_back(&mut adas, chat_id).await;
    assert_eq!(set_back(&mut bobs, chat_id).await, end);
    assert!(end < last);
    let removed = event("the end of the younger chat", &mut bobs_chats, |event| match event {
        Event::Removed { chat_id } => Some(*chat_id),
        _ => None,
    })
    .await;
    assert_eq!(removed, younger);
    for client in [&ada, &bob] {
        assert_eq!(client.head(chat_id).map(|head| head.seq), Some(last), "what was seen stays what was seen");
    }
    let refused = within("a refusal", ada.send(chat_id, "into the other log")).await;
    assert!(matches!(refused, Err(SendError::Refused { code: ErrorCode::AheadOfLog })), "{refused:?}");
    assert_eq!(older.count("SELECT count(*) FROM chat_messages").await, written, "nothing was written");
    stop(&mut broker).await;

    // The complete one: as if nothing had been.
    let restored = tools.restore(&complete).await;
    let mut bobs = bob.events();
    broker.restart_on(&restored).await;
    within("a message to be taken", ada.send(chat_id, "on the copy")).await.unwrap();
    message(&mut bobs, "on the copy").await;
    within("a message to be taken", bob.send(chat_id, "here too")).await.unwrap();
    let answered = bob.head(chat_id).unwrap().seq;
    caught_up(&ada, chat_id, answered).await;
    let mut expected = before;
    expected.extend(["on the copy".to_owned(), "here too".to_owned()]);
    assert_eq!(read_alike(&ada, &bob, chat_id).await, expected);
    caught_up(&bob, younger, end_of_younger).await;
    assert_eq!(read_alike(&ada, &bob, younger).await, ["in the younger chat"]);
    within("a message to be taken", bob.send(younger, "and here")).await.unwrap();
    assert_eq!((ada.stats().alarms, bob.stats().alarms), (1, 1), "one for the old backup and none for the copy");
    stop(&mut broker).await;
    verify_url(restored.url(), &[]).await.good();
}

#[tokio::test]
async fn p7_the_terminal_says_in_plain_words_that_the_server_was_set_back() {
    let database = Database::create().await;
    let Some(tools) = Tools::of(&database).await else { return };
    let mut broker = Broker::start(&database).await;
    let parent = TempDir::new().unwrap();
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "yesterday"]).await;
    bob.ok(&["read", &chat]).await;
    let old = tools.back_up(&database, "old").await;
    ada.ok(&["send", &chat, "today"]).await;
    bob.ok(&["read", &chat]).await;
    let complete = tools.back_up(&database, "complete").await;
    stop(&mut broker).await;

    let older = tools.restore(&old).await;
    broker.restart_on(&older).await;
    let done = bob.run(&["chat", "show", &chat]).await;
    let alarm = format!("alarm: chat {chat}: the server's log ends at entry");
    assert!(done.stderr.contains(&alarm) && done.stderr.contains("older backup"), "{}", done.stderr);
    let refused = ada.fails(&["send", &chat, "into the other log"]).await;
    assert!(refused.contains("the server has less than it has shown before; do not trust"), "{refused}");
    stop(&mut broker).await;

    let restored = tools.restore(&complete).await;
    broker.restart_on(&restored).await;
    ada.ok(&["send", &chat, "on the copy"]).await;
    let done = bob.run(&["read", &chat]).await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let (today, copy) = (done.stdout.find("today"), done.stdout.find("on the copy"));
    assert!(today.is_some() && today < copy && !done.stdout.contains("into the other log"), "{}", done.stdout);
    stop(&mut broker).await;
}
