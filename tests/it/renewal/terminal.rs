//! Renewal, and what waits for approval, at the terminal client.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{Client, Profile as Storage};
use sealcast::crypto::opaque::Password;
use tempfile::TempDir;

use super::super::support::broker::Broker;
use super::super::support::clients::config;
use super::super::support::database::Database;
use super::super::support::typed::{fails, ok};
use super::super::support::{eventually, within};
use super::super::terminal::Profile;

/// Waits until no session of a user is live.
async fn until_over(database: &Database, name: &str) {
    let live = format!(
        "SELECT count(*) FROM user_sessions s JOIN users u ON u.id = s.user_id \
         WHERE u.username = '{name}' AND s.state = 'live'"
    );
    eventually("the end of a session", async || database.count(&live).await == 0).await;
}

/// Gives the session of a profile a life of seconds.
async fn shorten(profile: &Profile, password: &str) {
    let storage = Storage::open(profile.folder(), None, Duration::from_secs(30)).unwrap();
    let client = Client::open(config(), Arc::new(storage)).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    let unlocked = client.unlock(&Password::new(password.to_owned()).unwrap()).await.unwrap();
    client.renew(Some(Duration::from_secs(3))).await.unwrap();
    drop(unlocked);
    client.close().await.unwrap();
}

#[tokio::test]
async fn login_renews_the_session_of_a_profile_that_has_expired() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let ada = Profile::new(&parent, "ada");
    let server = broker.public.as_str();
    let register = ["register", "--server", server, "ada", "--password-stdin"];
    ok(&ada, &register, "correct horse\n").await;
    let login = ["login", "--server", server, "ada", "--password-stdin"];
    let chat = ada.ok(&["chat", "create", "notes"]).await.trim().to_owned();
    ada.ok(&["send", &chat, "remember"]).await;
    shorten(&ada, "correct horse").await;
    until_over(&database, "ada").await;
    let refused = ada.fails(&["read", &chat]).await;
    assert!(refused.contains("expired") && refused.contains("`login`"), "{refused}");
    assert!(fails(&ada, &login, "wrong horse\n").await.contains("wrong"));
    let done = ok(&ada, &[login.as_slice(), &["--session-ttl", "86400"]].concat(), "correct horse\n").await;
    assert!(done.stdout.contains("ada"), "{}", done.stdout);
    assert!(ada.ok(&["read", &chat]).await.contains("remember"));
    ada.ok(&["send", &chat, "go on"]).await;
    assert_eq!(database.count("SELECT count(*) FROM user_sessions").await, 1, "the same session");
    assert!(fails(&ada, &login, "correct horse\n").await.contains("account already"));
}

#[tokio::test]
async fn without_a_password_the_next_command_renews_it() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let ada = Profile::new(&parent, "ada");
    ada.ok(&["register", "--server", &broker.public, "ada", "--session-ttl", "3"]).await;
    let chat = ada.ok(&["chat", "create", "notes"]).await.trim().to_owned();
    ada.ok(&["send", &chat, "remember"]).await;
    until_over(&database, "ada").await;
    assert!(ada.ok(&["read", &chat]).await.contains("remember"));
    assert_eq!(database.count("SELECT count(*) FROM user_sessions").await, 1);
}

#[tokio::test]
async fn a_code_is_drawn_on_both_sides_taken_as_it_is_scanned_and_listed_while_it_waits() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let [laptop, phone, bob] = ["laptop", "phone", "bob"].map(|name| Profile::new(&parent, name));
    laptop.ok(&["register", "--server", &broker.public, "ada"]).await;
    bob.ok(&["register", "--server", &broker.public, "bob"]).await;
    assert_eq!(laptop.ok(&["session", "pending"]).await, "");
    let mut linking = phone.spawn(&["session", "link", "--server", &broker.public, "ada", "--qr"]);
    let code = linking.line().await;
    let drawn = linking.line().await;
    assert!(drawn.chars().count() > 30 && drawn.chars().all(|sign| sign == '█'), "{drawn}");
    let pending = laptop.ok(&["session", "pending"]).await;
    assert!(pending.contains("pending") && pending.lines().count() == 1, "{pending}");
    let scanned = format!("sealcast:ada/{code}");
    let refused = bob.fails(&["session", "approve", &scanned]).await;
    assert!(refused.contains("for a session of ada"), "{refused}");
    let approved = laptop.ok(&["session", "approve", &scanned, "--qr"]).await;
    assert!(approved.lines().next().unwrap().chars().all(|sign| sign == '█'), "{approved}");
    assert!(uuid::Uuid::parse_str(approved.lines().last().unwrap()).is_ok());
    assert_eq!(linking.exit_code().await, Some(0));
    assert_eq!(laptop.ok(&["session", "list"]).await.lines().count(), 2);
    // Where nobody looks, nothing is drawn.
    let other = Profile::new(&parent, "other");
    let mut linking = other.spawn(&["--json", "session", "link", "--server", &broker.public, "ada"]);
    let object: serde_json::Value = serde_json::from_str(&linking.line().await).unwrap();
    assert_eq!(object["qr"], format!("sealcast:ada/{}", object["code"].as_str().unwrap()));
    let id = laptop.ok(&["session", "approve", object["code"].as_str().unwrap()]).await;
    assert!(uuid::Uuid::parse_str(id.trim()).is_ok(), "{id}");
    assert_eq!(linking.exit_code().await, Some(0));
}
