//! Recovery by friends at the terminal client.

use serde_json::Value;
use tempfile::TempDir;

use super::super::support::broker::Broker;
use super::super::support::database::Database;
use super::super::support::eventually;
use super::super::support::typed::{fails_beside_news as fails, ok};
use super::super::terminal::Profile;

/// Ada, bob and cyd, who have passwords, in a chat of ada's.
async fn three(server: &str, parent: &TempDir) -> ([Profile; 3], String) {
    let people = ["ada", "bob", "cyd"].map(|name| (name, Profile::new(parent, name)));
    for (name, profile) in &people {
        ok(profile, &["register", "--server", server, name, "--password-stdin"], "correct horse\n").await;
    }
    let profiles = people.map(|(_, profile)| profile);
    let chat = profiles[0].ok(&["chat", "create", "Friends"]).await.trim().to_owned();
    for friend in ["bob", "cyd"] {
        profiles[0].ok(&["chat", "add", &chat, friend]).await;
    }
    (profiles, chat)
}

#[tokio::test]
async fn friends_help_one_who_lost_everything() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let server = broker.public.as_str();
    let ([ada, bob, cyd], chat) = three(server, &parent).await;
    let new = Profile::new(&parent, "new");
    bob.ok(&["read", &chat]).await;
    bob.ok(&["send", &chat, "the plan"]).await;
    let share = ["friends", "share", "--of", "2", "bob", "cyd", "--password-stdin"];
    assert!(
        fails(&ada, &["friends", "share", "--of", "3", "bob", "cyd", "--password-stdin"], "").await.contains("3 of 2")
    );
    let done = ok(&ada, &share, "correct horse\n").await;
    let code = done.stdout.trim().to_owned();
    assert_eq!(code.split('-').count(), 14, "{}", done.stdout);
    assert!(done.stderr.contains("any 2 of bob, cyd can recover this account together"), "{}", done.stderr);
    let by_code = ["friends", "share", "--of", "2", "bob", "cyd", "--password-stdin", "--recovery-code"];
    ok(&ada, &by_code, &format!("{code}\n")).await;
    let listed = ada.ok(&["friends", "list"]).await;
    assert!(listed.contains("bob\tholds a share") && listed.contains("cyd\tholds a share"), "{listed}");

    // The new device asks, is ended while it waits, and goes on later.
    let recover = ["friends", "recover", "--server", server, "ada", "--password-stdin"];
    let told = new.spawn(&recover).line().await;
    let (request, request_code) = told.split_once(' ').expect("the request and its code");
    assert_eq!(request_code.split('-').count(), 6, "{told}");

    let requests = bob.ok(&["friends", "requests"]).await;
    assert!(requests.contains(request) && requests.contains("\tada\t") && requests.contains("in 14"), "{requests}");
    assert!(ada.ok(&["friends", "requests"]).await.contains("about your own account"), "told");
    let approve = ["friends", "approve", request, request_code, "--password-stdin"];
    let early = fails(&bob, &approve, "correct horse\n").await;
    assert!(early.contains("23 h 59 min are left") || early.contains("24 h 0 min are left"), "{early}");
    let slip = if request_code.starts_with('0') {
        request_code.replacen('0', "1", 1)
    } else {
        format!("0{}", &request_code[1..])
    };
    let now = ["--recovery-window", "0", "friends", "approve", request];
    let wrong = [&now[..], &[slip.as_str(), "--password-stdin"]].concat();
    assert!(fails(&bob, &wrong, "correct horse\n").await.contains("the code is not that of this request"), "slip");
    let right = [&now[..], &[request_code, "--password-stdin"]].concat();
    assert!(fails(&bob, &right, "wrong horse\n").await.contains("wrong"), "password");
    ok(&bob, &right, "correct horse\n").await;
    ok(&cyd, &right, "correct horse\n").await;

    let done = ok(&new, &recover, "a brand new horse\n").await;
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines.len() == 3 && lines[0] == told && lines[1].split('-').count() == 14, "{}", done.stdout);
    assert!(lines[1] != code && lines[2].ends_with(" ada"), "{}", done.stdout);
    assert!(done.stderr.contains("are enough") && done.stderr.contains("`session list`"), "{}", done.stderr);
    let read = new.ok(&["read", &chat]).await;
    assert!(read.contains("the plan"), "what was said before is open at once: {read}");
    eventually("the new device among the sessions", async || {
        new.ok(&["session", "list"]).await.matches("\tlive\t").count() == 2
    })
    .await;
    let read: Vec<Value> =
        new.ok(&["--json", "chat", "list"]).await.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read[0]["chat_id"], chat.as_str());
    let gone = new.fails(&["friends", "list"]).await;
    assert!(gone.contains("nothing is shared with friends"), "{gone}");
    let old = Profile::new(&parent, "old");
    let login = ["login", "--server", server, "ada", "--password-stdin"];
    assert!(fails(&old, &login, "correct horse\n").await.contains("wrong"), "the old password");
    ok(&old, &login, "a brand new horse\n").await;
}

#[tokio::test]
async fn a_request_that_is_not_ones_own_is_cancelled() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let server = broker.public.as_str();
    let ([ada, bob, _cyd], chat) = three(server, &parent).await;
    ok(&ada, &["friends", "share", "--of", "2", "bob", "cyd", "--password-stdin"], "correct horse\n").await;
    let mut requests = Vec::new();
    for thief in ["one", "two"] {
        let thief = Profile::new(&parent, thief);
        let told = thief.spawn(&["--json", "friends", "recover", "--server", server, "ada"]).line().await;
        let told: Value = serde_json::from_str(&told).unwrap();
        requests.push(told["request_id"].as_str().unwrap().to_owned());
    }
    // Any command says so, unless it is over before it has heard of it.
    eventually("a word of the requests", async || {
        let done = ada.run(&["read", &chat]).await;
        done.stderr.contains("somebody asks your friends to recover this account")
    })
    .await;
    ok(&ada, &["friends", "cancel", &requests[0]], "").await;
    let alone = fails(&ada, &["friends", "cancel", &requests[1]], "").await;
    assert!(alone.contains("no terminal") || alone.contains("password"), "{alone}");
    ok(&ada, &["friends", "cancel", &requests[1], "--password-stdin"], "correct horse\n").await;
    assert_eq!(ada.ok(&["friends", "requests"]).await, "");
    let code = "0000-0000-0000-0000-0000-0000";
    let approve = ["--recovery-window", "0", "friends", "approve", &requests[0], code, "--password-stdin"];
    assert!(fails(&bob, &approve, "correct horse\n").await.contains("no such request that is open"), "cancelled");
}
