//! The terminal client on a new device: what it opens, and what it says of the rest.

use serde_json::Value;
use tempfile::TempDir;

use super::super::support::broker::Broker;
use super::super::support::database::Database;
use super::super::support::typed::ok;
use super::super::terminal::{Profile, two};

#[tokio::test]
async fn p8_a_login_shows_what_was_said_before_and_coverage_says_what_is_open() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let server = broker.public.as_str();
    let [phone, bob, laptop] = ["phone", "bob", "laptop"].map(|name| Profile::new(&parent, name));
    ok(&phone, &["register", "--server", server, "ada", "--password-stdin"], "correct horse\n").await;
    bob.ok(&["register", "--server", server, "bob"]).await;
    let chat = phone.ok(&["chat", "create", "tea"]).await.trim().to_owned();
    phone.ok(&["chat", "add", &chat, "bob"]).await;
    bob.ok(&["send", &chat, "at five?"]).await;
    let done = ok(&laptop, &["login", "--server", server, "ada", "--password-stdin"], "correct horse\n").await;
    assert!(done.stderr.contains("1 key of what was said before is open"), "{}", done.stderr);
    let read = laptop.ok(&["read", &chat]).await;
    assert!(read.contains("at five?"), "{read}");
    let covered = laptop.ok(&["--json", "chat", "coverage", &chat]).await;
    let covered: Vec<Value> = covered.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((covered.len(), &covered[0]["openness"]), (1, &"open".into()));

    let done = ok(&laptop, &["chat", "recover", "--password-stdin"], "correct horse\n").await;
    assert_eq!(done.stdout, "nothing more could be opened\n");
    let done = ok(&laptop, &["--json", "chat", "recover", "--password-stdin"], "correct horse\n").await;
    let recovered: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&recovered["keys"], &recovered["locked_keys"]), (&0.into(), &0.into()));
    let refused = bob.fails(&["chat", "recover", "--password-stdin"]).await;
    assert!(refused.contains("password"), "{refused}");
}

#[tokio::test]
async fn a_message_that_cannot_be_opened_says_why() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "at five?"]).await;
    let gone = "DELETE FROM vault_chat_sender_keys v USING user_sessions s, users u \
        WHERE s.id = v.session_id AND u.id = s.user_id AND u.username = 'bob'";
    database.client().await.batch_execute(gone).await.unwrap();
    let said = bob.run(&["read", &chat]).await.stdout;
    assert!(said.contains("cannot be opened yet: no copy of its key has come"), "{said}");
    database.client().await.batch_execute("DELETE FROM vault_chat_sender_keys").await.unwrap();
    let said = bob.run(&["--json", "read", &chat]).await.stdout;
    let line: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&line["body"]["type"], &line["body"]["why"]), (&"locked".into(), &"key_lost".into()));
    let covered = bob.ok(&["chat", "coverage", &chat]).await;
    assert!(covered.lines().any(|line| line.ends_with("key_lost")), "{covered}");
}
