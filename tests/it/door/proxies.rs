//! Who is believed, how many of one address may come, and what every answer has.

use sealcast::protocol::account::INFO_PATH;

use super::{get, open_socket};
use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;
use crate::support::eventually;

fn behind_a_proxy(database: &Database) -> Settings {
    Settings::on(database)
        .with("server.trusted_proxies", "127.0.0.1")
        .with("server.address_header", "X-Forwarded-For")
        .with("limits.connections_max_address", 2)
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let database = Database::create().await;
    let broker = Broker::start_with(behind_a_proxy(&database)).await;
    let (home, other) = (["x-forwarded-for: 203.0.113.1"], ["x-forwarded-for: 203.0.113.1, 203.0.113.2"]);
    let first = open_socket(broker.address(), &home).await;
    let second = open_socket(broker.address(), &home).await;
    assert_eq!((first.status, second.status), (101, 101));
    let third = open_socket(broker.address(), &home).await;
    assert_eq!(third.status, 429);
    assert!(third.body().await.contains("limit_reached"));
    // The proxy saw another one, whatever stands before.
    assert_eq!(open_socket(broker.address(), &other).await.status, 101);
    assert!(broker.metric("sealcast_door_refusals_total", "reason=\"connections\"").await >= 1.0);
    drop(first);
    eventually("a place that is free again", async || open_socket(broker.address(), &home).await.status == 101).await;
}

#[tokio::test]
async fn nobody_is_believed_who_is_no_trusted_proxy() {
    let database = Database::create().await;
    let settings = behind_a_proxy(&database).with("server.trusted_proxies", "192.0.2.1");
    let broker = Broker::start_with(settings).await;
    let mut kept = Vec::new();
    for number in 0..3 {
        kept.push(open_socket(broker.address(), &[&format!("x-forwarded-for: 203.0.113.{number}")]).await);
    }
    let statuses: Vec<u16> = kept.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [101, 101, 429], "they all come from here");
    let id = "x-request-id: from-outside";
    assert_ne!(get(broker.address(), INFO_PATH, &[id]).await.header("x-request-id"), Some("from-outside"));
}

#[tokio::test]
async fn an_address_opens_connections_at_its_rate() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.handshakes_per_minute_address", 1);
    let broker = Broker::start_with(settings).await;
    assert_eq!(get(broker.address(), INFO_PATH, &[]).await.status, 200);
    let refused = get(broker.address(), INFO_PATH, &[]).await;
    assert_eq!(refused.status, 429);
    let wait_s: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    assert!(refused.body().await.contains("rate_limited"));
    assert!(broker.metric("sealcast_door_refusals_total", "reason=\"handshakes\"").await >= 1.0);
}

#[tokio::test]
async fn every_answer_has_its_headers_and_an_id_of_its_own() {
    let database = Database::create().await;
    let broker = Broker::start_with(behind_a_proxy(&database)).await;
    let mut ids = Vec::new();
    for path in [INFO_PATH, "/nothing/here", "/v1/socket"] {
        let answer = get(broker.address(), path, &[]).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert_eq!(answer.header("strict-transport-security"), None, "there is no TLS here");
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    let socket = open_socket(broker.address(), &[]).await;
    ids.push(socket.header("x-request-id").unwrap().to_owned());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let told = get(broker.address(), INFO_PATH, &["x-request-id: from-the-proxy"]).await;
    assert_eq!(told.header("x-request-id"), Some("from-the-proxy"));
    let bad = get(broker.address(), INFO_PATH, &["x-request-id: a b"]).await;
    assert!(bad.header("x-request-id").is_some_and(|id| id != "a b"));
}

#[tokio::test]
async fn a_request_for_another_host_is_refused() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("server.hosts", "chat.example, 127.0.0.1")).await;
    for host in ["host: chat.example", "host: CHAT.example:8080"] {
        assert_eq!(get(broker.address(), INFO_PATH, &[host]).await.status, 200, "{host}");
    }
    assert_eq!(open_socket(broker.address(), &[]).await.status, 101);
    assert_eq!(open_socket(broker.address(), &["host: evil.example"]).await.status, 421);
    let refused = get(broker.address(), INFO_PATH, &["host: evil.example"]).await;
    assert_eq!(refused.status, 421);
    assert!(refused.body().await.contains("malformed"));
}
