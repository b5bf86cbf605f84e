//! The commands of the terminal client about what was said, about rights, and about the account.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::support::broker::Broker;
use super::support::database::Database;
use super::support::within;
use super::terminal::{Profile, two};

/// The first object that a command prints.
async fn object(profile: &Profile, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
    let printed = profile.ok(&arguments).await;
    serde_json::from_str(printed.lines().next().unwrap_or_default()).unwrap_or_else(|_| panic!("{printed}"))
}

fn says(error: &str, what: &str, next: &str) {
    assert!(error.contains(what) && error.contains(next), "{error:?} must say {what:?} and {next:?}");
}

#[tokio::test]
async fn messages_are_answered_reacted_to_edited_and_deleted() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let first = object(&ada, &["send", &chat, "at fife?"]).await;
    let (seq, id) = (first["seq"].to_string(), first["message_id"].as_str().unwrap().to_owned());
    let reply = object(&bob, &["reply", &chat, &seq, "of course"]).await;
    let by_id = object(&bob, &["reply", &chat, &id, "I said so"]).await;
    let reaction = object(&bob, &["react", &chat, &seq, "👍"]).await;
    ada.ok(&["edit", &chat, &seq, "at five?"]).await;
    let read = ada.ok(&["--json", "read", &chat]).await;
    let lines: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |sent: &Value| lines.iter().find(|line| line["message_id"] == sent["message_id"]).unwrap();
    assert_eq!((&of(&first)["body"]["text"], &of(&first)["revision"]), (&"at five?".into(), &1.into()));
    for answer in [&reply, &by_id] {
        assert_eq!(of(answer)["body"]["reply"]["messageId"], first["message_id"]);
        assert_eq!(of(answer)["body"]["reply"]["senderId"], of(&first)["sender_id"]);
    }
    assert_eq!(of(&reaction)["body"]["emoji"], "👍");

    bob.ok(&["delete", &chat, reaction["message_id"].as_str().unwrap()]).await;
    ada.ok(&["delete", &chat, &reply["seq"].to_string()]).await;
    let read = bob.ok(&["read", &chat]).await;
    assert!(read.contains("at five? (edited)") && read.contains("I said so"), "{read}");
    assert!(!read.contains("fife") && !read.contains("of course") && !read.contains("👍"), "{read}");
    says(&bob.fails(&["edit", &chat, &seq, "mine now"]).await, "not this user's to change", "your own messages");
    says(&bob.fails(&["reply", &chat, "7777", "hm"]).await, "no message 7777", "`read` shows the places");
    assert_eq!(bob.run(&["react", &chat, "seven", "x"]).await.code, Some(2));
}

#[tokio::test]
async fn rights_owner_keys_and_history_are_changed() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["chat", "rights", &chat, "bob", "--read-only"]).await;
    says(&bob.fails(&["send", &chat, "may I?"]).await, "may not write", "see `chat show`");
    says(&ada.fails(&["chat", "rights", &chat, "bob", "--read-only"]).await, "nothing would change", "`chat show`");
    ada.ok(&["chat", "rights", &chat, "bob", "--manager"]).await;
    bob.ok(&["send", &chat, "I may"]).await;
    let before = object(&bob, &["chat", "rekey", &chat]).await["seq"].as_u64().unwrap();
    let after = object(&bob, &["chat", "history", &chat, "shared"]).await["seq"].as_u64().unwrap();
    assert!(after > before);
    ada.ok(&["chat", "transfer", &chat, "bob"]).await;
    let shown = ada.ok(&["chat", "show", &chat]).await;
    let line = |name: &str| shown.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("\tbob\t").contains("owner,manager,writer") && !line("\tada\t").contains("owner"), "{shown}");
    ada.ok(&["chat", "leave", &chat]).await;
}

#[tokio::test]
async fn unread_messages_are_counted_until_they_are_read_on_any_device() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "one"]).await;
    ada.ok(&["send", &chat, "two"]).await;
    assert_eq!(object(&bob, &["chat", "list"]).await["unread"], 2);
    assert!(bob.ok(&["chat", "list"]).await.contains("2 unread"));
    bob.ok(&["read", &chat]).await;
    assert_eq!(object(&bob, &["chat", "list"]).await["unread"], 2, "printing alone marks nothing");
    bob.ok(&["read", &chat, "--mark"]).await;
    assert_eq!(object(&bob, &["chat", "list"]).await["unread"], 0);
    assert!(!bob.ok(&["chat", "list"]).await.contains("unread"));
    let read = ada.ok(&["read", &chat]).await;
    assert_eq!(read.lines().count(), 2, "a read mark is no message: {read}");
}

#[tokio::test]
async fn sessions_have_names() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let ada = Profile::new(&parent, "ada");
    ada.register(&broker, "ada").await;
    ada.ok(&["session", "label", "this", "the laptop\u{1b}[2J"]).await;
    assert_eq!(object(&ada, &["session", "list"]).await["label"], "the laptop\u{1b}[2J");
    let listed = ada.ok(&["session", "list"]).await;
    assert!(listed.contains("\tthe laptop\\u{1b}[2J\t"), "{listed}");
    let id = object(&ada, &["session", "list"]).await["session_id"].as_str().unwrap().to_owned();
    ada.ok(&["session", "label", &id, ""]).await;
    assert!(object(&ada, &["session", "list"]).await["label"].is_null());
    ada.fails(&["session", "label", "01900000-0000-7000-8000-000000000000", "x"]).await;
}

#[tokio::test]
async fn who_may_add_one_is_said_and_the_blocked_may_not() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, _) = two(&broker, &parent).await;
    assert_eq!(object(&bob, &["account", "who-may-add"]).await["add_policy"], "everyone");
    bob.ok(&["account", "who-may-add", "nobody"]).await;
    assert!(bob.ok(&["account", "who-may-add"]).await.starts_with("nobody: "));
    let other = ada.ok(&["chat", "create", "Another"]).await.trim().to_owned();
    let refused = ada.fails(&["chat", "add", &other, "bob"]).await;
    says(&refused, "does not want to be added", "their setting");
    bob.ok(&["account", "who-may-add", "everyone"]).await;
    bob.ok(&["block", "ada"]).await;
    assert!(bob.ok(&["blocks"]).await.trim_end().ends_with("\tada"));
    assert_eq!(ada.fails(&["chat", "add", &other, "bob"]).await, refused, "who is blocked is not told why");
    bob.ok(&["unblock", "ada"]).await;
    assert_eq!(bob.ok(&["blocks"]).await, "");
    ada.ok(&["chat", "add", &other, "bob"]).await;
}

#[tokio::test]
async fn an_account_ends_only_when_its_name_is_typed() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, _) = two(&broker, &parent).await;
    let answer = async |profile: &Profile, line: &str| {
        let mut command = profile.command(&["account", "delete"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = within("account delete", ended).await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, complaints) = answer(&bob, "yes").await;
    assert_eq!(code, Some(1));
    says(&complaints, "that is not the username; nothing was deleted", "--yes");
    let (code, complaints) = answer(&bob, "bob").await;
    assert_eq!(code, Some(0), "{complaints}");
    says(&bob.fails(&["chat", "list"]).await, "was deleted", "another profile");
    ada.fails(&["safety-number", "bob"]).await;
    assert_eq!(object(&ada, &["account", "delete", "--yes"]).await["deleted"], true);
}
