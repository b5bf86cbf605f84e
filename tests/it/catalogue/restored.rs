//! A database restored from an old backup: D15. Whoever has seen more is told so, and nothing is shown to them where
//! something else has been.

use std::path::{Path, PathBuf};
use std::process::Command;

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{AdvanceCursor, Cursor, Request, Resume, ServerFrame};
use tempfile::TempDir;

use super::super::support::broker::Broker;
use super::super::support::chat::{history, submit, view};
use super::private::Private;

/// A data folder that Postgres' account can reach.
fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new().prefix("sealcast-restored-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn stop(broker: &mut Broker) {
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
}

fn run(program: &str, arguments: &[&Path]) {
    assert!(Command::new(program).arg("-a").args(arguments).status().unwrap().success());
}

/// The data of a broker that is stopped.
struct Data(PathBuf);

impl Data {
    fn of(folder: &TempDir) -> Self {
        Self(folder.path().join("sealcast"))
    }

    fn back_up(&self) {
        run("cp", &[&self.0, &self.0.with_extension("yesterday")]);
    }

    fn restore(&self) {
        std::fs::remove_dir_all(&self.0).unwrap();
        std::fs::rename(self.0.with_extension("yesterday"), &self.0).unwrap();
    }
}

#[tokio::test]
async fn d15_after_an_old_backup_whoever_has_seen_more_is_told_and_is_shown_nothing() {
    let folder = folder();
    let data = Data::of(&folder);
    let mut private = Private::start(Private::settings(folder.path())).await;
    let chat_id = private.chat_id;
    let mut socket = private.ada.connect_live(&private.broker).await;
    let kept = private.ada.say(&mut socket, chat_id, "yesterday").await.unwrap();
    stop(&mut private.broker).await;
    data.back_up();
    private.broker.restart().await;
    let mut socket = private.ada.connect_live(&private.broker).await;
    for _ in 0..3 {
        private.ada.say(&mut socket, chat_id, "today").await.unwrap();
    }
    let seen = view(&mut socket, chat_id).await;
    assert!(seen.seen.seq > kept.seq);
    stop(&mut private.broker).await;
    data.restore();
    private.broker.restart().await;

    let mut socket = private.ada.connect(&private.broker).await;
    let mut ahead = async |request: Request| {
        let refused = socket.request(request).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (ErrorCode::AheadOfLog, false));
        refused.details.and_then(|details| details.seq)
    };
    let cursor = |seq| Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq }] });
    assert_eq!(ahead(cursor(seen.seen.seq)).await, Some(kept.seq));
    let mut key = private.ada.sender_key(&seen, chat_id);
    let message = private.ada.seal(&seen, &mut key, b"after what was lost");
    ahead(Request::Send(Box::new(message))).await;
    ahead(Request::AdvanceCursor(AdvanceCursor { chat_id, seq: seen.seen.seq })).await;

    // Somebody who has seen no more than there is goes on, at a place that was used before.
    let mut bobs = private.bob.connect_live(&private.broker).await;
    let again = private.bob.say(&mut bobs, chat_id, "another").await.unwrap();
    assert_eq!(again.seq, kept.seq.next());
    assert_eq!(ahead(cursor(seen.seen.seq)).await, Some(again.seq));
    let again = private.bob.say(&mut bobs, chat_id, "and another").await.unwrap();
    assert!(again.seq < seen.seen.seq);
    let mut last = again.seq;
    while last <= seen.seen.seq.next() {
        last = private.bob.say(&mut bobs, chat_id, "beyond what was seen").await.unwrap().seq;
    }
    let shown = socket.pushes_so_far().await;
    let shows = |push: &ServerFrame| matches!(push, ServerFrame::Entry(_) | ServerFrame::Page(_));
    assert!(!shown.iter().any(shows), "shown of another log: {shown:?}");

    // On the same socket a cursor that the log has reads on, and a message after it is taken.
    socket.request(cursor(kept.seq)).await.unwrap();
    let page = history(&mut socket, chat_id, sealcast::protocol::frame::Direction::After, kept.seq, 10).await.unwrap();
    assert_eq!(page.up_to, last);
    let now = view(&mut socket, chat_id).await;
    let mut key = private.ada.sender_key(&now, chat_id);
    let message = private.ada.seal(&now, &mut key, b"from here on");
    submit(&mut socket, message).await.unwrap();
    private.log().await;
    stop(&mut private.broker).await;
}

#[cfg(feature = "client")]
#[tokio::test]
async fn d15_a_client_that_is_ahead_raises_an_alarm_and_shows_nothing_of_another_log() {
    use std::sync::Arc;

    use sealcast::client::{Event, MemoryStorage, Storage, VerificationFailure};

    use super::super::support::clients::{event, message, open, register, register_in};
    use super::super::support::library::caught_up;

    let folder = folder();
    let data = Data::of(&folder);
    let mut broker = Broker::start_with(Private::settings(folder.path())).await;
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let (ada, bob) = (register(&broker, "ada").await, register_in(&broker, "bob", Arc::clone(&storage)).await);
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let seq = ada.add_member(chat_id, "bob", true, false).await.unwrap();
    caught_up(&bob, chat_id, seq).await;
    let mut bobs = bob.events();
    ada.send(chat_id, "yesterday").await.unwrap();
    message(&mut bobs, "yesterday").await;
    bob.close().await.unwrap();
    stop(&mut broker).await;
    data.back_up();
    broker.restart().await;
    let mut last = seq;
    for n in 0..4 {
        last = ada.send(chat_id, &format!("today {n}")).await.unwrap().seq;
    }
    // What she sent comes back to her as an event of its own.
    caught_up(&ada, chat_id, last).await;
    let mut events = ada.events();
    stop(&mut broker).await;
    data.restore();
    broker.restart().await;
    event("an alarm that entries are lost", &mut events, |event| match event {
        Event::Alarm(alarm) if matches!(alarm.failure, VerificationFailure::Rollback { .. }) => Some(()),
        Event::Message(message) => panic!("shown: {message:?}"),
        _ => None,
    })
    .await;

    // Bob, who has seen none of it, fills the places up and more; then the log is longer than what Ada has seen.
    let bob = open(storage).await;
    let mut reached = seq;
    while reached <= last {
        reached = bob.send(chat_id, "of another log").await.unwrap().seq;
    }
    broker.kill_and_restart().await;
    event("an alarm that the log is another", &mut events, |event| match event {
        Event::Alarm(alarm) => matches!(alarm.failure, VerificationFailure::LogHash).then_some(()),
        Event::Message(message) => panic!("shown: {message:?}"),
        _ => None,
    })
    .await;
    assert_eq!(ada.head(chat_id).map(|head| head.seq), Some(last), "what was seen stays what was seen");
    stop(&mut broker).await;
}
