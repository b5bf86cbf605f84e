//! Secrets at the terminal client.

use tempfile::TempDir;

use crate::support::broker::Broker;
use crate::support::database::Database;
use crate::support::typed::{fails, ok};
use crate::terminal::Profile;

#[tokio::test]
async fn a_secret_is_set_listed_read_logged_and_deleted() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let [ada, bob, eve] = ["ada", "bob", "eve"].map(|name| Profile::new(&parent, name));
    for (profile, name) in [(&ada, "ada"), (&bob, "bob")] {
        let register = ["register", "--server", &broker.public, name, "--password-stdin"];
        ok(profile, &register, "correct horse\n").await;
    }
    let chat = ada.ok(&["chat", "create", "Keys"]).await.trim().to_owned();
    ada.ok(&["chat", "add", &chat, "bob"]).await;
    let with = async |profile: &Profile, what: &[&str], input: &str| {
        let arguments = [&["secret"], what, &["--password-stdin"]].concat();
        ok(profile, &arguments, &format!("correct horse\n{input}")).await.stdout
    };
    let id = with(&ada, &["set", &chat, "door"], "two\nlines\n").await;
    assert_eq!(with(&bob, &["get", &chat, "door"], "").await, "two\nlines\n");
    assert_eq!(with(&bob, &["get", &chat, id.trim()], "").await, "two\nlines\n");
    with(&bob, &["set", &chat, "door"], "1234").await;
    assert_eq!(with(&ada, &["get", &chat, "door"], "").await, "1234\n");
    let listed = with(&ada, &["list", &chat], "").await;
    assert!(listed.contains("\tdoor\t") && listed.contains("\tbob\t") && listed.starts_with(id.trim()), "{listed}");
    let log = ada.ok(&["secret", "log", &chat]).await;
    let deeds: Vec<&str> = log.lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
    assert_eq!(deeds, ["read", "change", "read", "read", "create"], "{log}");

    // Who was removed may know it.
    ada.ok(&["chat", "remove", &chat, "bob"]).await;
    assert!(with(&ada, &["list", &chat], "").await.contains("known to a former member"));
    with(&ada, &["set", &chat, "door"], "5678").await;
    assert!(!with(&ada, &["list", &chat], "").await.contains("former"));
    with(&ada, &["delete", &chat, "door"], "").await;
    let get = ["secret", "get", &chat, "door", "--password-stdin"];
    let gone = fails(&ada, &get, "correct horse\n").await;
    assert!(gone.contains("no such group secret") && gone.contains("`secret list`"), "{gone}");
    assert!(fails(&ada, &get, "wrong horse\n").await.contains("wrong"));
    assert!(fails(&bob, &get, "correct horse\n").await.contains("no such chat"));

    // Without a password there is no key that opens secrets.
    eve.ok(&["register", "--server", &broker.public, "eve"]).await;
    let without = fails(&eve, &get, "correct horse\n").await;
    assert!(without.contains("no password") && without.contains("`password change`"), "{without}");
}
