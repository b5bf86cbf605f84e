//! A user with one device: keys, certificate, registration, and the connection on which it asks and is told.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::bytes::{id_text, number, text};
use super::socket::{Received, Socket, http, within};
use super::{crypto, formats};

/// A user's device and all its secrets.
pub struct Person {
    /// As registered.
    pub username: String,
    /// The user's id.
    pub user_id: Value,
    /// The session's id.
    pub session_id: Value,
    /// The private half of the identity key.
    pub identity: [u8; 32],
    /// The private half of the session's Ed25519 key.
    pub signing: [u8; 32],
    /// The private half of the session's X25519 key.
    pub exchange: [u8; 32],
    /// The signed certificate.
    pub certificate: Value,
}

/// A fresh identifier.
pub fn new_id() -> Value {
    id_text(&random::<16>()).into()
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    rand::random()
}

impl Person {
    /// Makes keys and a certificate that runs from `now` for thirty days.
    pub fn new(username: &str, now: u64) -> Self {
        let (identity, signing, exchange) = (random(), random(), random());
        let (user_id, session_id) = (new_id(), new_id());
        let certificate = json!({
            "user_id": user_id,
            "place": 1,
            "previous": text(&formats::user_chain(&user_id).hash()),
            "session_id": session_id,
            "public_key": text(&crypto::exchange_public(&exchange)),
            "signing_public_key": text(&crypto::public(&signing)),
            "created_at": now,
            "expired_at": now + 30 * 86_400_000_000,
        });
        let signature = crypto::sign(&identity, &formats::certificate(&certificate));
        let certificate = json!({"certificate": certificate, "signature": signature});
        Self { username: username.to_owned(), user_id, session_id, identity, signing, exchange, certificate }
    }

    /// The public half of the identity key.
    pub fn identity_key(&self) -> Value {
        text(&crypto::public(&self.identity))
    }

    /// Registers.
    pub async fn register(&self, address: &str) {
        let body = json!({
            "user_id": self.user_id,
            "username": self.username,
            "identity_key": self.identity_key(),
            "certificate": self.certificate,
        });
        let (status, answer) = http(address, "POST", "/v1/accounts", &body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer, json!({"user_id": self.user_id, "username": self.username.to_lowercase()}));
    }

    /// Renews its session for a day more, over the same keys.
    pub async fn renew(&mut self, connection: &mut Connection) {
        let before = &self.certificate["certificate"];
        let previous = formats::user_event(&formats::certificate(before), &self.certificate["signature"]);
        let mut certificate = before.clone();
        certificate["place"] = (number(&before["place"]) + 1).into();
        certificate["previous"] = text(&previous.hash());
        certificate["expired_at"] = (number(&before["expired_at"]) + 86_400_000_000).into();
        let signature = crypto::sign(&self.identity, &formats::certificate(&certificate));
        self.certificate = json!({"certificate": certificate, "signature": signature});
        let request = json!({"certificate": self.certificate, "handover": ""});
        connection.get("approve_session", request, "done").await;
    }

    /// Connects and logs in.
    pub async fn connect(&self, address: &str, server_name: &str) -> Connection {
        let mut socket = Socket::open(address).await;
        let hello = socket.frame().await;
        assert_eq!(hello["type"], "hello");
        assert_eq!(hello["data"]["server_name"], server_name);
        let signed = formats::login(&hello["data"]["nonce"], server_name, &self.session_id);
        let mut connection = Connection { socket, pushes: VecDeque::new(), last_id: 0 };
        let signature = crypto::sign(&self.signing, &signed);
        let login = json!({"session_id": self.session_id, "signature": signature});
        let answer = connection.ask("authenticate", login).await;
        let expected = json!({"type": "authenticated", "data": {"user_id": self.user_id, "state": "live"}});
        assert_eq!(answer, Ok(expected));
        connection
    }
}

/// A connection that is logged in.
pub struct Connection {
    socket: Socket,
    pushes: VecDeque<Value>,
    last_id: u64,
}

impl Connection {
    /// Asks and waits for the answer: its `result`, or the error's `data`.
    pub async fn ask(&mut self, kind: &str, data: Value) -> Result<Value, Value> {
        self.last_id += 1;
        self.socket.send(&json!({"id": self.last_id, "request": {"type": kind, "data": data}})).await;
        within("an answer", async {
            loop {
                let frame = self.socket.frame().await;
                let is_mine = frame["data"]["id"] == self.last_id;
                match frame["type"].as_str() {
                    Some("ok") if is_mine => return Ok(frame["data"]["result"].clone()),
                    Some("error") if is_mine => return Err(frame["data"].clone()),
                    _ => self.pushes.push_back(frame),
                }
            }
        })
        .await
    }

    /// Asks for something that must be granted; gives the answer's `data`.
    pub async fn get(&mut self, kind: &str, data: Value, answer: &str) -> Value {
        let mut result = self.ask(kind, data).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(result["type"], answer);
        result["data"].take()
    }

    /// The next push.
    pub async fn push(&mut self) -> Value {
        match self.pushes.pop_front() {
            Some(push) => push,
            None => self.socket.frame().await,
        }
    }

    /// The close code that ends the connection.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Received::Closed(code, _) = self.socket.receive().await {
                return code;
            }
        }
    }
}
