//! The door: settings and their reload, proxies, limits of addresses, headers, TLS, and those who take their time.

mod config;
mod proxies;
#[cfg(feature = "client")]
mod reload;
mod slow;
mod slowhttptest;
#[cfg(feature = "client")]
mod tls;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::within;

/// The head of an answer, and the connection that it came on.
pub struct Answer {
    pub status: u16,
    head: String,
    pub stream: TcpStream,
}

impl Answer {
    /// The value of a header that is there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().filter_map(|line| {
            let (other, value) = line.split_once(": ")?;
            other.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert!(values.next().is_none(), "{name} is there twice:\n{}", self.head);
        value
    }

    /// The rest of the answer.
    pub async fn body(mut self) -> String {
        let mut body = Vec::new();
        within("an answer's end", self.stream.read_to_end(&mut body)).await.unwrap();
        String::from_utf8(body).unwrap()
    }
}

/// One GET by hand, with further header lines; the answer's head is read.
pub async fn get(address: &str, path: &str, lines: &[&str]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let host = if lines.to_lowercase().contains("host: ") { String::new() } else { format!("host: {address}\r\n") };
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{host}{lines}\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    within("an answer's head", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, stream }
}

/// Opens a socket by hand, with further header lines.
pub async fn open_socket(address: &str, lines: &[&str]) -> Answer {
    let mut all = vec![
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let subprotocol = format!("sec-websocket-protocol: {}", sealcast::protocol::codec::Encoding::Json.subprotocol());
    all.push(&subprotocol);
    all.extend(lines);
    get(address, sealcast::protocol::account::SOCKET_PATH, &all).await
}
