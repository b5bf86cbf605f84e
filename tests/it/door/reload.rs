//! SIGHUP: what may change does, what cannot be used changes nothing, and each is said once.

use std::path::Path;

use sealcast::protocol::account::{ACCOUNTS_PATH, INFO_PATH};
use sealcast::protocol::error::ErrorCode;
use tempfile::TempDir;

use super::{get, open_socket};
use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;
use crate::support::device::Device;
use crate::support::eventually;

fn lines_with(log: &Path, words: &str) -> usize {
    std::fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn settings_are_read_again_and_a_bad_file_changes_nothing() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let (file, log) = (folder.path().join("config.toml"), folder.path().join("log"));
    std::fs::write(&file, "[log]\nformat = \"json\"\n").unwrap();
    let settings = Settings::on(&database).with_variable("SEALCAST_CONFIG", file.display());
    let broker = Broker::start_logging(settings, &log).await;
    let socket = open_socket(broker.address(), &[]).await;
    assert_eq!((socket.status, get(broker.address(), INFO_PATH, &[]).await.status), (101, 200));
    assert_eq!(lines_with(&log, "\"answered\""), 0);

    let newer =
        "[server]\nhosts = [\"chat.example\"]\nname = \"another\"\n[log]\nformat = \"json\"\nfilter = \"debug\"\n";
    std::fs::write(&file, newer).unwrap();
    broker.signal("HUP");
    eventually("the word of the settings", async || lines_with(&log, "settings read again") == 1).await;
    assert_eq!(lines_with(&log, "server.name"), 1, "what cannot change is named");
    let refused = get(broker.address(), INFO_PATH, &[]).await;
    assert_eq!(refused.status, 421);
    // The new filter shows what is answered, under the id that the answer has, and no path.
    let id = refused.header("x-request-id").unwrap().to_owned();
    eventually("the line of the answer", async || lines_with(&log, &id) == 1).await;
    let answer = get(broker.address(), "/v1/users/canary", &["host: chat.example"]).await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    eventually("the line of the second answer", async || lines_with(&log, &id) >= 1).await;
    assert_eq!(lines_with(&log, "canary"), 0);

    std::fs::write(&file, "[server]\nhosts = []\nnonsense = 1\n").unwrap();
    broker.signal("HUP");
    eventually("the word of the mistake", async || lines_with(&log, "settings not read again") == 1).await;
    assert_eq!(lines_with(&log, "server.nonsense"), 1, "it is told where it is");
    assert_eq!(get(broker.address(), INFO_PATH, &[]).await.status, 421, "nothing changed");
    assert_eq!(lines_with(&log, "settings not read again"), 1);
}

#[tokio::test]
async fn who_may_register_is_read_again() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let (file, log) = (folder.path().join("config.toml"), folder.path().join("log"));
    std::fs::write(&file, "[registration]\nmode = \"open\"\n").unwrap();
    let settings = Settings::on(&database).with_variable("SEALCAST_CONFIG", file.display());
    let broker = Broker::start_logging(settings, &log).await;
    Device::register(&broker, "ada").await;
    std::fs::write(&file, "[registration]\nmode = \"closed\"\n").unwrap();
    broker.signal("HUP");
    eventually("the word of the settings", async || lines_with(&log, "settings read again") == 1).await;
    let request = serde_json::to_string(&Device::unregistered("bob", 1_000).registration()).unwrap();
    let (status, answer) = broker.request("POST", ACCOUNTS_PATH, &request).await;
    assert!(status == 403 && answer.contains(ErrorCode::RegistrationClosed.as_str()), "{status}: {answer}");
}
