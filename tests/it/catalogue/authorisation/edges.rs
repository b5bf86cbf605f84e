//! Z14: what is the operator's is not the public's.

use std::io::{Read, Write};

use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::{DEADLINE, within};

/// The status of one HTTP request whose first line is given as it is to stand on the wire.
async fn status_of(address: &str, first_line: &str) -> u16 {
    let (address, first_line) = (address.to_owned(), first_line.to_owned());
    let exchange = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("{first_line}\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(!text.contains("sealcast_") && !text.contains("ready\n"), "{first_line}: {text}");
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    });
    within("an HTTP answer", exchange).await.unwrap()
}

#[tokio::test]
async fn z14_the_operators_endpoints_are_not_on_the_public_port_by_any_spelling() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let public = broker.address();
    for path in ["/healthz", "/readyz", "/metrics", "/fail-points/commit::before"] {
        for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
            assert_eq!(status_of(public, &format!("{method} {path} HTTP/1.1")).await, 404, "{method} {path}");
        }
    }
    let operator = broker.operator.strip_prefix("http://").unwrap();
    for target in [
        "/metrics/",
        "//metrics",
        "/./metrics",
        "/v1/../metrics",
        "/v1/users/../../metrics",
        "/%6detrics",
        "/metrics%2f",
        "/metrics?x=1",
        "/metrics;x",
        "/METRICS",
        &format!("http://{operator}/metrics"),
        &format!("http://{public}/metrics"),
    ] {
        let status = status_of(public, &format!("GET {target} HTTP/1.1")).await;
        assert!((400..500).contains(&status), "{target}: {status}");
    }
    // Nor is the public's on the operator's, where nobody logs in.
    for path in ["/v1/info", "/v1/socket", "/v1/users/ada", "/v1/accounts", "/v1/links"] {
        for method in ["GET", "POST"] {
            assert_eq!(status_of(operator, &format!("{method} {path} HTTP/1.1")).await, 404, "{method} {path}");
        }
    }
    assert_eq!(broker.operator_get("/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(broker.request("GET", "/v1/info", "").await.0, 200);
}
