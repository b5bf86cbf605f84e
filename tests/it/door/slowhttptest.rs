//! `slowhttptest` against the public listener: slow heads, slow bodies, slow readers; meanwhile people chat.

use std::process::Stdio;

use sealcast::protocol::account::{ACCOUNTS_PATH, INFO_PATH};
use tokio::process::Command;

use crate::messages::Pair;
use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;
use crate::support::{eventually, within};

/// Runs one of its tests with 60 connections; gives what it says.
async fn slow(broker: &Broker, path: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("slowhttptest");
    command.args(["-c", "60", "-r", "60", "-p", "5", "-u", &format!("{}{path}", broker.public)]).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the end of slowhttptest", command.output()).await;
    let output = output.expect("slowhttptest is missing: apt-get install slowhttptest");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count()
}

#[tokio::test]
async fn p9_slow_heads_bodies_and_readers_hold_up_nobody_and_are_cut() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.login_timeout_s", 2).with("database.deadline_s", 2);
    let mut pair = Pair::start_on(database, settings).await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "before").await.unwrap();
    let (memory, open) = (pair.broker.rss_mib(), descriptors(&pair.broker));
    // They would go on for 25 seconds: what ends before that was ended by the broker.
    let heads = slow(&pair.broker, INFO_PATH, &["-H", "-i", "1", "-l", "25"]);
    let bodies = slow(&pair.broker, ACCOUNTS_PATH, &["-B", "-i", "1", "-l", "25"]);
    let readers = slow(&pair.broker, INFO_PATH, &["-X", "-n", "1", "-z", "32", "-w", "1", "-y", "2", "-l", "6"]);
    let attacks = async { tokio::join!(heads, bodies, readers) };
    tokio::pin!(attacks);
    let mut said = 0;
    let (heads, bodies, readers) = loop {
        tokio::select! {
            done = &mut attacks => break done,
            sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "meanwhile") => {
                sent.unwrap();
                said += 1;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(said > 10, "people chat meanwhile: {said}");
    for (what, told) in [("heads", &heads), ("bodies", &bodies), ("readers", &readers)] {
        assert!(told.contains("service available"), "{what}: {told}");
        let is_away = told.lines().any(|line| line.contains("service available") && line.contains("NO"));
        assert!(!is_away, "{what}: {told}");
    }
    for (what, told) in [("heads", &heads), ("bodies", &bodies)] {
        assert!(told.contains("No open connections left"), "{what} were not cut: {told}");
    }
    eventually("all their places", async || descriptors(&pair.broker) <= open + 2).await;
    let grown = pair.broker.rss_mib().saturating_sub(memory);
    assert!(grown < 64, "memory grew by {grown} MiB");
}
