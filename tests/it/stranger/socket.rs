//! HTTP/1.1 and the WebSocket protocol (RFC 6455) by hand over TCP, as much of them as a client needs.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every wait ends here, as a failure.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// One HTTP exchange: status and body.
pub async fn http(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("an HTTP answer", stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

/// What came over a socket.
#[derive(Debug)]
pub enum Received {
    /// A frame.
    Frame(Value),
    /// A close code and its reason.
    Closed(u16, String),
}

/// A WebSocket that speaks JSON.
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Shakes hands.
    pub async fn open(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET /v1/socket HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-protocol: sealcast.v1.json\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within("a handshake", stream.read_u8()).await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(answer.contains("\r\nsec-websocket-protocol: sealcast.v1.json\r\n"), "{answer}");
        // The answer to the key of RFC 6455 section 1.3.
        assert!(answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        Self { stream }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) {
        self.write(1, frame.to_string().as_bytes()).await;
    }

    async fn write(&mut self, opcode: u8, payload: &[u8]) {
        let mut out = vec![0x80 | opcode];
        match payload.len() {
            short @ 0..126 => out.push(0x80 | short as u8),
            middle @ 126..65536 => {
                out.push(0x80 | 126);
                out.extend((middle as u16).to_be_bytes());
            }
            long => {
                out.push(0x80 | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [0x5e, 0xa1, 0xca, 0x57];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next frame or the end; pings are answered on the way.
    pub async fn receive(&mut self) -> Received {
        within("a frame", async {
            loop {
                let (opcode, payload) = self.read().await;
                match opcode {
                    1 => return Received::Frame(serde_json::from_slice(&payload).unwrap()),
                    8 => {
                        let code = payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code));
                        let reason = payload.get(2..).unwrap_or_default().to_vec();
                        return Received::Closed(code, String::from_utf8(reason).unwrap());
                    }
                    9 => self.write(10, &payload).await,
                    10 => {}
                    other => panic!("opcode {other}"),
                }
            }
        })
        .await
    }

    /// The next frame.
    pub async fn frame(&mut self) -> Value {
        match self.receive().await {
            Received::Frame(frame) => frame,
            Received::Closed(code, reason) => panic!("closed with {code} {reason}"),
        }
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        let head = self.stream.read_u8().await.unwrap();
        assert_eq!(head & 0xf0, 0x80, "whole messages, no extension");
        let length = match self.stream.read_u8().await.unwrap() {
            126 => u64::from(self.stream.read_u16().await.unwrap()),
            127 => self.stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        assert!(length < 1 << 24, "{length} bytes");
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.unwrap();
        (head & 0x0f, payload)
    }
}
