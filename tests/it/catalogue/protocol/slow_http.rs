//! W15: connections that never come to the end of a request, or never take the answer. Each ends in time, and its place is
//! free again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sealcast::protocol::frame::{Nothing, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::{eventually, patiently, trials, within};
use super::line::handshake;
use super::unharmed;

/// How a request is begun, and what trickles in behind it for ever.
fn slow(body: &str) -> Vec<(&'static str, String, &'static str)> {
    let post = |lines: &str, body: &str| format!("POST /v1/accounts HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}");
    let get = |lines: &str| format!("GET /v1/info HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    let upgrade = handshake("Sec-WebSocket-Protocol: sealcast.v1.json\r\n");
    vec![
        ("says nothing", String::new(), ""),
        ("half a head", "GET /v1/info HTTP/1.1\r\nHost: local".to_owned(), ""),
        ("a head that trickles", "GET /v1/info HTTP/1.1\r\nHost: localhost\r\n".to_owned(), "X: y\r\n"),
        ("a handshake that stops", upgrade[..upgrade.len() - 4].to_owned(), ""),
        ("a body that does not come", post("Content-Length: 1000\r\n", ""), ""),
        ("a body that stops", post("Content-Length: 1000\r\n", &body[..10]), ""),
        ("a body that trickles", post("Content-Length: 10000\r\n", &body[..10]), " "),
        ("chunks that stop", post("Transfer-Encoding: chunked\r\n", "5\r\n{\"a\"\r\n"), ""),
        ("chunks that trickle", post("Transfer-Encoding: chunked\r\n", "1\r\n{\r\n"), "1\r\n \r\n"),
        ("a size that trickles", post("Transfer-Encoding: chunked\r\n", ""), "0"),
        ("an extension that trickles", post("Transfer-Encoding: chunked\r\n", "5;"), "x"),
        ("a body that nobody asked for", get("Content-Length: 1000\r\n"), ""),
        ("chunks that nobody asked for", get("Transfer-Encoding: chunked\r\n"), "1\r\n \r\n"),
        ("a body for nobody", get("Content-Length: 1000\r\n").replace("info", "nothing"), " "),
        ("a second request that stops", format!("{}GET /v1/in", get("Connection: keep-alive\r\n")), ""),
        ("expects to go on and does not", post("Expect: 100-continue\r\nContent-Length: 1000\r\n", ""), ""),
    ]
}

/// Keeps a connection as long as it goes; gives what was answered.
async fn hold(mut stream: TcpStream, start: String, trickle: &'static str) -> String {
    let _ = stream.write_all(start.as_bytes()).await;
    let mut answer = Vec::new();
    loop {
        let mut block = [0; 4096];
        match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut block)).await {
            Ok(Ok(0) | Err(_)) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(Ok(count)) => answer.extend(&block[..count]),
            // Whether it is still taken is seen by reading alone.
            Err(_) => drop(stream.write_all(trickle.as_bytes()).await),
        }
    }
}

/// Descriptors that the broker has open, but for Unix sockets: it may come to need more connections to the database.
fn descriptors(broker: &Broker) -> usize {
    let unix = std::fs::read_to_string("/proc/net/unix").unwrap();
    let inodes: HashSet<&str> = unix.lines().filter_map(|line| line.split_whitespace().nth(6)).collect();
    let open = std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap();
    let targets = open.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
    targets
        .filter(|target| {
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|inode| inode.strip_suffix("]"));
            inode.is_none_or(|inode| !inodes.contains(inode))
        })
        .count()
}

#[tokio::test]
async fn w15_whoever_never_finishes_a_request_is_ended_and_gives_the_place_back() {
    let database = Database::create().await;
    // An exchange may last as long as a login and an answer of the database together. With five sockets allowed there is
    // room for ten connections: fewer than are held at once.
    let settings = Settings::on(&database)
        .with("server.login_timeout_s", 2)
        .with("database.deadline_s", 2)
        .with("server.workers", 1)
        .with("server.connections_max", 5);
    let broker = Broker::start_with(settings).await;
    let device = Device::register(&broker, "good").await;
    let mut socket = device.connect(&broker).await;
    let before = descriptors(&broker);
    let body = serde_json::to_string(&device.registration()).unwrap();
    let is_over = AtomicBool::new(false);
    let rounds = trials(1, 20);
    let slow_ones = patiently(rounds, async {
        let mut held = Vec::new();
        for _ in 0..rounds {
            for (name, start, trickle) in slow(&body) {
                let stream = within("a connection", TcpStream::connect(broker.address())).await.unwrap();
                held.push((name, tokio::spawn(hold(stream, start, trickle))));
            }
        }
        // Somebody with an honest request waits behind them, and is served.
        assert_eq!(broker.request("GET", "/v1/info", "").await.0, 200);
        for (name, held) in held {
            let answer = within(name, held).await.unwrap();
            assert!(answer.matches("HTTP/1.1 ").count() <= 2, "{name}: {answer}");
            assert!(!answer.contains(" 101 "), "{name}: {answer}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    // Who has a socket is no exchange: served all the while, and not cut for its age.
    let beside = async {
        while !is_over.load(Ordering::Relaxed) {
            socket.request(Request::Ping(Nothing {})).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::join!(slow_ones, beside);
    eventually("all descriptors to be given back", async || descriptors(&broker) <= before).await;
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    unharmed(&broker).await;
}
